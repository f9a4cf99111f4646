"""Decides about groups of any size in bounded memory. Large groups are decided block by block, with the same outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curator_core.arrow.arrays import ranges_within
from curator_text.dedup.compare import Decisions, Rule, decide
from curator_text.dedup.texts_in_order import HashSets, TextsInOrder
from curator_text.dedup.words import Hashes, Words, joined, shingles_of, taken

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
# How many words are compared at once; each takes about fifty bytes.
BLOCK_WORDS = 1 << 22
# A block that has less than this part of another one's words is small beside it.
_SMALL = 16

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
    folder: str | None = None,
) -> Decisions:
    """The decisions of `compare.decide` about documents that come group by group and in order of preference.

    Groups that fit are decided together. The documents of a larger group are decided block by block: first they are
    compared with each earlier block of documents that stay, in order, and then the rest among themselves. So the first
    document that meets the rule is the witness, as if all documents were compared at once. ``old`` documents come first
    in their group; see `compare.decide`. ``report`` is called for each removal while the words of both documents are in
    memory. ``folder`` is for temporary files.
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
    work = _Work(texts, old, among_new, rule, size, block_words, made, report, folder)
    heads = np.flatnonzero(np.append(True, groups[1:] != groups[:-1])) if count else np.zeros(0, np.int64)
    edges = np.append(heads, count)
    sizes = np.add.reduceat(texts.counts, heads) if count else heads
    for first, last in ranges_within(sizes, block_words):
        rows = np.arange(edges[first], edges[last])
        if sizes[first] <= block_words:
            work.decide(rows, texts.taken(rows), groups[rows])
        else:
            work.decide_large(rows)
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
    folder: str | None

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
        with HashSets(self.folder) as shingles:  # the shingles of each of these blocks
            for block in self._blocks(rows, most):
                kept = self._decide_block(block, stay, shingles)
                if not len(kept):
                    continue
                # Join small blocks of documents that stay into one, so that fewer comparisons are needed.
                together = bool(stay) and int(counts[stay[-1]].sum() + counts[kept].sum()) <= most
                if together:
                    stay[-1] = np.concatenate([stay[-1], kept])
                else:
                    stay.append(kept)
                shingles.add(shingles_of(self.texts.taken(kept), size=self.size).hashes, to_last=together)

    def _decide_block(self, block: Ints, stay: list[Ints], shingles: HashSets) -> Ints:
        """Decide about a block; returns those of its documents that may be witnesses of later ones."""
        left, words = block, self.texts.taken(block)
        own: _Distinct | None = None
        for number, before in enumerate(stay):
            maybe = (self.made.witness[block] < 0) & ~self.old[block]
            # A witness has at least a certain number of a document's shingles, so its block as a whole has as many. If
            # the block is small, a comparison is cheaper.
            if _SMALL * self.texts.counts[before].sum() >= len(words.hashes):
                own = own or _Distinct.of(words, self.size)
                maybe &= own.among(shingles[number]) >= self.rule.least_shared(np.maximum(own.counts, 1))
            if maybe.any():
                asked = np.flatnonzero(maybe)
                self._against(before, block[asked], taken(words, asked))
        if stay:
            rest = np.flatnonzero(self.made.witness[block] < 0)
            left, words = block[rest], taken(words, rest)
        if not len(left):
            return left
        self.decide(left, words, np.zeros(len(left), np.uint64))
        kept = left[self.made.witness[left] < 0]
        kept = kept[self.texts.counts[kept] > 0]
        # Without `among_new`, only old documents are witnesses.
        return kept if self.among_new else kept[self.old[kept]]

    def _against(self, before: Ints, left: Ints, words: Words) -> None:
        """Compare documents with some earlier ones that stay."""
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
        return [rows[start:stop] for start, stop in ranges_within(self.texts.counts[rows], most)]


@dataclass(frozen=True, slots=True)
class _Distinct:
    """The distinct shingles of some texts, sorted, with the text of each, and how many each text has."""

    hashes: Hashes
    owners: Ints
    counts: Ints

    @classmethod
    def of(cls, words: Words, size: int) -> _Distinct:
        shingles = shingles_of(words, size=size)
        owners = np.repeat(np.arange(len(words)), shingles.counts)
        order = np.lexsort((owners, shingles.hashes))
        hashes, owners = shingles.hashes[order], owners[order]
        new = np.ones(len(hashes), np.bool_)
        new[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
        hashes, owners = hashes[new], owners[new]
        return cls(hashes, owners, np.bincount(owners, minlength=len(words)))

    def among(self, others: Hashes) -> Ints:
        """How many shingles of each text are among these, which are sorted and distinct."""
        at = np.searchsorted(others, self.hashes)
        hit = others[np.minimum(at, len(others) - 1)] == self.hashes
        found: Ints = np.bincount(self.owners[hit], minlength=len(self.counts))
        return found
