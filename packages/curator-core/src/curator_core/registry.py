"""Which stages and executors do installed packages provide? Their names are found without importing the packages.

A package registers with entry points::

    [project.entry-points."curator.stages"]
    JsonlReader = "curator_text.readers:JsonlReader"

Other stages and executors are named by their dotted paths, ``my_package.stages.MyStage``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoints, entry_points
from typing import Any

from curator_core.errors import CuratorError, MissingDependency, UsageError, nearest

STAGES = "curator.stages"
EXECUTORS = "curator.executors"
WORKFLOWS = "curator.workflows"
_KIND = {STAGES: "stage", EXECUTORS: "executor", WORKFLOWS: "workflow"}

# Advice on where to look for a name that is not registered; nothing is imported.
_MORE = {
    STAGES: " Stages for text are in curator-text, those for images in curator-image.",
    EXECUTORS: ' ray_data comes with pip install "curator-backends[ray]", xenna with "curator-backends[xenna]".',
}
# Executors of packages that may not be installed: their names, and the commands that install them.
_ELSEWHERE = {
    "ray_data": 'pip install "curator-backends[ray]"',
    "xenna": 'pip install "curator-backends[xenna]"',
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered name: the location of its code, and the package that owns it."""

    name: str
    target: str
    owner: str


def entries(group: str) -> dict[str, list[Entry]]:
    """All registered names of a group in order, each with its owners; a name with more than one owner is a conflict."""
    return _entries(group, tuple(sys.path))


@lru_cache(maxsize=16)
def _entries(group: str, path: tuple[str, ...]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for point in _points(path).select(group=group):
        entry = Entry(point.name, point.value, point.dist.name if point.dist else "an unnamed package")
        owners = found.setdefault(entry.name, [])
        # A package that is on the path twice (a checkout and its installation) counts as one owner.
        if all(entry.target != other.target for other in owners):
            owners.append(entry)
    return dict(sorted(found.items()))


@lru_cache(maxsize=1)
def _points(path: tuple[str, ...]) -> EntryPoints:  # noqa: ARG001 - the cache depends on sys.path
    # This takes 30 ms with a hundred installed packages, so all groups are read at once.
    return entry_points()


def load(group: str, name: str) -> Any:
    """The object that a registered name or a dotted path stands for."""
    kind = _KIND[group]
    if not isinstance(name, str) or not name:
        raise UsageError(f"the name of a {kind} must be text, not {name!r}")
    known = entries(group)
    owners = known.get(name, [])
    if len(owners) > 1:
        both = " and ".join(f"{entry.owner} ({entry.target})" for entry in owners)
        raise UsageError(
            f"{kind} {name!r} is registered by {both}: use the dotted path of the one you mean, or uninstall the other"
        )
    if owners:
        return _load_target(owners[0].target, f"{kind} {name!r} of {owners[0].owner}")
    if "." in name or ":" in name:
        return _load_target(name, f"{kind} {name!r}")
    if group == EXECUTORS and name in _ELSEWHERE:
        raise MissingDependency(f"executor {name!r} is not installed: {_ELSEWHERE[name]}")
    packages = sorted({entry.owner for found in known.values() for entry in found})
    raise UsageError(
        f"there is no {kind} {name!r}{_nearest_name(group, name, known) or '.'} Installed packages with {kind}s: "
        f"{', '.join(packages) or 'none'}.{_MORE.get(group, '')} To name your own {kind}, use its dotted path, "
        "package.module.Name"
    )


def _nearest_name(group: str, name: str, known: Iterable[str]) -> str:
    """A hint at the spelling. Users write executors in many ways: ``RayData``, ``ray-data``, ``ray``."""
    if group != EXECUTORS:
        return nearest(name, known)
    spellings = {_letters(key): key for key in (*_ELSEWHERE, *known)}
    letters = _letters(name).removesuffix("executor")
    close = spellings.get(letters) or next((key for text, key in spellings.items() if text.startswith(letters)), None)
    return f"; did you mean {close!r}?" if letters and close else nearest(name, spellings.values())


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _load_target(target: str, what: str) -> Any:
    module_name, colon, attribute = target.partition(":")
    if not colon:
        module_name, _, attribute = target.rpartition(".")
    try:
        found = importlib.import_module(module_name)
    except CuratorError:
        raise
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise UsageError(f"{what}: there is no module {missing!r}; is its package installed?") from error
        raise UsageError(
            f"{what} cannot be imported: it needs the module {missing!r}, which is not installed"
        ) from error
    except Exception as error:
        raise UsageError(f"{what} cannot be imported: {type(error).__name__}: {error}") from error
    for step in attribute.split("."):
        try:
            found = getattr(found, step)
        except AttributeError:
            hint = nearest(step, [name for name in dir(found) if not name.startswith("_")])
            raise UsageError(f"{what}: {module_name!r} has no {attribute!r}{hint}") from None
    return found
