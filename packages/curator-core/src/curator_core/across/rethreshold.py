"""What would a stricter limit have removed? The answer is the same decisions without the removals whose figures do not
meet the limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.decisions import (
    KEPT,
    MANIFEST,
    REMOVED,
    SCHEMA,
    Decisions,
    decisions_table,
    finish_decisions,
    write_parts,
)
from curator_core.arrow.arrays import array, scalar, to_numpy
from curator_core.errors import RunRefused, UsageError, check_whole

# For each rule, the figure that `threshold` is compared with, and whether `max_new_words` is one of its limits.
_FIGURES = {
    "nothing_new": ("containment", True),
    "containment": ("containment", False),
    "jaccard": ("jaccard", False),
    "similar": ("similarity", False),
    "perceptual": ("similarity", False),
}
_READ = ["number", "decision", "rule", "jaccard", "containment", "new_words", "similarity", "copy_of", "cluster"]
# The columns that are null after a removal is undone: the witness and the figures.
_WITNESS = ["witness_number", "witness_source", "witness_row", "witness_id"]
_OF_A_PAIR = [
    *_WITNESS,
    "jaccard",
    "containment",
    "new_words",
    "shared_bands",
    "similarity",
    "rule",
    "copy_of",
    "copy_of_id",
]


def rethreshold(
    folder: str, out: str, *, threshold: float | None = None, max_new_words: int | None = None
) -> Decisions:
    """Write the decisions of ``folder`` under stricter limits to the folder ``out``; return them for reading.

    Removals whose figures do not meet the limits are undone; every other removal keeps its witness, which stays in any
    case. An exact copy of a document that is kept again is then removed as a copy of that document. More documents may
    stay than after a run with these limits, since the run might find other witnesses. Looser limits raise an error: the
    documents that they would remove were never recorded.

    The table is read twice, a piece at a time; 16 bytes of memory are used for each removal that is undone.
    """
    decisions = Decisions.open(folder)
    limits = _checked(decisions, threshold, max_new_words)
    if storage.absolute(out) == storage.absolute(folder) or storage.exists(storage.join(out, MANIFEST)):
        raise RunRefused(f"{out!r} holds a table of decisions already: choose another folder")
    changes = _changes(decisions, limits)
    records = [write_parts(out, part, _changed(decisions, part, limits, changes)) for part in decisions.parts()]
    finish_decisions(out, records, decisions.roll, {**decisions.settings, **limits.settings()})
    return Decisions.open(out)


@dataclass(frozen=True, slots=True)
class _Limits:
    threshold: float | None
    max_new_words: int | None

    def settings(self) -> dict[str, Any]:
        both = {"threshold": self.threshold, "max_new_words": self.max_new_words}
        return {name: value for name, value in both.items() if value is not None}


@dataclass(frozen=True, slots=True)
class _Counted:
    """Numbers, and how often each occurs."""

    numbers: NDArray[np.uint64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, numbers: list[NDArray[np.uint64]]) -> _Counted:
        return cls(*np.unique(np.concatenate([np.zeros(0, np.uint64), *numbers]), return_counts=True))

    def of_each(self, asked: NDArray[np.uint64]) -> NDArray[np.int64]:
        if not len(self.numbers):
            return np.zeros(len(asked), np.int64)
        at = np.minimum(np.searchsorted(self.numbers, asked), len(self.numbers) - 1)
        return np.where(self.numbers[at] == asked, self.counts[at], 0)


@dataclass(frozen=True, slots=True)
class _Changes:
    """For each cluster the number of documents that leave it; for each document that is kept again the number of its
    exact copies.
    """

    leaving: _Counted
    copies: _Counted


def _checked(decisions: Decisions, threshold: float | None, max_new_words: int | None) -> _Limits:
    if threshold is None and max_new_words is None:
        raise UsageError("rethreshold needs a threshold, or max_new_words, or both")
    rule = decisions.settings.get("rule")
    if rule not in _FIGURES:
        raise UsageError(
            f"the decisions in {decisions.folder!r} were made by the rule {rule!r}, which has no limits: only those of "
            f"{', '.join(_FIGURES)} can be made stricter"
        )
    if threshold is not None:
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
            raise UsageError(f"threshold must be a number above 0 and at most 1, not {threshold!r}")
        _not_looser("threshold", threshold, decisions, looser=threshold < decisions.settings.get("threshold", 0))
    if max_new_words is not None:
        check_whole("max_new_words", max_new_words, least=0)
        if not _FIGURES[rule][1]:
            raise UsageError(
                f"max_new_words is a limit of the rule 'nothing_new', and the decisions were made by {rule!r}"
            )
        before = decisions.settings.get("max_new_words", max_new_words)
        _not_looser("max_new_words", max_new_words, decisions, looser=max_new_words > before)
    return _Limits(threshold, max_new_words)


def _not_looser(name: str, value: float, decisions: Decisions, *, looser: bool) -> None:
    if looser:
        raise UsageError(
            f"{name}={value!r} is looser than the {decisions.settings[name]!r} that the decisions in {decisions.folder!r} were "
            "made with: the additional documents that it would remove were not compared. Run the deduplication again "
            "with it"
        )


def _failing(table: pa.Table, limits: _Limits) -> NDArray[np.bool_]:
    """Whether each removal fails to meet the limits."""
    removed = to_numpy(pc.equal(table["decision"], scalar(REMOVED)))
    fails = np.zeros(table.num_rows, np.bool_)
    for rule, (figure, counts_words) in _FIGURES.items():
        mine = removed & to_numpy(pc.fill_null(pc.equal(table["rule"], scalar(rule)), scalar(False)))
        if not mine.any():
            continue
        if limits.threshold is not None:
            fails |= mine & ~_true(pc.greater_equal(table[figure], scalar(float(limits.threshold))))
        if limits.max_new_words is not None and counts_words:
            fails |= mine & ~_true(pc.less_equal(table["new_words"], pa.scalar(limits.max_new_words, pa.int32())))
    return fails


def _true(values: pa.ChunkedArray) -> NDArray[np.bool_]:
    return to_numpy(pc.fill_null(values, scalar(False)))


def _changes(decisions: Decisions, limits: _Limits) -> _Changes:
    leaving: list[NDArray[np.uint64]] = []
    copies: list[NDArray[np.uint64]] = []
    for table in decisions.tables(_READ):
        failing = table.filter(array(_failing(table, limits)))
        leaving.append(to_numpy(failing["cluster"].drop_null()))
        copies.append(to_numpy(failing["copy_of"].drop_null()))
    return _Changes(_Counted.of(leaving), _Counted.of(copies))


def _changed(decisions: Decisions, part: str, limits: _Limits, changes: _Changes) -> Iterator[pa.Table]:
    for table in decisions.part(part):
        fails = _failing(table, limits)
        copies = to_numpy(table["copy_of"].is_valid())
        moved = table.filter(array(fails & copies))
        kept_again = table.filter(array(fails & ~copies))
        pieces = [_rest(table.filter(array(~fails)), changes), _witnesses(kept_again, changes)]
        if moved.num_rows:
            pieces.append(_moved(moved, decisions, changes))
        yield decisions_table(dict(zip(SCHEMA.names, pa.concat_tables(pieces).columns, strict=True)))


def _rest(table: pa.Table, changes: _Changes) -> pa.Table:
    """The remaining removals, with the sizes of their clusters; a witness without removed documents is no longer one."""
    cluster = to_numpy(pc.fill_null(table["cluster"], pa.scalar(0, pa.uint64())))
    fewer = np.where(to_numpy(table["cluster"].is_valid()), changes.leaving.of_each(cluster), 0)
    table = _with(table, cluster_size=pc.subtract(table["cluster_size"], array(fewer)))
    alone = _true(pc.and_(pc.equal(table["decision"], scalar(KEPT)), pc.less(table["cluster_size"], pa.scalar(2))))
    return table.filter(array(~alone))


def _witnesses(table: pa.Table, changes: _Changes) -> pa.Table:
    """The documents that are kept again and have exact copies, as new witnesses."""
    copies = changes.copies.of_each(to_numpy(table["number"]))
    table, copies = table.filter(array(copies > 0)), copies[copies > 0]
    empty = {name: pa.nulls(table.num_rows, SCHEMA.field(name).type) for name in _OF_A_PAIR}
    decision = array([KEPT] * table.num_rows, pa.string())
    return _with(table, **empty, decision=decision, cluster=table["number"], cluster_size=array(copies + 1))


def _moved(table: pa.Table, decisions: Decisions, changes: _Changes) -> pa.Table:
    """Exact copies of documents that are kept again, with these as their witnesses."""
    rows = table.num_rows
    copy_of = to_numpy(table["copy_of"])
    sources, places = decisions.roll.places(copy_of)
    return _with(
        table,
        witness_number=table["copy_of"],
        witness_source=sources,
        witness_row=array(places),
        witness_id=table["copy_of_id"],
        jaccard=array(np.ones(rows)),
        containment=array(np.ones(rows)),
        new_words=array(np.zeros(rows, np.int32)),
        shared_bands=pa.nulls(rows, pa.int32()),
        similarity=pa.nulls(rows, pa.float64()),
        rule=array(["exact"] * rows, pa.string()),
        copy_of=pa.nulls(rows, pa.uint64()),
        copy_of_id=pa.nulls(rows, pa.string()),
        cluster=table["copy_of"],
        cluster_size=array(changes.copies.of_each(copy_of) + 1),
    )


def _with(table: pa.Table, **columns: Any) -> pa.Table:
    for name, values in columns.items():
        table = table.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), values)
    return table
