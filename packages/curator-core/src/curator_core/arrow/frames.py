"""How does a table become a pandas frame, and a table again, without losing what pandas cannot express?

A column of JSON is a column of Python values in the frame. The names of these columns and the marks of fields
(`kinds.marked`) are stored in ``frame.attrs``. pandas keeps them in selections, copies and additions; a newly made
frame has none.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from curator_core.arrow.arrays import array
from curator_core.arrow.json_column import JSON, values_of

if TYPE_CHECKING:
    import pandas as pd

_FIELDS = "curator.fields"


def to_frame(table: pa.Table) -> pd.DataFrame:
    """The table as a frame, without a copy if the types allow it."""
    import pandas as pd  # deferred: the import takes 0.3 s, and only stages that use it should wait for it

    columns_of_json = {part.name: table.column(part.name) for part in table.schema if part.type == JSON}
    notes: dict[str, Any] = {}
    for part in table.schema:
        marks = {key.decode(): value.decode() for key, value in (part.metadata or {}).items()}
        if marks or part.name in columns_of_json:
            notes[part.name] = {"json": part.name in columns_of_json, "marks": marks}
    rest = table.drop_columns(list(columns_of_json))
    frame = rest.to_pandas(split_blocks=True) if rest.num_columns else pd.DataFrame(index=range(len(table)))
    for at, name in enumerate(table.column_names):
        if name in columns_of_json:
            frame.insert(at, name, pd.Series(values_of(columns_of_json[name]), index=frame.index, dtype=object))
    if notes:
        frame.attrs[_FIELDS] = notes
    return frame


def from_frame(frame: pd.DataFrame) -> pa.Table:
    """The frame as a table, with its columns of JSON and the marks of its fields restored."""
    notes = frame.attrs.get(_FIELDS)
    if not notes:
        return pa.Table.from_pandas(frame, preserve_index=False)
    texts = {name for name, note in notes.items() if note["json"] and name in frame.columns}
    rest = frame.drop(columns=list(texts))
    rest.attrs = {}  # otherwise they would be written to the table's metadata
    table = pa.Table.from_pandas(rest, preserve_index=False)
    columns, fields = [], []
    for name in map(str, frame.columns):
        if name in texts:
            storage = array([_text_of(value) for value in frame[name]], JSON.storage_type)
            column, part = pa.ExtensionArray.from_storage(JSON, storage), pa.field(name, JSON)
        else:
            column, part = table.column(name), table.schema.field(name)
        columns.append(column)
        fields.append(part.with_metadata(notes.get(name, {}).get("marks") or None))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=table.schema.metadata))


def _text_of(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):  # pandas uses NaN for missing values
        return None
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)
    # A lone surrogate can only be written as an escape.
    return (
        text
        if text.isascii() or text.encode("utf-8", "replace").decode() == text
        else json.dumps(value, default=_plain)
    )


def _plain(value: Any) -> Any:
    """The Python value of a numpy value."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a value of type {type(value).__name__} is not a JSON value")
