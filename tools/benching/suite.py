"""Reads the file of benchmarks: entries with their gates, the selected entries, and groups that run in turns."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Value = bool | int | float | str


class BenchError(Exception):
    """The file or an option is wrong, or a command failed; the message says which and what to do."""


class Strict(BaseModel):
    """Base of the parts of the file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Ratio(Strict):
    """A speed gate relative to the machine: ``metric`` divided by ``to``, which is ``entry.metric``."""

    metric: str
    to: str
    min: float | None = None
    max: float | None = None


class Resources(Strict):
    """The resources of the command; if the machine lacks them, the entry is skipped."""

    cpus: int | None = Field(default=None, ge=1)
    memory_gb: float = 0.0
    gpus: int = 0


class Data(Strict):
    """The command that makes the data of an entry, and the checksums of the data.

    ``sha256`` has a checksum for every pattern of file names. It covers the rows: the lines of JSON files, in the order
    of their names. The bytes of Parquet files differ between writers, so their rows are converted to the same lines.
    """

    make: str
    sha256: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _of_a_command(cls, given: Any) -> Any:
        return {"make": given} if isinstance(given, str) else given


class Entry(Strict):
    """One benchmark."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    about: str = ""
    tags: tuple[str, ...] = ()
    data: Data | None = None
    command: str
    peer: str | None = None
    env: dict[str, str] = {}
    resources: Resources = Resources()
    timeout_s: float = 600.0
    repeats: int = Field(default=3, ge=1)
    exact: dict[str, Value] = {}
    min: dict[str, float] = {}
    max: dict[str, float] = {}
    ratio: tuple[Ratio, ...] = ()

    @property
    def compared_with(self) -> set[str]:
        """The entries with which the ratios of this one compare."""
        return {ratio.to.partition(".")[0] for ratio in self.ratio}


class Suite(Strict):
    """The whole file."""

    entries: tuple[Entry, ...] = ()


def load(path: Path) -> list[Entry]:
    """The entries of a file; raises ``BenchError`` with the place of a mistake."""
    try:
        suite = Suite.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise BenchError(f"{path}: {error}") from error
    names = [entry.name for entry in suite.entries]
    for entry in suite.entries:
        if names.count(entry.name) > 1:
            raise BenchError(f"{path}: two entries are named {entry.name!r}; rename one")
        for ratio in entry.ratio:
            if (other := ratio.to.partition(".")[0]) not in names or "." not in ratio.to:
                raise BenchError(
                    f"{path}: {entry.name}: ratio.to is {ratio.to!r}; it must be ENTRY.METRIC, but there is "
                    f"{'such an entry but no metric' if other in names else f'no entry {other!r}'}"
                )
            if ratio.min is None and ratio.max is None:
                raise BenchError(f"{path}: {entry.name}: the ratio of {ratio.metric!r} has neither min nor max")
    return list(suite.entries)


def choose(entries: list[Entry], tags: Iterable[str], only: Iterable[str]) -> list[Entry]:
    """The entries with one of the tags or names (all if none is given), and the entries with which they are compared."""
    tags, only = set(tags), set(only)
    known_tags, names = {tag for entry in entries for tag in entry.tags}, {entry.name for entry in entries}
    for what, wanted, known in (("tag", tags, known_tags), ("entry", only, names)):
        if unknown := sorted(wanted - known):
            raise BenchError(f"no {what} {unknown[0]!r}; there are: {', '.join(sorted(known)) or 'none'}")
    chosen = {e.name for e in entries if (not tags and not only) or e.name in only or tags & set(e.tags)}
    while more := {name for e in entries if e.name in chosen for name in e.compared_with} - chosen:
        chosen |= more
    return [entry for entry in entries if entry.name in chosen]


def groups(entries: list[Entry]) -> list[list[Entry]]:
    """Groups of entries that are compared with one another, in the order of the file."""
    found: list[list[Entry]] = []
    for entry in entries:
        tied = [g for g in found if any(entry.name in o.compared_with or o.name in entry.compared_with for o in g)]
        merged = [*(one for group in tied for one in group), entry]
        found = [group for group in found if group not in tied] + [merged]
    return found
