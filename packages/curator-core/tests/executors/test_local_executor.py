"""LocalExecutor, in this process and on worker processes: dead workers are replaced, and a stopped run leaves
nothing."""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curator_core import (
    DocumentBatch,
    FileGroupTask,
    LocalExecutor,
    Pipeline,
    ProcessingStage,
    Resources,
    StageError,
    Task,
    TaskTimeout,
    UsageError,
    WorkerDied,
    stage,
)
from curator_core.accounts.rejects import rejects_of
from curator_core.executors import local_worker
from curator_core.executors.base import SegmentRun
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.machine import Machine, available_cpus
from curator_core.testing import stages as s
from curator_core.testing.processes import is_running
from curator_core.testing.stages import leave_trace, traces
from curator_core.testing.waiting import wait_for

pytestmark = pytest.mark.timeout(120)


@dataclass
class AddPid(ProcessingStage[DocumentBatch, DocumentBatch]):
    def outputs(self) -> list[str]:
        return ["pid"]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        s.spin()
        return task.append_column("pid", pa.array([os.getpid()] * task.num_rows))


@dataclass
class CountsThreads(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Counts the threads with which numpy multiplies matrices in this process."""

    def outputs(self) -> list[str]:
        return ["threads"]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task.append_column("threads", pa.array([blas_threads()] * task.num_rows))


def blas_threads() -> int | None:
    """The number of threads of numpy's own OpenBLAS; None for another library."""
    from numpy._core import _multiarray_umath

    count = getattr(ctypes.CDLL(_multiarray_umath.__file__), "scipy_openblas_get_num_threads64_", None)
    return None if count is None else count()


@dataclass
class WaitsForOthers(ProcessingStage[DocumentBatch, DocumentBatch]):
    """On the task with row ``slow`` it waits until all ``others`` have finished: they end together, or not at all."""

    folder: str = ""
    slow: int = 0
    others: int = 19

    def process(self, task: DocumentBatch) -> DocumentBatch:
        if self.slow in task.to_pyarrow()["id"].to_pylist():
            wait_for(
                lambda: len(traces(Path(self.folder), "done")) == self.others, "the others wait for this worker", 30
            )
        else:
            leave_trace(self.folder, "done")
        return task.with_data(task.data)


@dataclass
class Die(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Ends its process on the batch that holds ``bad``, a given number of times."""

    how: str = "kill"
    bad: int = 3
    times: int = 1
    folder: str = ""

    def process(self, task: DocumentBatch) -> DocumentBatch:
        if self.bad in task.to_pyarrow()["id"].to_pylist() and len(traces(Path(self.folder), "death")) < self.times:
            leave_trace(self.folder, "death", str(os.getpid()))
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.how == "exit":
                os._exit(7)
            else:
                ctypes.string_at(0)
        return task.with_data(task.data)


@dataclass
class DieTogether(Die):
    def process_batch(self, tasks: list[DocumentBatch]) -> list[DocumentBatch]:
        return [self.process(task) for task in tasks]


@dataclass
class Hangs(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Never ends on the batch that holds ``bad``; in ``native`` code, which holds the interpreter."""

    bad: int = 3
    native: bool = False

    def process(self, task: DocumentBatch) -> DocumentBatch:
        while self.bad in task.to_pyarrow()["id"].to_pylist():
            if self.native:
                ctypes.PyDLL(None).pause()
        return task.with_data(task.data)


@dataclass
class Traced(ProcessingStage[DocumentBatch, DocumentBatch]):
    folder: str = ""
    fails_in: str = ""

    def setup_on_node(self, node: Any, worker: Any) -> None:
        leave_trace(self.folder, "node")

    def setup(self, worker: Any) -> None:
        leave_trace(self.folder, "setup", str(os.getpid()))
        if self.fails_in == "setup":
            raise ValueError("no weights here")

    def teardown(self) -> None:
        leave_trace(self.folder, "teardown", str(os.getpid()))

    def process(self, task: DocumentBatch) -> DocumentBatch:
        s.spin()
        if self.fails_in == "process" and 3 in task.to_pyarrow()["id"].to_pylist():
            raise ValueError("not this one")
        return task.with_data(task.data)


def batches(count: int = 8, rows: int = 3) -> list[Task[Any]]:
    return [DocumentBatch(data=pa.table({"id": range(n * rows, n * rows + rows)})) for n in range(count)]


def run(
    workers: int | None, *stages: ProcessingStage[Any, Any], tasks: Sequence[Task[Any]] | None = None, **how: Any
) -> Any:
    return Pipeline(stages).run(LocalExecutor(workers), initial_tasks=tasks if tasks is not None else batches(), **how)


def column(result: Any, name: str) -> list[Any]:
    return [value for task in result for value in task.to_pyarrow()[name].to_pylist()]


# Where work happens


def test_without_workers_everything_runs_in_this_process() -> None:
    assert set(column(run(0, AddPid()), "pid")) == {os.getpid()}


@pytest.mark.slow
def test_with_workers_everything_runs_in_worker_processes(tmp_path: Path) -> None:
    pids = set(column(run(2, s.AddProcess(meet=str(tmp_path)), tasks=batches(40)), "pid"))
    assert os.getpid() not in pids
    assert len(pids) == 2


@pytest.mark.slow
@pytest.mark.skipif(blas_threads() is None, reason="numpy uses another library than its own OpenBLAS")
def test_workers_share_the_cores_when_they_multiply_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """If each of two workers had a thread for each core, these would wait for one another."""
    for name in ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    cores = int(available_cpus())
    alone = Pipeline([CountsThreads()]).run(LocalExecutor(workers=1), initial_tasks=batches(2))
    # On a large machine: a wheel of numpy multiplies with 64 threads at most, and four workers are enough.
    assert set(column(alone, "threads")) == {min(cores, 64)}
    workers = min(cores, 4)
    together = Pipeline([CountsThreads()]).run(LocalExecutor(workers=workers), initial_tasks=batches(4 * workers))
    assert set(column(together, "threads")) == {min(cores // workers, 64)}
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    own = Pipeline([CountsThreads()]).run(LocalExecutor(workers=workers), initial_tasks=batches(4 * workers))
    assert set(column(own, "threads")) == {min(2, cores)}


@pytest.mark.slow
def test_the_default_is_a_worker_for_each_core_and_no_more_than_there_are_sources() -> None:
    assert len(set(column(run(None, AddPid(), tasks=batches(1)), "pid"))) == 1


@pytest.mark.parametrize("workers", [-1, 1.5, True, "2"])
def test_the_given_number_of_workers_is_used(workers: Any) -> None:
    with pytest.raises(UsageError, match=r"LocalExecutor\.workers must be a whole number of 0 or more, not"):
        LocalExecutor(workers)


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'workers'"):
        LocalExecutor(config={"wokers": 2})


@pytest.mark.slow
def test_ids_rows_and_order_are_the_same_with_and_without_workers() -> None:
    stages = [s.SplitRows(), s.Choose(), s.SplitRows()]
    tasks = [DocumentBatch(data=pa.table({"id": range(n, n + 5), "text": ["x"] * 5})) for n in range(0, 60, 5)]
    here, there = (run(workers, *stages, tasks=tasks) for workers in (0, 2))
    assert [task.task_id for task in here] == [task.task_id for task in there]
    assert [task.data for task in here] == [task.data for task in there]
    assert here.summary.shares == there.summary.shares
    counts = [[(t.name, t.calls, t.rows_in, t.rows_out, t.dropped) for t in r.summary.stages] for r in (here, there)]
    assert counts[0] == counts[1]


# Large, small, and what cannot travel


@pytest.mark.slow
def test_large_tasks_do_not_block_driver_and_workers_on_one_another() -> None:
    tasks: list[Task[Any]] = [DocumentBatch(data=pa.table({"id": np.arange(400_000) + n})) for n in range(8)]
    result = run(2, s.Same(), tasks=tasks)
    assert [task.data["id"][0].as_py() for task in result] == list(range(8))


@pytest.mark.slow
def test_many_small_tasks_share_a_message() -> None:
    result = run(2, s.Same(), tasks=batches(2000, 1))
    assert column(result, "id") == list(range(2000))


class HoldsLock(ProcessingStage[DocumentBatch, DocumentBatch]):
    def __init__(self) -> None:
        import threading

        self.lock = threading.Lock()

    def process(self, task: DocumentBatch) -> DocumentBatch:
        with self.lock:
            return task.with_data(task.data)


def test_a_stage_that_cannot_be_pickled_is_named_with_the_remedy() -> None:
    with pytest.raises(
        UsageError, match=r"stage 'HoldsLock' cannot be sent.*'lock', of type lock.*setup\(\)\. .*workers=0"
    ):
        run(2, s.Same(), HoldsLock())
    assert len(run(0, HoldsLock())) == 8


class HoldsDeep(ProcessingStage[DocumentBatch, DocumentBatch]):
    def __init__(self, options: Any = None) -> None:
        self.options = options

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"a": 1, "locks": [1, threading.Lock()]}, r"options\['locks'\]\[1\].*, of type lock"),
        (SimpleNamespace(inner=SimpleNamespace(lock=threading.Lock())), "'options.inner.lock', of type lock"),
        ((n for n in range(3)), "'options', of type generator"),
    ],
    ids=["in a list", "in an object", "itself"],
)
def test_the_attribute_that_cannot_be_sent_is_named_however_deep_it_is(options: Any, where: str) -> None:
    with pytest.raises(
        UsageError, match=f"stage 'HoldsDeep' cannot be sent to a worker process: its attribute .*{where}"
    ):
        run(2, HoldsDeep(options))


