"""Whether Python finds bytecode of the installed packages, or compiles them again in every process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Fewer than these take no time.
FEW_MODULES = 50


def uncompiled_modules() -> list[str]:
    """The modules that this process has loaded from installed packages and compiled for itself, by name.

    A process that may write bytecode has written it by now, so what is missing is missing for the next process too.
    """
    found = []
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        cached, origin = getattr(spec, "cached", None), getattr(spec, "origin", None)
        if cached and origin and "site-packages" in Path(origin).parts and not os.path.exists(cached):  # noqa: PTH110 - of text
            found.append(name)
    return found


def bytecode_hint() -> str:
    """What to do about modules that every process compiles again; empty where there are few of them."""
    missing = uncompiled_modules()
    if len(missing) < FEW_MODULES:
        return ""
    why = ", and PYTHONDONTWRITEBYTECODE keeps Python from writing it" if sys.dont_write_bytecode else ""
    folder = next(path for path in sys.path if path.endswith("site-packages"))
    return (
        f"{len(missing)} modules were installed without bytecode{why}, so every process compiles them again, which "
        f"takes most of its start-up time: {sys.executable} -m compileall -q {folder} (or install with uv's "
        "--compile-bytecode)"
    )
