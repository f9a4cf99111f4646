"""Stores the n-grams of test sets as arrays, and finds them in documents.

A text of a test set is split into all of its n-grams: runs of ``words`` words, where a character of a script without
spaces counts as three fifths of a word. A shorter text is a single n-gram if it has ``min_words``; even shorter texts
are ignored. A 64-bit number for each run of words finds candidates, and comparing the words themselves confirms them.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curator_core.arrow.arrays import array, distinct, to_numpy
from curator_core.errors import UsageError
from curator_core.formatting import size
from curator_text.decontaminate.test_sets import Item, TestSet, items_of
from curator_text.dedup.places import Places, joined_words, places_of
from curator_text.dedup.words import Bools, Hashes, Ints, Words, blocks_of, spans_of, word_numbers

# The weight of a word, and of a character of a script without spaces.
WORD, CHARACTER = 5, 3
# The memory in bytes for a word of a test set while the index is made: its text, the number and place of its n-gram,
# and sorting.
_BYTES_PER_WORD = 120
_CHUNK_BYTES = 1 << 19
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 1 << 64)
_POWERS_KEPT = 1 << 20
# The number of filter places for each key of the index, and the binary logarithm of the largest filter.
_FILTER_ROOM, _FILTER_BITS = 16, 26


@dataclass(frozen=True, slots=True)
class Hits:
    """The n-grams of test sets in one document: ``grams[i]`` matches its words from ``first[i]`` up to, but excluding,
    ``last[i]``.
    """

    row: int
    text: str
    places: Places
    grams: Ints
    first: Ints
    last: Ints


@dataclass(frozen=True, slots=True)
class _Keys:
    """The numbers by which n-grams are found, sorted, with their n-grams and a table of their highest bits."""

    numbers: Hashes
    grams: Ints
    shift: np.uint64
    table: Bools

    @classmethod
    def of(cls, numbers: Hashes, grams: Ints) -> _Keys:
        order = np.lexsort((grams, numbers))
        bits = min(_FILTER_BITS, max(10, (len(numbers) * _FILTER_ROOM).bit_length()))
        shift = np.uint64(64 - bits)
        table = np.zeros(1 << bits, np.bool_)
        table[(numbers >> shift).astype(np.int64)] = True
        return cls(numbers[order], grams[order], shift, table)

    def find(self, numbers: Hashes) -> tuple[Ints, Ints]:
        """Pairs of a position in ``numbers`` and a candidate n-gram."""
        near = np.flatnonzero(self.table[(numbers >> self.shift).astype(np.int64)])
        left = np.searchsorted(self.numbers, numbers[near], "left")
        sizes = np.searchsorted(self.numbers, numbers[near], "right") - left
        return np.repeat(near, sizes), self.grams[_ranges(left, sizes)]


@dataclass(frozen=True, eq=False)
class TestIndex:
    """The n-grams of test sets; `index_of` makes it.

    The words of all texts form one sequence. N-gram g has ``lengths[g]`` words, and begins at each word in
    ``occurrences[occurs[g]:occurs[g + 1]]``. N-grams are numbered in the order of their first occurrence, so the same
    test sets give the same numbers.
    """

    __test__ = False  # pytest must not collect this class

    words: int
    min_words: int
    test_sets: tuple[str, ...]
    items: tuple[str, ...]  # their ids
    set_of: Ints  # the test set of each item
    item_words: Ints  # how many words of each item are in n-grams
    text_items: Ints  # the item of each text
    text_starts: Ints  # the first word of each text
    folded: bytes = field(repr=False)  # as in `Places`
    begins: Ints = field(repr=False)
    lengths: Ints = field(repr=False)
    occurs: Ints = field(repr=False)
    occurrences: Ints = field(repr=False)
    whole: _Keys = field(repr=False)  # keys of the n-grams of `words` words
    short: _Keys = field(repr=False)  # keys of the first `min_words` words of shorter n-grams

    def __len__(self) -> int:
        """The number of n-grams."""
        return len(self.lengths)

    @cached_property
    def fingerprint(self) -> str:
        """A text that differs if the test sets or the n-grams differ."""
        names = repr((self.words, self.min_words, self.test_sets, self.items))
        digest = hashlib.sha256(names.encode("utf-8", "replace"))
        for part in (self.folded, self.text_starts, self.text_items, self.set_of):
            digest.update(hashlib.sha256(part).digest())
        return digest.hexdigest()[:32]

    def items_at(self, words: Ints) -> Ints:
        """The items to which these words belong."""
        return self.text_items[np.searchsorted(self.text_starts, words, "right") - 1]

    def ngrams_of(self, test_set: int) -> Ints:
        """The n-grams that occur in a test set."""
        inside = self.set_of[self.items_at(self.occurrences)] == test_set
        return distinct(np.repeat(np.arange(len(self)), np.diff(self.occurs))[inside])

    def find(self, texts: pa.Array | pa.ChunkedArray) -> Iterator[Hits]:
        """The documents that contain n-grams of the index, in order."""
        before = 0
        for documents in blocks_of(texts):
            words = word_numbers(spans_of(documents))
            at, grams = self._candidates(words)
            rows = np.searchsorted(words.offsets, at, "right") - 1
            ends = at + self.lengths[grams]
            inside = ends <= words.offsets[rows + 1]
            rows, at, ends, grams = rows[inside], at[inside], ends[inside], grams[inside]
            edges = np.flatnonzero(np.diff(rows, prepend=-1, append=-1)).tolist()
            for start, stop in itertools.pairwise(edges):
                row = int(rows[start])
                begin = words.offsets[row]
                first, last = at[start:stop] - begin, ends[start:stop] - begin
                text = str(documents[row], "utf-8", "replace")
                hits = self._verified(before + row, text, first, last, grams[start:stop])
                if len(hits.grams):
                    yield hits
            before += len(documents)

    def _candidates(self, words: Words) -> tuple[Ints, Ints]:
        """The positions at which n-grams may begin, in order, and these n-grams."""
        runs = Runs(words)
        found = []
        for length, keys in ((self.words, self.whole), (self.min_words, self.short)):
            if len(keys.numbers):
                first, last = runs.of(length)
                at, grams = keys.find(runs.numbers(first, last))
                found.append((first[at], grams))
        none = np.zeros(0, np.int64)
        at, grams = (np.concatenate([none, *parts]) for parts in zip(*found, strict=True)) if found else (none, none)
        order = np.lexsort((grams, at))
        return at[order], grams[order]

    def _verified(self, row: int, text: str, first: Ints, last: Ints, grams: Ints) -> Hits:
        """The candidates whose words are the same."""
        places = places_of(text)
        begins = self.occurrences[self.occurs[grams]]
        spans = zip(first.tolist(), last.tolist(), begins.tolist(), strict=True)
        same = np.fromiter(
            (places.between(a, b) == self._words(c, c + b - a) for a, b, c in spans), np.bool_, len(grams)
        )
        return Hits(row, text, places, grams[same], first[same], last[same])

    def _words(self, first: int, last: int) -> bytes:
        return self.folded[self.begins[first] : self.begins[last]]


class Runs:
    """Runs of words of equal weight, and their numbers."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._ends = np.repeat(words.offsets[1:], words.counts)

    def of(self, length: int) -> tuple[Ints, Ints]:
        """The begin and end of each run with the weight of ``length`` words; runs that would extend beyond the end of a
        text are left out.
        """
        count = len(self._words.hashes)
        if self._words.spaceless is None:
            last = np.arange(length, count + length)
        else:
            # Each run is just long enough to reach the whole weight.
            before = np.concatenate(([0], np.cumsum(np.where(self._words.spaceless, CHARACTER, WORD))))
            last = np.searchsorted(before, before[:-1] + length * WORD)
        first = np.flatnonzero(last <= self._ends)
        return first, last[first]

    def numbers(self, first: Ints, last: Ints) -> Hashes:
        """The numbers of runs: sums over the words' numbers, weighted with powers of a base, modulo 2^64."""
        _, inverse = _powers(len(self._words.hashes))
        numbers: Hashes = (self._sums[last] - self._sums[first]) * inverse[first]
        return numbers

    @cached_property
    def _sums(self) -> Hashes:
        sums = np.zeros(len(self._words.hashes) + 1, np.uint64)
        np.cumsum(self._words.hashes * _powers(len(self._words.hashes))[0], out=sums[1:])
        return sums


