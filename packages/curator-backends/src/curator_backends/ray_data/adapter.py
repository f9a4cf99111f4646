"""A group as an operator of a Ray dataset: the translation, and nothing else. What runs a stage is core's adapter."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from curator_backends.cluster import Cluster, look
from curator_backends.naming import group_label
from curator_backends.options import RayOptions
from curator_backends.ray_data.placement import Placement, place
from curator_backends.transport import decode, encode_stream
from curator_backends.worker import GroupWorker, Job
from curator_core.accounts.ledger import MemorySink
from curator_core.model.stage import ProcessingStage, overrides
from curator_core.planning.plan import Group, PlannedStage
from curator_core.worker.adapter import BaseStageAdapter
from curator_core.worker.context import RunContext

Stage = ProcessingStage[Any, Any]

_turns = itertools.count()

# Tasks that split blocks at the same time, where no CPU is held for them.
SPLITTING_TASKS = 4


class RayDataStageAdapter(BaseStageAdapter):
    """Adds a stage, or a group of fused stages, to a dataset whose rows are tasks in the column ``item``."""

    def __init__(
        self,
        stage: Stage | Group,
        context: RunContext | None = None,
        *,
        job: Job | None = None,
        placement: Placement | None = None,
        coordinator: Any = None,
    ) -> None:
        """By itself a stage will do; an executor brings the ``job``, where it is placed, and the run's coordinator."""
        self.group = group = stage if isinstance(stage, Group) else group_of(stage)
        self.job = job or Job("", 0, group, context or RunContext())
        super().__init__(group.stages[0], self.job.context, MemorySink())
        self.placement = placement
        self.coordinator = coordinator

    def process_dataset(self, dataset: Any, ignore_head_node: bool = False) -> Any:
        """The dataset with the group applied; after a fan-out each task is a block, so that workers share them."""
        placement = self.placement or self._place(ignore_head_node)
        if placement.max_calls is not None:
            # A call of a worker is a block: as many tasks to a block as one call takes.
            dataset = split_blocks(dataset, placement.batch_size or 1)
        options: dict[str, Any] = {
            "batch_size": placement.batch_size,
            "batch_format": "pyarrow",
            "zero_copy_batch": True,
            "num_cpus": placement.num_cpus,
            **placement.remote_args,
        }
        if placement.num_gpus:
            options["num_gpus"] = placement.num_gpus
        # Ray Data fuses neighbours that ask for the same, a fan-out with what comes after it included (2.60), and then one
        # worker does it all. What may share a worker the plan has fused already. So no two neighbours say quite the
        # same, though they mean it: both numbers are Ray Data's own.
        if placement.mode == "actor":
            options.setdefault("max_restarts", -1)
        elif next(_turns) % 2:
            options.setdefault("max_retries", -1)
        if placement.mode == "actor":
            options["compute"] = _actor_pool(placement)
            worker: Any = _make_actor(self.job, self.coordinator)
        else:
            options["compute"] = _at_once(placement.max_workers)
            if placement.max_calls is not None:
                options["max_calls"] = placement.max_calls
            worker = _make_task(self.job, self.coordinator)
        dataset = dataset.map_batches(worker, **options)
        if self.group.is_fanout:
            dataset = split_blocks(dataset, 1)
        return dataset

    def _place(self, ignore_head_node: bool) -> Placement:
        cluster: Cluster = look(RayOptions(ignore_head_node=ignore_head_node), ours=False)
        placements, notes = place([self.group], cluster)
        for note in notes:
            warnings.warn(note, stacklevel=3)
        return placements[0]


def split_blocks(dataset: Any, rows: int) -> Any:
    """Blocks of ``rows`` tasks. The splitting is done by the tasks before it where it can be, and holds no CPU otherwise.

    Ray Data gives the splitting a CPU of its own, and fuses it with what is before it only if that asks for one CPU and
    nothing else. On a machine that actors have filled it then never runs. Where it holds none, nothing would keep Ray
    from starting a process for each block.
    """
    before = getattr(getattr(dataset, "_logical_plan", None), "dag", None)
    dataset = dataset.repartition(target_num_rows_per_block=rows)
    splitting = getattr(getattr(dataset, "_logical_plan", None), "dag", None)
    asked = getattr(splitting, "ray_remote_args", None)
    if isinstance(asked, dict):
        theirs = getattr(before, "ray_remote_args", None) or {}
        if "TaskPool" in type(getattr(before, "compute", None)).__name__ and "Map" in type(before).__name__:
            asked.update(theirs)
        else:
            asked.update({"num_cpus": 0}, **{key: theirs[key] for key in ("label_selector",) if key in theirs})
            if hasattr(splitting, "compute"):
                object.__setattr__(splitting, "compute", _at_once(SPLITTING_TASKS))
    return dataset


