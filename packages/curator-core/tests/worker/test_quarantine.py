"""One poison row costs one row, whatever kind of stage meets it; and mended input can be retried."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curator_core import DocumentBatch, FanOut, FileGroupTask, LocalExecutor, Pipeline, ProcessingStage
from curator_core.accounts.rejects import group_rejects, rejects_of
from curator_core.errors import StageError, TooManyErrors
from curator_core.stages.files import FilePartitioning
from curator_core.testing.faults import Join, ReadLines, WriteLines, snapshot, write_inputs

HERE = LocalExecutor(workers=0)
POISON = {13}
CALLS: list[int] = []


def check(task: DocumentBatch) -> None:
    CALLS.append(task.num_rows)
    if POISON & set(task.to_pyarrow()["id"].to_pylist()):
        raise ValueError("thirteen")


@dataclass
class Map(ProcessingStage[DocumentBatch, DocumentBatch]):
    def process(self, task: DocumentBatch) -> DocumentBatch:
        check(task)
        return task.append_column("seen", pa.array([True] * task.num_rows))


@dataclass
class MapBatch(ProcessingStage[DocumentBatch, DocumentBatch]):
    batch_size = 3

    def process(self, task: DocumentBatch) -> DocumentBatch:
        raise NotImplementedError

    def process_batch(self, tasks: list[DocumentBatch]) -> list[DocumentBatch]:
        for task in tasks:
            check(task)
        return [task.with_data(task.data) for task in tasks]


@dataclass
class Split(ProcessingStage[DocumentBatch, DocumentBatch]):
    def process(self, task: DocumentBatch) -> Any:
        check(task)
        table = task.to_pyarrow()
        return [task.with_data(table.slice(row, 1)) for row in range(table.num_rows)]


@dataclass
class Stream(FanOut[DocumentBatch, DocumentBatch]):
    def process(self, task: DocumentBatch) -> Iterator[DocumentBatch]:
        table = task.to_pyarrow()
        for row in range(table.num_rows):
            part = task.with_data(table.slice(row, 1))
            check(part)
            yield part


@dataclass
class Write(ProcessingStage[DocumentBatch, FileGroupTask]):
    path: str = ""

    def output_folder(self) -> str:
        return self.path

    def process(self, task: DocumentBatch) -> FileGroupTask:
        check(task)
        writer = WriteLines(path=self.path)
        result = writer.process(task)
        for record in writer.recorder.outputs:
            self.record_output(record)
        return result


@dataclass
class Flaky(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Fails that many times, and then works."""

    times: int = 1

    def setup(self, worker: Any) -> None:
        self._left = self.times

    def process(self, task: DocumentBatch) -> DocumentBatch:
        if self._left:
            self._left -= 1
            raise ConnectionError("not now")
        return task.with_data(task.data)


def run(tmp_path: Path, *stages: ProcessingStage[Any, Any], **options: Any) -> Any:
    if not (tmp_path / "in").exists():
        write_inputs(tmp_path / "in", range(5), rows=6)
    pipeline = Pipeline([FilePartitioning(paths=str(tmp_path / "in")), ReadLines(), *stages])
    return pipeline.run(HERE, run_dir=str(tmp_path / "run"), **{"on_error": "quarantine", **options})


def rows_written(tmp_path: Path) -> list[int]:
    lines = [line for path in (tmp_path / "out").glob("*.jsonl") for line in path.read_text().splitlines()]
    return sorted(json.loads(line)["id"] for line in lines)


@pytest.fixture(autouse=True)
def poison() -> None:
    POISON.clear()
    POISON.add(13)
    CALLS.clear()


@pytest.mark.parametrize("kind", [Map, MapBatch, Split], ids=lambda kind: kind.__name__)
def test_a_poison_row_loses_only_itself(tmp_path: Path, kind: Any) -> None:
    result = run(tmp_path, kind(), WriteLines(path=str(tmp_path / "out")))
    assert rows_written(tmp_path) == [row for row in range(30) if row != 13]
    assert result.summary.rows_quarantined == 1
    assert result.exit_code == 3
    (row,) = rejects_of(str(tmp_path / "run"))
    assert (row["kind"], row["stage"], row["reason"], row["rows"]) == ("quarantine", kind.__name__, "ValueError", 1)
    assert row["source"].endswith("part-0002.jsonl")
    assert row["position"] == "row 1"
    assert json.loads(row["raw"])["id"] == 13
    assert row["message"].splitlines()[-1] == "ValueError: thirteen"
    # The search for the row failed many times on the way, which the user does not want to read.
    assert row["message"].count("Traceback") == 1
    assert "adapter.py" not in row["message"]


def test_a_poison_row_in_a_writer_loses_only_itself(tmp_path: Path) -> None:
    run(tmp_path, Write(path=str(tmp_path / "out")))
    assert rows_written(tmp_path) == [row for row in range(30) if row != 13]


def test_a_poison_row_in_a_generator_costs_the_later_rows_of_its_task(tmp_path: Path) -> None:
    """What a generator would have made after its failure cannot be known; each of its rows is counted and kept."""
    result = run(tmp_path, Stream(), WriteLines(path=str(tmp_path / "out")))
    assert rows_written(tmp_path) == [row for row in range(30) if row not in range(13, 18)]
    assert result.summary.rows_quarantined == 5
    assert sum(row["rows"] for row in rejects_of(str(tmp_path / "run"))) == 5


def test_bisecting_needs_few_calls(tmp_path: Path) -> None:
    write_inputs(tmp_path / "in", [0], rows=1000)
    run(tmp_path, Map())
    assert len(CALLS) <= 2 * 10 + 3, "finding one of a thousand rows takes about two calls for each halving"