def _powers(count: int) -> tuple[Hashes, Hashes]:
    """The powers of the base and of its inverse."""
    if count > _POWERS_KEPT:
        return _raised(_BASE, count), _raised(_INVERSE, count)
    forth, back = _kept_powers(1 << max(10, (count - 1).bit_length()))
    return forth[:count], back[:count]


@functools.lru_cache(2)
def _kept_powers(count: int) -> tuple[Hashes, Hashes]:
    return _raised(_BASE, count), _raised(_INVERSE, count)


def _raised(base: int, count: int) -> Hashes:
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _ranges(starts: Ints, sizes: Ints) -> Ints:
    """For each start, as many consecutive numbers as the corresponding size."""
    return np.repeat(starts - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))


# Making it ---------------------------------------------------------------------------------------------------------


def index_of(test_sets: Sequence[TestSet], words: int, min_words: int, memory: int) -> TestIndex:
    """The index of the n-grams of these test sets, read from their files; raises if it needs more than ``memory``."""
    building = _Building(words, min_words)
    for number, test_set in enumerate(test_sets):
        for item in items_of(test_set):
            building.add(number, item)
            if building.word_count * _BYTES_PER_WORD > memory:
                raise UsageError(
                    f"the test sets are too large: an index of their first {building.word_count:,} words takes "
                    f"{size(memory)}, and that does not cover all of test set {test_set.name!r}. Name fewer fields, "
                    "or raise memory"
                )
    return building.index(tuple(test_set.name for test_set in test_sets))


