"""One local Ray for all tests of a pytest process that share one: starting it takes longer than most tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

# Workers get the driver's import path at the time of the connection, and import `stages_for_tests` from it.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def connected() -> Iterator[Callable[[bool], None]]:
    """Connects this process to the shared Ray, or ends that Ray; does nothing where it is so already."""
    pytest.importorskip("ray")
    import ray

    from curator_backends.cluster import connect
    from curator_backends.options import RayOptions
    from curator_backends.xenna.executor import CLUSTER_ENVIRONMENT

    with ExitStack() as stack:

        def connected(wanted: bool) -> None:
            if not wanted:
                stack.close()
            elif not ray.is_initialized():
                options = RayOptions(num_cpus=2, num_gpus=2, start_timeout_s=300.0)
                stack.enter_context(connect(options, extra_environment=CLUSTER_ENVIRONMENT))

        yield connected


@pytest.fixture
def local_ray(connected: Callable[[bool], None]) -> None:
    """A Ray with two CPUs and two simulated GPUs, also set up for Xenna; executors find the connection, and use this
    Ray as they use any cluster that they have not started.
    """
    connected(True)


@pytest.fixture
def no_ray(connected: Callable[[bool], None]) -> None:
    """No Ray: an executor starts its own, as it does on a user's machine."""
    connected(False)
