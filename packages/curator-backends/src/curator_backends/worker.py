"""What a worker process does around core's `GroupRunner`, on either engine.

It counts deaths: work is marked before it begins and after it is through. Work that was begun before and never got
through has killed its worker, so it is done again task by task, and a task that has killed too many is handed to the
error policy instead. It reports errors: what a stage raises goes to the coordinator before the engine wraps it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from curator_backends.coordinator import BEAT_SECONDS
from curator_backends.failures import pack_failure
from curator_core.accounts.events import Event
from curator_core.accounts.ledger import LedgerWriter, MemorySink
from curator_core.errors import UsageError, WorkerDied
from curator_core.model.codec import by_value
from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
from curator_core.model.stage import accepted_tasks, overrides
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
    """What a worker must have of its group; sent once to each.

    It is pickled by the library that pickles tasks, whatever the engine uses: a class of the user's script travels with
    its code, and two libraries would make two classes of it, one for the stage and one for its tasks.
    """

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

    @property
    def label(self) -> str:
        """The classes of the group's stages: what operators, stages and actors are called in the engines' dashboards."""
        return "+".join(type(planned.stage).__name__ for planned in self.group.stages)

    @functools.cached_property
    def packed(self) -> bytes:
        """The job as bytes; `UsageError` names a stage that cannot be sent."""
        kinds = {kind for planned in self.group.stages for kind in _classes(planned.stage)}
        values = tuple(getattr(self, field.name) for field in dataclasses.fields(self))
        try:
            with by_value(*kinds):
                return bytes(cloudpickle.dumps(values))
        except Exception as error:
            for planned in self.group.stages:
                try:
                    cloudpickle.dumps(planned)
                except Exception as cause:
                    raise UsageError(
                        f"stage {planned.name!r} cannot be sent to a worker process: {cause}. What a stage opens or loads "
                        "(a file, a lock, a connection, a model) belongs into its setup(); workers=0 sends nothing"
                    ) from error
            raise

    def __reduce__(self) -> tuple[Callable[[bytes], Job], tuple[bytes]]:
        return _unpack_job, (self.packed,)


def _unpack_job(packed: bytes) -> Job:
    return Job(*cloudpickle.loads(packed))


def _classes(stage: Any) -> Iterator[type]:
    """The classes that a worker must have: the stage's, and those of the tasks that it takes and gives."""
    for kind in (type(stage), *accepted_tasks(stage), type(stage).task_in, type(stage).task_out):
        yield from kind.__mro__


class GroupWorker:
    """A group in a worker process, from its set-up to its teardown."""

    def __init__(
        self,
        job: Job,
        coordinator: Any,
        node: NodeInfo,
        worker: WorkerMetadata,
        *,
        closes: bool = True,
    ) -> None:
        """``closes`` says that `close` will be called, so that the run waits for it."""
        self.job = job
        self.worker_id = f"{job.index}:{worker.worker_id}"
        self._coordinator = coordinator
        self._runner = GroupRunner(job.group, job.context, ending=job.ending, folder=job.folder)
        self._busy = threading.Event()
        self._closed = threading.Event()
        self._report("starting", self.worker_id, node.node_id)
        threading.Thread(target=self._beat, name="curator-heartbeat", daemon=True).start()
        with self._reporting(self.worker_id), self._working():
            if job.sets_up_nodes:
                once_per_node(
                    job.token,
                    f"{node.node_id}-{job.index}",
                    lambda: self._runner.setup_on_node(node, worker),
                )
            self._runner.setup(worker)
        self._report("up", self.worker_id, closes)

    def run(self, tasks: list[Task[Any]]) -> Iterator[Task[Any]]:
        """Everything that the group makes of ``tasks``; every fact about them is durable when it ends."""
        if not tasks:
            return
        if self._closed.is_set():
            raise WorkerDied("this worker has torn down after an error, and the run is ending")
        key = f"{self.job.index}:{tasks[0].task_id}:{len(tasks)}"
        with self._reporting(key), self._working():
            earlier = self._report("begin", self.worker_id, key)
            yield from self._carefully(tasks) if earlier else self._runner.run(tasks)
            self._runner.flush()
            self._report("finish", self.worker_id, key, self._facts(len(tasks)))

    def close(self) -> None:
        """Tear down; what goes wrong is reported to the driver, since an error that is raised here goes nowhere."""
        if self._closed.is_set():
            return
        self._closed.set()
        failure: bytes | None = None
        try:
            self._runner.teardown()
            self._runner.flush()
        except BaseException as error:
            failure = pack_failure(error)
        # The driver may be gone already; the worker ends in any case.
        with contextlib.suppress(Exception):
            self._report("down", self.worker_id, failure)

    def _carefully(self, tasks: list[Task[Any]]) -> Iterator[Task[Any]]:
        for task in tasks:
            known = self._report("begin_suspect", f"{self.job.index}:{task.task_id}") or 0
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
            self._report("end_suspect", f"{self.job.index}:{task.task_id}")

    def _facts(self, tasks: int) -> Facts:
        """What the driver gets: how many sources are through, the rows and times, and the events that have no file."""
        sources = tasks if self.job.index == 0 else 0
        sink = self._runner.sink
        if isinstance(sink, LedgerWriter):
            return Facts(sources, sink.take_counts(), [])
        assert isinstance(sink, MemorySink)
        events = sink.take()
        return Facts(sources, [count for event in events for count in event.counts], events)

    def _report(self, method: str, *arguments: Any) -> Any:
        import ray  # in a worker it is there

        return ray.get(getattr(self._coordinator, method).remote(*arguments))

    @contextlib.contextmanager
    def _reporting(self, key: str) -> Iterator[None]:
        """What a stage raises is reported as it is: the engine would wrap it, and may keep its text alone."""
        try:
            yield
        except Exception as error:
            with contextlib.suppress(Exception):  # the error itself still goes up
                self._report("raised", key, pack_failure(error))
            raise

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
