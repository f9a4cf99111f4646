"""Which group is each row in, for work that is done group by group?"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from curator_core.across.documents import folders_of
from curator_core.arrow.row_hash import column_of
from curator_core.errors import UsageError
from curator_core.model.task import DocumentBatch

COLLECTION = "collection"


def groups_of(task: DocumentBatch, by: str | None, bases: Sequence[str], what: str) -> pa.DictionaryArray | None:
    """The group of each row as text: the value of the column ``by``; None if all rows are one group.

    If the data have no column ``collection``, it is the file's first folder below one of ``bases``.
    """
    if by is None:
        return None
    table = task.to_pyarrow()
    if by == COLLECTION and by not in table.column_names:
        return folders_of(task, bases, f"{what} {by!r} is the folder of a row's file")
    values = column_of(table, by)
    if pa.types.is_nested(values.type):
        raise UsageError(f"{what} {by!r} must hold text or other plain values, not {values.type}")
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_floating(values.type):
        values = _whole(values)
    text = values.cast(pa.string()).combine_chunks()
    return text.dictionary_encode(null_encoding="encode")


def _whole(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert floats to integers if all of them are whole: the type of numbers may depend on the file."""
    try:
        return values.cast(pa.int64())
    except pa.ArrowInvalid:
        return values
