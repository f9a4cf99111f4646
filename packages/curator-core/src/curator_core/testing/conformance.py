"""What must every executor do? Each check runs real pipelines on the executor under test and examines the outcome."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from curator_core.accounts.rejects import rejects_of
from curator_core.config.build import load_executor
from curator_core.errors import CuratorError, StageError, TaskTimeout, UsageError, WorkerDied
from curator_core.executors.base import BaseExecutor
from curator_core.executors.local import LocalExecutor
from curator_core.model.engine_facts import RayStageSpecKeys
from curator_core.model.resources import Resources
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch, Task
from curator_core.pipeline import Pipeline
from curator_core.running.result import RunResult
from curator_core.testing import stages as s
from curator_core.testing.waiting import wait_for

# Optional abilities of executors.
ABILITIES = {
    "processes": "stages run in processes of their own, so one may be killed",
    "spread": "the children of one task are processed by several workers",
    "environments": "a stage may have a runtime environment of its own (env_vars at least)",
    "pools": "a stage with num_workers gets that many workers of its own",
    "calls": "the worker of a stage with max_calls_per_worker ends after that many calls",
    "nodes": "work that is lost with a machine is done again on another",
}

Stages = Sequence[ProcessingStage[Any, Any]]


@dataclass(frozen=True)
class Subject:
    """An executor under test: its registered name or dotted path, its options, and its abilities.

    With the ability ``nodes`` it has a cluster of at least two machines for workers, and ``lose_node``, a function that
    takes one of them away.
    """

    executor: str
    config: Mapping[str, Any] = field(default_factory=dict)
    can: frozenset[str] = frozenset()
    name: str = ""
    lose_node: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "can", frozenset(self.can))
        if ("nodes" in self.can) != (self.lose_node is not None):
            raise UsageError(
                "the ability 'nodes' requires lose_node, which takes a machine away, and the other way round"
            )
        unknown = self.can - ABILITIES.keys()
        if unknown:
            raise UsageError(f"no such ability: {', '.join(sorted(unknown))}. Known: {', '.join(ABILITIES)}")

    def make(self, **options: Any) -> BaseExecutor:
        """A new executor of this kind."""
        return load_executor(self.executor)(config={**self.config, **options})

    def __str__(self) -> str:
        return self.name or self.executor


@dataclass(frozen=True)
class Check:
    """A requirement for executors."""

    name: str
    function: Callable[..., None]
    needs: frozenset[str] = frozenset()

    def run(self, subject: Subject, folder: Path) -> None:
        """Raise `AssertionError` if ``subject`` fails the check; ``folder`` is empty, and only this check uses it."""
        with_folder = "folder" in inspect.signature(self.function).parameters
        self.function(subject, folder) if with_folder else self.function(subject)

    def __str__(self) -> str:
        return self.name


CHECKS: list[Check] = []


def checks(subject: Subject) -> list[Check]:
    """The checks that apply to an executor with its abilities."""
    return [check for check in CHECKS if check.needs <= subject.can]


def _check(*needs: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def add(function: Callable[..., None]) -> Callable[..., None]:
        CHECKS.append(Check(function.__name__, function, frozenset(needs)))
        return function

    return add


# Complete pipelines
# -----------------------------------------------------------------------------------------------------------


@_check()
def one_hundred_documents_go_all_the_way(subject: Subject, folder: Path) -> None:
    paths = write_documents(folder / "in")
    traces = folder / "traces"
    result = Pipeline(_whole_way(paths, folder, traces)).run(subject.make())
    reference = Pipeline(_whole_way(paths, folder / "reference", folder / "reference" / "traces")).run(
        LocalExecutor(workers=0)
    )
    files = read_files(folder / "out")
    assert len(files) == 100, f"100 files should be written, and there are {len(files)}"
    assert files == read_files(folder / "reference" / "out"), "the files differ from those of LocalExecutor"
    for text in files.values():
        rows = [json.loads(line) for line in text.splitlines()]
        assert len(rows) == 1, f"one row a file, not {len(rows)}"
        assert set(rows[0]) == {"id", "text", "length_1", "length_2", "prepared"}, f"columns: {sorted(rows[0])}"
    ids = [task.task_id for task in result.tasks]
    assert len(set(ids)) == 100, "the ids of the results are not unique"
    assert ids == [task.task_id for task in reference.tasks], "ids or their order differ from those of LocalExecutor"
    assert {task.dataset_name for task in result.tasks} == {"conformance"}
    for task in result.tasks:
        names = [perf.stage_name for perf in task._stage_perf]
        assert names == ["ReadRows", "AddLength", "SplitRows", "AddLength#2", "NeedsSetup", "WriteRows"], names
        assert all(perf.process_time > 0 for perf in task._stage_perf), "a stage took no time at all"
    first, second = len(s.traces(traces, "length_1")), len(s.traces(traces, "length_2"))
    assert (first, second) == (8, 100), f"AddLength was called {first} and {second} times, not 8 and 100"
    nodes, workers = s.traces(traces, "node"), s.traces(traces, "setup")
    assert len(nodes) == len(set(nodes)) >= 1, f"setup_on_node ran {len(nodes)} times on {len(set(nodes))} machines"
    assert workers, "setup was not called"
    assert sorted(s.traces(traces, "teardown")) == sorted(workers), "not every worker that was set up was torn down"
    assert result.summary.shares == {"done": "8", "dropped": "0", "failed": "0"}, result.summary.shares
    assert [vars_of(stage) for stage in result.summary.stages] == [
        vars_of(stage) for stage in reference.summary.stages
    ], "the counts of rows differ from those of LocalExecutor"


def _whole_way(paths: list[str], folder: Path, traces: Path) -> Stages:
    return [
        s.ListFiles(paths=paths),
        s.ReadRows(),
        s.AddLength(column="length_1", calls=str(traces)),
        s.SplitRows(),
        s.AddLength(column="length_2", calls=str(traces)),
        s.NeedsSetup(folder=str(traces)),
        s.WriteRows(path=str(folder / "out")),
    ]


@_check()
def none_an_empty_list_and_a_list_are_answers(subject: Subject) -> None:
    result = run(subject, [s.Choose(), s.Same()])
    rows = sorted(row["id"] for row in rows_of(result.tasks))
    assert rows == sorted(n for task in batches() for n in ids_of(task) if ids_of(task)[0] % 4 > 1), rows
    assert ids(result) == ids(run_here([s.Choose(), s.Same()]))
    assert result.summary.rows_dropped == sum(len(ids_of(task)) for task in batches() if ids_of(task)[0] % 4 < 2)


@_check()
def a_fan_out_and_a_merge_follow_one_another(subject: Subject) -> None:
    pipeline = [s.SplitRows(), s.Same(), s.Together(), s.Same()]
    result = run(subject, pipeline)
    assert len(result.tasks) == 1, f"a merge of everything makes one task, not {len(result.tasks)}"
    assert [row["id"] for row in rows_of(result.tasks)] == [n for task in batches() for n in ids_of(task)], (
        "a merge sees its tasks in lineage order"
    )
    assert ids(result) == ids(run_here(pipeline))


@_check()
def merges_of_several_and_a_run_directory_agree(subject: Subject, folder: Path) -> None:
    pipeline: Stages = [s.SplitRows(), s.Together().with_(batch_size=3), s.WriteRows(path=str(folder / "out"))]
    result = run(subject, pipeline, run_dir=str(folder / "run"))
    lines = [len(text.splitlines()) for text in read_files(folder / "out").values()]
    assert sorted(lines) == [3] * 8, f"24 rows in merges of three are eight files of three rows, not {lines}"
    assert result.summary.shares["done"] == "8", result.summary.shares


# Little or no data
# -----------------------------------------------------------------------------------------------------


@_check()
def all_rows_filtered_is_a_result(subject: Subject) -> None:
    result = run(subject, [s.DropRows(), s.Same()])
    assert rows_of(result.tasks) == []
    assert result.summary.rows_dropped == 24, result.summary.rows_dropped


@_check()
def no_task_needs_to_reach_a_stage(subject: Subject) -> None:
    result = run(subject, [s.SplitRows(), s.DropTasks(), s.AddProcess(), s.Same()])
    assert result.tasks == []
    assert result.summary.shares["dropped"] == "8", result.summary.shares


@_check()
def no_initial_tasks_is_a_run(subject: Subject) -> None:
    assert run(subject, [s.Same()], tasks=[]).tasks == []


@_check()
def a_source_may_list_nothing(subject: Subject) -> None:
    result = Pipeline([s.ListFiles(paths=[]), s.ReadRows()]).run(subject.make())
    assert result.tasks == []
    assert result.exit_code == 0


# Errors ------------------------------------------------------------------------------------------------------------------


@_check()
def an_error_stops_the_run_and_names_stage_task_and_line(subject: Subject) -> None:
    tasks = batches()
    bad = next(task for task in tasks if 3 in ids_of(task))
    with expected(StageError) as caught:
        run(subject, [s.Same(), s.Raise(bad=3), s.Same()], tasks=tasks)
    error = caught[0]
    assert isinstance(error, StageError)
    assert error.stage == "Raise", error.stage
    assert error.task_id == bad.task_id, f"{error.task_id!r} is not the task that failed, {bad.task_id!r}"
    assert "row 3 cannot be read" in error.reason, error.reason
    assert "_refuse" in error.details, "the traceback does not show the stage's own code"
    first = next(line for line in error.details.splitlines() if line.strip().startswith("File "))
    assert "stages.py" in first, f"the traceback starts in the engine: {first.strip()}"


@_check()
def quarantine_sets_the_bad_row_aside_and_goes_on(subject: Subject, folder: Path) -> None:
    """One row fails in its own call, another in a task that was begun ahead: the records are those of single calls."""
    several = s.OnThread(bad=10).with_(batch_size=4)
    result = run(subject, [s.Raise(bad=3), several], on_error="quarantine", run_dir=str(folder / "run"))
    one_by_one = s.OnThread(bad=10, begins_ahead=0)
    run_here([s.Raise(bad=3), one_by_one], on_error="quarantine", run_dir=str(folder / "reference"))
    assert rejects(folder / "run") == rejects(folder / "reference"), "the rejects differ from those of LocalExecutor"
    kept = sorted(row["id"] for row in rows_of(result.tasks))
    assert kept == [n for n in range(0, 24, 2) if n != 10], f"all even rows but the bad one are kept, not {kept}"
    assert result.summary.rows_quarantined == 2, result.summary.rows_quarantined
    assert result.exit_code == 3, f"the exit code says that something was set aside: {result.exit_code}"


@_check()
def what_is_rejected_and_said_is_the_same(subject: Subject, folder: Path) -> None:
    """The rejects by source, the resulting warning and exit code, and the log of the stages."""
    found = []
    for place, given in (("run", subject), ("reference", HERE)):
        made = run(given, [s.RejectAndTell()], run_dir=str(folder / place))
        summary = made.summary
        said = sorted(line.split(" ", 2)[2] for line in (folder / place / "log.txt").read_text().splitlines())
        warnings = [warning.replace(str(folder / place), "RUN") for warning in summary.warnings]
        found.append((summary.sources_rejecting, warnings, made.exit_code, rejects(folder / place), said))
    assert found[0] == found[1], f"{found[0]} differs from what LocalExecutor gives: {found[1]}"
    assert found[0][0] == 2, found[0]
    assert found[0][2] == 3, found[0]
    assert len(found[0][4]) == 16, found[0]


@_check()
def an_error_is_the_same_in_whatever_hook_it_was_raised(subject: Subject) -> None:
    """Errors have the same class and text on all executors: an engine must not add words, advice or colours."""
    for hook in ("setup_on_node", "setup", "process", "teardown"):
        _same_error(subject, s.FailIn(hook=hook))
    _same_error(subject, s.FailIn(hook="setup", missing=True))


def _same_error(subject: Subject, stage: ProcessingStage[Any, Any]) -> None:
    tasks = batches(count=1)
    with expected(CuratorError) as here:
        Pipeline([s.Same(), stage]).run(LocalExecutor(workers=0), initial_tasks=tasks)
    with expected(CuratorError) as there:
        run(subject, [s.Same(), stage], tasks=tasks)
    assert type(there[0]) is type(here[0]), f"{stage}: {type(there[0]).__name__}, not {type(here[0]).__name__}"
    assert str(there[0]) == str(here[0]), f"{stage}: {str(there[0])!r}, not {str(here[0])!r}"


@_check()
def sys_exit_in_a_stage_is_an_error_like_any_other(subject: Subject, folder: Path) -> None:
    _same_error(subject, s.Leave(bad=1))
    stages = [s.Same(), s.Leave(bad=3), s.Same()]
    result = run(subject, stages, on_error="quarantine", run_dir=str(folder / "run"))
    run_here(stages, on_error="quarantine", run_dir=str(folder / "reference"))
    kept = sorted(row["id"] for row in rows_of(result.tasks))
    assert kept == [n for n in range(24) if n != 3], f"all rows but the bad one are kept, not {kept}"
    assert rejects(folder / "run") == rejects(folder / "reference"), "the rejects differ from those of LocalExecutor"


@_check()
def a_task_that_takes_too_long_is_set_aside_by_name(subject: Subject, folder: Path) -> None:
    """The other tasks continue, with a new worker if the old one had to be ended."""
    stages = [s.SplitRows(), s.Same(), s.Hang(bad=3).with_(task_timeout_s=2), s.Same()]
    with expected(TaskTimeout) as caught:
        run(subject, stages)
    error = caught[0]
    assert isinstance(error, TaskTimeout)
    assert (error.stage, error.task_id, error.limit_s) == ("Hang", "batch-001.00000", 2.0), str(error)
    result = run(subject, stages, on_error="quarantine", run_dir=str(folder / "run"))
    kept = sorted(row["id"] for row in rows_of(result.tasks))
    assert kept == [n for n in range(24) if n != 3], f"all rows but the bad one are kept, not {kept}"
    assert rejects(folder / "run") == [_whole_task("TaskTimeout", "Hang", "batch-001.00000", 1)], rejects(
        folder / "run"
    )


@_check("processes")
def a_stage_that_cannot_be_sent_is_refused_before_any_work(subject: Subject, folder: Path) -> None:
    with expected(UsageError) as caught:
        run(subject, [s.NeedsSetup(folder=str(folder / "traces")), s.HoldLock()])
    for word in ("HoldLock", "locks['own']", "lock", "setup()"):
        assert word in str(caught[0]), f"{word!r} is not in: {caught[0]}"
    assert not s.traces(folder / "traces", "setup"), "a worker has set up stages"


@_check()
def teardown_is_called_after_an_error(subject: Subject, folder: Path) -> None:
    traces = folder / "traces"
    stages = [s.Raise(bad=3), s.AddProcess(teardowns=str(traces))]
    with expected(StageError):
        run(subject, stages)
    ready, down = s.traces(traces, "setup"), s.traces(traces, "teardown")
    # A worker that was stopped during its set-up is torn down as well.
    assert Counter(ready) <= Counter(down), f"{len(ready)} workers were set up, {len(down)} torn down"


@_check()
def an_unknown_option_is_refused_and_the_known_are_named(subject: Subject) -> None:
    with expected(UsageError) as caught:
        subject.make(wrokers=3)
    assert "wrokers" in str(caught[0]), caught[0]


# Workers -----------------------------------------------------------------------------------------------------------------


@_check("processes")
def a_killed_worker_costs_nothing_but_time(subject: Subject, folder: Path) -> None:
    stages = [s.Same(), s.KillWorker(bad=3, times=1, folder=str(folder / "kills"))]
    result = run(subject, stages, run_dir=str(folder / "run"))
    assert len(s.traces(folder / "kills", "kill")) == 1, "the worker was not killed"
    assert sorted(row["id"] for row in rows_of(result.tasks)) == list(range(24))
    assert result.summary.shares == {"done": "8", "dropped": "0", "failed": "0"}, result.summary.shares


@_check("processes")
def a_task_that_kills_its_workers_is_set_aside(subject: Subject, folder: Path) -> None:
    """The record contains the task's rows and the stage, as for any task that fails as a whole; nothing else is lost."""
    kill = s.KillWorker(bad=3, times=99, folder=str(folder / "kills"))
    result = run(subject, [s.Same(), kill, s.Same()], on_error="quarantine", run_dir=str(folder / "run"))
    bad = next(ids_of(task) for task in batches() if 3 in ids_of(task))
    kept = sorted(row["id"] for row in rows_of(result.tasks))
    assert kept == [n for n in range(24) if n not in bad], kept
    killed = len(s.traces(folder / "kills", "kill"))
    assert killed <= 4, f"{killed} workers were lost to one task"
    assert result.summary.sources_failed == 1, result.summary.sources_failed
    assert result.summary.rows_quarantined == 3, result.summary.rows_quarantined
    assert rejects(folder / "run") == [_whole_task("WorkerDied", "KillWorker", "batch-001", 3)], rejects(folder / "run")


