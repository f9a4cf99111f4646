"""How much upkeep does the memory of a block of code get? No or little garbage collection, and small pages for small
tables.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Turn off Python's garbage collector in the block, which makes many objects that stay, such as those of imports:
    visiting them takes a tenth to a fifth of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def with_rare_full_collections() -> Iterator[None]:
    """Visit old objects a tenth as often as usual in the block, which makes many small objects that stay: Python visits
    all objects of a process whenever their number has grown by a quarter. Other settings than Python's own are kept.
    """
    usual = (700, 10, 10)
    if gc.get_threshold() != usual:
        yield
        return
    gc.set_threshold(*usual[:2], 10 * usual[2])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


@contextlib.contextmanager
def with_small_pages() -> Iterator[None]:
    """Let Arrow allocate as C does in the block, which makes a few small tables: its own allocator is made for large
    ones and touches pages of two megabytes for sizes that it has not seen before. Where a virtual machine must ask its
    host for them, each takes ten milliseconds.
    """
    import pyarrow as pa  # deferred: imports take place in such blocks, too

    usual = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(usual)