def test_many_poison_rows_cost_only_themselves(tmp_path: Path) -> None:
    POISON.update({0, 1, 5, 12, 17, 18, 23, 29})
    run(tmp_path, Map(), WriteLines(path=str(tmp_path / "out")))
    assert rows_written(tmp_path) == [row for row in range(30) if row not in POISON]


def test_a_task_with_only_poison_rows_is_set_aside_as_a_whole(tmp_path: Path) -> None:
    POISON.update(range(12, 18))
    result = run(tmp_path, Map(), WriteLines(path=str(tmp_path / "out")))
    assert result.summary.sources_failed == 1
    assert result.summary.rows_quarantined == 6
    assert result.summary.shares == {"done": "4", "dropped": "0", "failed": "1"}


def test_a_failing_merge_counts_its_rows(tmp_path: Path) -> None:
    @dataclass
    class Bad(Join):
        def process(self, tasks: Any) -> DocumentBatch:
            merged = Join.process(self, tasks)
            check(merged)
            return merged

    result = run(tmp_path, Bad().with_(batch_size=2), WriteLines(path=str(tmp_path / "out")))
    assert rows_written(tmp_path) == [row for row in range(30) if row not in range(12, 24)]
    assert result.summary.rows_quarantined == 12
    assert result.summary.shares == {"done": "3", "dropped": "0", "failed": "2"}


def test_lines_that_cannot_be_read_are_rejects_with_their_bytes(tmp_path: Path) -> None:
    write_inputs(tmp_path / "in", range(2), rows=30)
    with (tmp_path / "in" / "part-0001.jsonl").open("ab") as file:
        file.write(b'{"id": \xff}\n')
    result = run(tmp_path, WriteLines(path=str(tmp_path / "out")), on_error="fail", max_reject_fraction=0.5)
    assert result.exit_code == 0
    assert result.summary.rows_rejected == 1
    (row,) = rejects_of(str(tmp_path / "run"))
    assert (row["kind"], row["position"], row["raw"]) == ("reject", "31", b'{"id": \xff}')


def test_fail_stops_and_names_the_stage_the_task_and_the_line(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"'Map' failed on task 'part-0002-.*thirteen") as caught:
        run(tmp_path, Map(), on_error="fail")
    assert "raise ValueError" in caught.value.details


@pytest.mark.parametrize("on_error", ["fail", "quarantine"])
def test_a_stage_is_called_again_as_often_as_retries_says(tmp_path: Path, on_error: str) -> None:
    result = run(tmp_path, Flaky(times=3), WriteLines(path=str(tmp_path / "out")), retries=3, on_error=on_error)
    assert result.exit_code == 0
    assert rows_written(tmp_path) == list(range(30))
    assert result.summary.rows_quarantined == 0


def test_a_stage_is_not_called_more_often_than_that(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="not now"):
        run(tmp_path, Flaky(times=3), retries=2, on_error="fail")


@pytest.mark.slow
def test_retry_runs_only_quarantined_work(tmp_path: Path) -> None:
    stages = (Map(), WriteLines(path=str(tmp_path / "out")))
    run(tmp_path, *stages)
    POISON.clear()
    CALLS.clear()
    mended = run(tmp_path, *stages, retry=True)
    assert CALLS == [6], "one source of six rows"
    assert mended.summary.sources_skipped == 4
    assert mended.exit_code == 0
    assert rows_written(tmp_path) == list(range(30))
    assert group_rejects(str(tmp_path / "run")) == []
    assert run(tmp_path, *stages, resume=True).summary.sources_skipped == 5


def test_an_interrupted_retry_is_continued_by_any_resume(tmp_path: Path) -> None:
    """The file of the retried source may already exist; the ledger must not keep the record of the old one."""
    stages = (Map(), WriteLines(path=str(tmp_path / "out")))
    run(tmp_path, *stages)
    POISON.clear()

    def stop(state: Any) -> None:
        if state.finished_sources:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, *stages, retry=True, progress=stop)
    run(tmp_path, *stages, resume=True)
    assert rows_written(tmp_path) == list(range(30))


def test_retry_sets_work_aside_again_if_it_still_fails(tmp_path: Path) -> None:
    stages = (Map(), WriteLines(path=str(tmp_path / "out")))
    before = snapshot(tmp_path / "out") if run(tmp_path, *stages) else {}
    result = run(tmp_path, *stages, retry=True)
    assert result.exit_code == 3
    assert snapshot(tmp_path / "out") == before
    assert [group.rows for group in group_rejects(str(tmp_path / "run"))] == [1]


def test_a_run_with_too_many_errors_is_stopped(tmp_path: Path) -> None:
    write_inputs(tmp_path / "in", range(50), rows=6)
    POISON.update(range(0, 300, 3))
    with pytest.raises(TooManyErrors, match=r"max_error_fraction=0\.2"):
        run(tmp_path, Map(), max_error_fraction=0.2)
    assert len(CALLS) < 50 * 8, "it is stopped long before the end"


def test_a_run_within_its_error_fraction_completes(tmp_path: Path) -> None:
    result = run(tmp_path, Map(), WriteLines(path=str(tmp_path / "out")), max_error_fraction=0.05)
    assert result.summary.rows_quarantined == 1


def test_with_few_rows_the_error_fraction_is_checked_at_the_end(tmp_path: Path) -> None:
    with pytest.raises(TooManyErrors):
        run(tmp_path, Map(), max_error_fraction=0.01)
