"""A dataset of sources that the driver is still listing: one task fetches the sources in order from the coordinator."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from curator_backends.coordinator import NOT_YET
from curator_backends.links import Link

# Seconds between two requests for sources that are not listed yet.
LEAST_PAUSE = 0.01
MOST_PAUSE = 0.2


def source_dataset(link: Link, remote_args: dict[str, Any]) -> Any:
    """A dataset of all sources, made by a task that reserves no CPU.

    Sources are requested by number, so a task that replaces a dead one yields the same sources again. The dataset is a
    map over one row rather than a datasource, because Ray Data splits blocks within a map, but splits after a reader in
    separate tasks, and starts a process for each if they reserve no CPU.
    """
    from ray import data

    def Sources(_: pa.Table) -> Iterator[pa.Table]:  # noqa: N802 - Ray Data shows this name
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
            # The driver lists no further until the workers have caught up, and these requests must not slow the workers
            # down.
            time.sleep(pause)
            pause = min(2 * pause, MOST_PAUSE)
            continue
        pause = LEAST_PAUSE
        if table is None:
            return
        yield ray.get(table) if isinstance(table, ray.ObjectRef) else table
        index += 1
