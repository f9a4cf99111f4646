"""In what order does a score put documents, what does each weigh, and in which group is it?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curator_core import storage
from curator_core.arrow.arrays import array, scalar, to_numpy
from curator_core.arrow.json_column import JSON
from curator_core.arrow.row_hash import column_of
from curator_core.errors import UsageError
from curator_core.model.task import DocumentBatch

ROWS = "rows"
COLLECTION = "collection"
# The key of a score that is missing, behind those of all others.
MISSING = np.uint64((1 << 64) - 1)
_SIGN = np.uint64(1 << 63)
_EXACT = 1 << 53


def score_keys(values: pa.ChunkedArray, what: str, *, highest: bool = True) -> NDArray[np.uint64]:
    """Numbers in whose order the best score comes first: the ``highest``, or the lowest. Null and NaN come last.

    Scores of one column may be integers in some files and floats in others, so all are compared as 64-bit floats. An integer
    that is no float is refused. ``what`` names the column in errors.
    """
    kind = values.type
    if pa.types.is_null(kind):
        return np.full(len(values), MISSING)
    if pa.types.is_boolean(kind):
        values = values.cast(pa.int64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        hint = ": the values are of several kinds, so put Cast before" if kind == JSON else ""
        raise UsageError(f"{what} must hold numbers, not {kind}{hint}")
    if pa.types.is_integer(values.type):
        _check_exact(values, what)
    real = to_numpy(pc.fill_null(values.cast(pa.float64()), scalar(float("nan"))))
    bits = (real + 0.0).view(np.uint64)  # + 0.0 makes one of the two zeros
    ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    # No number has the first or the last place, which the bits of NaN have.
    return np.where(np.isnan(real), MISSING, ~ordered if highest else ordered)


def _check_exact(values: pa.ChunkedArray, what: str) -> None:
    bounds = pc.min_max(values).as_py()
    for value in bounds.values():
        if value is not None and not -_EXACT <= value <= _EXACT:
            raise UsageError(
                f"{what} holds {value}: scores are compared as 64-bit floats, which do not hold every integer beyond "
                f"{_EXACT}; divide them before"
            )


def weights_of(table: pa.Table, weight: str, what: str) -> NDArray[np.int64] | None:
    """What each row weighs: the value of the column ``weight``, a whole number; None where every row weighs 1."""
    if weight == ROWS:
        return None
    values = column_of(table, weight)
    try:
        whole = values.cast(pa.int64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UsageError(f"{what} {weight!r} must hold whole numbers, such as counts of tokens ({error})") from None
    found = to_numpy(pc.fill_null(whole, scalar(0))).astype(np.int64)
    if len(found) and found.min() < 0:
        raise UsageError(f"{what} {weight!r} must hold whole numbers of 0 or more, not {int(found.min())}")
    return found


def groups_of(task: DocumentBatch, by: str | None, bases: Sequence[str], what: str) -> pa.DictionaryArray | None:
    """The group of each row as text: the value of the column ``by``; None where all rows are one group.

    ``collection`` is, in data without such a column, the first folder below one of ``bases`` that the file is in.
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


def collection_of(path: str, bases: Sequence[str]) -> str:
    """The first folder of a file below the nearest of ``bases``; empty for a file that is directly in it."""
    nearest = max((base for base in bases if path.startswith(storage.join(base, ""))), key=len, default="")
    inside = path.removeprefix(storage.join(nearest, "")) if nearest else path
    parts = PurePosixPath(inside).parts
    return parts[0] if nearest and len(parts) > 1 else ""


def _whole(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Floats as integers where all are: whether numbers are floats may depend on the file."""
    try:
        return values.cast(pa.int64())
    except pa.ArrowInvalid:
        return values
