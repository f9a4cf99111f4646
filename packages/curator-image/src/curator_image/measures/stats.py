"""Numbers about pictures, computed once for all measures that ask: exact sums, so the same on every machine."""

from __future__ import annotations

import math
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core.task import DocumentBatch
from curator_image.batch import tensor_to_numpy

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

# Two levels of grey this near are the same to a measure of uniformity; a JPEG's noise is within it.
NEAR_LEVELS = 8
# How much the levels of a row of pixels may spread for it to be part of a border.
BORDER_SPREAD = 16
# Sums of squares are exact; what logarithms and roots add in the last bits is rounded away.
_DECIMALS = 6


class PictureStats:
    """The statistics of the pictures of a batch, each group of them computed when first asked for."""

    def __init__(self, pictures: Pixels, rows: NDArray[np.intp] | None = None, done: dict[str, Floats] | None = None):
        self._pictures = pictures
        self._rows = rows
        # Shared with every filtered view; of all rows of `pictures`.
        self._done: dict[str, Floats] = {} if done is None else done

    @classmethod
    def of(cls, batch: DocumentBatch, column: str) -> PictureStats:
        """Those of a batch; kept with it, and with what is filtered from it in this process."""
        key = f"picture stats:{column}"
        known = batch._derived.get(key)
        if not isinstance(known, PictureStats):
            known = cls(tensor_to_numpy(batch.to_pyarrow().column(column)))
            batch._derived[key] = known
        return known

    def filter(self, mask: pa.BooleanArray) -> Self:
        """The same for the rows that ``mask`` keeps."""
        kept = np.flatnonzero(mask.to_numpy(zero_copy_only=False))
        rows = kept if self._rows is None else self._rows[kept]
        return type(self)(self._pictures, rows, self._done)

    def get(self, name: str) -> Floats:
        """One number per row: ``brightness``, ``contrast``, ``entropy``, ``uniform``, ``blur``, ``border``, ``color``."""
        if name not in self._done:
            groups = {"blur": ("blur",), "border": ("border",), "color": ("color",)}
            self._compute(groups.get(name, ("brightness", "contrast", "entropy", "uniform")))
        values = self._done[name]
        return values if self._rows is None else values[self._rows]

    def _compute(self, names: tuple[str, ...]) -> None:
        found = np.zeros((len(names), len(self._pictures)))
        measure = {"blur": _blur, "border": _border, "color": _color}.get(names[0], _levels)
        for row, picture in enumerate(self._pictures):
            found[:, row] = measure(picture)
        found = np.round(found, _DECIMALS)
        for name, values in zip(names, found, strict=True):
            self._done[name] = values


def luma(picture: Pixels) -> Pixels:
    """Grey levels by ITU-R 601, in whole numbers."""
    from PIL import Image

    return np.asarray(Image.fromarray(picture).convert("L"))


def _levels(picture: Pixels) -> tuple[float, float, float, float]:
    """Mean and spread of the grey levels (0 to 1), bits of entropy, and the share of the commonest levels."""
    counts = np.bincount(luma(picture).ravel(), minlength=256).astype(np.float64)
    total = counts.sum()
    mean = float(counts @ _LEVELS) / total
    variance = max(0.0, float(counts @ _LEVELS**2) / total - mean**2)
    shares = counts[counts > 0] / total
    sums = np.concatenate([[0.0], counts.cumsum()])
    reach = 2 * NEAR_LEVELS + 1
    uniform = float((sums[reach:] - sums[:-reach]).max()) / total
    return mean / 255, variance**0.5 / 255, float(-(shares * np.log2(shares)).sum()), uniform


def _blur(picture: Pixels) -> float:
    """The variance of the Laplacian: how much each pixel differs from its four neighbours."""
    grey = luma(picture).astype(np.int16)
    if min(grey.shape) < 3:
        return 0.0
    inner = grey[1:-1, 1:-1]
    edges = 4 * inner - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    flat = edges.ravel().astype(np.float64)
    mean = float(flat.sum()) / flat.size
    return float(float(flat @ flat) / flat.size - mean**2)


def _color(picture: Pixels) -> float:
    """Colourfulness after Hasler and Süsstrunk (2003): 0 is grey, 15 slightly, 33 moderately, 82 highly colourful."""
    flat = picture.reshape(-1, 3).astype(np.float64)
    mean = flat.sum(axis=0) / len(flat)
    covariance = flat.T @ flat / len(flat) - np.outer(mean, mean)
    spread = sum(max(0.0, float(axis @ covariance @ axis)) for axis in _OPPONENTS)
    level = sum(float(axis @ mean) ** 2 for axis in _OPPONENTS)
    return math.sqrt(spread) + 0.3 * math.sqrt(level)


def _border(picture: Pixels) -> float:
    """The share of the picture that plain bands along its edges take."""
    grey = luma(picture).astype(np.int16)
    rows, columns = grey.shape
    top, bottom = _bands(grey)
    if top == rows:
        return 1.0
    left, right = _bands(grey[top : rows - bottom].T)
    inner: float = (rows - top - bottom) * (columns - left - right) / (rows * columns)
    return 1.0 - inner


def _bands(grey: NDArray[np.int16]) -> tuple[int, int]:
    """How many rows at the top and at the bottom are plain and alike."""
    low, high = grey.min(axis=1), grey.max(axis=1)
    count = len(grey)

    def plain(first: int) -> NDArray[np.bool_]:
        alike: NDArray[np.bool_] = high - low <= BORDER_SPREAD
        alike &= abs(high - high[first]) <= BORDER_SPREAD
        alike &= abs(low - low[first]) <= BORDER_SPREAD
        return alike

    above, below = plain(0), plain(count - 1)[::-1]
    top = count if above.all() else int(np.argmin(above))
    bottom = count if below.all() else int(np.argmin(below))
    return top, min(bottom, count - top)


_LEVELS: Floats = np.arange(256, dtype=np.float64)
_OPPONENTS = (np.array([1.0, -1.0, 0.0]), np.array([0.5, 0.5, -1.0]))
