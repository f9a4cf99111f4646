"""Two runs that write into one folder leave each other's files alone."""

from __future__ import annotations

from pathlib import Path

from curator_core import LocalExecutor, Pipeline
from curator_text import JsonlReader, JsonlWriter, ParquetWriter


def test_a_run_keeps_what_another_has_written_of_the_same_sources(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    for name, writer in (("lines", JsonlWriter), ("columns", ParquetWriter)):
        stages = [JsonlReader(paths=str(tmp_path / "a.jsonl")), writer(path=str(tmp_path / "out"))]
        result = Pipeline(stages).run(LocalExecutor(workers=0), run_dir=str(tmp_path / name))
    found = {path.suffix for path in (tmp_path / "out").iterdir() if path.name != "_SUCCESS"}
    assert found == {".jsonl", ".parquet"}
    assert "1 files that this run did not write" in result.summary.warnings[0]
