"""Workflows: sequences of pipelines that pass files on, resumed where they stopped."""

from __future__ import annotations

import itertools
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curator_core import (
    DocumentBatch,
    FilePartitioning,
    LocalExecutor,
    Pipeline,
    PlanError,
    ProcessingStage,
    RunRefused,
    RunSummary,
    StageError,
    UsageError,
    Workflow,
    stage,
    storage,
)
from curator_core.cli import DONE, run_command
from curator_core.running.numbers import numbers_of
from curator_core.running.page.html import report_page
from curator_core.running.progress import RunProgress
from curator_core.running.verify import verify
from curator_core.testing import stages as s
from curator_core.testing.faults import ReadLines, WriteLines, assert_same, snapshot, write_inputs
from curator_core.workflow import Step, Steps

HERE = LocalExecutor(workers=0)
BROKEN = [False]


@stage
def MayFail(batch: DocumentBatch) -> DocumentBatch:  # noqa: N802 - a stage's name
    """Fails while it is broken."""
    if BROKEN[0]:
        raise ValueError("not yet")
    return batch


@stage(creates_rows=True)
def Twice(batch: DocumentBatch) -> DocumentBatch:  # noqa: N802 - a stage's name
    """Each row twice."""
    table = batch.to_pyarrow()
    return DocumentBatch(data=pa.concat_tables([table, table]))


@stage(inputs=["text"], outputs=["text"])
def Upper(batch: DocumentBatch) -> DocumentBatch:  # noqa: N802 - a stage's name
    """Louder."""
    return batch.append_column("text", pa.array([text.upper() for text in batch.to_pyarrow()["text"].to_pylist()]))


@dataclass
class TwoSteps(Workflow):
    paths: Sequence[str] = ()
    out: str = ""
    second: str = "louder"

    def steps(self, work_dir: str) -> Iterator[Pipeline]:
        between = f"{work_dir}/read"
        first: list[ProcessingStage[Any, Any]] = [
            s.ListFiles(paths=self.paths),
            s.ReadRows(),
            WriteLines(path=between),
        ]
        last: list[ProcessingStage[Any, Any]] = [
            FilePartitioning(paths=between),
            s.ReadRows(),
            MayFail(),
            Upper(),
            WriteLines(path=self.out),
        ]
        yield Pipeline(first, name="read")
        yield Pipeline(last, name=self.second)


class Empty(Workflow):
    def steps(self, work_dir: str) -> Iterator[Pipeline]:
        return iter([])


@pytest.fixture
def flow(tmp_path: Path) -> TwoSteps:
    paths = []
    for number in range(4):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(f'{{"id": {number}, "text": "t{number}"}}\n')
        paths.append(str(path))
    return TwoSteps(paths=paths, out=str(tmp_path / "out"))


def test_steps_pass_files_on_and_have_their_own_run_directories(flow: TwoSteps, tmp_path: Path) -> None:
    result = flow.run(HERE, run_dir=str(tmp_path / "run"))
    assert [step.name for step in result.summary.steps] == ["read", "louder"]
    assert sum(stage.rows_out for stage in result.summary.stages if stage.name == "Upper") == 4
    text = "".join(path.read_text() for path in (tmp_path / "out").glob("*.jsonl"))
    assert all(f"T{number}" in text for number in range(4))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        ".lock",
        "plan.json",
        "report.html",
        "report.json",
        "run.json",
        "steps",
        "work",
    ]
    assert sorted(path.name for path in (tmp_path / "run" / "steps").iterdir()) == ["01-read", "02-louder"]


def test_a_workflow_is_resumed_at_the_step_where_it_stopped(flow: TwoSteps, tmp_path: Path) -> None:
    BROKEN[0] = True
    try:
        with pytest.raises(StageError, match="not yet"):
            flow.run(HERE, run_dir=str(tmp_path / "run"))
    finally:
        BROKEN[0] = False
    result = flow.run(HERE, run_dir=str(tmp_path / "run"), resume=True)
    assert result.summary.state == "done"
    assert len(list((tmp_path / "out").glob("*.jsonl"))) == result.summary.sources


