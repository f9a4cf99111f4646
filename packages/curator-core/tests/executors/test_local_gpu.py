"""LocalExecutor with a GPU: one process owns it, and the workers feed it while it computes. The tests need no GPU."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curator_core import DocumentBatch, FanOut, Pipeline, ProcessingStage, Resources, Task, WorkerDied, WorkerMetadata
from curator_core.accounts import ledger
from curator_core.accounts.table_files import write_parquet
from curator_core.executors.local_gpu import AHEAD_BYTES, Answer, OwnedGroup, Server, share_of_memory
from curator_core.executors.local_protocol import CallFile, SetUp, new_call_file
from curator_core.executors.local_worker import _Worker
from curator_core.executors.shared_blocks import Channel
from curator_core.planning.make import make_plan
from curator_core.planning.plan import PlannedStage
from curator_core.testing import Check, Subject, checks
from curator_core.testing import stages as s
from curator_core.testing.executors import OneCardExecutor
from curator_core.testing.stages import leave_trace, traces
from curator_core.testing.waiting import wait_for
from curator_core.worker.calls import Care
from curator_core.worker.context import RunContext
from curator_core.worker.group import GroupRunner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ON_THE_CARD = Resources(gpus=1)


def batches(count: int = 8, rows: int = 3) -> list[Task[Any]]:
    return [
        DocumentBatch(data=pa.table({"id": range(n * rows, n * rows + rows)}), task_id=f"task-{n:03d}")
        for n in range(count)
    ]


@dataclass
class Decode(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Adds as many bytes to each row as a small picture has, and the process."""

    size: int = 20_000

    def outputs(self) -> list[str]:
        return ["pixels", "decoder"]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        pixels = [bytes([number % 251]) * self.size for number in task.to_pyarrow()["id"].to_pylist()]
        return task.append_column("pixels", pa.array(pixels, pa.large_binary())).append_column(
            "decoder", pa.array([os.getpid()] * task.num_rows)
        )


