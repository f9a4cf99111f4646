"""The parameters that readers share, with their checks and effects."""

from __future__ import annotations

import codecs
import contextlib
from collections.abc import Sequence

import pyarrow as pa

from curator_core.arrow.arrays import array
from curator_core.errors import UsageError
from curator_core.stages.files import parse_bytes
from curator_core.storage import file_name


def checked_columns(columns: Sequence[str] | None, stage: str) -> tuple[str, ...] | None:
    """The columns to read, without repetition; None means all."""
    if columns is None:
        return None
    if isinstance(columns, str) or not all(isinstance(name, str) for name in columns):
        raise UsageError(f"{stage}.columns must be a list of names, such as ['id', 'text'], not {columns!r}")
    if not columns:
        raise UsageError(f"{stage}.columns is empty: name the columns to read, or leave it out to read all")
    return tuple(dict.fromkeys(columns))


def with_path(table: pa.Table, path_column: str | None, path: str) -> pa.Table:
    """The table, with the path of its file in the column ``path_column`` if that is set."""
    if not path_column:
        return table
    if path_column in table.column_names:
        raise UsageError(f"{file_name(path)!r} already has a column {path_column!r}: give path_column another name")
    return table.append_column(path_column, pa.repeat(array([path_text(path)], pa.string())[0], table.num_rows))


def path_text(path: str) -> str:
    """A path as text; a file name on Linux may be invalid text."""
    return path.encode("utf-8", "replace").decode()


def twice_named(names: Sequence[str], path: str) -> str | None:
    """The error for a file with two columns of the same name, since only one of them could be addressed."""
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is None:
        return None
    return f"{file_name(path)!r} has two columns {twice!r}: rename one of them, or read other columns with columns=[…]"


def checked_encoding(encoding: str, stage: str) -> str:
    """Python's name for a text encoding."""
    try:
        with contextlib.suppress(UnicodeError):
            b"a".decode(encoding)
        return codecs.lookup(encoding).name
    except (LookupError, TypeError) as error:  # codecs such as `base64` exist, but are not text encodings
        raise UsageError(
            f"{stage}.encoding must be an encoding of text, such as 'utf-8' or 'cp1252', not {encoding!r}"
        ) from error


def bounded_bytes(name: str, value: int | str) -> int:
    """A size of at most 1 GiB, which one Arrow column of text can safely hold."""
    size = parse_bytes(value, name)
    if not 64 <= size <= 1 << 30:
        raise UsageError(f"{name} must be between 64 bytes and 1 GiB, not {value!r}")
    return size
