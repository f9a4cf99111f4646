"""How do tables of different types get one schema without changing any value?"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from curator_core.arrow.json_column import JSON
from curator_core.errors import CuratorError, UsageError

# A function that writes the values of a column as JSON, given the column and its field.
type AsJson = Callable[[pa.ChunkedArray, pa.Field], pa.ChunkedArray]


def keeps_values(column: pa.ChunkedArray | pa.Array, kind: pa.DataType) -> bool:
    """Whether each value of a column is the same value in another type."""
    try:
        _spelled_out(column, kind).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return False
    return True


def fitted(table: pa.Table, schema: pa.Schema, as_json: AsJson | None = None) -> pa.Table:
    """The table with exactly the columns and types of a schema that `kinds.one_schema` made for it and others.

    ``as_json`` writes the values of a column as JSON if only JSON fits all tables; without it, such a column is an
    error.
    """
    if table.schema.equals(schema, check_metadata=True):
        return table
    there = set(table.column_names)
    columns = []
    for part in schema:
        if part.name not in there:
            columns.append(nulls(table.num_rows, part.type))
            continue
        columns.append(_widened(table.column(part.name), table.schema.field(part.name), part.type, as_json))
    return pa.table(columns, schema=schema)


def nulls(count: int, kind: pa.DataType) -> pa.ChunkedArray:
    """A column of nothing but nulls."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.chunked_array([pa.ExtensionArray.from_storage(kind, pa.nulls(count, kind.storage_type))])
    return pa.chunked_array([pa.nulls(count, kind)])


def _widened(column: pa.ChunkedArray, part: pa.Field, kind: pa.DataType, as_json: AsJson | None) -> pa.ChunkedArray:
    if part.type == kind:
        return column
    if pa.types.is_null(part.type):
        return nulls(len(column), kind)
    if kind == JSON:
        try:
            if as_json is None:
                raise UsageError(f"{part.type} has no form in JSON")
            return as_json(column, part)
        except UsageError as error:
            raise CuratorError(
                f"column {part.name!r} is {part.type} in some files and another type in others, and JSON, which could hold "
                "both, has no form for it: give both one type in a stage before (Cast), or leave the column out"
            ) from error
    return _spelled_out(column, kind).cast(kind)


def _spelled_out(column: pa.ChunkedArray | pa.Array, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
    """A dictionary column becomes a plain one unless ``kind`` is a dictionary type."""
    if pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(kind):
        return column.cast(column.type.value_type)
    return column
