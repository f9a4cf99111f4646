"""The coordinator, through which the driver and the workers of one run report to each other; it processes no tasks.

It counts tasks that began and never finished, and so finds a task that kills its workers. It keeps the errors that
workers raise, before the engine wraps them, and the facts of workers that have no run directory. It also reports
whether any worker is busy.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from curator_core.errors import CuratorError

# How often a busy worker reports that it is busy, and how long such a report is valid.
BEAT_SECONDS = 15.0
BELIEF_SECONDS = 120.0

# `Coordinator.source` returns this while the driver is still listing; the caller asks again later.
NOT_YET = "not yet"

# A coordinator that does not answer a driver for so long is replaced by another.
ANSWER_SECONDS = 30.0


@dataclass
class Status:
    """The state of the segment, with the facts from number ``first`` on and the failures since the driver last asked."""

    first: int = 0
    facts: list[Any] = field(default_factory=list)
    progress: int = 0  # increases whenever something begins or finishes
    busy: int = 0  # workers that are setting up or working
    up: int = 0  # workers that are set up and not yet torn down
    pools: dict[int, int] = field(default_factory=dict)  # ``up`` by group
    failures: list[bytes] = field(default_factory=list)  # failures of teardowns, see curator_core.worker.sending
    nodes: list[str] = field(default_factory=list)  # nodes on which a worker has set up


class Standing(NamedTuple):
    """How far the workers have got through the sources."""

    asked: int = 0  # tables of sources that workers have requested
    through: int = 0  # sources that have left the first group


class Begun(NamedTuple):
    """Whether another worker began this work earlier."""

    again: bool  # an earlier worker began it and never finished it
    died: bool  # that worker died; it was not ended for exceeding a time limit


@dataclass
class Suspect:
    """A task whose worker died or exceeded a time limit: the evidence against it, and how it must run."""

    deaths: dict[tuple[str, str], int] = field(default_factory=dict)  # number of deaths, by stage and task
    unexplained: int = 0  # deaths outside of any call, or in a call with several tasks
    alone: frozenset[str] = frozenset()  # stages that get one task a call
    aside: dict[tuple[str, str], bytes] = field(default_factory=dict)  # tasks withheld from a stage
    open: bool = False  # it has begun and not yet ended
    call: tuple[str, list[str]] | None = None  # the current stage, and the tasks of its call


class Coordinator:
    """One coordinator for each segment of a run. Methods are short and never wait, so one thread serves all callers.

    Its actor is not asynchronous: in Ray 2.60, an asynchronous actor aborts with ``Check failed: erased == 1`` when
    calls are resent while it starts, and the run loses its facts.
    """

    def __init__(self) -> None:
        self._open: dict[str, tuple[int, str]] = {}  # how often the work was begun, and by which worker last
        self._ended: set[str] = set()  # work whose worker was ended for exceeding a time limit
        self._suspects: dict[str, Suspect] = {}
        self._alone: set[str] = set()
        self._aside: dict[tuple[str, str], bytes] = {}
        self._busy: dict[str, float] = {}
        self._up: set[str] = set()
        self._nodes: set[str] = set()
        self._facts: list[Any] = []  # the facts that the driver has not confirmed
        self._first = 0  # the number of the first of these facts
        self._failures: list[bytes] = []
        self._raised: dict[str, bytes] = {}  # errors by worker (of its set-up) or key (of work)
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
        """Work ``key`` begins. Returns whether it was begun before and never finished, and whether its worker died."""
        earlier, died = self._open.get(key, (0, worker))
        self._open[key] = (earlier + 1, worker)
        if died != worker:  # a dead worker does not report its teardown
            self._busy.pop(died, None)
            self._up.discard(died)
        self._busy[worker] = time.monotonic()
        self._progress += 1
        return Begun(earlier > 0, earlier > 0 and key not in self._ended)

    def begin_suspect(self, task: str) -> Suspect:
        """A task starts alone, because its work was begun before and not finished. Returns the evidence against the
        task.
        """
        suspect = self._suspects.setdefault(task, Suspect())
        if suspect.open:
            self._blame(suspect)
        suspect.open, suspect.call = True, None
        suspect.alone, suspect.aside = frozenset(self._alone), dict(self._aside)
        self._progress += 1
        return suspect

    def calling(self, task: str, stage: str, tasks: list[str]) -> None:
        """While a suspect runs: ``stage`` is about to work on ``tasks``. An empty ``stage`` means that the call has
        returned.
        """
        self._suspects[task].call = (stage, tasks) if stage else None

    def end_suspect(self, task: str) -> None:
        """The task has finished, so another one killed the worker."""
        self._suspects.pop(task, None)
        self._progress += 1

    def late(self, worker: str, stage: str, tasks: list[str], failure: bytes) -> None:
        """A worker ends itself because a call exceeded its time limit. If the call had several tasks, it is not yet
        clear which one is to blame.
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
        """Work ``key`` is finished. ``facts`` are its facts if the worker has no run directory."""
        self._open.pop(key, None)
        self._ended.discard(key)
        self._raised.pop(key, None)
        self._busy.pop(worker, None)
        if facts is not None:
            self._facts.append(facts)
            self._through += getattr(facts, "sources", 0)
        self._progress += 1

    def raised(self, key: str, failure: bytes) -> None:
        """The set-up of worker ``key``, or work ``key``, has raised; the engine may try again."""
        self._raised.setdefault(key, failure)
        self._progress += 1

    # Sources -----------------------------------------------------------------------------------------------------

    def offer(self, tables: list[Any], last: bool) -> Standing:
        """Take more sources from the driver. Returns how far the workers are, so that the driver stays a little ahead."""
        self._sources.extend(tables)
        self._all_listed = self._all_listed or last
        return self.standing()

    def standing(self) -> Standing:
        """How many tables of sources were requested, and how many sources have left the first group."""
        return Standing(self._asked, self._through)

    def source(self, index: int) -> Any:
        """Table ``index`` of the sources, None after the last, or `NOT_YET`. A repeated request gets the same table."""
        self._asked = max(self._asked, index + 1)
        if index < len(self._sources):
            return self._sources[index]
        return None if self._all_listed else NOT_YET

    # The driver --------------------------------------------------------------------------------------------------

    def failure(self) -> bytes | None:
        """The first error of a worker that no later attempt has overcome."""
        return next(iter(self._raised.values()), None)

    def workers_up(self) -> list[str]:
        """The workers that are set up and not yet torn down."""
        return sorted(self._up)

    def status(self, received: int) -> Status:
        """The state of the segment. The driver already has the facts below ``received``; all others are sent, even if
        they were sent before.
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


class Coordinators:
    """The coordinators of a driver's segments in one actor: one process more for each segment would import Ray for a
    second of CPU time.
    """

    def __init__(self, *tokens: str) -> None:
        """``tokens`` are those of the first segments. A worker may call before any call of the driver arrives, but not
        before the actor is made.
        """
        self._by_token = {token: Coordinator() for token in tokens}

    def start(self, token: str) -> None:
        """Add the coordinator of a segment."""
        self._by_token[token] = Coordinator()

    def call(self, token: str, method: str, *arguments: Any) -> Any:
        """Call a method of the coordinator of a segment."""
        coordinator = self._by_token.get(token)
        if coordinator is None:
            raise CuratorError("this worker has outlived its run, which has ended or failed; the worker ends as well")
        return getattr(coordinator, method)(*arguments)

    def end(self, token: str) -> None:
        """Remove the coordinator of a segment, with all that it holds."""
        self._by_token.pop(token, None)


# The actor of this driver, by its node and job: a driver may connect to several clusters, one after the other.
_actor_of: dict[tuple[str, str], Any] = {}
_lock = threading.Lock()


def start_coordinator(ray: Any, token: str) -> Any:
    """Start the coordinator of a segment in the driver's actor of coordinators, which ends with the driver.

    The actor runs on the driver's node, so it is lost only with the driver, and it reserves no CPU.
    """
    context = ray.get_runtime_context()
    driver = (context.get_node_id(), context.get_job_id())
    with _lock:
        actor = _actor_of.get(driver)
        if actor is not None:
            with contextlib.suppress(ray.exceptions.RayError):  # something has ended the actor
                ray.get(actor.start.remote(token), timeout=ANSWER_SECONDS)
                return actor
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(driver[0], soft=False)
        actor = ray.remote(Coordinators).options(num_cpus=0, scheduling_strategy=strategy).remote(token)
        _actor_of.clear()
        _actor_of[driver] = actor
        return actor
