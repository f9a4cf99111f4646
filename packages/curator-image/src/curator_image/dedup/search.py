"""Finds all pairs of hashes from two lists within a radius, without comparing every pair.

64 bits are four words of 16. If two hashes differ in at most 11 bits, at least one word differs in at most two. So for
each word in turn, hashes whose word is the same or differs in one or two bits are looked up and compared whole. A pair
is reported for the first such word only, so it is found once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

TABLES = 4
MOST_RADIUS = 11
_WORD = 16
_FLIPS = np.array([sum(1 << bit for bit in bits) for n in range(3) for bits in itertools.combinations(range(_WORD), n)])
_AT_ONCE = 1 << 22

type Hashes = NDArray[np.uint64]
type Indices = NDArray[np.int64]


def near_pairs(
    left: Hashes, right: Hashes | None, radius: int, tables: range = range(TABLES)
) -> Iterator[tuple[Indices, Indices]]:
    """Pairs (i, j) where ``left[i]`` and ``right[j]`` differ in at most ``radius`` bits; i < j within ``left`` if ``right`` is
    None. ``tables`` are the words to look up: together they find all pairs, and each of them finds some.
    """
    if radius > MOST_RADIUS:
        raise ValueError(f"a radius of {radius} is more than {MOST_RADIUS}")
    for table in tables:
        yield from _in_table(left, left if right is None else right, radius, table, within=right is None)


def _in_table(
    left: Hashes, right: Hashes, radius: int, table: int, *, within: bool
) -> Iterator[tuple[Indices, Indices]]:
    order = np.argsort(_word(right, table), kind="stable")
    sorted_right = right[order]
    edges = np.searchsorted(_word(sorted_right, table), np.arange((1 << _WORD) + 1))
    starts, counts = edges[:-1].astype(np.int64), np.diff(edges)
    mine = np.argsort(_word(left, table), kind="stable")  # neighbours look up the same places
    sorted_left = left[mine]
    words = _word(sorted_left, table)
    for flip in _FLIPS.tolist():
        theirs = words ^ flip
        number = counts[theirs]
        if within and flip:  # each pair of buckets once
            number = np.where(words < theirs, number, 0)
        for first, stop in _lots(number):
            each = number[first:stop]
            one = np.repeat(np.arange(first, stop), each)
            if not len(one):
                continue
            begin = np.repeat(starts[theirs[first:stop]] - np.cumsum(each) + each, each)
            other = begin + np.arange(len(one))
            differ = np.bitwise_count(sorted_left[one] ^ sorted_right[other])
            near = np.flatnonzero(differ <= radius)
            one, other = one[near], other[near]
            fresh = _first_found(sorted_left[one] ^ sorted_right[other], table)
            i, j = mine[one[fresh]], order[other[fresh]]
            if within:
                if not flip:  # both ways in one bucket, and each with itself
                    upward = i < j
                    i, j = i[upward], j[upward]
                i, j = np.minimum(i, j), np.maximum(i, j)
            if len(i):
                yield i, j


def _lots(number: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of rows with about as many pairs as fit the memory."""
    ends = np.cumsum(number)
    if not len(ends) or not ends[-1]:
        return
    cuts = np.unique(np.searchsorted(ends, np.arange(_AT_ONCE, int(ends[-1]), _AT_ONCE)))
    yield from itertools.pairwise([0, *(cuts[cuts > 0]).tolist(), len(number)])


def _first_found(difference: Hashes, table: int) -> NDArray[np.bool_]:
    """Whether every word before this table's differs in more than two bits."""
    fresh = np.ones(len(difference), np.bool_)
    for before in range(table):
        fresh &= np.bitwise_count(_word(difference, before)) > 2
    return fresh


def _word(hashes: Hashes, table: int) -> NDArray[np.int64]:
    """The bits of a table: every fourth bit, so that no table holds the lowest frequencies alone."""
    found = np.zeros(len(hashes), np.int64)
    for bit in range(_WORD):
        found |= ((hashes >> np.uint64(TABLES * bit + table)).astype(np.int64) & 1) << bit
    return found
