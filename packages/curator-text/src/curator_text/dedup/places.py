"""Finds the place of each word in a text.

`words_of` compares texts in a folded form, which can have more or fewer characters than the text itself. This module
gives the words of one text with their places in it, in code points. It is needed only for the few texts in which
something was found, so it may be slower than the search.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from curator_text.dedup.characters import FOLD, classes, fold, kinds
from curator_text.dedup.words import Ints, Kind, Spans, spans_of
from curator_text.features.block import Block

_FIRST = int(Block([b""]).starts[0])  # the position of the first text in a block


@dataclass(frozen=True, slots=True)
class Places:
    """The words of a text: word i is ``text[starts[i]:ends[i]]``, and ``folded`` contains their folded UTF-8, each
    followed by a NUL. Word i begins at ``begins[i]``.
    """

    starts: Ints
    ends: Ints
    folded: bytes
    begins: Ints

    def __len__(self) -> int:
        return len(self.starts)

    def between(self, first: int, last: int) -> bytes:
        """The folded words from ``first`` up to, but excluding, ``last``."""
        return self.folded[self.begins[first] : self.begins[last]]


def places_of(text: str, *, kind: Kind = "words") -> Places:
    """The words of a text and their places."""
    raw = text.encode("utf-8", "replace")
    if text.isascii():
        spans = spans_of([memoryview(raw)], kind=kind)
        return Places(spans.starts - _FIRST, spans.ends - _FIRST, *joined_words(spans))
    first, last, folded = _aligned(text, raw)
    spans = spans_of([memoryview(folded)], kind=kind)
    return Places(first[spans.starts - _FIRST], last[spans.ends - _FIRST - 1], *joined_words(spans))


def joined_words(spans: Spans) -> tuple[bytes, Ints]:
    """All words, each followed by a NUL, and the position of each; the last entry is the total length."""
    sizes = spans.ends - spans.starts
    begins = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes + 1, out=begins[1:])
    joined = np.zeros(int(begins[-1]), np.uint8)
    inside = np.ones(len(joined), np.bool_)
    inside[begins[1:] - 1] = False
    at = np.arange(int(sizes.sum())) + np.repeat(spans.starts - (begins[:-1] - np.arange(len(sizes))), sizes)
    joined[inside] = spans.data[at]
    return joined.tobytes(), begins


def _aligned(text: str, raw: bytes) -> tuple[Ints, Ints, bytes]:
    """For each byte of the folded text, the begin and end of the part of the text from which it comes, and the folded
    text.
    """
    points = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)
    order = classes()[points]
    if not (kinds()[points] & FOLD).any() and not ((order[1:] != 0) & (order[:-1] > order[1:])).any():
        # Folding does not change the number of bytes, so `spans_of` folds in place.
        characters = np.cumsum((np.frombuffer(raw, np.uint8) & 0xC0) != 0x80)
        return characters - 1, characters, raw
    pieces: list[bytes] = []
    starts: list[int] = []
    begin = 0
    for at, character in enumerate(text):
        if at > begin and _stands_alone(character):
            pieces.append(_folded(text[begin:at]))
            starts.append(begin)
            begin = at
    pieces.append(_folded(text[begin:]))
    starts.append(begin)
    sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
    edges = np.array([*starts, len(text)], np.int64)
    return np.repeat(edges[:-1], sizes), np.repeat(edges[1:], sizes), b"".join(pieces)


@functools.lru_cache(1 << 16)
def _stands_alone(character: str) -> bool:
    """Whether folding never joins a character with the text before it."""
    folded = fold(character)
    if not folded:
        return False  # an invisible character must not separate a letter from its mark
    first = ord(folded[0])
    return not classes()[first] and not kinds()[first] & FOLD


@functools.lru_cache(1 << 12)
def _folded(piece: str) -> bytes:
    return fold(piece).encode()
