"""Run directories that an earlier version left are verified, resumed and read."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curator_core import DocumentBatch, FilePartitioning, LocalExecutor, Pipeline, ProcessingStage
from curator_core.running.result import RunResult
from curator_core.running.verify import verify
from curator_core.testing.faults import Halves, Join, ReadLines, WriteLines, snapshot


@dataclass
class NoMultiples(ProcessingStage[DocumentBatch, DocumentBatch]):
    """The stage of this name in `curator_core.testing.faults` as it was then."""

    of: int = 7

    def process(self, task: DocumentBatch) -> DocumentBatch:
        keep = [value % self.of != 0 for value in task.to_pyarrow()["id"].to_pylist()]
        self.record_dropped("multiple", keep.count(False))
        return task.filter(pa.array(keep, pa.bool_()))


NoMultiples.__module__ = Halves.__module__  # a plan names a stage by its package

EARLIER = Path(__file__).parent / "earlier"
MODIFIED = 1_700_000_000


@pytest.fixture(params=["finished", "interrupted", "tables"])
def left(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A copy of one of them as the current folder, with the original times of its input; returns its name."""
    folder = tmp_path / "copy"
    shutil.copytree(EARLIER / request.param, folder)
    record = folder / "run" / "run.json"
    record.write_text(record.read_text().replace("{HERE}", str(folder)))
    for path in (folder / "in").iterdir():
        os.utime(path, (MODIFIED, MODIFIED))
    monkeypatch.chdir(folder)
    return str(request.param)


def resume(left: str, retry: bool = False) -> RunResult:
    stages: list[ProcessingStage[Any, Any]] = [FilePartitioning(paths="in"), ReadLines(), Halves(), NoMultiples()]
    if left == "interrupted":
        stages.append(Join().with_(batch_size=4))
    if left != "tables":
        stages.append(WriteLines(path="out"))
    return Pipeline(stages).run(LocalExecutor(workers=0), run_dir="run", resume=True, retry=retry)


def test_an_earlier_run_is_verified_or_reported_as_unfinished(left: str) -> None:
    problems = verify("run")
    if left == "interrupted":
        assert len(problems) == 1
        assert "has not finished" in problems[0]
    else:
        assert problems == []


def test_an_earlier_run_is_resumed_and_complete_work_is_not_repeated(left: str) -> None:
    before = snapshot(Path("out")) if left == "finished" else {}
    result = resume(left)
    assert result.summary.sources_skipped == {"finished": 3, "interrupted": 2, "tables": 2}[left]
    assert verify("run") == []
    if left == "finished":
        assert snapshot(Path("out")) == before
    elif left == "interrupted":  # two of the four tables that the merge takes were stored by the earlier version
        assert snapshot(Path("out")) == snapshot(Path("expected"))
    else:
        ids = [value for task in result.tasks for value in task.to_pyarrow()["id"].to_pylist()]
        assert ids == [1, 2, 3, 4, 5, 6, 9, 10, 11]


def test_a_changed_source_is_run_again(left: str) -> None:
    path = Path("in/part-0.jsonl")
    path.write_text('{"id": 100, "text": "new"}\n')
    result = resume(left)
    assert result.summary.inputs["changed"] == 1
    assert result.summary.sources_skipped == {"finished": 2, "interrupted": 1, "tables": 1}[left]
    assert verify("run") == []
