"""The driver's side of the coordinator: facts come in, and a run in which nothing moves is distinguished from a slow one."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from curator_backends.cluster import Cluster
from curator_backends.coordinator import Status
from curator_backends.failures import unpack_failure
from curator_backends.worker import Facts, clean_node
from curator_core.errors import CuratorError
from curator_core.executors.base import SegmentRun

TEARDOWN_SECONDS = 20.0
# After an error or Ctrl-C a worker may be in the middle of something long.
TEARDOWN_SECONDS_AFTER_ERROR = 5.0


class Stalled(CuratorError):
    """Nothing moves, nothing is being worked on, and nothing will change by waiting."""


class Need(NamedTuple):
    """What one worker of a group asks for."""

    group: str
    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.group} {self.cpus:g} CPU" + (f" {self.gpus:g} GPU" if self.gpus else "")


class Supervisor:
    """Asks the coordinator what is going on; one per segment. `poll` runs in one thread, `hand_over` in another."""

    def __init__(self, ray: Any, coordinator: Any, run: SegmentRun, stall_timeout_s: float, token: str) -> None:
        self._ray = ray
        self._coordinator = coordinator
        self._run = run
        self._timeout = stall_timeout_s
        self._token = token
        self._pending: Any = None
        self._facts: deque[Facts] = deque()  # filled and emptied by different threads
        self._received = 0  # how many facts have come in
        self._progress = -1
        self._moved = time.monotonic()
        self._nodes: set[str] = set()
        self._failures: list[BaseException] = []
        self.sources = 0  # how many are through the first group
        # The engine's own thread may be polling while the driver's concludes: an answer belongs to one of them.
        self._lock = threading.Lock()
        self._concluding = False

    def poll(self, needs: Sequence[Need], cluster: Cluster) -> None:
        """Take in what has come, without waiting; raise `Stalled` when nothing has moved for too long."""
        with self._lock:
            if self._concluding:
                return
            if self._pending is None:
                self._pending = self._coordinator.status.remote(self._received)
            ready, _ = self._ray.wait([self._pending], timeout=0)
            if ready:
                status: Status = self._ray.get(ready[0])
                self._pending = None
                self._take(status)
        if time.monotonic() - self._moved > self._timeout:
            free = self._ray.available_resources()
            raise Stalled(
                f"nothing has moved for {self._timeout:g} seconds and no worker is at work: a worker needs: "
                f"{', '.join(map(str, needs))}; {cluster.name} has {free.get('CPU', 0.0):g} CPUs and "
                f"{free.get('GPU', 0.0):g} GPUs free. Something else may hold the rest, or a node is gone"
            )

    def moved(self) -> None:
        """A result has come: the run is alive."""
        self._moved = time.monotonic()

    def hand_over(self) -> None:
        """Pass received facts on to the run."""
        while self._facts:
            fact = self._facts.popleft()
            if fact.events:
                self._run.collect(fact.events)
            self._run.progress(fact.sources, fact.counts)

    def reported_failure(self) -> BaseException | None:
        """The first error that a worker reported before it raised it, if the work has not been done since."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            packed = self._ray.get(self._coordinator.failure.remote(), timeout=TEARDOWN_SECONDS)
            return None if packed is None else unpack_failure(packed)
        return None

    def conclude(self, failed: bool) -> None:
        """Wait until every worker has torn down, take the last facts, and tidy up the nodes."""
        deadline = time.monotonic() + (TEARDOWN_SECONDS_AFTER_ERROR if failed else TEARDOWN_SECONDS)
        with self._lock:
            self._concluding = True
        # A run that has failed may do without the last facts; one that is to be judged by them may not.
        lenient = contextlib.suppress(self._ray.exceptions.RayError) if failed else contextlib.nullcontext()
        with lenient:
            if self._pending is not None:
                # An answer that is under way carries facts that no other answer will.
                self._take(self._ray.get(self._pending, timeout=TEARDOWN_SECONDS))
                self._pending = None
            while True:
                status: Status = self._ray.get(
                    self._coordinator.status.remote(self._received), timeout=TEARDOWN_SECONDS
                )
                self._take(status)
                if not status.up or time.monotonic() > deadline:
                    break
                time.sleep(0.02)
            self._clean_nodes()
        self.hand_over()
        if self._failures and not failed:
            raise self._failures[0]

    def _take(self, status: Status) -> None:
        for fact in status.facts[max(0, self._received - status.first) :]:
            self._facts.append(fact)
            self._received += 1
            self.sources += fact.sources
        self._failures.extend(map(unpack_failure, status.failures))
        self._nodes.update(status.nodes)
        if status.progress != self._progress or status.busy:
            self._progress = status.progress
            self._moved = time.monotonic()

    def _clean_nodes(self) -> None:
        clean_node(self._token)
        ray = self._ray
        here = ray.get_runtime_context().get_node_id()
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        clean = ray.remote(num_cpus=0, max_retries=0)(clean_node)
        others = [
            clean.options(scheduling_strategy=strategy(node, soft=False)).remote(self._token)
            for node in self._nodes
            if node != here
        ]
        if others:
            ray.wait(others, num_returns=len(others), timeout=5.0)
