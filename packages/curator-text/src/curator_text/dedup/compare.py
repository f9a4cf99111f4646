"""Which documents of a group go, and for which that stays?

Documents are taken in the order of preference. One goes if a document of its group that stays, and comes before it, was
compared with it and meets the rule; the witness is the first that does. So nothing goes for the sake of a document that
went itself, and two texts are all that is needed to check a removal. What documents have in common is counted, not
estimated, and nothing is capped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from curator_core.errors import UsageError, check_whole
from curator_text.dedup.words import (
    CHARACTERS_IN_SHINGLE,
    WORDS_IN_SHINGLE,
    Bools,
    Hashes,
    Ints,
    Shingles,
    Words,
    shingles_of,
)

Floats = npt.NDArray[np.float64]
RuleKind = Literal["nothing_new", "containment", "jaccard"]
# Shingles that are worked on at once; a larger group is worked on by itself.
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Rule:
    """When a document may go for a witness.

    - `nothing_new`: at least ``threshold`` of its distinct shingles are in the witness, and no ``window`` words in a row
      hold more than ``max_new_words`` that are not covered; a shorter text is one window. A word is covered if it stands
      in a shingle that the witness has too.
    - `containment`: at least ``threshold`` of its distinct shingles are in the witness.
    - `jaccard`: at least ``threshold`` of the distinct shingles of both are in both.
    """

    kind: RuleKind = "nothing_new"
    threshold: float = 0.8
    max_new_words: int = 12
    window: int = 25

    def __post_init__(self) -> None:
        if self.kind not in ("nothing_new", "containment", "jaccard"):
            raise UsageError(f"rule {self.kind!r} does not exist: take 'nothing_new', 'containment' or 'jaccard'")
        if not 0 < self.threshold <= 1:
            raise UsageError(f"threshold is {self.threshold!r}: it is a share, above 0 and at most 1")
        check_whole("max_new_words", self.max_new_words, least=0)
        check_whole("window", self.window, least=1)


@dataclass(frozen=True, slots=True)
class Decisions:
    """For every document what was decided.

    ``witness`` is the index of the document for which it goes, -1 if it stays. ``jaccard``, ``containment`` and
    ``new_words`` (most words in a window that are not covered) are those of the document and its witness, NaN and -1
    where there is none. ``compared`` says with how many documents before it was compared.
    """

    witness: Ints
    jaccard: Floats
    containment: Floats
    new_words: Ints
    compared: Ints


def decide(
    words: Words,
    group: Ints | Hashes,
    order: Ints,
    rule: Rule | None = None,
    *,
    size: int = WORDS_IN_SHINGLE,
    characters: int = CHARACTERS_IN_SHINGLE,
    old: Bools | None = None,
    among_new: bool = True,
) -> Decisions:
    """Decide on documents by the rule, each within its group; the lowest ``order`` comes first, of equals the first given.

    A document without words stays and is no witness. The ``old`` documents of a group come before its others, and stay;
    with ``among_new`` false they are the only witnesses.
    """
    rule = rule or Rule()
    count = len(words)
    if len(group) != count or len(order) != count:
        raise UsageError(f"{count} texts come with {len(group)} groups and {len(order)} places in the order")
    shingles = shingles_of(words, size=size, characters=characters)
    made = Decisions(
        np.full(count, -1),
        np.full(count, np.nan),
        np.full(count, np.nan),
        np.full(count, -1),
        np.zeros(count, np.int64),
    )
    counts = shingles.counts
    line = np.lexsort((order, group))
    line = line[counts[line] > 0]
    heads = np.flatnonzero(np.append(True, group[line][1:] != group[line][:-1])) if len(line) else np.zeros(0, np.int64)
    bounds = np.append(heads, len(line))
    groups = np.flatnonzero(np.diff(bounds) > 1)
    before = np.append(0, np.cumsum(counts[line]))
    done = 0
    while done < len(groups):
        # Whole groups; those of one document are left out.
        start = before[bounds[groups[done]]]
        stop = max(int(np.searchsorted(before[bounds[groups + 1]], start + CHUNK, "right")), done + 1)
        chosen = groups[done:stop]
        sizes = bounds[chosen + 1] - bounds[chosen]
        documents = line[_ranges(bounds[chosen], sizes)]
        chunk = _Chunk(documents, np.repeat(np.arange(len(chosen)), sizes), words, shingles, rule)
        chunk.decide(made, np.zeros(len(documents), np.bool_) if old is None else old[documents], among_new)
        done = stop
    return made


class _Chunk:
    """Documents of whole groups, in order, with their shingles side by side as small numbers."""

    def __init__(self, documents: Ints, groups: Ints, words: Words, shingles: Shingles, rule: Rule) -> None:
        self.documents, self.groups, self.rule = documents, groups, rule
        counts = shingles.counts[documents]
        at = _ranges(shingles.offsets[documents], counts)
        self.bounds = np.append(0, np.cumsum(counts))
        rows = np.repeat(np.arange(len(documents)), counts)
        # Another group's shingle is another shingle.
        salted = shingles.hashes[at] ^ (groups.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))[rows]
        self.ids, self.fresh, self.distinct = _numbered(salted, rows, len(documents))
        starts = words.offsets[documents]
        self.word_counts = words.offsets[documents + 1] - starts
        self.first = shingles.first[at] - starts[rows]
        self.last = shingles.last[at] - starts[rows]

    def decide(self, made: Decisions, old: Bools, among_new: bool) -> None:
        """Round by round: the first of each group that is not decided stays, and is compared with all behind it."""
        mark = np.zeros(int(self.ids.max()) + 1, np.bool_)
        rest = np.arange(len(self.documents))
        while len(rest):
            groups = self.groups[rest]
            head = np.append(True, groups[1:] != groups[:-1])
            pivots = rest[head]
            among = np.cumsum(head) - 1
            rest, among = rest[~head], among[~head]
            if not among_new:
                asked = old[pivots][among]
                rest, among = rest[asked], among[asked]
            if not len(rest):
                return
            marked = self.ids[_ranges(self.bounds[pivots], self.bounds[pivots + 1] - self.bounds[pivots])]
            mark[marked] = True
            # Old ones stay, and wait for their turn.
            asked = np.flatnonzero(~old[rest])
            gone = np.zeros(len(rest), np.bool_)
            if len(asked):
                gone[asked] = self._compare(rest[asked], pivots[among[asked]], mark, made)
            mark[marked] = False
            rest = rest[~gone]

    def _compare(self, rows: Ints, witnesses: Ints, mark: Bools, made: Decisions) -> Bools:
        rule = self.rule
        counts = self.bounds[rows + 1] - self.bounds[rows]
        at = _ranges(self.bounds[rows], counts)
        hits = mark[self.ids[at]]
        starts = np.append(0, np.cumsum(counts)[:-1])
        shared = np.add.reduceat((hits & self.fresh[at]).view(np.int8), starts, dtype=np.int64)
        own, other = self.distinct[rows], self.distinct[witnesses]
        containment, jaccard = shared / own, shared / (own + other - shared)
        made.compared[self.documents[rows]] += 1
        gone = (jaccard if rule.kind == "jaccard" else containment) >= rule.threshold
        some = np.flatnonzero(gone)
        if len(some):
            inside = np.repeat(gone, counts)
            fresh_words = self._new_words(rows[some], at[inside], hits[inside], counts[some])
            if rule.kind == "nothing_new":
                keep = fresh_words <= rule.max_new_words
                gone[some[~keep]] = False
                some, fresh_words = some[keep], fresh_words[keep]
            to = self.documents[rows[some]]
            made.witness[to] = self.documents[witnesses[some]]
            made.jaccard[to], made.containment[to], made.new_words[to] = jaccard[some], containment[some], fresh_words
        return gone

    def _new_words(self, rows: Ints, at: Ints, hits: Bools, counts: Ints) -> Ints:
        sizes = self.word_counts[rows]
        starts = np.append(0, np.cumsum(sizes))
        base = np.repeat(starts[:-1], counts)[hits]
        total = int(starts[-1])
        edges = np.bincount(self.first[at[hits]] + base, minlength=total + 1)
        edges -= np.bincount(self.last[at[hits]] + base, minlength=total + 1)
        new = np.cumsum(edges)[:-1] == 0
        return most_in_window(new, starts, self.rule.window)


def most_in_window(chosen: Bools, bounds: Ints, window: int) -> Ints:
    """For each text, whose words are from one bound to the next, the most chosen words of so many in a row."""
    before = np.append(0, np.cumsum(chosen))
    stops = np.repeat(bounds[1:], np.diff(bounds))
    starts = np.arange(len(chosen))
    inside = before[np.minimum(starts + window, stops)] - before[:-1]
    most: Ints = np.maximum.reduceat(inside, bounds[:-1])
    return most


def _numbered(hashes: Hashes, rows: Ints, documents: int) -> tuple[Ints, Bools, Ints]:
    # A small number for each shingle; which are the first of their kind in their document; how many such a document has.
    line = np.argsort(hashes, kind="stable")
    ordered = hashes[line]
    new = np.append(True, ordered[1:] != ordered[:-1])
    ids = np.empty(len(hashes), np.int64)
    ids[line] = np.cumsum(new) - 1
    new[1:] |= rows[line][1:] != rows[line][:-1]
    fresh = np.empty(len(hashes), np.bool_)
    fresh[line] = new
    return ids, fresh, np.bincount(rows[fresh], minlength=documents)


def _ranges(starts: Ints, counts: Ints) -> Ints:
    """The numbers from each start, so many, one after another."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    numbers: Ints = np.arange(total) + np.repeat(starts - (ends - counts), counts)
    return numbers
