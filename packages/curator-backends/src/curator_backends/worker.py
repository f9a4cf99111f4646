"""What a worker process does around core's `GroupRunner`, on either engine.

It counts deaths: work is marked before it begins and after it is through. Work that was begun before and never got
through has killed its worker, so it is done again task by task, and a task that has killed too many is handed to the
error policy instead.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curator_backends.coordinator import BEAT_SECONDS
from curator_core.accounts.events import Event
from curator_core.accounts.ledger import LedgerWriter, MemorySink
from curator_core.errors import WorkerDied
from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
from curator_core.model.stage import overrides
from curator_core.model.task import StagePerfStats, Task
from curator_core.planning.plan import Group
from curator_core.worker.context import Ending, RunContext
from curator_core.worker.group import GroupRunner


@dataclass(frozen=True, slots=True)
class Facts:
    """What a worker hands to the driver with the end of a piece of work."""

    sources: int
    counts: list[StagePerfStats]
    events: list[Event]


@dataclass(frozen=True)
class Job:
    """What a worker has to know about its group; sent once to each."""

    token: str  # of the run: names what the run puts on a node
    index: int  # of the group
    group: Group
    context: RunContext
    ending: Ending = "pass"
    folder: str = ""
    max_worker_deaths: int = 3

    @property
    def sets_up_nodes(self) -> bool:
        return any(overrides(planned.stage, "setup_on_node") for planned in self.group.stages)


class GroupWorker:
    """A group in a worker process, from its set-up to its teardown."""

    def __init__(
        self,
        job: Job,
        coordinator: Any = None,
        *,
        worker_id: str,
        node_id: str,
        gpus: Iterable[int] = (),
        closes: bool = True,
    ) -> None:
        """``coordinator`` is the run's; without one (a stage run by hand) deaths are not counted.

        ``closes`` says that somebody will call `close`, so that the run waits for it.
        """
        self.job = job
        self.worker_id = f"{job.index}:{worker_id}"
        self._coordinator = coordinator
        self._runner = GroupRunner(job.group, job.context, ending=job.ending, folder=job.folder)
        self._busy = threading.Event()
        self._closed = threading.Event()
        meta = WorkerMetadata(worker_id=worker_id, gpu_ids=tuple(gpus))
        self._tell("starting", self.worker_id, node_id)
        if coordinator is not None:
            threading.Thread(target=self._beat, name="curator-heartbeat", daemon=True).start()
        with self._working():
            if job.sets_up_nodes:
                once_per_node(
                    job.token,
                    f"{node_id}-{job.index}",
                    lambda: self._runner.setup_on_node(NodeInfo(node_id), meta),
                )
            self._runner.setup(meta)
        self._tell("up", self.worker_id, closes)

    def run(self, tasks: list[Task[Any]]) -> Iterator[Task[Any]]:
        """Everything that the group makes of ``tasks``; every fact about them is durable when it ends."""
        if not tasks:
            return
        if self._closed.is_set():
            raise WorkerDied("this worker has torn down after an error, and the run is ending")
        key = f"{self.job.index}:{tasks[0].task_id}:{len(tasks)}"
        with self._working():
            earlier = self._tell("begin", self.worker_id, key)
            yield from self._carefully(tasks) if earlier else self._runner.run(tasks)
            self._runner.flush()
            self._tell("finish", self.worker_id, key, self._facts(len(tasks)))

    def close(self) -> None:
        """Tear down; what goes wrong is told to the driver, since a worker that ends has nobody to raise to."""
        if self._closed.is_set():
            return
        self._closed.set()
        failure: BaseException | None = None
        try:
            self._runner.teardown()
            self._runner.flush()
        except BaseException as error:
            failure = error
        # The driver may be gone already; the worker ends in any case.
        with contextlib.suppress(Exception):
            self._tell("down", self.worker_id, failure)

    def _carefully(self, tasks: list[Task[Any]]) -> Iterator[Task[Any]]:
        for task in tasks:
            known = self._tell("begin_suspect", f"{self.job.index}:{task.task_id}") or 0
            # The first death counts for a task that has died by itself since, or that was alone then.
            deaths = known + 1 if known or len(tasks) == 1 else 0
            if deaths >= self.job.max_worker_deaths:
                self._runner.set_aside(
                    task,
                    WorkerDied(
                        f"{deaths} workers died while they worked on task {task.task_id!r}: a crash in native code, "
                        "a kill, or no memory left"
                    ),
                )
            else:
                yield from self._runner.run([task])
            self._tell("end_suspect", f"{self.job.index}:{task.task_id}")

    def _facts(self, tasks: int) -> Facts:
        """What the driver is to know: how many sources are through, the rows and times, and what nobody has written."""
        sources = tasks if self.job.index == 0 else 0
        sink = self._runner.sink
        if isinstance(sink, LedgerWriter):
            return Facts(sources, sink.take_counts(), [])
        assert isinstance(sink, MemorySink)
        events = sink.take()
        return Facts(sources, [count for event in events for count in event.counts], events)

    def _tell(self, method: str, *arguments: Any) -> Any:
        if self._coordinator is None:
            return None
        import ray  # in a worker it is there

        return ray.get(getattr(self._coordinator, method).remote(*arguments))

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        self._busy.set()
        try:
            yield
        finally:
            self._busy.clear()

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_SECONDS):
            if self._busy.is_set():
                self._coordinator.beat.remote(self.worker_id)


def once_per_node(token: str, name: str, call: Callable[[], None]) -> None:
    """Call once on this machine, however many workers ask; the others wait until it is through."""
    folder = node_folder(token)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    done = folder / f"{name}.done"
    with (folder / f"{name}.lock").open("w") as lock:
        # The lock goes with the process, so a worker that dies in the middle leaves the call to the next.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            call()
            done.touch()


def node_folder(token: str) -> Path:
    """Where a run keeps its marks on a machine."""
    return Path(tempfile.gettempdir()) / f"curator-{token}"


def clean_node(token: str) -> None:
    """Take the marks of a run away."""
    shutil.rmtree(node_folder(token), ignore_errors=True)
