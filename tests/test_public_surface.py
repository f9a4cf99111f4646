"""The public surface is recorded, so that changes to it are visible."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import surface
from workspace import Package, packages


@pytest.mark.slow
@pytest.mark.parametrize("package", packages(), ids=lambda package: package.name)
def test_the_public_surface_of_each_package_is_as_recorded(package: Package) -> None:
    assert surface.differences(package) == "", "if the change is meant, `make generate` records it"


@pytest.mark.parametrize("package", packages(), ids=lambda package: package.name)
def test_public_names_are_listed_once_documented_and_have_their_own_name(package: Package) -> None:
    for name in surface.public_packages(package.module):
        module = importlib.import_module(name)
        assert len(set(module.__all__)) == len(module.__all__), name
        assert set(module.__all__) <= set(dir(module)), name
        assert not hasattr(module, "DocumentBatsch"), name
        for public in module.__all__:
            value = getattr(module, public)
            assert value is getattr(module, public)
            if isinstance(value, type):  # the name and types of a function may be enough
                assert value.__doc__, f"{name}.{public} says nothing of itself"
                assert value.__name__ == public


SOURCE = """
from dataclasses import dataclass
from enum import StrEnum
__all__ = ["Colour", "LIMIT", "Limits", "Strict", "measure"]
LIMIT = 3
class Colour(StrEnum):
    RED = "red"
@dataclass
class Limits:
    least: int = 1
    _hidden: int = 0
    def admits(self, value: float) -> bool: ...
class Strict(Limits):
    def admits(self, value: float) -> bool: ...
    def explain(self, *, words: int = 5) -> str: ...
def measure(text: str, *, unit: str = "chars") -> int: ...
def helper(): ...
"""


def test_a_surface_shows_names_parameters_defaults_and_types_and_nothing_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "curator_shown"
    (tmp_path / module / "_inner").mkdir(parents=True)
    (tmp_path / module / "parts").mkdir()
    (tmp_path / module / "__init__.py").write_text(SOURCE)
    (tmp_path / module / "_inner" / "__init__.py").write_text("__all__ = []")
    (tmp_path / module / "parts" / "__init__.py").write_text(f"from {module} import measure\n__all__ = ['measure']")
    monkeypatch.syspath_prepend(tmp_path)
    assert surface.surface(module).splitlines() == [
        "curator_shown",
        "  Colour is StrEnum",
        "    RED = 'red'",
        "  LIMIT: int = 3",
        "  Limits(least: int = 1)",
        "    admits(value: float) -> bool",
        "  Strict(least: int = 1) is Limits",
        "    explain(*, words: int = 5) -> str",
        "  measure(text: str, *, unit: str = 'chars') -> int",
        "",
        "curator_shown.parts",
        "  measure = curator_shown.measure",
    ]
