"""Measures the cost of an engine on this machine after its start; engine_overhead.py measures the engine of this
process.

    python benchmarks/cluster_overhead.py ray_data            # or xenna, or xenna:batch

Prints ``BENCH {json}``: seconds to start, ms per task for small tasks through three fused no-op stages, and ms per task
for tasks of 1 MB through three stages that are not fused. Both are the cost of one more task: the time of a run of 20
tasks, which is mostly the start of the workers, is subtracted and reported separately.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from curator_core import DocumentBatch, Pipeline, ProcessingStage
from curator_core.config.build import load_executor

FEW = 20


class NoOp(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Passes on a task with the same data."""

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task.with_data(task.data)


class Drop(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Ends a pipeline without sending its data back to the driver."""

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task.with_data(task.to_pyarrow().select(["key"]))


def tasks(count: int, size: int) -> list[DocumentBatch]:
    """Tasks of one row with random data, so that nothing can be shared or compressed."""
    return [
        DocumentBatch(
            data=pa.table({"key": [index], "data": pa.array([os.urandom(size)])}), task_id=f"task-{index:06d}"
        )
        for index in range(count)
    ]


def fused() -> list[ProcessingStage[Any, Any]]:
    return [NoOp().with_(name="a"), NoOp().with_(name="b"), Drop().with_(name="c")]


def unfused() -> list[ProcessingStage[Any, Any]]:
    """Stages that do not share a worker, because they have different numbers of workers."""
    return [NoOp().with_(name="a"), NoOp().with_(name="b", num_workers=1), Drop().with_(name="c")]


def seconds(executor: Any, stages: Sequence[ProcessingStage[Any, Any]], batches: Sequence[DocumentBatch]) -> float:
    started = time.perf_counter()
    result = Pipeline(stages).run(executor, initial_tasks=batches)
    assert len(result) == len(batches), f"{len(result)} of {len(batches)} tasks came back"
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", help="ray_data, xenna or xenna:batch")
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--large", type=int, default=200, help="number of tasks of 1 MB")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    name, _, mode = options.engine.partition(":")
    config = {"mode": mode} if mode else {}
    started = time.perf_counter()
    keeper = load_executor(name)(config)
    keeper.open()  # the executors below use this connection
    report: dict[str, Any] = {"engine": options.engine, "start_s": round(time.perf_counter() - started, 2)}
    try:
        for label, stages, count, size in (
            ("small", fused(), options.tasks, 100),
            ("large", unfused(), options.large, 1 << 20),
        ):
            few, many = tasks(FEW, size), tasks(count, size)
            costs, starts = [], []
            for _ in range(options.repeats):
                start = seconds(load_executor(name)(config), stages, few)
                whole = seconds(load_executor(name)(config), stages, many)
                starts.append(start)
                costs.append((whole - start) / (count - FEW) * 1e3)
            report[f"{label}_ms_per_task"] = round(statistics.median(costs), 2)
            report[f"{label}_ms_all"] = [round(cost, 2) for cost in costs]
            report[f"{label}_run_start_s"] = round(statistics.median(starts), 2)
    finally:
        keeper.close()
    print("BENCH " + json.dumps(report))


if __name__ == "__main__":
    main()
