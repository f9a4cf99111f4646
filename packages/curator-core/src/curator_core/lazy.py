"""How do modules load late and quickly? Names of a package load on first use, and no garbage is collected during
imports. During a run, little time is spent on it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any


def lazy_names(package: str, home: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a package whose names are in the modules of ``home``.

    ::

        __getattr__, __dir__ = lazy_names(__name__, {"JsonlReader": "readers", "WebEnglish": "presets"})
    """
    content = vars(sys.modules[package])

    def load(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        content[name] = value = getattr(importlib.import_module(f"{package}.{home[name]}"), name)
        return value

    def names() -> list[str]:
        return sorted({*content, *home})

    return load, names


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
