"""How does a stage that decides about one batch at a time write a table of decisions?

In `process` it puts what it decides into a file for the batch, `write_batch_decisions`, and in `finish` the files become the
table, `finish_batch_decisions`: only then the batches have numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.decisions import SCHEMA, decisions_table, finish_decisions, write_parts
from curator_core.across.roll import Roll, first_number
from curator_core.arrow.arrays import array, to_numpy
from curator_core.model.task import DocumentBatch, FileRecord

# Of the batches; they stay, since a run that is resumed with more of them numbers all anew.
_FOLDER = "_batches"
_ROW = "row_in_batch"
# A part is read a row group at a time, and there should not be a hundred thousand parts.
_DOCUMENTS_PER_PART = 1 << 20


def write_batch_decisions(
    folder: str, task: DocumentBatch, rows: NDArray[np.int64], columns: Mapping[str, Any]
) -> FileRecord:
    """Put decisions about ``rows`` of a batch into a file of the batch; ``columns`` are some of those of the table.

    The record is to be handed on, by `record_output` or with the task that is returned; it counts all rows of the batch.
    """
    given = decisions_table({"number": array(rows.astype(np.uint64)), **columns})
    chosen = given.select([name for name in SCHEMA.names if name in columns])
    table = chosen.add_column(0, _ROW, given["number"])
    with (
        storage.write_atomic(storage.join(folder, _FOLDER, f"{task.task_id or 'batch'}.arrow")) as out,
        pa.ipc.new_file(out, table.schema) as writer,
    ):
        writer.write_table(table)
    return out.record(rows=task.num_rows)


def finish_batch_decisions(
    folder: str, outputs: Sequence[FileRecord], settings: Mapping[str, Any] | None = None
) -> list[FileRecord]:
    """Make the table of the files of all batches, in lineage order; returns what stands, for `finish` to return."""
    roll = Roll.of(outputs)
    parts = roll.ranges(-(-roll.documents // _DOCUMENTS_PER_PART) or 1)
    records = [
        write_parts(folder, f"part-{number:05}", _numbered(outputs, first, stop, roll))
        for number, (first, stop) in enumerate(parts)
    ]
    finish_decisions(folder, records, roll, settings)
    # The rows of the table are those of its parts.
    return [*records, *(replace(record, rows=0) for record in outputs)]


def _numbered(outputs: Sequence[FileRecord], first: int, stop: int, roll: Roll) -> Iterator[pa.Table]:
    for batch in range(first, stop):
        with storage.open_input(outputs[batch].path) as stream, pa.ipc.open_file(stream) as file:
            table = file.read_all()
        numbers = to_numpy(table[_ROW]) + first_number(batch)
        columns = {name: table[name] for name in table.column_names if name != _ROW}
        yield decisions_table({"number": array(numbers), **columns}, roll)
