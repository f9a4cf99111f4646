"""Pipelines: built from stages, described, run, and reported in numbers."""

from __future__ import annotations

import contextlib
import gc
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curator_core import (
    AccountingError,
    DocumentBatch,
    EmptyTask,
    FileGroupTask,
    FilePartitioning,
    LocalExecutor,
    Machine,
    Pipeline,
    PlanError,
    ProcessingStage,
    SelectColumns,
    SourceStage,
    StageError,
    UsageError,
    stage,
)
from curator_core.executors.base import BaseExecutor, SegmentRun
from curator_core.model.lineage import source_id
from curator_core.running.progress import RunProgress


@dataclass
class ReadLines(ProcessingStage[FileGroupTask, DocumentBatch]):
    def outputs(self) -> list[str]:
        return ["text"]

    def process(self, task: FileGroupTask) -> DocumentBatch:
        lines = [line for path in task.data for line in Path(path).read_text().splitlines()]
        self.record_read(len(lines))
        return DocumentBatch(data=pa.table({"text": pa.array(lines, pa.string())}))


@stage(inputs=["text"], outputs=["text"])
def Upper(batch: DocumentBatch) -> DocumentBatch:  # noqa: N802 - a stage's name
    """Louder."""
    return batch.append_column("text", pa.array([text.upper() for text in batch.to_pyarrow()["text"].to_pylist()]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b", "a", "c"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{name}.txt").write_text(f"{name}1\n{name}2\n")
    return tmp_path


HERE = LocalExecutor(workers=0)


def stages(folder: Path) -> list[ProcessingStage[Any, Any]]:
    return [FilePartitioning(paths=str(folder / "in")), ReadLines(), Upper()]


def texts(result: Any) -> list[str]:
    return [text for task in result for text in task.to_pyarrow()["text"].to_pylist()]


def test_tasks_may_come_from_a_generator() -> None:
    tasks = (DocumentBatch(data=pa.table({"n": [number]})) for number in range(3))
    result = Pipeline([SelectColumns(columns=["n"])]).run(LocalExecutor(workers=0), initial_tasks=tasks)  # type: ignore[arg-type]
    assert result.to_arrow()["n"].to_pylist() == [0, 1, 2]


def test_a_pipeline_runs_from_files_to_results_and_adds_up(folder: Path) -> None:
    result = Pipeline(name="loud").add_stage(stages(folder)[0]).add_stage(ReadLines()).add_stage(Upper()).run(HERE)
    assert texts(result) == ["A1", "A2", "B1", "B2", "C1", "C2"]
    summary = result.summary
    assert (summary.state, result.exit_code, summary.sources, summary.results) == ("done", 0, 3, 3)
    assert summary.shares == {"done": "3", "dropped": "0", "failed": "0"}
    assert [(s.name, s.calls, s.rows_in, s.rows_out) for s in summary.stages] == [
        ("ReadLines", 3, 6, 6),
        ("Upper", 3, 6, 6),
    ]
    assert json.loads(json.dumps(summary.as_dict()))["exit_code"] == 0


def test_a_result_is_shown_in_one_line(folder: Path) -> None:
    result = Pipeline(stages(folder), name="loud").run(HERE)
    assert repr(result).startswith("RunResult('loud' done: 3 results, 3 sources, ")
    assert len(result) == 3
    assert result[0].num_rows == 2


def test_a_run_records_when_its_executor_was_ready_and_when_work_was_done(folder: Path) -> None:
    class Slow(LocalExecutor):
        def open(self) -> None:
            until = time.monotonic() + 0.1
            while time.monotonic() < until:
                pass
            super().open()

    summary = Pipeline(stages(folder)).run(Slow(workers=0)).summary
    assert summary.worked_after is not None
    assert 0.1 <= summary.opened_after <= summary.worked_after <= summary.seconds


@pytest.mark.parametrize(("set_before", "during"), [((700, 10, 10), (700, 10, 100)), ((900, 8, 7), (900, 8, 7))])
def test_a_run_rarely_visits_old_objects_unless_a_user_has_decided_how_often(
    set_before: tuple[int, int, int], during: tuple[int, int, int]
) -> None:
    found = []

    @stage(name="Look")
    def look(batch: DocumentBatch) -> DocumentBatch:
        found.append(gc.get_threshold())
        if batch.num_rows > 1:
            raise ValueError("two rows")
        return batch

    usual = gc.get_threshold()
    gc.set_threshold(*set_before)
    try:
        for rows in (1, 2):
            batch = DocumentBatch(data=pa.table({"text": ["a"] * rows}), task_id="a")
            with pytest.raises(StageError) if rows > 1 else contextlib.nullcontext():
                Pipeline([look()]).run(LocalExecutor(workers=0), initial_tasks=[batch])
            assert gc.get_threshold() == set_before
    finally:
        gc.set_threshold(*usual)
    assert set(found) == {during}


def test_a_limit_takes_the_first_sources(folder: Path) -> None:
    assert texts(Pipeline(stages(folder)).run(HERE, limit=2)) == ["A1", "A2", "B1", "B2"]


def test_ids_come_from_the_source_and_not_from_its_position(folder: Path) -> None:
    before = {task.task_id for task in Pipeline(stages(folder)).run(HERE)}
    (folder / "in" / "0.txt").write_text("new\n")
    after = [task.task_id for task in Pipeline(stages(folder)).run(HERE)]
    assert before < set(after)
    assert len(after) == 4


def test_a_stage_may_start_a_pipeline_from_nothing() -> None:
    class Make(ProcessingStage[EmptyTask, DocumentBatch]):
        def process(self, task: EmptyTask) -> DocumentBatch:
            return DocumentBatch(data=pa.table({"text": ["made"]}))

    assert texts(Pipeline([Make()]).run(HERE)) == ["made"]


def test_the_tasks_given_by_a_user_are_not_changed() -> None:
    task = DocumentBatch(data=pa.table({"text": ["a"]}))
    for _ in range(2):
        assert texts(Pipeline([Upper()]).run(HERE, initial_tasks=[task])) == ["A"]
    assert (task.task_id, task._stage_perf, task.to_pyarrow()["text"].to_pylist()) == ("", [], ["a"])


def test_a_pipeline_with_a_source_accepts_no_tasks(folder: Path) -> None:
    with pytest.raises(PlanError):
        Pipeline(stages(folder)).run(HERE, initial_tasks=[FileGroupTask(data=["x"])])


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (["s", "s"], "two sources have the id 's'"),
        (["a.b"], "no dot and no slash: 'a.b'"),
        (["a/b"], "no dot and no slash"),
    ],
)
def test_the_ids_of_sources_are_checked(tasks: list[str], message: str) -> None:
    given = [DocumentBatch(data=pa.table({"text": ["a"]}), task_id=name) for name in tasks]
    with pytest.raises(UsageError, match=message):
        Pipeline([Upper()]).run(HERE, initial_tasks=given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_error": "ignore"}, "on_error must be 'fail' or 'quarantine', not 'ignore'"),
        ({"retries": -1}, "retries"),
        ({"max_error_fraction": 2}, "between 0 and 1"),
        ({"limit": 0}, "limit"),
        ({"resume": True}, "run_dir"),
        ({"fresh": True, "resume": True, "run_dir": "x"}, "choose one"),
    ],
)
def test_options_are_checked_before_anything_runs(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Pipeline([Upper()]).run(HERE, initial_tasks=[], **options)


def test_progress_is_reported_at_the_start_and_as_sources_finish(folder: Path) -> None:
    seen: list[tuple[int, int | None, str]] = []

    def note(progress: RunProgress) -> None:
        seen.append((progress.finished_sources, progress.total_sources, progress.state))

    Pipeline(stages(folder)).run(HERE, progress=note)
    assert [finished for finished, _, _ in seen] == [0, 1, 2, 3, 3]
    assert seen[-1] == (3, 3, "done")


def test_a_source_that_lists_lazily_is_listed_lazily() -> None:
    order: list[str] = []

    class Lists(SourceStage[DocumentBatch]):
        def process(self, task: EmptyTask) -> Iterator[DocumentBatch]:
            for number in range(3):
                order.append(f"listed {number}")
                yield DocumentBatch(data=pa.table({"text": [str(number)]}), task_id=source_id("s", [str(number)]))

    @stage
    def note(batch: DocumentBatch) -> DocumentBatch:
        order.append(f"ran {batch.to_pyarrow()['text'][0]}")
        return batch

    # A run without a directory keeps no record of its sources, so it need not see them all first.
    Pipeline([Lists(), note()]).run(HERE)
    assert [entry for entry in order if entry.startswith("ran")] == ["ran 0", "ran 1", "ran 2"]


def test_a_plan_is_made_for_the_executor_or_for_a_machine(folder: Path) -> None:
    pipeline = Pipeline(stages(folder))
    assert "the moon (64 CPUs, no GPU)" in pipeline.plan(machine=Machine(cpus=64, name="the moon")).describe()
    assert pipeline.describe() == pipeline.plan(HERE).describe()


class Forgets(BaseExecutor):
    """An executor that loses a task."""

    def run_segment(self, run: SegmentRun) -> Iterator[Any]:
        tasks = list(run.tasks)
        run.tasks = iter(tasks[:-1])
        yield from LocalExecutor(workers=0).run_segment(run)


def test_law_3_a_task_that_an_executor_loses_fails_the_run_and_is_named() -> None:
    tasks = [DocumentBatch(data=pa.table({"text": ["a"]}), task_id=f"s-{n}") for n in range(3)]
    with pytest.raises(AccountingError, match="'s-2' is short of 1 of its share: task 's-2' was never accounted for"):
        Pipeline([Upper()]).run(Forgets(), initial_tasks=tasks)


def test_execute_is_a_run_without_a_pipeline() -> None:
    made = LocalExecutor(workers=0).execute([Upper()], [DocumentBatch(data=pa.table({"text": ["a"]}))])
    assert texts(made) == ["A"]
