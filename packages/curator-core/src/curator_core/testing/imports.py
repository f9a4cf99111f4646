"""Is importing a package light? The checks show that it starts nothing and loads nothing heavy, for any package of
stages.
"""

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
    """A condition that must hold when a package is imported."""

    name: str
    run: Callable[[], None]


def import_checks(package: str, *, every_module: bool = True) -> list[ImportCheck]:
    """The checks for the import of ``package``, each in a new interpreter.

    ``every_module=False`` leaves out the check that all modules import without an engine, for packages that are made
    for an engine::

        @pytest.mark.parametrize("check", import_checks("my_package"), ids=lambda check: check.name)
        def test_importing(check):
            check.run()
    """
    engines_and_siblings = (ENGINES | _PACKAGES) - {package, "curator_core"}

    def loads_nothing_heavy() -> None:
        _, modules = _fresh(_IMPORT.format(package=package))
        _require_absent(modules, engines_and_siblings | {"pandas"}, f"import {package}")

    def every_module_imports() -> None:
        # `curate stages` must work in a light installation, so a stage loads its engine in setup(), not with its
        # module.
        _, modules = _fresh(_IMPORT_ALL.format(package=package))
        _require_absent(modules, engines_and_siblings, f"importing every module of {package}")

    def is_quick() -> None:
        # The best of three times counts: at the first, files may not be cached, and the machine may be busy.
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
