"""Columns that a stage reads are there and are text; those that it adds take no other's place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import pyarrow as pa

from curator_core.arrow.row_hash import column_of
from curator_core.errors import UsageError


def texts_of(stage: object, table: pa.Table, name: str) -> list[str | None]:
    """The texts of a column, or an error that says what it holds instead."""
    column = column_of(table, name)
    if not is_text(column.type):
        raise UsageError(f"{type(stage).__name__} reads text, and the column {name!r} is {column.type}")
    return cast(list[str | None], column.to_pylist())


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds texts, in any of Arrow's ways, or nothing but nulls."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(test(kind) for test in tests)


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
