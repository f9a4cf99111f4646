"""A user's own task types and stages run on both engines, whether written in a script, a module or a notebook."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run starts a Ray of its own, which takes fewer processes than to join a cluster."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


TYPES = """
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curator_core import DocumentBatch, ProcessingStage, Task, WorkerMetadata


@dataclass(kw_only=True)
class VideoTask(Task[list[int]]):
    title: str = ""

    @property
    def num_items(self) -> int:
        return len(self.data)

    def validate(self) -> bool:
        return True


@dataclass(kw_only=True)
class ScoredBatch(DocumentBatch):
    model: str = ""


class Plain(DocumentBatch):
    '''No fields of its own: it travels as a table.'''


@dataclass
class Score(ProcessingStage[DocumentBatch, ScoredBatch]):
    def process(self, task: DocumentBatch) -> ScoredBatch:
        return ScoredBatch(data=task.to_pyarrow(), model="m")


@dataclass
class Flatten(ProcessingStage[ScoredBatch, Plain]):
    def process(self, task: ScoredBatch) -> Plain:
        assert type(task) is ScoredBatch
        return Plain(data=task.to_pyarrow().append_column("model", pa.array([task.model] * task.num_rows)))


@dataclass
class Open(ProcessingStage[Plain, VideoTask]):
    def process(self, task: Plain) -> VideoTask:
        assert type(task) is Plain
        return VideoTask(data=task.to_pyarrow()["id"].to_pylist(), title=task.to_pyarrow()["model"][0].as_py())


@dataclass
class Cut(ProcessingStage[VideoTask, VideoTask]):
    keep: int = 2

    def setup(self, worker: WorkerMetadata) -> None:
        self._shot: type[Any] = VideoTask

    def process(self, task: VideoTask) -> VideoTask:
        assert isinstance(task, self._shot), "the class of the task is not the class that the stage knows"
        self.record_dropped("late", len(task.data) - self.keep)
        return task.with_data(task.data[: self.keep])
"""

RUN = """
from curator_backends import RayDataExecutor, XennaExecutor
from curator_core import LocalExecutor, Pipeline


def outcome(executor, types):
    Score, Flatten, Open, Cut, VideoTask = map(types.get, ("Score", "Flatten", "Open", "Cut", "VideoTask"))
    tasks = [DocumentBatch(data=pa.table({"id": [n, n + 1, n + 2]}), task_id=f"t-{n}") for n in range(2)]
    # Each is a group, so that each type is sent on. Tasks that travel together need one worker of each group.
    stages = [Score(), Flatten().with_(num_workers=1), Open(), Cut().with_(num_workers=1)]
    films = Pipeline(stages).run(executor, initial_tasks=tasks)
    assert {type(film) for film in films} == {VideoTask}, {type(film) for film in films}
    return [(film.title, film.data) for film in films]


for types, on_xenna in TYPES:
    expected = outcome(LocalExecutor(workers=0), types)
    assert expected == [("m", [0, 1]), ("m", [1, 2])], expected
    assert outcome(LocalExecutor(workers=2), types) == expected
    assert outcome(RayDataExecutor(num_cpus=2, tasks_per_block=2), types) == expected
    print("agreed: Ray Data")
    if on_xenna:
        assert outcome(XennaExecutor(num_cpus=2, tasks_per_block=2), types) == expected
        print("agreed: Xenna")
"""


def run(types: str) -> str:
    """The code that runs sets of types, each given with whether it also runs on Xenna."""
    return RUN.replace("TYPES", types)


# Both engines send classes with the same code, and Xenna gets those of the script, which are pickled with their code:
# those of the module run on Xenna only in `make test-engines`.
@pytest.mark.xenna
@pytest.mark.parametrize("module_on_xenna", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_types_from_a_script_and_from_a_module_beside_it_run_on_both_engines(
    module_on_xenna: bool, tmp_path: Path
) -> None:
    # Run them in one process, because starting a process takes most of the time.
    (tmp_path / "video_types_of_a_test.py").write_text(TYPES)
    script = tmp_path / "script.py"
    script.write_text(
        TYPES
        + "import video_types_of_a_test\n"
        + run(f"((globals(), True), (vars(video_types_of_a_test), {module_on_xenna}))")
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("agreed: Ray Data") == 2
    assert done.stdout.count("agreed: Xenna") == 1 + module_on_xenna


@pytest.mark.thorough
@pytest.mark.xenna
def test_types_from_a_notebook_run_on_both_engines(tmp_path: Path) -> None:
    pytest.importorskip("ipykernel")
    nbclient = pytest.importorskip("nbclient")
    from nbformat.v4 import new_code_cell, new_notebook

    cells = [new_code_cell(TYPES), *map(new_code_cell, run("((globals(), True),)").split("\n\n\n"))]
    notebook = new_notebook(cells=cells)
    client = nbclient.NotebookClient(notebook, timeout=400, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # raises the exception of the cell
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.outputs)
    assert "agreed: Ray Data" in said
    assert "agreed: Xenna" in said