@dataclass
class _Building:
    """An index under construction, to which texts are added."""

    words: int
    min_words: int
    word_count: int = 0
    ids: list[str] = field(default_factory=list)
    sets: list[int] = field(default_factory=list)
    text_items: list[int] = field(default_factory=list)
    text_starts: list[Ints] = field(default_factory=list)
    folded: list[bytes] = field(default_factory=list)
    begins: list[Ints] = field(default_factory=list)
    # For each n-gram: the number by which it is found, the number of all its words, its first word and its length.
    # ``whole`` has the n-grams of full length, ``short`` the shorter ones.
    whole: list[tuple[Hashes, Hashes, Ints, Ints]] = field(default_factory=list)
    short: list[tuple[Hashes, Hashes, Ints, Ints]] = field(default_factory=list)
    _waiting: list[bytes] = field(default_factory=list)
    _size: int = 0
    _bytes: int = 0

    def add(self, test_set: int, item: Item) -> None:
        for text in item.texts:
            self.text_items.append(len(self.ids))
            self._waiting.append(text.encode("utf-8", "replace"))
            self._size += len(self._waiting[-1])
        self.ids.append(item.id)
        self.sets.append(test_set)
        if self._size >= _CHUNK_BYTES or len(self._waiting) >= 20_000:
            self._digest()

    def _digest(self) -> None:
        """Add the words and n-grams of the waiting texts to the index."""
        spans = spans_of([memoryview(text) for text in self._waiting])
        words = word_numbers(spans)
        folded, begins = joined_words(spans)
        self.text_starts.append(words.offsets[:-1] + self.word_count)
        self.folded.append(folded)
        self.begins.append(begins[:-1] + self._bytes)
        runs = Runs(words)
        first, last = runs.of(self.words)
        numbers = runs.numbers(first, last)
        self.whole.append((numbers, numbers, first + self.word_count, last - first))
        # A text that is too short for a full n-gram is itself an n-gram if it has at least `min_words` words.
        starts, ends = runs.of(self.min_words)
        heads = words.offsets[:-1]
        has_whole = np.isin(heads, first)
        at = np.searchsorted(starts, heads)
        begun = (at < len(starts)) & (words.counts > 0)
        begun[begun] = starts[at[begun]] == heads[begun]
        some = np.flatnonzero(begun & ~has_whole)
        head, tail = heads[some], words.offsets[1:][some]
        self.short.append(
            (runs.numbers(head, ends[at[some]]), runs.numbers(head, tail), head + self.word_count, tail - head)
        )
        self.word_count += len(words.hashes)
        self._bytes += len(folded)
        self._waiting, self._size = [], 0

    def index(self, names: tuple[str, ...]) -> TestIndex:
        self._digest()
        begins = np.concatenate([*self.begins, np.array([self._bytes])])
        folded = b"".join(self.folded)
        same = _word_ids(folded, begins)
        whole, short = (_Grouped.of(_joined(parts), same) for parts in (self.whole, self.short))
        # Number the n-grams in the order of their first occurrence.
        heads = np.concatenate((whole.first[whole.heads], short.first[short.heads]))
        order = np.argsort(heads, kind="stable")
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        grams = np.concatenate((rank[whole.group], rank[len(whole.heads) + short.group]))
        first = np.concatenate((whole.first, short.first))
        sizes = np.concatenate((whole.length, short.length))
        by_gram = np.lexsort((first, grams))
        lengths = np.concatenate((whole.length[whole.heads], short.length[short.heads]))[order]
        text_starts = np.concatenate(self.text_starts)
        text_items = np.array(self.text_items, np.int64)
        return TestIndex(
            words=self.words,
            min_words=self.min_words,
            test_sets=names,
            items=tuple(self.ids),
            set_of=np.array(self.sets, np.int64),
            item_words=self._item_words(first, sizes, text_items, text_starts),
            text_items=text_items,
            text_starts=text_starts,
            folded=folded,
            begins=begins,
            lengths=lengths,
            occurs=np.searchsorted(grams[by_gram], np.arange(len(lengths) + 1)),
            occurrences=first[by_gram],
            whole=_Keys.of(whole.key[whole.heads], rank[: len(whole.heads)]),
            short=_Keys.of(short.key[short.heads], rank[len(whole.heads) :]),
        )

    def _item_words(self, first: Ints, sizes: Ints, text_items: Ints, text_starts: Ints) -> Ints:
        change = np.bincount(first, minlength=self.word_count + 1) - np.bincount(
            first + sizes, minlength=self.word_count + 1
        )
        covered = np.concatenate(([0], np.cumsum(np.cumsum(change[:-1]) > 0)))
        per_text = np.diff(covered[np.append(text_starts, self.word_count)])
        made: Ints = np.bincount(text_items, per_text, minlength=len(self.ids)).astype(np.int64)
        return made


