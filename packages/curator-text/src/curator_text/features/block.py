"""Stores documents in one sequence of bytes, and measures their characters."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from curator_core.arrow.arrays import array, to_numpy
from curator_text import _unicode

# A function or method of a block, with its other arguments, that returns a value for each document.
Measure = Callable[..., npt.NDArray[Any]]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Newlines before the first document and after the last, so that eight bytes can be read on either side of a word.
_MARGIN = 32

# Classes of bytes, as bits. A byte of a non-ASCII character is only START or CONT.
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


class Block:
    """Documents in one sequence of bytes; positions are offsets into `data`. Every method returns one value for each
    document, in order.
    """

    def __init__(self, documents: Sequence[bytes | memoryview]) -> None:
        margin = b"\n" * _MARGIN
        self.raw = b"".join((margin, b"\n".join(documents), margin))
        self.data = np.frombuffer(self.raw, np.uint8)
        lengths = np.fromiter(map(len, documents), np.int64, len(documents))
        self.ends: Ints = np.cumsum(lengths + 1) + (_MARGIN - 1)
        self.starts: Ints = self.ends - lengths
        self.rows = len(documents)
        # Results of functions that do not return one value for each document: see `once`.
        self.shared: dict[Callable[..., Any], Any] = {}
        self._memo: dict[tuple[Measure, tuple[Hashable, ...]], npt.NDArray[Any]] = {}

    def per_row(self, method: Measure, *args: Hashable) -> npt.NDArray[Any]:
        """The cached result of a method."""
        key = (method, args)
        if key not in self._memo:
            self._memo[key] = method(self, *args)
        return self._memo[key]

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """Start and end of every document."""
        return list(zip(self.starts.tolist(), self.ends.tolist(), strict=True))

    def document(self, row: int) -> str:
        """The text of one document, for rules that are easier to write in Python."""
        start, end = self.spans[row]
        return self.raw[start:end].decode(errors="replace")

    @cached_property
    def is_ascii(self) -> bool:
        return self.raw.isascii()

    @cached_property
    def classes(self) -> npt.NDArray[np.uint8]:
        """The classes of every byte."""
        return np.frombuffer(self.raw.translate(_CLASSES), np.uint8)

    def mask(self, bits: int) -> Bools:
        """Which bytes belong to a class."""
        marked: Bools = (self.classes & np.uint8(bits)) != 0
        return marked

    def count(self, mask: Bools) -> Ints:
        """How many bytes of each document a mask marks."""
        return self.count_between(mask, self.starts, self.ends)

    def count_between(self, mask: Bools, first: Ints, last: Ints) -> Ints:
        """How many bytes a mask marks in each of these spans, which are in order and do not overlap."""
        if len(self.raw) > 400 * self.rows:
            # count_nonzero reads 20 bytes per nanosecond, so only the number of calls matters.
            counted = np.count_nonzero
            spans = zip(first.tolist(), last.tolist(), strict=True)
            return np.fromiter((counted(mask[a:b]) for a, b in spans), np.int64, len(first))
        if not len(first):
            return np.zeros(0, np.int64)
        bounds = np.stack((first, last), 1).ravel()
        return np.where(first < last, np.add.reduceat(mask, bounds, dtype=np.int64)[::2], 0)

    def count_at(self, positions: Ints) -> Ints:
        """How many of these sorted positions are in each document."""
        return np.searchsorted(positions, self.ends) - np.searchsorted(positions, self.starts)

    def rows_of(self, positions: Ints) -> Ints:
        """The document of each position."""
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

    def byte_occurrences(self, byte: int) -> Ints:
        """How often an ASCII character occurs."""
        return self.count_at(np.flatnonzero(self.data == byte))

    @cached_property
    def chars_before(self) -> npt.NDArray[np.int32]:
        """For every position, the number of continuation bytes before it."""
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
        """Lengths in code points of pieces that come in order and do not overlap; faster if most text is ASCII."""
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
        """The positions and code points of non-ASCII characters."""
        at = np.flatnonzero(self.classes >= START)  # the highest bit
        return at, self.code_points(at)

    @cached_property
    def wide(self) -> tuple[Ints, npt.NDArray[np.uint8]]:
        """The positions and classes of non-ASCII characters."""
        at, points = self.wide_points
        return at, _unicode.classes()[points]

    def wide_positions(self, bits: int) -> Ints:
        """The positions of non-ASCII characters of a class."""
        if self.is_ascii:
            return np.zeros(0, np.int64)
        at, kinds = self.wide
        found: Ints = at[(kinds & np.uint8(bits)) != 0]
        return found

    def code_points(self, at: Ints) -> Ints:
        """The code points of the non-ASCII characters at these positions."""
        fours = np.ndarray((len(self.data) - 4,), "<u4", self.raw, 0, (1,))[at]
        second = fours >> 8 & 0x3F
        points = np.where(
            fours & 0xFF < 0xE0, (fours & 0x1F) << 6 | second, (fours & 0x0F) << 12 | second << 6 | (fours >> 16 & 0x3F)
        ).astype(np.int64)
        if len(longer := np.flatnonzero(fours & 0xFF >= 0xF0)):
            four = fours[longer]
            points[longer] = (
                (four & 0x07) << 18 | (four >> 8 & 0x3F) << 12 | (four >> 16 & 0x3F) << 6 | (four >> 24 & 0x3F)
            )
        # Arrow's strings are valid UTF-8, but even an unchecked buffer must not cause reads outside the table.
        np.minimum(points, 0x10FFFF, out=points)
        return points

    def find(self, needle: bytes, *, lower: bool = False) -> Ints:
        """The positions of a needle of two bytes or more, including overlapping occurrences."""
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

    @cached_property
    def eights(self) -> npt.NDArray[np.uint64]:
        # The eight bytes that begin at every position, without a copy.
        return np.ndarray((len(self.data) - 8,), "<u8", self.raw, 0, (1,))


def once[T](function: Callable[[Block], T]) -> Callable[[Block], T]:
    """Cache the result of a function of a block."""

    @functools.wraps(function)
    def remembered(block: Block) -> T:
        if function not in block.shared:
            block.shared[function] = function(block)
        found: T = block.shared[function]
        return found

    return remembered


def numbered(keys: npt.NDArray[Any]) -> tuple[Ints, int]:
    """A number for every key, equal for equal keys and in order of first occurrence, and the count of numbers."""
    encoded = array(keys).dictionary_encode()
    return to_numpy(encoded.indices).astype(np.int64), len(encoded.dictionary)


ODD = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93, 0xFF51AFD7ED558CCD], np.uint64
)
# Letters of English text by frequency, rarest first: a search begins with the rarest letter of its needle.
_FREQUENT = {byte: rank for rank, byte in enumerate(b"zqxjkv:/bpgwymufcldrhsnioate ", start=1)}
