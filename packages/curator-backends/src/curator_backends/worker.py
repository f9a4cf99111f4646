"""The part of a worker process around core's `GroupRunner`, on either engine.

It counts deaths: it marks work before it begins and after it finishes. Work that was begun and never finished has
killed its worker, so it is repeated task by task, and a task that has killed too many workers goes to the error policy
instead. It also reports errors: an error that a stage raises goes to the coordinator before the engine wraps it.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import fcntl
import functools
import gc
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import pyarrow as pa

from curator_backends.calls import WorkerCalls
from curator_backends.coordinator import BEAT_SECONDS, Suspect
from curator_backends.links import Link
from curator_core.accounts.events import Event
from curator_core.accounts.ledger import LedgerWriter, MemorySink
from curator_core.errors import CuratorError, TaskTimeout, WorkerDied
from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
from curator_core.model.stage import overrides
from curator_core.model.task import DocumentBatch, StagePerfStats, Task
from curator_core.planning.plan import Group
from curator_core.worker.calls import Care
from curator_core.worker.context import Ending, RunContext
from curator_core.worker.group import GroupRunner
from curator_core.worker.sending import packed_error, packed_stages, unpacked_error

# Results of up to about this many bytes wait until the records about them are durable.
HELD_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Facts:
    """The report of a worker to the driver at the end of a piece of work."""

    sources: int
    counts: list[StagePerfStats]
    events: list[Event]
    group: int = 0


@dataclass(frozen=True)
class Job:
    """The part of its group that a worker needs; it is sent once to each worker.

    The library that pickles tasks also pickles jobs, whatever the engine uses. A class from the user's script is
    pickled with its code, and with two libraries it would become two classes, one for the stage and one for its tasks.
    """

    token: str  # of the run: part of the names of the run's files on a node
    index: int  # index of the group
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
        """The names of the stages' classes, which the engines' dashboards show for operators, stages and actors."""
        return "+".join(type(planned.stage).__name__ for planned in self.group.stages)

    @functools.cached_property
    def packed(self) -> bytes:
        """The job as bytes; a `UsageError` names a stage that cannot be pickled, and the part that causes it."""
        return packed_stages(self.group.stages, tuple(getattr(self, field.name) for field in dataclasses.fields(self)))

    def __reduce__(self) -> tuple[Callable[[bytes], Job], tuple[bytes]]:
        return _unpack_job, (self.packed,)


def _unpack_job(packed: bytes) -> Job:
    return Job(*cloudpickle.loads(packed))


class GroupWorker:
    """A group in a worker process, from its set-up to its teardown."""

    def __init__(
        self,
        job: Job,
        link: Link,
        node: NodeInfo,
        worker: WorkerMetadata,
        *,
        closes: bool = True,
    ) -> None:
        """``closes`` says that `close` will be called, so that the run waits for the teardown."""
        self.job = job
        self.worker_id = f"{job.index}:{worker.worker_id}"
        self._link = link
        self._calls = WorkerCalls(functools.partial(self._report, "calling"), self._report_late)
        self._runner = GroupRunner(job.group, job.context, ending=job.ending, folder=job.folder, calls=self._calls)
        self._busy = threading.Event()
        self._closed = threading.Event()
        _leave_garbage_at_the_end()
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
        """The results of the group for ``tasks``; all facts about them are durable when the iterator ends.

        A result that keeps the id of its task is handed over only after the facts about it are durable. The next group
        may finish the result at once; if a fork of this group were not recorded by then, a resumed run would skip the
        source and lose its rejects and samples.
        """
        if not tasks:
            return
        if self._closed.is_set():
            raise WorkerDied("this worker has torn down after an error, and the run is ending")
        key = f"{self.job.index}:{tasks[0].task_id}:{len(tasks)}"
        with self._reporting(key), self._working():
            begun = self._report("begin", self.worker_id, key)
            results = self._carefully(tasks, begun.died) if begun.again else self._runner.run(tasks)
            yield from self._recorded(results, {task.task_id for task in tasks})
            self._runner.flush()
            self._report("finish", self.worker_id, key, self._facts(len(tasks)))

    def close(self) -> None:
        """Tear down; report failures to the driver, since nothing catches an error that is raised here."""
        if self._closed.is_set():
            return
        self._closed.set()
        failure: bytes | None = None
        try:
            self._runner.teardown()
            self._runner.flush()
        except BaseException as error:
            failure = packed_error(error)
        # The driver may already be gone, and the worker ends in any case.
        with contextlib.suppress(Exception):
            self._report("down", self.worker_id, failure)

    def _recorded(self, results: Iterator[Task[Any]], given: set[str]) -> Iterator[Task[Any]]:
        """The results, in order; those that keep the id of a given task are held until a flush, a few megabytes at a
        time.
        """
        if self.job.ending != "pass" or not isinstance(self._runner.sink, LedgerWriter):
            yield from results
            return
        held: list[Task[Any]] = []
        size = 0
        for result in results:
            if not held and result.task_id not in given:
                yield result
                continue
            held.append(result.landed() if isinstance(result, DocumentBatch) else result)
            del result
            size += _bytes_of(held[-1])
            if size >= HELD_BYTES:
                self._runner.flush()
                yield from _handed_over(held)
                size = 0
        if held:
            self._runner.flush()
            yield from _handed_over(held)

    def _carefully(self, tasks: list[Task[Any]], died: bool) -> Iterator[Task[Any]]:
        """Run task by task, each with the evidence against it. ``died`` says that a worker died while it worked on
        these tasks together.
        """
        for task in tasks:
            key = f"{self.job.index}:{task.task_id}"
            suspect: Suspect = self._report("begin_suspect", key)
            care, guilty = judge(suspect, died, len(tasks) == 1, self.job.max_worker_deaths)
            if guilty:
                # It kills workers outside of any stage, so it cannot be withheld from one stage alone.
                self._runner.set_aside(task, WorkerDied.of_task(task.task_id, guilty))
            else:
                self._calls.suspect = key
                try:
                    yield from self._runner.run([task], care)
                finally:
                    self._calls.suspect = ""
            self._report("end_suspect", key)

    def _report_late(self, stage: str, tasks: list[str], error: TaskTimeout) -> None:
        self._report("late", self.worker_id, stage, tasks, packed_error(error))

    def _facts(self, tasks: int) -> Facts:
        """The report for the driver: how many sources are done, rows and times, and events that no file holds."""
        sources = tasks if self.job.index == 0 else 0
        sink = self._runner.sink
        if isinstance(sink, LedgerWriter):
            return Facts(sources, sink.take_counts(), [], self.job.index)
        assert isinstance(sink, MemorySink)
        events = sink.take()
        return Facts(sources, [count for event in events for count in event.counts], events, self.job.index)

    def _report(self, method: str, *arguments: Any) -> Any:
        return self._link.call(method, *arguments)

    @contextlib.contextmanager
    def _reporting(self, key: str) -> Iterator[None]:
        """Report an error as the stage raised it: the engine would wrap it, and might keep only its text."""
        try:
            yield
        except Exception as error:
            with contextlib.suppress(Exception):  # the error itself is still raised
                self._report("raised", key, packed_error(error))
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
                self._link.tell("beat", self.worker_id)


def _leave_garbage_at_the_end() -> None:
    """Let this process end without a search for cyclic garbage, which takes 0.3 to 0.4 s of a CPU if Ray Data is
    imported. Handlers of `atexit` still run, and objects outside of cycles are still deleted.
    """
    atexit.unregister(gc.freeze)  # a process may serve several groups
    atexit.register(gc.freeze)


def _bytes_of(task: Task[Any]) -> int:
    """The size of a task in memory if its data is a table, otherwise 0."""
    return int(task.data.nbytes) if isinstance(task.data, pa.Table) else 0


def _handed_over(held: list[Task[Any]]) -> Iterator[Task[Any]]:
    """Yield each task, and keep no reference to it."""
    held.reverse()
    while held:
        yield held.pop()


def judge(suspect: Suspect, died: bool, alone: bool, most: int) -> tuple[Care, int]:
    """How a suspect runs again, and the number of deaths for which the whole task is set aside (0 if it is not).

    The death that made it a suspect also counts: against the call that has killed a worker since, or against the task
    if it ran ``alone`` at the time.
    """
    aside: dict[tuple[str, str], CuratorError] = {}
    for call, failure in suspect.aside.items():
        error = unpacked_error(failure)
        assert isinstance(error, CuratorError)
        aside[call] = error
    for (stage, task_id), deaths in suspect.deaths.items():
        if deaths + died >= most:
            aside[stage, task_id] = WorkerDied.of_task(task_id, deaths + died, stage)
    unexplained = suspect.unexplained + (died and (alone or suspect.unexplained > 0) and not suspect.deaths)
    return Care(suspect.alone, aside), unexplained if unexplained >= most else 0


def once_per_node(token: str, name: str, call: Callable[[], None]) -> None:
    """Call once on this machine, however many workers request it; the others wait until the call has returned."""
    folder = node_folder(token)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    done = folder / f"{name}.done"
    with (folder / f"{name}.lock").open("w") as lock:
        # The lock ends with the process, so if a worker dies during the call, the next worker makes it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            call()
            done.touch()


def node_folder(token: str) -> Path:
    """The folder of a run's marker files on a machine."""
    return Path(tempfile.gettempdir()) / f"curator-{token}"


def clean_node(token: str) -> None:
    """Remove the marker files of a run."""
    shutil.rmtree(node_folder(token), ignore_errors=True)
