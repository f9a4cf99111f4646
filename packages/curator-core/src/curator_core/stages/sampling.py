"""How does a pipeline keep fewer rows, and always the same ones?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curator_core.arrow.arrays import array
from curator_core.arrow.row_hash import lineage_numbers, row_digests
from curator_core.errors import UsageError, check_whole
from curator_core.formatting import count
from curator_core.model.stage import Merge, ProcessingStage
from curator_core.model.task import DocumentBatch


@dataclass(kw_only=True)
class Sample(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Keeps about ``fraction`` of the rows, the same ones on every executor and in every run.

    Whether a row stays depends on ``seed`` and on the place of the row (its task and its number there) or, with
    ``columns``, on their values. With ``columns``, equal rows are kept or dropped together wherever they are, and a
    sample of 1 % is part of a sample of 10 % with the same seed.
    """

    fraction: float
    seed: int = 0
    columns: Sequence[str] = ()

    def __post_init__(self) -> None:
        if isinstance(self.fraction, bool) or not isinstance(self.fraction, int | float) or not 0 <= self.fraction <= 1:
            raise UsageError(f"Sample.fraction must be a number from 0 to 1, not {self.fraction!r}")
        if isinstance(self.columns, str):
            raise UsageError(f"Sample.columns must be a list such as [{self.columns!r}]")

    def describe(self) -> str:
        by = f" by {', '.join(self.columns)}" if self.columns else ""
        return f"keeps about {100 * self.fraction:.10g} % of the rows, drawn{by} with seed {self.seed}"

    def inputs(self) -> list[str]:
        return list(self.columns)

    def process(self, task: DocumentBatch) -> DocumentBatch:
        # Integers are compared, without rounding to floats, so 0 keeps no rows and 1 keeps all.
        threshold = int(self.fraction * 2**64)
        if threshold >= 2**64:
            return task
        if self.columns:
            digests = row_digests(task.to_pyarrow(), list(self.columns), str(self.seed).encode(), size=8)
            numbers = np.frombuffer(b"".join(digests), dtype="<u8")
        else:
            numbers = lineage_numbers(task.task_id, task.num_rows, self.seed)
        keep = numbers < np.uint64(threshold)
        self.record_dropped("not sampled", int(len(keep) - keep.sum()), which=np.flatnonzero(~keep))
        return task.filter(array(keep))


@dataclass(kw_only=True)
class Limit(Merge[DocumentBatch, DocumentBatch]):
    """Keeps the first ``rows`` rows of the whole run, in lineage order (by source id, then by place in the source).

    It waits for everything before it, so that the rows do not depend on the order of arrival, and returns them as one
    batch. For a quick look at a big collection, limit the sources instead (``curate run --limit``); the other sources
    are then not read.
    """

    rows: int

    def __post_init__(self) -> None:
        check_whole("Limit.rows", self.rows, least=0)

    def describe(self) -> str:
        return f"keeps the first {count(self.rows, 'row')} of the run"

    def process(self, tasks: Sequence[DocumentBatch]) -> DocumentBatch | None:  # type: ignore[override]
        first: DocumentBatch | None = None
        tables: list[pa.Table] = []
        room = self.rows
        for task in _one_at_a_time(tasks):
            first = first or task
            taken = min(room, task.num_rows)
            if taken or not tables:
                tables.append(task.to_pyarrow().slice(0, taken))
            room -= taken
            self.record_dropped("beyond the limit", task.num_rows - taken)
        if first is None:
            return None
        return first.with_data(pa.concat_tables(tables, promote_options="default"))


def _one_at_a_time(tasks: Sequence[DocumentBatch]) -> Iterator[DocumentBatch]:
    yield from tasks
