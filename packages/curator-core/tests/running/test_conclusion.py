"""A stage's conclusion is in the summary of the run, and is shown below its table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from curator_core.cli.summary import summary_text
from curator_core.executors.local import LocalExecutor
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch, FileRecord
from curator_core.pipeline import Pipeline
from curator_core.running.numbers import make_numbers
from curator_core.running.page.html import report_page
from curator_core.testing.stages import ListFiles, ReadRows


@dataclass
class Talks(ProcessingStage[DocumentBatch, DocumentBatch]):
    words: str = "a <b> & 3 rows"

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        self._done = True

    def conclusion(self) -> str:
        return self.words if self._done else ""


@pytest.mark.slow
def test_conclusions_are_in_the_summary_the_record_and_the_report(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1, "text": "one"}\n')
    stages = [ListFiles([str(tmp_path / "a.jsonl")]), ReadRows(), Talks(), Talks(words="").with_(name="silent")]
    result = Pipeline(stages).run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    assert result.summary.notes == ["a <b> & 3 rows"]
    assert summary_text(result.summary.as_dict()).endswith("\n\na <b> & 3 rows")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["summary"]["notes"] == ["a <b> & 3 rows"]
    assert "a &lt;b&gt; &amp; 3 rows" in report_page(make_numbers(record, {}, []))


@dataclass(kw_only=True)
class LeavesHalf(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Leaves half a file in a folder of the run, as a worker does that is killed while it writes."""

    folder: str = ""

    def process(self, task: DocumentBatch) -> DocumentBatch:
        Path(self.folder).mkdir(exist_ok=True)
        Path(self.folder, ".rows.parquet.tmp-12-3").write_bytes(b"half")
        Path(self.folder, "notes.txt").write_bytes(b"whole")
        return task


def test_half_written_files_of_a_dead_worker_are_gone_when_the_run_ends(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1, "text": "one"}\n')
    run_dir, half = tmp_path / "run", ".rows.parquet.tmp-12-3"
    stages = [ListFiles([str(tmp_path / "a.jsonl")]), ReadRows()]
    leave = [
        LeavesHalf(folder=str(folder)).with_(name=folder.name) for folder in (run_dir / "seen", tmp_path / "beside")
    ]
    Pipeline([*stages, *leave]).run(LocalExecutor(workers=0), run_dir=str(run_dir))
    assert (run_dir / "seen" / "notes.txt").exists()
    assert not (run_dir / "seen" / half).exists()
    assert (tmp_path / "beside" / half).exists()  # another process may be writing it
