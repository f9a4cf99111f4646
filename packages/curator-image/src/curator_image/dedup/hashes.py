"""Hashes a picture, and windows of it, into 63 bits each: the signs of its lowest frequencies.

A small grey picture of 64 x 64 is decomposed into 8 x 8 cosines. Each cosine except the first gives one bit, which is 1
if its value is above the median. Scaling, compression and brightness change few bits. A crop shifts the whole picture,
so windows of the picture are also hashed: a crop looks like one of them. All sums are sums of whole numbers that
float64 represents exactly, so every processor gets the same bits.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

SIDE = 64
BITS = 63
# Two different pictures differ in about half of their bits; two copies differ in at most this many.
RADIUS = 10
# A window omits this fraction of the picture's width and height.
CUT = 0.08
# The position of each window: the fractions of the omitted width and height that are at the left and at the top.
WINDOWS = ((0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))
MIRRORED = len(WINDOWS)

type Grey = NDArray[np.uint8]
type Boxes = NDArray[np.float64]

_FREQUENCIES = 8
_SCALE = 1 << 12
# A picture whose grey values have a smaller standard deviation than this is plain.
_LEAST_CONTRAST = 6.0
_EVEN = 12
_MOST_BORDER = 0.4
# How many pictures are transformed together, so that their numbers stay in the cache.
_AT_ONCE = 32


def boxes_of(pictures: Grey) -> Boxes:
    """Left, top, right and bottom of each picture in pixels, without a uniform border."""
    made = np.empty((len(pictures), 4))
    for first, axis in ((0, 2), (1, 1)):
        lows, highs = pictures.min(axis=3 - axis).astype(np.int64), pictures.max(axis=3 - axis).astype(np.int64)
        made[:, first] = _border(lows, highs)
        made[:, first + 2] = SIDE - _border(lows[:, ::-1], highs[:, ::-1])
    return made


def _border(lows: NDArray[np.int64], highs: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many lines from the first on are uniform and as light as the first; 0 if they are a large part of the
    picture.
    """
    even = highs - lows <= _EVEN
    even &= (np.abs(lows - lows[:, :1]) <= _EVEN) & (np.abs(highs - highs[:, :1]) <= _EVEN)
    count = np.where(even.all(axis=1), 0, even.argmin(axis=1))
    # The next line is partly border.
    return np.where((count == 0) | (count > _MOST_BORDER * SIDE), 0, count + 1)


def is_plain(pictures: Grey) -> NDArray[np.bool_]:
    """Which pictures have hardly any contrast, so that their hashes would be meaningless."""
    count = SIDE * SIDE
    plain = np.empty(len(pictures), np.bool_)
    for first in range(0, len(pictures), _AT_ONCE):
        # All sums are whole numbers below 2^53, so they are exact.
        wide = pictures[first : first + _AT_ONCE].reshape(-1, count).astype(np.float64)
        spread = count * np.einsum("ij,ij->i", wide, wide) - wide.sum(axis=1) ** 2
        plain[first : first + _AT_ONCE] = spread < (_LEAST_CONTRAST * count) ** 2
    return plain


def hashes_of(pictures: Grey, boxes: Boxes, *, crops: bool = True, mirror: bool = False) -> NDArray[np.uint64]:
    """The hashes of each picture, of its windows, and of its mirror image, in columns; 0 for those that are not
    requested.
    """
    made = np.zeros((len(pictures), 2 + len(WINDOWS)), np.uint64)
    alike, which = np.unique(boxes, axis=0, return_inverse=True)
    for number, box in enumerate(alike.tolist()):  # most pictures have no border and are transformed together
        rows = np.flatnonzero(which == number)
        for first in range(0, len(rows), _AT_ONCE):
            some = rows[first : first + _AT_ONCE]
            made[some] = _hashes_in(pictures[some], tuple(box), crops, mirror)
    return made


def _hashes_in(pictures: Grey, box: tuple[float, ...], crops: bool, mirror: bool) -> NDArray[np.uint64]:
    made = np.zeros((len(pictures), 2 + len(WINDOWS)), np.uint64)
    parts = [box, *(window(box, number) for number in range(len(WINDOWS)) if crops)]
    across = np.concatenate([_cosines(left, right) for left, _, right, _ in parts])
    lines = pictures.reshape(-1, SIDE).astype(np.float64) @ across.T
    lines = lines.reshape(len(pictures), SIDE, len(parts), _FREQUENCIES).transpose(2, 1, 0, 3)
    for number, (_, top, _, bottom) in enumerate(parts):
        found = _cosines(top, bottom) @ lines[number].reshape(SIDE, -1)
        spectra = found.reshape(_FREQUENCIES, len(pictures), _FREQUENCIES).transpose(1, 0, 2)
        made[:, number] = _signs(spectra)
        if mirror and number == 0:
            turned = spectra.copy()
            turned[:, :, 1::2] *= -1
            made[:, 1 + MIRRORED] = _signs(turned)
    return made


def window(box: tuple[float, ...], number: int) -> tuple[float, float, float, float]:
    """The box of a window in a box."""
    left, top, right, bottom = box
    across, down = WINDOWS[number]
    width, height = right - left, bottom - top
    return (
        left + CUT * across * width,
        top + CUT * down * height,
        right - CUT * (1 - across) * width,
        bottom - CUT * (1 - down) * height,
    )


@functools.lru_cache(maxsize=4096)
def _cosines(low: float, high: float) -> NDArray[np.float64]:
    """The lowest cosines over a range of pixels, as whole numbers; a pixel on the edge of the range counts partly."""
    at = np.arange(SIDE)
    first, last = np.maximum(at, low), np.minimum(at + 1, high)
    weight = np.clip(last - first, 0, 1)
    middle = (first + last) / 2 - low
    frequency = np.arange(_FREQUENCIES)[:, None]
    # Round the values, because the last bit of a cosine depends on the C library.
    waves = np.cos(np.pi * frequency * middle / (high - low)) * weight
    whole: NDArray[np.float64] = np.rint(waves * (SIDE / (high - low)) * _SCALE)
    return whole


def _signs(spectra: NDArray[np.float64]) -> NDArray[np.uint64]:
    values = spectra.reshape(len(spectra), -1)[:, 1:]
    middle = np.partition(values, BITS // 2, axis=1)[:, BITS // 2]
    bits = np.zeros((len(values), BITS + 1), np.bool_)
    bits[:, :BITS] = values > middle[:, None]
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)
