"""One local Ray for all tests of a pytest process: starting it takes longer than most tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A Ray of two CPUs with what Xenna needs of it; executors find the connection and leave it alone."""
    pytest.importorskip("ray")
    from curator_backends.cluster import connect
    from curator_backends.options import RayOptions
    from curator_backends.xenna.executor import CLUSTER_ENVIRONMENT

    with connect(RayOptions(num_cpus=2), extra_environment=CLUSTER_ENVIRONMENT, dashboard=True):
        yield
