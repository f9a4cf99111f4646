"""Decides about groups of any size in bounded memory. Large groups are decided block by block, with the same
outcome.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curator_text.dedup.compare import Decisions, Rule, decide
from curator_text.dedup.words import Words

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
# How many words are compared at once; each takes about fifty bytes.
BLOCK_WORDS = 1 << 22


def taken(words: Words, rows: Ints) -> Words:
    """The words of some of the texts."""
    counts = words.counts[rows]
    offsets = np.append(0, np.cumsum(counts))
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and np.all(rows[1:] > rows[:-1]):  # no copy
        part = slice(words.offsets[rows[0]], words.offsets[rows[-1] + 1])
        return Words(words.hashes[part], offsets, None if words.spaceless is None else words.spaceless[part])
    at = np.repeat(words.offsets[rows] - offsets[:-1], counts) + np.arange(offsets[-1])
    return Words(words.hashes[at], offsets, None if words.spaceless is None else words.spaceless[at])


def decide_in_blocks(
    words: Words,
    groups: NDArray[np.uint64],
    rule: Rule,
    *,
    size: int,
    old: Bools | None = None,
    among_new: bool = True,
    block_words: int = BLOCK_WORDS,
) -> Decisions:
    """The decisions of `compare.decide` about documents that come group by group and in order of preference.

    Groups that fit are decided together. The documents of a larger group are decided block by block: first they are
    compared with each earlier block of documents that stay, in order, and then the rest among themselves. So the first
    document that meets the rule is the witness, as if all documents were compared at once. ``old``
    documents come first in their group; see `compare.decide`.
    """
    count = len(words)
    work = _Work(words, np.zeros(count, np.bool_) if old is None else old, among_new, rule, size, block_words)
    made = Decisions(
        np.full(count, -1),
        np.full(count, np.nan),
        np.full(count, np.nan),
        np.full(count, -1),
        np.zeros(count, np.int64),
    )
    heads = np.flatnonzero(np.append(True, groups[1:] != groups[:-1])) if count else np.zeros(0, np.int64)
    edges = np.append(heads, count)
    first = 0
    while first < len(heads):
        # Take as many whole groups as fit, but at least one.
        room = words.offsets[edges[first]] + block_words
        last = max(int(np.searchsorted(words.offsets[edges], room, "right")) - 1, first + 1)
        rows = np.arange(edges[first], edges[last])
        if words.offsets[edges[last]] <= room:
            _put(made, rows, work.decide(rows, groups[rows]), rows)
        else:
            _decide_large(made, rows, work)
        first = last
    return made


@dataclass(frozen=True, slots=True)
class _Work:
    words: Words
    old: Bools
    among_new: bool
    rule: Rule
    size: int
    block_words: int

    def decide(self, rows: Ints, groups: NDArray[np.uint64]) -> Decisions:
        order = np.arange(len(rows))
        return decide(
            taken(self.words, rows),
            groups,
            order,
            self.rule,
            size=self.size,
            old=self.old[rows],
            among_new=self.among_new,
        )


def _put(made: Decisions, rows: Ints, found: Decisions, among: Ints) -> None:
    """Store the decisions about ``rows``; a witness is an index into ``among``."""
    gone = found.witness >= 0
    made.witness[rows] = np.where(gone, among[found.witness], -1)
    for name in ("jaccard", "containment", "new_words"):
        getattr(made, name)[rows] = getattr(found, name)
    made.compared[rows] += found.compared


def _decide_large(made: Decisions, rows: Ints, work: _Work) -> None:
    words, most = work.words, work.block_words // 2
    stay: list[Ints] = []  # blocks of documents that stay, in order
    for block in _blocks(words, rows, most):
        left = block
        for before in stay:
            both = np.concatenate([before, left])
            found = work.decide(both, np.zeros(len(both), np.uint64))
            made.compared[left] += found.compared[len(before) :]
            # A witness among the rest may still be removed itself.
            certain = np.flatnonzero((found.witness >= 0) & (found.witness < len(before)))
            made.witness[both[certain]] = both[found.witness[certain]]
            for name in ("jaccard", "containment", "new_words"):
                getattr(made, name)[both[certain]] = getattr(found, name)[certain]
            left = left[made.witness[left] < 0]
            if not len(left):
                break
        if not len(left):
            continue
        found = work.decide(left, np.zeros(len(left), np.uint64))
        _put(made, left, found, left)
        kept = left[found.witness < 0]
        if not work.among_new:
            kept = kept[work.old[kept]]  # only old documents are witnesses
        if not len(kept):
            continue
        # Join small blocks of documents that stay into one, so that fewer comparisons are needed.
        if stay and words.counts[stay[-1]].sum() + words.counts[kept].sum() <= most:
            stay[-1] = np.concatenate([stay[-1], kept])
        else:
            stay.append(kept)


def _blocks(words: Words, rows: Ints, most: int) -> list[Ints]:
    """The documents in blocks of at most ``most`` words, or of one document."""
    ends = np.cumsum(words.counts[rows])
    found, start = [], 0
    while start < len(rows):
        before = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, before + most, "right")), start + 1)
        found.append(rows[start:stop])
        start = stop
    return found
