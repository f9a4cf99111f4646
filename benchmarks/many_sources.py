"""Runs very many sources on a cluster engine, and measures the driver's memory and how far it lists ahead.

    python benchmarks/many_sources.py [--executor ray_data|xenna] [--sources 100000]

Prints ``BENCH {json}``: seconds, the driver's peak memory, the peak of shared memory (in which Ray keeps its objects),
and the largest number of sources that were listed and not yet done.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass

from curator_core import EmptyTask, FileGroupTask, Pipeline, ProcessingStage, SourceStage
from curator_core.config.build import load_executor


@dataclass
class Listing(SourceStage[FileGroupTask]):
    """Names sources; the driver's copy counts the listed sources."""

    count: int = 10

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        for number in range(self.count):
            Listing.listed = number + 1
            yield FileGroupTask(data=[f"s3://bucket/data/part-{number:07d}.jsonl"], task_id=f"part-{number:07d}")


class Pass(ProcessingStage[FileGroupTask, FileGroupTask]):
    """Passes on a task with the same paths."""

    def process(self, task: FileGroupTask) -> FileGroupTask:
        return task.with_data(task.data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executor", choices=["ray_data", "xenna"], default="ray_data")
    parser.add_argument("--sources", type=int, default=100_000)
    options = parser.parse_args()
    executor = load_executor(options.executor)({})
    started = time.perf_counter()
    ahead = shared = 0
    shared_before = shutil.disk_usage("/dev/shm").used

    def watch(progress: object) -> None:
        nonlocal ahead, shared
        shared = max(shared, shutil.disk_usage("/dev/shm").used - shared_before)
        ahead = max(ahead, Listing.listed - progress.finished_sources)  # type: ignore[attr-defined]

    Listing.listed = 0  # type: ignore[attr-defined]
    result = Pipeline([Listing(count=options.sources), Pass()]).run(executor, progress=watch)
    assert len(result) == options.sources, f"{len(result)} of {options.sources} sources came back"
    report = {
        "executor": options.executor,
        "sources": options.sources,
        "seconds": round(time.perf_counter() - started, 1),
        "driver_peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
        "shared_memory_peak_gb": round(shared / 2**30, 3),
        "listed_ahead": ahead,
    }
    print("BENCH " + json.dumps(report))


if __name__ == "__main__":
    main()
