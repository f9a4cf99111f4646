"""Formats rows as lines of JSON, and values as JSON text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import array
from curator_core.arrow.json_column import JSON
from curator_core.arrow.kinds import as_whole, has_floats, is_late, is_whole
from curator_core.errors import UsageError

# How many rows become Python objects at a time; enough that a slice costs little, and few enough to stay in the cache.
_SLICE_ROWS = 256


def json_lines(table: pa.Table, omit_nulls: bool = False) -> Iterator[bytes]:
    """The rows of a table as lines of JSON, each with its line end."""
    names = table.column_names
    dumps = orjson.dumps
    option = orjson.OPT_APPEND_NEWLINE
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        raise UsageError(
            f"there are two columns {twice!r}, but a line of JSON can contain only one of them: rename the other"
        )
    if not names:
        yield from [b"{}\n"] * table.num_rows
        return
    columns = [_json_column(column, part) for part, column in zip(table.schema, table.columns, strict=True)]
    raw = [name for name, (_, is_json) in zip(names, columns, strict=True) if is_json]
    absent = [] if omit_nulls else [part.name for part in table.schema if is_late(part)]
    table = pa.table([column for column, _ in columns], names)
    for start in range(0, table.num_rows, _SLICE_ROWS):
        for row in table.slice(start, _SLICE_ROWS).to_pylist():
            for name in raw:
                if row[name] is not None:
                    row[name] = orjson.Fragment(row[name])
            for name in absent:
                if row[name] is None:
                    del row[name]
            if omit_nulls:
                row = {name: value for name, value in row.items() if value is not None}  # noqa: PLW2901
            yield dumps(row, default=_inner_value, option=option)


def json_values(column: pa.ChunkedArray, part: pa.Field) -> pa.ChunkedArray:
    """The column as JSON text, with each value formatted as in `json_lines`."""
    if part.type == JSON:
        return column
    given, is_json = _json_column(column, part)
    if is_json:
        texts = given.to_pylist()
    else:
        texts = [
            None if value is None else orjson.dumps(value, default=_inner_value).decode() for value in given.to_pylist()
        ]
    return pa.chunked_array([pa.ExtensionArray.from_storage(JSON, array(texts, pa.string()))])


def value_text(value: Any) -> str:
    """A JSON value as text; raises UnicodeEncodeError for a lone surrogate."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # integers over 64 bits, deep nesting, a lone surrogate
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if not text.isascii():
            text.encode()
        return text


def _inner_value(value: Any) -> Any:
    """Convert values that `orjson` cannot. They occur only inside lists and objects, since columns of such values are
    cast before.
    """
    if isinstance(value, Decimal):
        return orjson.Fragment(str(value))
    if isinstance(value, datetime):  # a subclass, such as the one of pandas for nanoseconds
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _json_column(column: pa.ChunkedArray, part: pa.Field) -> tuple[pa.ChunkedArray, bool]:
    """A column in a form that `orjson` takes, and whether it is already JSON text."""
    kind = column.type
    if kind == JSON:
        return _storage(column), True
    if pa.types.is_decimal(kind):
        return column.cast(pa.string()), True
    if pa.types.is_timestamp(kind):
        return pc.replace_substring(column.cast(pa.string()), " ", "T", max_replacements=1), False
    if pa.types.is_date(kind) or pa.types.is_time(kind):
        return column.cast(pa.string()), False
    if pa.types.is_dictionary(kind):
        return _json_column(column.cast(kind.value_type), part)
    if isinstance(kind, pa.BaseExtensionType):
        return _json_column(_storage(column), part)
    if _holds(kind, _has_no_json):
        raise UsageError(
            f"column {part.name!r} is {kind}, which cannot be written as JSON: leave it out with columns=[…], or write "
            "Parquet"
        )
    if _holds(kind, pa.types.is_map):
        return _texts(column, lambda value: _objects(value, kind)), True
    if is_whole(part) and has_floats(kind) and as_whole is not None:
        return _texts(column, as_whole), True
    return column, False


def _texts(column: pa.ChunkedArray, change: Callable[[Any], Any]) -> pa.ChunkedArray:
    texts = [
        None if value is None else orjson.dumps(change(value), default=_inner_value).decode()
        for value in column.to_pylist()
    ]
    return pa.chunked_array([array(texts, pa.string())])


def _objects(value: Any, kind: pa.DataType) -> Any:
    """A map as an object if its keys are distinct texts, and otherwise as a list of pairs."""
    if value is None or not _holds(kind, pa.types.is_map):
        return value
    if pa.types.is_map(kind):
        pairs = [(key, _objects(item, kind.item_type)) for key, item in value]
        return dict(pairs) if _is_object(pairs) else pairs
    if pa.types.is_struct(kind):
        return {part.name: _objects(value[part.name], part.type) for part in kind}
    return [_objects(item, kind.value_type) for item in value]


def _is_object(pairs: list[tuple[Any, Any]]) -> bool:
    keys = [key for key, _ in pairs]
    return all(isinstance(key, str) for key in keys) and len(set(keys)) == len(keys)


def _storage(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([chunk.storage for chunk in column.chunks], type=column.type.storage_type)


def _holds(kind: pa.DataType, test: Callable[[pa.DataType], bool]) -> bool:
    """Whether a type, or a type inside it, passes a test."""
    if test(kind):
        return True
    if pa.types.is_map(kind):
        return _holds(kind.key_type, test) or _holds(kind.item_type, test)
    return pa.types.is_nested(kind) and any(_holds(kind.field(at).type, test) for at in range(kind.num_fields))


def _has_no_json(kind: pa.DataType) -> bool:
    tests = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_fixed_size_binary,
        pa.types.is_binary_view,
        pa.types.is_duration,
        pa.types.is_interval,
    )
    return any(test(kind) for test in tests)
