"""Workflows: pipelines in a row that hand files over, resumed where they stopped."""

from __future__ import annotations

from collections.abc import Sequence
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
    StageError,
    UsageError,
    Workflow,
    stage,
)
from curator_core.testing import stages as s

HERE = LocalExecutor(workers=0)
BROKEN = [False]


@stage
def MayFail(batch: DocumentBatch) -> DocumentBatch:  # noqa: N802 - a stage's name
    """Fails while it is broken."""
    if BROKEN[0]:
        raise ValueError("not yet")
    return batch


@stage(inputs=["text"], outputs=["text"])
def Upper(batch: DocumentBatch) -> DocumentBatch:  # noqa: N802 - a stage's name
    """Louder."""
    return batch.append_column("text", pa.array([text.upper() for text in batch.to_pyarrow()["text"].to_pylist()]))


@dataclass
class TwoSteps(Workflow):
    paths: Sequence[str] = ()
    out: str = ""
    second: str = "louder"

    def pipelines(self, work_dir: str) -> list[Pipeline]:
        between = f"{work_dir}/read"
        first: list[ProcessingStage[Any, Any]] = [
            s.ListFiles(paths=self.paths),
            s.ReadRows(),
            s.WriteRows(path=between),
        ]
        last: list[ProcessingStage[Any, Any]] = [
            FilePartitioning(paths=between),
            s.ReadRows(),
            MayFail(),
            Upper(),
            s.WriteRows(path=self.out),
        ]
        return [Pipeline(first, name="read"), Pipeline(last, name=self.second)]


class Empty(Workflow):
    def pipelines(self, work_dir: str) -> list[Pipeline]:
        return []


@pytest.fixture
def flow(tmp_path: Path) -> TwoSteps:
    paths = []
    for number in range(4):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(f'{{"id": {number}, "text": "t{number}"}}\n')
        paths.append(str(path))
    return TwoSteps(paths=paths, out=str(tmp_path / "out"))


def test_steps_hand_files_over_and_have_run_directories_of_their_own(flow: TwoSteps, tmp_path: Path) -> None:
    first, second = flow.run(HERE, run_dir=str(tmp_path / "run"))
    assert (first.summary.name, second.summary.name) == ("read", "louder")
    assert sum(stage.rows_out for stage in second.summary.stages if stage.name == "Upper") == 4
    text = "".join(path.read_text() for path in (tmp_path / "out").glob("*.jsonl"))
    assert all(f"T{number}" in text for number in range(4))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["01-read", "02-louder", "work"]


def test_a_workflow_is_resumed_at_the_step_where_it_stopped(flow: TwoSteps, tmp_path: Path) -> None:
    BROKEN[0] = True
    try:
        with pytest.raises(StageError, match="not yet"):
            flow.run(HERE, run_dir=str(tmp_path / "run"))
    finally:
        BROKEN[0] = False
    first, second = flow.run(HERE, run_dir=str(tmp_path / "run"), resume=True)
    assert (first.summary.sources, first.summary.sources_skipped) == (2, 2)
    assert second.summary.state == "done"
    assert len(list((tmp_path / "out").glob("*.jsonl"))) == second.summary.sources


def test_a_workflow_of_nothing_and_one_with_a_name_twice_are_refused(flow: TwoSteps, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'Empty' has no pipelines"):
        Empty().run(HERE, run_dir=str(tmp_path / "run"))
    flow.second = "read"
    with pytest.raises(UsageError, match="need names of their own, not read, read"):
        flow.run(HERE, run_dir=str(tmp_path / "run"))
