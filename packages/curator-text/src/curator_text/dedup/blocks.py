"""Decides about groups of any size in bounded memory. Large groups are decided block by block, with the same
outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curator_text.dedup.compare import Decisions, Rule, decide
from curator_text.dedup.texts_in_order import TextsInOrder
from curator_text.dedup.words import Words, joined, taken

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
# How many words are compared at once; each takes about fifty bytes.
BLOCK_WORDS = 1 << 22

# A function that gets the words of some texts, the indices of removed documents and of their witnesses among these
# texts, and the rows of the removed documents.
type Report = Callable[[Words, Ints, Ints, Ints], None]


def decide_in_blocks(
    texts: TextsInOrder,
    groups: NDArray[np.uint64],
    rule: Rule,
    *,
    size: int,
    old: Bools | None = None,
    among_new: bool = True,
    block_words: int = BLOCK_WORDS,
    report: Report | None = None,
) -> Decisions:
    """The decisions of `compare.decide` about documents that come group by group and in order of preference.

    Groups that fit are decided together. The documents of a larger group are decided block by block: first they are
    compared with each earlier block of documents that stay, in order, and then the rest among themselves. So the first
    document that meets the rule is the witness, as if all documents were compared at once. ``old`` documents come first
    in their group; see `compare.decide`. ``report`` is called for each removal while the words of both documents are in
    memory.
    """
    count = len(texts.counts)
    old = np.zeros(count, np.bool_) if old is None else old
    made = Decisions(
        np.full(count, -1),
        np.full(count, np.nan),
        np.full(count, np.nan),
        np.full(count, -1),
        np.zeros(count, np.int64),
    )
    work = _Work(texts, old, among_new, rule, size, block_words, made, report)
    ends = np.append(0, np.cumsum(texts.counts))
    heads = np.flatnonzero(np.append(True, groups[1:] != groups[:-1])) if count else np.zeros(0, np.int64)
    edges = np.append(heads, count)
    first = 0
    while first < len(heads):
        # Take as many whole groups as fit, but at least one.
        room = ends[edges[first]] + block_words
        last = max(int(np.searchsorted(ends[edges], room, "right")) - 1, first + 1)
        rows = np.arange(edges[first], edges[last])
        if ends[edges[last]] <= room:
            work.decide(rows, texts.taken(rows), groups[rows])
        else:
            work.decide_large(rows)
        first = last
    return made


@dataclass(frozen=True, slots=True)
class _Work:
    texts: TextsInOrder
    old: Bools
    among_new: bool
    rule: Rule
    size: int
    block_words: int
    made: Decisions
    report: Report | None

    def decide(self, rows: Ints, words: Words, groups: NDArray[np.uint64]) -> None:
        """Decide about whole groups, or about the rest of a group after comparisons with all earlier documents that
        stay.
        """
        order = np.arange(len(rows))
        found = decide(words, groups, order, self.rule, size=self.size, old=self.old[rows], among_new=self.among_new)
        self._enter(rows, found, words)

    def decide_large(self, rows: Ints) -> None:
        """Decide about a group that is too large to be decided at once."""
        counts, most = self.texts.counts, self.block_words // 2
        stay: list[Ints] = []  # blocks of documents that stay, in order
        for block in self._blocks(rows, most):
            left, words = block, self.texts.taken(block)
            for before in stay:
                self._against(before, left, words)
                rest = np.flatnonzero(self.made.witness[left] < 0)
                if len(rest) < len(left):
                    left, words = left[rest], taken(words, rest)
                if not len(left):
                    break
            if not len(left):
                continue
            self.decide(left, words, np.zeros(len(left), np.uint64))
            kept = left[self.made.witness[left] < 0]
            kept = kept[counts[kept] > 0]
            if not self.among_new:
                kept = kept[self.old[kept]]  # only old documents are witnesses
            if not len(kept):
                continue
            # Join small blocks of documents that stay into one, so that fewer comparisons are needed.
            if stay and counts[stay[-1]].sum() + counts[kept].sum() <= most:
                stay[-1] = np.concatenate([stay[-1], kept])
            else:
                stay.append(kept)

    def _against(self, before: Ints, left: Ints, words: Words) -> None:
        """Compare documents with some earlier ones that stay."""
        asked = np.flatnonzero(~self.old[left])  # old documents stay
        if len(asked) < len(left):
            left, words = left[asked], taken(words, asked)
        if not len(left):
            return
        both = joined([self.texts.taken(before), words])
        stays = np.arange(len(both)) < len(before)
        found = decide(
            both,
            np.zeros(len(both), np.uint64),
            np.arange(len(both)),
            self.rule,
            size=self.size,
            old=stays,
            among_new=False,
        )
        self._enter(np.concatenate([before, left]), found, both)

    def _enter(self, rows: Ints, found: Decisions, words: Words) -> None:
        gone = np.flatnonzero(found.witness >= 0)
        self.made.compared[rows] += found.compared
        self.made.witness[rows[gone]] = rows[found.witness[gone]]
        for name in ("jaccard", "containment", "new_words"):
            getattr(self.made, name)[rows[gone]] = getattr(found, name)[gone]
        if self.report is not None and len(gone):
            self.report(words, gone, found.witness[gone], rows[gone])

    def _blocks(self, rows: Ints, most: int) -> list[Ints]:
        """The documents in blocks of at most ``most`` words, or of one document."""
        ends = np.cumsum(self.texts.counts[rows])
        found, start = [], 0
        while start < len(rows):
            before = int(ends[start - 1]) if start else 0
            stop = max(int(np.searchsorted(ends, before + most, "right")), start + 1)
            found.append(rows[start:stop])
            start = stop
        return found
