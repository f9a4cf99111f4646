"""A stage begins tasks ahead, beside the work of later stages, with the same records and no wrong blame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curator_core import DocumentBatch, FanOut, LocalExecutor, Pipeline, RunResult, StageError, WorkerMetadata
from curator_core.accounts.ledger import MemorySink
from curator_core.planning.plan import PlannedStage
from curator_core.testing import stages as s
from curator_core.worker.begun import Begun
from curator_core.worker.calls import NO_CARE, CallObserver, Care
from curator_core.worker.context import RunContext
from curator_core.worker.group import GroupRunner


class Fours(FanOut[DocumentBatch, DocumentBatch]):
    """Tasks of four rows each."""

    def process(self, task: DocumentBatch) -> Iterator[DocumentBatch]:
        table = task.to_pyarrow()
        return (task.with_data(table.slice(first, 4)) for first in range(0, len(table), 4))


def source(rows: int = 24, step: int = 1) -> DocumentBatch:
    return DocumentBatch(data=pa.table({"id": range(0, rows * step, step)}), task_id="t")


def run(*stages: Any, workers: int = 0, rows: int = 24, step: int = 1, **how: Any) -> RunResult:
    return Pipeline(list(stages)).run(LocalExecutor(workers=workers), initial_tasks=[source(rows, step)], **how)


def counts_of(result: RunResult, stage: str) -> Any:
    return next(counts for counts in result.summary.stages if counts.name == stage)


def ids(result: RunResult) -> list[int]:
    return sorted(row for task in result for row in task.to_pyarrow()["id"].to_pylist())


@pytest.mark.slow
def test_a_task_is_begun_while_a_later_stage_works_on_the_previous_one(tmp_path: Path) -> None:
    # Each waits until the other works on the neighbouring task; without overlap neither would ever continue.
    folder = str(tmp_path)
    later = s.BeginsBeside(folder, "later", "begun", ahead=1)
    result = run(s.SplitRows(), s.OnThread(folder=folder, other="later"), later, rows=6)
    assert ids(result) == [0, 2, 4]
    begun = [number for number in range(6) if s.traces(tmp_path, f"begun-{number}")]
    assert begun == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("ahead", [1, 20])
def test_results_and_records_equal_those_of_a_stage_that_begins_nothing(ahead: int, tmp_path: Path) -> None:
    found = []
    for number in (0, ahead):
        result = run(Fours(), s.OnThread(begins_ahead=number), run_dir=str(tmp_path / str(number)))
        counts = counts_of(result, "OnThread")
        found.append((ids(result), counts.rows_in, counts.rows_out, counts.dropped, counts.rejected))
    assert found[0] == found[1]
    assert found[0][3:5] == ({"odd": 10}, {"seven": 2})


def test_a_task_that_fails_when_begun_is_run_again_and_only_its_bad_row_is_set_aside() -> None:
    with pytest.raises(StageError, match=r"row 9 cannot be handled"):
        run(Fours(), s.OnThread(bad=9))
    result = run(Fours(), s.OnThread(bad=10), on_error="quarantine")
    assert ids(result) == [0, 2, 4, 6, 8, 12, 14, 16, 18, 20, 22]
    assert counts_of(result, "OnThread").quarantined == 1


@pytest.mark.slow
@pytest.mark.thorough
def test_a_task_that_kills_its_worker_when_begun_costs_no_other_task() -> None:
    # The later stage is at work on the task before when the process dies, and is not to blame.
    stages = [s.SplitRows(), s.OnThread(killer=20, begins_ahead=2), s.Same()]
    result = run(*stages, workers=1, rows=20, step=2, on_error="quarantine")
    assert ids(result) == [row for row in range(0, 40, 2) if row != 20]
    assert (counts_of(result, "OnThread").quarantined, counts_of(result, "Same").quarantined) == (1, 0)


def test_no_task_is_blamed_alone_while_others_are_begun() -> None:
    class Announced(CallObserver):
        def __init__(self) -> None:
            self.calls: list[tuple[str, int]] = []

        def begin(self, stage: str, tasks: Any, limit_s: float | None) -> None:
            self.calls.append((stage, len(tasks)))

        def end(self) -> None:
            self.calls.append(("", 0))

    def announced(care: Care) -> list[tuple[str, int]]:
        observer = Announced()
        group = [PlannedStage(s.OnThread(begins_ahead=2), "OnThread"), PlannedStage(s.Same(), "Same")]
        runner = GroupRunner(group, RunContext(), sink=MemorySink(), calls=observer)
        runner.setup(WorkerMetadata())
        given = [source().with_data(pa.table({"id": [number]})) for number in range(0, 8, 2)]
        assert len(list(runner.run(given, care))) == 4
        runner.teardown()
        return observer.calls

    calls = announced(NO_CARE)
    assert ("Same", 1) in calls  # the last task, beside which nothing is begun
    assert calls.count(("Same", 1)) == 1
    assert ("OnThread", 3) in calls  # `Same` has one, and two are begun
    assert calls[-1] == ("", 0)
    careful = announced(Care(alone=frozenset({"OnThread"})))
    assert careful == [("OnThread", 1), ("", 0), ("Same", 1), ("", 0)] * 4


def test_with_several_tasks_in_progress_none_is_blamed_alone() -> None:
    first, second, third = source(), source(), source()
    begun = Begun()
    assert begun.suspects("b", [first]) == ("b", [first])
    begun.add("a", second)
    assert begun.suspects("b", [first]) == ("a", [first, second])
    assert begun.suspects("a", [second]) == ("a", [second])
    begun.add("a", third)
    assert begun.suspects("", []) == ("a", [second, third])
    begun.end("a", second)
    begun.end("a", third)
    assert not begun


def test_with_a_time_limit_no_other_task_is_begun(tmp_path: Path) -> None:
    calls: list[str] = []

    class Counts(s.OnThread):
        def begin(self, task: DocumentBatch) -> Any:
            calls.append(task.task_id)
            return super().begin(task)

    run(Fours(), Counts(), s.Same().with_(task_timeout_s=60.0))
    assert calls == []
    run(Fours(), Counts(), s.Same())
    assert len(calls) == 6
