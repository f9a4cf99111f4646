"""The image pipelines in `examples/` run unchanged and keep the stated images."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytest.importorskip("curator_image")

from curator_core import LocalExecutor
from curator_core.cli import DONE, run_command
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


@pytest.mark.slow
def test_changed_copies_are_removed_by_the_file_and_by_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "images-alike"
    shutil.copytree(EXAMPLES / "images-alike", folder, ignore=shutil.ignore_patterns("out", "made", "runs"))
    made = runpy.run_path(str(folder / "make_data.py"))
    made["main"](str(folder / "made"))
    workflow = load_pipeline(folder / "pipeline.yaml").workflow
    assert workflow is not None
    summary = workflow.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run")).summary
    assert (summary.state, summary.rows_in, summary.rows_dropped) == ("done", 43, 7)
    table = pq.read_table(tmp_path / "run" / "decisions")
    removed = {row["id"]: row["witness_id"] for row in table.to_pylist() if row["decision"] == "removed"}
    assert removed == {f"scene-{at:02d}-{name}": f"scene-{at:02d}" for at, name in enumerate(made["COPIES"])}
    given = ["dedup", "image", str(folder / "made"), str(tmp_path / "out"), "--mirror", "--workers", "0", "--quiet"]
    assert run_command([*given, "--run-dir", str(tmp_path / "again")]) == DONE
    assert pq.read_table(tmp_path / "again" / "decisions").equals(table)
    for path in sorted((folder / "out").iterdir()):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes() or path.name == "_SUCCESS"
