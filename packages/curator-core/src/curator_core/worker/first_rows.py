"""Which rows of a stage does a worker keep as samples? The first ones by distance and number, of each kind.

A worker can discard a row as soon as it has enough that rank before it: it cannot be among the first of the whole run
either. Most batches contain no row or a few that come before, so these are found with one comparison and then looked at
one by one.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from curator_core.arrow.arrays import to_numpy

# Up to this many rows are looked at one by one; more are compared in a few calls of numpy.
_FEW = 24


class Best:
    """The first rows of one kind in a worker, by distance and number."""

    __slots__ = ("keys", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.keys: list[tuple[float, int]] = []

    @property
    def full(self) -> bool:
        return len(self.keys) == self.most

    def rank(self, distance: float, number: int) -> int | None:
        """The place of a row among the first; None if others have replaced it."""
        place = bisect.bisect_left(self.keys, (distance, number))
        return place if place < len(self.keys) and self.keys[place] == (distance, number) else None

    def choose(
        self, among: np.ndarray[Any, Any], distances: np.ndarray[Any, Any] | None, numbers: np.ndarray[Any, Any]
    ) -> list[tuple[int, float, int]]:
        """The rows that are among the first so far, with their distances and numbers. ``among`` is a boolean mask of
        the candidates; those without a finite distance are left out.
        """
        by = numbers if distances is None else distances
        most = self.most
        if self.full:
            last, after = self.keys[-1]
            # This leaves few rows of a batch; the exact order of the keys is checked below.
            among = among & (by < np.uint64(after) if distances is None else by <= last)
        rows = among.nonzero()[0]
        if not len(rows):
            return []
        if distances is not None:
            found = distances[rows]
            before = (found < last) | (numbers[rows] < np.uint64(after)) if self.full else np.isfinite(found)
            rows = rows[before]
        if len(rows) > most:
            found = by[rows]
            rows = rows[found <= np.partition(found, most - 1)[most - 1]]
            if len(rows) > most:  # many rows have the same distance
                rows = rows[np.lexsort((numbers[rows], by[rows]))[:most]]
        far = [0.0] * len(rows) if distances is None else distances[rows].tolist()
        each = zip(rows.tolist(), far, numbers[rows].tolist(), strict=True)
        return [(row, distance, number) for row, distance, number in each if self.put(distance, number)]

    def put(self, distance: float, number: int) -> bool:
        """Put a row among the first; False if it does not belong there."""
        keys, key = self.keys, (distance, number)
        place = bisect.bisect_left(keys, key)
        if place == self.most or (place < len(keys) and keys[place] == key):
            return False  # others come before it, or it is there already because the task is run again
        keys.insert(place, key)
        del keys[self.most :]
        return True


class Chosen(NamedTuple):
    """A row that is among the first so far, near a limit (``near``) or from anywhere. It is kept (``reason`` is None)
    or dropped for a reason.
    """

    best: Best
    reason: str | None
    near: str
    row: int
    distance: float
    number: int


class Verdicts:
    """A filter's verdict on each row of a task: None for a row that is kept, or the reason for dropping it."""

    __slots__ = ("_lost", "_places", "_said", "kept", "reasons")

    def __init__(self, kept: np.ndarray[Any, Any], said: pa.Array | str, reasons: Sequence[str]) -> None:
        """``said`` is the reason for all dropped rows or an array with that of each, and ``reasons`` are all of them."""
        self.kept, self.reasons = kept, reasons
        self._said = said
        self._lost: np.ndarray[Any, Any] | None = None
        self._places: np.ndarray[Any, Any] | None = None

    @property
    def lost(self) -> np.ndarray[Any, Any]:
        """The rows that are dropped."""
        if self._lost is None:
            self._lost = (~self.kept).nonzero()[0]
        return self._lost

    def at(self, row: int) -> str | None:
        if self.kept[row]:
            return None
        return self.reasons[0 if len(self.reasons) == 1 else self._placed()[row]]

    def of(self, reason: str | None) -> np.ndarray[Any, Any]:
        """The rows with this verdict, as a boolean mask."""
        if reason is None:
            return self.kept
        return ~self.kept if len(self.reasons) == 1 else self._placed() == self.reasons.index(reason)

    def _placed(self) -> np.ndarray[Any, Any]:
        """For each row that is dropped, the place of its reason among all reasons; -1 for the others."""
        if self._places is None:
            assert not isinstance(self._said, str)
            words = self._said.dictionary_encode()
            places = np.array([self.reasons.index(word) for word in words.dictionary.to_pylist()], np.int64)
            self._places = np.full(len(self.kept), -1)
            self._places[self.lost] = places[to_numpy(words.indices)]
        return self._places


