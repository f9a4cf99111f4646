"""Which pairs of vectors cannot be alike, judging by some of their numbers?

The *head* of a vector consists of its first numbers and of the length of the rest. By the inequality of Cauchy and
Schwarz, the product of two heads is at least the product of the two vectors. So a pair whose heads have a product below
a limit is not a pair above the limit, and that takes as many multiplications as a head has numbers. Of the others, most
are alike, unless the heads are too short for these vectors: `head_size` estimates from a few pairs what size is best.
"""

from __future__ import annotations

import numpy as np

from curator_core.across.vectors import Vectors

# Heads may have one to four eighths of the numbers of a vector.
_PARTS, _MOST_PARTS = 8, 4
# Checking a pair that is not alike takes as long as this many multiplications in a block: both vectors are looked up.
CHECK = 1 << 15
# The pairs that are tried, and how many pairs must be compared for that to be worth while.
_ROWS, _OTHERS, _LEAST_PAIRS = 32, 128, 1 << 16


def heads(vectors: Vectors, size: int) -> Vectors:
    """The first ``size`` - 1 numbers of each vector, and the length of the rest, rounded up."""
    made = np.empty((len(vectors), size), np.float32)
    made[:, : size - 1] = vectors[:, : size - 1]
    rest = vectors[:, size - 1 :]
    np.einsum("ij,ij->i", rest, rest, out=made[:, -1])
    # Each product and each sum has an error of up to 2⁻²⁴; 1e-6 is for the root and this product.
    made[:, -1] = np.sqrt(made[:, -1]) * np.float32(1 + rest.shape[1] * 2.0**-24 + 1e-6)
    return made


def head_size(rows: Vectors, others: Vectors, limit: float) -> int:
    """The size of the heads with which the pairs of ``rows`` and ``others`` above a limit are found soonest; it is the
    size of the vectors if no shorter heads exclude most pairs.
    """
    size: int = rows.shape[1]
    width = size // _PARTS
    if limit <= 0 or not width or len(rows) * len(others) < _LEAST_PAIRS:
        return size
    rows, others = _spread(rows, _ROWS), _spread(others, _OTHERS)
    mine, theirs = _parts(rows, width), _parts(others, width)
    products = np.cumsum(mine @ theirs.transpose(0, 2, 1), axis=0)
    may_be = products + _rest(mine, rows)[:, :, None] * _rest(theirs, others)[:, None, :] >= limit
    wrong = np.count_nonzero(may_be & (rows @ others.T < limit), axis=(1, 2)) / (len(rows) * len(others))
    sizes = [*(width * part for part in range(1, _MOST_PARTS + 1)), size]
    return sizes[int(np.argmin(sizes + CHECK * np.append(wrong, 0)))]


def _spread(vectors: Vectors, count: int) -> Vectors:
    return vectors[:: -(-len(vectors) // count)]


def _parts(vectors: Vectors, width: int) -> Vectors:
    """The first parts of ``width`` numbers of all vectors, one part after the other."""
    parts = vectors[:, : _MOST_PARTS * width].reshape(len(vectors), _MOST_PARTS, width)
    return np.ascontiguousarray(parts.transpose(1, 0, 2))


def _rest(parts: Vectors, vectors: Vectors) -> Vectors:
    """The lengths of what is left of vectors after each of their parts."""
    squares = np.einsum("ij,ij->i", vectors, vectors) - np.cumsum(np.einsum("kij,kij->ki", parts, parts), axis=0)
    lengths: Vectors = np.sqrt(np.maximum(squares, 0))
    return lengths
