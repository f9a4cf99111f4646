"""Stages that tests run in worker processes; the tests' folder is on the import path, so that workers find them."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
from curator_core.model.stage import FanOut, ProcessingStage, SourceStage
from curator_core.model.task import DocumentBatch, EmptyTask, FileGroupTask
from curator_core.testing.waiting import wait_for


def tasks(count: int, rows: int = 1) -> list[DocumentBatch]:
    return [
        DocumentBatch(data=pa.table({"id": [n * rows + row for row in range(rows)]}), task_id=f"task-{n:05d}")
        for n in range(count)
    ]


def column(results: Any, name: str) -> list[Any]:
    return [value for task in results for value in task.to_pyarrow()[name].to_pylist()]


def lives(pid: int) -> bool:
    """Whether a process is running; a zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@dataclass(kw_only=True)
class Drawn(DocumentBatch):
    """Rows with a stand-in for a JPEG, made from their number."""

    picture_column: ClassVar[str | None] = "raw"
    picture_maker: ClassVar[str] = "stages_for_tests:drawn"


def drawn(value: bytes) -> bytes:
    return b"\xff\xd8\xff" + value


@dataclass
class Draw(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Gives rows an embedding and something of which to make a picture."""

    def inputs(self) -> list[str]:
        return ["id"]

    def outputs(self) -> list[str]:
        return ["raw", "embedding"]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        numbers = task.to_pyarrow()["id"].to_pylist()
        vectors = pa.array([[number % 7, number % 5, 1.0] for number in numbers], pa.list_(pa.float32(), 3))
        made = task.append_column("raw", pa.array([b"%d" % number for number in numbers], pa.binary()))
        table = made.append_column("embedding", vectors).to_pyarrow()
        return Drawn(data=table, task_id=task.task_id, dataset_name=task.dataset_name)


@dataclass
class WithoutRaw(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Leaves out values that JSON cannot hold."""

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task.with_data(task.to_pyarrow().drop_columns(["raw"]))


@dataclass
class Plain(ProcessingStage[DocumentBatch, DocumentBatch]):
    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task.with_data(task.data)


@dataclass
class Many(SourceStage[FileGroupTask]):
    """Lists sources; records in ``folder`` how many the driver has listed."""

    count: int = 10

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        for number in range(self.count):
            yield FileGroupTask(data=[f"f-{number}"], task_id=f"s-{number:07d}")


@dataclass
class ManyWaiting(Many):
    """Lists sources only up to ``until`` before a worker has worked on one of them."""

    until: int = 10
    folder: str = ""

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        for source in super().process(task):
            if source.task_id == f"s-{self.until:07d}":
                wait_for(lambda: any(Path(self.folder).iterdir()), "the work waits for the end of the listing", 120)
            yield source


@dataclass
class Passed(ProcessingStage[FileGroupTask, FileGroupTask]):
    """Passes its tasks on, and leaves a file in ``folder`` to show it."""

    folder: str = ""

    def process(self, task: FileGroupTask) -> FileGroupTask:
        if self.folder:
            (Path(self.folder) / "worked").touch()
        return task.with_data(task.data)


@dataclass
class Rows(FanOut[DocumentBatch, DocumentBatch]):
    def process(self, task: DocumentBatch) -> Iterator[DocumentBatch]:
        for row in range(task.num_rows):
            yield task.with_data(task.to_pyarrow().slice(row, 1))


@dataclass
class Where(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Records where it ran: process, node, devices. With ``meet`` a task waits until another has run on another device;
    with ``until`` it waits for a file of that name.
    """

    folder: str = ""
    meet: str = ""
    until: str = ""

    def setup_on_node(self, node: NodeInfo, worker: WorkerMetadata) -> None:
        if self.folder:
            with (Path(self.folder) / f"node-{node.node_id}").open("a") as file:
                file.write(f"{os.getpid()}\n")

    def setup(self, worker: WorkerMetadata) -> None:
        self._gpus = list(worker.gpu_ids)

    def process(self, task: DocumentBatch) -> DocumentBatch:
        import ray

        if self.folder:
            (Path(self.folder) / f"began-{task.task_id}").touch()
        if self.until:
            wait_for(Path(self.until).exists, f"there is no {self.until!r}", 300)
        if self.meet:
            (Path(self.meet) / os.environ.get("CUDA_VISIBLE_DEVICES", "none")).touch()
            wait_for(lambda: len(list(Path(self.meet).iterdir())) > 1, "no task ran on another device", 120)
        rows = task.num_rows
        task = task.append_column("pid", pa.array([os.getpid()] * rows))
        task = task.append_column("node", pa.array([ray.get_runtime_context().get_node_id()] * rows))
        task = task.append_column("devices", pa.array([os.environ.get("CUDA_VISIBLE_DEVICES", "")] * rows))
        return task.append_column("gpus", pa.array([self._gpus] * rows, pa.list_(pa.int64())))


@dataclass
class KeepsAnException(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Keeps an exception that it has caught, and with it the frames of all callers; leaves a file when it is torn down."""

    folder: str = ""

    def setup(self, worker: WorkerMetadata) -> None:
        gc.disable()  # otherwise the frames are released whenever garbage happens to be collected

    def process(self, task: DocumentBatch) -> DocumentBatch:
        try:
            raise ValueError("caught")
        except ValueError as error:
            self._last = error
        return task

    def teardown(self) -> None:
        gc.enable()
        (Path(self.folder) / f"down-{os.getpid()}").touch()
