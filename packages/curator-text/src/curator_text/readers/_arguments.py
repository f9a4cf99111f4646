"""Checks of the parameters that readers have in common."""

from __future__ import annotations

from collections.abc import Sequence

from curator_core.errors import UsageError
from curator_core.files import parse_bytes


def checked_columns(columns: Sequence[str] | None, stage: str) -> tuple[str, ...] | None:
    """The columns to read, each once; None for all."""
    if columns is None:
        return None
    if isinstance(columns, str) or not all(isinstance(name, str) for name in columns):
        raise UsageError(f"{stage}.columns must be a list of names, such as ['id', 'text'], not {columns!r}")
    if not columns:
        raise UsageError(f"{stage}.columns is empty: name the columns to read, or leave it out to read all")
    return tuple(dict.fromkeys(columns))


def bounded_bytes(name: str, value: int | str) -> int:
    """A size up to the gibibyte that one Arrow column of text can hold with room to spare."""
    size = parse_bytes(value, name)
    if not 64 <= size <= 1 << 30:
        raise UsageError(f"{name} must be between 64 bytes and 1 GiB, not {value!r}")
    return size
