"""One local Ray for all tests of a pytest process that share one: starting it takes longer than most tests."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

# Workers get the driver's import path at the time of the connection, and import `stages_for_tests` from it.
sys.path.insert(0, str(Path(__file__).parent))

_SHARED = ExitStack()


def _has_a_ray_of_its_own(item: pytest.Item) -> bool:
    return item.get_closest_marker("xenna") is not None and "local_ray" not in getattr(item, "fixturenames", ())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of Xenna that start a Ray run after all others, so that the shared Ray starts once."""
    items.sort(key=_has_a_ray_of_its_own)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """While this process is connected to the shared Ray, executors would not start one of their own."""
    if _has_a_ray_of_its_own(item):
        _SHARED.close()


def pytest_sessionfinish() -> None:
    _SHARED.close()


@pytest.fixture
def local_ray() -> None:
    """A Ray with two CPUs and two simulated GPUs, also set up for Xenna; executors find the connection, and use this
    Ray as they use any cluster that they have not started. As on a local Ray, workers import Ray Data while they start.
    """
    pytest.importorskip("ray")
    import ray

    from curator_backends.cluster import connect
    from curator_backends.environment import environment
    from curator_backends.options import RayOptions
    from curator_backends.preload import environment_for
    from curator_backends.ray_data import RayDataExecutor
    from curator_backends.xenna.executor import CLUSTER_ENVIRONMENT

    if not ray.is_initialized():
        variables = {**CLUSTER_ENVIRONMENT, **environment_for(RayDataExecutor.worker_modules)}
        options = RayOptions(num_cpus=2, num_gpus=2, start_timeout_s=300.0)
        _SHARED.enter_context(connect(options, extra_environment=variables))
        # An actor that counts what this process uses of Ray Data, for a report to Ray's makers.
        _SHARED.enter_context(environment({"RAY_DATA_USAGE_DISABLED": "1"}))