@_check("processes")
def of_a_task_whose_part_kills_workers_the_part_is_set_aside(subject: Subject, folder: Path) -> None:
    kill = s.KillWorker(bad=3, times=99, folder=str(folder / "kills"))
    stages = [s.SplitRows(), s.Same(), kill, s.Same()]
    result = run(subject, stages, on_error="quarantine", run_dir=str(folder / "run"))
    kept = sorted(row["id"] for row in rows_of(result.tasks))
    assert kept == [n for n in range(24) if n != 3], kept
    found = rejects(folder / "run")
    assert found == [_whole_task("WorkerDied", "KillWorker", "batch-001.00000", 1)], found


def _whole_task(reason: str, stage: str, task: str, rows: int) -> dict[str, Any]:
    """The reject for a task whose first row is row 3 of `batches`."""
    raw = json.dumps({"id": 3, "text": "text xxx"}).encode()
    return {
        "kind": "quarantine",
        "task": task,
        "stage": stage,
        "reason": reason,
        "position": f"task {task}",
        "rows": rows,
        "raw": raw,
    }


@_check("processes")
def a_task_that_kills_its_workers_stops_a_run_that_is_to_fail(subject: Subject, folder: Path) -> None:
    with expected(WorkerDied):
        run(subject, [s.KillWorker(bad=3, times=99, folder=str(folder / "kills"))])


