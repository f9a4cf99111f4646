"""The driver's side of the coordinator: collects facts, and distinguishes a stalled run from a slow one."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from curator_backends.cluster import Cluster
from curator_backends.coordinator import Status
from curator_backends.links import Link
from curator_backends.options import RayOptions
from curator_backends.worker import Facts, clean_node
from curator_core.errors import CuratorError
from curator_core.executors.base import SegmentRun
from curator_core.worker.sending import unpacked_error

logger = logging.getLogger(__name__)

# The speed of a group is measured after this many pieces of work. There are two measurements, because the first pieces
# run with cold caches.
RATED_AFTER = (8, 64)
TEARDOWN_SECONDS = 20.0
# How long to wait after an error or Ctrl-C, when a worker may be in the middle of a long call.
TEARDOWN_SECONDS_AFTER_ERROR = 5.0


class Stalled(CuratorError):
    """The run makes no progress, no worker is busy, and waiting will not help."""


class Need(NamedTuple):
    """The resources that one worker of a group requests."""

    group: str
    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.group} {self.cpus:g} CPU" + (f" {self.gpus:g} GPU" if self.gpus else "")


class Standstill(NamedTuple):
    """The needs of a stalled run, and the available resources."""

    needs: Sequence[Need]
    cluster: str
    cpus: float  # free
    gpus: float
    others_cpus: float  # held by other jobs
    others_gpus: float

    @classmethod
    def of(cls, ray: Any, needs: Sequence[Need], cluster: Cluster, pools: Mapping[int, int]) -> Standstill:
        """``pools`` gives the number of workers of each group."""
        free, total = ray.available_resources(), ray.cluster_resources()
        ours = [(need, pools.get(index, 0)) for index, need in enumerate(needs)]
        cpus, gpus = free.get("CPU", 0.0), free.get("GPU", 0.0)
        return cls(
            needs,
            cluster.name,
            cpus,
            gpus,
            total.get("CPU", 0.0) - cpus - sum(need.cpus * workers for need, workers in ours),
            total.get("GPU", 0.0) - gpus - sum(need.gpus * workers for need, workers in ours),
        )

    @property
    def queued(self) -> bool:
        """Whether a worker cannot start because other jobs hold what it needs."""
        return any(
            (need.cpus > self.cpus and self.others_cpus > 1e-3) or (need.gpus > self.gpus and self.others_gpus > 1e-3)
            for need in self.needs
        )

    def __str__(self) -> str:
        held = ", ".join(
            f"{amount:g} {kind}"
            for amount, kind in ((self.others_cpus, "CPUs"), (self.others_gpus, "GPUs"))
            if amount > 1e-3
        )
        return (
            f"a worker needs: {', '.join(map(str, self.needs))}; {self.cluster} has {self.cpus:g} CPUs and {self.gpus:g} GPUs "
            f"free. " + (f"Other jobs hold {held}" if held else "A node may be gone")
        )


class Supervisor:
    """Follows the state of a segment through the coordinator. `poll` runs in one thread, `hand_over` in another."""

    def __init__(self, ray: Any, link: Link, run: SegmentRun, options: RayOptions, token: str) -> None:
        self._ray = ray
        self._link = link
        self._run = run
        self._stall_timeout = options.stall_timeout_s
        self._wait = options.wait_for_resources_s
        self._queued = float("-inf")  # when the run last waited for other jobs
        self._said_so = False  # whether it has reported that it waits
        self._pools: dict[int, int] = {}  # workers that are set up, by group
        self._manned: set[int] = set()  # groups that have had workers
        self._token = token
        self._facts: deque[Facts] = deque()  # filled and emptied by different threads
        self._received = 0  # how many facts have arrived
        self._pieces: Counter[int] = Counter()  # finished pieces of work, by group
        self._progress = -1
        self._moved = time.monotonic()
        self._nodes: set[str] = set()
        self._failures: list[BaseException] = []
        self.sources = 0  # how many sources have left the first group
        # The engine's own thread may poll while the driver's thread concludes, and each answer must reach only one of
        # them.
        self._lock = threading.Lock()
        self._concluding = False

    def poll(self, needs: Sequence[Need], cluster: Cluster) -> None:
        """Process what has arrived, without waiting; raise `Stalled` if the run has made no progress for too long."""
        with self._lock:
            if self._concluding:
                return
            self._look()
        now = time.monotonic()
        if now - self._moved > self._stall_timeout:
            self._judge(now, Standstill.of(self._ray, needs, cluster, self._pools))

    def _judge(self, now: float, standstill: Standstill) -> None:
        idle = now - self._moved
        if not standstill.queued:
            # The time limit starts again when other jobs release resources, because a worker takes some time to start.
            if now - self._queued > self._stall_timeout:
                raise Stalled(
                    f"the run has made no progress for {idle:.0f} seconds and no worker is busy: {standstill}"
                )
            return
        self._queued = now
        if self._wait is not None and idle > self._wait:
            raise Stalled(
                f"other jobs have held what this run needs for {idle:.0f} seconds, longer than wait_for_resources_s: "
                f"{standstill}"
            )
        if not self._said_so:
            self._said_so = True
            logger.warning(f"waiting for resources that other jobs hold: {standstill}")

    def _look(self) -> None:
        status = self._link.status_now(self._received)
        if status is not None:
            self._take(status)

    @property
    def emptied(self) -> int:
        """How many groups have had workers and have none left. These groups are done, and their resources are free."""
        return sum(not self._pools.get(group) for group in self._manned)

    @property
    def rated(self) -> int:
        """How many of the speed measurements (`RATED_AFTER`) all groups have reached."""
        least = min(self._pieces[group] for group in range(len(self._run.groups)))
        return sum(least >= pieces for pieces in RATED_AFTER)

    def moved(self) -> None:
        """A result has arrived, so the run is making progress."""
        self._moved = time.monotonic()

    def hand_over(self) -> None:
        """Pass received facts on to the run, including those that have arrived since the last poll."""
        with self._lock:
            if not self._concluding:
                self._look()
        self._run.staffed(sum(self._pools.values()))
        while self._facts:
            fact = self._facts.popleft()
            if fact.events:
                self._run.collect(fact.events)
            self._run.progress(fact.sources, fact.counts)

    def reported_failure(self) -> BaseException | None:
        """The first error that a worker reported, unless a later attempt has done the work."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            packed = self._link.call("failure", timeout=TEARDOWN_SECONDS)
            return None if packed is None else unpacked_error(packed)
        return None

    def conclude(self, failed: bool, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Wait until every worker is torn down, collect the last facts, and clean up the nodes. ``meanwhile`` is called
        again and again during the wait.
        """
        deadline = time.monotonic() + (TEARDOWN_SECONDS_AFTER_ERROR if failed else TEARDOWN_SECONDS)
        with self._lock:
            self._concluding = True
        # A failed run can do without the last facts; a run whose outcome depends on them cannot.
        lenient = contextlib.suppress(self._ray.exceptions.RayError) if failed else contextlib.nullcontext()
        with lenient:
            last = self._link.last_status(TEARDOWN_SECONDS)
            if last is not None:
                self._take(last)
            while True:
                status: Status = self._link.call("status", self._received, timeout=TEARDOWN_SECONDS)
                self._take(status)
                if not status.up:
                    break
                if time.monotonic() > deadline:
                    if not failed:
                        self._warn_of(self._link.call("workers_up", timeout=TEARDOWN_SECONDS))
                    break
                meanwhile()
                time.sleep(0.02)
            self._clean_nodes()
        self.hand_over()
        if self._failures and not failed:
            raise self._failures[0]

    def _warn_of(self, workers: Sequence[str]) -> None:
        """Name the workers that are not torn down, unless the last of them has reported it just now."""
        if workers:
            logger.warning(
                "no teardown was reported within %g seconds after the end of the run: %s. The results are complete, but what "
                "teardown() was to write or release may be missing: check whether it takes longer, and whether something has "
                "killed the worker, such as a lack of memory",
                TEARDOWN_SECONDS,
                ", ".join(
                    f"{self._run.groups[int(group)].name} (worker {name})"
                    for group, _, name in (worker.partition(":") for worker in workers)
                ),
            )

    def _take(self, status: Status) -> None:
        for fact in status.facts[max(0, self._received - status.first) :]:
            self._facts.append(fact)
            self._received += 1
            self._pieces[fact.group] += 1
            self.sources += fact.sources
        self._failures.extend(map(unpacked_error, status.failures))
        self._nodes.update(status.nodes)
        self._pools = status.pools
        self._manned.update(status.pools)
        if status.progress != self._progress or status.busy:
            self._progress = status.progress
            self._moved = time.monotonic()
            self._said_so = False

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
