"""Starts datasets without the actors that Ray Data uses for a dashboard, a node autoscaler, usage statistics and larger
clusters.

These actors are useless on a local Ray that we start, and each is a process. They start with the first dataset and take
CPU time that its workers need. This module imports Ray Data, so it is imported when a run starts.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

import ray
from ray.data._internal import stats
from ray.data._internal.execution import streaming_executor
from ray.data._internal.execution.interfaces.execution_options import ExecutionResources
from ray.data._internal.execution.operators import actor_pool_map_operator

from curator_backends.environment import environment
from curator_backends.minimal import NULL_ACTOR, replaced

# How many tasks Ray gets for each CPU: one that runs, and one that waits.
TASKS_PER_CPU = 2.0


@contextlib.contextmanager
def no_services(minimal: bool, tasks_only: bool = False) -> Iterator[None]:
    """For the length of a ``with`` block, datasets start only their own actors. ``tasks_only`` says that they have no
    actors.

    Attributes of Ray Data are replaced by name: a Ray version with other names starts its actors, and still works.
    """
    if not minimal:
        yield
        return
    with (
        environment({"RAY_DATA_USAGE_DISABLED": "1"}),
        replaced(
            (stats, "get_or_create_stats_actor", lambda: NULL_ACTOR),
            (stats._StatsManager, "gen_dataset_id_from_stats_actor", staticmethod(lambda: uuid.uuid4().hex)),
            (streaming_executor, "create_cluster_autoscaler", lambda *_, **__: _FixedCluster(tasks_only)),
            # There is only one machine, so actors never change their location.
            (actor_pool_map_operator, "get_or_create_actor_location_tracker", lambda: NULL_ACTOR),
            (actor_pool_map_operator, "get_actor_locations", lambda _: {}),
        ),
    ):
        yield


class _FixedCluster:
    """A cluster of fixed size; Ray Data's own class uses an actor that requests more machines."""

    def __init__(self, tasks_only: bool) -> None:
        total = ExecutionResources.from_resource_dict(ray.cluster_resources())
        # If Ray gets only as many tasks as CPUs, the CPU of a finished task is idle until the driver hands out another.
        # So Ray gets more tasks than it can run at once. This is not done for actors: they would wait for CPUs that do
        # not exist.
        self._total = total.copy(cpu=total.cpu * TASKS_PER_CPU) if tasks_only else total

    def try_trigger_scaling(self) -> None:
        pass

    def on_executor_shutdown(self) -> None:
        pass

    def get_total_resources(self) -> Any:
        return self._total
