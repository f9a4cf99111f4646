"""The suite that every executor must pass, over both engines of this package."""

from __future__ import annotations

from pathlib import Path

import pytest

from curator_core.testing import ABILITIES, Check, Subject, checks

# A node that goes away needs a cluster of several: test_clusters.py runs that check. Xenna counts no calls.
OF_RAY_DATA = frozenset(ABILITIES) - {"nodes"}
OF_XENNA = OF_RAY_DATA - {"calls"}
RAY_DATA = Subject("ray_data", {}, OF_RAY_DATA, "ray_data")
XENNA = Subject("xenna", {"mode": "streaming"}, OF_XENNA, "xenna")
XENNA_BATCH = Subject("xenna", {"mode": "batch"}, OF_XENNA, "xenna-batch")

CASES = [
    *(pytest.param(RAY_DATA, check, marks=pytest.mark.ray) for check in checks(RAY_DATA)),
    *(pytest.param(XENNA, check, marks=pytest.mark.xenna) for check in checks(XENNA)),
    *(pytest.param(XENNA_BATCH, check, marks=pytest.mark.xenna) for check in checks(XENNA_BATCH)),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(("subject", "check"), CASES, ids=str)
def test_the_executor_conforms(subject: Subject, check: Check, tmp_path: Path) -> None:
    check.run(subject, tmp_path)
