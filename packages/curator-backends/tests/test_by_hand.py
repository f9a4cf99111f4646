"""A stage on the user's own Ray dataset: tasks as rows, and no executor."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import stages_for_tests as s

from curator_backends import RayDataStageAdapter, create_actor_from_stage, create_task_from_stage
from curator_core import DocumentBatch, ProcessingStage, Resources, Task, UsageError, WorkerMetadata
from curator_core.errors import PlanError
from curator_core.worker.adapter import BaseStageAdapter

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.ray]
on_ray = pytest.mark.usefixtures("local_ray")


@dataclass
class Pairs(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Records how many tasks arrived together, and where the stage was set up."""

    batch_size = 2

    def setup(self, worker: WorkerMetadata) -> None:
        self._pid = os.getpid()

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return self.process_batch([task])[0]

    def process_batch(self, tasks: list[DocumentBatch]) -> list[DocumentBatch]:
        together = pa.array([len(tasks)])
        return [t.append_column("together", together).append_column("pid", pa.array([self._pid])) for t in tasks]


@dataclass
class Drop(ProcessingStage[DocumentBatch, DocumentBatch]):
    def process(self, task: DocumentBatch) -> DocumentBatch | None:
        return None if task.task_id.endswith("1") else task.with_data(task.data)


def dataset_of(tasks: list[Any]) -> Any:
    return ray.data.from_items(tasks, override_num_blocks=len(tasks))


def test_the_adapter_extends_that_of_core_and_knows_the_size_of_its_batches() -> None:
    adapter = RayDataStageAdapter(s.Plain().with_(batch_size=4))
    assert isinstance(adapter, BaseStageAdapter)
    assert adapter.batch_size == 4


def test_unknown_keys_are_refused_when_the_adapter_is_made() -> None:
    with pytest.raises(UsageError, match=r"'is_actor' for Ray Data.*did you mean 'is_actor_stage'"):
        RayDataStageAdapter(s.Plain().with_(ray_stage_spec={"is_actor": True}))
    with pytest.raises(PlanError, match="is_actor_stage must be true or false"):
        RayDataStageAdapter(s.Plain().with_(ray_stage_spec={"is_actor_stage": "yes"}))


def test_a_stage_on_a_gpu_without_a_batch_size_is_warned_about_when_the_adapter_is_made() -> None:
    on_gpu = s.Plain().with_(resources=Resources(gpus=1))
    with pytest.warns(UserWarning, match="Plain: uses a GPU and names no batch_size; it gets 1 task at a time"):
        assert RayDataStageAdapter(on_gpu).batch_size == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RayDataStageAdapter(on_gpu.with_(batch_size=1))
        RayDataStageAdapter(s.Plain())
        RayDataStageAdapter(Pairs().with_(resources=Resources(gpu_memory_gb=4)))


def test_actors_and_tasks_carry_the_name_of_their_stage() -> None:
    assert create_actor_from_stage(s.Where()).__name__ == "WhereActor"
    assert create_task_from_stage(s.Plain()).__name__ == "PlainTask"


@pytest.mark.slow
@on_ray
def test_rows_are_tasks_before_and_after_the_stage() -> None:
    dataset = dataset_of(s.tasks(2, rows=3))
    dataset = RayDataStageAdapter(s.Rows()).process_dataset(dataset)
    dataset = RayDataStageAdapter(s.Where()).process_dataset(dataset, ignore_head_node=False)
    dataset = RayDataStageAdapter(Drop()).process_dataset(dataset)
    rows = dataset.take_all()
    assert all(set(row) == {"item"} and isinstance(row["item"], Task) for row in rows)
    found = [row["item"] for row in rows]
    names = [f"task-{n:05d}.{i:05d}" for n in range(2) for i in range(3)]
    assert sorted(task.task_id for task in found) == [name for name in names if not name.endswith("1")]
    assert sorted(s.column(found, "id")) == [0, 2, 3, 5]


@pytest.mark.slow
@on_ray
def test_actors_and_tasks_work_in_the_users_own_map_batches() -> None:
    tasks = s.tasks(4)
    made = ray.data.from_items(tasks, override_num_blocks=1).map_batches(
        create_actor_from_stage(Pairs()), batch_size=2, concurrency=1, num_cpus=0.5
    )
    found = [row["item"] for row in made.take_all()]
    assert [task.task_id for task in found] == [task.task_id for task in tasks]
    assert s.column(found, "together") == [2, 2, 2, 2]
    assert len(set(s.column(found, "pid"))) == 1, "one actor, set up once"
    made = dataset_of(tasks).map_batches(create_task_from_stage(Pairs()), batch_size=1)
    assert s.column([row["item"] for row in made.take_all()], "together") == [1, 1, 1, 1]


@pytest.mark.slow
@on_ray
def test_each_child_of_a_fan_out_is_a_block() -> None:
    dataset = RayDataStageAdapter(s.Rows()).process_dataset(dataset_of(s.tasks(1, rows=5)))
    assert dataset.materialize().num_blocks() == 5


@pytest.mark.slow
@on_ray
def test_a_stage_runs_as_an_actor_if_it_keeps_state_and_as_a_task_otherwise() -> None:
    def made_of(stage: Any) -> str:
        return str(RayDataStageAdapter(stage).process_dataset(dataset_of(s.tasks(1))))

    assert "MapBatches(PairsActor)" in made_of(Pairs())
    assert "MapBatches(PlainActor)" in made_of(s.Plain().with_(ray_stage_spec={"is_actor_stage": True}))
    assert "MapBatches(PlainActor)" in made_of(s.Plain().with_(resources=Resources(gpus=1), batch_size=2))
    assert "MapBatches(PlainTask)" in made_of(s.Plain())


@pytest.mark.slow
@on_ray
def test_a_machine_is_set_up_once_for_all_workers_of_a_stage(tmp_path: Path) -> None:
    stage = s.Where(folder=str(tmp_path)).with_(num_workers=2, resources=Resources(cpus=0.4))
    RayDataStageAdapter(stage).process_dataset(dataset_of(s.tasks(6))).take_all()
    (node,) = tmp_path.glob("node-*")
    assert len(node.read_text().split()) == 1


@pytest.mark.slow
@on_ray
def test_the_example_of_the_documentation_runs_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[3] / "docs" / "executors.md").read_text()
    (example,) = list(_examples(text, "RayDataStageAdapter"))
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(example, "docs/executors.md", "exec"), names)
    assert sorted(task.to_pyarrow()["shout"][0].as_py() for task in names["found"]) == ["ONE", "TWO"]


def _examples(text: str, word: str) -> Iterator[str]:
    for block in text.split("```python\n")[1:]:
        code = block.partition("```")[0]
        if word in code:
            yield code
