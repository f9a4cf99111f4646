"""Resources are checked, and a need of GPU memory is never rounded to nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_core import PlanError, Resources, UsageError


def test_the_defaults_are_one_cpu_and_no_gpu() -> None:
    assert Resources() == Resources(cpus=1.0, gpu_memory_gb=0.0, gpus=0.0)
    assert not Resources().requires_gpu
    assert Resources(gpus=0.5).requires_gpu
    assert Resources(gpu_memory_gb=0.1).requires_gpu


def test_part_of_a_gpu_and_whole_gpus_cannot_be_combined() -> None:
    with pytest.raises(UsageError, match="both gpu_memory_gb=8 and gpus=1"):
        Resources(gpu_memory_gb=8, gpus=1)


@pytest.mark.parametrize("value", [-1, float("inf"), float("nan"), "2", True, None])
def test_invalid_amounts_are_refused(value: object) -> None:
    with pytest.raises(UsageError, match=r"Resources\.cpus"):
        Resources(cpus=value)  # type: ignore[arg-type]


@given(st.floats(1e-6, 640), st.floats(0.5, 640))
def test_a_share_is_large_enough_and_above_zero(need: float, card: float) -> None:
    resources = Resources(gpu_memory_gb=need)
    if need > card:
        with pytest.raises(PlanError, match="lower gpu_memory_gb"):
            resources.gpu_share(card)
        return
    share = resources.gpu_share(card)
    assert 0.001 <= share <= 1
    assert share * card >= need * (1 - 1e-9)
    assert share == 0.001 or (share - 0.001) * card < need * (1 + 1e-9)


def test_whole_gpus_are_not_converted_to_shares() -> None:
    assert Resources(gpus=2).gpu_share(80) == 2
    assert Resources().gpu_share(80) == 0


def test_making_resources_does_not_call_the_driver() -> None:
    probe = "import sys; from curator_core import Resources; Resources(gpu_memory_gb=4).gpu_share(80); "
    probe += "assert not {'pynvml', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", probe], check=True)
