"""``curate runs``: which runs are below a folder, and how each ended."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest

from curator_core import FilePartitioning, LocalExecutor, Pipeline, Workflow
from curator_core.cli import BAD_USAGE, DONE, run_command
from curator_core.running.listing import read_run, runs_below
from curator_core.running.locks import LOCK_FILE, owner_at_work
from curator_core.testing.faults import ReadLines, write_inputs

HERE = LocalExecutor(workers=0)


def pipeline(folder, name="clean"):
    write_inputs(folder / "in", range(2), rows=5)
    return Pipeline([FilePartitioning(paths=str(folder / "in")), ReadLines()], name=name)


def test_runs_are_listed_with_state_times_and_rows_also_in_subfolders(tmp_path, capsys):
    pipeline(tmp_path).run(HERE, run_dir=str(tmp_path / "runs/a"))
    pipeline(tmp_path, "later").run(HERE, run_dir=str(tmp_path / "runs/deep/er/b"))
    runs = runs_below(str(tmp_path))
    assert [(run.name, run.state, run.sources, run.rows_in, run.rows_out) for run in runs] == [
        ("clean", "done", 2, 10, 10),
        ("later", "done", 2, 10, 10),
    ]
    assert runs[0].started < runs[1].started
    assert run_command(["runs", str(tmp_path), "--json"]) == DONE
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["folder"] for row in rows] == [str(tmp_path / "runs/a"), str(tmp_path / "runs/deep/er/b")]
    assert run_command(["runs", str(tmp_path), "--state", "failed"]) == DONE
    assert "no run that is failed" in capsys.readouterr().out


@dataclass
class Both(Workflow):
    """The same pipeline twice."""

    folder: str

    def steps(self, work_dir):
        yield pipeline(Path(self.folder), "one")
        yield pipeline(Path(self.folder), "two")


def test_the_steps_of_a_workflow_are_listed_below_it_and_not_as_runs(tmp_path, capsys):
    Both(str(tmp_path)).run(HERE, run_dir=str(tmp_path / "runs/w"))
    (run,) = runs_below(str(tmp_path))
    assert [(step.name, step.state, step.rows_out) for step in run.steps] == [("one", "done", 10), ("two", "done", 10)]
    assert run_command(["runs", str(tmp_path)]) == DONE
    assert "  one" in capsys.readouterr().out


def test_a_run_without_a_process_is_interrupted(tmp_path):
    place = tmp_path / "a"
    pipeline(tmp_path).run(HERE, run_dir=str(place))
    record = json.loads((place / "run.json").read_text())
    kept = {key: value for key, value in record.items() if key not in ("summary", "fingerprint")}
    (place / "run.json").write_text(json.dumps({**kept, "state": "running", "ended": None}))
    assert read_run(str(place)).state == "interrupted"
    lock = place / LOCK_FILE
    lock.write_text(f"process {os.getpid()} on {socket.gethostname()}")
    assert owner_at_work(str(place)) is not None
    assert read_run(str(place)).state == "running"
    lock.write_text(f"process {2**22 + 1} on {socket.gethostname()}")  # beyond the largest number of a process
    assert read_run(str(place)).state == "interrupted"


@pytest.mark.parametrize("content", ["", "[]", '{"state": 7}', None])
def test_a_damaged_run_is_named_with_what_is_wrong_and_hides_no_other(tmp_path, capsys, content):
    pipeline(tmp_path).run(HERE, run_dir=str(tmp_path / "a"))
    pipeline(tmp_path).run(HERE, run_dir=str(tmp_path / "b"))
    if content is None:
        (tmp_path / "b/run.json").unlink()
    else:
        (tmp_path / "b/run.json").write_text(content)
    runs = {run.folder: run for run in runs_below(str(tmp_path))}
    assert runs[str(tmp_path / "a")].state == "done"
    assert runs[str(tmp_path / "b")].state == "damaged"
    assert run_command(["runs", str(tmp_path)]) == DONE
    assert ("is damaged" if content is not None else "no run.json") in capsys.readouterr().out


def test_a_missing_folder_is_wrong_usage(tmp_path, capsys):
    assert run_command(["runs", str(tmp_path / "none")]) == BAD_USAGE
    assert "there is no folder" in capsys.readouterr().err