@dataclass
class Embed(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Computes a number from the pixels, records the process, and drops chosen rows."""

    folder: str = ""
    column: str = "embedding"
    drops: int = -1
    kills: int = -1

    def inputs(self) -> list[str]:
        return ["pixels"]

    def outputs(self) -> list[str]:
        return [self.column]

    def setup(self, worker: WorkerMetadata) -> None:
        self._sum = sum
        leave_trace(self.folder, f"setup-{self.column}", f"{os.getpid()} {worker.worker_id}")

    def teardown(self) -> None:
        leave_trace(self.folder, f"teardown-{self.column}", str(os.getpid()))

    def process(self, task: DocumentBatch) -> DocumentBatch | None:
        table = task.to_pyarrow()
        numbers = table["id"].to_pylist()
        if self.kills in numbers and not traces(Path(self.folder), "kill"):
            leave_trace(self.folder, "kill")
            os.kill(os.getpid(), signal.SIGKILL)
        if self.drops in numbers:
            self.record_dropped("unwanted", task.num_rows)
            return None
        return task.append_column(self.column, pa.array([self._sum(pixels) for pixels in table["pixels"].to_pylist()]))


@dataclass
class Forget(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Removes the pixels, and records the process."""

    def inputs(self) -> list[str]:
        return ["pixels"]

    def removes(self) -> list[str]:
        return ["pixels"]

    def outputs(self) -> list[str]:
        return ["forgetter"]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        table = task.to_pyarrow().drop_columns(["pixels"])
        return task.with_data(table.append_column("forgetter", pa.array([os.getpid()] * task.num_rows)))


def embed(tmp_path: Path, **options: Any) -> ProcessingStage[Any, Any]:
    return Embed(folder=str(tmp_path), **options).with_(resources=ON_THE_CARD)


def rows(result: Any) -> list[dict[str, Any]]:
    """The results without the columns that name processes."""
    found = [row for task in result for row in task.to_pyarrow().to_pylist()]
    return [{key: value for key, value in row.items() if key not in ("decoder", "forgetter")} for row in found]


def test_one_process_owns_the_gpu_and_a_source_stays_with_its_worker(tmp_path: Path) -> None:
    stages = [Decode(), embed(tmp_path), Forget()]
    here = Pipeline(stages).run(OneCardExecutor(0), initial_tasks=batches())
    there = Pipeline(stages).run(OneCardExecutor(2), initial_tasks=batches())
    assert rows(there) == rows(here)
    found = [row for task in there for row in task.to_pyarrow().to_pylist()]
    owners = [text.split() for text in traces(tmp_path, "setup-embedding") if not text.startswith(f"{os.getpid()} ")]
    assert [name for _, name in owners] == ["local-gpu-0"], "one process has the model"
    assert owners[0][0] not in {str(row["decoder"]) for row in found}
    assert all(row["decoder"] == row["forgetter"] for row in found)
    assert sorted(traces(tmp_path, "teardown-embedding")) == sorted([str(os.getpid()), owners[0][0]])


def test_a_request_has_as_many_tasks_as_a_stage_wants_per_call() -> None:
    class Echo:
        def __init__(self, ahead_bytes: int) -> None:
            self.ahead_bytes = ahead_bytes
            self.asked: list[list[pa.Buffer]] = []

        def ask(self, group: int, buffers: list[pa.Buffer], care: Care) -> int:
            self.asked.append(buffers)
            return len(self.asked) - 1

        def answer(self, number: int) -> tuple[Answer, list[pa.Buffer]]:
            return Answer(number), self.asked[number]

    class Together(s.Same):
        def process_batch(self, tasks: Any) -> Any:
            return [self.process(task) for task in tasks]

    def requests(embed: s.Same, ahead_bytes: int) -> list[int]:
        echo = Echo(ahead_bytes)
        members = [PlannedStage(s.Same(), "decode"), PlannedStage(embed.with_(batch_size=4), "embed")]
        runner = GroupRunner(members, RunContext(), sink=ledger.MemorySink())
        made = list(OwnedGroup(runner, 0, 2, 0, echo).stream(iter(batches(9))))  # type: ignore[arg-type]
        assert [task.task_id for task in made] == [f"task-{number:03d}" for number in range(9)]
        return [len(buffers) for buffers in echo.asked]

    assert requests(s.Same(), AHEAD_BYTES) == [4, 4, 1]
    # Large tasks travel in smaller requests, except for a stage whose numbers may depend on which tasks come together.
    assert requests(s.Same(), 100) == [1] * 9
    assert requests(Together(), 100) == [4, 4, 1]


def test_two_groups_on_the_gpu_share_its_process_and_dropped_rows_are_accounted_for(tmp_path: Path) -> None:
    second = embed(tmp_path, column="second").with_(batch_size=2)
    stages = [s.SplitRows(), Decode(), embed(tmp_path, drops=4), s.Same(), second, Forget()]
    result = Pipeline(stages).run(OneCardExecutor(2), initial_tasks=batches(), run_dir=str(tmp_path / "run"))
    assert rows(result) == rows(Pipeline(stages).run(OneCardExecutor(0), initial_tasks=batches()))
    (dropped,) = [stage.dropped for stage in result.summary.stages if stage.dropped]
    assert dropped == {"unwanted": 1}
    setups = {trace.split()[0] for name in ("embedding", "second") for trace in traces(tmp_path, f"setup-{name}")}
    assert len(setups - {str(os.getpid())}) == 1


# The GPU and the workers work at the same time -----------------------------------------------------------------------------


def test_one_worker_decodes_the_next_task_while_the_gpu_computes_one(tmp_path: Path) -> None:
    """Decoding task n ends when embedding n-1 has begun, embedding n ends when decoding n+1 has: in turns neither could."""
    decode = s.BeginsBeside(str(tmp_path), "decode", "embed", -1, first=-1).with_(name="decode")
    embedding = s.BeginsBeside(str(tmp_path), "embed", "decode", +1, loads=True).with_(
        name="embed", resources=ON_THE_CARD
    )
    result = Pipeline([s.SplitRows(), decode, embedding]).run(OneCardExecutor(1), initial_tasks=batches(1, rows=6))
    assert len(result) == 6


@dataclass
class SlowToLoad(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Its model is loaded only when the first source has been read: the two must not wait for one another."""

    folder: str = ""

    def setup(self, worker: WorkerMetadata) -> None:
        wait_for(lambda: traces(Path(self.folder), "read"), "the first source is read", 30)

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task.with_data(task.data)


@dataclass
class Reads(FanOut[DocumentBatch, DocumentBatch]):
    folder: str = ""

    def process(self, task: DocumentBatch) -> Iterator[DocumentBatch]:
        leave_trace(self.folder, "read")
        yield task.with_data(task.data)


def test_the_model_is_loaded_while_the_first_sources_are_read(tmp_path: Path) -> None:
    stages = [Reads(str(tmp_path)), SlowToLoad(str(tmp_path)).with_(resources=ON_THE_CARD)]
    assert len(Pipeline(stages).run(OneCardExecutor(1), initial_tasks=batches(2))) == 2


def test_tasks_on_their_way_to_the_gpu_take_a_limited_part_of_memory() -> None:
    assert share_of_memory(128.0, 4) == AHEAD_BYTES
    for memory_gb, workers in ((2.0, 3), (1.0, 16), (16.0, 64)):
        assert workers * share_of_memory(memory_gb, workers) <= memory_gb * 2**30 / 8


# Deaths -------------------------------------------------------------------------------------------------------------------


def test_a_killed_owner_costs_only_time(tmp_path: Path) -> None:
    stages = [Decode(), embed(tmp_path, kills=10), Forget()]
    result = Pipeline(stages).run(OneCardExecutor(2), initial_tasks=batches(20), run_dir=str(tmp_path / "run"))
    assert rows(result) == rows(
        Pipeline([Decode(), embed(tmp_path), Forget()]).run(OneCardExecutor(0), initial_tasks=batches(20))
    )
    assert len(traces(tmp_path, "kill")) == 1


def test_the_owner_still_serves_others_after_a_worker_was_killed(tmp_path: Path) -> None:
    killed = s.KillWorker(bad=10, times=1, folder=str(tmp_path))
    stages = [Decode(), killed, embed(tmp_path), Forget()]
    result = Pipeline(stages).run(OneCardExecutor(2), initial_tasks=batches(20), run_dir=str(tmp_path / "run"))
    assert [row["id"] for row in rows(result)] == list(range(60))
    assert len(traces(tmp_path, "setup-embedding")) == 1, "the model is loaded once"


@dataclass
class DiesIdle(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Ends its process from a thread, when it is at no task."""

    folder: str = ""

    def setup(self, worker: WorkerMetadata) -> None:
        import threading

        folder = Path(self.folder)
        already = len(traces(folder, "ready"))
        leave_trace(self.folder, "ready")

        def die() -> None:
            wait_for(lambda: len(traces(folder, "task")) > already, "a task", 60)
            wait_for(lambda: not self._busy, "the end of the task", 60)
            os.kill(os.getpid(), signal.SIGKILL)

        self._busy = False
        threading.Thread(target=die, daemon=True).start()

    def process(self, task: DocumentBatch) -> DocumentBatch:
        self._busy = True
        leave_trace(self.folder, "task")
        try:
            return task.with_data(task.data)
        finally:
            self._busy = False


@dataclass
class Waits(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Does not let the run end before the owner has died often enough."""

    folder: str = ""

    def process(self, task: DocumentBatch) -> DocumentBatch:
        wait_for(lambda: len(traces(Path(self.folder), "ready")) > 3, "the owner dies", 60)
        return task.with_data(task.data)


def test_an_owner_that_dies_repeatedly_without_a_task_ends_the_run(tmp_path: Path) -> None:
    stages = [DiesIdle(str(tmp_path)).with_(resources=ON_THE_CARD), Waits(str(tmp_path))]
    with pytest.raises(WorkerDied, match="owns the GPU has died 3 times while it was not working on a task"):
        Pipeline(stages).run(OneCardExecutor(1), initial_tasks=batches(3))


@dataclass
class RejectFirst(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Rejects the first row of each task."""

    def process(self, task: DocumentBatch) -> DocumentBatch:
        self.record_rejected("first", position=0)
        return task.with_data(task.to_pyarrow().slice(1))


def test_rejects_of_the_owner_are_on_disk_before_the_events_of_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def write(path: str, tables: Any) -> None:
        written.append(Path(path).parent.name)
        write_parquet(path, tables)

    monkeypatch.setattr(ledger, "write_parquet", write)
    executor = OneCardExecutor(1)
    (segment,) = make_plan([RejectFirst().with_(resources=ON_THE_CARD)], executor.machine(), first_task=Task).segments
    context = RunContext(run_dir=str(tmp_path / "run"))
    workers_end, owners_end = socket.socketpair()
    here, _there = socket.socketpair()
    server = Server(segment.groups, context, CallFile(new_call_file()), lambda _: None)
    server.connect(Channel(owners_end))
    serving = threading.Thread(target=server.serve, daemon=True)
    serving.start()
    worker = _Worker(Connection(here.detach()), new_call_file(), None, workers_end.detach())
    runner = GroupRunner(segment.groups[0], context, ending="done")
    worker._leave_to_owner(runner, SetUp(b"", False, "", 1, ((0, 1),), AHEAD_BYTES))
    assert len(list(runner.run(batches(1)))) == 1
    runner.flush()
    server.end()
    serving.join()
    assert written == ["rejects", "results", "ledger"]


# The part of the executors' common suite that an additional process could break.
OWNER = Subject(
    "curator_core.testing.executors.AllOnTheCardExecutor",
    {"workers": 2},
    frozenset({"processes"}),
    name="owner of a GPU",
)
CHOSEN = (
    "one_hundred_documents_go_all_the_way",
    "what_is_rejected_and_said_is_the_same",
    "of_a_task_whose_part_kills_workers_the_part_is_set_aside",
    "a_killed_driver_is_resumed_and_nothing_is_lost",
)


@pytest.mark.parametrize("check", [check for check in checks(OWNER) if str(check) in CHOSEN], ids=str)
def test_every_stage_may_run_in_the_process_that_owns_the_gpu(check: Check, tmp_path: Path) -> None:
    check.run(OWNER, tmp_path)


def test_the_chosen_checks_exist() -> None:
    assert {str(check) for check in checks(OWNER)} >= set(CHOSEN)
