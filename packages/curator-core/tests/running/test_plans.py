"""A run directory keeps every plan, and says which rows were made under which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from curator_core import LocalExecutor, Pipeline
from curator_core.running.result import PlanShare, RunResult
from curator_core.testing.faults import NoMultiples, Trial


class Stop(Exception):
    """Ends a run in the middle."""


def run(trial: Trial, of: int, stop_after: int = 0, **options: Any) -> RunResult:
    """Run the trial with another filter."""

    def progress(state: Any) -> None:
        if stop_after and state.finished_sources >= stop_after:
            raise Stop

    stages = [NoMultiples(of=of) if isinstance(s, NoMultiples) else s for s in trial.stages(traces="")]
    return Pipeline(stages).run(
        LocalExecutor(workers=0), run_dir=str(trial.folder / "run"), progress=progress, **options
    )


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path, files=5, rows=6, seconds=0.0)


def plans(trial: Trial) -> dict[str, Any]:
    return {
        path.name: {"of": json.loads(path.read_text())["steps"][-2]["params"]["of"]}
        for path in sorted((trial.folder / "run" / "plans").iterdir())
    }


def test_rows_of_an_earlier_plan_are_reported_as_such(trial: Trial) -> None:
    with pytest.raises(Stop):
        run(trial, of=7, stop_after=2)
    result = run(trial, of=2, resume=True, allow_changed=True)
    assert plans(trial) == {"0000.json": {"of": 7}, "0002.json": {"of": 2}}
    # 6 rows a file: ids 0..11 under the first plan, 12..29 under the second.
    assert result.summary.plans == [
        PlanShare(1, ["stage 'NoMultiples': of was 7, is 2"], sources=2, rows_in=12, rows_out=10),
        PlanShare(2, [], sources=3, rows_in=18, rows_out=9),
    ]
    (warning,) = result.summary.warnings
    assert warning.startswith(
        "2 sources of 5 (12 rows read, 10 kept) were made under the pipeline of attempt 1: stage 'NoMultiples': of was 7"
    )
    page = (trial.folder / "run" / "report.html").read_text()
    assert "Rows by plan" in page
    assert "of was 7, is 2" in page


def test_a_finished_run_resumed_with_another_plan_is_not_taken_for_its_output(trial: Trial) -> None:
    run(trial, of=7)
    result = run(trial, of=2, resume=True, allow_changed=True)
    (share,) = result.summary.plans
    assert (share.since, share.sources, share.rows_in) == (1, 5, 30)
    assert "made under the pipeline of attempt 1" in result.summary.warnings[0]
    assert plans(trial) == {"0000.json": {"of": 7}, "0002.json": {"of": 2}}


@pytest.mark.slow
def test_a_plan_that_is_used_again_is_the_current_one(trial: Trial) -> None:
    with pytest.raises(Stop):
        run(trial, of=7, stop_after=2)
    with pytest.raises(Stop):
        run(trial, of=2, stop_after=1, resume=True, allow_changed=True)
    result = run(trial, of=7, resume=True, allow_changed=True)
    assert [(share.since, bool(share.changes)) for share in result.summary.plans] == [(1, False), (2, True), (3, False)]
    assert len(result.summary.warnings) == 1
    assert plans(trial) == {"0000.json": {"of": 7}, "0002.json": {"of": 2}, "0003.json": {"of": 7}}


@pytest.mark.slow
def test_a_single_plan_is_not_mentioned_and_starting_over_discards_the_others(trial: Trial) -> None:
    with pytest.raises(Stop):
        run(trial, of=7, stop_after=2)
    assert run(trial, of=7, resume=True).summary.plans == []
    result = run(trial, of=2, fresh=True)
    assert (result.summary.plans, result.summary.warnings) == ([], [])
    assert plans(trial) == {"0000.json": {"of": 2}}


def test_a_run_directory_with_only_its_last_plan_keeps_it(trial: Trial) -> None:
    with pytest.raises(Stop):
        run(trial, of=7, stop_after=2)
    for path in (trial.folder / "run" / "plans").iterdir():
        path.unlink()
    assert [share.since for share in run(trial, of=2, resume=True, allow_changed=True).summary.plans] == [1, 2]
