"""In a notebook, a pipeline of classes from cells is displayed, runs, shows its progress, and fails with a short
message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

# All of these tests check the result of one slow set-up.
pytestmark = pytest.mark.slow

CELLS = [
    """
from dataclasses import dataclass
import pyarrow as pa
from curator_core import DocumentBatch, LocalExecutor, Pipeline, ProcessingStage
from curator_text import JsonlReader, WordCountFilter

@dataclass
class Shout(ProcessingStage[DocumentBatch, DocumentBatch]):
    wrong: bool = False

    def process(self, task: DocumentBatch) -> DocumentBatch:
        if self.wrong:
            return 1 / 0  # in a cell
        return task.append_column("loud", [t.upper() for t in task.to_pyarrow()["text"].to_pylist()])

pipeline = Pipeline([JsonlReader(paths="in"), WordCountFilter(min_words=2), Shout()])
pipeline
""",
    "result = pipeline.run(LocalExecutor(workers=1), run_dir='run')\nresult",
    "print(result.to_pandas()['loud'].tolist(), result.summary.rows_in)\nresult.report()",
    "Pipeline([JsonlReader(paths='in'), Shout(wrong=True)]).run(LocalExecutor(workers=1))",
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "in").mkdir()
    rows = [{"text": "one two"}, {"text": "short"}, {"text": "three four five"}]
    (folder / "in" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return executed(folder)


def executed(folder: Path) -> list[list[dict[str, Any]]]:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    client = nbclient.NotebookClient(
        notebook, timeout=120, allow_errors=True, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return [cell["outputs"] for cell in notebook.cells]


def html_of(cell: list[dict[str, Any]]) -> str:
    return "".join(output.get("data", {}).get("text/html", "") for output in cell)


def test_a_pipeline_shows_its_plan(outputs: list[list[dict[str, Any]]]) -> None:
    assert "WordCountFilter" in html_of(outputs[0])
    assert "keeps documents of 2 to" in html_of(outputs[0])


def test_the_cell_of_a_run_shows_progress_and_the_result(outputs: list[list[dict[str, Any]]]) -> None:
    shown = html_of(outputs[1])
    assert "1 source" in shown, "the progress, in its last state"
    assert "done" in shown
    assert "<table>" in shown
    assert "WordCountFilter" in shown


def test_rows_and_the_report_are_available(outputs: list[list[dict[str, Any]]]) -> None:
    printed = "".join(output.get("text", "") for output in outputs[2])
    assert printed.strip() == "['ONE TWO', 'THREE FOUR FIVE'] 3"
    assert "<iframe srcdoc=" in html_of(outputs[2])


def test_an_error_is_a_few_lines_with_the_source_line_of_the_cell(outputs: list[list[dict[str, Any]]]) -> None:
    (error,) = [output for output in outputs[3] if output["output_type"] == "error"]
    lines = "\n".join(error["traceback"]).splitlines()
    assert len(lines) <= 15
    assert "stage 'Shout' failed" in lines[0]
    assert any("return 1 / 0  # in a cell" in line for line in lines)
    assert not any("curator_core" in line for line in lines)
