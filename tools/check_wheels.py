"""Checks that each package, built in the form that users get, installs alone and imports.

It builds source distributions and wheels from them, inspects the wheels, and installs each wheel, with only its
required siblings, into a fresh environment. So a missing file, a wrong range or an undeclared import is found here, and
not by a user.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from workspace import ROOT, UV, Package, packages, with_siblings

PROBE = """
import importlib, sys
from importlib.metadata import distribution, entry_points
name, module = sys.argv[1:]
importlib.import_module(module)
points = [p for g in ("curator.stages", "curator.executors") for p in entry_points(group=g) if p.dist.name == name]
for point in points:
    point.load()
print(f"imports, {len(points)} entry points load")
"""


def main() -> int:
    """Build and try all packages; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the built files in this folder")
    options = parser.parse_args()
    known = packages()
    with tempfile.TemporaryDirectory(prefix="curator-wheels-") as scratch:
        wheels = build(known, Path(scratch) / "dist")
        failed = [package.name for package in known if not _works(package, known, wheels, Path(scratch))]
        if options.keep:
            shutil.copytree(Path(scratch) / "dist", options.keep, dirs_exist_ok=True)
    if failed:
        print(f"error: does not work as a wheel: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def build(known: list[Package], dist: Path) -> dict[str, Path]:
    """Build all packages into ``dist``; returns the wheel of each package, by name."""
    # Without workspace sources, siblings are ordinary requirements, as for a user.
    _run(UV, "build", "--quiet", "--all-packages", "--no-sources", "--out-dir", str(dist))
    found: dict[str, Path] = {}
    for package in known:
        matches = list(dist.glob(f"{package.module}-{package.version}-*.whl"))
        if len(matches) != 1:
            sys.exit(
                f"error: expected one wheel of {package.name} {package.version}, found {[m.name for m in matches]}"
            )
        found[package.name] = matches[0]
    return found


def _works(package: Package, known: list[Package], wheels: dict[str, Path], scratch: Path) -> bool:
    started = time.monotonic()
    environment = scratch / package.name
    python = environment / "bin" / "python"
    try:
        _check_contents(package, wheels[package.name])
        _run(UV, "venv", "--quiet", "--python", sys.executable, str(environment))
        # Requirements are given by path, so siblings come only from this build.
        needed = [str(wheels[one.name]) for one in with_siblings(package, known)]
        _run(UV, "pip", "install", "--quiet", "--python", str(python), *needed)
        said = _run(str(python), "-I", "-c", PROBE, package.name, package.module)
        for script in package.scripts:
            _run(str(environment / "bin" / script), "--help")
    except (subprocess.CalledProcessError, ValueError) as error:
        detail = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
        print(f"{package.name}: FAILED\n{detail.rstrip()}", file=sys.stderr)
        return False
    print(f"{package.name}: {said.strip()} ({time.monotonic() - started:.1f} s)", flush=True)
    return True


def _check_contents(package: Package, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    licence = f"{package.module}-{package.version}.dist-info/licenses/LICENSE"
    source = package.folder / "src"
    stubs = [path.relative_to(source).as_posix() for path in sorted(source.rglob("*.pyi"))]
    for name in (f"{package.module}/py.typed", *stubs, licence):
        if name not in sizes:
            raise ValueError(f"{wheel.name} has no {name}")
    if sizes[licence] < 10_000:
        raise ValueError(f"{wheel.name}: its LICENSE is incomplete; the link may not have been followed")
    if stray := [name for name in sizes if not name.startswith((package.module + "/", package.module + "-"))]:
        raise ValueError(f"{wheel.name} would install {stray[0]!r} outside {package.module}/")


def _run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
