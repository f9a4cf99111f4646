"""How many rows, calls and seconds does each stage add up to?"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import to_numpy
from curator_core.model.task import StagePerfStats

# Counts are summed once this many have queued up.
SUM_UP = 1024


@dataclass(slots=True)
class StageTotals:
    """The totals of one stage in the whole run."""

    name: str
    calls: int = 0
    rows_in: int = 0
    rows_out: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    quarantined: int = 0
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)

    def add(self, count: StagePerfStats) -> None:
        self.calls += count.calls
        self.rows_in += count.rows_in
        self.rows_out += count.rows_out
        self.seconds += count.process_time
        if not (count.dropped or count.rejected or count.quarantined or count.custom_metrics):
            return
        self.quarantined += count.quarantined
        for mine, theirs in ((self.dropped, count.dropped), (self.rejected, count.rejected)):
            for reason, rows in theirs.items():
                mine[reason] = mine.get(reason, 0) + rows
        for name, value in count.custom_metrics.items():
            self.metrics[name] = self.metrics.get(name, 0.0) + value

    @property
    def rows_dropped(self) -> int:
        return sum(self.dropped.values())

    @property
    def rows_rejected(self) -> int:
        return sum(self.rejected.values())


class Tally:
    """Running totals by stage. Adding the tallies of workers gives the totals of the run."""

    def __init__(self) -> None:
        self._stages: dict[str, StageTotals] = {}
        # Counts of tasks are summed when a caller asks, or many at a time, which is several times as fast. A
        # progress display may ask from a thread of its own while another thread adds, so only one thread sums at a
        # time.
        self._new: deque[StagePerfStats] = deque()
        self._summing = threading.Lock()

    @property
    def stages(self) -> dict[str, StageTotals]:
        """The totals by name, in the order in which the stages first occurred."""
        self._sum_up()
        return self._stages

    def add(self, counts: Iterable[StagePerfStats]) -> None:
        self._new.extend(counts)
        if len(self._new) >= SUM_UP:
            self._sum_up()

    def _sum_up(self) -> None:
        with self._summing, contextlib.suppress(IndexError):
            while True:
                count = self._new.popleft()
                self._of(count.stage_name).add(count)

    def add_table(self, counts: pa.ChunkedArray) -> None:
        """Add the ``counts`` of a table of events."""
        for chunk in counts.chunks:
            values = chunk.flatten()
            if not len(values):
                continue
            stages = values.field("stage").dictionary_encode()
            codes = to_numpy(stages.indices)
            names = stages.dictionary.to_pylist()
            sums = {
                key: np.bincount(codes, weights=to_numpy(values.field(key)), minlength=len(names))
                for key in ("seconds", "calls", "rows_in", "rows_out", "quarantined")
            }
            for code, name in enumerate(names):
                totals = self._of(name)
                totals.calls += int(sums["calls"][code])
                totals.rows_in += int(sums["rows_in"][code])
                totals.rows_out += int(sums["rows_out"][code])
                totals.quarantined += int(sums["quarantined"][code])
                totals.seconds += float(sums["seconds"][code])
            for key in ("dropped", "rejected", "metrics"):
                column = values.field(key)
                if column.null_count == len(column):
                    continue
                there = to_numpy(pc.indices_nonzero(column.is_valid()))
                for code, text in zip(codes[there], column.drop_null().to_pylist(), strict=True):
                    mine = getattr(self._of(names[code]), key)
                    for reason, number in json.loads(text).items():
                        mine[reason] = mine.get(reason, 0) + number

    def _of(self, name: str) -> StageTotals:
        totals = self._stages.get(name)
        if totals is None:
            totals = self._stages[name] = StageTotals(name)
        return totals

    def take(self, few: int = 0) -> list[StagePerfStats]:
        """The counts that were added since the last call, for another tally: one entry per stage, or the original
        entries if they are few.
        """
        if not self._stages and len(self._new) <= few:
            counts = list(self._new)
            self._new.clear()
            return counts
        counts = [
            StagePerfStats(
                t.name, t.seconds, t.calls, t.rows_in, t.rows_out, t.dropped, t.rejected, t.quarantined, t.metrics
            )
            for t in self.stages.values()
        ]
        self._stages = {}
        return counts

    @property
    def rows_read(self) -> int:
        """The number of rows at the widest point of the pipeline; the share of failed rows is relative to it."""
        return max((totals.rows_in for totals in self.stages.values()), default=0)

    @property
    def rows_bad(self) -> int:
        return sum(totals.rows_rejected + totals.quarantined for totals in self.stages.values())
