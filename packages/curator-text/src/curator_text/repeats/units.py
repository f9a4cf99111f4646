"""Finds the lines, paragraphs, sentences and runs of words of a text, and their places."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core.across.digests import hashes_of
from curator_text.dedup.places import places_of
from curator_text.dedup.words import Ints
from curator_text.repeats.windows import merged

Unit = Literal["line", "paragraph", "three_sentences"]
UNITS = ("line", "paragraph", "three_sentences")
_LINE = re.compile(r"[^\r\n]+")
_PARAGRAPH = re.compile(r"\S(?:.*?\S)?(?=\s*(?:\n[^\S\n]*\n|\Z))", re.S)
_SENTENCE = re.compile(r"\S.*?(?:[.!?。！？]+(?=\s|$|[^\s\x00-\x7f])|(?=\n)|\Z)", re.S)  # noqa: RUF001
# White space that is cut out with a unit, so that no empty line is left.
_AFTER: dict[Unit, re.Pattern[str]] = {
    "line": re.compile(r"[^\S\n]*\n?"),
    "paragraph": re.compile(r"\s*"),
    "three_sentences": re.compile(r"\s?"),
}
_BETWEEN = re.compile(r"[\W_]+")
_SENTENCES = 3


def units_of(text: str, unit: Unit, least: int) -> Iterator[tuple[int, int]]:
    """The begin and end of the units of a text, without surrounding white space; shorter pieces are not units."""
    if unit == "three_sentences":
        found = [match.span() for match in _SENTENCE.finditer(text)]
        spans = ((found[at][0], found[at + _SENTENCES - 1][1]) for at in range(len(found) - _SENTENCES + 1))
    else:
        pattern = _LINE if unit == "line" else _PARAGRAPH
        spans = (_stripped(text, *match.span()) for match in pattern.finditer(text))
    yield from ((start, end) for start, end in spans if end - start >= max(1, least))


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())


def line_units(
    texts: pa.ChunkedArray, unit: Unit, least: int, *, normalize: bool
) -> tuple[Ints, Ints, NDArray[np.uint64], NDArray[np.uint64]]:
    """For each unit, the row of its text, its number in the text, and both halves of its hash."""
    rows: list[int] = []
    numbers: list[int] = []
    high, low = hashes_of(_units(texts, unit, least, normalize, rows, numbers))
    return np.array(rows, np.int64), np.array(numbers, np.int64), high, low


def _units(
    texts: pa.ChunkedArray, unit: Unit, least: int, normalize: bool, rows: list[int], numbers: list[int]
) -> Iterator[bytes]:
    """The bytes of each unit in the compared form; its row and number are appended to ``rows`` and ``numbers``."""
    for row, text in enumerate(texts.to_pylist()):
        for number, (start, end) in enumerate(units_of(text or "", unit, least)):
            piece = text[start:end]
            if normalize:
                piece = _BETWEEN.sub(" ", piece.lower()).strip()
                if not piece:  # otherwise, all lines of dashes would be equal
                    continue
            rows.append(row)
            numbers.append(number)
            yield piece.encode("utf-8", "surrogatepass")


def spans_of_lines(text: str, numbers: Ints, unit: Unit, least: int) -> list[tuple[int, int]]:
    """The places of the units with these numbers, as ranges that do not overlap; a line includes its end."""
    wanted = set(numbers.tolist())
    found: list[tuple[int, int]] = []
    for number, (start, stop) in enumerate(units_of(text, unit, least)):
        if number not in wanted:
            continue
        after = _AFTER[unit].match(text, stop)
        end = stop if after is None else after.end()
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def spans_of_runs(text: str, first: Ints, last: Ints) -> list[tuple[int, int]]:
    """The places of runs of words: words are not split, and the space after the last word is included."""
    places = places_of(text)
    found = []
    for one, other in zip(*(edges.tolist() for edges in merged(first, last)), strict=True):
        end = int(places.starts[other]) if other < len(places) else len(text)
        found.append((int(places.starts[one]), end))
    return found