@dataclass(kw_only=True)
class OwnTask(Task[int]):
    @property
    def num_items(self) -> int:
        return 1

    def validate(self) -> bool:
        return True


@stage
def count_up(task: OwnTask) -> OwnTask:
    return task.with_data(task.data + 1)


@pytest.mark.slow
def test_tasks_and_stages_of_a_module_that_workers_cannot_import_are_sent_with_their_code() -> None:
    result = run(2, count_up(), tasks=[OwnTask(data=n) for n in range(5)])
    assert [task.data for task in result] == [1, 2, 3, 4, 5]
    assert all(type(task) is OwnTask for task in result)


# Setup and teardown


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_setup_and_teardown_run_once_per_worker_and_setup_on_node_once(workers: int, tmp_path: Path) -> None:
    run(workers, Traced(folder=str(tmp_path)), tasks=batches(30))
    assert len(traces(tmp_path, "node")) == 1
    assert len(traces(tmp_path, "setup")) == max(1, workers)
    assert sorted(traces(tmp_path, "setup")) == sorted(traces(tmp_path, "teardown"))


@dataclass
class MeetsInSetup(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Its first worker is set up when the second has begun."""

    folder: str = ""

    def setup_on_node(self, node: Any, worker: Any) -> None:
        os.mkfifo(f"{self.folder}/door")

    def setup(self, worker: Any) -> None:
        if worker.worker_id != "local-0":
            Path(f"{self.folder}/door").write_text("here")
            return
        door = os.open(f"{self.folder}/door", os.O_RDONLY | os.O_NONBLOCK)
        try:
            assert select.select([door], [], [], 60)[0], "the other worker waited for this one"
        finally:
            os.close(door)

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task.with_data(task.data)


@pytest.mark.slow
def test_workers_wait_for_the_setup_of_the_machine_but_not_for_each_other(tmp_path: Path) -> None:
    assert len(run(2, MeetsInSetup(folder=str(tmp_path)), tasks=batches(8))) == 8


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("where", ["setup", "process"])
def test_teardown_follows_a_failure(workers: int, where: str, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no weights here" if where == "setup" else "not this one") as caught:
        run(workers, Traced(folder=str(tmp_path), fails_in=where))
    # A worker that was stopped on its way into set-up is torn down too.
    assert set(traces(tmp_path, "setup")) <= set(traces(tmp_path, "teardown"))
    assert ("failed in setup()" if where == "setup" else "on task 'task-00001'") in str(caught.value)


class BrokenTeardown(ProcessingStage[DocumentBatch, DocumentBatch]):
    def teardown(self) -> None:
        raise OSError("the second trouble")

    def process(self, task: DocumentBatch) -> DocumentBatch:
        if 3 in task.to_pyarrow()["id"].to_pylist():
            raise ValueError("the first trouble")
        return task.with_data(task.data)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_failing_teardown_is_reported_and_never_hides_the_first_error(workers: int) -> None:
    with pytest.raises(StageError, match="the first trouble"):
        run(workers, BrokenTeardown())
    with pytest.raises(StageError, match=r"failed in teardown\(\).*the second trouble"):
        run(workers, BrokenTeardown(), tasks=batches(1))


# GPUs


@dataclass
class SeesCards(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Notes which GPUs its process sees; the second worker that is set up dies with its first task.

    The first waits for that, so that there is a task to die on.
    """

    folder: str = ""
    dies: bool = False

    def setup(self, worker: WorkerMetadata) -> None:
        self._worker = worker.worker_id
        leave_trace(self.folder, "cards", f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {worker.gpu_ids}")

    def process(self, task: DocumentBatch) -> DocumentBatch:
        if self.dies and self._worker == "local-gpu-1":
            leave_trace(self.folder, "death")
            os._exit(1)
        if self.dies and self._worker == "local-gpu-0":
            wait_for(lambda: len(traces(Path(self.folder), "death")) == 1, "no other worker has died")
        s.spin()
        return task.with_data(task.data)


class FourCards(LocalExecutor):
    def machine(self) -> Machine:
        return Machine(cpus=8, memory_gb=64, gpus=4, gpu_memory_gb=80, gpu_memories=(80.0,) * 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("needs", "workers", "seen"),
    [
        (Resources(gpus=1), 3, ["0 (0,)", "1 (1,)", "2 (2,)"]),
        (Resources(gpus=2), 8, ["0,1 (0, 1)", "2,3 (2, 3)"]),
        (Resources(gpus=0.5), 5, ["0 (0,)", "1 (1,)", "2 (2,)", "3 (3,)"]),
        (Resources(gpu_memory_gb=60), 2, ["0 (0,)", "1 (1,)"]),
        (Resources(), 2, ["None ()", "None ()"]),
    ],
    ids=["one", "several", "half", "memory", "none"],
)
def test_each_gpu_has_one_process_that_sees_it_alone(
    tmp_path: Path, needs: Resources, workers: int, seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    stage = SeesCards(folder=str(tmp_path)).with_(resources=needs)
    Pipeline([stage]).run(FourCards(workers), initial_tasks=batches(8))
    assert sorted(traces(tmp_path, "cards")) == seen


@pytest.mark.slow
def test_the_replacement_of_a_dead_worker_gets_its_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    stage = SeesCards(folder=str(tmp_path), dies=True).with_(resources=Resources(gpus=1))
    Pipeline([stage]).run(FourCards(2), initial_tasks=batches(30))
    assert sorted(traces(tmp_path, "cards")) == ["0 (0,)", "1 (1,)", "1 (1,)"]


# Who does what


@pytest.mark.slow
@pytest.mark.parametrize("slow", [0, 5, 19])
@pytest.mark.parametrize("workers", [2, 3])
def test_work_that_waits_behind_a_long_source_is_done_by_other_workers(tmp_path: Path, workers: int, slow: int) -> None:
    """Quick sources share a message, so many may wait behind one that turns out to be long."""
    stage = WaitsForOthers(folder=str(tmp_path), slow=slow)
    assert column(run(workers, stage, tasks=batches(20, rows=1)), "id") == list(range(20))


@pytest.mark.slow
def test_two_workers_get_one_of_two_sources_each(tmp_path: Path) -> None:
    result = run(2, s.AddProcess(meet=str(tmp_path)), tasks=batches(2))
    assert len(set(column(result, "pid"))) == 2


# Deaths


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "exit", "segfault"])
def test_a_worker_that_dies_costs_a_retry(how: str, tmp_path: Path) -> None:
    result = run(2, Die(how=how, folder=str(tmp_path)), run_dir=str(tmp_path / "run"))
    assert len(traces(tmp_path, "death")) == 1
    assert column(result, "id") == list(range(24))
    assert result.summary.shares["done"] == "8"


@pytest.mark.slow
def test_three_deaths_stop_a_run_with_the_policy_fail(tmp_path: Path) -> None:
    with pytest.raises(
        WorkerDied,
        match=r"3 workers died while stage 'Die' worked on task 'task-00001': .*no memory left.*SIGKILL, as the kernel",
    ):
        run(2, Die(times=9, folder=str(tmp_path)))
    assert len(traces(tmp_path, "death")) == 3


@pytest.mark.slow
def test_three_deaths_set_the_source_aside_with_the_policy_quarantine(tmp_path: Path) -> None:
    result = run(2, Die(times=9, folder=str(tmp_path)), on_error="quarantine")
    assert column(result, "id") == [n for n in range(24) if n not in (3, 4, 5)]
    assert (result.exit_code, result.summary.sources_failed, result.summary.shares["failed"]) == (3, 1, "1")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_only_the_parts_of_a_source_that_kill_workers_are_set_aside(tmp_path: Path, workers: int) -> None:
    """Each is reported by its stage and its own id, although whole sources travel: the other parts are not to blame."""
    stages = [s.SplitRows(), s.Same(), Die(bad=4, times=99, folder=str(tmp_path)), s.Same()]
    tasks = [*batches(2), *batches(1, rows=9)]
    result = run(workers, *stages, tasks=tasks, on_error="quarantine", run_dir=str(tmp_path / "run"))
    assert column(result, "id") == [0, 1, 2, 3, 5, 0, 1, 2, 3, 5, 6, 7, 8]
    assert (result.summary.rows_quarantined, result.summary.shares["failed"]) == (2, "4/9")
    found = sorted((row["task"], row["stage"], row["reason"], row["rows"]) for row in rejects_of(str(tmp_path / "run")))
    assert found == [(part, "Die", "WorkerDied", 1) for part in ("task-00001.00001", "task-00002.00004")]
    assert len(traces(tmp_path, "death")) == 3 * 2


@pytest.mark.slow
def test_the_task_that_kills_is_found_among_tasks_that_share_a_call(tmp_path: Path) -> None:
    stage = DieTogether(bad=4, times=99, folder=str(tmp_path)).with_(batch_size=3)
    result = run(2, s.SplitRows(), stage, tasks=batches(3), on_error="quarantine", run_dir=str(tmp_path / "run"))
    assert column(result, "id") == [0, 1, 2, 3, 5, 6, 7, 8]
    assert [(row["task"], row["rows"]) for row in rejects_of(str(tmp_path / "run"))] == [("task-00001.00001", 1)]
    assert len(traces(tmp_path, "death")) == 4, "once with the others, and then three times alone"


@pytest.mark.slow
@pytest.mark.parametrize("native", [False, True], ids=["python", "native"])
def test_a_worker_that_takes_too_long_is_stopped_and_its_task_named(tmp_path: Path, native: bool) -> None:
    stage = Hangs(native=native, bad=4).with_(task_timeout_s=2)
    with pytest.raises(
        TaskTimeout, match=r"'Hangs' worked on task 'task-00001.00001' for longer than task_timeout_s=2"
    ):
        run(2, s.SplitRows(), stage)
    result = run(2, s.SplitRows(), stage, on_error="quarantine", run_dir=str(tmp_path / "run"))
    assert column(result, "id") == [n for n in range(24) if n != 4]
    assert [(row["task"], row["stage"], row["reason"], row["rows"]) for row in rejects_of(str(tmp_path / "run"))] == [
        ("task-00001.00001", "Hangs", "TaskTimeout", 1)
    ]


class Refuses(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Raises its own kind of error with a cause, which no other process can recreate."""

    def process(self, task: DocumentBatch) -> DocumentBatch:
        class Odd(Exception):
            def __init__(self, first: int, second: int) -> None:
                super().__init__(f"{first} and {second}")

        raise ValueError("refused") from Odd(1, 2)


@pytest.mark.slow
def test_an_error_from_a_worker_has_the_same_causes_as_in_this_process() -> None:
    def causes(workers: int) -> list[tuple[str, str]]:
        with pytest.raises(StageError, match="ValueError: refused") as caught:
            run(workers, Refuses())
        found: list[tuple[str, str]] = []
        error: BaseException | None = caught.value.__cause__
        while error is not None:
            found.append((type(error).__name__, str(error)))
            error = error.__cause__
        return found

    assert causes(0) == [("ValueError", "refused"), ("Odd", "1 and 2")]
    # Of an error that cannot be recreated, the text remains.
    assert causes(2) == [("ValueError", "refused"), ("CuratorError", "Odd: 1 and 2")]


class DiesInSetup(ProcessingStage[DocumentBatch, DocumentBatch]):
    def setup(self, worker: Any) -> None:
        os._exit(9)

    def process(self, task: DocumentBatch) -> DocumentBatch:
        raise NotImplementedError


@pytest.mark.slow
def test_a_crash_in_set_up_is_not_repeated_forever() -> None:
    with pytest.raises(WorkerDied, match=r"being set up \(exit code 9\).*workers=0 to see where"):
        run(2, DiesInSetup())


# Stopping


SLOW = """
    import os, sys
    from dataclasses import dataclass
    from pathlib import Path
    import pyarrow as pa
    from curator_core import DocumentBatch, LocalExecutor, Pipeline, ProcessingStage
    from curator_core.storage import write_atomic

    @dataclass
    class SlowWriter(ProcessingStage[DocumentBatch, DocumentBatch]):
        folder: str = ""

        def setup(self, worker):
            Path(self.folder, f"pid-{os.getpid()}").touch()

        def process(self, task):
            with write_atomic(os.path.join(self.folder, "out", f"{task.task_id}.txt")) as out:
                out.write(b"half of it")
                Path(self.folder, f"begun-{task.task_id}").touch()
                while True:
                    pass

        def teardown(self):
            Path(self.folder, f"down-{os.getpid()}").touch()

    tasks = [DocumentBatch(data=pa.table({"x": [n]})) for n in range(4)]
    Pipeline([SlowWriter(folder=sys.argv[1])]).run(LocalExecutor(workers=int(sys.argv[2])), initial_tasks=tasks)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_ends_promptly_and_leaves_no_process_and_no_half_file(
    workers: int, tmp_path: Path, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    script = tmp_path / "slow.py"
    script.write_text(textwrap.dedent(SLOW))
    command = [sys.executable, str(script), str(tmp_path), str(workers)]
    driver = spawn(command, stderr=subprocess.PIPE, text=True)
    wait_for(
        lambda: len(list(tmp_path.glob("begun-*"))) == max(1, workers) or driver.poll() is not None,
        "not every worker has begun",
    )
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, errors = driver.communicate(timeout=60)  # their current work would never end
    assert driver.returncode != 0
    assert "KeyboardInterrupt" in errors
    pids = {int(path.name.partition("-")[2]) for path in tmp_path.glob("pid-*")}
    assert len(pids) == max(1, workers)
    assert {int(path.name.partition("-")[2]) for path in tmp_path.glob("down-*")} == pids
    assert not [pid for pid in pids if is_running(pid)]
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_workers_end_with_a_killed_driver(tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(textwrap.dedent(SLOW))
    with subprocess.Popen([sys.executable, str(script), str(tmp_path), "2"]) as driver:
        wait_for(
            lambda: len(list(tmp_path.glob("begun-*"))) == 2 or driver.poll() is not None,
            "not every worker has begun",
        )
        driver.kill()
    pids = [int(path.name.partition("-")[2]) for path in tmp_path.glob("pid-*")]
    wait_for(lambda: not any(is_running(pid) for pid in pids), "workers outlive their driver")


# Scripts and notebooks


NO_GUARD = """
    import pyarrow as pa
    from curator_core import DocumentBatch, LocalExecutor, Pipeline, ProcessingStage, stage

    SUFFIX = "!"

    @stage(inputs=["text"], outputs=["text"])
    def Shout(batch: DocumentBatch, mark: str = "?") -> DocumentBatch:
        texts = batch.to_pyarrow()["text"].to_pylist()
        return batch.append_column("text", pa.array([text + mark + SUFFIX for text in texts]))

    class Halves(ProcessingStage[DocumentBatch, DocumentBatch]):
        def process(self, task):
            return [task.with_data(task.data.slice(0, 1)), task.with_data(task.data.slice(1))]

    class Special(DocumentBatch):
        pass

    tasks = [Special(data=pa.table({"text": ["a", "b"]})) for _ in range(3)]
    result = Pipeline([Shout(), Halves()]).run(LocalExecutor(workers=2), initial_tasks=tasks)
    print(*(task.task_id + task.data["text"][0].as_py() + type(task).__name__ for task in result))
"""
SAID = " ".join(f"task-0000{n}.0000{m}{'ab'[m]}?!Special" for n in range(3) for m in range(2))


@pytest.mark.slow
@pytest.mark.parametrize("notebook", [False, True], ids=["script", "notebook"])
def test_a_script_needs_no_main_guard_and_a_notebook_works(notebook: bool, tmp_path: Path) -> None:
    code = textwrap.dedent(NO_GUARD)
    if notebook:  # cells are run with exec in the namespace of __main__, and have no file
        script = f"exec(compile({code!r}, '<cell 1>', 'exec'), globals())"
        command = [sys.executable, "-c", script]
    else:
        (tmp_path / "script.py").write_text(code)
        command = [sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == SAID


# For programs that drive segments themselves


@pytest.mark.slow
def test_sources_are_read_as_workers_become_free() -> None:
    """Law 6: the driver stays only a little ahead of the workers, however many sources there are."""
    taken = 0

    def sources() -> Iterator[Task[Any]]:
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield DocumentBatch(data=pa.table({"id": [number]}), task_id=f"s-{number}", _source=f"s-{number}")

    plan = Pipeline([Slow()]).plan(initial_tasks=batches(1))
    from curator_core import RunContext

    run_ = SegmentRun(plan.segments[0], sources(), RunContext(), "done")
    stream = LocalExecutor(2).run_segment(run_)
    for _ in range(5):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert taken < 200


class Slow(ProcessingStage[DocumentBatch, DocumentBatch]):
    def process(self, task: DocumentBatch) -> DocumentBatch:
        s.spin(1_000_000)
        return task.with_data(task.data)


@pytest.mark.slow
def test_workers_write_the_same_bytes_twice(tmp_path: Path) -> None:
    """Laws 8 and 1: the output depends neither on the time nor on the number of workers."""
    contents = []
    for name, workers in (("one", 0), ("two", 2), ("three", 2)):
        tasks = [DocumentBatch(data=pa.table({"id": [n]})) for n in range(6)]
        result = run(workers, s.WriteRows(path=str(tmp_path / name)), tasks=tasks)
        assert all(isinstance(task, FileGroupTask) for task in result)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1] == contents[2]
    assert len(contents[0]) == 6


# Workers between segments


def _over(folder: Path, executor: LocalExecutor, *more: ProcessingStage[Any, Any]) -> None:
    stages: list[ProcessingStage[Any, Any]] = [s.AddProcess(teardowns=str(folder)), *more]
    Pipeline(stages).run(executor, initial_tasks=batches(4))


@pytest.fixture
def held() -> Iterator[LocalExecutor]:
    """An open executor, as during a workflow."""
    executor = LocalExecutor(workers=1)
    executor.open()
    yield executor
    executor.close()


@pytest.mark.slow
def test_workers_are_kept_for_the_next_segment_while_the_executor_is_open(tmp_path: Path) -> None:
    executor = LocalExecutor(workers=1)
    executor.open()
    try:
        for _ in range(3):
            _over(tmp_path, executor)
        assert len(set(traces(tmp_path, "setup"))) == 1
        assert len(traces(tmp_path, "setup")) == len(traces(tmp_path, "teardown")) == 3, "stages end with their segment"
        (worker,) = {int(pid) for pid in traces(tmp_path, "setup")}
        assert is_running(worker)
    finally:
        executor.close()
    assert not is_running(worker)


@pytest.mark.slow
def test_workers_that_start_ahead_of_the_plan_do_the_work(tmp_path: Path) -> None:
    executor = LocalExecutor(workers=1)
    executor.open()
    try:
        executor.get_ready()
        executor.get_ready()  # as by the command, and then by the workflow that it runs
        assert executor._spares is not None
        (ahead,) = (process.popen.pid for process in executor._spares._processes)
        _over(tmp_path, executor)
        assert set(traces(tmp_path, "setup")) == {str(ahead)}
    finally:
        executor.close()
    assert not is_running(ahead)


def test_unused_workers_are_not_waited_for() -> None:
    executor = LocalExecutor(workers=1)
    executor.open()
    executor.get_ready()
    assert executor._spares is not None
    (process,) = executor._spares._processes
    executor.close()
    assert process.popen.returncode in (-signal.SIGTERM, 143), (
        "it was ended, and did not first import what it would need"
    )


@pytest.mark.slow
def test_the_segments_of_a_run_share_their_workers(tmp_path: Path) -> None:
    _over(tmp_path, LocalExecutor(workers=1), s.Together(), s.AddProcess(column="again", teardowns=str(tmp_path)))
    assert len(traces(tmp_path, "setup")) == 2
    assert len(set(traces(tmp_path, "setup"))) == 1


@pytest.mark.slow
def test_a_worker_with_another_environment_is_not_used_again(
    held: LocalExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _over(tmp_path, held)
    monkeypatch.setenv("SOMETHING", "else")
    _over(tmp_path, held)
    monkeypatch.chdir(tmp_path)
    _over(tmp_path, held)
    assert len(set(traces(tmp_path, "setup"))) == 3


@pytest.mark.slow
def test_a_worker_that_died_while_idle_is_replaced(held: LocalExecutor, tmp_path: Path) -> None:
    _over(tmp_path, held)
    (worker,) = traces(tmp_path, "setup")
    os.kill(int(worker), signal.SIGKILL)
    _over(tmp_path, held)
    assert len(set(traces(tmp_path, "setup"))) == 2


@pytest.mark.slow
def test_no_worker_of_a_failed_segment_is_kept(held: LocalExecutor, tmp_path: Path) -> None:
    with pytest.raises(StageError):
        _over(tmp_path, held, s.FailIn("process"))
    (worker,) = traces(tmp_path, "setup")
    assert not is_running(int(worker))
    _over(tmp_path, held)
    assert len(set(traces(tmp_path, "setup"))) == 2


@pytest.mark.slow
def test_a_worker_that_uses_much_memory_gets_no_other_segment(held: LocalExecutor, tmp_path: Path) -> None:
    _over(tmp_path, held, Hold(gigabytes=1.2))
    _over(tmp_path, held)
    assert len(set(traces(tmp_path, "setup"))) == 2


@pytest.mark.parametrize(
    ("resident", "large", "collected"),
    [([100], False, 0), ([700, 700], False, 0), ([1200, 1200, 300], False, 1), ([1200, 1200, 1200], True, 1)],
)
def test_a_worker_collects_garbage_only_if_it_uses_much_memory(
    resident: list[int], large: bool, collected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, calls = iter(resident), []
    monkeypatch.setattr(local_worker, "_resident_bytes", lambda: next(sizes) << 20)
    monkeypatch.setattr(gc, "collect", lambda: calls.append(1))
    assert local_worker._is_large() is large
    assert len(calls) == collected


@dataclass
class Hold(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Leaves memory behind, like a library with a cache."""

    gigabytes: float = 1.0

    def process(self, task: DocumentBatch) -> DocumentBatch:
        if not hasattr(np, "held_by_a_test"):
            np.held_by_a_test = np.empty(int(self.gigabytes * (1 << 27)))  # type: ignore[attr-defined]
            np.held_by_a_test[::512] = 1  # type: ignore[attr-defined]  # a number in each page
        return task
