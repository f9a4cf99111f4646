"""Computes how similar two small pictures look after they are aligned.

Both are reduced to 32 x 32, and the result is the correlation of their grey values, which is 1 if they differ only in
brightness and contrast. A crop is compared with the window of the other picture from which it was cut. The window's
position is known only roughly, so the window is moved and scaled in small steps to the best fit. Grey values and their
products are whole numbers, so every machine gets the same result.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
from numpy.typing import NDArray

from curator_image.dedup.hashes import MIRRORED, SIDE, Grey, window

type Box = tuple[float, float, float, float]

_SMALL = 32
_WEIGHT = 1 << 10
_STEPS = (0.03, 0.015)
# If the similarity of a pair is below this, no step can make it fit.
_HOPELESS = 0.4


def likeness(one: Grey, one_box: Box, number: int, other: Grey, other_box: Box, enough: float = 2.0) -> float:
    """The similarity, from -1 to 1, of window ``number`` of one picture (0 is the whole picture) to the whole of
    another.

    The search ends when the similarity reaches ``enough``, so the result may be a little below the best fit.
    """
    if number == 1 + MIRRORED:
        one, number = one[:, ::-1], 0
        one_box = (SIDE - one_box[2], one_box[1], SIDE - one_box[0], one_box[3])
    target = _centred(_small(other, other_box))
    box = one_box if number == 0 else window(one_box, number - 1)
    best = _correlation(_small(one, box), target)
    for step in _STEPS:
        if best >= enough or best < _HOPELESS:
            break
        width, height = (box[2] - box[0]) * step, (box[3] - box[1]) * step
        found = [
            (_correlation(_small(one, moved), target), moved)
            for moved in (_moved(box, x * width, y * height, s * step) for x, y, s in _MOVES)
        ]
        figure, moved = max(found)
        if figure > best:
            best, box = figure, moved
    return best


_MOVES = [move for move in itertools.product((-1, 0, 1), repeat=3) if move != (0, 0, 0)]


def _moved(box: Box, across: float, down: float, grow: float) -> Box:
    width, height = (box[2] - box[0]) * grow / 2, (box[3] - box[1]) * grow / 2
    return (
        round(max(0.0, box[0] + across - width), 3),
        round(max(0.0, box[1] + down - height), 3),
        round(min(float(SIDE), box[2] + across + width), 3),
        round(min(float(SIDE), box[3] + down + height), 3),
    )


def _small(picture: Grey, box: Box) -> NDArray[np.float64]:
    """The part of a picture in a box, reduced to 32 x 32, in whole numbers."""
    made = _areas(box[1], box[3]) @ picture.astype(np.float64) @ _areas(box[0], box[2]).T
    small: NDArray[np.float64] = np.rint(made / (_WEIGHT * _WEIGHT / 8))
    return small


@functools.lru_cache(maxsize=1 << 14)
def _areas(low: float, high: float) -> NDArray[np.float64]:
    """The weight of each pixel in each of 32 equal parts of a range, as whole numbers."""
    edges = low + (high - low) * np.arange(_SMALL + 1) / _SMALL
    at = np.arange(SIDE)
    part = np.minimum(at + 1, edges[1:, None]) - np.maximum(at, edges[:-1, None])
    whole: NDArray[np.float64] = np.rint(np.clip(part, 0, 1) * (_SMALL / (high - low)) * _WEIGHT)
    return whole


def _centred(small: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """A picture minus its mean, in whole numbers, and the exact sum of the squares."""
    values = small - np.rint(small.sum() / small.size)
    return values, float((values * values).sum())


def _correlation(small: NDArray[np.float64], target: tuple[NDArray[np.float64], float]) -> float:
    other, their_square = target
    values, square = _centred(small)
    return float((values * other).sum() / np.sqrt(square * their_square)) if square and their_square else 0.0