class Beyond:
    """Verdicts that concern one limit: of the rows that are dropped only those beyond it, and only those that are dropped
    for its reason, if it has one.
    """

    __slots__ = ("_edge", "_low", "_mask", "_values", "_verdicts", "reasons")

    def __init__(
        self, verdicts: Verdicts, values: np.ndarray[Any, Any], edge: float | None, *, low: bool, reason: str
    ) -> None:
        """The edge is None if all dropped rows count. ``low`` says that rows below it are dropped."""
        self._verdicts, self._values, self._edge, self._low = verdicts, values, edge, low
        self.reasons = [one for one in verdicts.reasons if reason in ("", one)]
        self._mask: np.ndarray[Any, Any] | None = None

    @property
    def lost(self) -> np.ndarray[Any, Any]:
        return self._verdicts.lost

    def at(self, row: int) -> str | None:
        reason = self._verdicts.at(row)
        if reason is None or self._edge is None:
            return reason
        value = self._values[row]
        return reason if (value < self._edge if self._low else value >= self._edge) else _OTHER

    def of(self, reason: str | None) -> np.ndarray[Any, Any]:
        rows = self._verdicts.of(reason)
        if reason is None or self._edge is None:
            return rows
        if self._mask is None:
            self._mask = self._values < self._edge if self._low else self._values >= self._edge
        both: np.ndarray[Any, Any] = rows & self._mask
        return both


# Stands for the reason of a row that is not beyond the limit; no reason has this name.
_OTHER = "\0"


class Firsts:
    """The first rows near one limit, or from anywhere: those that are kept, and those that are dropped for each reason."""

    __slots__ = ("_bests", "_last", "_most", "near")

    def __init__(self, near: str, kept: int, dropped: int) -> None:
        """``kept`` and ``dropped`` say how many rows are enough."""
        self.near = near
        self._most = kept, dropped
        self._bests: dict[str | None, Best] = {}
        # Of the kept rows and of the dropped ones, the largest distance (or number, if rows have none) that is among the
        # first, if there are enough of some kind.
        self._last: list[Any] = [None, None]

    def choose(
        self, verdicts: Verdicts | Beyond, distances: np.ndarray[Any, Any] | None, numbers: np.ndarray[Any, Any]
    ) -> list[Chosen]:
        """The rows of a task that are among the first so far."""
        chosen = self._chosen((None,), None, verdicts, distances, numbers)
        if verdicts.reasons:
            chosen += self._chosen(verdicts.reasons, verdicts.lost, verdicts, distances, numbers)
        return chosen

    def _chosen(
        self,
        reasons: Sequence[str | None],
        within: np.ndarray[Any, Any] | None,
        verdicts: Verdicts | Beyond,
        distances: np.ndarray[Any, Any] | None,
        numbers: np.ndarray[Any, Any],
    ) -> list[Chosen]:
        chosen: list[Chosen] = []
        dropped, few = within is not None, False
        last = self._last[dropped]
        if last is not None:
            by = numbers if distances is None else distances
            by = by if within is None else by[within]
            rows = (by < last if distances is None else by <= last).nonzero()[0]
            few = len(rows) <= _FEW
            if few and len(rows):
                rows = rows if within is None else within[rows]
                far = [0.0] * len(rows) if distances is None else distances[rows].tolist()
                for row, distance, number in zip(rows.tolist(), far, numbers[rows].tolist(), strict=True):
                    reason = verdicts.at(row)
                    best = self._bests.get(reason) if dropped or reason is None else None
                    if best is not None and best.full and best.put(distance, number):
                        chosen.append(Chosen(best, reason, self.near, row, distance, number))
        for reason in reasons:
            best = self._bests.get(reason)
            if best is None or not (few and best.full):
                chosen += self.first(reason, verdicts.of(reason), distances, numbers)
        if chosen:
            kinds = self._bests.items()
            ends = [best.keys[-1] for reason, best in kinds if best.full and (reason is not None) == dropped]
            if ends:
                self._last[dropped] = np.uint64(max(ends)[1]) if distances is None else max(ends)[0]
        return chosen

    def first(
        self,
        reason: str | None,
        among: np.ndarray[Any, Any],
        distances: np.ndarray[Any, Any] | None,
        numbers: np.ndarray[Any, Any],
    ) -> list[Chosen]:
        """Those of one kind, given as a boolean mask."""
        best = self._bests.get(reason)
        if best is None:
            best = self._bests[reason] = Best(self._most[reason is not None])
        return [Chosen(best, reason, self.near, *found) for found in best.choose(among, distances, numbers)]
