"""Decides which documents of a group are removed, and names the witness of each.

Documents are processed in order of preference. A document is removed if an earlier document of its group stays, was
compared with it, and meets the rule; the first such document is the witness. So no document is removed for one that is
itself removed, and a removal can be checked with two texts. Shared shingles are counted, not estimated, and no number
is capped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    Words,
    shingles_of,
    taken,
)

Floats = npt.NDArray[np.float64]
RuleKind = Literal["nothing_new", "containment", "jaccard"]
# How many words are processed at once, so that intermediate results stay in the cache.
CHUNK = 1 << 16
# The largest group that is compared in rounds; in larger groups, witnesses are looked up in an index.
ROUNDS = 256
# How many documents of a large group are decided together, at first and at most.
FIRST, MOST = 16, 256
# The number of bytes that mark the shingles of witnesses, and the number of shingles that are compared with them at
# once.
_MARKS = 1 << 22
_NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Rule:
    """When a document may be removed for a witness.

    - `nothing_new`: at least ``threshold`` of its distinct shingles are in the witness, and no ``window`` consecutive
      words contain more than ``max_new_words`` words that are not covered; a shorter text is one window. A word is
      covered if it is in a shingle that the witness also has.
    - `containment`: at least ``threshold`` of its distinct shingles are in the witness.
    - `jaccard`: at least ``threshold`` of the distinct shingles of the two are in both.
    """

    kind: RuleKind = "nothing_new"
    threshold: float = 0.8
    max_new_words: int = 12
    window: int = 25

    def __post_init__(self) -> None:
        if self.kind not in ("nothing_new", "containment", "jaccard"):
            raise UsageError(f"rule {self.kind!r} does not exist: use 'nothing_new', 'containment' or 'jaccard'")
        if not 0 < self.threshold <= 1:
            raise UsageError(f"threshold must be a share above 0 and at most 1, not {self.threshold!r}")
        check_whole("max_new_words", self.max_new_words, least=0)
        check_whole("window", self.window, least=1)

    def least_shared(self, distinct: Ints) -> Ints:
        """How many shingles a document must share with its witness, given its number of distinct shingles."""
        return _least(distinct, self.threshold)

    def met(self, jaccard: float, containment: float, new_words: int) -> bool:
        """Whether a document and a witness with these figures meet the rule."""
        if self.kind == "jaccard":
            return jaccard >= self.threshold
        return containment >= self.threshold and (self.kind == "containment" or new_words <= self.max_new_words)


@dataclass(frozen=True, slots=True)
class Decisions:
    """The decision about every document.

    ``witness`` is the index of the document's witness, or -1 if the document stays. ``jaccard``, ``containment`` and
    ``new_words`` (most words in a window that are not covered) compare the document with its witness; they are NaN and
    -1 if there is no witness. ``compared`` is the number of earlier documents with which it was compared.
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
    """Decide about documents by the rule, each within its group. Documents are sorted by ``order``, lowest first, and
    equal ones by their position.

    A document without words stays and is never a witness. The ``old`` documents of a group come before the others and
    stay; if ``among_new`` is false, only they can be witnesses.
    """
    rule = rule or Rule()
    count = len(words)
    if len(group) != count or len(order) != count:
        raise UsageError(f"{count} texts come with {len(group)} groups and {len(order)} places in the order")
    made = Decisions(
        np.full(count, -1),
        np.full(count, np.nan),
        np.full(count, np.nan),
        np.full(count, -1),
        np.zeros(count, np.int64),
    )
    counts = words.counts
    line = np.lexsort((order, group) if old is None else (order, ~old, group))
    line = line[counts[line] > 0]
    if not len(line):
        return made
    heads = np.flatnonzero(np.append(True, group[line][1:] != group[line][:-1]))
    sizes = np.diff(np.append(heads, len(line)))
    before = np.append(0, np.cumsum(counts[line]))
    several = np.flatnonzero(sizes > 1)
    stops = before[(heads + sizes)[several]]
    done = 0
    while done < len(several):
        # Take several whole groups at once, and large groups separately; a document that is alone in its group is left
        # out.
        stop = max(int(np.searchsorted(stops, before[heads[several[done]]] + CHUNK, "right")), done + 1)
        chosen = several[done:stop]
        large = np.flatnonzero(sizes[chosen] > ROUNDS)
        if len(large):
            chosen = chosen[: max(int(large[0]), 1)]
        documents = line[_ranges(heads[chosen], sizes[chosen])]
        parts = _gathered(words, documents)
        chunk = _Chunk(documents, np.repeat(np.arange(len(chosen)), sizes[chosen]), parts, rule, size, characters)
        old_ones = np.zeros(len(documents), np.bool_) if old is None else old[documents]
        if sizes[chosen[0]] > ROUNDS:
            _Index(chunk).decide(made, int(np.count_nonzero(old_ones)), among_new)
        else:
            chunk.decide(made, old_ones, among_new)
        done += len(chosen)
    return made


