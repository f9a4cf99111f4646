"""How is a value of a row shown to a person, and how is it written in JSON?"""

from __future__ import annotations

import json
import math
from typing import Any

import pyarrow as pa

from curator_core import formatting
from curator_core.arrow.json_column import values_of


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table as Python values; a fixed-shape tensor becomes a text with its shape."""
    columns = {}
    for column in table.schema:
        values = table.column(column.name)
        if isinstance(column.type, pa.FixedShapeTensorType):
            columns[column.name] = [f"(a tensor of {' x '.join(map(str, column.type.shape))})"] * len(values)
        else:
            columns[column.name] = values_of(values)
    return [{name: values[row] for name, values in columns.items()} for row in range(table.num_rows)]


def kind_of(column: pa.Field) -> str:
    """The type of a column as a user would write it in a schema."""
    if isinstance(column.type, pa.JsonType):
        return "json"
    if isinstance(column.type, pa.FixedShapeTensorType):
        return f"tensor of {' x '.join(map(str, column.type.shape))} {column.type.value_type}"
    return str(column.type)


def text_of(value: Any) -> str:
    """A value as text, in full: text as it is, other values as JSON. For binary data it is only their size."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        if formatting.is_binary(value) or not _is_utf8(value):
            return f"({formatting.size(len(value))} of binary data)"
        return value.decode("utf-8")
    if isinstance(value, dict | list | bool) or value is None:
        return json.dumps(json_value(value), ensure_ascii=False)
    return str(value)


def json_value(value: Any) -> Any:
    """A value that JSON can express: binary data become their size, and floats that JSON lacks (NaN) become their name."""
    if isinstance(value, str):
        return formatting.plain(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return {"bytes": len(value)} if formatting.is_binary(value) or not _is_utf8(value) else value.decode("utf-8")
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return str(value)


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
