"""The suite that every executor must pass, over both engines of this package."""

from __future__ import annotations

from pathlib import Path

import pytest

from curator_core.testing import ABILITIES, Check, Subject, checks

ALL = frozenset(ABILITIES)
RAY_DATA = Subject("ray_data", {}, ALL, "ray_data")
XENNA = Subject("xenna", {"mode": "streaming"}, ALL, "xenna")
XENNA_BATCH = Subject("xenna", {"mode": "batch"}, ALL, "xenna-batch")

# Xenna starts every worker anew for each run, some 6 seconds on 2 CPUs: in batch mode, whose stages, workers and
# transport are those of streaming, only what batch mode itself can get wrong is run.
OF_BATCH = {
    "one_hundred_documents_go_all_the_way",
    "an_error_stops_the_run_and_names_stage_task_and_line",
    "a_killed_worker_costs_nothing_but_time",
    "a_fan_out_is_shared_by_workers",
}

CASES = [
    *(pytest.param(RAY_DATA, check, marks=pytest.mark.ray) for check in checks(RAY_DATA)),
    *(pytest.param(XENNA, check, marks=pytest.mark.xenna) for check in checks(XENNA)),
    *(
        pytest.param(XENNA_BATCH, check, marks=pytest.mark.xenna)
        for check in checks(XENNA_BATCH)
        if check.name in OF_BATCH
    ),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(("subject", "check"), CASES, ids=str)
def test_the_executor_conforms(subject: Subject, check: Check, tmp_path: Path) -> None:
    check.run(subject, tmp_path)
