"""Decides about groups of any size in bounded memory: a large one block by block, with the same outcome."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curator_text.dedup.compare import Decisions, Rule, decide
from curator_text.dedup.words import Words

Ints = NDArray[np.int64]
# Words that are compared at once: about fifty bytes are needed for each.
BLOCK_WORDS = 1 << 22


def taken(words: Words, rows: Ints) -> Words:
    """The words of some of the texts."""
    counts = words.counts[rows]
    offsets = np.append(0, np.cumsum(counts))
    at = np.repeat(words.offsets[rows] - offsets[:-1], counts) + np.arange(offsets[-1])
    return Words(words.hashes[at], offsets, None if words.spaceless is None else words.spaceless[at])


def decide_in_blocks(
    words: Words, groups: NDArray[np.uint64], rule: Rule, *, size: int, block_words: int = BLOCK_WORDS
) -> Decisions:
    """What `compare.decide` decides about documents that stand group by group and in order of preference.

    Groups that fit are decided about together. Of a larger one the documents are taken a block at a time: first each
    block of those before it that stay, in their order, says which of them it is a witness for, then those that are left
    decide among themselves. So the first that meets the rule is the witness, as it is where all are compared at once.
    """
    count = len(words)
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
        # As many whole groups as fit; one at least.
        room = words.offsets[edges[first]] + block_words
        last = max(int(np.searchsorted(words.offsets[edges], room, "right")) - 1, first + 1)
        rows = np.arange(edges[first], edges[last])
        if words.offsets[edges[last]] <= room:
            _put(made, rows, _decide(words, rows, groups[rows], rule, size), rows)
        else:
            _decide_large(made, words, rows, rule, size, block_words)
        first = last
    return made


def _decide(words: Words, rows: Ints, groups: NDArray[np.uint64], rule: Rule, size: int) -> Decisions:
    return decide(taken(words, rows), groups, np.arange(len(rows)), rule, size=size)


def _put(made: Decisions, rows: Ints, found: Decisions, among: Ints) -> None:
    """Enter what was found about ``rows``; a witness is a place in ``among``."""
    gone = found.witness >= 0
    made.witness[rows] = np.where(gone, among[found.witness], -1)
    for name in ("jaccard", "containment", "new_words"):
        getattr(made, name)[rows] = getattr(found, name)
    made.compared[rows] += found.compared


def _decide_large(made: Decisions, words: Words, rows: Ints, rule: Rule, size: int, block_words: int) -> None:
    stay: list[Ints] = []  # blocks of documents that stay, in order
    for block in _blocks(words, rows, block_words // 2):
        left = block
        for before in stay:
            both = np.concatenate([before, left])
            found = _decide(words, both, np.zeros(len(both), np.uint64), rule, size)
            made.compared[left] += found.compared[len(before) :]
            # A witness among those that are left may yet go itself.
            certain = np.flatnonzero((found.witness >= 0) & (found.witness < len(before)))
            made.witness[both[certain]] = both[found.witness[certain]]
            for name in ("jaccard", "containment", "new_words"):
                getattr(made, name)[both[certain]] = getattr(found, name)[certain]
            left = left[made.witness[left] < 0]
            if not len(left):
                break
        if not len(left):
            continue
        found = _decide(words, left, np.zeros(len(left), np.uint64), rule, size)
        _put(made, left, found, left)
        kept = left[found.witness < 0]
        # Few documents of many blocks are one block: what has been settled is compared as seldom as possible.
        if stay and words.counts[stay[-1]].sum() + words.counts[kept].sum() <= block_words // 2:
            stay[-1] = np.concatenate([stay[-1], kept])
        else:
            stay.append(kept)


def _blocks(words: Words, rows: Ints, most: int) -> list[Ints]:
    """The documents in blocks of ``most`` words, or of one document."""
    ends = np.cumsum(words.counts[rows])
    found, start = [], 0
    while start < len(rows):
        before = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, before + most, "right")), start + 1)
        found.append(rows[start:stop])
        start = stop
    return found
