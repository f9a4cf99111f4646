"""``curate report`` and ``curate runs`` for a run in progress, and for a killed one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from curator_core import FilePartitioning, LocalExecutor, Pipeline
from curator_core.cli import DONE, run_command
from curator_core.errors import StageError
from curator_core.running.compare import records_of
from curator_core.running.directory import RunDirectory
from curator_core.running.listing import read_run
from curator_core.running.so_far import so_far
from curator_core.testing import stages as s
from curator_core.testing.faults import ReadLines, write_inputs

RUN_ON = """
import sys
sys.path[:0] = sys.argv[3:]
from test_so_far import pipeline
from curator_core import LocalExecutor
pipeline(sys.argv[1]).run(LocalExecutor(workers=0), run_dir=sys.argv[2], resume=True)
"""


def pipeline(folder):
    """Kills its process at the third of four files."""
    stages = [FilePartitioning(paths=f"{folder}/in"), ReadLines(), s.KillWorker(bad=12, folder=f"{folder}/traces")]
    return Pipeline(stages, name="clean")


def begun(folder, run_dir):
    """A run of which two sources are complete."""
    write_inputs(folder / "in", range(4), rows=5)
    pipeline(folder).run(LocalExecutor(workers=0), run_dir=run_dir, limit=2)


@pytest.mark.slow
def test_during_a_run_the_report_shows_what_is_complete(tmp_path, capsys):
    run_dir = str(tmp_path / "run")
    begun(tmp_path, run_dir)
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces/kill-0").write_text("")  # so that it does not
    with pipeline(tmp_path).iterate(LocalExecutor(workers=0), run_dir=run_dir, resume=True) as stream:
        next(stream)
        found = so_far(run_dir)
        assert found.state == "running"
        assert found.seconds is not None
        assert found.complete >= 2
        assert run_command(["report", run_dir]) == DONE
        assert "clean: running for" in capsys.readouterr().out
        assert read_run(run_dir).state == "running"
        list(stream)
    assert run_command(["report", run_dir]) == DONE
    assert "clean: done in" in capsys.readouterr().out


@pytest.mark.slow
def test_after_a_crash_the_report_shows_what_is_complete_and_how_to_resume(tmp_path, capsys):
    run_dir = str(tmp_path / "run")
    begun(tmp_path, run_dir)
    here = str(__file__).rpartition("/")[0]
    killed = subprocess.run([sys.executable, "-c", RUN_ON, str(tmp_path), run_dir, here], check=False)
    assert killed.returncode == -signal.SIGKILL
    found = so_far(run_dir)
    assert (found.state, found.owner, found.complete) == ("interrupted", None, 2)
    assert [(stage.name, stage.rows_in, stage.rows_out) for stage in found.stages] == [
        ("ReadLines", 10, 10),
        ("KillWorker", 10, 10),
    ]
    assert run_command(["report", run_dir]) == DONE
    out = capsys.readouterr().out
    assert "clean: interrupted, no process is working on it; continue it with --resume" in out
    assert "complete so far: 2 of the" in out
    assert run_command(["report", run_dir, "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["sources"]["complete"] == 2
    run = read_run(run_dir)
    assert (run.state, run.rows_in, run.rows_out) == ("interrupted", 10, 10)


def test_a_failed_run_counts_what_workers_completed_after_the_driver_had_stopped_counting(tmp_path, capsys):
    write_inputs(tmp_path / "in", range(3), rows=5)
    stages = [FilePartitioning(paths=f"{tmp_path}/in"), ReadLines(), s.Raise(bad=12)]
    run_dir = str(tmp_path / "run")
    with pytest.raises(StageError):
        Pipeline(stages, name="clean").run(LocalExecutor(workers=0), run_dir=run_dir)
    record = RunDirectory(run_dir).read_json("run.json")
    assert record["summary"]["sources"] == 2
    # As if the driver had heard of one source alone.
    for stage in record["summary"]["stages"]:
        stage.update(rows_in=5, rows_out=5)
    record["summary"]["sources"] = 1
    RunDirectory(run_dir).write_json("run.json", record)
    assert run_command(["report", run_dir]) == DONE
    assert "ReadLines       10    10" in capsys.readouterr().out
    numbers = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (numbers["rows"]["in"], numbers["sources"]["complete"]) == (10, 2)
    assert (read_run(run_dir).rows_in, read_run(run_dir).sources) == (10, 2)
    (found,) = records_of(run_dir).values()
    assert found.summary is not None
    assert [stage.rows_in for stage in found.summary.stages] == [10, 10]
