"""Adds, multiplies and exponentiates numbers so that results have the same bits on every machine and in every batch.

In BLAS, NumPy's reductions and the transcendental functions of NumPy and C libraries, the order of sums and the
polynomials depend on the processor, the number of threads and the shape of the arrays. This module uses only:

- ``+ - * /`` and ``sqrt`` of whole arrays, which IEEE 754 rounds correctly, one number at a time;
- sums of whole numbers below 2**53 in float64, which are exact in any order, so BLAS may compute them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# A float64 represents all whole numbers up to here exactly.
_EXACT_BITS = 53
# How many rows are multiplied at once, so that the results stay in the cache.
_ROWS = 64
# ln 2 in two parts: the first has so few digits that its product with an exponent is exact.
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_LOG2_E = 1.4426950408889634
_SQRT_HALF = 0.7071067811865476
# Beyond these limits, the logistic function in float32 is 0 or 1.
_LOGISTIC_REACH = 110.0


def row_sums(values: NDArray[Any]) -> Floats:
    """The sum of every row of a matrix in float64. The halves of a row are added until one number is left."""
    rest = np.asarray(values, np.float64)
    if not rest.shape[1]:
        return np.zeros(len(rest))
    while (width := rest.shape[1]) > 1:
        half = width // 2
        added = rest[:, :half] + rest[:, half : 2 * half]
        rest = np.concatenate([added, rest[:, 2 * half :]], axis=1) if width % 2 else added
    return np.array(rest[:, 0])


def unit_rows(values: NDArray[Any]) -> NDArray[np.float32]:
    """Every row divided by its norm, as float32; a row of zeros is not changed, as in `torch.nn.functional.normalize`."""
    wide = np.asarray(values, np.float64)
    with np.errstate(invalid="ignore"):  # a vector with infinities becomes one with NaN, which callers reject
        lengths = np.maximum(np.sqrt(row_sums(wide * wide)), 1e-12)
        return (wide / lengths[:, None]).astype(np.float32)


@dataclass(frozen=True)
class Matrix:
    """Weights for products with rows, about as precise as float32: ``matrix.times(rows)`` is ``rows @ weights.T``.

    Weights and rows are scaled by the largest number of each row and rounded to whole numbers. These are so small that
    every partial sum of products is exact: 21 bits if a row has 768 numbers.
    """

    whole: Floats
    scales: Floats
    bits: int

    @classmethod
    def of(cls, weights: NDArray[Any]) -> Matrix:
        """The matrix with these rows of weights."""
        bits = (_EXACT_BITS - max(1, weights.shape[1]).bit_length()) // 2
        return cls(*_whole_rows(np.asarray(weights, np.float64), bits), bits)

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of rows, and the number of weights in each."""
        return self.whole.shape

    def times(self, rows: NDArray[Any]) -> Floats:
        """The product of each row with each row of weights; NaN for a row with infinities or NaN."""
        found = np.empty((len(rows), len(self.whole)))
        for begin in range(0, len(rows), _ROWS):
            self._times(np.asarray(rows[begin : begin + _ROWS], np.float64), found[begin : begin + _ROWS])
        return found

    def _times(self, rows: Floats, found: Floats) -> None:
        # The largest number is not finite if any number of the row is not.
        finite = np.isfinite(_largest(rows))
        if not finite.all():
            rows = np.where(finite[:, None], rows, 0.0)
        whole, scales = _whole_rows(rows, self.bits)
        np.matmul(whole, self.whole.T, out=found)
        found *= scales[:, None]
        found *= self.scales
        found[~finite] = np.nan


def _largest(rows: Floats) -> Floats:
    """The largest absolute value in each row; NaN if the row contains NaN."""
    largest: Floats = np.maximum(rows.max(axis=1, initial=0.0), -rows.min(axis=1, initial=0.0))
    return largest


def _whole_rows(rows: Floats, bits: int) -> tuple[Floats, Floats]:
    """Rows as whole numbers of at most ``bits`` bits, and for each row the power of two by which to multiply it."""
    exponents = np.frexp(_largest(rows))[1] - bits
    # Powers of two down to this fit into float64; float32 numbers and products of a few of them need no smaller ones.
    exponents = np.maximum(exponents, -900)
    whole = rows * np.ldexp(1.0, -exponents)[:, None]
    return np.rint(whole, out=whole), np.ldexp(1.0, exponents)


def logistic(values: NDArray[Any]) -> Floats:
    """``1 / (1 + exp(-x))``."""
    found: Floats = 1.0 / (1.0 + exp(-np.clip(np.asarray(values, np.float64), -_LOGISTIC_REACH, _LOGISTIC_REACH)))
    return found


def exp(values: Floats) -> Floats:
    """The exponential function for numbers whose result is a normal float64, with a relative error of about 1e-16."""
    whole = np.rint(values * _LOG2_E)
    rest = (values - whole * _LN2_HIGH) - whole * _LN2_LOW
    # Taylor's series in Horner's form: for numbers below 0.35, terms after the thirteenth power contribute nothing.
    found = np.ones_like(rest)
    for power in range(13, 0, -1):
        found = found * rest / power + 1.0
    raised: Floats = np.ldexp(found, np.where(np.isfinite(whole), whole, 0.0).astype(np.int32))
    return raised


def log2(values: NDArray[Any]) -> Floats:
    """The binary logarithm of positive numbers, with an error of about 1e-15; it is exact for powers of two."""
    parts, exponents = np.frexp(np.asarray(values, np.float64))
    low = parts < _SQRT_HALF
    parts, exponents = np.where(low, parts * 2.0, parts), exponents - low
    # ln x = 2 artanh((x - 1) / (x + 1)), whose argument is at most 0.172 here.
    small = (parts - 1.0) / (parts + 1.0)
    square = small * small
    series = np.zeros_like(small)
    for power in range(23, 0, -2):
        series = series * square + 1.0 / power
    found: Floats = exponents + 2.0 * _LOG2_E * (small * series)
    return found
