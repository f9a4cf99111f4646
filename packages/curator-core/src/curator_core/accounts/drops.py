"""Which rows has a stage dropped? The rows that the run has written to files, or else its samples."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curator_core.accounts.seen import Sample, StageSeen, read_seen
from curator_core.arrow.arrays import scalar

STAGE, REASON, SCORE = "dropped_by", "dropped_for", "dropped_score"


@dataclass
class Drops:
    """Rows that one stage has dropped for one reason, the ones nearest to the limit first. ``of`` is their number in
    all; ``complete`` says whether they were chosen from all of them.
    """

    stage: str
    describe: str
    reason: str
    of: int
    complete: bool
    rows: list[Sample] = field(default_factory=list)


def drops_of(run_dir: str, *, near: int = 20) -> list[Drops]:
    """Up to ``near`` of the dropped rows for each stage and reason, the ones with a score nearest to the limit first."""
    seen = read_seen(run_dir)
    found = []
    for entry in seen.stages.values():
        if entry.mode != "annotate":
            found += [_drops(entry, reason, rows, near) for reason, rows in entry.of["dropped"].items()]
    return found


def _drops(entry: StageSeen, reason: str, rows: int, near: int) -> Drops:
    samples = [sample for sample in entry.samples if sample.side == "dropped" and sample.reason == reason]
    drops = Drops(entry.name, entry.describe, reason, rows, complete=False)
    chosen: dict[tuple[str, int], Sample] = {}
    for sample in sorted(samples, key=lambda sample: not sample.near):
        chosen.setdefault((sample.task, sample.row), sample)
    ordered = list(chosen.values())
    if any(sample.near for sample in ordered):
        ordered.sort(key=lambda sample: (_distance(entry, sample), sample.task, sample.row))
    drops.rows = ordered[:near]
    return drops


def _distance(entry: StageSeen, sample: Sample) -> float:
    limits = [
        abs(sample.scores[score.name] - limit.value)
        for score in entry.scores
        for limit in score.limits
        if score.name in sample.scores and limit.reason in ("", sample.reason)
    ]
    return min(limits, default=float("inf") if sample.distance is None else sample.distance)


def written_drops(tables: Iterable[pa.Table], entry: StageSeen, reason: str, near: int) -> Iterator[dict[str, Any]]:
    """The rows that were dropped for ``reason``, from tables of dropped rows, the ones nearest to the limit first."""
    limits = [
        (score.name, limit.value) for score in entry.scores for limit in score.limits if limit.reason in ("", reason)
    ]
    best: list[tuple[float, int, dict[str, Any]]] = []
    number = 0
    for table in tables:
        for row in table.filter(pc.equal(table[REASON], scalar(reason))).to_pylist():
            number -= 1
            # The row farthest from the limit is the smallest of the heap; of two equally far rows, it is the later one.
            key = (-_nearest(row[SCORE], limits), number, row)
            if len(best) < near:
                heapq.heappush(best, key)
            elif best and key[:2] > best[0][:2]:
                heapq.heapreplace(best, key)
    for _, _, row in sorted(best, key=lambda item: item[:2], reverse=True):
        yield row


def _nearest(score: Any, limits: list[tuple[str, float]]) -> float:
    values = [(score.get(name) if isinstance(score, dict) else score, limit) for name, limit in limits]
    return min((abs(value - limit) for value, limit in values if value is not None), default=float("inf"))
