"""What the driver and the workers of one run report to each other: a small actor that does no work of its own.

It counts tasks that were begun and never finished, which finds a task that kills its workers. It keeps the errors that
workers raise, as they were before the engine wrapped them, and the facts of workers that have no run directory. It also
says whether any work is going on.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# How often a busy worker reports that it is busy, and how long the report counts.
BEAT_SECONDS = 15.0
BELIEF_SECONDS = 120.0

# The answer of `Coordinator.source` while the driver is still listing; ask again.
NOT_YET = "not yet"


@dataclass
class Status:
    """What has happened: facts from number ``first`` on, and failures since the driver last asked."""

    first: int = 0
    facts: list[Any] = field(default_factory=list)
    progress: int = 0  # grows with everything that is begun or finished
    busy: int = 0  # workers that are working on something or setting up
    up: int = 0  # workers that are set up and not yet torn down
    pools: dict[int, int] = field(default_factory=dict)  # the same by group
    failures: list[bytes] = field(default_factory=list)  # of teardowns, see curator_core.worker.sending
    nodes: list[str] = field(default_factory=list)  # where something was set up


class Standing(NamedTuple):
    """How far the workers have got through the sources."""

    asked: int = 0  # tables of sources that were asked for
    through: int = 0  # sources that the first group has finished


class Begun(NamedTuple):
    """Whether work that begins was begun before."""

    again: bool  # it was begun before and never finished
    died: bool  # because its worker died, not because it was ended for being late


@dataclass
class Suspect:
    """A task whose worker has died or was late: what is held against it, and how it must be run."""

    deaths: dict[tuple[str, str], int] = field(default_factory=dict)  # by stage and the task that it worked on
    unexplained: int = 0  # deaths outside of any call, or in a call with several tasks
    alone: frozenset[str] = frozenset()  # stages that get one task a call
    aside: dict[tuple[str, str], bytes] = field(default_factory=dict)  # tasks that a stage does not get, with the error
    open: bool = False  # begun and not yet ended
    call: tuple[str, list[str]] | None = None  # the stage that works on it, and the tasks of the call


class Coordinator:
    """One per run and segment. Methods are short and never wait, so one thread serves all callers.

    It is not an asynchronous actor: under Ray 2.60 an asynchronous actor aborts with ``Check failed: erased == 1`` when
    calls are sent again while it starts, and the facts of the run are lost with it.
    """

    def __init__(self) -> None:
        self._open: dict[str, tuple[int, str]] = {}  # how often it was begun, and the worker that began it last
        self._ended: set[str] = set()  # work whose worker was ended because it was late, not by a death
        self._suspects: dict[str, Suspect] = {}
        self._alone: set[str] = set()
        self._aside: dict[tuple[str, str], bytes] = {}
        self._busy: dict[str, float] = {}
        self._up: set[str] = set()
        self._nodes: set[str] = set()
        self._facts: list[Any] = []  # those that the driver has not confirmed
        self._first = 0  # the number of the first of them
        self._failures: list[bytes] = []
        self._raised: dict[str, bytes] = {}  # by worker (its set-up) or key (its work)
        self._progress = 0
        self._sources: list[Any] = []
        self._asked = 0
        self._through = 0
        self._all_listed = False

    # Workers -----------------------------------------------------------------------------------------------------

    def starting(self, worker: str, node: str) -> None:
        """A worker is about to set up."""
        self._busy[worker] = time.monotonic()
        self._nodes.add(node)
        self._progress += 1

    def up(self, worker: str, closes: bool) -> None:
        """A worker is set up. If it ``closes``, it will report its teardown."""
        self._busy.pop(worker, None)
        self._raised.pop(worker, None)
        if closes:
            self._up.add(worker)
        self._progress += 1

    def down(self, worker: str, failure: bytes | None = None) -> None:
        """A worker has torn down."""
        self._busy.pop(worker, None)
        self._up.discard(worker)
        if failure is not None:
            self._failures.append(failure)
        self._progress += 1

    def beat(self, worker: str) -> None:
        """Heartbeat: the worker is alive."""
        self._busy[worker] = time.monotonic()

    # Work --------------------------------------------------------------------------------------------------------

    def begin(self, worker: str, key: str) -> Begun:
        """Work ``key`` begins. Returns whether it was begun before and never finished, and whether a worker died of
        it.
        """
        earlier, died = self._open.get(key, (0, worker))
        self._open[key] = (earlier + 1, worker)
        if died != worker:  # it will not report its teardown
            self._busy.pop(died, None)
            self._up.discard(died)
        self._busy[worker] = time.monotonic()
        self._progress += 1
        return Begun(earlier > 0, earlier > 0 and key not in self._ended)

    def begin_suspect(self, task: str) -> Suspect:
        """A task of work that was begun before begins alone. Returns what is held against it."""
        suspect = self._suspects.setdefault(task, Suspect())
        if suspect.open:
            self._blame(suspect)
        suspect.open, suspect.call = True, None
        suspect.alone, suspect.aside = frozenset(self._alone), dict(self._aside)
        self._progress += 1
        return suspect

    def calling(self, task: str, stage: str, tasks: list[str]) -> None:
        """While a suspect runs: a stage is about to work on ``tasks``. Without a stage: it has finished."""
        self._suspects[task].call = (stage, tasks) if stage else None

    def end_suspect(self, task: str) -> None:
        """The task has finished: another one killed the worker."""
        self._suspects.pop(task, None)
        self._progress += 1

    def late(self, worker: str, stage: str, tasks: list[str], failure: bytes) -> None:
        """A worker ends itself because a call is over its limit; with several tasks it is not yet clear which one is to
        blame.
        """
        self._ended.update(key for key, (_, last) in self._open.items() if last == worker)
        for suspect in self._suspects.values():
            if suspect.call == (stage, tasks):
                suspect.open = False
        if len(tasks) == 1:
            self._aside[stage, tasks[0]] = failure
        else:
            self._alone.add(stage)
        self._progress += 1

    def _blame(self, suspect: Suspect) -> None:
        if suspect.call is None:
            suspect.unexplained += 1
            return
        stage, tasks = suspect.call
        if len(tasks) == 1:
            suspect.deaths[stage, tasks[0]] = suspect.deaths.get((stage, tasks[0]), 0) + 1
        else:
            self._alone.add(stage)
            suspect.unexplained += 1

    def finish(self, worker: str, key: str, facts: Any = None) -> None:
        """Work ``key`` is finished, and these are its facts, where the worker has no run directory."""
        self._open.pop(key, None)
        self._ended.discard(key)
        self._raised.pop(key, None)
        self._busy.pop(worker, None)
        if facts is not None:
            self._facts.append(facts)
            self._through += getattr(facts, "sources", 0)
        self._progress += 1

    def raised(self, key: str, failure: bytes) -> None:
        """A worker's set-up or work ``key`` has raised; the engine may try again."""
        self._raised.setdefault(key, failure)
        self._progress += 1

    # Sources -----------------------------------------------------------------------------------------------------

    def offer(self, tables: list[Any], last: bool) -> Standing:
        """More sources, from the driver. Returns how far the workers are, so that the driver stays a little ahead."""
        self._sources.extend(tables)
        self._all_listed = self._all_listed or last
        return self.standing()

    def standing(self) -> Standing:
        """How many tables of sources were requested, and how many sources have left the first group."""
        return Standing(self._asked, self._through)

    def source(self, index: int) -> Any:
        """Table ``index`` of the sources, None after the last, or `NOT_YET`. The same question gets the same answer."""
        self._asked = max(self._asked, index + 1)
        if index < len(self._sources):
            return self._sources[index]
        return None if self._all_listed else NOT_YET

    # The driver --------------------------------------------------------------------------------------------------

    def failure(self) -> bytes | None:
        """The first error of a worker that no later attempt has overcome."""
        return next(iter(self._raised.values()), None)

    def status(self, received: int) -> Status:
        """What is going on. The driver already has the facts below ``received``; the others are sent, if necessary
        again.
        """
        now = time.monotonic()
        del self._facts[: max(0, received - self._first)]
        self._first = max(self._first, received)
        failures, self._failures = self._failures, []
        pools = Counter(int(worker.partition(":")[0]) for worker in self._up)
        busy = sum(1 for seen in self._busy.values() if now - seen < BELIEF_SECONDS)
        return Status(
            self._first,
            list(self._facts),
            self._progress,
            busy,
            len(self._up),
            dict(pools),
            failures,
            sorted(self._nodes),
        )


def start_coordinator(ray: Any) -> Any:
    """The coordinator of a run. It is on the driver's node, so it is lost only with the driver, and it holds no CPU."""
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    actor = ray.remote(Coordinator).options(num_cpus=0, scheduling_strategy=strategy)
    return actor.remote()
