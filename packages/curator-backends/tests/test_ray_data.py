"""The dataset that Ray Data gets, and the plan that it makes."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stages_for_tests as s

from curator_backends.cluster import Cluster, Node
from curator_backends.links import WorkerLink
from curator_backends.ray_data import RayDataExecutor
from curator_backends.ray_data.operators import SPLITTING_TASKS, add_group, split_blocks, splitting_tasks
from curator_backends.ray_data.placement import place
from curator_backends.ray_data.source import source_dataset
from curator_backends.supervisor import Stalled
from curator_backends.transport import encode
from curator_backends.worker import Job
from curator_core.model.resources import Resources
from curator_core.pipeline import Pipeline
from curator_core.planning.make import make_plan
from curator_core.testing.waiting import wait_for
from curator_core.worker.context import RunContext

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("local_ray")]


def operators(dataset: Any) -> list[str]:
    """The names of a dataset's physical operators, from the input on."""
    from ray.data._internal.logical.optimizers import get_execution_plan

    plan = get_execution_plan(dataset._logical_plan)
    plan = plan[0] if isinstance(plan, tuple) else plan
    names = []
    operator = plan.dag
    while operator is not None:
        names.append(operator.name)
        operator = operator.input_dependencies[0] if operator.input_dependencies else None
    return names[::-1]


def dataset_of(tasks: list[Any]) -> Any:
    return ray.data.from_blocks([encode([task]) for task in tasks])


def test_the_plan_of_a_pipeline_reads_like_the_pipeline() -> None:
    stages = [s.Plain(), s.Rows(), s.Where(), s.Plain().with_(resources=Resources(gpus=1)), s.Plain()]
    plan = make_plan(stages, RayDataExecutor().machine().__class__(cpus=4, gpus=2), first_task=type(s.tasks(1)[0]))
    dataset = dataset_of(s.tasks(2))
    placements, _ = place(plan.segments[0].groups, Cluster((Node("n", True, 4, 2, 16.0),), True, "a local Ray"))
    for index, group in enumerate(plan.segments[0].groups):
        dataset = add_group(dataset, Job("", index, group, RunContext()), placements[index], WorkerLink(""))
    assert operators(dataset) == [
        "Input",
        "MapBatches(Plain+RowsTask)->StreamingRepartition[num_rows_per_block=1,strict=False]",
        "MapBatches(WhereActor)",
        "MapBatches(PlainActor)",
        "MapBatches(PlainTask)",
    ]


def test_workers_with_half_a_gpu_each_compute_on_the_device_that_ray_assigned(tmp_path: Path) -> None:
    stage = s.Where(meet=str(tmp_path)).with_(resources=Resources(cpus=0.4, gpu_memory_gb=10), num_workers=3)
    result = Pipeline([stage]).run(RayDataExecutor(gpu_memory_gb=20.0), initial_tasks=s.tasks(24))
    seen = {(pid, devices, tuple(gpus)) for pid, devices, gpus in _places(result)}
    assert {devices for _, devices, _ in seen} == {"0", "1"}
    assert all(gpus == (int(devices),) for _, devices, gpus in seen)


def test_a_worker_can_have_two_gpus() -> None:
    stage = s.Where().with_(resources=Resources(cpus=0.5, gpus=2))
    result = Pipeline([stage]).run(RayDataExecutor(), initial_tasks=s.tasks(4))
    assert {(devices, tuple(gpus)) for _, devices, gpus in _places(result)} == {("0,1", (0, 1))}


def _places(result: Any) -> list[Any]:
    return list(zip(s.column(result, "pid"), s.column(result, "devices"), s.column(result, "gpus"), strict=True))


def test_a_long_listing_is_processed_lazily_and_completely() -> None:
    result = Pipeline([s.Many(count=2500), s.Passed()]).run(RayDataExecutor())
    assert [task.task_id for task in result] == [f"s-{n:07d}" for n in range(2500)]


def test_the_task_that_asks_for_sources_also_splits_them() -> None:
    dataset = split_blocks(source_dataset(WorkerLink(""), {}), 64)
    assert operators(dataset) == [
        "Input",
        "MapBatches(Sources)->StreamingRepartition[num_rows_per_block=64,strict=False]",
    ]


def test_splitting_without_listing_is_done_by_a_few_tasks() -> None:
    dataset = split_blocks(dataset_of(s.tasks(2)), 1)
    operator = dataset._logical_plan.dag
    assert (operator.ray_remote_args["num_cpus"], operator.compute.size) == (0, SPLITTING_TASKS)
    assert [splitting_tasks(cpus) for cpus in (0.5, 2, 3, 64)] == [2, 2, 3, SPLITTING_TASKS]


def test_work_begins_while_the_driver_is_still_listing(tmp_path: Path) -> None:
    listing = s.ManyWaiting(count=6000, until=5000, folder=str(tmp_path))
    assert len(Pipeline([listing, s.Passed(folder=str(tmp_path))]).run(RayDataExecutor())) == 6000


