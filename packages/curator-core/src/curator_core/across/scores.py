"""In what order does a score put documents, and what is the weight of each?"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curator_core.arrow.arrays import scalar, to_numpy
from curator_core.arrow.json_column import JSON
from curator_core.arrow.row_hash import column_of
from curator_core.errors import UsageError

ROWS = "rows"
# The key of a missing score; it comes after all others.
MISSING = np.uint64((1 << 64) - 1)
_SIGN = np.uint64(1 << 63)


def score_keys(values: pa.ChunkedArray, what: str, *, highest: bool = True) -> NDArray[np.uint64]:
    """Keys that sort the best score first: the ``highest``, or else the lowest. Null and NaN come last.

    Scores of one column may be integers in some files and floats in others, so all are compared as 64-bit floats, which
    makes some integers beyond 2**53 equal. ``what`` names the column in errors.
    """
    kind = values.type
    if pa.types.is_null(kind):
        return np.full(len(values), MISSING)
    if pa.types.is_boolean(kind):
        values = values.cast(pa.int64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        hint = ": the values are of several kinds, so put Cast before" if kind == JSON else ""
        raise UsageError(f"{what} must hold numbers, not {kind}{hint}")
    real = to_numpy(pc.fill_null(values.cast(pa.float64(), safe=False), scalar(float("nan"))))
    bits = (real + 0.0).view(np.uint64)  # + 0.0 turns -0.0 into 0.0
    ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    # No number has the first or the last key: these belong to bit patterns of NaN.
    return np.where(np.isnan(real), MISSING, ~ordered if highest else ordered)


def numbers_of(keys: NDArray[np.uint64], *, highest: bool = True) -> NDArray[np.float64]:
    """The numbers that `score_keys` gave these keys for; NaN for the key of a missing score."""
    ordered = ~keys if highest else keys
    numbers = np.where(ordered & _SIGN, ordered ^ _SIGN, ~ordered).view(np.float64)
    return np.where(keys == MISSING, np.nan, numbers)


def weights_of(table: pa.Table, weight: str, what: str) -> NDArray[np.int64] | None:
    """The weight of each row: the value of the column ``weight``, a whole number; None if every row has a weight of
    1.
    """
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
