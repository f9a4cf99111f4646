"""Checks that the columns of a stage exist and are text, and that their names differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa

from curator_core.arrow.arrays import array
from curator_core.arrow.json_column import JSON, texts_in
from curator_core.arrow.row_hash import column_of
from curator_core.errors import UsageError
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch

_RAW_KEPT = 1 << 16


def with_text(stage: ProcessingStage[Any, Any], task: DocumentBatch, name: str) -> DocumentBatch:
    """The batch with the column as text. A column of JSON may contain both text and other values. Rows with other
    values are rejected here, not in the reader, because only a stage that needs text cannot use them.
    """
    table = task.to_pyarrow()
    column = column_of(table, name)
    if column.type != JSON:
        return task
    texts, others = texts_in(column)
    for row in others:
        value = column[row].as_py()
        message = (
            f"column {name!r} contains {value[:60]}, which is not text: "
            f"Cast(columns={{{name!r}: 'string'}}) makes it text"
        )
        stage.record_rejected("not text", message=message, raw=value.encode()[:_RAW_KEPT])
    task = task.append_column(name, texts)
    if not others:
        return task
    keep = np.ones(len(texts), np.bool_)
    keep[others] = False
    return task.filter(array(keep))


def not_text(stage: object, name: str, kind: pa.DataType) -> UsageError:
    """The error for a column that should be text and has another type."""
    return UsageError(
        f"{type(stage).__name__} reads text, but the column {name!r} is {kind}: put Cast(columns={{{name!r}: 'string'}}) "
        f"before it, or declare the type where the files are read, as schema: {{{name}: string}}, which rejects other values"
    )


def require_texts(notes: Sequence[Mapping[str, Any]], column: str) -> None:
    """Raise if no document can have text, according to the notes of their batches. A value that is not text is not
    compared, so all documents would stay.
    """
    if notes and not any(note["texts"] for note in notes):
        raise UsageError(
            f"the column {column!r} contains no text in any file, so there is nothing to compare: give the column of "
            f"the texts (column), or declare its type where the files are read, as schema: {{{column}: string}}"
        )


def texts_put_back(column: pa.ChunkedArray, texts: Mapping[int, str | None]) -> pa.ChunkedArray:
    """The column with new texts in some rows; all other values stay unchanged."""
    is_json = column.type == JSON
    values = (column.cast(pa.string()) if is_json else column).to_pylist()
    for row, text in texts.items():
        values[row] = json.dumps(text, ensure_ascii=False) if is_json and text is not None else text
    made = array(values, pa.string() if is_json else column.type)
    return pa.chunked_array([pa.ExtensionArray.from_storage(JSON, made) if is_json else made])


def texts_of(stage: object, table: pa.Table, name: str) -> list[str | None]:
    """The texts of a column; raises an error that names its type if it is not text."""
    column = column_of(table, name)
    if not is_text(column.type):
        raise not_text(stage, name, column.type)
    return cast(list[str | None], column.to_pylist())


def is_text(kind: pa.DataType) -> bool:
    """Whether a column contains text, in any of Arrow's types, or only nulls."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(test(kind) for test in tests)


def check_different(stage: object, *names: str | None) -> None:
    """Raise if two names of columns are equal or one is empty; None means that a column is not used."""
    given = [name for name in names if name is not None]
    if not all(isinstance(name, str) and name for name in given) or len(set(given)) < len(given):
        raise UsageError(f"{type(stage).__name__}'s columns need different names: {', '.join(map(str, given))}")
