"""A GPU computes while the CPUs decode what is next, shown by stages that wait for one another instead of computing."""

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
# The groups need both CPUs of the cluster at once. What an earlier test still holds is waited for, or the stages wait for one another in
# vain. Thorough, since it shows what benchmarks/gpu_overlap.py does.
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
    """Decoding task n ends when embedding n-1 has begun, embedding n ends when decoding n+1 has: in turns neither could.

    The same holds of the start: the model is loaded when the first task is being decoded, and that when the model is being loaded.
    """
    import ray

    import curator_backends

    gc.collect()  # actors go with the last reference to them
    wait_for(
        lambda: ray.available_resources().get("CPU") == 2, "CPUs that an earlier test of this cluster still holds", 60.0
    )
    decode = s.BeginsBeside(str(tmp_path), "decode", "embed", -1, first=-1).with_(name="decode")
    embed = s.BeginsBeside(str(tmp_path), "embed", "decode", +1, loads=True).with_(name="embed", **on_the_gpu)
    task = DocumentBatch(data=pa.table({"id": range(6)}), task_id="one")
    result = Pipeline([s.SplitRows(), decode, embed]).run(getattr(curator_backends, engine)(), initial_tasks=[task])
    assert len(result) == 6


@pytest.mark.parametrize(("engine", "on_the_gpu"), ENGINES)
def test_a_slow_decoder_gets_more_workers_than_a_quick_one(
    engine: str, on_the_gpu: dict[str, Any], tmp_path: Path
) -> None:
    """Ray Data adds and removes actors by how busy they are, Xenna by the rates of the stages; the rows are the same."""
    import curator_backends

    workers, rows = {}, {}
    split = s.SplitRows().with_(resources=Resources(cpus=0.25))
    for name, decoding, embedding in [("slow", 0.2, 0.01), ("quick", 0.01, 0.1)]:
        folder = str(tmp_path / name)
        decode = s.Takes(folder, "decode", decoding).with_(name="decode", resources=Resources(cpus=0.25))
        gpus = 1 if "resources" in on_the_gpu else 0
        model = {**on_the_gpu, "resources": Resources(cpus=0.5, gpus=gpus)}
        embed = s.Takes(folder, "embed", embedding).with_(name="embed", **model)
        task = DocumentBatch(data=pa.table({"id": range(120)}), task_id="one")
        result = Pipeline([split, decode, embed]).run(getattr(curator_backends, engine)(), initial_tasks=[task])
        rows[name] = sorted(row for batch in result for row in batch.to_pyarrow().column("id").to_pylist())
        seen = sorted(text.split() for text in s.traces(Path(folder), "decode"))
        workers[name] = len({process for _, process in seen[len(seen) // 2 :]})
    assert rows["slow"] == rows["quick"] == list(range(120))
    assert workers["slow"] > workers["quick"], workers
