"""What are the values in a column whose values are stored as JSON text because their types differ?

Readers of JSON keep such values in a column of Arrow's ``json`` type (`JSON`). Texts in it are in quotation marks, so
code that needs the values uses this module.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import array, null, scalar

JSON = pa.json_(pa.utf8())
# A larger float may stand for several integers.
_EXACT = 1 << 53
_TEXT = pa.string()


def values_of(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """The values as Python values; those of a column of JSON are parsed."""
    values: list[Any] = column.to_pylist()
    if column.type != JSON:
        return values
    return [None if value is None else json.loads(value) for value in values]


def texts_in(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, list[int]]:
    """The texts of a column of JSON, with null for other values, and the rows that have another value."""
    values = values_of(column)
    others = [row for row, value in enumerate(values) if value is not None and not isinstance(value, str)]
    return pa.chunked_array([array([v if isinstance(v, str) else None for v in values], _TEXT)]), others


def holds_texts(kind: pa.DataType) -> bool:
    """Whether a column of this type may contain texts: a column of text, of JSON, or of nulls only."""
    if pa.types.is_dictionary(kind):
        return holds_texts(kind.value_type)
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return kind == JSON or any(test(kind) for test in tests)


def only_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The texts of a column of any type; other values become null."""
    if column.type == JSON:
        return texts_in(column)[0]
    return column if holds_texts(column.type) else pa.chunked_array([pa.nulls(len(column), _TEXT)])


def as_text(values: pa.Array) -> pa.Array:
    """Values as text. In a column of JSON, texts lose their quotation marks and other values stay JSON.

    A whole number has the same text in a column of integers, of floats and of JSON, since the other values of a block
    decide about the type of the column.
    """
    kind = values.type
    if kind == JSON:
        return array([None if v is None else _plain_text(v) for v in values.to_pylist()], _TEXT)
    if not pa.types.is_floating(kind):
        return values if pa.types.is_string(kind) else values.cast(_TEXT)
    if pa.types.is_float16(kind):
        values, kind = values.cast(pa.float32()), pa.float32()
    whole = pc.and_(pc.equal(pc.floor(values), values), pc.less_equal(pc.abs(values), scalar(float(_EXACT))))
    integers = pc.if_else(whole, values, null(kind)).cast(pa.int64())
    return pc.coalesce(integers.cast(_TEXT), values.cast(_TEXT))


def _plain_text(value: str) -> str:
    """The text of a value of a column of JSON."""
    if value[0] in "{[tfn":
        return value
    plain = whole_as_integers(json.loads(value))
    return plain if isinstance(plain, str) else str(plain) if isinstance(plain, int) else value


def compared(column: pa.Array | pa.ChunkedArray, test: Callable[[Any], bool | None]) -> pa.Array:
    """Whether each value of a column of JSON passes a test; null if there is no value or it cannot be tested."""
    return array([None if value is None else test(value) for value in values_of(column)], pa.bool_())


def whole_as_integers(value: Any) -> Any:
    """A value with its whole numbers as integers, since the other values of a column may have made them floats."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and -_EXACT <= value <= _EXACT else value
    if isinstance(value, dict):
        return {key: whole_as_integers(item) for key, item in value.items()}
    return [whole_as_integers(item) for item in value] if isinstance(value, list | tuple) else value