def create_actor_from_stage(stage: Stage | Group) -> type:
    """A class for ``map_batches`` that keeps the stage set up, named after it: ``MyStage`` makes ``MyStageActor``."""
    return _make_actor(_job_of(stage), None)


def create_task_from_stage(stage: Stage | Group) -> Callable[[pa.Table], Iterator[pa.Table]]:
    """A function for ``map_batches``, named after the stage: ``MyStage`` makes ``MyStageTask``."""
    return _make_task(_job_of(stage), None)


def group_of(stage: Stage) -> Group:
    """A stage as a group of its own."""
    if not stage.batch_size:
        stage = stage.with_(batch_size=1)
    return Group((PlannedStage(stage, stage.name),), stage.resources, stage.num_workers())


def _job_of(stage: Stage | Group) -> Job:
    return Job("", 0, stage if isinstance(stage, Group) else group_of(stage), RunContext())


def _actor_pool(placement: Placement) -> Any:
    from ray.data import ActorPoolStrategy

    if placement.fixed:
        return ActorPoolStrategy(size=placement.max_workers)
    low = placement.min_workers or 1
    return ActorPoolStrategy(
        min_size=low, max_size=placement.max_workers, initial_size=max(low, placement.initial_workers or low)
    )


def _at_once(tasks: int | None) -> Any:
    from ray.data import TaskPoolStrategy

    return TaskPoolStrategy(size=tasks)


# In the worker ---------------------------------------------------------------------------------------------------------


def _make_actor(job: Job, coordinator: Any) -> type:
    name = f"{group_label(job.group)}Actor"

    def __init__(self: Any) -> None:  # noqa: N807
        self._worker = _start_worker(job, coordinator)

    def __call__(self: Any, batch: pa.Table) -> Iterator[pa.Table]:  # noqa: N807
        try:
            yield from encode_stream(self._worker.run(decode(batch)))
        except Exception:
            # The run is over, and the error's frames keep this object alive past the end of the actor.
            self._worker.close()
            raise

    def __del__(self: Any) -> None:  # noqa: N807
        # Ray Data drops the object when the pool lets the actor go: the only end that an actor hears of.
        worker = self.__dict__.pop("_worker", None)
        if worker is not None:
            worker.close()

    return type(name, (), {"__init__": __init__, "__call__": __call__, "__del__": __del__, "__module__": __name__})


def _make_task(job: Job, coordinator: Any) -> Callable[[pa.Table], Iterator[pa.Table]]:
    # Where somebody insists on tasks for a stage with a setup, every call sets up and tears down.
    stateful = any(overrides(planned.stage, hook) for planned in job.group.stages for hook in ("setup", "teardown"))

    def work(batch: pa.Table) -> Iterator[pa.Table]:
        worker = _start_worker(job, coordinator) if stateful else _kept_worker(job, coordinator)
        try:
            yield from encode_stream(worker.run(decode(batch)))
        finally:
            if stateful:
                worker.close()

    work.__name__ = work.__qualname__ = f"{group_label(job.group)}Task"
    return work


_kept: dict[tuple[str, int], GroupWorker] = {}


def _kept_worker(job: Job, coordinator: Any) -> GroupWorker:
    """The worker of a stateless group in this process; made once, since a process serves many calls."""
    if not job.token:
        return _start_worker(job, coordinator)
    worker = _kept.get((job.token, job.index))
    if worker is None:
        for key in [key for key in _kept if key[0] != job.token]:
            _kept.pop(key).close()
        worker = _kept[job.token, job.index] = _start_worker(job, coordinator, closes=False)
    return worker


def _start_worker(job: Job, coordinator: Any, closes: bool = True) -> GroupWorker:
    import ray

    context = ray.get_runtime_context()
    gpus = context.get_accelerator_ids().get("GPU", [])
    if gpus and not os.environ.get("CUDA_VISIBLE_DEVICES"):
        # A cluster that was started for Xenna leaves this to whoever places workers.
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return GroupWorker(
        job,
        coordinator,
        worker_id=context.get_actor_id() or context.get_worker_id(),
        node_id=context.get_node_id(),
        gpus=[int(gpu) for gpu in gpus if str(gpu).isdigit()],
        closes=closes,
    )
