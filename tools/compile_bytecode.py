"""Compiles the packages of this environment once after each change.

    .venv/bin/python tools/compile_bytecode.py

uv installs without bytecode. Python writes it when a module is first imported, unless PYTHONDONTWRITEBYTECODE is set,
as in many container images. In that case, every process of a run compiles pandas, Ray and torch again, and starting
takes two to three times as long. The packages' tests are left out, since no run imports them.
"""

from __future__ import annotations

import compileall
import re
import sys
import sysconfig
from pathlib import Path

_NO_RUN_IMPORTS = re.compile(r"[/\\](tests?|_tests)[/\\]")


def main() -> int:
    """Compile modules without bytecode; a file that this version of Python cannot read is skipped."""
    folder = Path(sysconfig.get_path("purelib"))
    stamp = folder.parent / ".compiled"
    if stamp.exists() and stamp.read_text() == str(folder.stat().st_mtime_ns):
        return 0
    compileall.compile_dir(folder, quiet=2, workers=0, maxlevels=20, rx=_NO_RUN_IMPORTS)
    # Read the state after compiling, since that adds the folder for the bytecode of single modules.
    stamp.write_text(str(folder.stat().st_mtime_ns))
    return 0


if __name__ == "__main__":
    sys.exit(main())