@_check("pools")
def num_workers_is_kept_to(subject: Subject) -> None:
    result = run(subject, [s.AddProcess().with_(num_workers=1)], tasks=batches(count=24))
    used = {row["pid"] for row in rows_of(result.tasks)}
    assert len(used) == 1, f"one worker was requested, {len(used)} took part"


@_check("calls")
def a_worker_ends_after_the_calls_it_may_take(subject: Subject) -> None:
    def calls(stage: ProcessingStage[Any, Any], count: int = 4) -> list[int]:
        result = run(subject, [stage.with_(num_workers=1)], tasks=batches(count=count, rows=1))
        pids = [row["pid"] for row in rows_of(result.tasks)]
        return sorted(pids.count(pid) for pid in set(pids))

    limited = s.NameProcess().with_(ray_stage_spec={RayStageSpecKeys.MAX_CALLS_PER_WORKER: 2})
    counts = calls(limited)
    assert max(counts) <= 2, f"no worker takes more than two calls, but they took {counts}"
    counts = calls(s.NameProcess(), count=24)
    assert max(counts) > 2, f"without a limit a worker continues, but they took {counts}"


@_check("nodes")
def a_node_removed_in_the_middle_costs_nothing_but_time(subject: Subject, folder: Path) -> None:
    assert subject.lose_node is not None
    begun, lost = folder / "begun", folder / "lost"
    stages = [s.Same(), s.WaitFor(folder=str(begun), until=str(lost)).with_(num_workers=3)]

    def remove() -> None:
        wait_for(lambda: len(s.traces(begun, "begun")) >= 4, "four tasks have not begun")
        subject.lose_node()  # type: ignore[misc]
        lost.touch()

    threading.Thread(target=remove, daemon=True).start()
    result = run(subject, stages, tasks=batches(count=24), run_dir=str(folder / "run"))
    assert lost.exists(), "the run was over before the node was gone"
    assert sorted(row["id"] for row in rows_of(result.tasks)) == list(range(72))
    assert result.summary.shares == {"done": "24", "dropped": "0", "failed": "0"}, result.summary.shares


