"""The ready pipelines of `examples/` for images run as they stand and keep what they say."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytest.importorskip("curator_image")

from curator_core import LocalExecutor
from curator_core.config.pipeline_file import load_pipeline

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.slow
def test_pictures_with_the_same_pixels_are_removed_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "images-dedup"
    shutil.copytree(EXAMPLES / "images-dedup", folder, ignore=shutil.ignore_patterns("out", "made", "runs"))
    monkeypatch.setattr(sys, "argv", ["make_data.py", str(folder / "made")])
    runpy.run_path(str(folder / "make_data.py"), run_name="__main__")
    workflow = load_pipeline(folder / "pipeline.yaml").workflow
    assert workflow is not None
    summary = workflow.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run")).summary
    assert (summary.state, summary.rows_in, summary.rows_rejected) == ("done", 48, 2)
    assert summary.rows_dropped == 8
    decisions = pq.read_table(tmp_path / "run" / "decisions").to_pylist()
    removed = [(row["id"], row["witness_id"]) for row in decisions if row["decision"] == "removed"]
    assert removed == [(f"1{number:05d}", f"0{number:05d}") for number in range(0, 24, 3)]
