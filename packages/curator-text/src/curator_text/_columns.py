"""Columns that a stage adds take no other column's place."""

from __future__ import annotations

from collections.abc import Iterable

from curator_core.errors import UsageError


def check_free(stage: object, there: Iterable[str], added: Iterable[str]) -> None:
    """Refuse to add columns that are there already: what is in them would be lost without a word."""
    names = set(there)
    taken = next((name for name in added if name in names), None)
    if taken is not None:
        raise UsageError(
            f"{type(stage).__name__} adds a column {taken!r}, and there is one already: have it named otherwise, or take "
            "that one out before (DropColumns, RenameColumns)"
        )


def check_different(stage: object, *names: str | None) -> None:
    """Refuse names of columns, None for one that is not there, of which two are the same or one is empty."""
    given = [name for name in names if name is not None]
    if not all(isinstance(name, str) and name for name in given) or len(set(given)) < len(given):
        raise UsageError(f"{type(stage).__name__}'s columns need different names: {', '.join(map(str, given))}")
