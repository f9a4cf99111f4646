"""Computes statistics of pictures once for all measures. They come from exact sums, so they are the same on every
machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core.arrow.arrays import to_numpy
from curator_core.model.task import DocumentBatch
from curator_image.batch import tensor_to_numpy
from curator_image.exact import log2, row_sums

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

# Grey levels that differ by at most this much count as the same tone; JPEG noise is smaller.
NEAR_LEVELS = 8
# The picture is divided into this many by this many tiles to measure sharpness.
BLUR_TILES = 4
# How far the grey levels of a row of pixels may differ if it is part of a border.
BORDER_SPREAD = 16
# The number of decimals; more precision is not needed. Sums of whole numbers are exact, and logarithms are the same
# everywhere.
_DECIMALS = 6


@dataclass
class _Shared:
    """The pictures of a batch, including those whose rows were dropped since, and the statistics computed from them."""

    pictures: Pixels
    grey: Pixels | None = None
    done: dict[str, Floats] = field(default_factory=dict)


class PictureStats:
    """The statistics of the pictures of a batch; each group of statistics is computed at its first use."""

    def __init__(self, shared: _Shared, rows: NDArray[np.intp] | None = None) -> None:
        self._shared = shared
        self._rows = rows

    @classmethod
    def of(cls, batch: DocumentBatch, column: str) -> PictureStats:
        """The statistics of a batch. They stay with the batch, and with batches that are filtered from it in this
        process.
        """
        key = f"picture stats:{column}"
        known = batch._derived.get(key)
        if not isinstance(known, PictureStats):
            known = cls(_Shared(tensor_to_numpy(batch.to_pyarrow().column(column))))
            batch._derived[key] = known
        return known

    def filter(self, mask: pa.BooleanArray) -> PictureStats:
        """The statistics of the rows that ``mask`` keeps."""
        kept = np.flatnonzero(to_numpy(mask))
        return PictureStats(self._shared, kept if self._rows is None else self._rows[kept])

    def get(self, name: str) -> Floats:
        """One number per row: ``brightness``, ``contrast``, ``entropy``, ``uniform``, ``blur``, ``border``, ``color``."""
        shared = self._shared
        if name not in shared.done:
            found: dict[str, Any]
            if name == "color":
                found = {name: [_color(picture) for picture in shared.pictures]}
            else:
                if shared.grey is None:
                    shared.grey = np.empty(shared.pictures.shape[:3], np.uint8)
                    for row, picture in enumerate(shared.pictures):
                        shared.grey[row] = luma(picture)
                found = {name: [SINGLE[name](grey) for grey in shared.grey]} if name in SINGLE else _levels(shared.grey)
            for what, values in found.items():
                shared.done[what] = np.round(np.array(values, np.float64), _DECIMALS)
        numbers = shared.done[name]
        return numbers if self._rows is None else numbers[self._rows]


def luma(picture: Pixels) -> Pixels:
    """Grey levels as defined by ITU-R 601, in whole numbers."""
    from PIL import Image

    return np.asarray(Image.fromarray(picture).convert("L"))


def _levels(grey: Pixels) -> dict[str, Floats]:
    """For every picture: the mean and standard deviation of the grey levels (scaled to 0 to 1), their entropy in bits,
    and the share of the most common tone.
    """
    counts = np.array([np.bincount(picture.ravel(), minlength=256) for picture in grey]).reshape(len(grey), 256)
    total = counts.sum(axis=1)
    mean = (counts * _LEVELS).sum(axis=1) / total
    variance = np.maximum(0.0, (counts * _LEVELS**2).sum(axis=1) / total - mean * mean)
    bits = row_sums(counts * log2(np.maximum(counts, 1)))
    sums = np.concatenate([np.zeros((len(grey), 1), np.int64), counts.cumsum(axis=1)], axis=1)
    reach = 2 * NEAR_LEVELS + 1
    return {
        "brightness": mean / 255,
        "contrast": np.sqrt(variance) / 255,
        "entropy": np.maximum(log2(total) - bits / total, 0.0),
        "uniform": (sums[:, reach:] - sums[:, :-reach]).max(axis=1) / total,
    }


def _blur(grey: Pixels) -> float:
    """The variance of the Laplacian (how much each pixel differs from its four neighbours) where the picture is sharpest.

    It is measured in the second sharpest of 4 x 4 tiles. So a plain or blurred background does not make a sharp subject
    look soft, as a variance over the whole picture would, and a single speck does not make a soft picture look sharp.
    """
    if min(grey.shape) < 3:
        return 0.0
    level = grey.astype(np.int16)
    edges = level[1:-1, 1:-1] * np.int16(4)
    for side in (level[:-2, 1:-1], level[2:, 1:-1], level[1:-1, :-2], level[1:-1, 2:]):
        edges -= side
    high, wide = (size // BLUR_TILES for size in edges.shape)
    if min(high, wide) < 2:
        mean, square = _moments(edges)
        return square - mean * mean
    kept = edges[: high * BLUR_TILES, : wide * BLUR_TILES].astype(np.int64)
    tiles = kept.reshape(BLUR_TILES, high, BLUR_TILES, wide)
    # Numbers are whole until the last division, so the result is the same on every machine.
    sums, squares = tiles.sum(axis=(1, 3)).ravel(), (tiles * tiles).sum(axis=(1, 3)).ravel()
    count = high * wide
    spreads = sorted(int(square) * count - int(total) ** 2 for total, square in zip(sums, squares, strict=True))
    second: float = spreads[-2] / count**2
    return second


def _color(picture: Pixels) -> float:
    """Colourfulness as defined by Hasler and Süsstrunk (2003): 0 is grey, 15 slightly, 33 moderately, 82 highly
    colourful.
    """
    flat = picture.reshape(-1, 3).astype(np.int16)
    red, green, blue = flat[:, 0], flat[:, 1], flat[:, 2]
    rg_mean, rg_square = _moments(red - green)
    yb_mean, yb_square = (value / scale for value, scale in zip(_moments(red + green - 2 * blue), (2, 4), strict=True))
    spread = max(0.0, rg_square - rg_mean * rg_mean + yb_square - yb_mean * yb_mean)
    return math.sqrt(spread) + 0.3 * math.sqrt(rg_mean * rg_mean + yb_mean * yb_mean)


def _moments(values: NDArray[np.int16]) -> tuple[float, float]:
    """Mean and mean square. The sums are whole numbers, so nothing is rounded, and no matrix library starts threads."""
    wide = values.astype(np.int32)
    return int(wide.sum(dtype=np.int64)) / wide.size, int((wide * wide).sum(dtype=np.int64)) / wide.size


def _border(grey: Pixels) -> float:
    """The share of the picture that is covered by plain bands along its edges."""
    rows, columns = grey.shape
    top, bottom = _bands(grey)
    if top == rows:
        return 1.0
    left, right = _bands(grey[top : rows - bottom].T)
    inner: float = (rows - top - bottom) * (columns - left - right) / (rows * columns)
    return 1.0 - inner


def _bands(grey: Pixels) -> tuple[int, int]:
    """How many rows at the top and at the bottom form a plain band that stands out from the rows between."""
    low, high = grey.min(axis=1).astype(np.int16), grey.max(axis=1).astype(np.int16)
    count = len(grey)

    def plain(first: int) -> NDArray[np.bool_]:
        alike: NDArray[np.bool_] = high - low <= BORDER_SPREAD
        alike &= abs(high - high[first]) <= BORDER_SPREAD
        alike &= abs(low - low[first]) <= BORDER_SPREAD
        return alike

    above, below = plain(0), plain(count - 1)[::-1]
    if above.all():
        return count, 0
    top = _up_to_an_edge(grey, int(np.argmin(above)))
    bottom = _up_to_an_edge(grey[::-1], int(np.argmin(below)))
    return top, min(bottom, count - top)


def _up_to_an_edge(grey: Pixels, band: int) -> int:
    """The number of rows of a plain band if it ends abruptly, like a bar or a frame; 0 for the background of an object."""
    if band == 0:
        return 0
    tone = int(grey[0].min()) + int(grey[0].max())
    # Resizing spreads an edge over two rows.
    for row in grey[band : band + 2]:
        differs = abs(2 * row.astype(np.int16) - tone) > 2 * BORDER_SPREAD
        if 2 * int(differs.sum()) >= len(row):
            return band
    return 0


_LEVELS = np.arange(256, dtype=np.int64)
SINGLE: dict[str, Callable[[Pixels], float]] = {"blur": _blur, "border": _border}
