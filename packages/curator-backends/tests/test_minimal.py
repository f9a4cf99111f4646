"""The parts that a local Ray leaves out are restored afterwards, and a part that another version lacks is not
changed."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
from pathlib import Path

import pytest

from curator_backends.minimal import NULL_ACTOR, NullActor, ends_at_once, minimal_ray, replaced
from curator_backends.processes import kill


class Engine:
    def start(self) -> str:
        return "started"

    @staticmethod
    def look() -> str:
        return "looked"


def test_attributes_are_replaced_and_restored_even_after_an_error() -> None:
    before = dict(vars(Engine))
    with pytest.raises(ValueError, match="nothing away"):
        fail_in_the_middle()
    assert dict(vars(Engine)) == before
    assert (Engine().start(), Engine.look()) == ("started", "looked")


def fail_in_the_middle() -> None:
    with replaced((Engine, "start", lambda _: "nothing"), (Engine, "look", staticmethod(lambda: "away"))):
        raise ValueError(f"{Engine().start()} {Engine.look()}")


def test_a_name_that_does_not_exist_is_not_added() -> None:
    with replaced((Engine, "a_name_of_another_version", 1), (Engine, "start", lambda _: "nothing")):
        assert not hasattr(Engine, "a_name_of_another_version")
        assert Engine().start() == "nothing"


@pytest.mark.ray
def test_the_installed_ray_has_the_names_that_are_left_out() -> None:
    pytest.importorskip("ray")
    from ray._private import node, services, utils

    agents = services.ray_constants.PROCESS_TYPE_DASHBOARD_AGENT, services.ray_constants.PROCESS_TYPE_RUNTIME_ENV_AGENT
    before = dict(vars(node.Node))
    starts = services.start_gcs_server
    with minimal_ray(True):
        assert services.start_gcs_server is not starts
        changed = {name for name, value in vars(node.Node).items() if value is not before[name]}
        assert changed == {"start_monitor", "start_log_monitor", "start_api_server"}
        assert utils.get_dashboard_dependency_error() is not None
        commands = [
            services._build_python_executable_command_memory_profileable(name, "") for name in (*agents, "dashboard")
        ]
        assert [Path(command[-1]).name for command in commands] == ["node_agent.py", "node_agent.py", "-u"]
    assert dict(vars(node.Node)) == before
    assert services.start_gcs_server is starts
    assert utils.get_dashboard_dependency_error() is None
    with minimal_ray(False):
        assert dict(vars(node.Node)) == before


@pytest.mark.ray
def test_the_installed_ray_data_has_the_actors_that_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The replacement for its autoscaler lets tasks wait in Ray for a CPU, unless actors would wait with them."""
    ray = pytest.importorskip("ray")
    from ray.data._internal import stats
    from ray.data._internal.execution import streaming_executor
    from ray.data._internal.execution.operators import actor_pool_map_operator
    from ray.data._internal.usage import collector

    from curator_backends.ray_data.services import no_services

    monkeypatch.delenv("RAY_DATA_USAGE_DISABLED", raising=False)  # the shared Ray of the tests sets it
    names = [
        (stats, "get_or_create_stats_actor"),
        (stats._StatsManager, "gen_dataset_id_from_stats_actor"),
        (streaming_executor, "create_cluster_autoscaler"),
        (actor_pool_map_operator, "get_or_create_actor_location_tracker"),
        (actor_pool_map_operator, "get_actor_locations"),
    ]
    before = [vars(owner)[name] for owner, name in names]
    with no_services(True):
        assert all(vars(owner)[name] is not value for (owner, name), value in zip(names, before, strict=True))
        assert collector.usage_collection_disabled()
        assert stats._StatsManager.gen_dataset_id_from_stats_actor()
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0, "memory": 8.0})
    totals = []
    for tasks_only in (False, True):
        with no_services(True, tasks_only):
            totals.append(streaming_executor.create_cluster_autoscaler().get_total_resources())
    assert [total.cpu for total in totals] == [2.0, 4.0]
    assert [total.memory for total in totals] == [8.0, 8.0]
    assert [vars(owner)[name] for owner, name in names] == before
    assert "RAY_DATA_USAGE_DISABLED" not in os.environ


@pytest.mark.xenna
def test_the_installed_xenna_has_the_parts_that_are_replaced() -> None:
    monitoring = pytest.importorskip("cosmos_xenna.pipelines.private.monitoring")
    from curator_backends.xenna.services import needs_dashboard, no_services

    resources = pytest.importorskip("cosmos_xenna.pipelines.private.resources")
    task = resources._get_node_info_from_current_node
    before = monitoring.RayResourceMonitor, monitoring.get_ray_actors
    assert not needs_dashboard()
    with no_services(True, False):
        asked = resources._get_node_info_from_current_node
        assert asked.options(scheduling_strategy="here")._ask is task._function, "it is asked in this process"
        assert monitoring.RayResourceMonitor().update() == {}
        assert monitoring.get_ray_actors("ALIVE") == []
    with no_services(False, dashboard=False):
        assert (monitoring.RayResourceMonitor, monitoring.get_ray_actors("ALIVE")) == (before[0], [])
    with no_services(False, dashboard=True):
        assert monitoring.RayResourceMonitor is before[0]
    assert (monitoring.RayResourceMonitor, monitoring.get_ray_actors) == before
    assert resources._get_node_info_from_current_node is task


@pytest.mark.xenna
def test_a_dashboard_that_cannot_list_actors_is_asked_once_and_does_not_end_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monitoring = pytest.importorskip("cosmos_xenna.pipelines.private.monitoring")
    from curator_backends.xenna.services import no_services

    asked = []

    def fails(state: str) -> None:
        asked.append(state)
        raise ConnectionError("Could not read 'dashboard' from GCS.")

    monkeypatch.setattr(monitoring, "get_ray_actors", fails)
    with no_services(False, dashboard=True):
        assert [monitoring.get_ray_actors("ALIVE") for _ in range(3)] == [[], [], []]
    assert asked == ["ALIVE"]


@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_stopping_ray_does_not_wait_for_processes_to_end_by_themselves() -> None:
    pytest.importorskip("ray")
    from ray._private import node

    before = vars(node.Node)["kill_all_processes"]
    with subprocess.Popen(["sleep", "600"]) as left:
        birth = Path(f"/proc/{left.pid}/stat").read_text().rpartition(")")[2].split()[19]
        with ends_at_once(lambda: kill({(left.pid, birth)})):
            stopped = node.Node.__new__(node.Node)
            stopped.all_processes = {}
            stopped.kill_all_processes(check_alive=False, allow_graceful=True, wait=False)  # as ray.shutdown does
        assert left.wait(timeout=60) == -signal.SIGKILL
    assert vars(node.Node)["kill_all_processes"] is before


def test_an_actor_that_is_not_started_accepts_every_call_and_can_be_sent() -> None:
    there = pickle.loads(pickle.dumps(NULL_ACTOR))
    assert isinstance(there, NullActor)
    assert there.update_actor_location.remote("actor", node="n") is None
