"""The placement of groups on Ray Data: a plain function decides, so no cluster is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_backends.cluster import Cluster, Node
from curator_backends.ray_data.placement import FIRST_WORKERS, Placement, describe_group, place, start_no_more
from curator_core.errors import PlanError, UsageError
from curator_core.model.engine_facts import RayStageSpecKeys, WorkerMetadata
from curator_core.model.resources import Resources
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch
from curator_core.planning.plan import Group, PlannedStage
from curator_core.testing.stages import SplitRows


@dataclass
class Plain(ProcessingStage[DocumentBatch, DocumentBatch]):
    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task


@dataclass
class Loaded(Plain):
    def setup(self, worker: WorkerMetadata) -> None:
        self.model = 1


@dataclass
class TidiesUp(Plain):
    def teardown(self) -> None:
        self.model = None


def group_of(stage: Any) -> Group:
    return Group((PlannedStage(stage, stage.name),), stage.resources, stage.num_workers())


def nodes(
    *cpus_and_gpus: tuple[float, float], memory: float | None = 80.0, avoid: str | None = None, ours: bool = False
) -> Cluster:
    found = [Node(f"node-{n}", n == 0, cpus, gpus, 64.0) for n, (cpus, gpus) in enumerate(cpus_and_gpus)]
    return Cluster(tuple(found), ours, "the cluster", avoid, memory)


def group(stage: ProcessingStage[Any, Any], **settings: Any) -> Group:
    return group_of(stage.with_(**settings) if settings else stage)


def spec(**facts: Any) -> Mapping[str, Any]:
    return facts


def test_a_plain_stage_runs_as_many_tasks_as_there_is_room_for() -> None:
    (placement,), notes = place([group(Plain())], nodes((8, 0)))
    assert (placement.mode, placement.max_workers, placement.num_cpus) == ("task", None, 1.0)
    assert notes == []


@pytest.mark.parametrize(
    "stage",
    [
        Loaded(),
        TidiesUp(),
        Plain().with_(resources=Resources(gpus=1)),
        Plain().with_(ray_stage_spec=spec(is_actor_stage=True)),
    ],
    ids=["setup", "teardown", "gpu", "by its fact"],
)
def test_a_stage_with_state_is_an_actor(stage: ProcessingStage[Any, Any]) -> None:
    assert describe_group(group_of(stage), 80.0)[0].mode == "actor"


def test_the_explicit_key_takes_precedence_over_the_class_of_the_stage() -> None:
    assert describe_group(group(Loaded(), ray_stage_spec=spec(is_actor_stage=False)), None)[0].mode == "task"


def test_actors_leave_cpus_for_the_tasks_before_them() -> None:
    (reader, model), _ = place([group(Plain()), group(Loaded())], nodes((16, 0)))
    assert reader.num_cpus == 1.0
    assert model.max_workers is not None
    assert model.max_workers * model.num_cpus + reader.num_cpus <= 16


def test_a_pool_may_have_two_workers_even_on_two_cpus() -> None:
    (reader, model), _ = place([group(Plain()), group(Loaded())], nodes((2, 0)))
    assert model.max_workers == 2
    assert 2 * model.num_cpus + reader.num_cpus <= 2.0


def test_on_a_local_ray_a_pool_starts_with_all_its_workers_up_to_eight() -> None:
    (_, model), _ = place([group(Plain()), group(Loaded())], nodes((4, 0), ours=True))
    assert model.initial_workers == model.max_workers == 3
    (_, model), _ = place([group(Plain()), group(Loaded())], nodes((64, 0), ours=True))
    assert (model.initial_workers, model.max_workers) == (FIRST_WORKERS, 63)


def test_pools_on_several_nodes_or_beside_other_pools_start_with_one_worker() -> None:
    groups = [group(Loaded(), resources=Resources(cpus=2)) for _ in range(3)]
    for cluster in (nodes((3, 0), (3, 0), (3, 0), (3, 0), ours=True), nodes((12, 0))):
        placements, _ = place(groups, cluster)
        assert [placement.initial_workers for placement in placements] == [None] * 3


def test_before_a_fan_out_there_are_no_more_workers_than_sources() -> None:
    groups = [group(Loaded()), group(SplitRows()), group(Loaded()), group(Loaded(), resources=Resources(gpus=1))]
    placements, _ = place(groups, nodes((64, 4), ours=True))
    first, _, behind, gpu = start_no_more(placements, groups, sources=2)
    assert first.initial_workers == 2
    assert behind.initial_workers == placements[2].initial_workers == FIRST_WORKERS
    assert gpu.initial_workers == 4
    asked = [group(Loaded(), ray_stage_spec={"initial_workers": 5})]
    (placement,) = start_no_more(place(asked, nodes((64, 0), ours=True))[0], asked, sources=2)
    assert placement.initial_workers == 5


def test_a_number_of_workers_is_a_fixed_pool() -> None:
    ((placement,), _) = place([group(Loaded(), num_workers=3)], nodes((8, 0)))
    assert placement.fixed
    assert placement.max_workers == 3


@given(
    cpus=st.integers(1, 64),
    stages=st.lists(
        st.tuples(st.booleans(), st.sampled_from([0.25, 1.0, 2.0, 7.0]), st.none() | st.integers(1, 5)),
        min_size=1,
        max_size=9,
    ),
)
def test_with_any_requests_all_groups_can_start_and_tasks_can_run(
    cpus: int, stages: list[tuple[bool, float, int | None]]
) -> None:
    groups = [
        group(Loaded() if actor else Plain(), resources=Resources(cpus=need), num_workers=workers)
        for actor, need, workers in stages
    ]
    placements, _ = place(groups, nodes((cpus, 0), ours=True))
    actors = [p for p in placements if p.mode == "actor"]
    tasks = [p.num_cpus for p in placements if p.mode == "task"]
    held = sum((p.min_workers or 1) * p.num_cpus for p in actors)
    grown = sum((p.max_workers or 1) * p.num_cpus for p in actors)
    started = sum((p.initial_workers or p.min_workers or 1) * p.num_cpus for p in actors)
    assert held + max(tasks, default=0.0) <= cpus + 1e-6
    assert started + max(tasks, default=0.0) <= cpus + 1e-6, "a pool that starts first leaves none for another"
    if tasks:
        assert grown + max(tasks) <= cpus + 1e-6, "pools that grow to their limit leave no CPU for a task"


def test_eight_stages_on_two_cpus_are_scaled_down_and_the_plan_says_so() -> None:
    groups = [group(Loaded()) for _ in range(8)]
    placements, notes = place(groups, nodes((2, 0)))
    assert all(placement.num_cpus == 0.25 for placement in placements)
    assert notes == ["8 groups ask for 8 CPUs at once, the cluster has 2: CPU requests scaled by 0.25"]


def test_part_of_a_gpu_is_a_share_above_zero() -> None:
    wish = group(Plain(), resources=Resources(gpu_memory_gb=3))
    (placement,), _ = place([wish], nodes((8, 2)))
    assert placement.num_gpus == pytest.approx(0.038)
    assert placement.max_workers == 8, "two GPUs hold 52 workers, but there are 8 CPUs for them"


def test_gpu_workers_start_at_once() -> None:
    (placement,), _ = place([group(Plain(), resources=Resources(gpus=1))], nodes((32, 4)))
    assert placement.initial_workers == placement.max_workers == 4


def test_workers_that_need_no_gpu_may_use_nodes_without_one() -> None:
    groups = [group(Plain()), group(Plain(), resources=Resources(gpus=1))]
    (reader, model), _ = place(groups, nodes((4, 0), (4, 2)))
    assert reader.num_gpus == 0.0
    assert model.max_workers == 2


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        (Resources(gpus=1.5), "whole numbers only"),
        (Resources(gpus=4), "the most has 2"),
    ],
)
def test_unavailable_gpus_are_refused_before_anything_starts(resources: Resources, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        place([group(Plain(), resources=resources)], nodes((8, 2), (8, 2)))


def test_groups_that_hold_more_gpus_than_exist_are_refused_by_name() -> None:
    groups = [group(Plain(), resources=Resources(gpus=1)), group(Loaded(), resources=Resources(gpus=1))]
    with pytest.raises(PlanError, match=r"'Plain' and 'Loaded' hold 2 GPUs at once"):
        place(groups, nodes((8, 1)))


def test_gpu_memory_is_refused_if_no_gpu_is_known() -> None:
    with pytest.raises(PlanError, match="not known"):
        place([group(Plain(), resources=Resources(gpu_memory_gb=4))], nodes((8, 1), memory=None))


def test_an_unknown_key_is_refused_and_the_valid_ones_are_listed() -> None:
    with pytest.raises(UsageError, match=r"'max_callz'.*did you mean 'max_calls_per_worker'.*is_actor_stage"):
        describe_group(group(Plain(), ray_stage_spec={"max_callz": 2}), None)


@pytest.mark.parametrize(
    ("stage", "facts", "says"),
    [
        (Plain(), {"min_workers": 2}, "as Ray tasks"),
        (Loaded(), {"max_calls_per_worker": 2}, "honours for tasks only"),
        (Loaded(), {"min_workers": 3, "max_workers": 2}, "must rise"),
        (Loaded(), {"min_workers": 1, "initial_workers": 4, "max_workers": 2}, "must rise"),
        (Loaded(), {"min_workers": 0}, "1 or more"),
        (Loaded().with_(num_workers=2), {"max_workers": 4}, "keep one of them"),
        (Plain(), {"ray_num_cpus": -1}, "zero or more"),
        (Plain(), {"ray_remote_args": {"num_cpus": 2}}, "must not name num_cpus"),
        (Plain(), {"ray_remote_args": 3}, "must be a mapping"),
        (Plain(), {"is_actor_stage": "yes"}, "true or false"),
        (Plain().with_(runtime_env={"pip": ["a"]}), {"runtime_env": {"pip": ["b"]}}, "keep one"),
    ],
)
def test_a_key_that_cannot_be_applied_is_refused(
    stage: ProcessingStage[Any, Any], facts: dict[str, Any], says: str
) -> None:
    with pytest.raises(PlanError, match=says):
        describe_group(group_of(stage.with_(ray_stage_spec=facts)), None)


def test_every_key_reaches_ray() -> None:
    facts = {
        RayStageSpecKeys.IS_ACTOR_STAGE: True,
        RayStageSpecKeys.MIN_WORKERS: 2,
        RayStageSpecKeys.INITIAL_WORKERS: 3,
        RayStageSpecKeys.MAX_WORKERS: 4,
        RayStageSpecKeys.RAY_NUM_CPUS: 0.5,
        RayStageSpecKeys.RAY_REMOTE_ARGS: {"memory": 5},
        RayStageSpecKeys.RUNTIME_ENV: {"env_vars": {"A": "1"}},
    }
    placement, _ = describe_group(group(Plain(), ray_stage_spec=facts), None)
    assert (placement.min_workers, placement.initial_workers, placement.max_workers) == (2, 3, 4)
    assert placement.num_cpus == 0.5
    assert placement.remote_args == {"memory": 5, "runtime_env": {"env_vars": {"A": "1"}}}
    calls, _ = describe_group(group(Plain(), ray_stage_spec={"max_calls_per_worker": 2}), None)
    assert (calls.max_calls, calls.batch_size) == (2, 1)


def test_every_key_has_a_test_above() -> None:
    assert {str(key) for key in RayStageSpecKeys} == {
        "is_fanout_stage",
        "is_actor_stage",
        "min_workers",
        "max_workers",
        "initial_workers",
        "max_calls_per_worker",
        "ray_num_cpus",
        "ray_remote_args",
        "runtime_env",
    }


def test_a_gpu_stage_with_no_batch_size_gets_one_and_a_warning() -> None:
    stage = Plain().with_(resources=Resources(gpus=1))
    object.__setattr__(stage, "batch_size", None)
    from curator_core.planning.plan import PlannedStage

    placement, warnings = describe_group(Group((PlannedStage(stage, "Plain"),), stage.resources), 80.0)
    assert placement.batch_size == 1
    assert warnings == ["Plain: uses a GPU and names no batch_size; it gets 1 task at a time"]


def test_the_head_node_is_avoided_by_every_worker() -> None:
    (placement,), _ = place([group(Plain())], nodes((4, 0), avoid="head-id"))
    assert placement.remote_args == {"label_selector": {"ray.io/node-id": "!head-id"}}


@pytest.mark.ray
def test_a_gpu_worker_has_more_blocks_on_their_way() -> None:
    pytest.importorskip("ray.data")
    from curator_backends.ray_data.operators import operator_options

    def in_flight(gpus: float, asked: int | None = None, most: int | None = None) -> int | None:
        placement = Placement(mode="actor", num_cpus=1, num_gpus=gpus, min_workers=most, max_workers=most)
        number: int | None = operator_options(placement, asked)["compute"].max_tasks_in_flight_per_actor
        return number

    assert (in_flight(1.0), in_flight(1.0, most=2), in_flight(1.0, asked=7)) == (4, 4, 7)
    assert (in_flight(0.0), in_flight(0.0, asked=7)) == (None, 7), "Ray Data's own number where there is no GPU"
