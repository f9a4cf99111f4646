"""The suite that every executor must pass, over both engines of this package."""

from __future__ import annotations

from pathlib import Path

import pytest

from curator_core.testing import ABILITIES, Check, Subject, checks

# A node that goes away needs a cluster of several: test_clusters.py runs that check. Xenna counts no calls.
OF_RAY_DATA = frozenset(ABILITIES) - {"nodes"}
OF_XENNA = OF_RAY_DATA - {"calls"}
RAY_DATA = Subject("ray_data", {}, OF_RAY_DATA, "ray_data")
XENNA = Subject("xenna", {"mode": "streaming"}, OF_XENNA, "xenna")
XENNA_BATCH = Subject("xenna", {"mode": "batch"}, OF_XENNA, "xenna-batch")

# What the mode changes in our code or in Xenna's schedule: results come all at the end, nothing is handed over meanwhile,
# and groups run one after the other. The other checks pass through the same code as in streaming; `make test-engines`
# runs them too.
OF_THE_MODE = {
    "one_hundred_documents_go_all_the_way",
    "a_fan_out_and_a_merge_follow_one_another",
    "an_error_stops_the_run_and_names_stage_task_and_line",
    "quarantine_sets_the_bad_row_aside_and_goes_on",
    "a_killed_worker_costs_nothing_but_time",
    "a_task_that_kills_its_workers_is_set_aside",
    "eight_stages_of_one_cpu_run_on_a_small_machine",
}
XENNA_BATCH_CHECKS = checks(XENNA_BATCH)
assert {str(check) for check in XENNA_BATCH_CHECKS} >= OF_THE_MODE

CASES = [
    *(pytest.param(RAY_DATA, check, marks=pytest.mark.ray) for check in checks(RAY_DATA)),
    *(pytest.param(XENNA, check, marks=pytest.mark.xenna) for check in checks(XENNA)),
    *(
        pytest.param(
            XENNA_BATCH,
            check,
            marks=[pytest.mark.xenna, *([] if str(check) in OF_THE_MODE else [pytest.mark.thorough])],
        )
        for check in XENNA_BATCH_CHECKS
    ),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(("subject", "check"), CASES, ids=str)
def test_the_executor_conforms(subject: Subject, check: Check, tmp_path: Path) -> None:
    check.run(subject, tmp_path)
