"""The suite that every executor must pass, with both engines of this package."""

from __future__ import annotations

from pathlib import Path

import pytest

from curator_core.testing import ABILITIES, Check, Subject, checks

# Losing a node requires a cluster of several nodes: test_clusters.py runs this check. Xenna does not count calls.
OF_RAY_DATA = frozenset(ABILITIES) - {"nodes"}
OF_XENNA = OF_RAY_DATA - {"calls"}
# Ray Data runs on the shared Ray, as on any cluster. Xenna starts its own Ray for each run, as on a user's machine: on
# another cluster it starts a monitor of the node, a task that measures it and a coordinator for each segment of each
# run, and these processes would take most of the time. test_workflow_on_engines.py runs Xenna on the shared Ray.
# Each worker that a task kills takes seconds to replace: with these options, the second death is enough to set a task
# aside. Once on each engine it is the third, as users have it: in `OF_THE_THIRD_DEATH`, and in batch mode.
SECOND = {"max_worker_deaths": 2}
RAY_DATA = Subject("ray_data", SECOND, OF_RAY_DATA, "ray_data")
OF_THE_THIRD_DEATH = "a_task_that_kills_its_workers_is_set_aside"
XENNA = Subject("xenna", {"mode": "streaming", "num_cpus": 2, **SECOND}, OF_XENNA, "xenna")
XENNA_BATCH = Subject("xenna", {"mode": "batch", "num_cpus": 2}, OF_XENNA, "xenna-batch")

# `make test` leaves out long checks of code that both engines, or both modes of Xenna, share; `make test-engines` runs
# all. Checks of the differences between the modes remain: in batch mode, all results come at the end, no task is passed
# on before, and groups run one after the other. A record of a task that was set aside comes from the killed workers.
OF_THE_MODE = {
    "a_fan_out_and_a_merge_follow_one_another",
    "a_task_that_kills_its_workers_is_set_aside",
}
# On Ray Data, `make test` leaves out a check of which one hundred documents show the same: a stage comes twice there, with
# a name and a column each time.
SHOWN_BY_OTHERS = {"the_same_stage_twice_is_two_stages"}
# On Xenna, `make test` leaves out checks of what happens before an engine starts or inside a group, and of how deaths of
# parts are counted: both engines share the code of these, and Ray Data runs them.
OF_RAY_DATA_ENOUGH = {
    "none_an_empty_list_and_a_list_are_answers",
    "all_rows_filtered_is_a_result",
    "a_source_may_list_nothing",
    "what_is_rejected_and_said_is_the_same",
    "a_stage_that_cannot_be_sent_is_refused_before_any_work",
    "of_a_task_whose_part_kills_workers_the_part_is_set_aside",
    "without_the_fact_a_fan_out_stays_with_one_worker",
    "the_same_stage_twice_is_two_stages",
    "an_error_is_the_same_in_whatever_hook_it_was_raised",
    "sys_exit_in_a_stage_is_an_error_like_any_other",
    "a_task_that_takes_too_long_is_set_aside_by_name",
    "a_task_that_kills_its_workers_stops_a_run_that_is_to_fail",
    "merges_of_several_and_a_run_directory_agree",
    # test_user_types.py runs four groups on two CPUs.
    "eight_stages_of_one_cpu_run_on_a_small_machine",
}
assert OF_THE_THIRD_DEATH in OF_THE_MODE
XENNA_CHECKS, XENNA_BATCH_CHECKS = checks(XENNA), checks(XENNA_BATCH)
assert {str(check) for check in XENNA_BATCH_CHECKS} >= OF_THE_MODE | OF_RAY_DATA_ENOUGH | SHOWN_BY_OTHERS

ON_RAY_DATA = [
    pytest.param(check, marks=[pytest.mark.ray, *([pytest.mark.thorough] if str(check) in SHOWN_BY_OTHERS else [])])
    for check in checks(RAY_DATA)
]
ON_XENNA = [
    *(
        pytest.param(
            XENNA,
            check,
            marks=[pytest.mark.xenna, *([pytest.mark.thorough] if str(check) in OF_RAY_DATA_ENOUGH else [])],
        )
        for check in XENNA_CHECKS
    ),
    *(
        pytest.param(
            XENNA_BATCH,
            check,
            marks=[pytest.mark.xenna, *([] if str(check) in OF_THE_MODE else [pytest.mark.thorough])],
        )
        for check in XENNA_BATCH_CHECKS
    ),
]


pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("check", ON_RAY_DATA, ids=str)
def test_ray_data_conforms(check: Check, tmp_path: Path) -> None:
    as_users_have_it = Subject("ray_data", {}, OF_RAY_DATA)
    check.run(as_users_have_it if str(check) == OF_THE_THIRD_DEATH else RAY_DATA, tmp_path)


@pytest.mark.parametrize(("subject", "check"), ON_XENNA, ids=str)
def test_xenna_conforms(subject: Subject, check: Check, tmp_path: Path) -> None:
    check.run(subject, tmp_path)
