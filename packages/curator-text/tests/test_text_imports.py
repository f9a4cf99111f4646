"""A run of text stages does not import pandas, which would take each process a sixth of a second."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_reading_filtering_and_writing_load_no_pandas(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    rows = [{"id": str(row), "text": "some words of a document\n" * row} for row in range(40)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run.py").write_text(
        "import sys\n"
        "from curator_core import LocalExecutor, Pipeline\n"
        "from curator_text import JsonlReader, JsonlWriter, ParquetReader, ParquetWriter, WebEnglish\n"
        "here = LocalExecutor(workers=0)\n"
        "Pipeline([JsonlReader(paths='in.jsonl'), ParquetWriter(path='mid')], name='a').run(here)\n"
        "stages = [ParquetReader(paths='mid'), WebEnglish(), JsonlWriter(path='out')]\n"
        "summary = Pipeline(stages, name='b').run(here).summary\n"
        "print(summary.rows_dropped, [name for name in sys.modules if name == 'pandas'])\n"
    )
    done = subprocess.run(
        [sys.executable, "run.py"], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    dropped, loaded = done.stdout.splitlines()[-1].split(" ", 1)
    assert int(dropped) > 0
    assert loaded == "[]"
