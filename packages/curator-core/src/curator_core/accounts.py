"""Is everything there? Shares of every source, from the events that workers recorded.

A source carries a share of 1. When a task becomes *n*, each child carries 1/*n* of its parent's share; when tasks are
merged, shares add up; a task that ends (done, dropped, failed) hands its share in. Ids say who descends from whom
(`curator_core.lineage`), so an event needs no fraction: a ``fork`` says into how many, and every share follows from
that, exactly, even where children stream before anybody knows how many there will be.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from curator_core.lineage import child_id
from curator_core.task import FileRecord, StagePerfStats

FORK, DONE, DROPPED, FAILED, MERGED, MERGE = "fork", "done", "dropped", "failed", "merged", "merge"
ENDINGS = (DONE, DROPPED, FAILED)


@dataclass(slots=True)
class Event:
    """One fact about one task: it became ``children`` tasks, or it ended.

    ``counts`` are the rows and times of the stages that the task went through since the event before it in its
    lineage, so that every call of a stage is counted once, however often it was repeated.
    ``members`` (of a ``merge``) are the tasks that became the source ``task``.
    """

    kind: str
    source: str
    task: str
    generation: str = ""
    attempt: int = 1
    children: int = 0
    stage: str = ""
    reason: str = ""
    counts: list[StagePerfStats] = field(default_factory=list)
    outputs: list[tuple[str, FileRecord]] = field(default_factory=list)
    members: list[str] = field(default_factory=list)
    result: str = ""
    packed: str = ""  # counts as the ledger stores them: JSON, read only where somebody adds them up

    @property
    def quarantined(self) -> bool:
        """Whether rows were set aside on the way here."""
        if self.packed:
            return any(len(row) > 7 and row[7] for row in json.loads(self.packed))
        return any(count.quarantined for count in self.counts)


@dataclass(slots=True)
class Settlement:
    """Where the share of one source has gone; ``missing`` is what no event accounts for."""

    source: str
    done: Fraction = Fraction(0)
    dropped: Fraction = Fraction(0)
    failed: Fraction = Fraction(0)
    merged: Fraction = Fraction(0)
    missing: Fraction = Fraction(0)
    last_stage: str = ""  # the last stage that saw a missing part
    missing_task: str = ""

    @property
    def complete(self) -> bool:
        return self.missing == 0

    @property
    def total(self) -> Fraction:
        return self.done + self.dropped + self.failed + self.merged + self.missing


@dataclass(slots=True)
class StageTotals:
    """What one stage did in the whole run."""

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
    """Running totals by stage; of many workers when their tallies are added."""

    def __init__(self) -> None:
        self.stages: dict[str, StageTotals] = {}

    def add(self, counts: Iterable[StagePerfStats]) -> None:
        for count in counts:
            totals = self.stages.get(count.stage_name)
            if totals is None:
                totals = self.stages[count.stage_name] = StageTotals(count.stage_name)
            totals.add(count)

    def add_event(self, event: Event) -> None:
        """The counts of an event, as they came or as the ledger stores them."""
        if not event.packed:
            self.add(event.counts)
            return
        for row in json.loads(event.packed):
            totals = self.stages.get(row[0])
            if totals is None:
                totals = self.stages[row[0]] = StageTotals(row[0])
            if len(row) > 5:
                totals.add(StagePerfStats(*row))
            else:
                totals.seconds += row[1]
                totals.calls += row[2]
                totals.rows_in += row[3]
                totals.rows_out += row[4]

    def as_counts(self) -> list[StagePerfStats]:
        """The totals as one entry per stage, to be added to another tally."""
        return [
            StagePerfStats(
                t.name, t.seconds, t.calls, t.rows_in, t.rows_out, t.dropped, t.rejected, t.quarantined, t.metrics
            )
            for t in self.stages.values()
        ]

    @property
    def rows_read(self) -> int:
        """Rows at the widest point: what went wrong is judged against it."""
        return max((totals.rows_in for totals in self.stages.values()), default=0)

    @property
    def rows_bad(self) -> int:
        return sum(totals.rows_rejected + totals.quarantined for totals in self.stages.values())


class Accounts:
    """The events of a run, by source, each task's newest fact only."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._events: dict[str, dict[str, Event]] = {}
        self._generation: dict[str, tuple[int, str]] = {}
        self._expected: dict[str, str] = {}
        self.merges: dict[str, Event] = {}
        for event in events:
            self.add(event)

    def add(self, event: Event) -> None:
        """Take an event in; adding it twice changes nothing."""
        if event.kind == MERGE:
            known = self.merges.get(event.task)
            if known is None or event.attempt >= known.attempt:
                self.merges[event.task] = event
            return
        if self._expected.get(event.source, event.generation) != event.generation:
            return
        newest = self._generation.get(event.source)
        if newest is None or (event.attempt, event.generation) > newest:
            if newest is not None and newest[1] != event.generation:
                self._events.pop(event.source, None)
            self._generation[event.source] = (event.attempt, event.generation)
        elif event.generation != newest[1]:
            return
        tasks = self._events.setdefault(event.source, {})
        known = tasks.get(event.task)
        if known is not None:
            if known.attempt > event.attempt:
                return
            if known.attempt == event.attempt and known.kind == FAILED and event.kind != FAILED:
                return  # the driver gave a task up that a dying worker had begun
        tasks[event.task] = event

    def expect(self, source: str, generation: str) -> None:
        """Only events of this generation count for the source; those of another are forgotten."""
        self._expected[source] = generation
        if source in self._generation and self._generation[source][1] != generation:
            self._events.pop(source, None)
            self._generation.pop(source, None)

    def sources(self) -> list[str]:
        return list(self._events)

    def generation(self, source: str) -> str:
        """The generation (see `SourceStage`) that the events of a source belong to."""
        return self._generation.get(source, (0, ""))[1]

    def reachable(self, source: str) -> Iterable[Event]:
        """The events that count, from the source down, in lineage order."""
        tasks = self._events.get(source)
        if not tasks:
            return
        stack = [source]
        while stack:
            event = tasks.get(stack.pop())
            if event is None:
                continue
            yield event
            if event.kind == FORK:
                stack.extend(child_id(event.task, index) for index in range(event.children - 1, -1, -1))

    def is_complete(self, source: str) -> bool:
        """Whether every part of a source has ended, or waits as a stored member of a merge."""
        return source in self._events and self.settle(source).complete

    def has_failures(self, source: str) -> bool:
        return any(event.kind == FAILED or event.quarantined for event in self.reachable(source))

    def settle(self, source: str) -> Settlement:
        """The shares of one source; those of a ``merged`` task are told apart (see `settle_all`)."""
        result = Settlement(source)
        tasks = self._events.get(source, {})
        stack: list[tuple[str, Fraction, str]] = [(source, Fraction(1), "")]
        while stack:
            task, share, seen = stack.pop()
            event = tasks.get(task)
            if event is None:
                result.missing += share
                result.missing_task = result.missing_task or task
                result.last_stage = result.last_stage or seen
            elif event.kind == FORK:
                part = share / event.children if event.children else share
                if not event.children:
                    result.dropped += share
                stack.extend((child_id(task, i), part, event.stage) for i in range(event.children))
            else:
                setattr(result, event.kind, getattr(result, event.kind) + share)
        return result

    def settle_all(self, sources: Iterable[str]) -> dict[str, Settlement]:
        """The shares of the given sources, those handed to merges followed to where the merged tasks went."""
        settled = {source: self.settle(source) for source in sources}
        if not self.merges:
            return settled
        merge_of = {member: merge.task for merge in self.merges.values() for member in merge.members}
        fate: dict[str, Settlement] = {}
        for source, settlement in settled.items():
            if settlement.merged:
                self._follow(source, settlement, merge_of, fate)
        return settled

    def _follow(
        self, source: str, settlement: Settlement, merge_of: Mapping[str, str], fate: dict[str, Settlement]
    ) -> None:
        for event, share in self._shares(source):
            if event.kind != MERGED:
                continue
            settlement.merged -= share
            merge = merge_of.get(event.task)
            if merge is None:
                settlement.missing += share
                settlement.missing_task, settlement.last_stage = event.task, event.stage
                continue
            if merge not in fate:
                fate[merge] = self.settle(merge)
                if fate[merge].merged:
                    self._follow(merge, fate[merge], merge_of, fate)
            end = fate[merge]
            settlement.done += share * end.done
            settlement.dropped += share * end.dropped
            settlement.failed += share * end.failed
            if end.missing:
                settlement.missing += share * end.missing
                settlement.missing_task, settlement.last_stage = end.missing_task, end.last_stage or event.stage

    def _shares(self, source: str) -> Iterable[tuple[Event, Fraction]]:
        tasks = self._events.get(source, {})
        stack = [(source, Fraction(1))]
        while stack:
            task, share = stack.pop()
            event = tasks.get(task)
            if event is None:
                continue
            yield event, share
            if event.kind == FORK and event.children:
                stack.extend((child_id(task, i), share / event.children) for i in range(event.children))
