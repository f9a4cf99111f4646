"""Importing the package starts nothing and loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys

MUST_NOT_LOAD = {
    "ray",
    "torch",
    "transformers",
    "nvidia.dali",
    "cosmos_xenna",
    "curator_backends",
    "curator_text",
}

PROBE = """
import os, sys, threading, time
environment = dict(os.environ)
started = time.perf_counter()
import curator_image
took = time.perf_counter() - started
assert dict(os.environ) == environment, "the import changed environment variables"
assert threading.active_count() == 1, f"the import started threads: {threading.enumerate()}"
print(took, *sys.modules)
"""

EVERY_MODULE = """
import pkgutil, sys
from importlib import import_module
import curator_image
for found in pkgutil.walk_packages(curator_image.__path__, "curator_image."):
    if not found.name.endswith("__main__"):
        import_module(found.name)
print(*sys.modules)
"""


def fresh_import() -> tuple[float, set[str]]:
    """Seconds that the import takes in a new interpreter, and the modules that it loads."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    took, *modules = done.stdout.split()
    return float(took), set(modules)


def test_importing_loads_no_engine_and_no_package_it_must_not_know() -> None:
    _, modules = fresh_import()
    assert not modules & MUST_NOT_LOAD


def test_every_module_imports_without_an_engine() -> None:
    # `curate stages` lists what a light install has, so a stage's engine loads in its setup(), not with its module.
    done = subprocess.run([sys.executable, "-c", EVERY_MODULE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & MUST_NOT_LOAD
