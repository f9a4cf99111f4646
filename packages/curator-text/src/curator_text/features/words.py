"""Finds words as str.split() does, and measures them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curator_core.arrow.arrays import distinct
from curator_text import _unicode
from curator_text.features.block import SPACE, Block, Bools, Ints, once

ELLIPSES = ("...", "[...]", "…", "(...)", "[…]", "-»")
# Masks that set the bytes of a key after the end of a short word to 0xFF, which UTF-8 never uses, so that different
# short words have different keys.
BEYOND = np.array([~((1 << 8 * length) - 1) & (2**64 - 1) for length in range(8)] + [0], np.uint64)


@dataclass(frozen=True, slots=True)
class Words:
    """The start and end of words, and the range of words of each document: from `first` up to, but excluding, `last`."""

    starts: Ints
    ends: Ints
    first: Ints
    last: Ints


@once
def stripped_of(block: Block) -> tuple[Ints, Ints]:
    """The start and end of each text after str.strip()."""
    words = words_of(block)
    first, last = block.starts.copy(), block.starts.copy()
    some = words.last > words.first
    first[some], last[some] = words.starts[words.first[some]], words.ends[words.last[some] - 1]
    return first, last


@once
def spaces_of(block: Block) -> Bools:
    """Which bytes are white space for str.split()."""
    mask = block.mask(SPACE)
    if len(at := block.wide_positions(_unicode.SPACE)):
        mask[at] = mask[at + 1] = True
        mask[at[block.data[at] >= 0xE0] + 2] = True
    return mask


@once
def words_of(block: Block) -> Words:
    """The start and end of each word."""
    spaces = spaces_of(block)
    edges = np.flatnonzero(spaces[1:] != spaces[:-1]) + 1
    starts = edges[0::2]
    return Words(starts, edges[1::2], np.searchsorted(starts, block.starts), np.searchsorted(starts, block.ends))


def word_counts(block: Block) -> Ints:
    return words_of(block).last - words_of(block).first


def word_chars(block: Block) -> Ints:
    """How many code points are in words; these are all except white space."""
    words, sums = words_of(block), word_char_sums(block)
    return sums[words.last] - sums[words.first]


@once
def word_lengths(block: Block) -> Ints:
    return block.ordered_lengths(words_of(block).starts, words_of(block).ends)


@once
def word_char_sums(block: Block) -> Ints:
    """How many code points are in all words before each word."""
    return np.concatenate(([0], np.cumsum(word_lengths(block))))


def longest_words(block: Block) -> Ints:
    """The length of the longest word, or 0 if there is none."""
    words = words_of(block)
    return _segments(np.maximum, word_lengths(block), words.first, words.last)


@once
def word_rows(block: Block) -> Ints:
    return np.repeat(np.arange(block.rows), word_counts(block))


@once
def word_keys(block: Block) -> npt.NDArray[np.uint64]:
    """The first eight bytes of each word; words of fewer bytes are equal if and only if their keys are."""
    words = words_of(block)
    keys: npt.NDArray[np.uint64] = block.eights[words.starts] | BEYOND[np.minimum(words.ends - words.starts, 8)]
    return keys


def words_among(block: Block, known: Iterable[str]) -> Bools:
    """Which words are among the ``known``."""
    keys, found = word_keys(block), None
    longer: list[bytes] = []
    short: list[int] = []
    for word in known:
        encoded = word.encode()
        if len(encoded) >= 8:  # all words with the same first eight bytes share a key
            longer.append(encoded)
        elif encoded:
            short.append(_key(encoded))
    found = np.isin(keys, np.array(short, np.uint64))
    if longer:
        at = np.flatnonzero(np.isin(keys, np.array([_key(word) for word in longer], np.uint64)))
        among = set(longer)
        starts, ends = words_of(block).starts, words_of(block).ends
        for index in at.tolist():
            found[index] = block.raw[starts[index] : ends[index]] in among
    return found


def count_words(block: Block, chosen: Bools) -> Ints:
    """How many words of each document are ``chosen``."""
    return _at_words(block, np.flatnonzero(chosen))


def _at_words(block: Block, indices: Ints) -> Ints:
    words = words_of(block)
    return np.searchsorted(indices, words.last) - np.searchsorted(indices, words.first)


def known_word_counts(block: Block, known: tuple[str, ...]) -> Ints:
    """How many words are among the ``known``, with the same spelling."""
    return count_words(block, words_among(block, known))


def distinct_known_words(block: Block, known: tuple[str, ...]) -> Ints:
    """How many of the ``known`` words occur at least once."""
    long = sorted({word for word in known if len(word.encode()) >= 8})
    short = sorted(set(known).difference(long))
    at = np.flatnonzero(words_among(block, short))
    keys = distinct(np.array([_key(word.encode()) for word in short], np.uint64))
    pairs = word_rows(block)[at] * len(keys) + np.searchsorted(keys, word_keys(block)[at])
    table = np.bincount(pairs, minlength=block.rows * len(keys)).reshape(block.rows, len(keys)) > 0
    counts: Ints = table.sum(axis=1)
    for word in long:
        counts += count_words(block, words_among(block, [word])) > 0
    return counts


def words_having(block: Block, bits: int, wide_bits: int) -> Ints:
    """How many words have a character of these classes: ASCII by ``bits``, others by ``wide_bits``."""
    return count_words(block, having(block, bits, wide_bits))


def having(block: Block, bits: int, wide_bits: int) -> Bools:
    """Which words have such a character."""
    words = words_of(block)
    if not len(words.starts):
        return np.zeros(0, np.bool_)
    mask = block.mask(bits)
    if len(at := block.wide_positions(wide_bits)):
        mask[at] = True
    # For most words, the first byte decides.
    having = mask[words.starts]
    rest = np.flatnonzero(~having)
    bounds = np.stack((words.starts[rest], words.ends[rest]), 1).ravel()
    if len(bounds):
        having[rest] = np.logical_or.reduceat(mask, bounds)[::2]
    return having


def symbol_words(block: Block) -> Ints:
    """How many words are mostly ``#``, or are an ellipsis."""
    words = words_of(block)
    among = words_among(block, ELLIPSES)
    hashes = np.flatnonzero(block.data == ord("#"))
    if len(hashes):
        # Count the runs of # in words; a run counts once, whatever its length.
        index = np.searchsorted(words.starts, hashes, "right") - 1
        fresh = np.ones(len(hashes), np.bool_)
        fresh[1:] = hashes[1:] != hashes[:-1] + 1
        runs = np.bincount(index[fresh])
        at = np.flatnonzero(runs)
        among[at] |= runs[at] / word_lengths(block)[at] > 0.5
    return count_words(block, among)


# n-grams of words ---------------------------------------------------------------------------------------------


def _key(word: bytes) -> int:
    """The first eight bytes, as in `Block.word_keys`."""
    return int.from_bytes(word[:8].ljust(8, b"\xff"), "little")


def _segments(reduce: np.ufunc, values: Ints, first: Ints, last: Ints) -> Ints:
    """The reduction of values[first:last] for each pair, or 0 if that is empty. The ranges are in order."""
    result = np.zeros(len(first), np.int64)
    some = np.flatnonzero(last > first)
    if len(some):
        result[some] = reduce.reduceat(values, first[some])
    return result
