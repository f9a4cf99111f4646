"""Which of two documents is kept? An order of preference becomes numbers; the smaller one is preferred."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curator_core.across.scores import score_keys
from curator_core.arrow.arrays import array, to_numpy
from curator_core.arrow.row_hash import column_of
from curator_core.errors import UsageError, nearest

LAST = np.uint64(0xFFFFFFFFFFFFFFFF)
_PLAIN = ("longest", "shortest", "first")
_WITH_VALUE = ("rank", "highest", "lowest")

type Keep = Sequence[str | Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of an order of preference: ``longest``, ``shortest``, ``first``, ``rank``, ``highest`` or ``lowest``."""

    kind: str
    column: str = ""
    collections: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preference:
    """An order of preference: the first rule decides; if it ties, the next one does, and so on.

    If all rules tie, the document with the smaller 128-bit hash of its text comes first, and then the one with the
    smaller number, so the order is total. ``first`` compares the numbers themselves, so nothing ties after it.
    """

    rules: tuple[Rule, ...]

    @classmethod
    def of(cls, keep: Any, owner: str) -> Preference:
        """The order that ``keep`` describes, a list such as ``["longest", "first"]`` or ``[{"rank": ["wiki", "books"]},
        {"highest": "quality"}, "longest"]``.
        """
        if isinstance(keep, str | Mapping) or not isinstance(keep, Sequence) or not keep:
            raise UsageError(f"{owner}.keep must be a list such as ['longest', 'first'], not {keep!r}")
        rules = tuple(_rule(entry, owner) for entry in keep)
        for number, rule in enumerate(rules[:-1], 1):
            if rule.kind == "first":
                rest = ", ".join(repr(entry) for entry in keep[number:])
                raise UsageError(
                    f"{owner}.keep: there are no ties after 'first', so {rest} would never be used: put 'first' last"
                )
        return cls(rules)

    @property
    def first(self) -> bool:
        """Whether the place in the input takes precedence over the hash of the text."""
        return bool(self.rules) and self.rules[-1].kind == "first"

    @property
    def columns(self) -> list[str]:
        """The columns of the data that the rules read."""
        return [rule.column for rule in self.rules if rule.column]

    @property
    def names(self) -> list[str]:
        """The names of the columns that `encode` returns, one for each rule except ``first``."""
        return [f"prefer{number}" for number, rule in enumerate(self.rules) if rule.kind != "first"]

    def encode(
        self, table: pa.Table, lengths: NDArray[np.uint64], collections: pa.Array | pa.ChunkedArray
    ) -> dict[str, NDArray[np.uint64]]:
        """A number for each row of ``table`` and each rule except ``first``; of two rows, the one with the smaller
        number is preferred.
        """
        found = (self._encode(rule, table, lengths, collections) for rule in self.rules if rule.kind != "first")
        return dict(zip(self.names, found, strict=True))

    def sort(
        self, columns: Mapping[str, NDArray[np.uint64]], within: Sequence[NDArray[np.uint64]] = ()
    ) -> NDArray[np.int64]:
        """The rows in order of preference, in groups of equal values of ``within``; ``columns`` holds the result of
        `encode`, and also ``number``, ``hash_high`` and ``hash_low``.
        """
        ties = ["number"] if self.first else ["hash_high", "hash_low", "number"]
        keys = [*within, *(columns[name] for name in (*self.names, *ties))]
        return np.lexsort(keys[::-1])

    def _encode(
        self, rule: Rule, table: pa.Table, lengths: NDArray[np.uint64], collections: pa.Array | pa.ChunkedArray
    ) -> NDArray[np.uint64]:
        if rule.kind == "longest":
            return LAST - lengths
        if rule.kind == "shortest":
            return lengths
        if rule.kind == "rank":
            found = pc.index_in(collections, value_set=array(list(rule.collections), pa.string()))
            return to_numpy(pc.fill_null(found, len(rule.collections))).astype(np.uint64)
        values = column_of(table, rule.column)
        return score_keys(values, f"the score {rule.column!r} of keep", highest=rule.kind == "highest")


def _rule(entry: Any, owner: str) -> Rule:
    shown = "'longest', 'shortest', 'first', {'rank': [collections]}, {'highest': column} or {'lowest': column}"
    if isinstance(entry, str):
        if entry in _PLAIN:
            return Rule(entry)
        hint = " with a value, as in {'highest': 'score'}" if entry in _WITH_VALUE else nearest(entry, _PLAIN)
        raise UsageError(f"{owner}.keep holds {shown}, not {entry!r}{hint}")
    if isinstance(entry, Mapping) and len(entry) == 1:
        ((kind, value),) = entry.items()
        if kind in ("highest", "lowest") and isinstance(value, str) and value:
            return Rule(kind, column=value)
        if kind == "rank" and isinstance(value, list | tuple) and value and _different_names(value):
            return Rule("rank", collections=tuple(value))
    raise UsageError(f"{owner}.keep holds {shown}, not {entry!r}")


def _different_names(values: Sequence[Any]) -> bool:
    return all(isinstance(name, str) for name in values) and len(set(values)) == len(values)
