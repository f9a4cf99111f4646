"""What is the progress of a run? The numbers are the same for a terminal, a notebook and metrics, on every executor."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from curator_core import formatting
from curator_core.accounts.tally import StageTotals, Tally

STARTING, RUNNING = "starting", "running"


@dataclass
class RunProgress:
    """The state of a run for progress displays; one object, which is updated during the run."""

    name: str
    total_sources: int | None = None
    skipped_sources: int = 0
    finished_sources: int = 0
    segment: int = 0
    segments: int = 1
    seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)
    state: str = RUNNING
    # In a workflow, the number of the step, the number of steps if it is known from the start, and the name of the
    # step.
    step: int = 0
    steps: int | None = None
    step_name: str = ""
    stages: tuple[str, ...] = ()  # the stages of the plan, in order
    taken_sources: int = 0  # sources given to the executor; those that are not finished are in flight
    workers: int | None = None  # workers that are set up; None if the executor does not report them
    waiting_for: str = ""  # a text for the time before the work begins: "Ray is starting"
    begun: float | None = None  # by the monotonic clock
    working_since: float | None = None  # the time at which the executor got the first source, by the same clock

    @property
    def title(self) -> str:
        """The name of the pipeline, or the number and name of the step."""
        if not self.step:
            return self.name
        return f"step {self.step}{f' of {self.steps}' if self.steps else ''}: {self.step_name}"

    @property
    def going(self) -> bool:
        """Whether the run has not ended."""
        return self.state in (STARTING, RUNNING)

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, including those since the last update."""
        if self.begun is None or not self.going:
            return self.seconds
        return time.monotonic() - self.begun

    @property
    def done(self) -> int:
        """Sources that need no more work, those of earlier attempts included."""
        return self.finished_sources + self.skipped_sources

    @property
    def in_flight(self) -> int:
        """Sources that the executor has got and not finished."""
        return max(0, self.taken_sources - self.finished_sources)

    @property
    def busy_seconds(self) -> float:
        """Seconds since the work began, since the start of an executor must not count towards the speed."""
        if self.working_since is None or self.begun is None:
            return self.elapsed
        return max(0.0, self.elapsed - (self.working_since - self.begun))

    def stage_states(self) -> list[StageState]:
        """Each stage of the plan with its numbers, in the order of the plan, including stages that have not reported
        yet.
        """
        totals = dict(self.tally.stages)
        names = self.stages or tuple(totals)
        states: list[StageState] = []
        before: StageTotals | None = None
        for name in names:
            mine = totals.get(name) or StageTotals(name)
            waiting = max(0, before.rows_out - mine.rows_in) if before is not None else 0
            states.append(StageState(mine, waiting))
            before = mine
        return states


Progress = Callable[[RunProgress], None]


@dataclass(frozen=True)
class StageState:
    """The state of one stage, with the rows that the stage before has passed on and this one has not reported."""

    totals: StageTotals
    waiting: int

    @property
    def failed(self) -> int:
        """Rows that were rejected or quarantined."""
        return self.totals.rows_rejected + self.totals.quarantined


def time_left(progress: RunProgress) -> str:
    """The time left, estimated from the finished sources, or the reason why it is unknown."""
    done, total = progress.done, progress.total_sources
    if not progress.going or progress.state == STARTING:
        return ""
    if not total:
        return "time left unknown: the number of sources is not known"
    if progress.segment:
        return "time left unknown: merges cannot be counted in advance"
    if not progress.finished_sources:
        return "time left unknown until a source is done"
    if done >= total:
        return ""
    seconds = progress.busy_seconds / progress.finished_sources * (total - done)
    part = ""
    if progress.segments > 1:
        part = " in this part"
    elif progress.step:
        part = " in this step"
    judged = f", estimated from {formatting.count(progress.finished_sources, 'source')}"
    return f"about {formatting.duration(seconds)} left{part}{judged}"


def sources_text(progress: RunProgress) -> str:
    """``5 of 10 sources, 2 in flight``."""
    total = progress.total_sources
    of = f"{progress.done:,} of " if total else ""
    text = of + formatting.count(total or progress.done, "source")
    return f"{text}, {progress.in_flight:,} in flight" if progress.going and progress.in_flight else text


def rows_text(progress: RunProgress) -> str:
    """``1,200 rows (200/s), 30 dropped, 10 set aside, part 2 of 3``."""
    tally = progress.tally
    rows, bad, seconds = tally.rows_read, tally.rows_bad, progress.busy_seconds
    dropped = sum(totals.rows_dropped for totals in list(tally.stages.values()))
    text = formatting.count(rows, "row")
    if seconds > 0 and rows:
        text += f" ({rows / seconds:,.0f}/s)"
    if dropped:
        text += f", {dropped:,} dropped"
    if bad:
        text += f", {bad:,} set aside"
    if progress.segments > 1:
        text += f", part {progress.segment + 1} of {progress.segments}"
    return text


def line(progress: RunProgress) -> str:
    """The state of a run as one line."""
    title, passed = progress.title, formatting.duration(progress.elapsed)
    if progress.state == STARTING:
        return f"{title}: {progress.waiting_for or 'starting'}, {passed}"
    parts = [sources_text(progress), rows_text(progress), passed]
    if progress.workers:
        parts.insert(2, formatting.count(progress.workers, "worker"))
    state = "" if progress.going else f"{progress.state}, "
    left = time_left(progress)
    return f"{title}: {state}{', '.join(parts)}{f'; {left}' if left else ''}"


def machine_text(use: Any) -> str:
    """The load of this machine: ``this machine: memory 5.2 of 16.0 GiB, GPU 97 % busy``."""
    parts = []
    if use.memory_gb:
        parts.append(f"memory {use.memory_used_gb:.1f} of {use.memory_gb:.1f} GiB")
    if use.gpus:
        parts.append(f"GPU {', '.join(f'{busy:.0%}' for busy in use.gpus).replace('%', ' %')} busy")
    return f"this machine: {', '.join(parts)}" if parts else ""
