"""How do decisions get from the partitions that decide to the table of decisions?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.decisions import KEPT, REMOVED, decisions_table, finish_decisions, write_decisions
from curator_core.across.index import OldDocuments
from curator_core.across.inputs import INPUTS
from curator_core.across.roll import Roll
from curator_core.across.shuffle import partition_pieces
from curator_core.arrow.arrays import array, null, scalar, to_numpy
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import FileGroupTask, FileRecord

ROLL = "roll.arrow"
# The number of decisions in one table.
TOGETHER = 1 << 17
# The figures that a rule may give, and their types; a figure that the rule does not give is null.
FIGURES = {
    "jaccard": pa.float64(),
    "containment": pa.float64(),
    "new_words": pa.int64(),
    "shared_bands": pa.int64(),
    "similarity": pa.float64(),
}

_AS_THEY_ARE = ("copy_of", "copy_of_id", "component_size")


def decided_rows(
    numbers: NDArray[np.uint64],
    witnesses: NDArray[np.uint64],
    *,
    names: pa.Table,
    at: NDArray[np.int64],
    witness_at: NDArray[np.int64],
    figures: Mapping[str, Any],
    rules: pa.Array,
    copy_at: NDArray[np.int64] | None = None,
    component_sizes: NDArray[np.int64] | None = None,
    most: int = TOGETHER,
) -> Iterator[pa.Table]:
    """A row for each removed document and one for each witness, in tables of at most ``most`` rows.

    ``numbers`` are the removed documents and ``witnesses`` the document that each was removed for. ``names`` holds
    ``id`` and ``collection`` of all documents; ``at`` and ``witness_at`` are their rows in it. ``figures`` and
    ``rules`` describe the removed documents. ``copy_at`` is the row of the document that each is an exact copy of, if
    that document was removed as well; otherwise it is the row of the document itself. ``component_sizes`` covers all
    documents.
    """
    kept, first, sizes = np.unique(witnesses, return_index=True, return_counts=True)
    size_of = sizes[np.searchsorted(kept, witnesses)]
    removed, count = len(numbers), len(numbers) + len(kept)
    given = {name: values for name, values in figures.items() if values is not None}
    names = names.select(["number", "id", "collection"]).combine_chunks()
    for low in range(0, max(count, 1), most):
        high = min(low + most, count)
        # The rows `low` to `high`, where the removed documents come first and the witnesses follow.
        gone, stay = slice(min(low, removed), min(high, removed)), slice(max(low - removed, 0), max(high - removed, 0))
        again = first[stay]
        rows = np.concatenate([at[gone], witness_at[again]])
        copied = np.concatenate([(at if copy_at is None else copy_at)[gone], witness_at[again]])
        own, theirs = names.take(array(rows)), np.concatenate([witness_at[gone], witness_at[again]])
        copies = names.select(["number", "id"]).take(array(copied))
        is_copy = array(copied != rows)
        here = gone.stop - gone.start
        columns: dict[str, Any] = {
            "number": array(np.concatenate([numbers[gone], kept[stay]])),
            "witness_number": array(np.concatenate([witnesses[gone], kept[stay]])),
            "removed": array(np.arange(high - low) < here),
            "id": own["id"],
            "witness_id": names["id"].take(array(theirs)),
            "collection": own["collection"],
            "cluster_size": array(np.concatenate([size_of[gone], sizes[stay]]).astype(np.int64) + 1),
            "rule": pa.concat_arrays([rules[gone], pa.nulls(high - low - here, pa.string())]),
            "copy_of": pc.if_else(is_copy, copies["number"], null(pa.uint64())),
            "copy_of_id": pc.if_else(is_copy, copies["id"], null(pa.string())),
            "component_size": (
                pa.nulls(high - low, pa.int64()) if component_sizes is None else array(component_sizes[rows])
            ),
        }
        for name, kind in FIGURES.items():
            values = (
                array(np.broadcast_to(given[name], removed)[gone].astype(kind.to_pandas_dtype()))
                if name in given
                else pa.nulls(here, kind)
            )
            columns[name] = pa.concat_arrays([values, pa.nulls(high - low - here, kind)])
        yield pa.table(columns)


@dataclass(kw_only=True)
class WriteDecisions(ProcessingStage[FileGroupTask, FileGroupTask]):
    """Writes the table of decisions: one part for each partition of batches, and at the end the manifest."""

    path: str
    keys: str
    decided_by: Mapping[str, Any] = field(default_factory=dict)

    def output_folder(self) -> str:
        return self.path

    def repacks(self) -> bool:
        return False

    def setup(self, worker: Any) -> None:
        self._roll = Roll.read(storage.join(self.keys, ROLL))
        self._old = OldDocuments(self.keys, len(self._roll))

    def process(self, task: FileGroupTask) -> FileGroupTask:
        table = pa.concat_tables([piece for _, piece in partition_pieces(task)], promote_options="default")
        removed = table["removed"]
        none = null(pa.uint64())
        witnesses, sources, rows = self._old.places_in_table(to_numpy(table["witness_number"]), self._roll)
        collections = table["collection"].cast(pa.string())
        columns = {
            **{name: table[name] for name in ("number", "id", "cluster_size", "rule", *_AS_THEY_ARE, *FIGURES)},
            "collection": collections,
            "decision": pc.if_else(removed, scalar(REMOVED), scalar(KEPT)),
            "witness_number": pc.if_else(removed, array(witnesses), none),
            "witness_source": pc.if_else(removed, sources, null(pa.string())),
            "witness_row": pc.if_else(removed, array(rows), null(pa.int64())),
            "witness_id": pc.if_else(removed, table["witness_id"], null(pa.string())),
            "cluster": array(witnesses),
        }
        record = write_decisions(self.path, task.task_id, decisions_table(columns, self._roll))
        self.record_output(record)
        return FileGroupTask(data=[record.path], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        inputs = storage.read_bytes(storage.join(self.keys, INPUTS))
        storage.write_bytes_atomic(storage.join(self.path, INPUTS), inputs)
        finish_decisions(self.path, outputs, Roll.read(storage.join(self.keys, ROLL)), self.decided_by)
