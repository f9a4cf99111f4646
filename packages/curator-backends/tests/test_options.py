"""Options are typed, and unknown ones are refused."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from curator_backends import RayDataExecutor, XennaExecutor, processes
from curator_backends.cluster import _join, import_ray
from curator_backends.options import RayOptions
from curator_backends.xenna.executor import _stage_options
from curator_core.errors import PlanError, UsageError
from curator_core.model.machine import visible_gpus
from curator_core.planning.plan import Group, PlannedStage
from curator_core.testing.stages import Same

BOTH = pytest.mark.parametrize("executor", [RayDataExecutor, XennaExecutor])


@BOTH
def test_an_unknown_option_is_refused_with_the_nearest_and_all_valid_options(executor: Any) -> None:
    with pytest.raises(UsageError, match=r"no option 'adress'; did you mean 'address'\?.*stall_timeout_s"):
        executor({"adress": "auto"})


@BOTH
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_cpus", 0),
        ("num_cpus", "two"),
        ("num_gpus", -1),
        ("object_store_memory_gb", 0),
        ("dashboard", "yes"),
        ("max_worker_deaths", 0),
        ("stall_timeout_s", 0),
        ("address", 6379),
        ("gpu_memory_gb", 0),
    ],
)
def test_a_wrong_value_names_the_option_and_the_value(executor: Any, name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"{name}.*{value!r}"):
        executor({name: value})


@BOTH
def test_the_size_of_an_existing_cluster_cannot_be_given(executor: Any) -> None:
    with pytest.raises(UsageError, match="names an existing one"):
        executor(address="auto", num_cpus=4)


@BOTH
def test_an_executor_is_verbose_if_it_is_asked_to_be(executor: Any) -> None:
    quiet = executor(num_cpus=2)
    assert not quiet.settings.verbose
    quiet.set_verbose()
    assert quiet.settings.verbose
    assert quiet.settings.num_cpus == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "serving"),
        ("cpu_allocation", 1.5),
        ("slots_per_worker", 0),
        ("worker_lifetime_m", -1),
        ("autoscale_interval_s", 0),
        ("work_stealing", 1),
        ("run_attempts", 0),
        ("tasks_per_block", 0),
    ],
)
def test_options_of_xenna_are_checked(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=name):
        XennaExecutor({name: value})


@pytest.mark.ray
def test_an_address_where_no_process_listens_is_refused_at_once() -> None:
    pytest.importorskip("ray")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # but does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(UsageError, match=rf"no Ray cluster to reach at '{address}'.*RAY_AUTH_MODE=token"):
            _join(import_ray(), RayOptions(address=address), address)
        assert time.monotonic() - began < 45  # Ray itself takes a minute and a half for this


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_processes_that_outlive_their_cluster_are_ended_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_GONE_SECONDS", 1.0)
    left = [subprocess.Popen(["sleep", "600"]) for _ in range(40)]
    known = {
        (process.pid, Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]) for process in left
    }
    processes.kill_leftovers(known)
    try:
        assert not [process for process in known if processes.is_running(*process)]
    finally:
        for process in left:
            process.kill()
            process.wait()


def test_xenna_cannot_avoid_the_head_node_and_names_an_executor_that_can() -> None:
    with pytest.raises(UsageError, match=r"--num-cpus=1.*ray_data"):
        XennaExecutor(ignore_head_node=True)


@pytest.mark.xenna
def test_xenna_refuses_gpus_that_are_not_there_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cosmos_xenna")
    for asked in (len(visible_gpus()) + 2, 0.5):
        with pytest.raises(UsageError, match=rf"num_gpus={asked:g}, but this machine has .*ray_data executor"):
            XennaExecutor(num_gpus=asked).open()


def test_in_batch_mode_groups_take_turns() -> None:
    assert XennaExecutor().simultaneous
    assert not XennaExecutor(mode="batch").simultaneous


def test_an_executor_that_is_not_open_knows_the_size_that_a_local_cluster_would_have() -> None:
    assert RayDataExecutor(num_cpus=3).machine().cpus == 3
    assert XennaExecutor(num_cpus=4, cpu_allocation=0.5).machine().cpus == 2


def group(**facts: Any) -> Group:
    stage = Same().with_(xenna_stage_spec=facts)
    return Group((PlannedStage(stage, "Same"),), stage.resources)


def test_keys_for_xenna_have_the_names_that_xenna_uses() -> None:
    assert _stage_options(
        group(
            num_workers_per_node=2,
            num_setup_attempts=3,
            num_run_attempts=4,
            slots_per_actor=5,
            worker_max_lifetime_m=0,
            worker_restart_interval_m=7,
            max_setup_failure_percentage=8.5,
        )
    ) == {
        "num_workers_per_node": 2,
        "num_setup_attempts_python": 3,
        "num_run_attempts_python": 4,
        "slots_per_actor": 5,
        "worker_max_lifetime_m": 0,
        "worker_restart_interval_m": 7,
        "max_setup_failure_percentage": 8.5,
    }


def test_an_unknown_key_for_xenna_is_refused() -> None:
    with pytest.raises(UsageError, match="'ignore_failures' for Xenna"):
        _stage_options(group(ignore_failures=True))
    with pytest.raises(PlanError, match="slots_per_actor must be a number above zero, not 0"):
        _stage_options(group(slots_per_actor=0))
