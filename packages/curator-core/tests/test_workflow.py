"""Workflows: pipelines in a row that hand files over, resumed where they stopped."""

from __future__ import annotations

import itertools
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
    ProcessingStage,
    RunRefused,
    RunSummary,
    StageError,
    UsageError,
    Workflow,
    stage,
)
from curator_core.testing import stages as s
from curator_core.testing.faults import WriteLines

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


def test_steps_hand_files_over_and_have_run_directories_of_their_own(flow: TwoSteps, tmp_path: Path) -> None:
    result = flow.run(HERE, run_dir=str(tmp_path / "run"))
    assert [step.name for step in result.summary.steps] == ["read", "louder"]
    assert sum(stage.rows_out for stage in result.summary.stages if stage.name == "Upper") == 4
    text = "".join(path.read_text() for path in (tmp_path / "out").glob("*.jsonl"))
    assert all(f"T{number}" in text for number in range(4))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock", "run.json", "steps", "work"]
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


def test_a_workflow_of_nothing_and_one_with_a_name_twice_are_refused(flow: TwoSteps, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'Empty' has no steps"):
        Empty().run(HERE, run_dir=str(tmp_path / "run"))
    flow.second = "read"
    with pytest.raises(UsageError, match="steps 1 and 2 are both called 'read'"):
        flow.run(HERE, run_dir=str(tmp_path / "run"))


class Counting(LocalExecutor):
    """Counts how often it is opened and closed."""

    opened = closed = 0

    def open(self) -> None:
        self.opened += 1

    def close(self) -> None:
        self.closed += 1


def test_the_executor_is_opened_once_for_all_steps(flow: TwoSteps, tmp_path: Path) -> None:
    executor = Counting(workers=0)
    flow.run(executor, run_dir=str(tmp_path / "run"))
    assert (executor.opened, executor.closed) == (1, 1)


def test_without_a_run_directory_nothing_is_left_but_the_output(flow: TwoSteps, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    result = flow.run(HERE)
    assert result.run_dir is None
    assert {path.name for path in set(tmp_path.iterdir()) - before} == {"out"}
    with pytest.raises(RunRefused, match="finished output"):
        flow.run(HERE)
    flow.run(HERE, fresh=True)


class Doubling(Workflow):
    """Doubles the rows until there are enough: it looks at what each step has left."""

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


def test_a_workflow_may_decide_on_a_step_by_what_came_of_those_before(flow: TwoSteps, tmp_path: Path) -> None:
    result = Doubling(flow.paths, 20).run(HERE, run_dir=str(tmp_path / "run"))
    assert [(step.name, step.rows_out) for step in result.summary.steps] == [
        ("read", 4),
        ("double-1", 8),
        ("double-2", 16),
        ("double-3", 32),
    ]
