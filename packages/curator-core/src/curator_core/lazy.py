"""How do the modules of a package load late? Each of its names loads its module on first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
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
