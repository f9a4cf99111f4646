"""Tasks as the rows of an Arrow table: one binary column, ``item``, which is read without a copy.

`curator_core.model.codec` encodes a task as bytes: a header and an Arrow IPC stream. In a binary column, tasks reach
other processes through Ray's shared memory, and the columns of a decoded batch point straight into that memory. Nothing
is pickled into object columns.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from curator_core.model.codec import decode_task, encode_task
from curator_core.model.task import Task

ITEM = "item"
SCHEMA = pa.schema([pa.field(ITEM, pa.large_binary())])

# Values start at multiples of this, so that the arrays in them stay aligned.
_ALIGN = 64
# Small tasks travel together up to this many bytes; a larger task travels alone and is not copied.
PACK_BYTES = 1 << 20


def pack(buffers: Iterable[pa.Buffer]) -> pa.Table:
    """A table with one row per encoded task. A single buffer is used as it is; several are copied into one aligned
    buffer.
    """
    values = list(buffers)
    if len(values) == 1:
        data = values[0]
        ends = [len(data)]
    else:
        sizes = [len(value) + -len(value) % _ALIGN for value in values]
        data = pa.allocate_buffer(sum(sizes))
        view = memoryview(data).cast("B")
        ends = []
        start = 0
        for value, size in zip(values, sizes, strict=True):
            view[start : start + len(value)] = memoryview(value).cast("B")
            view[start + len(value) : start + size] = bytes(size - len(value))
            start += size
            ends.append(start)
    offsets = pa.py_buffer(struct.pack(f"<{len(ends) + 1}q", 0, *ends))
    column = pa.Array.from_buffers(pa.large_binary(), len(ends), [None, offsets, data])
    return pa.Table.from_arrays([column], schema=SCHEMA)


def unpack(table: pa.Table) -> Iterator[pa.Buffer]:
    """The encoded tasks of a table, as views of its memory."""
    for chunk in table.column(ITEM).chunks:
        # Slice by hand: a scalar's as_buffer() copies.
        _, offsets, data = chunk.buffers()
        bounds = np.frombuffer(offsets, np.int64, count=len(chunk) + 1, offset=8 * chunk.offset).tolist()
        for start, end in itertools.pairwise(bounds):
            yield data.slice(start, end - start)


def encode(tasks: Iterable[Task[Any]]) -> pa.Table:
    """Tasks as one table."""
    return pack([encode_task(task) for task in tasks])


def decode(table: pa.Table) -> list[Task[Any]]:
    """The tasks of a table; their columns point into it."""
    return [decode_task(buffer) for buffer in unpack(table)]


def encode_stream(tasks: Iterable[Task[Any]], pack_bytes: int = PACK_BYTES) -> Iterator[pa.Table]:
    """Tables of tasks as they arrive: small tasks are collected, and a large task is passed on alone and at once."""
    waiting: list[pa.Buffer] = []
    size = 0
    for task in tasks:
        buffer = encode_task(task)
        if waiting and size + len(buffer) > pack_bytes:
            yield pack(waiting)
            waiting, size = [], 0
        waiting.append(buffer)
        size += len(buffer)
        if size >= pack_bytes:
            yield pack(waiting)
            waiting, size = [], 0
    if waiting:
        yield pack(waiting)
