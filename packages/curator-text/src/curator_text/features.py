"""What text filters measure, computed once for a batch and shared by the filters that follow one another.

Documents are laid out as UTF-8 bytes, half a megabyte at a time, each document followed by a newline that is not its
own, so that no word, line or URL can reach into the next one. Everything is then a numpy operation over the whole
block: classes of bytes by a lookup table, words from the edges of white space, lines from newlines, repeated n-grams
from the repeated (n-1)-grams that start at neighbouring words.

A filter asks for what it needs, and what it needs is computed then, for the documents that are still there::

    text = TextFeatures.of(["some text", None])
    text.per_row(Block.word_counts)  # array([2, 0])

Nothing is decided by a hash: words, lines and n-grams that compare equal here are equal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from curator_core.arrow.arrays import array, to_numpy
from curator_core.arrow.row_hash import column_of
from curator_core.errors import UsageError
from curator_text import _unicode

if TYPE_CHECKING:
    from curator_core.model.task import DocumentBatch

# A method of Block, or a function of one, with its other arguments.
Measure = Callable[..., npt.NDArray[Any]]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Measured: from 256 KiB to 1 MiB makes no difference; below, the calls cost; above, the arrays leave the cache.
BLOCK_BYTES = 1 << 19
# Newlines before the first document and after the last, so that eight bytes can be read on either side of a word.
_MARGIN = 32

# Classes of bytes, as bits. A byte of a character beyond ASCII is START or CONT and nothing else.
SPACE, ENGLISH, DIGIT, BLANK, PAREN, LETTER, CONT, START = (1 << bit for bit in range(8))


def _byte_classes() -> bytes:
    bits = [0] * 256
    letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for members, bit in (
        (b"\t\n\v\f\r\x1c\x1d\x1e\x1f ", SPACE),
        (letters + b"0123456789\n?!,.", ENGLISH),
        (b"0123456789", DIGIT),
        (b"\t\n\r\b ", BLANK),
        (b"{}[]()", PAREN),
        (letters, LETTER),
        (bytes(range(0x80, 0xC0)), CONT),
        (bytes(range(0xC0, 0x100)), START),
    ):
        for byte in members:
            bits[byte] |= bit
    return bytes(bits)


_CLASSES = _byte_classes()
# Bytes of a word's eight that lie behind its end are set to 0xFF, which UTF-8 never uses: words differ when keys do.
_BEYOND = np.array([~((1 << 8 * length) - 1) & (2**64 - 1) for length in range(8)] + [0], np.uint64)
_URL = re.compile(rb"https?://(?:[A-Za-z0-9$\-_@.&+/:=?#~!*(),]|%[0-9A-Fa-f]{2})+")


class Block:
    """Documents side by side; positions are offsets into `data`. Every method answers per document, in order."""

    def __init__(self, documents: Sequence[bytes | memoryview]) -> None:
        margin = b"\n" * _MARGIN
        self.raw = b"".join((margin, b"\n".join(documents), margin))
        self.data = np.frombuffer(self.raw, np.uint8)
        lengths = np.fromiter(map(len, documents), np.int64, len(documents))
        self.ends: Ints = np.cumsum(lengths + 1) + (_MARGIN - 1)
        self.starts: Ints = self.ends - lengths
        self.rows = len(documents)
        self._memo: dict[tuple[Measure, tuple[Hashable, ...]], npt.NDArray[Any]] = {}

    def per_row(self, method: Measure, *args: Hashable) -> npt.NDArray[Any]:
        """The answer of a method, remembered."""
        key = (method, args)
        if key not in self._memo:
            self._memo[key] = method(self, *args)
        return self._memo[key]

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """Start and end of every document."""
        return list(zip(self.starts.tolist(), self.ends.tolist(), strict=True))

    def document(self, row: int) -> str:
        """The text of one document, for rules that are easier said in Python."""
        start, end = self.spans[row]
        return self.raw[start:end].decode(errors="replace")

    # Characters ---------------------------------------------------------------------------------------------------

    @cached_property
    def is_ascii(self) -> bool:
        return self.raw.isascii()

    @cached_property
    def classes(self) -> npt.NDArray[np.uint8]:
        """The classes of every byte."""
        return np.frombuffer(self.raw.translate(_CLASSES), np.uint8)

    def mask(self, bits: int) -> Bools:
        """Which bytes are of a class."""
        marked: Bools = (self.classes & np.uint8(bits)) != 0
        return marked

    def count(self, mask: Bools) -> Ints:
        """How many bytes of each document a mask marks."""
        return self.count_between(mask, self.starts, self.ends)

    def count_between(self, mask: Bools, first: Ints, last: Ints) -> Ints:
        """How many bytes a mask marks in each of these spans, which follow one another."""
        if len(self.raw) > 400 * self.rows:
            # count_nonzero reads 20 bytes a nanosecond; what it costs is the call.
            counted = np.count_nonzero
            spans = zip(first.tolist(), last.tolist(), strict=True)
            return np.fromiter((counted(mask[a:b]) for a, b in spans), np.int64, len(first))
        if not len(first):
            return np.zeros(0, np.int64)
        bounds = np.stack((first, last), 1).ravel()
        return np.where(first < last, np.add.reduceat(mask, bounds, dtype=np.int64)[::2], 0)

    def count_at(self, positions: Ints) -> Ints:
        """How many of these sorted positions lie in each document."""
        return np.searchsorted(positions, self.ends) - np.searchsorted(positions, self.starts)

    def rows_of(self, positions: Ints) -> Ints:
        """The document that each position lies in."""
        return np.searchsorted(self.starts, positions, "right") - 1

    def byte_counts(self) -> Ints:
        return self.ends - self.starts

    def char_counts(self) -> Ints:
        """Length in code points."""
        lengths = self.byte_counts()
        return lengths if self.is_ascii else lengths - self.count(self.mask(CONT))

    def class_counts(self, bits: int) -> Ints:
        """How many ASCII characters of a class each document has."""
        return self.count(self.mask(bits))

    @cached_property
    def stripped(self) -> tuple[Ints, Ints]:
        """Where what str.strip() leaves starts and ends."""
        words = self.words
        first, last = self.starts.copy(), self.starts.copy()
        some = words.last > words.first
        first[some], last[some] = words.starts[words.first[some]], words.ends[words.last[some] - 1]
        return first, last

    def byte_occurrences(self, byte: int) -> Ints:
        """How often an ASCII character occurs."""
        return self.count_at(np.flatnonzero(self.data == byte))

    @cached_property
    def chars_before(self) -> npt.NDArray[np.int32]:
        """For every position, how many continuation bytes lie before it."""
        before = np.zeros(len(self.data) + 1, np.int32)
        np.cumsum(self.mask(CONT), dtype=np.int32, out=before[1:])
        return before

    def lengths(self, starts: Ints, ends: Ints) -> Ints:
        """Lengths in code points of pieces of the text."""
        if self.is_ascii:
            return ends - starts
        before = self.chars_before
        return ends - starts - (before[ends] - before[starts])

    @cached_property
    def _continuations(self) -> Ints:
        return np.flatnonzero(self.mask(CONT))

    def ordered_lengths(self, starts: Ints, ends: Ints) -> Ints:
        """Lengths in code points of pieces that come in order and do not overlap; cheaper where most text is ASCII."""
        if self.is_ascii:
            return ends - starts
        inside = self._continuations
        if len(inside) > len(self.data) // 32 or not len(starts):
            return self.lengths(starts, ends)
        piece = np.searchsorted(starts, inside, "right") - 1
        piece = piece[(piece >= 0) & (inside < ends[piece])]
        return ends - starts - np.bincount(piece, minlength=len(starts))

    @cached_property
    def wide_points(self) -> tuple[Ints, Ints]:
        """Characters beyond ASCII: where they start, and their code points."""
        at = np.flatnonzero(self.classes >= START)  # the highest bit
        return at, self._code_points(at)

    @cached_property
    def wide(self) -> tuple[Ints, npt.NDArray[np.uint8]]:
        """Characters beyond ASCII: where they start, and their classes."""
        at, points = self.wide_points
        return at, _unicode.classes()[points]

    def wide_positions(self, bits: int) -> Ints:
        """Where characters beyond ASCII of a class start."""
        if self.is_ascii:
            return np.zeros(0, np.int64)
        at, kinds = self.wide
        found: Ints = at[(kinds & np.uint8(bits)) != 0]
        return found

    def _code_points(self, at: Ints) -> Ints:
        data = self.data
        first = data[at].astype(np.int64)
        tail = (data[at + 1] & 0x3F).astype(np.int64)
        points = (first & 0x1F) << 6 | tail
        for lead, bits, size in ((0xE0, 0x0F, 3), (0xF0, 0x07, 4)):
            longer = np.flatnonzero(first >= lead)
            where, point = at[longer], first[longer] & bits
            for step in range(1, size):
                point = point << 6 | (data[where + step] & 0x3F)
            points[longer] = point
        # Arrow's strings are valid UTF-8; somebody's unchecked buffer must still not read outside the table.
        np.minimum(points, 0x10FFFF, out=points)
        return points

    def find(self, needle: bytes, *, lower: bool = False) -> Ints:
        """Where a needle of two bytes or more occurs, overlapping ones too."""
        data = self.lowered if lower else self.data
        rarity = sorted(range(len(needle)), key=lambda i: _FREQUENT.get(needle[i], 0))[:2]
        i, j = sorted(rarity)
        last = len(data) - len(needle) + 1
        at = np.flatnonzero((data[i : last + i] == needle[i]) & (data[j : last + j] == needle[j]))
        for step, byte in enumerate(needle):
            if step not in (i, j) and len(at):
                at = at[data[at + step] == byte]
        return at

    @cached_property
    def lowered(self) -> npt.NDArray[np.uint8]:
        """The bytes with ASCII letters in lower case."""
        return np.frombuffer(self.raw.lower(), np.uint8)

    # Words: what str.split() gives --------------------------------------------------------------------------------

    @cached_property
    def spaces(self) -> Bools:
        """Which bytes belong to white space, as str.split() sees it."""
        mask = self.mask(SPACE)
        if len(at := self.wide_positions(_unicode.SPACE)):
            mask[at] = mask[at + 1] = True
            mask[at[self.data[at] >= 0xE0] + 2] = True
        return mask

    @cached_property
    def words(self) -> Words:
        """Where words start and end."""
        spaces = self.spaces
        edges = np.flatnonzero(spaces[1:] != spaces[:-1]) + 1
        starts = edges[0::2]
        return Words(starts, edges[1::2], np.searchsorted(starts, self.starts), np.searchsorted(starts, self.ends))

    def word_counts(self) -> Ints:
        return self.words.last - self.words.first

    def word_chars(self) -> Ints:
        """Code points in words: all that are not white space."""
        words, sums = self.words, self.word_char_sums
        return sums[words.last] - sums[words.first]

    @cached_property
    def word_lengths(self) -> Ints:
        return self.ordered_lengths(self.words.starts, self.words.ends)

    @cached_property
    def word_char_sums(self) -> Ints:
        """Code points in all words before each word."""
        return np.concatenate(([0], np.cumsum(self.word_lengths)))

    def longest_words(self) -> Ints:
        """Length of the longest word, 0 where there is none."""
        words = self.words
        return _segments(np.maximum, self.word_lengths, words.first, words.last)

    @cached_property
    def word_rows(self) -> Ints:
        return np.repeat(np.arange(self.rows), self.word_counts())

    @cached_property
    def _eights(self) -> npt.NDArray[np.uint64]:
        # Eight bytes from every position on, without a copy.
        return np.ndarray((len(self.data) - 8,), "<u8", self.raw, 0, (1,))

    @cached_property
    def word_keys(self) -> npt.NDArray[np.uint64]:
        """The first eight bytes of each word; words of fewer are equal when their keys are."""
        words = self.words
        keys: npt.NDArray[np.uint64] = self._eights[words.starts] | _BEYOND[np.minimum(words.ends - words.starts, 8)]
        return keys

    def words_among(self, known: Iterable[str]) -> Bools:
        """Which words are one of the ``known``."""
        keys, found = self.word_keys, None
        longer: list[bytes] = []
        short: list[int] = []
        for word in known:
            encoded = word.encode()
            if len(encoded) >= 8:  # a key of eight bytes is shared with all words that begin so
                longer.append(encoded)
            elif encoded:
                short.append(_key(encoded))
        found = np.isin(keys, np.array(short, np.uint64))
        if longer:
            at = np.flatnonzero(np.isin(keys, np.array([_key(word) for word in longer], np.uint64)))
            among = set(longer)
            starts, ends = self.words.starts, self.words.ends
            for index in at.tolist():
                found[index] = self.raw[starts[index] : ends[index]] in among
        return found

    def count_words(self, chosen: Bools) -> Ints:
        """How many words of each document a mask over words marks."""
        return self._at_words(np.flatnonzero(chosen))

    def _at_words(self, indices: Ints) -> Ints:
        words = self.words
        return np.searchsorted(indices, words.last) - np.searchsorted(indices, words.first)

    def known_word_counts(self, known: tuple[str, ...]) -> Ints:
        """How many words are one of the ``known``, as they are written."""
        return self.count_words(self.words_among(known))

    def distinct_known_words(self, known: tuple[str, ...]) -> Ints:
        """How many of the ``known`` words occur."""
        long = sorted({word for word in known if len(word.encode()) >= 8})
        short = sorted(set(known).difference(long))
        at = np.flatnonzero(self.words_among(short))
        keys = np.unique(np.array([_key(word.encode()) for word in short], np.uint64))
        pairs = self.word_rows[at] * len(keys) + np.searchsorted(keys, self.word_keys[at])
        table = np.bincount(pairs, minlength=self.rows * len(keys)).reshape(self.rows, len(keys)) > 0
        counts: Ints = table.sum(axis=1)
        for word in long:
            counts += self.count_words(self.words_among([word])) > 0
        return counts

    def words_having(self, bits: int, wide_bits: int) -> Ints:
        """How many words have a character of these classes: ASCII by ``bits``, others by ``wide_bits``."""
        return self.count_words(self.having(bits, wide_bits))

    def having(self, bits: int, wide_bits: int) -> Bools:
        """Which words have such a character."""
        words = self.words
        if not len(words.starts):
            return np.zeros(0, np.bool_)
        mask = self.mask(bits)
        if len(at := self.wide_positions(wide_bits)):
            mask[at] = True
        # The first byte decides for most words.
        having = mask[words.starts]
        rest = np.flatnonzero(~having)
        bounds = np.stack((words.starts[rest], words.ends[rest]), 1).ravel()
        if len(bounds):
            having[rest] = np.logical_or.reduceat(mask, bounds)[::2]
        return having

    def symbol_words(self) -> Ints:
        """How many words are mostly ``#``, or are an ellipsis."""
        words = self.words
        among = self.words_among(ELLIPSES)
        hashes = np.flatnonzero(self.data == ord("#"))
        if len(hashes):
            # Runs of # in words that have one; a run counts once, whatever its length.
            index = np.searchsorted(words.starts, hashes, "right") - 1
            fresh = np.ones(len(hashes), np.bool_)
            fresh[1:] = hashes[1:] != hashes[:-1] + 1
            runs = np.bincount(index[fresh])
            at = np.flatnonzero(runs)
            among[at] |= runs[at] / self.word_lengths[at] > 0.5
        return self.count_words(among)

    # n-grams of words ---------------------------------------------------------------------------------------------

    def _number_words(self, chosen: Ints) -> tuple[Ints, int]:
        # Equal words get equal numbers, others do not: eight bytes at a time, each step exact.
        starts, ends = self.words.starts[chosen], self.words.ends[chosen]
        ids, size = _numbered(self.word_keys[chosen])
        sizes = ends - starts
        offset = 8
        longer = np.flatnonzero(sizes > offset)
        while len(longer) and offset < 40:
            tails = self._eights[starts[longer] + offset] | _BEYOND[np.minimum(sizes[longer] - offset, 8)]
            tail_ids, tail_size = _numbered(tails)
            pairs, pair_size = _numbered(ids[longer] * tail_size + tail_ids)
            ids[longer] = pairs + size
            size += pair_size
            offset += 8
            longer = longer[sizes[longer] > offset]
        if len(longer):
            known: dict[bytes, int] = {}
            raw = self.raw
            spans = zip(starts[longer].tolist(), ends[longer].tolist(), strict=True)
            ids[longer] = [known.setdefault(raw[a:b], size + len(known)) for a, b in spans]
            size += len(known)
        return ids, size

    def _word_sums(self) -> npt.NDArray[np.uint64]:
        # A hash of every word, equal where words are.
        starts, ends = self.words.starts, self.words.ends
        sums: npt.NDArray[np.uint64] = self.word_keys * _ODD[0]
        sizes = ends - starts
        offset = 8
        longer = np.flatnonzero(sizes > offset)
        while len(longer) and offset < 40:
            tails = self._eights[starts[longer] + offset] | _BEYOND[np.minimum(sizes[longer] - offset, 8)]
            part = sums[longer]
            sums[longer] = (part ^ part >> np.uint64(29) ^ tails) * _ODD[1]
            offset += 8
            longer = longer[sizes[longer] > offset]
        raw = self.raw
        for index, start, end in zip(longer.tolist(), starts[longer].tolist(), ends[longer].tolist(), strict=True):
            sums[index] = xxhash.xxh3_64_intdigest(raw[start:end])
        sums ^= sums >> np.uint64(29)
        return sums

    def _same_words(self, some: Ints, others: Ints) -> bool:
        # Whether words are equal, each to each.
        keys, starts, ends = self.word_keys, self.words.starts, self.words.ends
        sizes = (ends - starts)[some]
        if not (np.array_equal(keys[some], keys[others]) and np.array_equal(sizes, (ends - starts)[others])):
            return False
        offset = 8
        longer = np.flatnonzero(sizes > offset)
        while len(longer) and offset < 40:
            one, two = starts[some[longer]] + offset, starts[others[longer]] + offset
            beyond = _BEYOND[np.minimum(sizes[longer] - offset, 8)]
            if not np.array_equal(self._eights[one] | beyond, self._eights[two] | beyond):
                return False
            offset += 8
            longer = longer[sizes[longer] > offset]
        raw = self.raw
        spans = (starts[some[longer]], ends[some[longer]], starts[others[longer]], ends[others[longer]])
        return all(raw[a:b] == raw[c:d] for a, b, c, d in zip(*(span.tolist() for span in spans), strict=True))

    def _repeated_pairs(self) -> Grams:
        # Hashes find what may be equal, for a third of what it costs to number all words; then it is compared.
        rows, sums = self.word_rows, self._word_sums()
        pairs = sums[1:] * _ODD[1]
        pairs += sums[:-1]
        pairs += np.repeat(np.arange(self.rows, dtype=np.uint64) * _ODD[2], self.word_counts())[:-1]
        pairs *= _ODD[3]
        # Most pairs occur once in their document, and a table of counts by a few bits of the hash says so at once.
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
            and self._same_words(again, before)
            and self._same_words(again + 1, before + 1)
        ):
            return grams
        return self._exactly_repeated_pairs()

    def _exactly_repeated_pairs(self) -> Grams:
        # For hashes that collide, which somebody would have to contrive.
        rows = self.word_rows
        at = np.flatnonzero(rows[1:] == rows[:-1])
        ids, size = self._number_words(np.arange(len(rows)))
        return _repeated(at, (rows[at] * size + ids[at]) * size + ids[at + 1])

    @cached_property
    def _gram_levels(self) -> dict[int, Grams]:
        return {}

    def repeated_grams(self, n: int) -> Grams:
        """The n-grams that occur twice or more in their document."""
        levels = self._gram_levels
        if n not in levels:
            if n == 1:
                at = np.arange(len(self.words.starts))
                ids, size = self._number_words(at)
                levels[n] = _repeated(at, self.word_rows * size + ids)
            elif n == 2:
                levels[n] = self._repeated_pairs()
            else:
                # An n-gram is the (n-1)-grams at two neighbouring words, and is not repeated unless both are.
                below = self.repeated_grams(n - 1)
                pairs = np.flatnonzero(below.at[1:] == below.at[:-1] + 1)
                levels[n] = _repeated(below.at[pairs], below.ids[pairs] * below.size + below.ids[pairs + 1])
        return levels[n]

    def top_gram_starts(self, n: int) -> Ints:
        """The word at which the most frequent n-gram first starts (the first of several), -1 with under n words."""
        words, grams = self.words, self.repeated_grams(n)
        top = np.where(words.last - words.first >= n, words.first, -1)
        first = grams.first
        if len(first):
            counts, rows = grams.counts[grams.ids[first]], self.word_rows[grams.at[first]]
            heads = np.flatnonzero(np.diff(rows, prepend=-1))
            most = np.maximum.reduceat(counts, heads)
            best = np.flatnonzero(counts == np.repeat(most, np.diff(heads, append=len(rows))))
            best = best[np.diff(rows[best], prepend=-1) != 0]
            top[rows[best]] = grams.at[first[best]]
        return top

    def top_gram_counts(self, n: int) -> Ints:
        """How often the most frequent n-gram occurs, 0 with fewer than n words."""
        grams, top = self.repeated_grams(n), self.per_row(Block.top_gram_starts, n)
        counts = (top >= 0).astype(np.int64)
        index = np.searchsorted(grams.at, top)
        index[index == len(grams.at)] = 0
        if len(grams.at):
            hit = grams.at[index] == top
            counts[hit] = grams.counts[grams.ids[index[hit]]]
        return counts

    def top_gram_sizes(self, n: int) -> Ints:
        """Length of the most frequent n-gram, its words joined by single spaces."""
        top, sums = self.per_row(Block.top_gram_starts, n), self.word_char_sums
        sizes = np.zeros(self.rows, np.int64)
        some = np.flatnonzero(top >= 0)
        sizes[some] = sums[top[some] + n] - sums[top[some]] + (n - 1)
        return sizes

    def top_gram_removed(self, n: int) -> Ints:
        """Code points that go when every occurrence of the most frequent n-gram is cut out of the raw text."""
        top, sizes = self.per_row(Block.top_gram_starts, n), self.per_row(Block.top_gram_sizes, n)
        starts, ends, raw = self.words.starts, self.words.ends, self.raw
        some = np.flatnonzero(top >= 0)
        head, tail = top[some], top[some] + (n - 1)
        removed = np.zeros(self.rows, np.int64)
        # As bytes the words stand side by side already, unless something but one space is between them.
        plain = np.ones(len(some), np.bool_)
        for step in range(n - 1):
            plain &= (starts[head + step + 1] - ends[head + step] == 1) & (self.data[ends[head + step]] == ord(" "))
        spans = self.spans
        for row, first, start, end, direct in zip(
            some.tolist(), head.tolist(), starts[head].tolist(), ends[tail].tolist(), plain.tolist(), strict=True
        ):
            gram = raw[start:end] if direct else b" ".join(raw[starts[k] : ends[k]] for k in range(first, first + n))
            removed[row] = raw.count(gram, *spans[row])
        removed *= sizes
        return removed

    def covered_gram_chars(self, n: int) -> Ints:
        """Code points in n-grams that occurred before, each counted once, with the spaces between their words."""
        grams = self.repeated_grams(n)
        total = np.zeros(self.rows, np.int64)
        again = grams.at[grams.seen]
        if len(again):
            before = np.concatenate(([-n], again[:-1]))
            apart = again - before >= n
            start = np.where(apart, again, before + n)
            sums = self.word_char_sums
            chars = sums[again + n] - sums[start] + np.where(apart, n - 1, again + n - start)
            total += np.bincount(self.word_rows[again], chars, self.rows).astype(np.int64)
        return total

    def skipped_gram_chars(self, n: int) -> Ints:
        """Code points in repeated n-grams, reading on behind each one found: the way of the Gopher recipe."""
        grams, sums = self.repeated_grams(n), self.word_char_sums
        total = np.zeros(self.rows, np.int64)
        if not len(grams.at):
            return total
        rows = self.word_rows[grams.at]
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

    # Lines and paragraphs -----------------------------------------------------------------------------------------

    @cached_property
    def lines(self) -> Pieces:
        """The lines, which a newline separates; always one more than there are newlines."""
        newlines = np.flatnonzero(self.data == 10)
        first, last = np.searchsorted(newlines, self.starts), np.searchsorted(newlines, self.ends) + 1
        if not self.rows:
            return Pieces(first, first, first)
        ends = newlines[first[0] : last[-1]]
        return Pieces(newlines[first[0] - 1 : last[-1] - 1] + 1, ends, np.repeat(np.arange(self.rows), last - first))

    @cached_property
    def _line_words(self) -> tuple[Ints, Ints]:
        # For every line the first of its words and the first of the next line's.
        first = np.searchsorted(self.words.starts, self.lines.starts)
        after = np.empty_like(first)
        after[:-1] = first[1:]
        after[-1:] = len(self.words.starts)
        return first, after

    @cached_property
    def sentences(self) -> Sentences:
        """Lines with something in them, and where what is in them starts and ends (as str.strip() would leave it)."""
        lines, (first, after) = self.lines, self._line_words
        some = np.flatnonzero(after > first)
        words = self.words
        return Sentences(
            lines.starts[some],
            lines.ends[some],
            lines.rows[some],
            words.starts[first[some]],
            words.ends[after[some] - 1],
        )

    def count_pieces(self, pieces: Pieces, chosen: Bools | None = None) -> Ints:
        """How many lines (sentences, paragraphs) each document has, or how many of the chosen."""
        rows = pieces.rows if chosen is None else pieces.rows[chosen]
        return np.bincount(rows, minlength=self.rows)

    def line_counts(self) -> Ints:
        return self.count_pieces(self.lines)

    def sentence_counts(self) -> Ints:
        return self.count_pieces(self.sentences)

    def bullet_sentences(self) -> Ints:
        """Lines whose first character is a bullet."""
        at = self.sentences.first
        bullet = self.data[at] == 0xE2  # all bullets have three bytes and this one first
        some = np.flatnonzero(bullet)
        pairs = self.data[at[some] + 1].astype(np.int64) << 8 | self.data[at[some] + 2]
        bullet[some] = np.isin(pairs, _BULLET_TAILS)
        return self.count_pieces(self.sentences, bullet)

    def endmark_sentences(self) -> Ints:
        """Lines that end with ``. ? ! " '``."""
        return self.count_pieces(self.sentences, _ENDMARK[self.data[self.sentences.last - 1]])

    def ellipsis_sentences(self) -> Ints:
        """Lines that end with an ellipsis or with "read more"."""
        sentences, data, raw = self.sentences, self.data, self.raw
        last, before = data[sentences.last - 1], data[sentences.last - 2]
        at = np.flatnonzero(_ELLIPSIS_END[last] & _ELLIPSIS_BEFORE[before])
        chosen = np.zeros(len(last), np.bool_)
        for index in at.tolist():
            start, end = sentences.first[index], sentences.last[index]
            chosen[index] = raw[max(start, end - 16) : end].lower().endswith(_ELLIPSIS_BYTES)
        return self.count_pieces(sentences, chosen)

    def repeats(self, pieces: Pieces) -> Bools:
        """Which lines (paragraphs) occurred before in their document."""
        starts, ends, rows = pieces.starts, pieces.ends, pieces.rows
        sizes = ends - starts
        eights = self._eights
        head = eights[starts] | _BEYOND[np.minimum(sizes, 8)]
        tail, middle = eights[ends - 8], eights[starts + np.maximum(sizes // 2 - 4, 0)]
        small = np.flatnonzero(sizes < 16)
        tail[small] = head[small]
        middle[small] = eights[starts[small] + 8] | _BEYOND[np.clip(sizes[small] - 8, 0, 8)]
        # Only to tell apart cheaply what differs: lines with the same sum are then compared.
        with np.errstate(over="ignore"):
            sums = head * _ODD[0] ^ (tail + sizes.astype(np.uint64)) * _ODD[1]
            sums = (sums ^ sums >> np.uint64(29)) * _ODD[2] ^ middle * _ODD[3] ^ rows.astype(np.uint64) * _ODD[4]
        numbers, count = _numbered(sums)
        alike = np.flatnonzero((np.bincount(numbers, minlength=count) > 1)[numbers])
        again = np.zeros(len(starts), np.bool_)
        met: set[tuple[int, bytes]] = set()
        raw = self.raw
        for index, row, start, end in zip(
            alike.tolist(), rows[alike].tolist(), starts[alike].tolist(), ends[alike].tolist(), strict=True
        ):
            key = row, raw[start:end]
            if key in met:
                again[index] = True
            else:
                met.add(key)
        return again

    def sum_pieces(self, pieces: Pieces, chosen: Bools | None = None) -> Ints:
        """Code points in the lines (paragraphs) of each document, or in the chosen ones."""
        starts, ends, rows = pieces.starts, pieces.ends, pieces.rows
        if chosen is not None:
            starts, ends, rows = starts[chosen], ends[chosen], rows[chosen]
        return np.bincount(rows, self.ordered_lengths(starts, ends), self.rows).astype(np.int64)

    @cached_property
    def repeated_sentences(self) -> Bools:
        return self.repeats(self.sentences)

    def distinct_sentences(self) -> Ints:
        return self.count_pieces(self.sentences, ~self.repeated_sentences)

    def sentence_chars(self) -> Ints:
        return self.sum_pieces(self.sentences)

    def distinct_sentence_chars(self) -> Ints:
        return self.sum_pieces(self.sentences, ~self.repeated_sentences)

    @cached_property
    def paragraphs(self) -> Pieces:
        """The paragraphs, which two newlines in a row separate, empty ones too."""
        ends = self.lines.ends  # newlines, each document's last being the one behind it
        foreign = np.zeros(len(ends), np.bool_)
        if len(ends):
            foreign[np.cumsum(self.line_counts()) - 1] = True
        # Position of each newline within a run of newlines: every second one that has a follower splits.
        fresh = np.ones(len(ends), np.bool_)
        fresh[1:] = (ends[1:] != ends[:-1] + 1) | foreign[:-1]
        index = np.arange(len(ends))
        place = index - np.maximum.accumulate(np.where(fresh, index, 0))
        follows = np.zeros(len(ends), np.bool_)
        follows[:-1] = ~fresh[1:] & ~foreign[1:] & ~foreign[:-1]
        split = ends[follows & (place % 2 == 0)]
        starts = np.sort(np.concatenate((self.starts, split + 2)))
        return Pieces(starts, np.sort(np.concatenate((self.ends, split))), self.rows_of(starts))

    def paragraph_counts(self) -> Ints:
        return self.count_pieces(self.paragraphs)

    @cached_property
    def repeated_paragraphs(self) -> Bools:
        return self.repeats(self.paragraphs)

    def distinct_paragraphs(self) -> Ints:
        return self.count_pieces(self.paragraphs, ~self.repeated_paragraphs)

    def paragraph_chars(self) -> Ints:
        return self.sum_pieces(self.paragraphs)

    def distinct_paragraph_chars(self) -> Ints:
        return self.sum_pieces(self.paragraphs, ~self.repeated_paragraphs)

    def boilerplate_paragraphs(self) -> Ints:
        """Paragraphs with one of `BOILERPLATE` in them; -1 for documents with "lorem ipsum"."""
        suspects = [self.find(part, lower=True) for part in (b"cookie", b"privacy", b"terms of use", b"lorem ipsum")]
        if not self.is_ascii:
            suspects.append(self.find("\u212a".encode()))  # the Kelvin sign, whose lower case is k
        counts = np.zeros(self.rows, np.int64)
        for row in np.unique(self.rows_of(np.concatenate(suspects))).tolist():
            text = self.document(row).lower()
            if "lorem ipsum" in text:
                counts[row] = -1
            else:
                counts[row] = sum(any(part in piece for part in BOILERPLATE) for piece in text.split("\n\n"))
        return counts

    # Lines and paragraphs as the Gopher and C4 recipes see them ---------------------------------------------------

    @cached_property
    def printed_lines(self) -> Pieces:
        """What str.splitlines() gives: it knows more ends of lines than the newline, and no line after the last."""
        data = self.data
        marks = data == 10
        marks |= (data >= 11) & (data <= 13) | (data >= 28) & (data <= 30)
        at = np.flatnonzero(marks)
        at = at[(at >= self.starts[0]) & (at <= self.ends[-1])] if self.rows else at[:0]
        behind = at + 1
        if not self.is_ascii:
            points, _ = self.wide
            rare = points[(data[points] == 0xC2) & (data[points + 1] == 0x85)]
            rare3 = points[(data[points] == 0xE2) & (data[points + 1] == 0x80) & (data[points + 2] & 0xFE == 0xA8)]
            at = np.concatenate((at, rare, rare3))
            behind = np.concatenate((behind, rare + 2, rare3 + 3))
            order = np.argsort(at)
            at, behind = at[order], behind[order]
        own = np.isin(at, self.ends, invert=True)  # the newline behind a document is not the document's
        joined = np.flatnonzero((data[at[:-1]] == 13) & (data[at[1:]] == 10) & (at[1:] == at[:-1] + 1) & own[1:])
        behind[joined] += 1
        at, behind = np.delete(at, joined + 1), np.delete(behind, joined + 1)
        starts = np.concatenate((self.starts[:1], behind[:-1]))
        rows = self.rows_of(starts)
        whole = ~((starts == at) & (at == self.ends[rows])) if self.rows else np.zeros(0, np.bool_)
        return Pieces(starts[whole], at[whole], rows[whole])

    def inner_words(self, pieces: Pieces) -> tuple[Ints, Ints]:
        """For lines or paragraphs, the first of their words and the first after them."""
        words = self.words.starts
        return np.searchsorted(words, pieces.starts), np.searchsorted(words, pieces.ends)

    def between_newlines(self, at_least: int, *, strip: bool) -> Pieces:
        """What runs of this many newlines or more separate, of the text as it is or without white space around it."""
        ends = self.lines.ends
        own = np.isin(ends, self.ends, invert=True)
        newlines = ends[own]
        fresh = np.ones(len(newlines), np.bool_)
        fresh[1:] = newlines[1:] != newlines[:-1] + 1
        heads = np.flatnonzero(fresh)
        sizes = np.diff(heads, append=len(newlines))
        runs, sizes = newlines[heads[sizes >= at_least]], sizes[sizes >= at_least]
        first, last = self.starts, self.ends
        if strip:
            first, last = self.stripped
            inside = self.rows_of(runs)
            chosen = (runs > first[inside]) & (runs < last[inside])
            runs, sizes = runs[chosen], sizes[chosen]
        starts = np.sort(np.concatenate((first, runs + sizes)), kind="stable")
        return Pieces(starts, np.sort(np.concatenate((last, runs)), kind="stable"), self.rows_of(starts))

    # URLs ---------------------------------------------------------------------------------------------------------

    @cached_property
    def urls(self) -> list[tuple[int, bytes]]:
        """Document and address, for every http(s) address in the text."""
        at = self.find(b"://")
        if not len(at):
            return []
        # Where a scheme could begin; one within an address before it is a part of that.
        secure = self.data[at - 1] == ord("s")
        found = []
        behind = 0
        for row, start in zip(self.rows_of(at).tolist(), (at - 4 - secure).tolist(), strict=True):
            if start >= behind and (match := _URL.match(self.raw, start)):
                found.append((row, match.group()))
                behind = match.end()
        return found

    def url_chars(self) -> Ints:
        total = np.zeros(self.rows, np.int64)
        for row, url in self.urls:
            total[row] += len(url)
        return total


@dataclass(frozen=True, slots=True)
class Words:
    """Where words start and end, and which of them (first to before last) are each document's."""

    starts: Ints
    ends: Ints
    first: Ints
    last: Ints


@dataclass(frozen=True, slots=True)
class Pieces:
    """Where lines or paragraphs start and end, and the document each belongs to."""

    starts: Ints
    ends: Ints
    rows: Ints


@dataclass(frozen=True, slots=True)
class Sentences(Pieces):
    """Lines that are not blank; `first` and `last` bound what is in them, without white space around it."""

    first: Ints
    last: Ints


class Grams:
    """Repeated n-grams: the words they start at, in order, their numbers, and how often each number occurs."""

    def __init__(self, at: Ints, ids: Ints, counts: Ints) -> None:
        self.at, self.ids, self.counts, self.size = at, ids, counts, max(len(counts), 1)

    @cached_property
    def first(self) -> Ints:
        """Indices of the first occurrence of each, in order."""
        return np.flatnonzero(~self.seen)

    @cached_property
    def seen(self) -> Bools:
        """Which ones occurred before. Numbers are given in order of occurrence, so a new one exceeds all before it."""
        seen = np.ones(len(self.ids), np.bool_)
        if len(self.ids):
            highest = np.maximum.accumulate(self.ids)
            seen[0] = False
            seen[1:] = highest[1:] == highest[:-1]
        return seen


class TextFeatures:
    """The documents of a column, and what has been computed about them so far.

    It follows a batch through filters: see `curator_core.model.task.Derived`. Null counts as the empty text.
    """

    def __init__(self, blocks: list[Block], alive: list[Ints | None]) -> None:
        self._blocks, self._alive = blocks, alive

    @classmethod
    def of(cls, values: Sequence[str | None] | pa.Array | pa.ChunkedArray) -> TextFeatures:
        """Features of a list or an Arrow array of strings."""
        if isinstance(values, str):
            raise UsageError("text filters score a list of texts, so put a single one in brackets: score([text])")
        if not isinstance(values, pa.Array | pa.ChunkedArray):
            try:
                values = array(values, pa.large_string())
            except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
                raise UsageError(f"text filters score texts, and these are not all of them text: {error}") from error
        chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
        blocks = [block for chunk in chunks for block in _blocks(chunk)]
        return cls(blocks, [None] * len(blocks))

    def __len__(self) -> int:
        return sum(
            block.rows if alive is None else len(alive) for block, alive in zip(self._blocks, self._alive, strict=True)
        )

    def per_row(self, method: Measure, *args: Hashable) -> npt.NDArray[Any]:
        """A method of `Block`, or a function of a block, for every document; the result is remembered."""
        parts = [
            block.per_row(method, *args) if alive is None else block.per_row(method, *args)[alive]
            for block, alive in zip(self._blocks, self._alive, strict=True)
        ]
        if not parts:
            return method(Block([]), *args)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def texts(self) -> Iterator[str]:
        """The documents as strings, for rules of one document at a time."""
        for block, alive in zip(self._blocks, self._alive, strict=True):
            for row in range(block.rows) if alive is None else alive.tolist():
                yield block.document(row)

    def filter(self, mask: pa.BooleanArray | Bools) -> TextFeatures:
        """The features of the documents that ``mask`` keeps; what was computed stays computed."""
        keep = np.asarray(to_numpy(mask) if isinstance(mask, pa.Array) else mask, np.bool_)
        blocks: list[Block] = []
        rest: list[Ints | None] = []
        done = 0
        for block, alive in zip(self._blocks, self._alive, strict=True):
            rows = np.arange(block.rows) if alive is None else alive
            chosen = keep[done : done + len(rows)]
            done += len(rows)
            if chosen.all():
                blocks.append(block)
                rest.append(alive)
                continue
            rows = rows[chosen]
            if len(rows):
                small = _compacted(block, rows)
                blocks.append(small or block)
                rest.append(None if small else rows)
        return TextFeatures(blocks, rest)


def features_of(batch: DocumentBatch, column: str) -> TextFeatures:
    """The features of a batch's column: those that another filter has begun to compute, or new ones."""
    key = f"text:{column}"
    known = batch._derived.get(key)
    if isinstance(known, TextFeatures):
        return known
    made = TextFeatures.of(column_of(batch.to_pyarrow(), column))
    batch._derived[key] = made
    return made


# The marks that the filters of NeMo Curator and of C4 look for.
ELLIPSES = ("...", "[...]", "…", "(...)", "[…]", "-»")
BULLETS = "•‣⁃⁌⁍∙○●◘◦⦾⦿"  # noqa: RUF001
BOILERPLATE = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "privacy overview",
    "use of cookies",
    "use cookies",
    "privacy & cookies policy",
    "privacy and cookies policy",
    "necessary cookies are absolutely essential for the website to function properly. this category only includes "
    "cookies that ensures basic functionalities and security features of the website. these cookies do not store any "
    "personal information.",
    "any cookies that may not be particularly necessary for the website to function and is used specifically to "
    "collect user personal data via analytics, ads, other embedded contents are termed as non-necessary cookies. it "
    "is mandatory to procure user consent prior to running these cookies on your website.",
    "if you continue to browse this site without changing your cookie settings, you agree to this use. acceptread more",
)
_ELLIPSIS_BYTES = tuple(mark.encode() for mark in (*ELLIPSES, "read more..", "read more"))
_BULLET_TAILS = np.array([int.from_bytes(mark.encode()[1:], "big") for mark in BULLETS])


def _key(word: bytes) -> int:
    """The first eight bytes as `Block.word_keys` has them."""
    return int.from_bytes(word[:8].ljust(8, b"\xff"), "little")


def _table(members: bytes) -> Bools:
    table = np.zeros(256, np.bool_)
    table[list(members)] = True
    return table


_ENDMARK = _table(b".?!\"'")
# The last byte of a line that ends with an ellipsis, and the byte before it.
_ELLIPSIS_END = _table(bytes({mark[-1] for mark in _ELLIPSIS_BYTES} | {ord("E")}))
_ELLIPSIS_BEFORE = _table(bytes({mark[-2] for mark in _ELLIPSIS_BYTES} | {ord("R")}))
_ODD = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93, 0xFF51AFD7ED558CCD], np.uint64
)
# Letters of English text by how often they occur: a search begins at the rarest of its needle.
_FREQUENT = {byte: rank for rank, byte in enumerate(b"zqxjkv:/bpgwymufcldrhsnioate ", start=1)}


