"""Translates a group into an operator of a Ray dataset, which defines only where and how the group runs."""

from __future__ import annotations

import itertools
from typing import Any

from curator_backends.links import Link
from curator_backends.ray_data.placement import Placement
from curator_backends.ray_data.workers import group_actor, group_task
from curator_backends.worker import Job

_turns = itertools.count()

# How many blocks may be at a GPU worker or on their way to it. Ray Data's default of two means one block in work and
# one waiting, and the driver may take longer to send another than a small block takes to compute. Ray Data itself
# limits how many bytes wait for all workers.
IN_FLIGHT_ON_GPU = 4

# How many tasks may split blocks at the same time if they reserve no CPU. Each takes a process, and a machine with few
# CPUs takes longer to start it than to split the blocks of a short run.
SPLITTING_TASKS = 4
LEAST_SPLITTING_TASKS = 2


def add_group(
    dataset: Any,
    job: Job,
    placement: Placement,
    link: Link,
    tasks_in_flight: int | None = None,
    splitting: int = SPLITTING_TASKS,
) -> Any:
    """The dataset of encoded tasks with a group applied; after a fan-out each task is a block, so that workers share them.
    ``splitting``: see `split_blocks`.
    """
    if placement.max_calls is not None:
        # A worker processes one block per call, so a block has as many tasks as one call takes.
        dataset = split_blocks(dataset, placement.batch_size or 1, splitting)
    make = group_actor if placement.mode == "actor" else group_task
    options = {
        "batch_size": placement.batch_size,
        "batch_format": "pyarrow",
        **operator_options(placement, tasks_in_flight),
    }
    dataset = dataset.map_batches(make(job, link), zero_copy_batch=True, **options)
    return split_blocks(dataset, 1, splitting) if job.group.is_fanout else dataset


def operator_options(placement: Placement, tasks_in_flight: int | None = None) -> dict[str, Any]:
    """The arguments of `map_batches` for a placement, except the batch size. ``tasks_in_flight`` counts blocks for each
    actor.
    """
    options: dict[str, Any] = {"num_cpus": placement.num_cpus, **placement.remote_args}
    if placement.num_gpus:
        options["num_gpus"] = placement.num_gpus
    # Ray Data (2.60) fuses neighbours with equal requests, even a fan-out with its successor, and then one worker does
    # all the work. The plan has already fused all stages that may share a worker. So the requests of neighbours differ
    # slightly in form but mean the same: both numbers are Ray Data's defaults.
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


def splitting_tasks(cpus: float) -> int:
    """How many tasks may split blocks at the same time on a cluster with so many CPUs."""
    return max(LEAST_SPLITTING_TASKS, min(SPLITTING_TASKS, int(cpus)))


def split_blocks(dataset: Any, rows: int, most: int = SPLITTING_TASKS) -> Any:
    """Split into blocks of ``rows`` tasks. The operator before it does the splitting if it can; otherwise the splitting
    reserves no CPU, and takes at most so many tasks at the same time.

    By default, the splitting requests one CPU, and Ray Data fuses it with the operator before it only if that operator
    requests one CPU and nothing else. A separate splitting would then never run on a machine that is full of actors.
    Without a CPU request, only the limit set here keeps Ray from starting a process for each block.
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
                object.__setattr__(splitting, "compute", _task_pool(most))
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
