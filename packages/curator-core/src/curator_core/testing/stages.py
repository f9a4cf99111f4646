"""Stages for the conformance suite: they are small, and each leaves traces of its calls.

They have their own module, so that worker processes can import them.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curator_core import storage
from curator_core.arrow.arrays import array
from curator_core.errors import MissingDependency
from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
from curator_core.model.lineage import source_id
from curator_core.model.stage import FanOut, Merge, ProcessingStage, SourceStage
from curator_core.model.task import DocumentBatch, EmptyTask, FileGroupTask
from curator_core.testing.waiting import wait_for


def leave_trace(folder: str, name: str, text: str = "") -> None:
    """Write each trace to a separate file, whole or not at all, so that traces of several processes never mix."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    file = f"{name}-{uuid.uuid4().hex}"
    (place / f".{file}").write_text(text)
    (place / f".{file}").rename(place / file)


def traces(folder: Path, name: str) -> list[str]:
    """The texts of all traces with a name, in no particular order."""
    return [path.read_text() for path in folder.glob(f"{name}-*")] if folder.is_dir() else []


@dataclass
class ListFiles(SourceStage[FileGroupTask]):
    """Lists files in groups of ``per_task``."""

    paths: Sequence[str] = ()
    per_task: int = 2

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        for start in range(0, len(self.paths), self.per_task):
            group = list(self.paths[start : start + self.per_task])
            names = [Path(path).name for path in group]
            made = FileGroupTask(data=group, task_id=source_id(Path(names[0]).stem, names), dataset_name="conformance")
            made._generation = "1"
            yield made


@dataclass
class ReadRows(ProcessingStage[FileGroupTask, DocumentBatch]):
    """Reads lines of JSON as rows."""

    def outputs(self) -> list[str]:
        return ["id", "text"]

    def process(self, task: FileGroupTask) -> DocumentBatch:
        rows = []
        for path in task.data:
            rows += [json.loads(line) for line in storage.read_bytes(path).splitlines()]
        self.record_read(len(rows))
        return DocumentBatch(data=pa.Table.from_pylist(rows, pa.schema([("id", pa.int64()), ("text", pa.string())])))


