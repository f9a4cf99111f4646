"""Chooses runs of words that represent all others in the search for repeats.

If a run of N words is repeated, so is every shorter run in it. So it is enough to compare some runs of half that
length, the *anchors*: from every run of N words, the shorter run with the smallest hash. Equal runs of N words have the
same anchor, and texts that share no anchor share no run (winnowing, Schleimer et al., 2003).

A run of N characters is the shortest run of words, from its first word on, that has at least N characters, with one
space between words in the compared form. So equal runs have the same length, and no run ends inside a word.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curator_text.dedup.words import Hashes, Ints, Spans, Words, blocks_of, joined, spans_of, word_numbers

_D = (0x8CB92BA72F3D8DD7, 0xD1B54A32D192ED03)
_MIX, _FINISH = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_33 = np.uint64(33)
_NONE = np.uint64(2**64 - 1)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Measured:
    """The words of many texts, and the begin and end of each word, measured in words or in characters of the compared
    form.
    """

    words: Words
    starts: Ints
    ends: Ints

    @classmethod
    def by_words(cls, words: Words) -> Measured:
        """Each word has length 1."""
        at = np.arange(len(words.hashes))
        return cls(words, at, at + 1)

    @classmethod
    def of(cls, texts: pa.ChunkedArray, *, characters: bool) -> Measured:
        """The words of texts, measured in characters or in words."""
        found = [spans_of(documents) for documents in blocks_of(texts)]
        words = joined([word_numbers(spans) for spans in found])
        if not characters:
            return cls.by_words(words)
        sizes = np.concatenate([np.zeros(0, np.int64), *(_characters(spans) for spans in found)])
        between = np.ones(len(sizes), np.int64)
        if words.spaceless is not None:
            between[:-1] -= words.spaceless[:-1] & words.spaceless[1:]
        stops = np.cumsum(sizes + between)
        ends = stops - between
        return cls(words, ends - sizes, ends)

    def runs(self, length: int) -> Runs:
        """For each word, the shortest run of at least this length that begins with it, within one text."""
        in_words = len(self.ends) == 0 or self.ends[-1] == len(self.ends)
        last = self.starts + length if in_words else np.searchsorted(self.ends, self.starts + length) + 1
        stop = np.repeat(self.words.offsets[1:], self.words.counts)
        first = np.flatnonzero(last <= stop)
        return Runs(first, last[first])


def _characters(spans: Spans) -> Ints:
    """The number of characters of each word."""
    before = np.zeros(len(spans.data) + 1, np.int64)
    np.cumsum((spans.data & 0xC0) != 0x80, out=before[1:])
    found: Ints = before[spans.ends] - before[spans.starts]
    return found


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Runs:
    """Runs of words from ``first`` up to, but excluding, ``last``; both are sorted."""

    first: Ints
    last: Ints

    def hashes(self, words: Words, which: int = 0) -> Hashes:
        """The hash of each run; ``which`` (0 or 1) selects one of two independent hashes."""
        power, inverse = _powers(which, 1 << (len(words.hashes) + 1).bit_length())
        sums = np.zeros(len(words.hashes) + 1, np.uint64)
        np.cumsum(words.hashes * power[: len(words.hashes)], out=sums[1:])
        made: Hashes = sums[self.last] - sums[self.first]
        made *= inverse[self.first]
        made ^= made >> _33
        made *= _MIX
        made ^= made >> _33
        made *= _FINISH
        made ^= made >> _33
        return made

    def take(self, at: Ints) -> Runs:
        return Runs(self.first[at], self.last[at])


def anchor_length(length: int) -> int:
    """The length of an anchor for runs of this length."""
    return max(1, length // 2)


@functools.lru_cache(maxsize=4)
def _powers(which: int, count: int) -> tuple[Hashes, Hashes]:
    """Powers of an odd number and of its inverse modulo 2⁶⁴."""
    number = _D[which]
    power = np.full(count, number, np.uint64)
    power[0] = 1
    inverse = np.full(count, pow(number, -1, 1 << 64), np.uint64)
    inverse[0] = 1
    return np.cumprod(power, dtype=np.uint64), np.cumprod(inverse, dtype=np.uint64)


def anchors(measured: Measured, length: int) -> tuple[Hashes, Ints]:
    """The hashes and places of the anchors of all runs of this length."""
    runs, short = measured.runs(length), measured.runs(anchor_length(length))
    if not len(runs.first):
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    hashes = short.hashes(measured.words)
    lowest = _best_between(hashes, *_anchors_in(runs, short), np.minimum)
    # A short run is an anchor if it has the smallest hash in some run.
    first, stop = _runs_with(runs, short, np.arange(len(short.first)))
    some = np.flatnonzero(stop > first)
    chosen = some[_best_between(lowest, first[some], stop[some], np.maximum) == hashes[some]]
    return hashes[chosen], short.first[chosen]


def runs_around(measured: Measured, length: int, at: Ints) -> Runs:
    """The runs of this length that contain an anchor that begins at one of these words."""
    runs, short = measured.runs(length), measured.runs(anchor_length(length))
    first, stop = _runs_with(runs, short, np.searchsorted(short.first, at))
    # Each anchor opens and closes a range of runs. A run is in a range if more ranges have been opened than closed.
    most = len(runs.first) + 1
    is_open = np.cumsum(np.bincount(first, minlength=most) - np.bincount(stop, minlength=most))
    return runs.take(np.flatnonzero(is_open[:-1]))


def _anchors_in(runs: Runs, short: Runs) -> tuple[Ints, Ints]:
    """The range of short runs in each run; the end is excluded."""
    return _counted(short.first, runs.first - 1), _counted(short.last, runs.last)


def _runs_with(runs: Runs, short: Runs, which: Ints) -> tuple[Ints, Ints]:
    """The range of runs that contain each of some short runs; the end is excluded."""
    return _counted(runs.last, short.last[which] - 1), _counted(runs.first, short.first[which])


def _counted(places: Ints, up_to: Ints) -> Ints:
    """How many of the sorted places are at most each value in ``up_to``; much faster than a search if there are many
    values.
    """
    if len(up_to) * 8 < len(places):
        found: Ints = np.searchsorted(places, up_to, "right")
        return found
    # The smallest value is -1, the place before the first word.
    most = max(int(places.max(initial=-1)), int(up_to.max(initial=-1)))
    counts = np.cumsum(np.bincount(places + 1, minlength=most + 2))
    return counts[up_to + 1]


def _best_between(values: Hashes, first: Ints, stop: Ints, best: np.ufunc) -> Hashes:
    """The best value in each range from ``first`` up to, but excluding, ``stop``; no range is empty."""
    found = np.empty(len(first), np.uint64)
    sizes = stop - first
    least = int(sizes.min(initial=1 << 62))
    for width, powers in _doubled(values, int(sizes.max(initial=1)), best):
        if 2 * width <= least:
            continue
        mine = np.flatnonzero((sizes >= width) & (sizes < 2 * width))
        found[mine] = best(powers[first[mine]], powers[stop[mine] - width])
    return found


def _doubled(values: Hashes, longest: int, best: np.ufunc) -> Iterator[tuple[int, Hashes]]:
    """The best of every 1, 2, 4, … consecutive values."""
    width = 1
    while True:
        yield width, values
        if 2 * width > longest:
            return
        values = best(values[:-width], values[width:])
        width *= 2


def merged(first: Ints, last: Ints) -> tuple[Ints, Ints]:
    """Merge sorted ranges into ranges that neither overlap nor touch."""
    if not len(first):
        return first, last
    heads = np.flatnonzero(np.append(True, first[1:] > last[:-1]))
    return first[heads], last[np.append(heads[1:] - 1, len(first) - 1)]
