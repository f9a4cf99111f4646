"""Which runs of words may occur elsewhere? Hashes of all windows of a number of words, and a few that stand for the others.

A repeated run of N words shares every shorter run in it. So it is enough to look at some runs of half that length, the
*anchors*: of every N words in a row the one with the smallest hash is chosen. Equal runs of N words choose the same anchor,
wherever they are; what shares no anchor shares no run (winnowing, Schleimer et al., 2003).
"""

from __future__ import annotations

import functools

import numpy as np

from curator_text.dedup.words import Hashes, Ints, Words

_D = (0x8CB92BA72F3D8DD7, 0xD1B54A32D192ED03)
_MIX, _FINISH = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_33 = np.uint64(33)
_NONE = np.uint64(2**64 - 1)


def anchor_size(words: int) -> int:
    """How many words an anchor of runs of this many words has."""
    return max(1, words // 2)


def window_hashes(words: Words, size: int, which: int = 0) -> tuple[Hashes, Ints]:
    """The hash of each run of ``size`` words that lies in one text, and the place of its first word among all words.

    ``which``, 0 or 1, chooses one of two independent hashes.
    """
    count = len(words.hashes) - size + 1
    if count <= 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    power, inverse = _powers(which, 1 << (len(words.hashes) + 1).bit_length())
    sums = np.zeros(len(words.hashes) + 1, np.uint64)
    np.cumsum(words.hashes * power[: len(words.hashes)], out=sums[1:])
    made = sums[size:] - sums[:-size]
    made *= inverse[:count]
    made ^= made >> _33
    made *= _MIX
    made ^= made >> _33
    made *= _FINISH
    made ^= made >> _33
    within = np.ones(count, np.bool_)
    # The last few words of a text begin a run that would go on into the next one.
    ends = np.repeat(words.offsets[1:], words.counts)[:count]
    within &= np.arange(count) + size <= ends
    at = np.flatnonzero(within)
    return made[at], at


@functools.lru_cache(maxsize=4)
def _powers(which: int, count: int) -> tuple[Hashes, Hashes]:
    """Powers of an odd number and of its inverse modulo 2⁶⁴."""
    number = _D[which]
    power = np.full(count, number, np.uint64)
    power[0] = 1
    inverse = np.full(count, pow(number, -1, 1 << 64), np.uint64)
    inverse[0] = 1
    return np.cumprod(power, dtype=np.uint64), np.cumprod(inverse, dtype=np.uint64)


def anchors(words: Words, size: int) -> tuple[Hashes, Ints]:
    """Hashes and places of the anchors of all runs of ``size`` words."""
    short = anchor_size(size)
    hashes, at = window_hashes(words, short)
    spread = np.full(len(words.hashes), _NONE, np.uint64)
    spread[at] = hashes
    room = size - short + 1  # so many anchors lie in a run
    lowest = _sliding(spread, room, np.minimum)
    # A run that does not lie in one text chooses nothing.
    begins = np.zeros(len(lowest), np.bool_)
    ends = np.repeat(words.offsets[1:], words.counts)[: len(lowest)]
    begins[: len(ends)] = np.arange(len(ends)) + size <= ends
    highest = np.zeros(len(spread) + room - 1, np.uint64)
    highest[room - 1 : room - 1 + len(lowest)] = np.where(begins, lowest, np.uint64(0))
    # Chosen is what is the smallest of some run that it lies in.
    chosen = np.flatnonzero(_sliding(highest, room, np.maximum)[: len(spread)] == spread)
    chosen = chosen[spread[chosen] != _NONE]
    return spread[chosen], chosen


def _sliding(values: Hashes, size: int, best: np.ufunc) -> Hashes:
    """The best of every ``size`` values in a row."""
    if len(values) < size:
        return np.zeros(0, np.uint64)
    made, width = values, 1
    while width * 2 <= size:
        made = best(made[:-width], made[width:])
        width *= 2
    rest = size - width
    return best(made[: len(made) - rest], made[rest:]) if rest else made


def starts_around(at: Ints, first: Ints, counts: Ints, size: int) -> Ints:
    """The places at which a run of ``size`` words begins that holds an anchor at one of the sorted places ``at``, which lie in
    texts that begin at ``first`` and have ``counts`` words.
    """
    short = anchor_size(size)
    low = np.maximum(first, at + short - size)
    high = np.minimum(at, first + counts - size)
    each = np.maximum(high - low + 1, 0)
    made = np.repeat(low - np.cumsum(each) + each, each) + np.arange(int(each.sum()))
    return np.unique(made)


def merged(starts: Ints, size: int) -> tuple[Ints, Ints]:
    """Sorted starts of runs of ``size`` as ranges that neither overlap nor touch: first, and behind the last."""
    if not len(starts):
        return starts, starts
    heads = np.flatnonzero(np.append(True, starts[1:] > starts[:-1] + size))
    tails = np.append(heads[1:] - 1, len(starts) - 1)
    return starts[heads], starts[tails] + size
