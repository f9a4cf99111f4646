"""How does a stage that decides about one batch at a time write a table of decisions?

In `process` it writes its decisions to a file for the batch (`write_batch_decisions`). In `finish` it makes the table
from these files (`finish_batch_decisions`), because the batches have no numbers before that. If an earlier step has
numbered them and most documents are removed, a pipeline of `DecidedBatches` and `PackDecisions` makes the table in
parallel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.decisions import SCHEMA, decisions_table, finish_decisions, write_parts
from curator_core.across.roll import Roll, first_number
from curator_core.arrow.arrays import array, to_numpy
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.lineage import source_id
from curator_core.model.stage import FanOut, SourceStage
from curator_core.model.task import DocumentBatch, EmptyTask, FileGroupTask, FileRecord

# The files of the batches stay: a run that is resumed with more batches numbers all of them again.
_FOLDER = "_batches"
_ROW = "row_in_batch"
# Parts may be large, since they are read one row group at a time; with smaller ones there could be a hundred thousand.
_DOCUMENTS_PER_PART = 1 << 20


def write_batch_decisions(
    folder: str, task: DocumentBatch, rows: NDArray[np.int64], columns: Mapping[str, Any]
) -> FileRecord:
    """Write decisions about ``rows`` of a batch to the file of the batch; ``columns`` are some of the columns of the
    table.

    The caller must pass the record on, by `record_output` or with the task that it returns. The record counts all rows
    of the batch.
    """
    given = decisions_table({"number": array(rows.astype(np.uint64)), **columns})
    chosen = given.select([name for name in SCHEMA.names if name in columns])
    table = chosen.add_column(0, _ROW, given["number"])
    with (
        storage.write_atomic(_place(folder, task.task_id)) as out,
        pa.ipc.new_file(out, table.schema) as writer,
    ):
        writer.write_table(table)
    return out.record(rows=task.num_rows)


def finish_batch_decisions(
    folder: str, outputs: Sequence[FileRecord], settings: Mapping[str, Any] | None = None
) -> list[FileRecord]:
    """Make the table from the files of all batches, in lineage order; the return value is that of `finish`."""
    roll = Roll.of(outputs)
    paths = [record.path for record in outputs]
    records = [
        write_parts(folder, f"part-{number:05}", _numbered(paths[first:stop], first, roll))
        for number, (first, stop) in enumerate(roll.ranges(_parts(roll)))
    ]
    finish_decisions(folder, records, roll, settings)
    # The files of the batches remain, but their rows are counted in the parts.
    return [*records, *(replace(record, rows=0) for record in outputs)]


@dataclass(kw_only=True)
class DecidedBatches(SourceStage[FileGroupTask]):
    """Lists ranges of batches whose decisions `write_batch_decisions` has written into the folder ``path``; each range
    is a source.

    ``roll`` is the file of the roll that numbers the batches.
    """

    path: str
    roll: str

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        content = storage.read_bytes(self.roll)
        roll = Roll.read(self.roll)
        names = roll.task_ids.to_pylist()
        for number, (first, stop) in enumerate(roll.ranges(_parts(roll))):
            yield FileGroupTask(
                data=[_place(self.path, name) for name in names[first:stop]],
                task_id=source_id(f"part-{number:05}", [str(first), str(stop)]),
                dataset_name=task.dataset_name,
                _generation=hashlib.sha256(content).hexdigest()[:16],
                _metadata={"first": first},
            )


@dataclass(kw_only=True)
class PackDecisions(FanOut[FileGroupTask, FileGroupTask]):
    """Makes a part of a table of decisions, in the folder ``path``, from the decisions about a range of batches."""

    path: str
    roll: str
    decided_by: Mapping[str, Any] = field(default_factory=dict)

    def output_folder(self) -> str:
        return self.path

    def repacks(self) -> bool:
        return False

    def setup(self, worker: WorkerMetadata) -> None:
        self._roll = Roll.read(self.roll)

    def process(self, task: FileGroupTask) -> Iterator[FileGroupTask]:
        tables = _numbered(task.data, task._metadata["first"], self._roll)
        record = write_parts(self.path, task.task_id, tables)
        self.record_output(record)
        yield FileGroupTask(data=[record.path], records=[record], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        finish_decisions(self.path, outputs, Roll.read(self.roll), self.decided_by)


def _parts(roll: Roll) -> int:
    return -(-roll.documents // _DOCUMENTS_PER_PART) or 1


def _place(folder: str, task_id: str) -> str:
    return storage.join(folder, _FOLDER, f"{task_id or 'batch'}.arrow")


def _numbered(paths: Sequence[str], first: int, roll: Roll) -> Iterator[pa.Table]:
    """The decisions in the files of batches; the first batch has the number ``first``."""
    for batch, path in enumerate(paths, first):
        with storage.open_input(path) as stream, pa.ipc.open_file(stream) as file:
            table = file.read_all()
        numbers = to_numpy(table[_ROW]) + first_number(batch)
        columns = {name: table[name] for name in table.column_names if name != _ROW}
        yield decisions_table({"number": array(numbers), **columns}, roll)
