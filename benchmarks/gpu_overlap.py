"""Measures whether a GPU waits for CPUs. Stages sleep instead of computing, so no GPU is needed.

    python benchmarks/gpu_overlap.py local|ray_data|xenna

Each task is decoded for 80 ms on the CPU and embedded for 100 ms by the only worker on a simulated GPU (on Xenna, which
cannot simulate one, by a separate group). Prints ``BENCH {json}``: the seconds of embedding alone, of decoding in one
worker, and of both after all workers are ready (one decoding, and the time from the first embedding to the last), and
the ratio of this total to the larger of the two (``total_to_larger``; without overlap, it would be 1.8).
``first_embedding_s`` is the time from the start of the run to the first embedding.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curator_core import DocumentBatch, Pipeline, ProcessingStage, Resources, WorkerMetadata
from curator_core.testing.stages import SplitRows, leave_trace, traces

DECODE_S, EMBED_S = 0.08, 0.1
BYTES = 4 << 20


@dataclass
class Wait(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Sleeps for ``seconds`` for each task, and records when."""

    folder: str
    mine: str
    seconds: float
    adds: int = 0

    def setup(self, worker: WorkerMetadata) -> None:
        self._pixels = pa.array([bytes(self.adds)], pa.large_binary())

    def process(self, task: DocumentBatch) -> DocumentBatch:
        began = time.monotonic()
        time.sleep(self.seconds)
        leave_trace(self.folder, self.mine, f"{began} {time.monotonic()}")
        if self.adds:
            return task.append_column("pixels", self._pixels)
        return task.with_data(task.to_pyarrow().select(["id"]))

    def outputs(self) -> list[str]:
        return ["pixels"] if self.adds else []


def executor(name: str) -> tuple[Any, dict[str, Any]]:
    """The executor, and the resources that put a stage on its GPU."""
    if name == "local":
        from curator_core.testing.executors import OneCardExecutor

        return OneCardExecutor(), {"resources": Resources(gpus=1)}
    if name == "ray_data":
        from curator_backends import RayDataExecutor

        return RayDataExecutor(num_gpus=1), {"resources": Resources(gpus=1), "batch_size": 1}
    from curator_backends import XennaExecutor

    return XennaExecutor(), {"num_workers": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("executor", choices=["local", "ray_data", "xenna"])
    parser.add_argument("--tasks", type=int, default=80)
    parser.add_argument("--sources", type=int, default=4)
    options = parser.parse_args()
    chosen, on_the_gpu = executor(options.executor)
    with tempfile.TemporaryDirectory() as folder:
        stages = [
            SplitRows(),
            Wait(folder, "decode", DECODE_S, BYTES).with_(name="decode"),
            Wait(folder, "embed", EMBED_S).with_(name="embed", **on_the_gpu),
        ]
        each = options.tasks // options.sources
        tasks = [
            DocumentBatch(data=pa.table({"id": range(each)}), task_id=f"source-{number}")
            for number in range(options.sources)
        ]
        started = time.monotonic()
        result = Pipeline(stages).run(chosen, initial_tasks=tasks)
        spans = {
            name: [tuple(map(float, text.split())) for text in traces(Path(folder), name)]
            for name in ("decode", "embed")
        }
    assert len(result) == each * options.sources
    seconds = {name: sum(end - began for began, end in found) for name, found in spans.items()}
    first = min(began for began, _ in spans["embed"])
    total = DECODE_S + max(end for _, end in spans["embed"]) - first
    report = {
        "executor": options.executor,
        "decode_s": round(seconds["decode"], 2),
        "embed_s": round(seconds["embed"], 2),
        "total_s": round(total, 2),
        "total_to_larger": round(total / max(seconds.values()), 3),
        "first_embedding_s": round(first - started, 2),
    }
    print("BENCH", json.dumps(report))


if __name__ == "__main__":
    main()
