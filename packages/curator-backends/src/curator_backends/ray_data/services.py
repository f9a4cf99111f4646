"""What Ray Data does without on a local Ray of ours: actors, each a process, that serve a dashboard, a node
autoscaler, usage statistics, and clusters of several machines.

They start with the first dataset, on the CPUs that its workers are waiting for. This module imports Ray Data, so it is
imported when a run starts.
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

# Tasks that Ray is handed for each CPU: one that runs, and those that follow it.
TASKS_PER_CPU = float(__import__("os").environ.get("OVER", "2"))


@contextlib.contextmanager
def no_services(minimal: bool, tasks_only: bool = False) -> Iterator[None]:
    """Datasets executed inside start no actor but their own, for the length of a ``with`` block. ``tasks_only``: they have none.

    What is replaced goes by Ray Data's own names: a version that has others starts its actors, and works.
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
            # There is one machine: where actors are is known when they start, and does not change.
            (actor_pool_map_operator, "get_or_create_actor_location_tracker", lambda: NULL_ACTOR),
            (actor_pool_map_operator, "get_actor_locations", lambda _: {}),
        ),
    ):
        yield


class _FixedCluster:
    """A cluster that has what it has; Ray Data's own asks an actor, which asks for more machines."""

    def __init__(self, tasks_only: bool) -> None:
        total = ExecutionResources.from_resource_dict(ray.cluster_resources())
        # With as many tasks as there are CPUs, the one of a task that has ended waits until the driver has looked and another is
        # handed out. So Ray is handed more than it can run, and has the next at hand. Actors would take what is not there.
        self._total = total.copy(cpu=total.cpu * TASKS_PER_CPU) if tasks_only else total

    def try_trigger_scaling(self) -> None:
        pass

    def on_executor_shutdown(self) -> None:
        pass

    def get_total_resources(self) -> Any:
        return self._total