class _Chunk:
    """The documents of whole groups, in order, with their shingles in one sequence as small numbers."""

    def __init__(self, documents: Ints, groups: Ints, words: Words, rule: Rule, size: int, characters: int) -> None:
        self.documents, self.groups, self.rule = documents, groups, rule
        shingles = shingles_of(words, size=size, characters=characters)
        self.bounds, self.counts = shingles.offsets, shingles.counts
        self.word_counts = words.counts
        self.words = words  # `joins` marks the characters that belong to the same word as the one before
        self.longest = int((shingles.last - shingles.first).max())
        self.sizes = shingles.last - shingles.first
        rows = np.repeat(np.arange(len(documents)), self.counts)
        # The same shingle in two groups counts as two shingles.
        salted = shingles.hashes ^ (groups.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))[rows]
        self.ids, self.fresh, self.distinct = _numbered(salted, rows, len(documents))
        self.size = int(self.ids.max()) + 1

    def decide(self, made: Decisions, old: Bools, among_new: bool) -> None:
        """Decide in rounds. In each round, the first undecided document of each group stays, and is compared with all
        documents after it.
        """
        mark = np.zeros(self.size, np.bool_)
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
            marked = self.ids[_ranges(self.bounds[pivots], self.counts[pivots])]
            mark[marked] = True
            # Old documents are not removed; they stay in the queue as witnesses.
            asked = np.flatnonzero(~old[rest])
            gone = np.zeros(len(rest), np.bool_)
            if len(asked):
                rows, witnesses = rest[asked], pivots[among[asked]]
                found = self.compare(rows, witnesses, mark, None)
                self.record(made, rows, witnesses, found)
                gone[asked] = found.meets
            mark[marked] = False
            rest = rest[~gone]

    def compare(self, rows: Ints, witnesses: Ints, mark: Bools, at_mark: Ints | None) -> _Figures:
        """Compare each row with its witness, whose shingles are set in ``mark``; if there are several witnesses, each
        has its own part of ``mark``.
        """
        rule, counts = self.rule, self.counts[rows]
        at = _ranges(self.bounds[rows], counts)
        ids = self.ids[at]
        if at_mark is not None:
            ids += np.repeat(at_mark, counts)
        hits = mark[ids]
        starts = np.cumsum(counts) - counts
        shared = np.add.reduceat((hits & self.fresh[at]).view(np.int8), starts, dtype=np.int64)
        own, other = self.distinct[rows], self.distinct[witnesses]
        containment, jaccard = shared / own, shared / (own + other - shared)
        meets = (jaccard if rule.kind == "jaccard" else containment) >= rule.threshold
        new_words = np.full(len(rows), -1)
        some = np.flatnonzero(meets)
        if len(some):
            inside = slice(None) if len(some) == len(rows) else np.flatnonzero(np.repeat(meets, counts))
            new_words[some] = self._new_words(rows[some], at[inside], hits[inside])
            if rule.kind == "nothing_new":
                meets &= new_words <= rule.max_new_words
        return _Figures(meets, jaccard, containment, new_words)

    def _new_words(self, rows: Ints, at: Ints, hits: Bools) -> Ints:
        layout = _Layout(self, rows, at)
        new = ~layout.covered(hits)
        if self.words.joins is not None:
            return _most_words(
                taken(self.words, rows), new[_ranges(layout.starts, self.word_counts[rows])], self.rule.window
            )
        most: Ints = np.maximum.reduceat(layout.in_window(new), layout.bounds)[::2].astype(np.int64)
        return most

    def record(self, made: Decisions, rows: Ints, witnesses: Ints, found: _Figures) -> None:
        """Record comparisons and removals; each row meets the rule at most once."""
        np.add.at(made.compared, self.documents[rows], 1)
        some = np.flatnonzero(found.meets)
        to = self.documents[rows[some]]
        made.witness[to] = self.documents[witnesses[some]]
        made.jaccard[to] = found.jaccard[some]
        made.containment[to] = found.containment[some]
        made.new_words[to] = found.new_words[some]


