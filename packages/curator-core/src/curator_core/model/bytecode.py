"""Does Python find bytecode of the installed packages, or compile them again in every process?"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Compiling fewer modules than this takes no noticeable time.
FEW_MODULES = 50


def uncompiled_modules() -> list[str]:
    """The names of the modules of installed packages that this process has compiled itself.

    A process that may write bytecode has written it by now, so the next process will not find the missing files either.
    """
    found = []
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        cached, origin = getattr(spec, "cached", None), getattr(spec, "origin", None)
        if cached and origin and "site-packages" in Path(origin).parts and not os.path.exists(cached):  # noqa: PTH110 - of text
            found.append(name)
    return found


def bytecode_hint() -> str:
    """What to do about modules that every process compiles again; empty if there are few of them."""
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
