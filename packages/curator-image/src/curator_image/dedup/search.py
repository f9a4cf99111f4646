"""Finds all pairs of hashes from two lists that differ in few bits, without comparing each hash with each.

A hash of 64 bits has four words of 16 bits. If two hashes differ in at most 11 bits, at least one word differs in at
most two bits. If they differ in at most 10 bits, the first word differs in at most one bit, or another word in at most
two. So for each word in turn, the hashes whose word is equal or differs in that few bits are looked up and compared
whole. A pair is returned only for the first such word, so it is found once.

In two short lists, each hash is compared with each, which takes less time than making buckets.

Hashes with the same word form a bucket. Most buckets have about the same size, so they are stored in rows of equal
width, which are compared without an index for each pair. Hashes that do not fit into the row of their bucket are looked
up one by one.
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


def near_pairs(
    left: Hashes, right: Hashes | None, radius: int, tables: range = range(TABLES)
) -> Iterator[tuple[Indices, Indices]]:
    """Pairs (i, j) where ``left[i]`` and ``right[j]`` differ in at most ``radius`` bits; i < j within ``left`` if ``right`` is
    None. ``tables`` are the words to look up: all of them together find all pairs, and each finds some.
    """
    if radius > MOST_RADIUS:
        raise ValueError(f"a radius of {radius} is more than {MOST_RADIUS}")
    if len(tables) == TABLES and len(left) * len(left if right is None else right) <= _FEW_PAIRS:
        yield from _each_with_each(left, right, radius)
        return
    for table in tables:
        yield from _in_table(left, left if right is None else right, radius, table, within=right is None)


def _each_with_each(left: Hashes, right: Hashes | None, radius: int) -> Iterator[tuple[Indices, Indices]]:
    theirs = left if right is None else right
    step = max(1, _IN_CACHE // max(1, len(theirs)))
    for first in range(0, len(left), step):
        begin = 0 if right is not None else first + 1
        bits = np.bitwise_count(left[first : first + step, None] ^ theirs[begin:])
        i, j = np.nonzero(bits <= radius)
        i, j = i + first, j + begin
        if right is None:
            upward = i < j
            i, j = i[upward], j[upward]
        if len(i):
            yield i, j


def _in_table(
    left: Hashes, right: Hashes, radius: int, table: int, *, within: bool
) -> Iterator[tuple[Indices, Indices]]:
    most = bits_of_words(radius)
    if most[table] < 0 or not len(left) or not len(right):
        return
    buckets = _Buckets(right, table)
    mine = np.argsort(_word(left, table), kind="stable")  # neighbours look up the same places
    sorted_left = left[mine]
    words = _word(sorted_left, table)
    for flip in _flips(most[table]):
        if within and flip:  # visit visit each pair of buckets once
            at = np.flatnonzero(words < words ^ flip)
            asked, theirs = sorted_left[at], words[at] ^ flip
        else:
            at, asked, theirs = None, sorted_left, words ^ flip
        for one, other in buckets.near(asked, theirs, radius):
            i = one if at is None else at[one]
            fresh = _first_found(sorted_left[i] ^ buckets.hashes[other], most[:table])
            i, j = mine[i[fresh]], buckets.order[other[fresh]]
            if within:
                if not flip:  # one bucket yields each pair in both orders, and each hash with itself
                    upward = i < j
                    i, j = i[upward], j[upward]
                i, j = np.minimum(i, j), np.maximum(i, j)
            if len(i):
                yield i, j


class _Buckets:
    """The hashes of a list by one word: sorted, and with the first few hashes of each word in a row of equal width."""

    def __init__(self, hashes: Hashes, table: int) -> None:
        words = _word(hashes, table)
        self.order = np.argsort(words, kind="stable")
        self.hashes = hashes[self.order]
        edges = np.searchsorted(words[self.order], np.arange(_WORDS + 1))
        self.starts, self.counts = edges[:-1].astype(np.int64), np.diff(edges)
        self.width = _width(self.counts)
        at = self.starts[:, None] + np.arange(self.width)
        self.rows = self.hashes[np.minimum(at, len(hashes) - 1)]

    def near(self, asked: Hashes, words: Indices, radius: int) -> Iterator[tuple[Indices, Indices]]:
        """Pairs of a hash in ``asked`` and a hash in the bucket of its word in ``words`` that differ in at most
        ``radius`` bits.
        """
        step = max(1, _IN_CACHE // self.width)
        shape = (min(step, len(asked)), self.width)
        held, bits = np.empty(shape, np.uint64), np.empty(shape, np.uint8)
        ones, others = [], []
        for first in range(0, len(asked), step):
            theirs = words[first : first + step]
            some, count = held[: len(theirs)], bits[: len(theirs)]
            np.take(self.rows, theirs, axis=0, out=some, mode="clip")
            np.bitwise_xor(some, asked[first : first + step, None], out=some)
            np.bitwise_count(some, out=count)
            found = np.flatnonzero(count <= radius)
            if len(found):
                one, place = np.divmod(found, self.width)
                there = place < self.counts[theirs[one]]
                ones.append(one[there] + first)
                others.append(self.starts[theirs[one[there]]] + place[there])
        if ones:
            yield np.concatenate(ones), np.concatenate(others)
        yield from self._beyond(asked, words, radius)

    def _beyond(self, asked: Hashes, words: Indices, radius: int) -> Iterator[tuple[Indices, Indices]]:
        """The same pairs for the hashes that the rows do not hold."""
        number = np.maximum(self.counts - self.width, 0)[words]
        for first, stop in _lots(number):
            each = number[first:stop]
            one = np.repeat(np.arange(first, stop), each)
            if not len(one):
                continue
            begin = np.repeat((self.starts + self.width)[words[first:stop]] - np.cumsum(each) + each, each)
            other = begin + np.arange(len(one))
            near = np.flatnonzero(np.bitwise_count(asked[one] ^ self.hashes[other]) <= radius)
            yield one[near], other[near]


def _width(counts: NDArray[np.int64]) -> int:
    """The width of rows with which comparing the list with itself takes the least time."""
    sizes, number = np.unique(counts, return_counts=True)
    members = sizes * number
    widths = np.arange(1, _MOST_WIDTH + 1)
    beyond = np.maximum(sizes - widths[:, None], 0) @ members
    return int(widths[np.argmin(widths * members.sum() + _DEARER * beyond)])


def _flips(most: int) -> list[int]:
    """All differences between two words in at most ``most`` bits."""
    return [sum(1 << bit for bit in bits) for n in range(most + 1) for bits in itertools.combinations(range(_WORD), n)]


def _lots(number: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of rows with about as many pairs as fit into memory."""
    ends = np.cumsum(number)
    if not len(ends) or not ends[-1]:
        return
    cuts = np.unique(np.searchsorted(ends, np.arange(_AT_ONCE, int(ends[-1]), _AT_ONCE)))
    yield from itertools.pairwise([0, *(cuts[cuts > 0]).tolist(), len(number)])


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
