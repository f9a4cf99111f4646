"""Finds the items of test sets in a document, with their share and their places."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curator_text.decontaminate.index import Hits, TestIndex
from curator_text.dedup.words import Bools, Ints

Spans = list[tuple[int, int]]
# An item that is almost complete counts even if its n-grams are frequent, provided that it is at least as long as this
# many n-grams.
_LONG = 2


@dataclass(frozen=True, slots=True)
class Rule:
    """Decides what counts as an overlap.

    ``frequent`` marks n-grams that do not count, unless a document contains ``certain_share`` of the item.
    """

    min_share: float = 0.0
    certain_share: float | None = 0.8
    frequent: Bools | None = None


@dataclass(frozen=True, slots=True)
class FoundItem:
    """An item of a test set that occurs in a document: the share of its words, and their places in the document, in
    code points.
    """

    item: int
    share: float
    spans: Spans


@dataclass(frozen=True, slots=True)
class Overlap:
    """The overlaps of a document with test sets: the items, with the largest share first, and all of their places."""

    hits: Hits
    found: list[FoundItem]
    spans: Spans

    @property
    def row(self) -> int:
        return self.hits.row


def overlap_of(hits: Hits, index: TestIndex, rule: Rule) -> Overlap | None:
    """The items that count in a document, or None if there are none."""
    grams, at_hit = np.unique(hits.grams, return_inverse=True)
    sizes = index.occurs[grams + 1] - index.occurs[grams]
    which = np.repeat(np.arange(len(grams)), sizes)
    at = index.occurrences[np.repeat(index.occurs[grams] - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())]
    order = np.argsort(at, kind="stable")
    which, at = which[order], at[order]
    lengths = index.lengths[grams][which]
    items, inverse = np.unique(index.items_at(at), return_inverse=True)
    words = index.item_words[items]
    rare = np.ones(len(which), np.bool_) if rule.frequent is None else ~rule.frequent[grams][which]
    shares = _covered(at[rare], lengths[rare], inverse[rare], len(items)) / words
    certain = np.zeros(len(items), np.bool_)
    if rule.certain_share is not None and not rare.all():
        whole = _covered(at, lengths, inverse, len(items)) / words
        certain = (whole >= rule.certain_share) & (words >= _LONG * index.words)
        shares = np.where(certain, whole, shares)
    counts = (shares > 0) & (shares >= rule.min_share)
    if not counts.any():
        return None
    used = counts[inverse] & (rare | certain[inverse])
    # Words and occurrences are sorted by item, so slices suffice: a document may contain all items of a test set.
    edges = np.searchsorted(inverse, np.arange(len(items) + 1)).tolist()

    known: dict[bytes, Spans] = {}

    def spans(part: slice) -> Spans:
        own = which[part][used[part]]
        key = own.tobytes()  # items that begin with the same words share the result
        if key not in known:
            chosen = np.zeros(len(grams), np.bool_)
            chosen[own] = True
            known[key] = _spans(hits, chosen[at_hit])
        return known[key]

    found = [
        FoundItem(int(items[k]), float(shares[k]), spans(slice(edges[k], edges[k + 1])))
        for k in np.lexsort((items, -shares)).tolist()
        if counts[k]
    ]
    return Overlap(hits, found, spans(slice(None)))


def _covered(at: Ints, lengths: Ints, groups: Ints, count: int) -> npt.NDArray[np.float64]:
    """How many words the runs of each group cover together. The runs are sorted, and groups do not overlap."""
    ends = at + lengths
    reached = np.concatenate((np.zeros(1, np.int64), np.maximum.accumulate(ends)))[: len(ends)]
    return np.bincount(groups, np.maximum(ends - np.maximum(at, reached), 0), minlength=count)


def _spans(hits: Hits, chosen: Bools) -> Spans:
    """The places of these hits in the document, as spans that neither overlap nor touch."""
    first, last = hits.first[chosen], hits.last[chosen]
    heads = np.flatnonzero(np.concatenate(([True], first[1:] > np.maximum.accumulate(last)[:-1])))
    ends = np.maximum.reduceat(hits.places.ends[last - 1], heads)
    return list(zip(hits.places.starts[first[heads]].tolist(), ends.tolist(), strict=True))


def without(text: str, overlap: Overlap, margin: int, replacement: str) -> tuple[str | None, int]:
    """The text without the overlaps and ``margin`` characters on both sides of them, or None if no word is left, and
    the number of cuts. No word is split: a word in which a cut would begin or end is removed whole.
    """
    starts, ends = overlap.hits.places.starts, overlap.hits.places.ends
    cuts: Spans = []
    for first, last in overlap.spans:
        start, end = max(0, first - margin), min(len(text), last + margin)
        inside = int(np.searchsorted(ends, start, "right"))
        if inside < len(starts) and starts[inside] < start:
            start = int(starts[inside])
        inside = int(np.searchsorted(starts, end, "left")) - 1
        if inside >= 0 and ends[inside] > end:
            end = int(ends[inside])
        if cuts and start <= cuts[-1][1]:
            cuts[-1] = cuts[-1][0], max(cuts[-1][1], end)
        else:
            cuts.append((start, end))
    left = np.ones(len(starts), np.bool_)
    pieces, done = [], 0
    for start, end in cuts:
        left[(starts >= start) & (ends <= end)] = False
        pieces.append(text[done:start])
        done = end
    pieces.append(text[done:])
    if not left.any():
        return None, len(cuts)
    return replacement.join(piece for piece in pieces if piece), len(cuts)