@dataclass
class AddLength(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Adds the length of the text; it has state, and works only on batches of tasks."""

    column: str = "length"
    calls: str = ""

    def inputs(self) -> list[str]:
        return ["text"]

    def outputs(self) -> list[str]:
        return [self.column]

    def setup(self, worker: WorkerMetadata) -> None:
        self._ready = True

    def process(self, task: DocumentBatch) -> DocumentBatch:
        raise NotImplementedError("this stage works on batches")

    def process_batch(self, tasks: list[DocumentBatch]) -> list[DocumentBatch]:
        assert self._ready, "process_batch() came before setup()"
        if self.calls:
            leave_trace(self.calls, self.column)
        results = []
        for task in tasks:
            lengths = [len(text) for text in task.to_pyarrow()["text"].to_pylist()]
            results.append(task.append_column(self.column, array(lengths, pa.int64())))
        return results


@dataclass
class SplitRows(FanOut[DocumentBatch, DocumentBatch]):
    """Makes a task of each row."""

    def process(self, task: DocumentBatch) -> Iterator[DocumentBatch]:
        table = task.to_pyarrow()
        for row in range(table.num_rows):
            yield task.with_data(table.slice(row, 1))


@dataclass
class NeedsSetup(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Adds the values that its set-up prepared, one on the machine and one in the worker."""

    folder: str = ""

    def outputs(self) -> list[str]:
        return ["prepared"]

    def setup_on_node(self, node: NodeInfo, worker: WorkerMetadata) -> None:
        leave_trace(self.folder, "node", node.node_id)
        (Path(self.folder) / "weights").write_text("weights")

    def setup(self, worker: WorkerMetadata) -> None:
        self._prepared = (Path(self.folder) / "weights").read_text()
        leave_trace(self.folder, "setup", str(os.getpid()))

    def teardown(self) -> None:
        leave_trace(self.folder, "teardown", str(os.getpid()))

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task.append_column("prepared", array([self._prepared] * task.num_rows, pa.string()))


@dataclass
class WriteRows(ProcessingStage[DocumentBatch, FileGroupTask]):
    """Writes a file of JSON lines for each task."""

    path: str = ""

    def process(self, task: DocumentBatch) -> FileGroupTask:
        rows = task.to_pyarrow().to_pylist()
        with storage.write_atomic(storage.join(self.path, f"{task.task_id}.jsonl")) as out:
            out.write("".join(f"{json.dumps(row, sort_keys=True)}\n" for row in rows).encode())
        record = out.record(rows=len(rows))
        self.record_output(record)
        return FileGroupTask(data=[record.path], records=[record])


@dataclass
class Same(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Changes nothing."""

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task.with_data(task.data)


@dataclass
class AddProcess(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Adds the process that worked on the task; asks to keep its worker. With ``meet``, the first task of a process
    waits until another process has one as well, so that a worker that starts later gets its share; if there is none,
    the task fails.
    """

    column: str = "pid"
    teardowns: str = ""
    meet: str = ""

    def outputs(self) -> list[str]:
        return [self.column]

    def setup(self, worker: WorkerMetadata) -> None:
        if self.teardowns:
            leave_trace(self.teardowns, "setup", str(os.getpid()))

    def teardown(self) -> None:
        if self.teardowns:
            leave_trace(self.teardowns, "teardown", str(os.getpid()))

    def process(self, task: DocumentBatch) -> DocumentBatch:
        spin()
        if self.meet:
            here = str(os.getpid())
            if here not in traces(Path(self.meet), "process"):
                leave_trace(self.meet, "process", here)
            wait_for(lambda: len(set(traces(Path(self.meet), "process"))) > 1, "no second process got a task")
        return task.append_column(self.column, array([os.getpid()] * task.num_rows, pa.int64()))


@dataclass
class NameProcess(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Adds the process that worked on the task; does not ask to keep its worker."""

    def outputs(self) -> list[str]:
        return ["pid"]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task.append_column("pid", array([os.getpid()] * task.num_rows, pa.int64()))


@dataclass
class WaitFor(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Asks to keep its worker. All but the first ``free`` tasks wait until the file ``until`` exists; if it never does,
    they fail.
    """

    folder: str = ""
    until: str = ""
    free: int = 4

    def setup(self, worker: WorkerMetadata) -> None:
        self._ready = True

    def process(self, task: DocumentBatch) -> DocumentBatch:
        leave_trace(self.folder, "begun", task.task_id)
        if self.until and len(traces(Path(self.folder), "begun")) > self.free:
            wait_for(Path(self.until).exists, f"there is no {self.until!r}")
        return task.with_data(task.data)


@dataclass
class Takes(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Sleeps ``seconds`` for each task, for tests about the duration of stages. It leaves a trace with its process and
    the time.
    """

    folder: str
    mine: str
    seconds: float

    def setup(self, worker: WorkerMetadata) -> None:
        self._pause = threading.Event()

    def process(self, task: DocumentBatch) -> DocumentBatch:
        began = time.monotonic()
        self._pause.wait(self.seconds)
        leave_trace(self.folder, self.mine, f"{began} {os.getpid()}")
        return task.with_data(task.data)


@dataclass
class BeginsBeside(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Does not compute, but waits until another stage has begun the task ``ahead`` of this one (or behind it), so that
    both are working.

    A stage that ``loads`` also waits in its setup, which counts as task -1, like a model that loads while the first
    task is read.
    """

    folder: str = ""
    mine: str = ""
    other: str = ""
    ahead: int = 0
    tasks: int = 6
    loads: bool = False
    first: int = 0  # -1 if the other stage loads

    def setup(self, worker: WorkerMetadata) -> None:
        if self.loads:
            self._begin(-1)

    def process(self, task: DocumentBatch) -> DocumentBatch:
        self._begin(int(task.task_id.rpartition(".")[2]))
        return task.with_data(task.data)

    def _begin(self, number: int) -> None:
        leave_trace(self.folder, f"{self.mine}-{number}")
        wanted = number + self.ahead
        if self.first <= wanted < self.tasks:
            name = f"{self.other}-{wanted}"
            wait_for(lambda: traces(Path(self.folder), name), f"{name}, which should begin beside this one", 30.0)


@dataclass
class Choose(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Depending on its id, drops a task, returns no tasks for it, returns two, or passes it on."""

    def process(self, task: DocumentBatch) -> Any:
        number = task.to_pyarrow()["id"][0].as_py() % 4
        if number == 0:
            return None
        if number == 1:
            return []
        if number == 2:
            table = task.to_pyarrow()
            return [task.with_data(table.slice(0, 1)), task.with_data(table.slice(1))]
        return task.with_data(task.data)


@dataclass
class DropRows(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Drops every row, with a reason."""

    def process(self, task: DocumentBatch) -> DocumentBatch:
        self.record_dropped("unwanted", task.num_rows)
        return task.with_data(task.to_pyarrow().slice(0, 0))


@dataclass
class DropTasks(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Drops every task."""

    def process(self, task: DocumentBatch) -> None:
        return None


@dataclass
class Together(Merge[DocumentBatch, DocumentBatch]):
    """Merges all rows into one task."""

    def process(self, tasks: Sequence[DocumentBatch]) -> DocumentBatch:  # type: ignore[override]
        return DocumentBatch(data=pa.concat_tables([task.to_pyarrow() for task in tasks]))


@dataclass
class Raise(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Fails on tasks with a row with this id."""

    bad: int = 3

    def inputs(self) -> list[str]:
        return ["id"]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        self._refuse(task.to_pyarrow()["id"].to_pylist())
        return task.with_data(task.data)

    def _refuse(self, ids: list[int]) -> None:
        if self.bad in ids:
            raise ValueError(f"row {self.bad} cannot be read")


@dataclass
class RejectAndTell(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Rejects the rows with some ids, and reports each task by `print` and to a logger."""

    bad: tuple[int, ...] = (3, 7, 8)

    def inputs(self) -> list[str]:
        return ["id"]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        ids = task.to_pyarrow()["id"].to_pylist()
        for number in ids:
            if number in self.bad:
                self.record_rejected("bad id", position=number, raw=str(number).encode())
        print(f"seen {ids}")  # noqa: T201 - a user's stage may print
        logging.getLogger("conformance").warning("first of all %s", ids[0])
        return task.filter(array([number not in self.bad for number in ids], pa.bool_()))


@dataclass
class FailIn(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Fails in ``hook``: with one of Curator's errors if ``missing``, otherwise with one of Python's."""

    hook: str = "setup"
    missing: bool = False

    def setup_on_node(self, node: NodeInfo, worker: WorkerMetadata) -> None:
        self._reach("setup_on_node")

    def setup(self, worker: WorkerMetadata) -> None:
        self._reach("setup")

    def process(self, task: DocumentBatch) -> DocumentBatch:
        self._reach("process")
        return task.with_data(task.data)

    def teardown(self) -> None:
        self._reach("teardown")

    def _reach(self, hook: str) -> None:
        if hook == self.hook:
            if self.missing:
                raise MissingDependency('the model needs a package: pip install "a-package[models]"')
            raise ValueError(f"{hook} cannot be read\nand this is the reason")


@dataclass
class Leave(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Calls ``sys.exit()`` on tasks with a row with this id."""

    bad: int = 3
    code: int = 7

    def process(self, task: DocumentBatch) -> DocumentBatch:
        if self.bad in task.to_pyarrow()["id"].to_pylist():
            sys.exit(self.code)
        return task.with_data(task.data)


@dataclass
class Hang(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Never finishes tasks with a row with this id, and leaves the cores to others meanwhile."""

    bad: int = 3

    def process(self, task: DocumentBatch) -> DocumentBatch:
        while self.bad in task.to_pyarrow()["id"].to_pylist():
            time.sleep(0.01)
        return task.with_data(task.data)


@dataclass
class HoldLock(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Has a lock, which cannot be sent to another process."""

    def __post_init__(self) -> None:
        self.locks = {"own": threading.Lock()}

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task.with_data(task.data)


@dataclass
class KillWorker(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Kills its own process on tasks with a row with this id, a given number of times."""

    bad: int = 3
    times: int = 1
    folder: str = ""

    def process(self, task: DocumentBatch) -> DocumentBatch:
        if self.bad in task.to_pyarrow()["id"].to_pylist() and len(traces(Path(self.folder), "kill")) < self.times:
            leave_trace(self.folder, "kill", str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return task.with_data(task.data)


@dataclass
class OnThread(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Drops odd ids, rejects those that end in 7, and fails on ``bad``, in a thread that begins before the stage is
    called.

    On ``killer`` the thread kills its process. With a folder, it leaves a trace when it begins a task, and waits until
    ``other`` has begun the task before.
    """

    begins_ahead: int = 1
    bad: int = -1
    killer: int = -1
    folder: str = ""
    other: str = ""

    def setup(self, worker: WorkerMetadata) -> None:
        self._pool = ThreadPoolExecutor(1)

    def teardown(self) -> None:
        self._pool.shutdown()

    def begin(self, task: DocumentBatch) -> Callable[[], DocumentBatch]:
        answer = self._pool.submit(self._work, task)
        return lambda: self._made(task, answer.result())

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return self._made(task, self._work(task))

    def _work(self, task: DocumentBatch) -> list[int]:
        ids: list[int] = task.to_pyarrow()["id"].to_pylist()
        if self.killer in ids:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.bad in ids:
            raise ValueError(f"row {self.bad} cannot be handled")
        if self.folder:
            number = int(task.task_id.rpartition(".")[2])
            leave_trace(self.folder, f"begun-{number}")
            if number:
                name = f"{self.other}-{number - 1}"
                wait_for(lambda: traces(Path(self.folder), name), f"{name}, which should begin beside this one", 30.0)
        return ids

    def _made(self, task: DocumentBatch, ids: list[int]) -> DocumentBatch:
        odd, sevens = [i % 2 == 1 and i % 10 != 7 for i in ids], [i % 10 == 7 for i in ids]
        self.record_dropped("odd", sum(odd))
        for number in (i for i in ids if i % 10 == 7):
            self.record_rejected("seven", position=number)
        return task.filter(array([not (a or b) for a, b in zip(odd, sevens, strict=True)], pa.bool_()))


@dataclass
class KillDriver(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Kills the driver, whose process id is in ``pid_file``, once, after ``after`` tasks."""

    pid_file: str = ""
    after: int = 5

    def process(self, task: DocumentBatch) -> DocumentBatch:
        folder = Path(self.pid_file).parent
        leave_trace(str(folder / "passed"), "passed")
        if len(traces(folder / "passed", "passed")) > self.after:
            try:
                pid = int(Path(self.pid_file).read_text())
                Path(self.pid_file).unlink()
            except FileNotFoundError:
                return task.with_data(task.data)
            os.kill(pid, signal.SIGKILL)
        return task.with_data(task.data)


@dataclass
class PackageVersion(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Adds the version of a package in this stage's environment."""

    column: str = "version"

    def outputs(self) -> list[str]:
        return [self.column]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        import curator_conformance_pinned  # type: ignore[import-not-found]

        version = curator_conformance_pinned.VERSION
        return task.append_column(self.column, array([version] * task.num_rows, pa.string()))


def spin(turns: int = 200_000) -> int:
    """Some work, so that a second worker has a chance to take part."""
    total = 0
    for turn in range(turns):
        total += turn
    return total
