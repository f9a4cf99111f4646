"""Finds n-grams of words that repeat within their document."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from curator_text.features.block import ODD, Block, Bools, Ints, numbered
from curator_text.features.words import BEYOND, word_char_sums, word_counts, word_keys, word_rows, words_of


class Grams:
    """Repeated n-grams: the words at which they start, in order, their numbers, and the count of each number."""

    def __init__(self, at: Ints, ids: Ints, counts: Ints) -> None:
        self.at, self.ids, self.counts, self.size = at, ids, counts, max(len(counts), 1)

    @cached_property
    def first(self) -> Ints:
        """The indices of the first occurrence of each n-gram, in order."""
        return np.flatnonzero(~self.seen)

    @cached_property
    def seen(self) -> Bools:
        """Which n-grams occurred before. Numbers are assigned in order of occurrence, so a new number exceeds all
        earlier ones.
        """
        seen = np.ones(len(self.ids), np.bool_)
        if len(self.ids):
            highest = np.maximum.accumulate(self.ids)
            seen[0] = False
            seen[1:] = highest[1:] == highest[:-1]
        return seen


def _number_words(block: Block, chosen: Ints) -> tuple[Ints, int]:
    # Equal words get equal numbers, and different words different numbers. Each step compares eight bytes exactly.
    starts, ends = words_of(block).starts[chosen], words_of(block).ends[chosen]
    ids, size = numbered(word_keys(block)[chosen])
    sizes = ends - starts
    offset = 8
    longer = np.flatnonzero(sizes > offset)
    while len(longer) and offset < 40:
        tails = block.eights[starts[longer] + offset] | BEYOND[np.minimum(sizes[longer] - offset, 8)]
        tail_ids, tail_size = numbered(tails)
        pairs, pair_size = numbered(ids[longer] * tail_size + tail_ids)
        ids[longer] = pairs + size
        size += pair_size
        offset += 8
        longer = longer[sizes[longer] > offset]
    if len(longer):
        known: dict[bytes, int] = {}
        raw = block.raw
        spans = zip(starts[longer].tolist(), ends[longer].tolist(), strict=True)
        ids[longer] = [known.setdefault(raw[a:b], size + len(known)) for a, b in spans]
        size += len(known)
    return ids, size


def _word_sums(block: Block) -> npt.NDArray[np.uint64]:
    # A hash of every word; equal words have equal hashes.
    starts, ends = words_of(block).starts, words_of(block).ends
    sums: npt.NDArray[np.uint64] = word_keys(block) * ODD[0]
    sizes = ends - starts
    offset = 8
    longer = np.flatnonzero(sizes > offset)
    while len(longer) and offset < 40:
        tails = block.eights[starts[longer] + offset] | BEYOND[np.minimum(sizes[longer] - offset, 8)]
        part = sums[longer]
        sums[longer] = (part ^ part >> np.uint64(29) ^ tails) * ODD[1]
        offset += 8
        longer = longer[sizes[longer] > offset]
    raw = block.raw
    for index, start, end in zip(longer.tolist(), starts[longer].tolist(), ends[longer].tolist(), strict=True):
        sums[index] = xxhash.xxh3_64_intdigest(raw[start:end])
    sums ^= sums >> np.uint64(29)
    return sums


def _same_words(block: Block, some: Ints, others: Ints) -> bool:
    # Whether all pairs consist of equal words.
    keys, starts, ends = word_keys(block), words_of(block).starts, words_of(block).ends
    sizes = (ends - starts)[some]
    if not (np.array_equal(keys[some], keys[others]) and np.array_equal(sizes, (ends - starts)[others])):
        return False
    offset = 8
    longer = np.flatnonzero(sizes > offset)
    while len(longer) and offset < 40:
        one, two = starts[some[longer]] + offset, starts[others[longer]] + offset
        beyond = BEYOND[np.minimum(sizes[longer] - offset, 8)]
        if not np.array_equal(block.eights[one] | beyond, block.eights[two] | beyond):
            return False
        offset += 8
        longer = longer[sizes[longer] > offset]
    raw = block.raw
    spans = (starts[some[longer]], ends[some[longer]], starts[others[longer]], ends[others[longer]])
    return all(raw[a:b] == raw[c:d] for a, b, c, d in zip(*(span.tolist() for span in spans), strict=True))


def _repeated_pairs(block: Block) -> Grams:
    # Hashes find candidates at a third of the cost of numbering all words; then the candidates are compared.
    rows, sums = word_rows(block), _word_sums(block)
    pairs = sums[1:] * ODD[1]
    pairs += sums[:-1]
    pairs += np.repeat(np.arange(block.rows, dtype=np.uint64) * ODD[2], word_counts(block))[:-1]
    pairs *= ODD[3]
    # Most pairs occur only once in their document; a table of counts by a few bits of the hash rules them out.
    bits = max(len(pairs), 1).bit_length() + 1
    buckets = (pairs >> np.uint64(64 - bits)).view(np.int64)
    at = np.flatnonzero(np.bincount(buckets, minlength=1 << bits)[buckets] > 1)
    at = at[rows[at] == rows[at + 1]]
    grams = _repeated(at, pairs[at])
    heads = np.zeros(grams.size, np.int64)
    heads[grams.ids[grams.first]] = grams.at[grams.first]
    again, before = grams.at[grams.seen], heads[grams.ids[grams.seen]]
    if (
        np.array_equal(rows[before], rows[again])
        and _same_words(block, again, before)
        and _same_words(block, again + 1, before + 1)
    ):
        return grams
    return _exactly_repeated_pairs(block)


def _exactly_repeated_pairs(block: Block) -> Grams:
    # Used if hashes collide, which happens only if someone constructs a collision.
    rows = word_rows(block)
    at = np.flatnonzero(rows[1:] == rows[:-1])
    ids, size = _number_words(block, np.arange(len(rows)))
    return _repeated(at, (rows[at] * size + ids[at]) * size + ids[at + 1])


def repeated_grams(block: Block, n: int) -> Grams:
    """The n-grams that occur twice or more in their document."""
    levels: dict[int, Grams] = block.shared.setdefault(repeated_grams, {})
    if n not in levels:
        if n == 1:
            at = np.arange(len(words_of(block).starts))
            ids, size = _number_words(block, at)
            levels[n] = _repeated(at, word_rows(block) * size + ids)
        elif n == 2:
            levels[n] = _repeated_pairs(block)
        else:
            # An n-gram consists of the (n-1)-grams at two neighbouring words, and is repeated only if both are.
            below = repeated_grams(block, n - 1)
            pairs = np.flatnonzero(below.at[1:] == below.at[:-1] + 1)
            levels[n] = _repeated(below.at[pairs], below.ids[pairs] * below.size + below.ids[pairs + 1])
    return levels[n]


def top_gram_starts(block: Block, n: int) -> Ints:
    """The word at which the most frequent n-gram first starts, or -1 if there are fewer than n words; the first of
    equally frequent n-grams counts.
    """
    words, grams = words_of(block), repeated_grams(block, n)
    top = np.where(words.last - words.first >= n, words.first, -1)
    first = grams.first
    if len(first):
        counts, rows = grams.counts[grams.ids[first]], word_rows(block)[grams.at[first]]
        heads = np.flatnonzero(np.diff(rows, prepend=-1))
        most = np.maximum.reduceat(counts, heads)
        best = np.flatnonzero(counts == np.repeat(most, np.diff(heads, append=len(rows))))
        best = best[np.diff(rows[best], prepend=-1) != 0]
        top[rows[best]] = grams.at[first[best]]
    return top


def top_gram_counts(block: Block, n: int) -> Ints:
    """How often the most frequent n-gram occurs; 0 if there are fewer than n words."""
    grams, top = repeated_grams(block, n), block.per_row(top_gram_starts, n)
    counts = (top >= 0).astype(np.int64)
    index = np.searchsorted(grams.at, top)
    index[index == len(grams.at)] = 0
    if len(grams.at):
        hit = grams.at[index] == top
        counts[hit] = grams.counts[grams.ids[index[hit]]]
    return counts


def top_gram_sizes(block: Block, n: int) -> Ints:
    """The length of the most frequent n-gram, with its words joined by single spaces."""
    top, sums = block.per_row(top_gram_starts, n), word_char_sums(block)
    sizes = np.zeros(block.rows, np.int64)
    some = np.flatnonzero(top >= 0)
    sizes[some] = sums[top[some] + n] - sums[top[some]] + (n - 1)
    return sizes


def top_gram_removed(block: Block, n: int) -> Ints:
    """How many code points are removed when every occurrence of the most frequent n-gram is cut out of the raw text."""
    top, sizes = block.per_row(top_gram_starts, n), block.per_row(top_gram_sizes, n)
    starts, ends, raw = words_of(block).starts, words_of(block).ends, block.raw
    some = np.flatnonzero(top >= 0)
    head, tail = top[some], top[some] + (n - 1)
    removed = np.zeros(block.rows, np.int64)
    # The bytes can be compared directly, unless something other than one space separates the words.
    plain = np.ones(len(some), np.bool_)
    for step in range(n - 1):
        plain &= (starts[head + step + 1] - ends[head + step] == 1) & (block.data[ends[head + step]] == ord(" "))
    spans = block.spans
    for row, first, start, end, direct in zip(
        some.tolist(), head.tolist(), starts[head].tolist(), ends[tail].tolist(), plain.tolist(), strict=True
    ):
        gram = raw[start:end] if direct else b" ".join(raw[starts[k] : ends[k]] for k in range(first, first + n))
        removed[row] = raw.count(gram, *spans[row])
    removed *= sizes
    return removed


def covered_gram_chars(block: Block, n: int) -> Ints:
    """How many code points are in n-grams that occurred before, including the spaces between words; each code point
    counts once.
    """
    grams = repeated_grams(block, n)
    total = np.zeros(block.rows, np.int64)
    again = grams.at[grams.seen]
    if len(again):
        before = np.concatenate(([-n], again[:-1]))
        apart = again - before >= n
        start = np.where(apart, again, before + n)
        sums = word_char_sums(block)
        chars = sums[again + n] - sums[start] + np.where(apart, n - 1, again + n - start)
        total += np.bincount(word_rows(block)[again], chars, block.rows).astype(np.int64)
    return total


def skipped_gram_chars(block: Block, n: int) -> Ints:
    """How many code points are in repeated n-grams, if the search continues after each match, as in the Gopher recipe."""
    grams, sums = repeated_grams(block, n), word_char_sums(block)
    total = np.zeros(block.rows, np.int64)
    if not len(grams.at):
        return total
    rows = word_rows(block)[grams.at]
    chars = (sums[grams.at + n] - sums[grams.at]).tolist()
    met: set[int] = set()
    behind = 0
    found: dict[int, int] = {}
    for at, gram, row, size in zip(grams.at.tolist(), grams.ids.tolist(), rows.tolist(), chars, strict=True):
        if at < behind:
            continue
        if gram in met:
            found[row] = found.get(row, 0) + size
            behind = at + n
        else:
            met.add(gram)
    total[list(found)] = list(found.values())
    return total


def _repeated(at: Ints, keys: npt.NDArray[Any]) -> Grams:
    """The n-grams at these words whose key occurs at least twice."""
    numbers, count = numbered(keys)
    counts = np.bincount(numbers, minlength=count)
    chosen = np.flatnonzero(counts[numbers] > 1)
    return Grams(at[chosen], numbers[chosen], counts)
