"""Finds the packages of the workspace by their pyproject files."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
UV = str(ROOT / "tools" / "uv.sh")


@dataclass(frozen=True)
class Package:
    """One package of the workspace. ``requirements`` includes the requirements of its extras."""

    name: str
    version: str
    folder: Path
    requirements: tuple[Requirement, ...]
    extras: tuple[str, ...]
    sources: frozenset[str]
    scripts: tuple[str, ...]

    @property
    def module(self) -> str:
        """The import name of the package."""
        return self.name.replace("-", "_")


def read_package(folder: Path) -> Package:
    """The package whose ``pyproject.toml`` is in ``folder``."""
    config: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    project = config["project"]
    extras: dict[str, list[str]] = project.get("optional-dependencies", {})
    lines = [*project.get("dependencies", []), *(line for lines in extras.values() for line in lines)]
    return Package(
        name=project["name"],
        version=project["version"],
        folder=folder,
        requirements=tuple(Requirement(line) for line in lines),
        extras=tuple(extras),
        sources=frozenset(config.get("tool", {}).get("uv", {}).get("sources", {})),
        scripts=tuple(project.get("scripts", {})),
    )


def packages(root: Path = ROOT) -> list[Package]:
    """All packages under ``packages/``, in order of their names."""
    return [read_package(path.parent) for path in sorted(root.glob("packages/*/pyproject.toml"))]


def with_siblings(package: Package, known: list[Package]) -> list[Package]:
    """``package`` and every workspace package that it requires, directly or through another."""
    by_name = {one.name: one for one in known}
    found: dict[str, Package] = {}
    waiting = [package]
    while waiting:
        one = waiting.pop()
        if one.name not in found:
            found[one.name] = one
            waiting += [by_name[r.name] for r in one.requirements if r.name in by_name]
    return list(found.values())
