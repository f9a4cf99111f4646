"""The pipeline that Xenna gets. Placement on GPUs needs real ones, so only the translation is tested."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from stages_for_tests import tasks

from curator_backends.cluster import Cluster, Node
from curator_backends.failures import EngineError
from curator_backends.supervisor import Stalled
from curator_backends.worker import Job
from curator_backends.xenna.executor import (
    XennaExecutor,
    XennaOptions,
    _allocated,
    _check_gpus,
    _explained,
    _require_cpus,
    _shape,
    _workers,
)
from curator_core.errors import PlanError, StageError, WorkerDied
from curator_core.model.resources import Resources
from curator_core.pipeline import Pipeline
from curator_core.planning.plan import Group, PlannedStage
from curator_core.testing.stages import Same, SplitRows
from curator_core.worker.context import RunContext


def cluster(*cpus_and_gpus: tuple[float, float], memory: float | None = 80.0) -> Cluster:
    nodes = tuple(Node(f"n{i}", i == 0, cpus, gpus, 64.0) for i, (cpus, gpus) in enumerate(cpus_and_gpus))
    return Cluster(nodes, False, "the cluster", None, memory)


def group(**resources: float) -> Group:
    stage = Same().with_(resources=Resources(**resources))
    return Group((PlannedStage(stage, "Same"),), stage.resources)


def test_gpu_memory_is_a_share_of_the_smallest_gpu() -> None:
    assert _shape(group(gpu_memory_gb=10), cluster((8, 1))) == (1.0, 0.125)
    assert _shape(group(cpus=0, gpus=2), cluster((8, 2))) == (0.0, 2)


def test_a_worker_that_needs_nothing_gets_the_minimum_that_xenna_accepts() -> None:
    assert _shape(group(cpus=0), cluster((8, 0))) == (0.001, 0.0)


def test_stages_whose_gpus_do_not_fit_are_refused_by_name() -> None:
    groups = [group(gpus=1), group(gpus=1)]
    shapes = [(1.0, 1.0), (1.0, 1.0)]
    with pytest.raises(PlanError, match="hold 2 GPUs at once"):
        _check_gpus(groups, shapes, cluster((8, 1)), "streaming")
    _check_gpus(groups, shapes, cluster((8, 1)), "batch")
    with pytest.raises(PlanError, match="not known"):
        _shape(group(gpu_memory_gb=1), cluster((8, 1), memory=None))


def test_cpus_are_counted_node_by_node_as_in_xenna() -> None:
    assert _allocated(cluster((3, 0), (5, 0)), XennaOptions(cpu_allocation=0.5)) == 3
    assert _allocated(cluster((2, 0)), XennaOptions()) == 2


def test_a_node_without_cpus_is_refused_before_xenna_fails_on_it() -> None:
    with pytest.raises(PlanError, match=r"node n0 has none.*--num-cpus=1.*cpu_allocation"):
        _require_cpus(cluster((0, 0), (8, 0)))
    _require_cpus(cluster((1, 0), (8, 0)))
    assert _allocated(cluster((1, 0), (8, 0)), XennaOptions(cpu_allocation=0.99)) == 7, "none of them on the head"


def test_a_single_task_gets_one_worker_of_each_group_up_to_the_first_fan_out() -> None:
    def of(stage: Any) -> Group:
        return Group((PlannedStage(stage, stage.name),), stage.resources, stage.num_workers())

    groups = [of(Same()), of(Same().with_(xenna_stage_spec={"num_workers_per_node": 2})), of(SplitRows()), of(Same())]
    assert _workers(groups, single=True) == [1, None, 1, None]
    assert _workers(groups, single=False) == [None] * 4
    assert _workers([of(Same().with_(num_workers=3))], single=True) == [3]


@pytest.mark.xenna
def test_workers_are_balanced_again_as_soon_as_a_stage_has_ended() -> None:
    streaming = pytest.importorskip("cosmos_xenna.pipelines.private.streaming")
    from curator_backends.xenna.services import balanced_when_there_is_news

    before, ended = streaming.timing, [0]
    with balanced_when_there_is_news(lambda: ended[0]):
        checker = streaming.timing.RateLimitChecker(1e-6)
        assert [checker.can_call() for _ in range(3)] == [True, False, False], "at the start, and then by its interval"
        ended[0] = 1
        assert [checker.can_call(check_only=True), *(checker.can_call() for _ in range(2))] == [True, True, False]
        assert streaming.timing.RateLimiter is before.RateLimiter
    assert streaming.timing is before


# The other tests of Xenna run on clusters without a dashboard, because its ten processes take longer than most tests.
@pytest.mark.thorough
@pytest.mark.xenna
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_dashboard_lists_the_workers_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monitoring = pytest.importorskip("cosmos_xenna.pipelines.private.monitoring")
    ask, listed = monitoring.get_ray_actors, []

    def asked(*state: str) -> Any:
        found = ask(*state)
        listed.append(len(found))
        return found

    monkeypatch.setattr(monitoring, "get_ray_actors", asked)
    result = Pipeline([SplitRows(), Same()]).run(XennaExecutor(num_cpus=2, dashboard=True), initial_tasks=tasks(4))
    assert len(result) == 4
    assert any(listed), "the dashboard was asked, and has listed actors"


def test_the_error_for_a_cluster_without_its_dashboard_says_what_to_do() -> None:
    error = _explained(EngineError("Xenna failed: RayStateApiException: no"))
    assert "RAY_MAX_LIMIT_FROM_API_SERVER=40000" in str(error)
    other = ValueError("else")
    assert _explained(other) is other


def test_a_lost_node_is_named_with_the_command_that_resumes_the_run() -> None:
    gone = ["0123456789abcdef"]
    for error in (EngineError("Xenna failed: RuntimeError: no actor"), WorkerDied("lost"), Stalled("nothing")):
        explained = _explained(error, gone)
        assert isinstance(explained, WorkerDied)
        assert "0123456789ab left the cluster" in str(explained)
        assert "--resume" in str(explained)
        assert _explained(error) is error
    of_a_stage = StageError("MyStage", "ValueError: bad row", "task-1")
    assert _explained(of_a_stage, gone) is of_a_stage


@pytest.mark.xenna
def test_a_group_works_as_a_xenna_stage() -> None:
    pytest.importorskip("cosmos_xenna")
    from curator_backends.xenna.stage import named_stage

    polls: list[int] = []
    stage: Any = named_stage(
        "SplitRows",
        job=Job("token", 0, group_of_two(), RunContext()),
        link=None,
        cpus=0.5,
        gpus=0.25,
        environment={"env_vars": {"A": "1"}, "config": {"setup_timeout_seconds": 7}},
        poll=lambda: polls.append(1),
    )
    assert type(stage).__name__ == "SplitRows"
    assert copy.deepcopy(stage) is stage
    assert stage.stage_batch_size == 4
    assert polls == [1]
    assert (stage.required_resources.cpus, stage.required_resources.gpus) == (0.5, 0.25)
    environment = copy.deepcopy(stage.env_info)
    environment.extra_env_vars["CUDA_VISIBLE_DEVICES"] = "0"
    sent = environment.to_ray_runtime_env()
    assert sent["env_vars"] == {"A": "1", "CUDA_VISIBLE_DEVICES": "0"}
    assert sent["config"]["setup_timeout_seconds"] == 7
    state = pickle.loads(pickle.dumps(stage.__getstate__()))
    assert state["_poll"] is None


def group_of_two() -> Group:
    stages = (PlannedStage(SplitRows(), "SplitRows"), PlannedStage(Same().with_(batch_size=4), "Same"))
    return Group(stages, Resources())
