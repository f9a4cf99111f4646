"""Less upkeep of memory ends with its block, whatever happens in it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

import pyarrow as pa
import pytest

from curator_core.upkeep import with_rare_full_collections, with_small_pages, without_collection


def allocator() -> str:
    return pa.default_memory_pool().backend_name


@pytest.mark.parametrize(
    ("block", "setting", "inside"),
    [
        (without_collection, gc.isenabled, False),
        (with_rare_full_collections, gc.get_threshold, (700, 10, 100)),
        (with_small_pages, allocator, "system"),
    ],
)
def test_a_setting_holds_in_the_block_only(
    block: Callable[[], AbstractContextManager[None]], setting: Callable[[], object], inside: object
) -> None:
    thresholds = gc.get_threshold()
    gc.set_threshold(700, 10, 10)  # those of some versions of Python; others are left as they are
    before = setting()
    with suppress(KeyError), block():
        assert setting() == inside
        raise KeyError
    assert setting() == before
    gc.set_threshold(*thresholds)
