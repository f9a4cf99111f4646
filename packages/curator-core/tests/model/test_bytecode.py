"""Packages without bytecode are recognised, and the remedy is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ASK = """
import json, sys
sys.path.insert(0, sys.argv[1])
for number in range(60):
    __import__(f"installed_{number}")
from curator_core.model.bytecode import bytecode_hint, uncompiled_modules
print(json.dumps([len([name for name in uncompiled_modules() if name.startswith("installed_")]), bytecode_hint()]))
"""


def asked(folder: Path, *flags: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, *flags, "-c", ASK, str(folder)], stdout=subprocess.PIPE, check=True)
    number, hint = json.loads(done.stdout)
    return number, hint


def test_modules_without_bytecode_are_counted_and_a_command_compiles_them(tmp_path: Path) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    for number in range(60):
        (folder / f"installed_{number}.py").write_text("")
    missing, hint = asked(folder, "-B")  # as PYTHONDONTWRITEBYTECODE
    assert missing == 60
    assert f"{sys.executable} -m compileall -q {folder}" in hint
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(folder)], check=True)
    assert asked(folder, "-B")[0] == 0