@_check("spread")
def a_fan_out_is_shared_by_workers(subject: Subject, folder: Path) -> None:
    add = s.AddProcess(meet=str(folder / "met")).with_(num_workers=2)
    result = run(subject, [s.SplitRows(), add], tasks=[table(range(20))])
    used = {row["pid"] for row in rows_of(result.tasks)}
    assert len(used) == 2, f"20 children of one task went to {len(used)} of 2 workers"


@_check("spread")
def without_the_fact_a_fan_out_stays_with_one_worker(subject: Subject) -> None:
    """Shows that the check above detects spreading and does not pass by chance."""
    split = s.SplitRows().with_(ray_stage_spec={RayStageSpecKeys.IS_FANOUT_STAGE: False})
    result = run(subject, [split, s.AddProcess().with_(num_workers=2)], tasks=[table(range(20))])
    used = {row["pid"] for row in rows_of(result.tasks)}
    assert len(used) == 1, f"{len(used)} workers took part although nothing said that the stage fans out"


@_check()
def eight_stages_of_one_cpu_run_on_a_small_machine(subject: Subject) -> None:
    stages = [
        s.AddProcess(column=f"pid_{number}").with_(num_workers=2 if number == 3 else 1, resources=Resources(cpus=1.0))
        for number in range(8)
    ]
    result = run(subject, stages)
    assert sorted(row["id"] for row in rows_of(result.tasks)) == list(range(24))


