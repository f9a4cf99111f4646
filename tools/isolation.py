"""Checks that each package's tests pass with only the dependencies that the package declares.

In the shared environment, an undeclared import works if a sibling requires the package. Here, each package gets its own
environment with only its dependencies and its ``test`` group. Tests marked for an extra skip themselves (see
conftest.py). Two packages are tested at the same time, since each uses one core.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from workspace import ROOT, UV, Package, packages

NO_TESTS_COLLECTED = 5
AT_ONCE = 2


def main() -> int:
    """Run the tests of every package, or of the named ones; returns the exit code."""
    known = {package.name: package for package in packages()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"default: {' '.join(known)}")
    parser.add_argument("--extra", action="append", default=[], help="also install this extra (with one package)")
    options = parser.parse_args()
    if unknown := sorted(set(options.packages) - known.keys()):
        parser.error(f"no package {unknown[0]!r}; there are {', '.join(known)}")

    # Start the longest tests first, so that nothing waits for them at the end.
    names = sorted(options.packages or known, key=lambda name: -_bytes_of_tests(known[name]))
    failed: list[str] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for name, (code, seconds, said) in zip(
            names, pool.map(lambda name: _run_tests(known[name], options.extra), names), strict=True
        ):
            print(f"{said}{name}: {_verdict(code)} in {seconds:.0f} s", flush=True)
            if code not in (0, NO_TESTS_COLLECTED):
                failed.append(name)
    if failed:
        print(f"error: failed with only the declared dependencies: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _bytes_of_tests(package: Package) -> int:
    return sum(path.stat().st_size for path in (package.folder / "tests").rglob("*.py"))


def _run_tests(package: Package, extras: list[str]) -> tuple[int, float, str]:
    """The exit code, the seconds, and the output."""
    started = time.monotonic()
    command = [UV, "run", "--quiet", "--package", package.name, "--exact", "--isolated"]
    command += ["--no-default-groups", "--group", "test"]
    command += [word for extra in extras for word in ("--extra", extra)]
    # Use a separate cache, since runs in the shared environment would keep rewriting it. Leave out slow tests, since
    # fast tests have the same imports.
    command += [
        "python",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--durations",
        "8",
        "-m",
        "not slow",
        str(package.folder / "tests"),
    ]
    # An editable install of a sibling, or PYTHONPATH, would make undeclared imports work again.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, time.monotonic() - started, done.stdout


def _verdict(code: int) -> str:
    return {0: "passed", NO_TESTS_COLLECTED: "has no tests"}.get(code, f"FAILED (exit {code})")


if __name__ == "__main__":
    sys.exit(main())
