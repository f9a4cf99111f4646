"""Computes how similar two small pictures look after they are aligned.

Both are reduced to 32 x 32, and the result is the correlation of their grey values, which is 1 if they differ only in
brightness and contrast. A crop is compared with the window of the other picture from which it was cut. The window's
position is known only roughly, so the window is moved and scaled in small steps to the best fit. Grey values and their
products are whole numbers, so every machine gets the same result.
"""

from __future__ import annotations

import functools

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
    picture = one.astype(np.float64)
    target = _centred(_small(other.astype(np.float64), other_box))
    box = one_box if number == 0 else window(one_box, number - 1)
    best = float(_correlations(_small(picture, box)[None], target)[0])
    for step in _STEPS:
        if best >= enough or best < _HOPELESS:
            break
        figure, moved = max(_moved(picture, box, step, target))
        if figure > best:
            best, box = figure, moved
    return best


_MOVES = (-1, 0, 1)


def _moved(
    picture: NDArray[np.float64], box: Box, step: float, target: tuple[NDArray[np.float64], float]
) -> list[tuple[float, Box]]:
    """For each move, the similarity to ``target`` of the part of a picture in the box, moved or scaled by a step."""
    width, height = (box[2] - box[0]) * step, (box[3] - box[1]) * step
    made, boxes = np.empty((3, 3, 3, _SMALL, _SMALL)), []
    for number, grow in enumerate(_MOVES):
        across = [_range(box[0], box[2], x * width, grow * step) for x in _MOVES]
        down = [_range(box[1], box[3], y * height, grow * step) for y in _MOVES]
        # One product covers the three places across, and one the three places down: sums of whole numbers do not depend
        # on the order.
        lines = picture @ np.concatenate([_areas(*ends) for ends in across]).T
        parts = np.concatenate([_areas(*ends) for ends in down]) @ lines
        made[number] = parts.reshape(3, _SMALL, 3, _SMALL).transpose(0, 2, 1, 3)
        boxes += [(left, top, right, bottom) for top, bottom in down for left, right in across]
    figures = _correlations(_scaled(made).reshape(27, _SMALL, _SMALL), target).tolist()
    del figures[13], boxes[13]  # the box without a move
    return list(zip(figures, boxes, strict=True))


def _range(low: float, high: float, move: float, grow: float) -> tuple[float, float]:
    more = (high - low) * grow / 2
    return round(max(0.0, low + move - more), 3), round(min(float(SIDE), high + move + more), 3)


def _small(picture: NDArray[np.float64], box: Box) -> NDArray[np.float64]:
    """The part of a picture in a box, reduced to 32 x 32, in whole numbers."""
    return _scaled(_areas(box[1], box[3]) @ picture @ _areas(box[0], box[2]).T)


def _scaled(made: NDArray[np.float64]) -> NDArray[np.float64]:
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


def _correlations(small: NDArray[np.float64], target: tuple[NDArray[np.float64], float]) -> NDArray[np.float64]:
    """The correlation of each of several pictures with another one."""
    other, their_square = target
    flat = small.reshape(len(small), -1)
    values = flat - np.rint(flat.sum(axis=1) / flat.shape[1])[:, None]
    both = np.sqrt((values * values).sum(axis=1) * their_square)
    found: NDArray[np.float64] = np.divide(values @ other.ravel(), both, out=np.zeros(len(flat)), where=both > 0)
    return found
