"""What happens to each row once the limits of the score are found? The best rows stay, or each row gets its bucket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.batch_decisions import write_batch_decisions
from curator_core.across.decisions import REMOVED
from curator_core.across.grouping import groups_of
from curator_core.across.roll import Roll, first_number
from curator_core.across.scores import numbers_of
from curator_core.across.selection import ROLL, Requests, Totals, keys_of, read_table, write_table
from curator_core.arrow.arrays import array, to_numpy
from curator_core.arrow.json_column import as_text
from curator_core.errors import RunRefused, check_free
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch, FileRecord

RULE = "fraction"


def write_limits(path: str, answers: Requests) -> FileRecord:
    """Write the requests and their answers to a file that `KeepTop` and `AddBuckets` read."""
    names = ("column", "group", "high", "low", "endless")
    return write_table(path, pa.table({name: array(getattr(answers, name)) for name in names}))


@dataclass(kw_only=True)
class _Limited(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Base of stages that read the data again and apply ``limits``, which were found from the ``scores`` measured
    before.
    """

    scores: str
    limits: str
    by: str | None = None
    bases: Sequence[str] = ()
    owner: str = "KeepTop"

    tried_by_plan = False  # the batches of a preview differ from those of a run

    def setup(self, worker: WorkerMetadata) -> None:
        self._roll = Roll.read(storage.join(self.scores, ROLL))
        names = Totals.read(self.scores).names
        self._groups = {name: number for number, name in enumerate(names)}
        self._limits = read_table(self.limits)

    def _group_numbers(self, task: DocumentBatch) -> NDArray[np.int64]:
        groups = groups_of(task, self.by, self.bases, f"{self.owner}.by")
        if groups is None:
            return np.zeros(task.num_rows, np.int64)
        own = [self._groups.get(name, -1) for name in groups.dictionary.to_pylist()]
        if -1 in own:
            raise RunRefused(
                f"{self.owner}: the group {groups.dictionary[own.index(-1)].as_py()!r} did not exist when the scores "
                "were measured: the input has changed since; begin again (fresh=True, --fresh)"
            )
        numbers: NDArray[np.int64] = np.array(own, np.int64)[to_numpy(groups.indices)]
        return numbers


@dataclass(kw_only=True)
class KeepTop(_Limited):
    """Keeps the rows that rank before the limit of their group. The others are written to the folder ``decided``, batch
    by batch, for `PackDecisions`.
    """

    column: str
    order: Literal["highest", "lowest"] = "highest"
    reason: str = "not in the top fraction"
    decided: str
    id_column: str | None = "id"

    shows_kept = True

    def inputs(self) -> list[str]:
        return [self.column]

    def output_folder(self) -> str:
        return self.decided

    def repacks(self) -> bool:
        return False

    def process(self, task: DocumentBatch) -> DocumentBatch:
        batch = self._roll.number_of(task.task_id, task.num_rows)
        numbers = first_number(batch) + np.arange(task.num_rows, dtype=np.uint64)
        table = task.to_pyarrow()
        keys = keys_of(table, self.column, [self.column] if self.order == "lowest" else [], self.owner)
        group = self._group_numbers(task)
        high, low, endless = (to_numpy(self._limits[name])[group] for name in ("high", "low", "endless"))
        keep = endless | (keys < high) | ((keys == high) & (numbers < low))
        gone = np.flatnonzero(~keep)
        self.record_dropped(self.reason, len(gone), which=gone)
        highest = self.order == "highest"
        values = numbers_of(keys, highest=highest)
        limits = np.where(endless, np.nan, numbers_of(high, highest=highest))
        self.record_scored(self.column, "fraction", values, np.abs(values - limits))
        columns = {
            "decision": pa.repeat(REMOVED, len(gone)),
            "rule": pa.repeat(RULE, len(gone)),
            "id": _ids(table, self.id_column, gone),
        }
        # This file adds no rows to the run's count, which includes only those that its writer wrote.
        self.record_output(replace(write_batch_decisions(self.decided, task, gone, columns), rows=0))
        return task.filter(array(keep)) if len(gone) else task


@dataclass(kw_only=True)
class AddBuckets(_Limited):
    """Adds the bucket of each row, for one score or for several combined."""

    columns: Sequence[str]
    lowest: Sequence[str] = ()
    buckets: int = 20
    combine: Literal["max", "mean"] = "max"
    bucket_column: str = "bucket"
    each: bool = False

    def inputs(self) -> list[str]:
        return list(self.columns)

    def outputs(self) -> list[str]:
        return [*([f"{name}_bucket" for name in self.columns] if self.each else []), self.bucket_column]

    def setup(self, worker: WorkerMetadata) -> None:
        super().setup(worker)
        column, group, high = (to_numpy(self._limits[name]) for name in ("column", "group", "high"))
        shape = len(self.columns), len(self._groups), self.buckets - 1
        order = np.lexsort((high, group, column))
        self._edges = high[order].reshape(shape)

    def process(self, task: DocumentBatch) -> DocumentBatch:
        check_free(self.owner, task.column_names, self.outputs())
        self._roll.number_of(task.task_id, task.num_rows)
        group = self._group_numbers(task)
        found = np.zeros((len(self.columns), task.num_rows), np.int32)
        for number, name in enumerate(self.columns):
            keys = keys_of(task.to_pyarrow(), name, self.lowest, self.owner)
            for one in np.unique(group).tolist():
                mine = group == one
                # Keys sort the best rows first: a row is above an edge if its key comes before that of the edge.
                passed = np.searchsorted(self._edges[number, one], keys[mine], side="right")
                found[number, mine] = self.buckets - 1 - passed
        if self.each:
            for name, buckets in zip(self.columns, found, strict=True):
                task = task.append_column(f"{name}_bucket", array(buckets))
        combined = found.max(axis=0) if self.combine == "max" else found.sum(axis=0, dtype=np.int64) // len(found)
        return task.append_column(self.bucket_column, array(combined.astype(np.int32)))


def _ids(table: pa.Table, column: str | None, rows: NDArray[np.int64]) -> pa.Array:
    """The ids of rows as text; null for rows without one."""
    if column is None or column not in table.column_names or pa.types.is_nested(table[column].type):
        return pa.nulls(len(rows), pa.string())
    return as_text(table[column].take(array(rows)).combine_chunks())
