"""Which group is each row in, for work that is done group by group?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from curator_core.across.documents import collection_of
from curator_core.arrow.arrays import array
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
        names = {collection_of(path, bases) for path, _ in task._metadata.get("source_files", ())} or {""}
        if len(names) > 1:
            raise UsageError(
                f"{what} {by!r}: one task holds files of several folders ({', '.join(sorted(names)[:3])}): read each file in a "
                "task of its own, with files_per_partition=1"
            )
        codes = array(np.zeros(table.num_rows, np.int32))
        return pa.DictionaryArray.from_arrays(codes, array([names.pop()], pa.string()))
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
