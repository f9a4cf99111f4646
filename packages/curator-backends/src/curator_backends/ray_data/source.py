"""A dataset of sources that the driver is still listing: one task asks the coordinator for them in order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from curator_backends.coordinator import NOT_YET
from curator_backends.links import Link

# Seconds between two questions for sources that are not listed yet.
LEAST_PAUSE = 0.01
MOST_PAUSE = 0.2


def source_dataset(link: Link, remote_args: dict[str, Any]) -> Any:
    """A dataset of all sources, from a task that holds no CPU.

    Sources are asked for by number, so that a task that died is replaced by one that gives the same again. It is a map
    over one row and no datasource of its own, because Ray Data splits blocks within a map, and after a reader with
    tasks of their own: a process for each of them, where they hold no CPU.
    """
    from ray import data

    def Sources(_: pa.Table) -> Iterator[pa.Table]:  # noqa: N802 - shown by Ray Data
        yield from _read(link)

    start = data.from_blocks([pa.table({"start": [0]})])
    return start.map_batches(
        Sources, batch_size=None, batch_format="pyarrow", num_cpus=0, compute=data.TaskPoolStrategy(), **remote_args
    )


def _read(link: Link) -> Iterator[pa.Table]:
    import ray

    index = 0
    pause = LEAST_PAUSE
    while True:
        table = link.call("source", index)
        if isinstance(table, str) and table == NOT_YET:
            # The listing is held back until what there is has been worked on, which the asking must not slow down.
            time.sleep(pause)
            pause = min(2 * pause, MOST_PAUSE)
            continue
        pause = LEAST_PAUSE
        if table is None:
            return
        yield ray.get(table) if isinstance(table, ray.ObjectRef) else table
        index += 1
