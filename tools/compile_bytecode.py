"""Compiles the packages of this environment, once after each change of it.

    .venv/bin/python tools/compile_bytecode.py

uv installs without bytecode. Python writes it when a module is first imported, unless PYTHONDONTWRITEBYTECODE says no, as it
does in many container images: then every process of a run compiles pandas, Ray and torch anew, and a start takes two to
three times as long. Tests of packages are left out, since no run imports them.
"""

from __future__ import annotations

import compileall
import re
import sys
import sysconfig
from pathlib import Path

_NO_RUN_IMPORTS = re.compile(r"[/\\](tests?|_tests)[/\\]")


def main() -> int:
    """Compile what is not compiled; a file that is no Python for this version is left alone."""
    folder = Path(sysconfig.get_path("purelib"))
    stamp = folder.parent / ".compiled"
    if stamp.exists() and stamp.read_text() == str(folder.stat().st_mtime_ns):
        return 0
    compileall.compile_dir(folder, quiet=2, workers=0, maxlevels=20, rx=_NO_RUN_IMPORTS)
    # Read afterwards: the folder that keeps the bytecode of single modules is new in it.
    stamp.write_text(str(folder.stat().st_mtime_ns))
    return 0


if __name__ == "__main__":
    sys.exit(main())