@dataclass(frozen=True, slots=True)
class _Figures:
    meets: Bools
    jaccard: Floats
    containment: Floats
    new_words: Ints


class _Layout:
    """The words of texts in one sequence. Each text is followed by a gap that no window and no shingle crosses."""

    def __init__(self, chunk: _Chunk, rows: Ints, at: Ints) -> None:
        self.longest, self.window, self.sizes = chunk.longest, chunk.rule.window, chunk.sizes[at]
        words, gap = chunk.word_counts[rows], max(chunk.rule.window, chunk.longest)
        self.starts = np.append(0, np.cumsum(words + gap)[:-1])
        self.total = int(self.starts[-1] + words[-1] + gap)
        # A window that begins after the last word of a text does not belong to the text.
        self.bounds = np.stack((self.starts, self.starts + words), 1).ravel()
        # The shingles of a text begin at consecutive words.
        self.where = _ranges(self.starts, chunk.counts[rows])
        self.outside = _ranges(self.bounds[1::2], np.full(len(rows), gap))

    def covered(self, hits: Bools) -> Bools:
        """Which words are in a shingle that is set in ``hits``; gaps count as covered."""
        begins = np.zeros(self.total, np.bool_)
        begins[self.where] = hits
        covered = begins.copy()
        shortest = int(self.sizes.min())
        for step in range(1, self.longest):
            if step >= shortest:
                begins[self.where] = hits & (self.sizes > step)
            covered[step:] |= begins[:-step]
        covered[self.outside] = True
        return covered

    def in_window(self, chosen: Bools) -> npt.NDArray[np.int32]:
        """How many chosen words are in the window that begins at each word."""
        before = np.zeros(self.total + self.window, np.int32)
        np.cumsum(chosen, dtype=np.int32, out=before[1 : self.total + 1])
        before[self.total + 1 :] = before[self.total]
        inside: npt.NDArray[np.int32] = before[self.window :] - before[: self.total]
        return inside

    def touching(self, weights: Ints) -> Ints:
        """For each word, the sum of the weights of all shingles that overlap the window that begins there."""
        reach = self.longest - 1
        before = np.zeros(reach + self.total + self.window, np.int64)
        placed = np.zeros(self.total, np.int64)
        placed[self.where] = weights
        np.cumsum(placed, out=before[reach + 1 : reach + self.total + 1])
        before[reach + self.total + 1 :] = before[reach + self.total]
        sums: Ints = before[reach + self.window :] - before[: self.total]
        return sums


