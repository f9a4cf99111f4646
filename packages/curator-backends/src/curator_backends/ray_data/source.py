"""A Ray datasource for sources that the driver is still listing: one reader asks the coordinator for them in order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from curator_backends.coordinator import NOT_YET


def source_dataset(coordinator: Any, remote_args: dict[str, Any]) -> Any:
    """A dataset of all sources, read by a task that holds no CPU.

    Sources are asked for by number, so that a reader that died is replaced by one that gives the same again.
    """
    import ray
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    class Sources(Datasource):
        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, *_: Any, **__: Any) -> list[Any]:
            metadata = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [ReadTask(lambda: _read(coordinator), metadata)]

    return ray.data.read_datasource(Sources(), override_num_blocks=1, num_cpus=0, **remote_args)


def _read(coordinator: Any) -> Iterator[pa.Table]:
    import ray

    index = 0
    while True:
        table = ray.get(coordinator.source.remote(index))
        if isinstance(table, str) and table == NOT_YET:
            time.sleep(0.01)
            continue
        if table is None:
            return
        yield ray.get(table) if isinstance(table, ray.ObjectRef) else table
        index += 1