@dataclass(frozen=True, slots=True)
class _Grouped:
    """N-grams grouped by their words; ``heads`` are the positions of the first n-gram of each group."""

    key: Hashes
    first: Ints
    length: Ints
    group: Ints
    heads: Ints

    @classmethod
    def of(cls, grams: tuple[Hashes, Hashes, Ints, Ints], words: npt.NDArray[np.int32]) -> _Grouped:
        key, number, first, length = grams
        order = np.lexsort((first, number, key))
        key, number, first, length = key[order], number[order], first[order], length[order]
        same = (key[1:] == key[:-1]) & (number[1:] == number[:-1]) & (length[1:] == length[:-1])
        for step in range(int(length.max(initial=0))):
            at = np.flatnonzero(same & (length[1:] > step))
            same[at] = words[first[at] + step] == words[first[at + 1] + step]
        new = np.concatenate((np.ones(min(1, len(first)), np.bool_), ~same)) if len(first) else np.zeros(0, np.bool_)
        return cls(key, first, length, np.cumsum(new) - 1, np.flatnonzero(new))


def _joined(parts: list[tuple[Hashes, Hashes, Ints, Ints]]) -> tuple[Hashes, Hashes, Ints, Ints]:
    key, number, first, length = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return key, number, first, length


def _word_ids(folded: bytes, begins: Ints) -> npt.NDArray[np.int32]:
    """A number for each word; equal words have equal numbers."""
    buffers = [None, pa.py_buffer(np.ascontiguousarray(begins, np.int64)), pa.py_buffer(folded)]
    words = pa.Array.from_buffers(pa.large_binary(), len(begins) - 1, buffers)
    ids: npt.NDArray[np.int32] = to_numpy(words.dictionary_encode().indices)
    return ids


def counted(grams: Ints, total: int) -> pa.Table:
    """How often each n-gram occurs in a list, as a table of ``gram`` and ``documents``."""
    counts = np.bincount(grams, minlength=total)
    some = np.flatnonzero(counts)
    return pa.table({"gram": array(some), "documents": array(counts[some])})