class _Index:
    """A large group, in which witnesses are found by the rare shingles of a document instead of by comparison with all
    others.

    A witness has at least ``need`` of a document's n distinct shingles, so it has at least one of any ``n - need + 1``
    of them. It also covers at least ``window - max_new_words`` words of every window, so if enough words of a window
    are only in rare shingles, it has one of these shingles. Both searches are exact; the one that finds fewer documents
    is used. A page that shares only a template with the others, and has its own paragraph, is compared with no other.
    """

    def __init__(self, chunk: _Chunk) -> None:
        self.chunk = chunk
        self.need = _least(chunk.distinct, chunk.rule.threshold)
        # About the documents that stay: how many of them have each shingle, and lists of (shingle, document), sorted by
        # shingle.
        self.having = np.zeros(chunk.size, np.int64)
        self.lists: list[tuple[Ints, Ints]] = []
        self.places = max(1, _MARKS // chunk.size)
        self.mark = np.zeros(self.places * chunk.size, np.bool_)

    def decide(self, made: Decisions, old: int, among_new: bool) -> None:
        """Take a few documents at a time: compare them with those that stay, then with one another, and add the rest to
        the index. The first ``old`` documents always stay.
        """
        count, done, step = len(self.chunk.documents), 0, FIRST
        while done < old:
            self._add(np.arange(done, min(done + MOST, old)))
            done += MOST
        done = old
        while done < count:
            rows = np.arange(done, min(done + step, count))
            rows = self._against(rows, made)
            if among_new:
                self._add(self._among(rows, made))
            done, step = done + step, min(2 * step, MOST)

    def _against(self, rows: Ints, made: Decisions) -> Ints:
        row, other = self._candidates(rows, self.having, self.lists)
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        gone = np.zeros(len(self.chunk.documents), np.bool_)
        # Only the first candidate that meets the rule is needed, and it is usually among the first few.
        first = 0
        for last in (4, 32, len(self.chunk.documents)):
            some = np.flatnonzero((rank >= first) & (rank < last) & ~gone[row])
            if len(some):
                found = self._compared(row[some], other[some])
                chosen = np.flatnonzero(found.meets)
                chosen = chosen[np.unique(row[some][chosen], return_index=True)[1]]
                self._record(made, row[some], other[some], found, chosen)
                gone[row[some][chosen]] = True
            first = last
        return rows[~gone[rows]]

    def _among(self, rows: Ints, made: Decisions) -> Ints:
        if len(rows) < 2:
            return rows
        ids, owners = self._distinct(rows)
        having = np.bincount(ids, minlength=self.chunk.size)
        having[ids] -= 1  # do not count the document itself
        order = np.argsort(ids, kind="stable")
        row, other = self._candidates(rows, having, [(ids[order], owners[order])])
        before = np.flatnonzero(other < row)
        row, other = row[before], other[before]
        if not len(row):
            return rows
        found = self._compared(row, other)
        gone: set[int] = set()
        chosen = []
        for pair in np.flatnonzero(found.meets).tolist():
            if int(row[pair]) not in gone and int(other[pair]) not in gone:
                gone.add(int(row[pair]))
                chosen.append(pair)
        self._record(made, row, other, found, np.array(chosen, np.int64))
        return rows[~np.isin(rows, list(gone))]

    def _record(self, made: Decisions, row: Ints, other: Ints, found: _Figures, chosen: Ints) -> None:
        meets = np.zeros(len(row), np.bool_)
        meets[chosen] = True
        self.chunk.record(made, row, other, replace(found, meets=meets))

    def _add(self, rows: Ints) -> None:
        if not len(rows):
            return
        ids, owners = self._distinct(rows)
        self.having[ids] += np.bincount(ids, minlength=self.chunk.size)[ids] if len(rows) > 1 else 1
        # Each list is at least twice as long as the next one, so each entry is sorted only a few times.
        while self.lists and len(self.lists[-1][0]) < 2 * len(ids):
            more_ids, more_owners = self.lists.pop()
            ids, owners = np.append(more_ids, ids), np.append(more_owners, owners)
        order = np.argsort(ids, kind="stable")
        self.lists.append((ids[order], owners[order]))

    def _distinct(self, rows: Ints) -> tuple[Ints, Ints]:
        counts = self.chunk.counts[rows]
        at = _ranges(self.chunk.bounds[rows], counts)
        fresh = self.chunk.fresh[at]
        return self.chunk.ids[at][fresh], np.repeat(rows, counts)[fresh]

    def _candidates(self, rows: Ints, having: Ints, lists: list[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
        """Pairs of a row and a document in the lists that may meet the rule, in order, without repetition."""
        row, ids = self._probes(rows, having)
        pairs = [np.zeros(0, np.int64)]
        total = len(self.chunk.documents)
        for shingles, owners in lists:
            first, last = np.searchsorted(shingles, ids, "left"), np.searchsorted(shingles, ids, "right")
            pairs.append(np.repeat(row, last - first) * total + owners[_ranges(first, last - first)])
        joined = np.sort(np.concatenate(pairs))  # faster than np.unique, which hashes
        joined = joined[np.flatnonzero(np.diff(joined, prepend=-1))]
        row, other = joined // total, joined % total
        enough = self.chunk.distinct[other] >= self.need[row]
        return row[enough], other[enough]

    def _probes(self, rows: Ints, having: Ints) -> tuple[Ints, Ints]:
        """Pairs of a row and a shingle. Every witness of a row has at least one of its shingles; shingles that no
        document has are left out.
        """
        chunk = self.chunk
        ids, owners = self._distinct(rows)
        cost = having[ids]
        order = np.lexsort((cost, owners))
        ids, owners, cost = ids[order], owners[order], cost[order]
        rank = np.arange(len(ids)) - np.searchsorted(owners, owners)
        chosen = rank < (chunk.distinct - self.need + 1)[owners]
        price = np.bincount(owners[chosen] - rows[0], cost[chosen], minlength=int(rows[-1] - rows[0]) + 1)[
            rows - rows[0]
        ]
        chosen &= cost > 0
        row, found = owners[chosen], ids[chosen]
        # A window of words may have any number of characters, so only the units of words can use this search.
        if chunk.rule.kind == "nothing_new" and chunk.words.joins is None and (price > 0).any():
            dear = rows[price > 0]
            cheaper, more_row, more = self._window_probes(dear, price[price > 0].astype(np.int64), having)
            keep = ~np.isin(row, cheaper)
            row, found = np.append(row[keep], more_row), np.append(found[keep], more)
        return row, found

    def _window_probes(self, rows: Ints, price: Ints, having: Ints) -> tuple[Ints, Ints, Ints]:
        """The rows for which the shingles of one window find fewer documents, and pairs with these shingles, as in
        `_probes`.
        """
        chunk = self.chunk
        counts = chunk.counts[rows]
        at = _ranges(chunk.bounds[rows], counts)
        cost = having[chunk.ids[at]]
        layout = _Layout(chunk, rows, at)
        best, where, level = price.copy(), np.full(len(rows), -1), np.zeros(len(rows), np.int64)
        for limit in (0, 1, 4, 16, 64, 256):
            common = cost > limit
            enough = layout.in_window(~layout.covered(common)) > chunk.rule.max_new_words
            sums = layout.touching(np.where(common, 0, cost))
            sums[~enough] = _NEVER
            least = np.minimum.reduceat(sums, layout.bounds)[::2]
            better = np.flatnonzero(least < best)
            if len(better):
                hit = np.flatnonzero(sums == np.repeat(least, np.diff(np.append(layout.starts, layout.total))))
                hit = hit[np.searchsorted(hit, layout.starts[better])]
                best[better], where[better], level[better] = least[better], hit - layout.starts[better], limit
        some = np.flatnonzero(where >= 0)
        first = np.maximum(where[some] - chunk.longest + 1, 0)
        last = np.minimum(where[some] + chunk.rule.window, counts[some])
        number = np.maximum(last - first, 0)
        near = _ranges(chunk.bounds[rows[some]] + first, number)
        ids = chunk.ids[near]
        rare = (having[ids] > 0) & (having[ids] <= np.repeat(level[some], number))
        return rows[some], np.repeat(rows[some], number)[rare], ids[rare]

    def _compared(self, row: Ints, other: Ints) -> _Figures:
        # Compare as many witnesses at once as fit into the marks.
        chunk, made = self.chunk, []
        order = np.argsort(other, kind="stable")
        ordered = other[order]
        heads = np.append(True, ordered[1:] != ordered[:-1])
        place = np.cumsum(heads) - 1
        work = np.cumsum(chunk.counts[row[order]])
        done = 0
        while done < len(order):
            stop = int(np.searchsorted(place, place[done] + self.places))
            stop = min(stop, max(int(np.searchsorted(work, work[done] + _MARKS)), done + 1))
            some = order[done:stop]
            at_mark = (place[done:stop] - place[done]) * chunk.size
            new = np.flatnonzero(np.append(True, place[done + 1 : stop] != place[done : stop - 1]))
            witnesses = other[some[new]]
            marked = chunk.ids[_ranges(chunk.bounds[witnesses], chunk.counts[witnesses])]
            marked += np.repeat(at_mark[new], chunk.counts[witnesses])
            self.mark[marked] = True
            made.append(chunk.compare(row[some], other[some], self.mark, at_mark))
            self.mark[marked] = False
            done = stop
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return _Figures(
            np.concatenate([part.meets for part in made])[back],
            np.concatenate([part.jaccard for part in made])[back],
            np.concatenate([part.containment for part in made])[back],
            np.concatenate([part.new_words for part in made])[back],
        )


def _least(totals: Ints, threshold: float) -> Ints:
    """The smallest number that is at least the threshold's share of each total."""
    least = np.ceil(threshold * totals).astype(np.int64)
    least[(least - 1) / totals >= threshold] -= 1
    least[least / totals < threshold] += 1
    return least


def _gathered(words: Words, documents: Ints) -> Words:
    found = taken(words, documents)
    return replace(found, marks=None) if found.marks is not None and not found.marks.any() else found


def _most_words(characters: Words, new: Bools, window: int) -> Ints:
    """The largest number of new words in a window of each text, given its characters and which of them are new. A word
    is new if one of its characters is new.
    """
    assert characters.joins is not None
    heads = np.flatnonzero(~characters.joins)
    words = np.append(0, np.cumsum(np.logical_or.reduceat(new, heads)))
    edges = np.searchsorted(heads, characters.offsets)
    windows = np.maximum(np.diff(edges) - window, 0) + 1
    starts = _ranges(edges[:-1], windows)
    inside = words[np.minimum(starts + window, np.repeat(edges[1:], windows))] - words[starts]
    most: Ints = np.maximum.reduceat(inside, np.cumsum(windows) - windows)
    return most


def _numbered(hashes: Hashes, rows: Ints, documents: int) -> tuple[Ints, Bools, Ints]:
    """A small number for each shingle, a mask of the first occurrences of shingles in each document, and the number of
    these in each document.
    """
    count = len(hashes)
    # Sorting numbers is much faster than computing their order, so each number contains its position in the lowest
    # bits.
    bits = np.uint64(max(count - 1, 1).bit_length())
    places = np.uint64((1 << int(bits)) - 1)
    packed = (hashes & ~places) | np.arange(count, dtype=np.uint64)
    packed.sort()
    line = (packed & places).view(np.int64)
    packed >>= bits
    new = np.empty(count, np.bool_)
    new[0] = True
    np.not_equal(packed[1:], packed[:-1], out=new[1:])
    ordered = hashes[line]
    if np.any((ordered[1:] != ordered[:-1]) & ~new[1:]):
        # Two shingles differ only in the lowest bits.
        line = np.argsort(hashes, kind="stable")
        ordered = hashes[line]
        np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    ids = np.empty(count, np.int64)
    ids[line] = np.cumsum(new) - 1
    ordered_rows = rows[line]
    new[1:] |= ordered_rows[1:] != ordered_rows[:-1]
    fresh = np.empty(count, np.bool_)
    fresh[line] = new
    return ids, fresh, np.bincount(ordered_rows[new], minlength=documents)


def _ranges(starts: Ints, counts: Ints) -> Ints:
    """For each start, as many consecutive numbers as its count, one run after another."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    numbers: Ints = np.arange(total) + np.repeat(starts - (ends - counts), counts)
    return numbers
