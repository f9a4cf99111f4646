"""Which rows of a column have no vector, and why? They are counted for the summary, and the first of each kind is named."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curator_core.across.vectors import Vectors, lists_in, two_lengths
from curator_core.arrow.arrays import array, scalar, to_numpy
from curator_core.arrow.json_column import JSON
from curator_core.formatting import count
from curator_core.model.places import places_of
from curator_core.model.task import DocumentBatch

EMPTY, NOT_FINITE, ZEROS = "null or empty", "with NaN, infinity or null among the numbers", "all zeros"
OTHER = "not a list of numbers"


@dataclass
class Lacking:
    """The vectors of a column: ``numbers`` is their length, 0 if there are none, and ``first`` names the first row with
    a vector. ``without`` gives for each reason the number of rows without a vector, and the name of the first.
    """

    numbers: int = 0
    first: str = ""
    without: dict[str, tuple[int, str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, values: pa.ChunkedArray, vectors: Vectors, rows: NDArray[np.int64], name: Callable[[int], str]
    ) -> Lacking:
        """The missing vectors of a batch, given the result of `vectors_of`; ``name`` names a row."""
        found = cls(vectors.shape[1], name(int(rows[0]))) if len(rows) else cls()
        others: list[int] = []
        if values.type == JSON:
            values, others = lists_in(values)
        if others:
            found.without[OTHER] = len(others), name(others[0])
        missing = np.ones(len(values), np.bool_)
        missing[rows] = missing[np.array(others, np.int64)] = False
        rest = np.flatnonzero(missing)
        if len(rest):
            some = values.take(array(rest))
            for reason, which in _reasons(some):
                if len(which):
                    found.without[reason] = len(which), name(int(rest[which[0]]))
        return found

    def add(self, other: Lacking, what: str) -> None:
        """Add the missing vectors of a later batch; ``what`` names the column in errors."""
        if self.numbers and other.numbers and self.numbers != other.numbers:
            raise two_lengths(what, (self.numbers, self.first), (other.numbers, other.first))
        self.numbers, self.first = self.numbers or other.numbers, self.first or other.first
        for reason, (rows, name) in other.without.items():
            before, first = self.without.get(reason, (0, name))
            self.without[reason] = before + rows, first

    @classmethod
    def added(cls, notes: Iterable[Any], what: str) -> Lacking:
        """The sum of the notes (`note`) of batches, in lineage order."""
        found = cls()
        for numbers, first, without in notes:
            found.add(cls(numbers, first, {reason: tuple(entry) for reason, entry in without.items()}), what)
        return found

    def note(self) -> list[Any]:
        """The values in JSON types."""
        return [self.numbers, self.first, self.without]

    @property
    def rows(self) -> int:
        """The number of rows without a vector."""
        return sum(rows for rows, _ in self.without.values())

    def text(self, column: str, one: str, many: str) -> str:
        """A sentence for the summary, empty if every row has a vector; ``one`` and ``many`` say what happens to one row
        and to several.
        """
        if not self.without:
            return ""
        kinds = (
            f"{self.without[reason][0]:,} {reason} (first: {self.without[reason][1]})"
            for reason in (EMPTY, OTHER, NOT_FINITE, ZEROS)
            if reason in self.without
        )
        have, what = ("has", one) if self.rows == 1 else ("have", many)
        return f"{count(self.rows, 'row')} {have} no vector in {column!r} and {what}: {'; '.join(kinds)}"


def _reasons(values: pa.ChunkedArray) -> Iterable[tuple[str, NDArray[np.int64]]]:
    """Rows without a vector, by reason."""
    if pa.types.is_null(values.type):
        return [(EMPTY, np.arange(len(values)))]
    wide = values.cast(pa.large_list(values.type.value_type))
    lengths = to_numpy(pc.fill_null(pc.list_value_length(wide), scalar(0)))
    filled = np.flatnonzero(lengths > 0)
    inner = pc.list_flatten(wide.take(array(filled))).cast(pa.float32(), safe=False)  # as vectors are compared
    numbers = np.abs(to_numpy(pc.fill_null(inner, scalar(float("nan")))))
    starts = np.cumsum(lengths[filled]) - lengths[filled]
    zeros = np.maximum.reduceat(numbers, starts) == 0 if len(filled) else np.zeros(0, np.bool_)
    return [(EMPTY, np.flatnonzero(lengths == 0)), (NOT_FINITE, filled[~zeros]), (ZEROS, filled[zeros])]


def row_namer(task: DocumentBatch, ids: pa.Array | None = None) -> Callable[[int], str]:
    """A function that names a row of a batch: by its id, if it has one, and its place in its file."""

    def name(row: int) -> str:
        places = places_of(task)
        where = f"row {row + 1:,} of its batch"
        if places is not None:
            source, place = places.at(row)
            where = f"{place} of {source!r}"
        value = None if ids is None else ids[row].as_py()
        return where if value is None else f"{value!r}, {where}"

    return name
