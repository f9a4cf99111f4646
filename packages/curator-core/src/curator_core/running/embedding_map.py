"""Where is each sampled row on the map of embeddings? Its place is given by the two main axes of the sample.

Every machine draws the same map: products use whole numbers, whose sums are exact in any order, and all other sums add
float64 numbers one after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from curator_core.accounts.seen import MapRow

# Vectors of length 1 are scaled to whole numbers of this size. Centred by the sum of 2,000 of them, their lengths are
# below 2**25, so their products are below 2**53, where float64 is exact for whole numbers.
_SIZE = 8_000
_ROUNDS = 300
_DIGITS = 4


def map_of(rows: Sequence[MapRow], stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The map in the form of `report.json`; empty if fewer than three rows have an embedding."""
    lengths = Counter(len(row.vector) for row in rows)
    length = max(lengths, key=lambda size: (lengths[size], size), default=0)
    rows = [row for row in rows if len(row.vector) == length]
    if len(rows) < 3:
        return {}
    places, held = main_axes(np.stack([np.frombuffer(row.vector, "<f2").astype(np.float64) for row in rows]))
    named = Counter(name for row in rows for name in row.scores)
    score = max(named, key=lambda name: (named[name], name), default=None)
    found: dict[str, Any] = {
        "rows": len(rows),
        "of": _all_rows(rows, stages),
        "dimensions": length // 2,
        "score": score,
        "held": [round(part, _DIGITS) for part in held],
        "points": [],
    }
    for row, (x, y) in zip(rows, places, strict=True):
        value = row.scores.get(score) if score else None
        found["points"].append(
            {
                "x": round(float(x), _DIGITS),
                "y": round(float(y), _DIGITS),
                "score": value,
                "side": row.side,
                "stage": row.stage,
                "reason": row.reason,
                "id": row.id,
                "source": row.source,
                "position": row.position,
                "text": row.text,
            }
        )
    return found


def _all_rows(rows: Sequence[MapRow], stages: Sequence[Mapping[str, Any]]) -> int:
    """The number of rows that the rows of the map were sampled from."""
    dropping = {row.stage for row in rows if row.side == "dropped"}
    dropped = sum(sum(stage["dropped"].values()) for stage in stages if stage["name"] in dropping)
    return max(len(rows), dropped + (stages[-1]["rows_out"] if stages else 0))


def main_axes(vectors: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], tuple[float, float]]:
    """The places of vectors on their two main axes, from -1 to 1, and the share of their variance that each axis
    explains.

    The sign of an axis makes its place furthest from the middle positive.
    """
    lengths = np.sqrt(np.add.reduce(np.ascontiguousarray((vectors * vectors).T), axis=0))
    whole = np.rint(vectors / np.where(lengths > 0, lengths, 1.0)[:, None] * _SIZE)
    centred = whole * len(whole) - whole.sum(axis=0)
    # Exact in float64, in whatever order the library adds.
    products = centred @ centred.T
    spread = float(np.trace(products))
    places, held = np.zeros((len(whole), 2)), [0.0, 0.0]
    found: list[np.ndarray[Any, Any]] = []
    for axis in range(2):
        vector = _largest(products, found)
        image = _times(products, vector)
        value = float(_dot(vector, image))
        if spread <= 0 or value <= 1e-9 * spread:
            break
        found.append(vector)
        held[axis] = value / spread
        places[:, axis] = vector * np.sqrt(value)
    largest = float(np.max(np.abs(places), initial=0.0))
    return places / largest if largest else places, (held[0], held[1])


def _largest(products: np.ndarray[Any, Any], before: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """The unit vector that ``products`` lengthens most, at right angles to those before it."""
    diagonal = np.diagonal(products)
    vector = products[int(np.argmax(diagonal))].astype(np.float64)
    # A second vector is added, in case the first is at right angles to the axis by chance.
    vector = vector / (np.max(np.abs(vector), initial=0.0) or 1.0) + np.arange(len(vector)) * 1e-3 / len(vector)
    previous = np.zeros(len(vector))
    for _ in range(_ROUNDS):
        for other in before:
            vector = vector - other * _dot(vector, other)
        length = float(np.sqrt(_dot(vector, vector)))
        if not length:
            return np.zeros(len(vector))
        vector = vector / length
        if np.max(np.abs(vector - previous)) < 1e-10:
            break
        previous = vector
        vector = _times(products, vector)
        vector = vector / (np.max(np.abs(vector), initial=0.0) or 1.0)
    for other in before:
        vector = vector - other * _dot(vector, other)
    length = float(np.sqrt(_dot(vector, vector)))
    vector = np.asarray(vector / length if length else vector)
    furthest = int(np.argmax(np.round(np.abs(vector), 9)))
    return np.asarray(-vector if vector[furthest] < 0 else vector)


def _times(matrix: np.ndarray[Any, Any], vector: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The product of a symmetric matrix and a vector, added up row by row in order."""
    found: np.ndarray[Any, Any] = np.add.reduce(matrix * vector[:, None], axis=0)
    return found


def _dot(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    return float(np.add.accumulate(one * other)[-1])
