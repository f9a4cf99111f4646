"""Translates a group into an operator of a Ray dataset: where and how it runs, and nothing else."""

from __future__ import annotations

import itertools
from typing import Any

from curator_backends.links import Link
from curator_backends.ray_data.placement import Placement
from curator_backends.ray_data.workers import group_actor, group_task
from curator_backends.worker import Job

_turns = itertools.count()

# Blocks that are at a worker on a GPU or on their way to it. Ray Data's own two are the block that is being computed
# and one more, and the driver may take longer to send another than a small block takes to compute. Ray Data itself
# limits how many bytes wait for all workers.
IN_FLIGHT_ON_GPU = 4

# How many tasks may split blocks at the same time where they hold no CPU.
SPLITTING_TASKS = 4


def add_group(dataset: Any, job: Job, placement: Placement, link: Link, tasks_in_flight: int | None = None) -> Any:
    """The dataset of encoded tasks with a group applied; after a fan-out each task is a block, so that workers share them."""
    if placement.max_calls is not None:
        # A worker is called with a block, so a block has as many tasks as one call takes.
        dataset = split_blocks(dataset, placement.batch_size or 1)
    make = group_actor if placement.mode == "actor" else group_task
    options = {
        "batch_size": placement.batch_size,
        "batch_format": "pyarrow",
        **operator_options(placement, tasks_in_flight),
    }
    dataset = dataset.map_batches(make(job, link), zero_copy_batch=True, **options)
    return split_blocks(dataset, 1) if job.group.is_fanout else dataset


def operator_options(placement: Placement, tasks_in_flight: int | None = None) -> dict[str, Any]:
    """The arguments of `map_batches` for a placement, except for the batch size. ``tasks_in_flight`` is for each
    actor.
    """
    options: dict[str, Any] = {"num_cpus": placement.num_cpus, **placement.remote_args}
    if placement.num_gpus:
        options["num_gpus"] = placement.num_gpus
    # Ray Data (2.60) fuses neighbours with equal requests, even a fan-out with its successor, and then one worker does
    # it all. The plan has already fused whatever may share a worker. So neighbours get requests that differ slightly in
    # form and mean the same: both numbers are Ray Data's own.
    if placement.mode == "actor":
        options.setdefault("max_restarts", -1)
        options["compute"] = _actor_pool(placement, tasks_in_flight)
        return options
    if next(_turns) % 2:
        options.setdefault("max_retries", -1)
    options["compute"] = _task_pool(placement.max_workers)
    if placement.max_calls is not None:
        options["max_calls"] = placement.max_calls
    return options


def split_blocks(dataset: Any, rows: int) -> Any:
    """Blocks of ``rows`` tasks. The tasks before it do the splitting where they can; otherwise it holds no CPU.

    Ray Data gives the splitting a CPU of its own, and fuses it with the operator before it only if that requests one
    CPU and nothing else. On a machine that actors have filled, a separate splitting then never runs. Where it holds no
    CPU, nothing else would keep Ray from starting a process for each block.
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
                object.__setattr__(splitting, "compute", _task_pool(SPLITTING_TASKS))
    return dataset


def _actor_pool(placement: Placement, tasks_in_flight: int | None) -> Any:
    from ray.data import ActorPoolStrategy

    in_flight = IN_FLIGHT_ON_GPU if placement.num_gpus and not tasks_in_flight else tasks_in_flight
    if placement.fixed:
        return ActorPoolStrategy(size=placement.max_workers, max_tasks_in_flight_per_actor=in_flight)
    low = placement.min_workers or 1
    return ActorPoolStrategy(
        min_size=low,
        max_size=placement.max_workers,
        initial_size=max(low, placement.initial_workers or low),
        max_tasks_in_flight_per_actor=in_flight,
    )


def _task_pool(tasks: int | None) -> Any:
    from ray.data import TaskPoolStrategy

    return TaskPoolStrategy(size=tasks)
