"""Computes numbers for the words of a text and for its shingles, the runs of words by which texts are compared.

Both kinds of numbers have 64 bits and depend only on the text, so they can be stored and compared for years.

A *word* is a run of letters, their marks, and digits of the folded text (`characters.fold`). In scripts without spaces
between words, every character with its marks is a word. A *shingle* is a run of three words, or of five such
characters. If texts are split into characters instead, every character with its marks is a unit in all scripts, and a
shingle is a run of these units, across the gaps between words. In a text that mixes both, a word counts as a third and
a character as a fifth, and a shingle extends from its first word until these add up to one; the last shingle extends to
the end of the text. A text that is too short for that is one shingle, and a text without words has none. So every word
is in at least one shingle.

The number of a word is computed from its folded UTF-8, eight bytes at a time, with the first byte lowest and zeros
after the end: ``h = part * A``, ``h ^= h >> 32``, and for each further part ``h = (h ^ part) * B``, ``h ^= h >> 29``,
then ``h *= C`` and ``h ^= h >> 32``. Different words of eight bytes or fewer never share a number. For words of more
than 40 bytes, the number is the XXH3-64 of the bytes. The number of a shingle is ``h = h * D + word`` over its words,
beginning at 0, then ``h ^= h >> 32``, ``h *= E``, ``h ^= h >> 29``. All arithmetic is modulo 2^64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from curator_core.arrow.arrays import to_numpy
from curator_core.errors import UsageError, check_whole
from curator_text.dedup import characters
from curator_text.dedup.characters import FOLD, MARK, REWRITE, SPACELESS, WORD
from curator_text.features.block import Block

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Kind = Literal["words", "characters"]

WORDS_IN_SHINGLE = 3
CHARACTERS_IN_SHINGLE = 5
# The length of a shingle of characters, in all scripts: about three words of a European language. Two long unrelated
# texts would share many shorter runs.
LETTERS_IN_SHINGLE = 13
# How much text is processed at once, so that intermediate results stay in the cache.
BLOCK_BYTES = 1 << 18

A, B, C, D, E = (
    np.uint64(number)
    for number in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93, 0x8CB92BA72F3D8DD7, 0xFF51AFD7ED558CCD)
)
_8, _29, _32 = np.uint64(8), np.uint64(29), np.uint64(32)
_LONGEST = 40
# ASCII: lower-case letters and digits stay as they are, and everything else is a gap. `_wide` handles bytes of other
# characters.
_FOLDED = bytes(ord(chr(byte).lower()) if byte >= 0x80 or chr(byte).isalnum() else 0 for byte in range(0x80)) + bytes(
    range(0x80, 0x100)
)
# Masks of the bytes that belong to the word, by their number.
_OWN = np.array([(1 << 8 * length) - 1 for length in range(9)], np.uint64)


@dataclass(frozen=True, slots=True)
class Words:
    """The words or characters of many texts in order: text i has ``hashes[offsets[i]:offsets[i + 1]]``.

    For words, ``marks`` says which are characters of scripts without spaces (`spaceless`); for characters, it says
    which belong to the same word as the one before (`joins`). It is None if nothing is marked.
    """

    hashes: Hashes
    offsets: Ints
    marks: Bools | None = None
    kind: Kind = "words"

    @property
    def spaceless(self) -> Bools | None:
        return self.marks if self.kind == "words" else None

    @property
    def joins(self) -> Bools | None:
        return self.marks if self.kind == "characters" else None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> Ints:
        return np.diff(self.offsets)


@dataclass(frozen=True, slots=True)
class Shingles:
    """The shingles of many texts in order: text i has ``hashes[offsets[i]:offsets[i + 1]]``, with repetitions.

    Shingle k consists of the words from ``first[k]`` up to, but excluding, ``last[k]`` among the words of all texts.
    """

    hashes: Hashes
    offsets: Ints
    first: Ints
    last: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> Ints:
        return np.diff(self.offsets)


@dataclass(frozen=True, slots=True)
class Spans:
    """The places of words or characters in the texts of a block: ``data`` is folded UTF-8, and text i has words
    first[i] to before last[i]. ``marks`` are those of `Words`.
    """

    data: npt.NDArray[np.uint8]
    starts: Ints
    ends: Ints
    marks: Bools | None
    first: Ints
    last: Ints
    kind: Kind = "words"


def words_of(texts: pa.Array | pa.ChunkedArray, *, kind: Kind = "words") -> Words:
    """The words of every text in an Arrow array of strings; a null has no words.

    With ``kind="characters"``, every letter, with its marks, and every digit is a word, in all scripts.
    """
    parts = [word_numbers(spans_of(documents, kind=kind)) for documents in blocks_of(texts)]
    return joined(parts)


def joined(parts: list[Words]) -> Words:
    """The texts of several parts, one part after another."""
    if len(parts) == 1:
        return parts[0]
    counts = [np.diff(part.offsets) for part in parts]
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(np.concatenate((*counts, np.zeros(0, np.int64))))))
    marks = None
    if any(part.marks is not None for part in parts):
        marks = np.concatenate(
            [np.zeros(len(part.hashes), np.bool_) if part.marks is None else part.marks for part in parts]
        )
    kind = parts[0].kind if parts else "words"
    return Words(np.concatenate([np.zeros(0, np.uint64), *(part.hashes for part in parts)]), offsets, marks, kind)


def taken(words: Words, rows: Ints) -> Words:
    """The words of some of the texts."""
    counts = words.counts[rows]
    offsets = np.append(0, np.cumsum(counts))
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and np.all(rows[1:] > rows[:-1]):  # no copy
        part = slice(words.offsets[rows[0]], words.offsets[rows[-1] + 1])
        return Words(words.hashes[part], offsets, None if words.marks is None else words.marks[part], words.kind)
    at = np.repeat(words.offsets[rows] - offsets[:-1], counts) + np.arange(offsets[-1])
    return Words(words.hashes[at], offsets, None if words.marks is None else words.marks[at], words.kind)


def blocks_of(texts: pa.Array | pa.ChunkedArray, size: int = BLOCK_BYTES) -> Iterator[list[memoryview]]:
    """The UTF-8 of the texts, in lists of about this many bytes; a null becomes empty."""
    for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
        values = chunk.cast(chunk.type.value_type) if pa.types.is_dictionary(chunk.type) else chunk
        if pa.types.is_null(values.type) or pa.types.is_string_view(values.type):
            values = values.cast(pa.large_string())
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            raise UsageError(
                f"the column for comparing documents must contain strings, not {values.type}: cast it first"
            )
        if not len(values):
            continue
        wide = pa.types.is_large_string(values.type)
        _, bounds, content = values.buffers()
        offsets = np.frombuffer(
            bounds, np.int64 if wide else np.int32, len(values) + 1, values.offset * (8 if wide else 4)
        )
        memory = memoryview(content) if content is not None else memoryview(b"")
        ends = offsets[1:]
        if values.null_count:
            ends = np.where(to_numpy(values.is_valid()), ends, offsets[:-1])  # a null may have bytes
        first, last = offsets[:-1].tolist(), ends.tolist()
        done = 0
        while done < len(values):
            stop = int(np.searchsorted(offsets, int(offsets[done]) + size))
            stop = min(max(stop, done + 1), len(values), done + 20_000)
            yield [memory[a:b] for a, b in zip(first[done:stop], last[done:stop], strict=True)]
            done = stop


def spans_of(documents: list[memoryview], *, kind: Kind = "words") -> Spans:
    """The places of the words in these texts."""
    block = Block(documents)
    if block.is_ascii and kind == "words":
        data = np.frombuffer(block.raw.translate(_FOLDED), np.uint8)
        starts, ends = _runs(data)
        return Spans(data, starts, ends, None, *_of_each(block, starts))
    return _wide(documents, block, kind)


def word_numbers(spans: Spans) -> Words:
    """The number of each word."""
    data, starts, ends = spans.data, spans.starts, spans.ends
    eights = np.ndarray((len(data) - 8,), "<u8", data, 0, (1,))
    sizes = ends - starts
    hashes: Hashes = eights[starts]
    hashes &= _OWN[np.minimum(sizes, 8)]
    hashes *= A
    hashes ^= hashes >> _32
    done, longer = 8, np.flatnonzero(sizes > 8)
    while len(longer) and done < _LONGEST:
        part = eights[starts[longer] + done]
        part &= _OWN[np.minimum(sizes[longer] - done, 8)]
        part ^= hashes[longer]
        part *= B
        part ^= part >> _29
        hashes[longer] = part
        done += 8
        longer = longer[sizes[longer] > done]
    hashes *= C
    hashes ^= hashes >> _32
    if len(longer):
        memory = memoryview(data)
        pairs = zip(starts[longer].tolist(), ends[longer].tolist(), strict=True)
        hashes[longer] = [xxhash.xxh3_64_intdigest(memory[a:b]) for a, b in pairs]
    return Words(hashes, np.append(spans.first, len(starts)), spans.marks, spans.kind)


def shingles_of(words: Words, *, size: int = WORDS_IN_SHINGLE, characters: int = CHARACTERS_IN_SHINGLE) -> Shingles:
    """The shingles of every text: runs of this many words, or of this many characters of scripts without spaces."""
    check_whole("size", size, least=1)
    check_whole("characters", characters, least=1)
    offsets, hashes = words.offsets, words.hashes
    counts = np.diff(offsets)
    starts = np.arange(len(hashes))
    spaceless = words.spaceless
    if spaceless is None or size == characters or spaceless.all():
        size = size if spaceless is None else characters
        room = np.minimum(counts, size)
        lengths: int | Ints = size
        valid = np.ones(len(hashes), np.bool_)
        for back in range(1, size):
            valid[offsets[1:][counts >= back] - back] = False
        some = np.flatnonzero(counts)
        short = some[counts[some] < size]
        valid[offsets[:-1][some]] = True
        if len(short):
            lengths = np.full(len(hashes), size)
            lengths[offsets[:-1][short]] = room[short]
    else:
        weights = np.where(spaceless, size, characters)
        whole = size * characters
        before = np.concatenate(([0], np.cumsum(weights)))
        reach = np.append(before, np.full(max(size, characters), before[-1] + whole))
        longest = max(size, characters)
        lengths = np.full(len(hashes), min(size, characters))
        for step in range(min(size, characters), longest):
            lengths += reach[starts + step] - before[:-1] < whole
        ends = np.repeat(offsets[1:], counts)
        valid = before[ends] - before[:-1] >= whole
        some = np.flatnonzero(counts)
        short = some[~valid[offsets[:-1][some]]]
        valid[offsets[:-1][short]] = True
        lengths[offsets[:-1][short]] = counts[short]
        # The last shingle of each text extends to the end of the text.
        final = np.flatnonzero(valid)
        final = final[np.append(final[1:] >= ends[final[:-1]], np.ones(min(len(final), 1), np.bool_))]
        lengths[final] = ends[final] - final
    first = np.flatnonzero(valid)
    last = first + (lengths if isinstance(lengths, int) else lengths[first])
    return Shingles(_rolled(hashes, first, last), np.searchsorted(first, offsets), first, last)


def _rolled(hashes: Hashes, first: Ints, last: Ints) -> Hashes:
    sizes = last - first
    longest, shortest = int(sizes.max(initial=0)), int(sizes.min(initial=len(hashes)))
    # First process the words that all shingles have, in one pass, and then the rest of longer shingles.
    stop = max(len(hashes) - shortest + 1, 0)
    made = hashes[:stop].copy()
    for step in range(1, shortest):
        made *= D
        made += hashes[step : stop + step]
    made = made[first]
    for step in range(shortest, longest):
        more = np.flatnonzero(sizes > step)
        made[more] = made[more] * D + hashes[first[more] + step]
    made ^= made >> _32
    made *= E
    made ^= made >> _29
    return made


def _runs(data: npt.NDArray[np.uint8]) -> tuple[Ints, Ints]:
    # The data begins and ends with a gap.
    inside = data != 0
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    return edges[0::2], edges[1::2]


def _of_each(block: Block, starts: Ints) -> tuple[Ints, Ints]:
    return np.searchsorted(starts, block.starts), np.searchsorted(starts, block.ends)


def _wide(documents: list[memoryview], block: Block, kind: Kind) -> Spans:
    at, points = _wide_points(block)
    table = characters.kinds()
    kinds = table[points]
    sizes = _sizes(block.data[at])
    hard = (kinds & FOLD) != 0
    order = characters.classes()[points]
    beside = np.flatnonzero((order[1:] != 0) & (order[:-1] > order[1:]))
    hard[beside[at[beside] + sizes[beside] == at[beside + 1]]] = True
    done = np.zeros(0, np.int64)
    if hard.any():
        done = np.unique(block.rows_of(at[hard]))
        pieces: list[bytes | memoryview] = list(documents)
        for row in done.tolist():
            pieces[row] = characters.fold(str(pieces[row], "utf-8", "replace")).encode()
        block = Block(pieces)
        at, points = _wide_points(block)
        kinds = table[points]
        sizes = _sizes(block.data[at])
    data = np.frombuffer(bytearray(block.raw.translate(_FOLDED)), np.uint8)
    written = (kinds & REWRITE) != 0
    if written.any():
        where, size = at[written], sizes[written]
        new = characters.rewrites()[points[written]]
        for step in range(4):
            more = size > step
            data[where[more] + step] = (new[more] >> np.uint32(8 * step)).astype(np.uint8)
    gap = (kinds & WORD) == 0
    while True:
        where, size = at[gap], sizes[gap]
        for step in range(4):
            data[where[size > step] + step] = 0
        # A mark belongs to a letter; a mark after a gap becomes part of the gap.
        gap = ((kinds & MARK) != 0) & (data[at] != 0) & (data[at - 1] == 0)
        if not gap.any():
            break
    begins, is_alone = _alone(data, at, kinds, sizes)
    if is_alone is None and kind == "words":
        starts, ends = _runs(data)
        return Spans(data, starts, ends, None, *_of_each(block, starts))
    inside = data != 0
    begins[1:] |= ~inside[:-1]
    begins &= inside
    marks = is_alone
    if kind == "characters":
        marks = ~begins
        begins = inside & (data < 0x80)
        begins[at[(kinds & MARK) == 0]] = True
        begins &= inside
    stops = np.zeros(len(data), np.bool_)
    stops[1:] = inside[:-1] & (begins[1:] | ~inside[1:])
    starts, ends = np.flatnonzero(begins), np.flatnonzero(stops)
    assert marks is not None
    marks = marks[starts]
    return Spans(data, starts, ends, marks if marks.any() else None, *_of_each(block, starts), kind)


def _wide_points(block: Block) -> tuple[Ints, Ints]:
    at = np.flatnonzero(block.data >= 0xC0)
    return at, block.code_points(at)


def _alone(
    data: npt.NDArray[np.uint8], at: Ints, kinds: npt.NDArray[np.uint8], sizes: Ints
) -> tuple[Bools, Bools | None]:
    """The bytes at which a word begins whatever precedes it, and the bytes of words that are single characters, or None
    if there are none.
    """
    is_alone = np.zeros(len(data), np.bool_)
    marks = (kinds & MARK) != 0
    single = (kinds & SPACELESS) != 0
    if not single.any():
        return is_alone, None
    is_alone[at[single]] = True
    begins = is_alone.copy()
    if marks.any():
        # A mark has the kind of its character, which is the last character before it that is not a mark.
        joins = np.zeros(len(at), np.bool_)
        joins[1:] = marks[1:] & (at[:-1] + sizes[:-1] == at[1:])
        single = single[np.maximum.accumulate(np.where(joins, 0, np.arange(len(at))))]
        begins[(at + sizes)[single]] = True
        begins[at[marks]] = False
    else:
        begins[(at + sizes)[single]] = True
    return begins, is_alone


def _sizes(first: npt.NDArray[np.uint8]) -> Ints:
    return 2 + (first >= 0xE0).astype(np.int64) + (first >= 0xF0)
