"""A package declares all its imports, even deferred ones: `make isolation` leaves out slow tests, and this test fills
the gap."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name
from workspace import Package, packages

# Installed with a declared package.
BROUGHT_BY = {
    "attrs": "cosmos-xenna",
    "huggingface_hub": "transformers",
    "loguru": "cosmos-xenna",
    "yarl": "aiohttp",
}
# Used only if the user has installed it, or made by a check in the folder of a run.
OPTIONAL = {"IPython", "brotli", "curator_conformance_pinned", "pynvml"}


@functools.cache
def providers() -> Mapping[str, list[str]]:
    """The installed distributions that provide each module. Reading them takes a second, so it is done once."""
    return packages_distributions()


def imported(folder: Path) -> set[str]:
    """The top-level names of all modules that the files of a folder import, anywhere in a file."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
    return {name.split(".")[0] for name in found}


def undeclared(package: Package) -> list[str]:
    declared = {canonicalize_name(requirement.name) for requirement in package.requirements}
    return sorted(
        name
        for name in imported(package.folder / "src") - set(sys.stdlib_module_names) - OPTIONAL - {package.module}
        if BROUGHT_BY.get(name) not in declared
        and not {canonicalize_name(provider) for provider in providers().get(name, [name])} & declared
    )


@pytest.mark.slow
@pytest.mark.parametrize("package", packages(), ids=lambda package: package.name)
def test_a_package_declares_its_imports(package: Package) -> None:
    assert undeclared(package) == []


@pytest.mark.slow
def test_an_undeclared_import_in_a_function_is_found(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "mine.py").write_text("import json\n\ndef work():\n    from yaml.nodes import Node\n")
    package = Package("mine", "0.1", tmp_path, (), (), frozenset(), ())
    assert undeclared(package) == ["yaml"]
