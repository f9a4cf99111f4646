"""Which pairs of vectors cannot be alike, judging by some of their numbers?

The *head* of a vector consists of its first numbers and of the length of the rest. By the inequality of Cauchy and
Schwarz, the product of two heads is at least the product of the two vectors. So a pair whose heads have a product below
a limit is not a pair above the limit, and that takes as many multiplications as a head has numbers. Of the others, most
are alike, unless the heads are too short for these vectors: `head_size` estimates from a few pairs what size is best.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curator_core.across.vectors import Vectors

# Heads may have one to four eighths of the numbers of a vector.
_PARTS, _MOST_PARTS = 8, 4
# Checking a pair that is not alike takes as long as this many multiplications in a block: both vectors are looked up.
CHECK = 1 << 15
# The pairs that are tried, and how many pairs must be compared for that to be worth while.
_ROWS, _OTHERS, _LEAST_PAIRS = 32, 128, 1 << 16


def heads(vectors: Vectors, rows: NDArray[np.int64], size: int) -> Vectors:
    """The first ``size`` - 1 numbers of some vectors of length one, and the length of the rest, rounded up."""
    made = np.empty((len(rows), size), np.float32)
    first = made[:, : size - 1]
    first[:] = vectors[:, : size - 1][rows]
    # The rest is what the first numbers leave of a length of one. Each product and each sum of squares has an error of
    # up to 2⁻²⁴; 1e-6 is for the length and for the root.
    rest = np.float32(1 + size * 2.0**-24 + 1e-6) - np.einsum("ij,ij->i", first, first)
    np.sqrt(np.maximum(rest, 0), out=made[:, -1])
    return made


def head_size(vectors: Vectors, rows: NDArray[np.int64], others: NDArray[np.int64], limit: float) -> int:
    """The size of the heads with which the pairs of ``rows`` and ``others`` above a limit are found soonest; it is the
    size of the vectors if no shorter heads exclude most pairs.
    """
    size: int = vectors.shape[1]
    width = size // _PARTS
    if limit <= 0 or not width or len(rows) * len(others) < _LEAST_PAIRS:
        return size
    some, more = vectors[_spread(rows, _ROWS)], vectors[_spread(others, _OTHERS)]
    mine, theirs = _parts(some, width), _parts(more, width)
    products = np.cumsum(mine @ theirs.transpose(0, 2, 1), axis=0)
    may_be = products + _rest(mine)[:, :, None] * _rest(theirs)[:, None, :] >= limit
    wrong = np.count_nonzero(may_be & (some @ more.T < limit), axis=(1, 2)) / (len(some) * len(more))
    sizes = [*(width * part for part in range(1, _MOST_PARTS + 1)), size]
    return sizes[int(np.argmin(sizes + CHECK * np.append(wrong, 0)))]


def _spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return rows[:: -(-len(rows) // count)]


def _parts(vectors: Vectors, width: int) -> Vectors:
    """The first parts of ``width`` numbers of all vectors, one part after the other."""
    parts = vectors[:, : _MOST_PARTS * width].reshape(len(vectors), _MOST_PARTS, width)
    return np.ascontiguousarray(parts.transpose(1, 0, 2))


def _rest(parts: Vectors) -> Vectors:
    """The lengths of what is left of vectors of length one after each of their parts."""
    lengths: Vectors = np.sqrt(np.maximum(1 - np.cumsum(np.einsum("kij,kij->ki", parts, parts), axis=0), 0))
    return lengths
