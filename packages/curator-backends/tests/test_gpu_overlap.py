"""A GPU computes while the CPUs decode what is next, shown by stages that wait for one another instead of computing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curator_core import DocumentBatch, Pipeline, Resources
from curator_core.testing import stages as s

pytest.importorskip("ray")
# Thorough: on a cluster that other tests have used before, the first block may reach the GPU's worker too late for it to wait for
# nothing else, and then the test waits in vain.
pytestmark = [pytest.mark.thorough, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("local_ray")]

# Xenna finds GPUs by itself and cannot be made to see others: a worker of its own stands for the one on the GPU.
ENGINES = [
    pytest.param("RayDataExecutor", {"resources": Resources(gpus=1), "batch_size": 1}, marks=pytest.mark.ray),
    pytest.param("XennaExecutor", {"num_workers": 1}, marks=pytest.mark.xenna),
]


@pytest.mark.parametrize(("engine", "on_the_gpu"), ENGINES)
def test_the_next_task_is_decoded_while_the_gpu_computes_one(
    engine: str, on_the_gpu: dict[str, Any], tmp_path: Path
) -> None:
    """Decoding task n ends when embedding n-1 has begun, embedding n ends when decoding n+1 has: in turns neither could."""
    import curator_backends

    decode = s.BeginsBeside(str(tmp_path), "decode", "embed", -1).with_(name="decode")
    embed = s.BeginsBeside(str(tmp_path), "embed", "decode", +1).with_(name="embed", **on_the_gpu)
    task = DocumentBatch(data=pa.table({"id": range(6)}), task_id="one")
    result = Pipeline([s.SplitRows(), decode, embed]).run(getattr(curator_backends, engine)(), initial_tasks=[task])
    assert len(result) == 6