def _repeated(at: Ints, keys: npt.NDArray[Any]) -> Grams:
    """Those of the n-grams at these words whose key occurs twice or more."""
    numbers, count = _numbered(keys)
    counts = np.bincount(numbers, minlength=count)
    chosen = np.flatnonzero(counts[numbers] > 1)
    return Grams(at[chosen], numbers[chosen], counts)


def _numbered(keys: npt.NDArray[Any]) -> tuple[Ints, int]:
    """A number for every key, equal where keys are, in order of first occurrence; and how many there are."""
    encoded = array(keys).dictionary_encode()
    return to_numpy(encoded.indices).astype(np.int64), len(encoded.dictionary)


def _segments(reduce: np.ufunc, values: Ints, first: Ints, last: Ints) -> Ints:
    """A reduction over values[first:last] for each pair, 0 where that is empty. Pairs follow one another."""
    result = np.zeros(len(first), np.int64)
    some = np.flatnonzero(last > first)
    if len(some):
        result[some] = reduce.reduceat(values, first[some])
    return result


def _blocks(values: pa.Array) -> Iterator[Block]:
    kind = values.type
    if pa.types.is_null(kind):
        values = values.cast(pa.large_string())
    elif pa.types.is_dictionary(kind):
        values = values.cast(kind.value_type)
    if pa.types.is_string_view(values.type):
        values = values.cast(pa.large_string())
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        raise UsageError(f"text filters read a column of strings, not of {kind}: cast it first")
    if not len(values):
        return
    wide = pa.types.is_large_string(values.type)
    _, offsets, content = values.buffers()
    bounds = np.frombuffer(offsets, np.int64 if wide else np.int32, len(values) + 1, values.offset * (8 if wide else 4))
    memory = memoryview(content) if content is not None else memoryview(b"")
    starts, ends = bounds[:-1].tolist(), bounds[1:].tolist()
    if values.null_count:
        # A null may have bytes under it; it counts as empty.
        valid = to_numpy(values.is_valid())
        ends = np.where(valid, bounds[1:], bounds[:-1]).tolist()
    done = 0
    while done < len(values):
        stop = int(np.searchsorted(bounds, int(bounds[done]) + BLOCK_BYTES))
        stop = min(max(stop, done + 1), len(values), done + 20_000)
        yield Block([memory[a:b] for a, b in zip(starts[done:stop], ends[done:stop], strict=True)])
        done = stop


def _compacted(block: Block, rows: Ints) -> Block | None:
    """A block of these rows alone, where too much of the old one is dead to be worth computing on."""
    if block.byte_counts()[rows].sum() > 0.7 * len(block.raw):
        return None
    spans, raw = block.spans, memoryview(block.raw)
    small = Block([raw[a:b] for a, b in (spans[row] for row in rows.tolist())])
    small._memo = {key: value[rows] for key, value in block._memo.items() if key[0] is not Block.top_gram_starts}
    return small
