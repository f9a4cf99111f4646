"""Which limits and bins does a filter declare for its scores?

The bins of a score depend on the filter's parameters alone, never on the data, so that the counts of any two workers
add up. Each limit has an edge that exactly separates the rows that it keeps from those that it drops, and so do some
values around it.
"""

from __future__ import annotations

import base64
import bisect
import functools
import hashlib
import json
import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

Keeps = Literal["at least", "at most"]

# Counts are exact if a limit is multiplied by one of these factors.
_AROUND = (0.5, 0.75, 0.8, 0.9, 0.95, 1.05, 1.1, 1.2, 1.25, 1.5, 2.0)
_PER_OCTAVE = 8
_LARGEST = 40  # octaves: the last edge is at 2**40
_SMALLEST = -20


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound of a score: the ``parameter`` of the filter, its value, and the side that is kept.

    ``reason`` is the reason for dropping a row beyond the limit; empty if the filter has the same reason for all
    limits.
    """

    parameter: str
    value: float
    keeps: Keeps
    inclusive: bool = True
    reason: str = ""

    def edge(self, value: float | None = None) -> float:
        """The edge at which a limit at ``value`` divides scores: the edge and larger scores are on one side, smaller
        scores on the other.
        """
        value = self.value if value is None else float(value)
        # A bin includes its lower edge. If the limit itself belongs to the lower side, the edge is the next larger
        # number.
        above = self.inclusive == (self.keeps == "at least")
        return value if above else math.nextafter(value, math.inf)

    def value_at(self, edge: float) -> float:
        """The value of the parameter that divides scores at ``edge``; the inverse of `edge`."""
        above = self.inclusive == (self.keeps == "at least")
        return edge if above else math.nextafter(edge, -math.inf)

    def as_dict(self) -> dict[str, Any]:
        return {
            "parameter": self.parameter,
            "value": self.value,
            "keeps": self.keeps,
            "inclusive": self.inclusive,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Score:
    """A filter's score: its name, the edges of its bins, and its limits."""

    name: str
    edges: tuple[float, ...]
    limits: tuple[Limit, ...] = ()
    integers: bool = False

    @functools.cached_property
    def scale(self) -> str:
        """A short hash of the edges: counts with the same scale can be added."""
        return hashlib.sha256(f"[{', '.join(map(_as_json, self.edges))}]".encode()).hexdigest()[:8]

    def with_limits(self, limits: Iterable[Limit]) -> Score:
        """The same score with these limits, and an edge at each of them and around it."""
        limits = tuple(limits)
        more = (limit.edge(value) for limit in limits for value in _around(limit.value, self.integers))
        return replace(self, edges=merged(self.edges, more), limits=limits)


def linear(low: float, high: float, bins: int) -> tuple[float, ...]:
    """The edges of ``bins`` bins of equal width."""
    return tuple(low + (high - low) * place / bins for place in range(bins + 1))


def fractions() -> tuple[float, ...]:
    """Edges for shares: a hundred bins from 0 to 1, with 1 in the last."""
    return (*(place / 100 for place in range(101)), math.nextafter(1.0, 2.0))


@functools.cache
def whole_numbers() -> tuple[float, ...]:
    """Edges for counts: each number up to 64, then eight bins per octave."""
    found = {float(value) for value in range(65)}
    for step in range(6 * _PER_OCTAVE, _LARGEST * _PER_OCTAVE + 1):
        found.add(float(math.ceil(_power(step))))
    return tuple(sorted(found))


@functools.cache
def magnitudes() -> tuple[float, ...]:
    """Edges for any number: eight bins per octave on either side of 0, and 0 in the middle."""
    positive = [_power(step) for step in range(_SMALLEST * _PER_OCTAVE, _LARGEST * _PER_OCTAVE + 1)]
    return (*(-value for value in reversed(positive)), 0.0, *positive)


def merged(edges: Iterable[float], more: Iterable[float]) -> tuple[float, ...]:
    """All finite edges of both, in order and without repeats."""
    found = list(_in_order(tuple(edges)))
    for edge in more:  # a few beside some hundred
        if math.isfinite(edge):
            place = bisect.bisect_left(found, edge)
            if place == len(found) or found[place] != edge:
                found.insert(place, float(edge) + 0.0)
    return tuple(found)


@functools.lru_cache(64)
def _in_order(edges: tuple[float, ...]) -> tuple[float, ...]:
    # Adding zero leaves no negative zero.
    found = [float(edge) + 0.0 for edge in edges]
    if not all(map(operator.lt, found, found[1:])) or not all(map(math.isfinite, found[:1] + found[-1:])):
        found = sorted({edge for edge in found if math.isfinite(edge)})
    return tuple(found)


@functools.lru_cache(1 << 13, typed=True)
def _as_json(edge: float) -> str:
    # `repr` writes a finite number as JSON does, in a third of the time.
    return repr(edge + 0.0) if isinstance(edge, float) and math.isfinite(edge) else json.dumps(edge)


def default_edges(integers: bool, limits: Sequence[float]) -> tuple[float, ...]:
    """Edges for a score without declared ones, chosen by its type and its limits."""
    if integers:
        return whole_numbers()
    if limits and all(0 <= value <= 1 for value in limits):
        return _shares()
    return magnitudes()


@functools.cache
def _shares() -> tuple[float, ...]:
    """Edges for shares, and some for numbers outside of 0 to 1."""
    outside = (edge for edge in magnitudes() if edge < 0 or edge > 1)
    return merged(fractions(), (edge for edge in outside if abs(edge) >= 2**-4))


def packed_edges(edges: Sequence[float]) -> str:
    """Edges as text for a file: a list of hundreds of numbers would take as long to write as all else in it."""
    return base64.b64encode(np.array(edges, "<f8").tobytes()).decode()


def unpacked_edges(packed: str | list[float]) -> list[float]:
    """The edges from such a text. Earlier versions wrote a list."""
    if isinstance(packed, list):
        return packed
    return np.frombuffer(base64.b64decode(packed, validate=True), "<f8").tolist()


def bins_of(values: np.ndarray[Any, Any], edges: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The bin of each number: 0 below the first edge, ``len(edges)`` from the last on; bin ``i`` begins with edge ``i - 1``."""
    found: np.ndarray[Any, Any] = np.searchsorted(edges, values, side="right")
    return found


def bin_at(edges: Sequence[float], edge: float) -> int | None:
    """The number of bins below ``edge``, or None if it is not an edge."""
    place = bisect.bisect_left(edges, edge)
    return place if place < len(edges) and edges[place] == edge else None


def _power(step: int) -> float:
    # Computed from exact powers of two and a table, so it is the same on every machine: pow() may differ in the last
    # bit.
    return math.ldexp(_EIGHTHS[step % _PER_OCTAVE], step // _PER_OCTAVE)


_EIGHTHS = (1.0, 1.09, 1.19, 1.297, 1.414, 1.542, 1.682, 1.834)


def _around(value: float, integers: bool) -> list[float]:
    if not math.isfinite(value):
        return []
    if not integers:
        # Rounded as users write them: 1.1 times 0.15 is 0.165, not the float next to it.
        return [value, *(float(f"{value * part:.12g}") for part in _AROUND)]
    near = {value - 2, value - 1, value, value + 1, value + 2, *(float(round(value * part)) for part in _AROUND)}
    return sorted(near)