@contextlib.contextmanager
def both_cpus_held() -> Iterator[Callable[[], None]]:
    """The effects of another job on a run: it has reserved both CPUs. Yields a function that gives them back."""
    from ray.util import placement_group, remove_placement_group

    held = placement_group([{"CPU": 2}])
    assert held.wait(60)
    try:
        yield lambda: remove_placement_group(held)
    finally:
        remove_placement_group(held)


def test_a_run_waits_behind_another_job_up_to_its_limit_and_says_for_what() -> None:
    with (
        both_cpus_held(),
        pytest.raises(Stalled, match=r"longer than wait_for_resources_s.*Where 1 CPU.*0 CPUs.*Other jobs hold 2 CPUs"),
    ):
        Pipeline([s.Where()]).run(
            RayDataExecutor(stall_timeout_s=0.5, wait_for_resources_s=1.0), initial_tasks=s.tasks(2)
        )


def test_a_run_that_is_queued_behind_another_job_is_not_stalled(caplog: pytest.LogCaptureFixture) -> None:
    with both_cpus_held() as release:

        def leave() -> None:
            wait_for(
                lambda: "waiting for resources that other jobs hold" in caplog.text, "the run says that it waits", 120
            )
            release()

        other = threading.Thread(target=leave)
        other.start()
        result = Pipeline([s.Where()]).run(RayDataExecutor(stall_timeout_s=6.0), initial_tasks=s.tasks(2))
        other.join()
    assert len(result) == 2


def test_an_existing_connection_is_not_closed() -> None:
    Pipeline([s.Plain()]).run(RayDataExecutor(), initial_tasks=s.tasks(1))
    assert ray.is_initialized()
    assert ray.cluster_resources()["CPU"] == 2


def test_nothing_is_left_on_the_node_after_a_run(tmp_path: Path) -> None:
    def marks() -> set[Path]:
        # Compare names of nodes, because other tests may use this machine.
        return set(Path(tempfile.gettempdir()).glob(f"curator-*/{ray.get_runtime_context().get_node_id()}*"))

    before = marks()
    Pipeline([s.Where(folder=str(tmp_path))]).run(RayDataExecutor(), initial_tasks=s.tasks(2))
    assert list(tmp_path.glob("node-*")), "the node was to be set up"
    assert marks() <= before


def test_a_stage_that_keeps_an_exception_is_torn_down_before_the_run_ends(tmp_path: Path) -> None:
    result = Pipeline([s.KeepsAnException(folder=str(tmp_path))]).run(RayDataExecutor(), initial_tasks=s.tasks(2))
    assert len(result.tasks) == 2
    assert list(tmp_path.glob("down-*"))


class Starts:
    """Starts when there is a file ``go``; leaves a file when it is torn down, after Ray could have killed it."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        (self.folder / "starts").touch()
        wait_for((self.folder / "go").exists, "nothing lets the actor start")

    def __ray_shutdown__(self) -> None:
        wait_for((self.folder / "end").exists, "nothing lets the actor end")
        (self.folder / "down").touch()


def test_an_actor_that_is_not_needed_any_more_is_torn_down_when_it_has_started(tmp_path: Path) -> None:
    from curator_backends.ray_data.guard import StartingActors

    starting = StartingActors()
    actor = ray.remote(Starts).options(num_cpus=0).remote(str(tmp_path))
    starting.add(actor)
    wait_for((tmp_path / "starts").exists, "the actor does not start")
    del actor
    starting.release()
    assert starting._actors, "an actor is let go while it starts, and Ray kills it"
    (tmp_path / "go").touch()
    wait_for(lambda: starting.release() or not starting._actors, "the actor is not let go")
    (tmp_path / "end").touch()
    wait_for((tmp_path / "down").exists, "the actor was killed before its teardown")


class FailsToStart:
    def __init__(self, folder: str) -> None:
        wait_for((Path(folder) / "go").exists, "nothing lets the actor start")
        raise FileNotFoundError("the run has ended")


def test_an_actor_that_fails_to_start_when_the_run_has_ended_is_let_go_without_a_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from curator_backends.ray_data.guard import StartingActors

    starting = StartingActors()
    # Ray Data sets these options.
    starting.add(
        ray.remote(FailsToStart).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote(str(tmp_path))
    )
    (tmp_path / "go").touch()
    wait_for(lambda: starting.release() or not starting._actors, "its call is repeated, and Ray prints each error")
    assert "run has ended" not in "".join(capfd.readouterr())


def test_a_run_keeps_the_actors_that_it_starts_until_they_have_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """It finds them under private names of Ray Data, and would keep none if these changed."""
    from curator_backends.ray_data.guard import StartingActors

    kept: list[Any] = []
    add = StartingActors.add
    monkeypatch.setattr(StartingActors, "add", lambda starting, actor: kept.append(starting) or add(starting, actor))
    stage = s.Where().with_(num_workers=1)  # in an actor
    assert len(Pipeline([stage]).run(RayDataExecutor(), initial_tasks=s.tasks(2))) == 2
    assert kept, "no actor was kept while it started"
    assert not kept[0]._actors, "all are let go when the run has ended"
