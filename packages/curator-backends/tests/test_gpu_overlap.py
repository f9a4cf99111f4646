"""A GPU computes while CPUs decode the next tasks, shown by stages that wait for one another instead of computing."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curator_core import DocumentBatch, Pipeline, Resources
from curator_core.testing import stages as s
from curator_core.testing.waiting import wait_for

pytest.importorskip("ray")
# The groups need both CPUs of the cluster at once. The test first waits for CPUs that an earlier test still holds;
# otherwise the stages would wait for one another forever. It is marked thorough, since benchmarks/gpu_overlap.py shows
# the same.
pytestmark = [pytest.mark.thorough, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("local_ray")]

# Xenna detects GPUs itself and accepts no simulated ones, so a separate worker represents the one on the GPU.
ENGINES = [
    pytest.param("RayDataExecutor", {"resources": Resources(gpus=1), "batch_size": 1}, marks=pytest.mark.ray),
    pytest.param("XennaExecutor", {"num_workers": 1}, marks=pytest.mark.xenna),
]


@pytest.mark.parametrize(("engine", "on_the_gpu"), ENGINES)
def test_the_next_task_is_decoded_while_the_gpu_computes_one(
    engine: str, on_the_gpu: dict[str, Any], tmp_path: Path
) -> None:
    """Decoding task n ends after embedding of task n-1 has begun, and embedding task n ends after decoding of task n+1
    has begun. Neither would end without overlap.

    The start also overlaps: loading the model and decoding the first task each wait for the other to begin.
    """
    import ray

    import curator_backends

    gc.collect()  # actors end with the last reference to them
    wait_for(
        lambda: ray.available_resources().get("CPU") == 2, "CPUs that an earlier test of this cluster still holds", 60.0
    )
    decode = s.BeginsBeside(str(tmp_path), "decode", "embed", -1, first=-1).with_(name="decode")
    embed = s.BeginsBeside(str(tmp_path), "embed", "decode", +1, loads=True).with_(name="embed", **on_the_gpu)
    task = DocumentBatch(data=pa.table({"id": range(6)}), task_id="one")
    result = Pipeline([s.SplitRows(), decode, embed]).run(getattr(curator_backends, engine)(), initial_tasks=[task])
    assert len(result) == 6


@pytest.mark.xenna
def test_xenna_gives_a_slow_decoder_more_workers_than_a_quick_one(tmp_path: Path) -> None:
    """Xenna distributes workers by the rates of the stages; the rows are the same. A stage with one worker represents
    the GPU."""
    from curator_backends import XennaExecutor

    workers, rows = {}, {}
    split = s.SplitRows().with_(resources=Resources(cpus=0.25))
    for name, decoding, embedding in [("slow", 0.2, 0.01), ("quick", 0.01, 0.1)]:
        folder = str(tmp_path / name)
        decode = s.Takes(folder, "decode", decoding).with_(name="decode", resources=Resources(cpus=0.25))
        embed = s.Takes(folder, "embed", embedding).with_(name="embed", num_workers=1, resources=Resources(cpus=0.5))
        task = DocumentBatch(data=pa.table({"id": range(120)}), task_id="one")
        result = Pipeline([split, decode, embed]).run(XennaExecutor(), initial_tasks=[task])
        rows[name] = sorted(row for batch in result for row in batch.to_pyarrow().column("id").to_pylist())
        seen = sorted(text.split() for text in s.traces(Path(folder), "decode"))
        workers[name] = len({process for _, process in seen[len(seen) // 2 :]})
    assert rows["slow"] == rows["quick"] == list(range(120))
    assert workers["slow"] > workers["quick"], workers
