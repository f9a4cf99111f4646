"""Finds all pairs of hashes from two lists that differ in few bits, without comparing each hash with each.

A hash of 64 bits has four words of 16 bits. If two hashes differ in at most 11 bits, at least one word differs in at
most two bits. If they differ in at most 10 bits, the first word differs in at most one bit, or another word in at most
two. So for each word in turn, the hashes whose word is equal or differs in at most that many bits are looked up and
compared whole. A pair is returned only for the first such word.

In two short lists, each hash is compared with each, which takes less time than making buckets.

Hashes with the same word form a bucket. Most buckets have about the same size, so they are stored in rows of equal
width, which are compared without an index for each pair. The hashes that do not fit into the row of their bucket are
its crowd.

If many hashes are near one another, the number of their pairs grows with the square of their number. `Wanted` limits
this: each hash wants only a certain number of others, the first ones in an order. Buckets are in that order, so a hash
searches a crowd only until it has enough hashes, or until the rest come after those that it has.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

TABLES = 4
MOST_RADIUS = 11
_WORD = 16
_WORDS = 1 << _WORD
_AT_ONCE = 1 << 22
# How many comparisons of rows are held at once, so that they stay in the cache.
_IN_CACHE = 1 << 16
_MOST_WIDTH = 128
# How many hashes of a crowd are compared at a time, and how many at most. In a block of a million random hashes, a
# bucket has 16. Only similar hashes share a word a thousand times as often, and then the first of them represent the
# others.
_LOOKED_AT = 64
_MOST_LOOKED_AT = 1 << 14
# Up to this many pairs are compared directly.
_FEW_PAIRS = 1 << 25
# A comparison that needs an index takes as long as this many comparisons in rows.
_DEARER = 3

type Hashes = NDArray[np.uint64]
type Indices = NDArray[np.int64]


def bits_of_words(radius: int) -> tuple[int, ...]:
    """The number of bits in which each word may differ, or -1 for a word that need not be looked up. Two hashes within
    the radius have at least one word that differs in at most its number of bits.

    The first word gets the smaller number.
    """
    each, more = divmod(radius + 1, TABLES)
    return tuple(each - 1 + (table >= TABLES - more) for table in range(TABLES))


class Wanted:
    """The number of other hashes that each hash wants, beginning with the lowest ranks.

    A hash that has found enough has a cut: it wants no others with that rank or a higher one. The caller of
    `near_pairs` lowers cuts with `cut_off` while it collects pairs.
    """

    def __init__(self, left: Indices, right: Indices | None = None, *, most: int) -> None:
        self.most = most
        self.ranks = (left, left if right is None else right)
        cuts = np.full(len(left), _NO_CUT)
        self.cuts = (cuts, cuts if right is None else np.full(len(self.ranks[1]), _NO_CUT))

    def cut_off(self, side: int, hashes: Indices, ranks: Indices) -> None:
        """Set cuts: these hashes of a side want no others with these ranks or higher ones."""
        np.minimum.at(self.cuts[side], hashes, ranks)

    def __call__(self, i: Indices, j: Indices) -> NDArray[np.bool_]:
        """Which of these pairs at least one of the two hashes wants."""
        by_i: NDArray[np.bool_] = self.ranks[1][j] < self.cuts[0][i]
        return by_i | (self.ranks[0][i] < self.cuts[1][j])


_NO_CUT = np.iinfo(np.int64).max


def near_pairs(
    left: Hashes, right: Hashes | None, radius: int, tables: range = range(TABLES), wanted: Wanted | None = None
) -> Iterator[tuple[Indices, Indices]]:
    """Pairs (i, j) where ``left[i]`` and ``right[j]`` differ in at most ``radius`` bits; i < j within ``left`` if
    ``right`` is None. A pair with a hash in a crowd may be returned twice. ``tables`` are the words to look up: all of
    them together find all pairs, and each finds some. With ``wanted``, pairs that neither hash wants may be missing.
    """
    if radius > MOST_RADIUS:
        raise ValueError(f"a radius of {radius} is more than {MOST_RADIUS}")
    if wanted is None:
        wanted = Wanted(np.arange(len(left)), None if right is None else np.arange(len(right)), most=_NO_CUT)
    if len(tables) == TABLES and len(left) * len(left if right is None else right) <= _FEW_PAIRS:
        yield from _each_with_each(left, right, radius)
        return
    for table in tables:
        yield from _in_table(left, right, radius, table, wanted)


def _each_with_each(left: Hashes, right: Hashes | None, radius: int) -> Iterator[tuple[Indices, Indices]]:
    theirs = left if right is None else right
    step = max(1, _IN_CACHE // max(1, len(theirs)))
    for first in range(0, len(left), step):
        begin = 0 if right is not None else first + 1
        bits = np.bitwise_count(left[first : first + step, None] ^ theirs[begin:])
        i, j = np.divmod(np.flatnonzero(bits <= radius), max(1, len(theirs) - begin))
        i, j = i + first, j + begin
        if right is None:
            upward = i < j
            i, j = i[upward], j[upward]
        if len(i):
            yield i, j


def _in_table(
    left: Hashes, right: Hashes | None, radius: int, table: int, wanted: Wanted
) -> Iterator[tuple[Indices, Indices]]:
    most, within = bits_of_words(radius), right is None
    if most[table] < 0 or not len(left) or (right is not None and not len(right)):
        return
    mine = _Buckets(left, table, wanted.ranks[0])
    theirs = mine if right is None else _Buckets(right, table, wanted.ranks[1])
    crowd = np.flatnonzero(theirs.places >= theirs.width)
    for flip in _flips(most[table]):
        asked = np.arange(len(left))
        if within and flip:  # visit each pair of buckets once
            asked = np.flatnonzero(mine.words < mine.words ^ flip)
        for one, other in theirs.in_rows(mine, asked, flip, radius, wanted):
            # One bucket yields each pair of a row in both orders, and each hash with itself.
            once = one > other if within and not flip else slice(None)
            yield from _made(mine, theirs, one[once], other[once], most[:table], wanted, within)
        if not len(crowd):
            continue
        # All hashes search the crowds, and hashes in a crowd also search the buckets of the others.
        looking = asked if flip or not within else crowd
        for one, other in theirs.in_order(mine, looking, flip, radius, wanted, 0, theirs.width):
            yield from _made(mine, theirs, one, other, most[:table], wanted, within)
        if flip or not within:
            back = crowd[theirs.words[crowd] > theirs.words[crowd] ^ flip] if within else crowd
            for other, one in mine.in_order(theirs, back, flip, radius, wanted, 1, 0):
                yield from _made(mine, theirs, one, other, most[:table], wanted, within)


def _made(
    mine: _Buckets,
    theirs: _Buckets,
    one: Indices,
    other: Indices,
    before: tuple[int, ...],
    wanted: Wanted,
    within: bool,
) -> Iterator[tuple[Indices, Indices]]:
    """The pairs of hashes that no earlier word has found, given by their places in buckets."""
    fresh = _first_found(mine.hashes[one] ^ theirs.hashes[other], before)
    i, j = mine.order[one[fresh]], theirs.order[other[fresh]]
    keep = wanted(i, j)
    if within:
        keep &= i != j
    i, j = i[keep], j[keep]
    if len(i):
        yield (np.minimum(i, j), np.maximum(i, j)) if within else (i, j)


class _Buckets:
    """The hashes of a list, sorted by one word and then by rank, with the first few hashes of each word in a row of
    equal width.
    """

    def __init__(self, hashes: Hashes, table: int, ranks: Indices) -> None:
        words = _word(hashes, table)
        self.order = np.lexsort((ranks, words))
        self.hashes, self.ranks, self.words = hashes[self.order], ranks[self.order], words[self.order]
        edges = np.searchsorted(self.words, np.arange(_WORDS + 1))
        self.starts, self.counts = edges[:-1].astype(np.int64), np.diff(edges)
        self.width = _width(self.counts)
        self.places = np.arange(len(hashes)) - self.starts[self.words]
        at = self.starts[:, None] + np.arange(self.width)
        self.rows = self.hashes[np.minimum(at, len(hashes) - 1)]

    def in_rows(
        self, asking: _Buckets, asked: Indices, flip: int, radius: int, wanted: Wanted
    ) -> Iterator[tuple[Indices, Indices]]:
        """Pairs of a hash in ``asked``, from other buckets, and a near hash in the row of its word in ``words``."""
        step = max(1, _IN_CACHE // self.width)
        shape = (min(step, len(asked)), self.width)
        held, bits = np.empty(shape, np.uint64), np.empty(shape, np.uint8)
        ones, others, size = [], [], 0
        for first in range(0, len(asked), step):
            mine = asked[first : first + step]
            theirs = asking.words[mine] ^ flip
            some, count = held[: len(theirs)], bits[: len(theirs)]
            np.take(self.rows, theirs, axis=0, out=some, mode="clip")
            np.bitwise_xor(some, asking.hashes[mine, None], out=some)
            np.bitwise_count(some, out=count)
            found = np.flatnonzero(count <= radius)
            if len(found):
                one, place = np.divmod(found, self.width)
                there = place < self.counts[theirs[one]]
                one, place = one[there], place[there]
                other = self.starts[theirs[one]] + place
                one = mine[one]
                if len(found) > len(mine):  # there are many near pairs, and most are not wanted
                    keep = wanted(asking.order[one], self.order[other])
                    one, other = one[keep], other[keep]
                ones.append(one)
                others.append(other)
                size += len(one)
            if size > _AT_ONCE:
                yield np.concatenate(ones), np.concatenate(others)
                ones, others, size = [], [], 0
        if ones:
            yield np.concatenate(ones), np.concatenate(others)

    def in_order(
        self, asking: _Buckets, asked: Indices, flip: int, radius: int, wanted: Wanted, side: int, begin: int
    ) -> Iterator[tuple[Indices, Indices]]:
        """Pairs of a hash in ``asked``, on this ``side``, and a near hash in the bucket of its word, from the position
        ``begin`` on, until each hash has enough.
        """
        words = asking.words[asked] ^ flip
        at = self.starts[words] + begin
        stop = self.starts[words] + np.minimum(self.counts[words], begin + _MOST_LOOKED_AT)
        found = np.full(len(asked), -1 if asking is self and not flip else 0)  # each finds itself
        cuts = wanted.cuts[side]
        step = _IN_CACHE // _LOOKED_AT
        active = np.flatnonzero(at < stop)
        while len(active):
            ahead = self.ranks[at[active]] < cuts[asking.order[asked[active]]]
            active = active[ahead & (found[active] < wanted.most)]
            for first in range(0, len(active), step):
                some = active[first : first + step]
                mine = asked[some]
                theirs = at[some, None] + np.arange(_LOOKED_AT)
                there = theirs < stop[some, None]
                theirs = np.minimum(theirs, len(self.hashes) - 1)
                there &= np.bitwise_count(self.hashes[theirs] ^ asking.hashes[mine, None]) <= radius
                there &= self.ranks[theirs] < cuts[asking.order[mine], None]
                found[some] += there.sum(axis=1)
                one, place = np.nonzero(there)
                if len(one):
                    yield mine[one], theirs[one, place]
                full = np.flatnonzero(found[some] >= wanted.most)
                last = np.minimum(at[some[full]] + _LOOKED_AT, stop[some[full]]) - 1
                wanted.cut_off(side, asking.order[mine[full]], self.ranks[last] + 1)
            at[active] += _LOOKED_AT
            active = active[at[active] < stop[active]]


def _width(counts: NDArray[np.int64]) -> int:
    """The width of rows with which comparing the list with itself takes the least time."""
    sizes, number = np.unique(counts, return_counts=True)
    members = sizes * number
    widths = np.arange(1, _MOST_WIDTH + 1)
    beyond = np.clip(sizes - widths[:, None], 0, 2 * _LOOKED_AT) @ members
    return int(widths[np.argmin(widths * members.sum() + _DEARER * beyond)])


def _flips(most: int) -> list[int]:
    """All differences between two words in at most ``most`` bits."""
    return [sum(1 << bit for bit in bits) for n in range(most + 1) for bits in itertools.combinations(range(_WORD), n)]


def _first_found(difference: Hashes, most: tuple[int, ...]) -> NDArray[np.bool_]:
    """Whether no earlier word also finds the pair."""
    fresh = np.ones(len(difference), np.bool_)
    for before, bits in enumerate(most):
        fresh &= np.bitwise_count(_word(difference, before)) > bits
    return fresh


def _word(hashes: Hashes, table: int) -> NDArray[np.int64]:
    """The word of a table in each hash. It takes every fourth bit, so that the lowest frequencies are spread over all
    tables.
    """
    found = np.zeros(len(hashes), np.int64)
    for bit in range(_WORD):
        found |= ((hashes >> np.uint64(TABLES * bit + table)).astype(np.int64) & 1) << bit
    return found