def test_an_empty_workflow_and_one_with_a_name_twice_are_refused(flow: TwoSteps, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'Empty' has no steps"):
        Empty().run(HERE, run_dir=str(tmp_path / "run"))
    flow.second = "read"
    with pytest.raises(UsageError, match="steps 1 and 2 are both called 'read'"):
        flow.run(HERE, run_dir=str(tmp_path / "run"))


class Counting(LocalExecutor):
    """Counts how often it is opened, made ready and closed, and keeps what it is given to expect before."""

    opened = closed = ready = 0
    expected: tuple[str, ...] = ()

    def expect(self, stages: Sequence[ProcessingStage[Any, Any]]) -> None:
        assert not self.opened
        self.expected = tuple(stage.name for stage in stages)

    def open(self) -> None:
        self.opened += 1

    def get_ready(self) -> None:
        assert self.opened == 1
        self.ready += 1

    def close(self) -> None:
        self.closed += 1


def test_the_executor_is_opened_once_for_all_steps(flow: TwoSteps, tmp_path: Path) -> None:
    executor = Counting(workers=0)
    flow.run(executor, run_dir=str(tmp_path / "run"))
    assert (executor.opened, executor.ready, executor.closed) == (1, 1, 1)
    assert executor.expected == ("ListFiles", "ReadRows", "WriteLines"), "the first step's, before it is opened"


@pytest.mark.slow
def test_only_the_output_is_left_without_a_run_directory(flow: TwoSteps, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    result = flow.run(HERE)
    assert result.run_dir is None
    assert {path.name for path in set(tmp_path.iterdir()) - before} == {"out"}
    with pytest.raises(RunRefused, match="finished output"):
        flow.run(HERE)
    flow.run(HERE, fresh=True)


class Doubling(Workflow):
    """Doubles the rows until there are enough, judging by the files that each step has left."""

    def __init__(self, paths: Sequence[str], enough: int) -> None:
        self.paths, self.enough = paths, enough

    def steps(self, work_dir: str) -> Generator[Pipeline, RunSummary, None]:
        place, rows = f"{work_dir}/0", 0
        first: list[ProcessingStage[Any, Any]] = [s.ListFiles(paths=self.paths), s.ReadRows(), WriteLines(path=place)]
        summary = yield Pipeline(first, name="read")
        for number in itertools.count(1):
            rows = summary.rows_out
            if rows >= self.enough:
                return
            place, before = f"{work_dir}/{number}", place
            more: list[ProcessingStage[Any, Any]] = [
                FilePartitioning(paths=before),
                s.ReadRows(),
                Twice(),
                WriteLines(path=place),
            ]
            summary = yield Pipeline(more, name=f"double-{number}")


def test_a_workflow_may_choose_a_step_by_the_results_of_earlier_ones(flow: TwoSteps, tmp_path: Path) -> None:
    result = Doubling(flow.paths, 20).run(HERE, run_dir=str(tmp_path / "run"))
    assert [(step.name, step.rows_out) for step in result.summary.steps] == [
        ("read", 4),
        ("double-1", 8),
        ("double-2", 16),
        ("double-3", 32),
    ]


# Resuming


@dataclass
class ThreeSteps(Workflow):
    """Reads, doubles and writes; files between steps are removed once they are not needed any more."""

    paths: str
    out: str
    copies: int = 2
    frees: bool = True

    def steps(self, work_dir: str) -> Iterator[Step]:
        one, two = f"{work_dir}/one", f"{work_dir}/two"
        yield Step(Pipeline([FilePartitioning(paths=self.paths), ReadLines(), WriteLines(path=one)], name="read"))
        more: list[ProcessingStage[Any, Any]] = [
            FilePartitioning(paths=one),
            ReadLines(),
            Times(copies=self.copies),
            WriteLines(path=two),
        ]
        yield Step(Pipeline(more, name="double"), frees=[one] if self.frees else [])
        last: list[ProcessingStage[Any, Any]] = [FilePartitioning(paths=two), ReadLines(), MayFail()]
        yield Step(Pipeline([*last, WriteLines(path=self.out)], name="write"), frees=[two] if self.frees else [])


@dataclass
class Times(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Each row several times."""

    copies: int = 2
    creates_rows = True

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return DocumentBatch(data=pa.concat_tables([task.to_pyarrow()] * self.copies))


@pytest.fixture
def three(tmp_path: Path) -> ThreeSteps:
    write_inputs(tmp_path / "in", range(4))
    return ThreeSteps(str(tmp_path / "in"), str(tmp_path / "out"))


def test_complete_steps_do_nothing_and_start_no_engine(three: ThreeSteps, tmp_path: Path) -> None:
    run_dir = str(tmp_path / "run")
    first = three.run(HERE, run_dir=run_dir)
    before = snapshot(tmp_path)
    executor = Counting(workers=0)
    again = three.run(executor, run_dir=run_dir, resume=True)
    assert executor.opened == 0
    assert snapshot(tmp_path) == before
    assert [step.complete_before for step in again.summary.steps] == [True, True, True]
    assert again.summary.state == "done"
    assert [task.data for task in again.tasks] == [task.data for task in first.tasks]
    assert again.summary.rows_written == first.summary.rows_written == 48


@pytest.mark.slow
def test_folders_that_no_later_step_reads_are_removed(three: ThreeSteps, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    BROKEN[0] = True
    try:
        with pytest.raises(StageError, match="not yet"):
            three.run(HERE, run_dir=str(run_dir))
    finally:
        BROKEN[0] = False
    assert sorted(path.name for path in (run_dir / "work").iterdir()) == ["two"]
    result = three.run(HERE, run_dir=str(run_dir), resume=True)
    assert [step.complete_before for step in result.summary.steps] == [True, True, False]
    assert not list((run_dir / "work").iterdir())
    assert verify(str(run_dir)) == []
    assert result.summary.warnings == []


def test_an_interrupted_removal_is_completed(three: ThreeSteps, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    three.run(HERE, run_dir=str(run_dir))
    (run_dir / "work" / "one").mkdir()
    (run_dir / "work" / "one" / "left").touch()
    three.run(HERE, run_dir=str(run_dir), resume=True)
    assert not list((run_dir / "work").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("frees", [True, False])
def test_new_input_goes_through_all_steps(three: ThreeSteps, tmp_path: Path, frees: bool) -> None:
    three.frees = frees
    run_dir = str(tmp_path / "run")
    three.run(HERE, run_dir=run_dir)
    write_inputs(tmp_path / "in", range(4, 6))
    result = three.run(HERE, run_dir=run_dir, resume=True)
    assert result.summary.rows_written == 72
    assert [step.complete_before for step in result.summary.steps] == [False, False, False]
    assert bool(result.summary.warnings) == frees
    if frees:
        assert "every step starts again: step 'read' is no longer complete" in result.summary.warnings[0]
    assert verify(run_dir) == []
    expected = tmp_path / "expected"
    ThreeSteps(three.paths, str(expected)).run(HERE)
    assert_same(snapshot(tmp_path / "out"), snapshot(expected))


@pytest.mark.slow
def test_a_changed_step_is_refused_or_run_again(three: ThreeSteps, tmp_path: Path) -> None:
    run_dir = str(tmp_path / "run")
    three.run(HERE, run_dir=run_dir)
    three.copies = 3
    with pytest.raises(RunRefused, match=r"(?s)step 'double' has changed.*copies was 2, is 3"):
        three.run(HERE, run_dir=run_dir, resume=True)
    result = three.run(HERE, run_dir=run_dir, resume=True, allow_changed=True)
    assert result.summary.rows_written == 72
    assert verify(run_dir) == []


def test_later_steps_start_again_if_an_earlier_one_left_other_files(tmp_path: Path) -> None:
    """A side input does not show in the sources of a step, so earlier results must not be kept."""
    write_inputs(tmp_path / "in", range(2))
    write_inputs(tmp_path / "side", range(1))
    flow = Sided(str(tmp_path / "in"), str(tmp_path / "side"), str(tmp_path / "out"))
    flow.run(HERE, run_dir=str(tmp_path / "run"))
    assert '"rows": 6' in next((tmp_path / "out").glob("*.jsonl")).read_text()
    write_inputs(tmp_path / "side", range(3))
    result = flow.run(HERE, run_dir=str(tmp_path / "run"), resume=True)
    assert '"rows": 18' in next((tmp_path / "out").glob("*.jsonl")).read_text()
    assert [step.complete_before for step in result.summary.steps] == [False, False]


@dataclass
class CountIn(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Adds the number of rows in a folder."""

    path: str = ""

    def process(self, task: DocumentBatch) -> DocumentBatch:
        rows = sum(len(path.read_text().splitlines()) for path in Path(self.path).glob("*.jsonl"))
        return task.append_column("rows", pa.array([rows] * task.num_items))


@dataclass
class Sided(Workflow):
    paths: str
    side: str
    out: str

    def steps(self, work_dir: str) -> Iterator[Pipeline]:
        aside = f"{work_dir}/aside"
        yield Pipeline([FilePartitioning(paths=self.side), ReadLines(), WriteLines(path=aside)], name="aside")
        main: list[ProcessingStage[Any, Any]] = [FilePartitioning(paths=self.paths), ReadLines(), CountIn(path=aside)]
        yield Pipeline([*main, WriteLines(path=self.out)], name="main")


@dataclass
class Around(Workflow):
    """A workflow in a workflow, whose input is removed with the last step."""

    paths: str
    out: str

    def steps(self, work_dir: str) -> Iterator[Pipeline | Workflow | Step]:
        one, two = f"{work_dir}/one", f"{work_dir}/two"
        yield Pipeline([FilePartitioning(paths=self.paths), ReadLines(), WriteLines(path=one)], name="read")
        yield LooksAt(one, two)
        last: list[ProcessingStage[Any, Any]] = [FilePartitioning(paths=two), ReadLines(), MayFail()]
        yield Step(Pipeline([*last, WriteLines(path=self.out)], name="write"), frees=[work_dir])


@dataclass
class LooksAt(Workflow):
    """Has a step for each file that it finds, so without files it makes no sense."""

    paths: str
    out: str
    later = "a step for each file"

    def steps(self, work_dir: str) -> Iterator[Pipeline]:
        files = sorted(Path(self.paths).glob("*.jsonl"))
        for number, file in enumerate(files or [Path("nothing")]):
            place = f"{self.out}/{number}"
            yield Pipeline(
                [FilePartitioning(paths=str(file)), ReadLines(), WriteLines(path=place)], name=f"file-{number}"
            )


@pytest.mark.slow
def test_a_workflow_in_a_workflow_is_not_run_again_after_its_input_was_removed(tmp_path: Path) -> None:
    write_inputs(tmp_path / "in", range(3))
    flow = Around(str(tmp_path / "in"), str(tmp_path / "out"))
    plan = flow.plan()
    assert "later  a step for each file" in plan.describe()
    assert [name for name, _ in plan.pipelines()] == ["read", "LooksAt/file-0", "write"]
    BROKEN[0] = True
    try:
        with pytest.raises(StageError, match="not yet"):
            flow.run(HERE, run_dir=str(tmp_path / "run"))
    finally:
        BROKEN[0] = False
    result = flow.run(HERE, run_dir=str(tmp_path / "run"), resume=True)
    assert [step.complete_before for step in result.summary.steps] == [True, True, False]
    assert [step.name for step in result.summary.steps[1].steps] == ["file-0", "file-1", "file-2"]
    assert not (tmp_path / "run" / "work").exists()
    before = snapshot(tmp_path)
    again = flow.run(HERE, run_dir=str(tmp_path / "run"), resume=True)
    assert all(step.complete_before for step in again.summary.steps)
    assert [(step.name, step.complete_before) for step in again.summary.steps[1].steps] == [
        ("file-0", True),
        ("file-1", True),
        ("file-2", True),
    ]
    assert snapshot(tmp_path) == before


# Killed and resumed


def _kill(flow: str, folder: Path, run_dir: Path, when: str, workers: int) -> None:
    """A driver in a separate process that dies at the instant when ``when`` becomes true of its progress, if ever."""
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_workflow import *
def progress(state):
    if {when}:
        os.kill(os.getpid(), signal.SIGKILL)
resume = os.path.exists({str(run_dir / "run.json")!r})
{flow}({str(folder / "in")!r}, {str(folder / "out")!r}).run(
    LocalExecutor(workers={workers}), run_dir={str(run_dir)!r}, resume=resume, progress=progress
)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == (-signal.SIGKILL if when != "False" else 0), ended.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("workers", "kills"),
    [
        (2, {1: [0], 2: [2], 3: [0, 2]}),
        pytest.param(1, {1: [0, 2], 2: [0, 2], 3: [0, 2]}, marks=pytest.mark.thorough),
        pytest.param(2, {1: [0, 2], 2: [0, 2], 3: [0, 2]}, marks=pytest.mark.thorough),
    ],
)
def test_a_workflow_killed_in_every_step_leaves_the_same_as_an_undisturbed_one(
    tmp_path: Path, workers: int, kills: dict[int, list[int]]
) -> None:
    write_inputs(tmp_path / "in", range(5))
    ThreeSteps(str(tmp_path / "in"), str(tmp_path / "expected")).run(HERE)
    run_dir = tmp_path / "run"
    for step, finished in [(step, finished) for step, several in kills.items() for finished in several]:
        # Before its first source, or after some.
        when = f"state.finished_sources >= {finished}" if finished else "not state.finished_sources"
        _kill("ThreeSteps", tmp_path, run_dir, f"state.step == {step} and {when}", workers)
    _kill("ThreeSteps", tmp_path, run_dir, "state.step == 3 and state.state == 'done'", workers)
    (run_dir / ".run.json.tmp-1-1").write_text("half")  # killed while it wrote its record
    _kill("ThreeSteps", tmp_path, run_dir, "False", workers)
    summary = json.loads((run_dir / "run.json").read_text())["summary"]
    assert [step["complete_before"] for step in summary["steps"]] == [True, True, False]
    assert_same(snapshot(tmp_path / "out"), snapshot(tmp_path / "expected"))
    assert verify(str(run_dir)) == []
    assert not list((run_dir / "work").iterdir())
    assert not [path for path in run_dir.rglob("*") if storage.is_temporary(str(path))]


@pytest.mark.slow
def test_a_killed_fresh_start_still_replaces_the_old_output(tmp_path: Path) -> None:
    write_inputs(tmp_path / "in", range(3))
    flow = ThreeSteps(str(tmp_path / "in"), str(tmp_path / "out"))
    flow.run(HERE)
    run_dir = tmp_path / "run"
    with pytest.raises(RunRefused, match=r"(?s)step 'write'.*finished output"):
        flow.run(HERE, run_dir=str(run_dir))
    assert not (run_dir / "steps").exists(), "it is refused before the first step"
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_workflow import *
def progress(state):
    if state.step == 2:
        os.kill(os.getpid(), signal.SIGKILL)
ThreeSteps({flow.paths!r}, {flow.out!r}).run(HERE, run_dir={str(run_dir)!r}, fresh=True, progress=progress)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    result = flow.run(HERE, run_dir=str(run_dir), resume=True)
    assert result.summary.state == "done"
    with pytest.raises(RunRefused, match="already holds a run"):
        flow.run(HERE, run_dir=str(run_dir))


# What a run directory is for


def test_a_run_directory_belongs_to_a_workflow_or_to_a_pipeline(three: ThreeSteps, tmp_path: Path) -> None:
    pipeline = Pipeline([FilePartitioning(paths=three.paths), ReadLines()])
    pipeline.run(HERE, run_dir=str(tmp_path / "p"))
    with pytest.raises(RunRefused, match="holds the run of a pipeline"):
        three.run(HERE, run_dir=str(tmp_path / "p"), resume=True)
    three.run(HERE, run_dir=str(tmp_path / "w"))
    with pytest.raises(RunRefused, match="holds the run of a workflow"):
        pipeline.run(HERE, run_dir=str(tmp_path / "w"), fresh=True)
    mine = tmp_path / "mine" / "work"
    mine.mkdir(parents=True)
    (mine / "precious").touch()
    with pytest.raises(RunRefused, match="no run of a workflow has made it"):
        three.run(HERE, run_dir=str(tmp_path / "mine"), fresh=True)
    assert (mine / "precious").exists()


def test_a_step_must_not_write_where_an_earlier_one_reads(three: ThreeSteps, tmp_path: Path) -> None:
    three.out = str(tmp_path / "in" / "out")
    with pytest.raises(PlanError, match=r"step 'write' writes to .* which 'FilePartitioning' of step 'read' reads"):
        three.run(HERE, run_dir=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_limit_applies_to_input_outside_the_run_directory(three: ThreeSteps, tmp_path: Path) -> None:
    result = three.run(HERE, run_dir=str(tmp_path / "run"), limit=3)
    assert [step.sources for step in result.summary.steps] == [3, 3, 3]
    assert result.summary.rows_written == 36


def test_work_set_aside_in_an_inner_step_is_reported(three: ThreeSteps, tmp_path: Path) -> None:
    (tmp_path / "in" / "part-9.jsonl").write_text("no JSON\n")
    result = three.run(HERE, run_dir=str(tmp_path / "run"))
    assert (result.summary.state, result.exit_code) == ("quarantined", 3)
    assert "step 'read' is done with work set aside (1 row rejected, 0 quarantined)" in result.summary.warnings[0]
    assert "of step &#x27;read&#x27;" in (tmp_path / "run" / "report.html").read_text()


def test_progress_says_which_step_is_running(three: ThreeSteps, tmp_path: Path) -> None:
    titles: list[str] = []
    three.run(HERE, progress=lambda state: titles.append(state.title))
    assert list(dict.fromkeys(titles)) == ["step 1 of 3: read", "step 2 of 3: double", "step 3 of 3: write"]


def test_log_messages_of_stages_are_in_one_file_with_the_step(three: ThreeSteps, tmp_path: Path) -> None:
    flow = Steps([Pipeline([FilePartitioning(paths=three.paths), ReadLines(), Says()], name="talk")])
    flow.run(HERE, run_dir=str(tmp_path / "run"))
    assert "talk/Says" in (tmp_path / "run" / "log.txt").read_text()


@dataclass
class Says(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Talks."""

    def process(self, task: DocumentBatch) -> DocumentBatch:
        logging.getLogger("says").warning("a word")
        return task


@pytest.mark.slow
def test_quarantined_work_is_retried_without_the_earlier_steps(three: ThreeSteps, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    BROKEN[0] = True
    try:
        result = three.run(HERE, run_dir=str(run_dir), on_error="quarantine")
    finally:
        BROKEN[0] = False
    assert (result.summary.state, result.summary.sources_failed) == ("quarantined", 4)
    assert sorted(path.name for path in (run_dir / "work").iterdir()) == ["two"], "it is read again"
    again = three.run(HERE, run_dir=str(run_dir), retry=True)
    assert [step.complete_before for step in again.summary.steps] == [True, True, False]
    assert (again.summary.state, again.summary.rows_written) == ("done", 48)
    assert not list((run_dir / "work").iterdir())


@pytest.mark.slow
def test_a_run_directory_may_be_a_url(three: ThreeSteps, tmp_path: Path) -> None:
    run_dir = f"memory://{tmp_path.name}"
    result = three.run(HERE, run_dir=run_dir)
    assert result.run_dir == run_dir
    assert verify(run_dir) == []
    again = three.run(HERE, run_dir=run_dir, resume=True)
    assert all(step.complete_before for step in again.summary.steps)
    assert not storage.exists(storage.join(run_dir, "work", "one"))


@pytest.mark.slow
def test_during_a_workflow_the_report_names_the_steps_that_are_done(
    three: ThreeSteps, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = str(tmp_path / "run")
    said: list[str] = []

    def look(state: RunProgress) -> None:
        if state.step == 3 and state.state == "running" and not said:
            assert run_command(["report", run_dir]) == DONE
            said.append(capsys.readouterr().out)

    three.run(HERE, run_dir=run_dir, progress=look)
    numbers = json.loads((tmp_path / "run" / "report.json").read_text())
    names = [step["name"] for step in numbers["steps"]]
    first = said[0].splitlines()[0]
    assert first.startswith(f"step {names[0]}: done in ")
    assert f"step {names[2]}, {names[2]}: running for " in said[0]
    assert "no process is working on it" not in said[0]


@pytest.mark.slow
def test_the_page_of_an_unfinished_workflow_lists_its_steps(three: ThreeSteps, tmp_path: Path) -> None:
    run_dir = str(tmp_path / "run")
    found: list[dict[str, Any]] = []

    def look(state: RunProgress) -> None:
        if state.step == 2 and state.state == "running" and not found:
            found.append(numbers_of(run_dir))

    whole = three.run(HERE, run_dir=run_dir, progress=look).summary.steps
    steps = found[0]["steps"]
    assert [(step["name"], step["state"], step["folder"]) for step in steps] == [
        (whole[0].name, "done", whole[0].folder),
        (whole[1].name, "running", whole[1].folder),
    ]
    assert steps[0]["rows_out"] == whole[0].rows_out
    assert f'href="{whole[1].folder}/report.html"' in report_page(found[0])
