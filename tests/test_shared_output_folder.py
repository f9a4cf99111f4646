"""Two runs that write to the same folder do not touch each other's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from curator_core import LocalExecutor, Pipeline
from curator_core.errors import RunRefused
from curator_text import JsonlReader, JsonlWriter, ParquetWriter


def test_a_run_keeps_the_files_that_another_has_written_for_the_same_sources(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text('{"text": "x"}\n')
    out = tmp_path / "out"
    lines, columns = (
        Pipeline([JsonlReader(paths=str(source)), writer(path=str(out))]) for writer in (JsonlWriter, ParquetWriter)
    )
    lines.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "lines"))
    with pytest.raises(RunRefused, match="finished output of another run"):
        columns.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "columns"))
    # An unfinished run has no success file, but its files may still be needed.
    (out / "_SUCCESS").unlink()
    result = columns.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "columns"))
    assert {path.suffix for path in out.iterdir() if path.name != "_SUCCESS"} == {".jsonl", ".parquet"}
    assert "1 file that this run did not write" in result.summary.warnings[0]
