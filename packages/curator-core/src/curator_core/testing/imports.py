"""Is importing a package light? Checks that it starts nothing and loads nothing heavy, for any package of stages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

ENGINES = frozenset({"cosmos_xenna", "nvidia.dali", "ray", "torch", "transformers"})
_PACKAGES = frozenset({"curator_backends", "curator_core", "curator_image", "curator_text"})

_IMPORT = """
import os, sys, threading, time
environment = dict(os.environ)
started = time.perf_counter()
import {package}
took = time.perf_counter() - started
assert dict(os.environ) == environment, "the import changed environment variables"
assert threading.active_count() == 1, f"the import started threads: {{threading.enumerate()}}"
print(took, *sys.modules)
"""

_IMPORT_ALL = """
import pkgutil, sys
from importlib import import_module
import {package}
for found in pkgutil.walk_packages({package}.__path__, "{package}."):
    if not found.name.endswith("__main__"):
        import_module(found.name)
print(0, *sys.modules)
"""


@dataclass(frozen=True)
class ImportCheck:
    """One thing that must hold when a package is imported."""

    name: str
    run: Callable[[], None]


def import_checks(package: str, *, every_module: bool = True) -> list[ImportCheck]:
    """What must hold when ``package`` is imported, each check in a new interpreter.

    ``every_module=False`` leaves out the check that all its modules import without an engine, for a package that is
    made for one::

        @pytest.mark.parametrize("check", import_checks("my_package"), ids=lambda check: check.name)
        def test_importing(check):
            check.run()
    """
    engines_and_siblings = (ENGINES | _PACKAGES) - {package, "curator_core"}

    def loads_nothing_heavy() -> None:
        _, modules = _fresh(_IMPORT.format(package=package))
        _require_absent(modules, engines_and_siblings | {"pandas"}, f"import {package}")

    def every_module_imports() -> None:
        # `curate stages` lists what a light install has, so a stage's engine loads in its setup(), not with its module.
        _, modules = _fresh(_IMPORT_ALL.format(package=package))
        _require_absent(modules, engines_and_siblings, f"importing every module of {package}")

    def is_quick() -> None:
        # The best of three: the first may find the files cold, and a busy machine is not the package's fault.
        best = min(_fresh(_IMPORT.format(package=package))[0] for _ in range(3))
        assert best < 0.5, f"import {package} takes {best:.2f} s"

    checks = [
        ImportCheck("it starts nothing and loads nothing heavy", loads_nothing_heavy),
        ImportCheck("it takes less than half a second", is_quick),
    ]
    if every_module:
        checks.append(ImportCheck("every module imports without an engine", every_module_imports))
    return checks


def _fresh(code: str) -> tuple[float, set[str]]:
    """The number that ``code`` prints in a new interpreter, and the modules that it has loaded."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    took, *modules = done.stdout.split()
    return float(took), set(modules)


def _require_absent(modules: set[str], unwanted: frozenset[str], doing: str) -> None:
    assert not (found := sorted(modules & unwanted)), f"{doing} loads {', '.join(found)}"
