"""Measures the cost of the engine itself: small tasks through no-op stages, compared with a bare loop over the same
work.

    python benchmarks/engine_overhead.py [--tasks 10000]

Prints ``BENCH {json}`` with microseconds of CPU per stage call on ``LocalExecutor(workers=0)``. ``ledger_us_per_task``
is the cost of a run directory; ``slow_stage_overhead`` is the relative cost of everything (plan, adapter, accounts,
ledger, verdict, report) for a pipeline of three stages of a millisecond each. All numbers are the best of several
repeats, because other processes evict the caches between two calls, and then the same code takes several times as long.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from curator_core import DocumentBatch, FileGroupTask, FileRecord, LocalExecutor, Pipeline, ProcessingStage, Task

STAGES = 3
REPEATS = 5


class NoOp(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Passes on a task with the same data."""

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task.with_data(task.data)


class Sink(ProcessingStage[DocumentBatch, FileGroupTask]):
    """Ends a pipeline as a writer does, with a small record."""

    def process(self, task: DocumentBatch) -> FileGroupTask:
        record = FileRecord(f"out/{task.task_id}.jsonl", task.num_rows, 100, "0" * 64)
        self.record_output(record)
        return FileGroupTask(data=[record.path], records=[record])


class OneMillisecond(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Works for a millisecond."""

    def process(self, task: DocumentBatch) -> DocumentBatch:
        # Measure CPU time, so that a busy machine does not change the amount of work.
        until = time.thread_time() + 0.001
        while time.thread_time() < until:
            pass
        return task.with_data(task.data)


def tasks(count: int) -> list[DocumentBatch]:
    table = pa.table({"text": pa.array(["a"])})
    return [DocumentBatch(data=table, task_id=f"task-{index:06d}") for index in range(count)]


def bare(stages: Sequence[ProcessingStage[Any, Any]], batches: Sequence[DocumentBatch]) -> float:
    """The CPU seconds of a plain loop over the same stages."""
    started = time.process_time()
    for batch in batches:
        task: Task[Any] = batch
        for stage in stages:
            task = stage.process(task)
    return time.process_time() - started


def engine(
    stages: Sequence[ProcessingStage[Any, Any]],
    batches: Sequence[DocumentBatch],
    run_dir: str | None = None,
) -> float:
    """The CPU seconds of a whole run, with planning and accounting."""
    started = time.process_time()
    result = Pipeline(stages).run(LocalExecutor(workers=0), initial_tasks=batches, run_dir=run_dir)
    assert len(result) == len(batches)
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    options = parser.parse_args()
    noops = [NoOp().with_(name=f"noop-{index}") for index in range(STAGES)]
    ending = [*noops[:-1], Sink()]
    engine(noops, tasks(100))
    bare_s = min(bare(noops, tasks(options.tasks)) for _ in range(3))
    engine_s = min(engine(noops, tasks(options.tasks)) for _ in range(3))
    with tempfile.TemporaryDirectory() as folder:
        engine(ending, tasks(100), f"{folder}/warm")
        ledger_s = min(engine(ending, tasks(options.tasks), f"{folder}/{index}") for index in range(3))
        plain_s = min(engine(ending, tasks(options.tasks)) for _ in range(3))
        slow = [*(OneMillisecond().with_(name=f"work-{index}") for index in range(STAGES)), Sink()]
        some = max(100, options.tasks // 5)
        alone_s, run_s = [], []
        for index in range(REPEATS):  # in turns, because the machine's speed varies
            alone_s.append(bare(slow, tasks(some)))
            run_s.append(engine(slow, tasks(some), f"{folder}/slow-{index}"))
    calls = options.tasks * STAGES
    print(
        "BENCH "
        + json.dumps(
            {
                "tasks": options.tasks,
                "bare_us_per_call": round(bare_s / calls * 1e6, 2),
                "engine_us_per_call": round(engine_s / calls * 1e6, 2),
                "ledger_us_per_call": round(ledger_s / calls * 1e6, 2),
                "ledger_us_per_task": round((ledger_s - plain_s) / options.tasks * 1e6, 2),
                "slow_stage_overhead": round(min(run_s) / min(alone_s) - 1, 4),
            }
        )
    )


if __name__ == "__main__":
    main()
