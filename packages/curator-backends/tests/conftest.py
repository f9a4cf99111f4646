"""One local Ray for all tests of a pytest process: starting it takes longer than most tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Workers get the driver's import path at the time of the connection, and import `stages_for_tests` from it.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A Ray with two CPUs and two simulated GPUs, also set up for Xenna; executors find the connection and do not
    change it."""
    pytest.importorskip("ray")
    from curator_backends.cluster import connect
    from curator_backends.options import RayOptions
    from curator_backends.xenna.executor import CLUSTER_ENVIRONMENT

    with connect(
        RayOptions(num_cpus=2, num_gpus=2, start_timeout_s=300.0),
        extra_environment=CLUSTER_ENVIRONMENT,
        dashboard=lambda: True,
    ):
        yield