@_check()
def the_same_stage_twice_is_two_stages(subject: Subject) -> None:
    result = run(subject, [s.AddLength(column="one"), s.AddLength(column="two"), s.AddLength(column="three")])
    assert all(row["one"] == row["two"] == row["three"] == len(row["text"]) for row in rows_of(result.tasks))
    assert [stage.name for stage in result.summary.stages] == ["AddLength", "AddLength#2", "AddLength#3"]


@_check("environments")
def two_stages_may_have_two_versions_of_a_package(subject: Subject, folder: Path) -> None:
    stages: list[ProcessingStage[Any, Any]] = []
    for version in ("1", "2"):
        place = folder / f"version-{version}"
        place.mkdir()
        (place / "curator_conformance_pinned.py").write_text(f"VERSION = {version!r}\n")
        environment = {"env_vars": {"PYTHONPATH": str(place)}}
        stages.append(s.PackageVersion(column=f"v{version}").with_(runtime_env=environment))
    result = run(subject, stages, tasks=batches(count=2))
    assert {(row["v1"], row["v2"]) for row in rows_of(result.tasks)} == {("1", "2")}


# Resume ------------------------------------------------------------------------------------------------------------------


@_check("processes")
def a_killed_driver_is_resumed_and_nothing_is_lost(subject: Subject, folder: Path) -> None:
    """The driver dies in the middle; the resumed run ends with the same files as an undisturbed run."""
    paths = write_documents(folder / "in", files=24, documents=48)
    order = {
        "executor": subject.executor,
        "config": dict(subject.config),
        "paths": paths,
        "folder": str(folder),
    }
    (folder / "order.json").write_text(json.dumps(order))
    done = subprocess.run(
        [sys.executable, "-m", "curator_core.testing.driver", str(folder / "order.json")],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
        env={key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
    )
    assert done.returncode == -signal.SIGKILL, (
        f"the driver should have been killed: {done.returncode}\n{done.stderr[-2000:]}"
    )
    stages = resumed_stages(paths, folder)
    result = Pipeline(stages).run(subject.make(), run_dir=str(folder / "run"), resume=True)
    reference = folder / "reference"
    Pipeline(resumed_stages(paths, reference)).run(LocalExecutor(workers=0))
    assert read_files(folder / "out") == read_files(reference / "out"), "files differ from those of an undisturbed run"
    assert result.summary.attempt == 2
    assert result.summary.shares["done"] == str(len(paths) // 2), result.summary.shares
    again = Pipeline(stages).run(subject.make(), run_dir=str(folder / "run"), resume=True)
    assert again.summary.sources_skipped == len(paths) // 2, "a complete run has nothing left to do"


def resumed_stages(paths: list[str], folder: Path) -> list[ProcessingStage[Any, Any]]:
    """The pipeline of the resume check, which its driver also uses."""
    return [
        s.ListFiles(paths=paths),
        s.ReadRows(),
        s.SplitRows(),
        s.KillDriver(pid_file=str(folder / "driver.pid"), after=12),
        s.WriteRows(path=str(folder / "out")),
    ]


# Helpers -----------------------------------------------------------------------------------------------------------------


HERE = Subject("local", {"workers": 0})


def run(subject: Subject, stages: Stages, tasks: Sequence[Task[Any]] | None = None, **options: Any) -> RunResult:
    """Run a pipeline over some small tasks on the executor under test."""
    given = batches() if tasks is None else list(tasks)
    return Pipeline(list(stages)).run(subject.make(), initial_tasks=given, **options)


def run_here(stages: Stages, **options: Any) -> RunResult:
    """Run the same pipeline in this process; all executors must agree with it."""
    return Pipeline(list(stages)).run(LocalExecutor(workers=0), initial_tasks=batches(), **options)


def rejects(run_dir: Path) -> list[dict[str, Any]]:
    """The rejected and quarantined rows in the run directory, in the order of tasks, without messages, which may differ
    between executors.
    """
    names = ("kind", "task", "stage", "reason", "position", "rows", "raw")
    found = [{name: row[name] for name in names} for row in rejects_of(str(run_dir))]
    return sorted(found, key=lambda row: (row["task"], row["position"]))


def batches(count: int = 8, rows: int = 3) -> list[DocumentBatch]:
    """``count`` tasks of ``rows`` rows, with ids from 0 on."""
    return [table(range(number * rows, (number + 1) * rows), task_id=f"batch-{number:03d}") for number in range(count)]


def table(numbers: Iterable[int], task_id: str = "one") -> DocumentBatch:
    """A task with a row for each of these numbers."""
    values = list(numbers)
    data = pa.table({"id": pa.array(values, pa.int64()), "text": [f"text {'x' * value}" for value in values]})
    return DocumentBatch(data=data, task_id=task_id)


def ids_of(task: DocumentBatch) -> list[int]:
    found: list[int] = task.to_pyarrow()["id"].to_pylist()
    return found


def ids(result: RunResult) -> list[str]:
    return [task.task_id for task in result.tasks]


def rows_of(tasks: Iterable[Task[Any]]) -> list[dict[str, Any]]:
    return [row for task in tasks if isinstance(task, DocumentBatch) for row in task.to_pyarrow().to_pylist()]


def vars_of(stage: Any) -> dict[str, Any]:
    """A stage's totals without the times, which are the same on every executor."""
    return {"name": stage.name, "in": stage.rows_in, "out": stage.rows_out, "dropped": dict(stage.dropped)}


def write_documents(folder: Path, files: int = 15, documents: int = 100) -> list[str]:
    """Write documents to files of JSON lines; the last files are shorter."""
    folder.mkdir(parents=True)
    each = -(-documents // files)
    paths = []
    for number in range(files):
        rows = range(number * each, min(documents, (number + 1) * each))
        lines = [json.dumps({"id": row, "text": f"document {row} " + "word " * (row % 7)}) for row in rows]
        path = folder / f"part-{number:02d}.jsonl"
        path.write_text("\n".join(lines) + "\n")
        paths.append(str(path))
    return paths


def read_files(folder: Path) -> dict[str, str]:
    """The data files of a folder, by name."""
    return {path.name: path.read_text() for path in sorted(folder.glob("*.jsonl"))}


@contextlib.contextmanager
def expected(kind: type[BaseException]) -> Iterator[list[BaseException]]:
    """The block must raise an error of this kind, which is in the list afterwards."""
    caught: list[BaseException] = []
    try:
        yield caught
    except kind as error:
        caught.append(error)
        return
    raise AssertionError(f"{kind.__name__} should have been raised, but no error was")
