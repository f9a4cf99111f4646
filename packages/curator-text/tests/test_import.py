"""Importing the package starts nothing and loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from curator_core.testing import ImportCheck, import_checks


@pytest.mark.slow
@pytest.mark.parametrize("check", import_checks("curator_text"), ids=lambda check: check.name)
def test_importing(check: ImportCheck) -> None:
    check.run()


RUN = """
import sys
import pyarrow as pa
from curator_core import DocumentBatch, LocalExecutor, Pipeline
from curator_core.arrow.arrays import array
from curator_text import GopherQualityFilter

texts = array(["a b c", "the of and " * 30], pa.string())
task = DocumentBatch(data=pa.table({"text": texts}), task_id="s")
Pipeline([GopherQualityFilter()]).run(LocalExecutor(workers=0), initial_tasks=[task], run_dir=sys.argv[1])
assert "pandas" not in sys.modules
"""


@pytest.mark.slow
def test_a_run_with_a_filter_of_several_scores_does_not_load_pandas(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", RUN, str(tmp_path / "run")], check=True)
