"""Finds lines and paragraphs as the recipes of published data sets define them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curator_core.arrow.arrays import distinct
from curator_text.features.block import ODD, Block, Bools, Ints, numbered, once
from curator_text.features.words import BEYOND, ELLIPSES, stripped_of, words_of

# The characters and phrases that the filters of NeMo Curator and C4 use.
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


def _table(members: bytes) -> Bools:
    table = np.zeros(256, np.bool_)
    table[list(members)] = True
    return table


_ENDMARK = _table(b".?!\"'")
# The last byte of a line that ends with an ellipsis, and the byte before it.
_ELLIPSIS_END = _table(bytes({mark[-1] for mark in _ELLIPSIS_BYTES} | {ord("E")}))
_ELLIPSIS_BEFORE = _table(bytes({mark[-2] for mark in _ELLIPSIS_BYTES} | {ord("R")}))


@dataclass(frozen=True, slots=True)
class Pieces:
    """The start and end of each line or paragraph, and its document."""

    starts: Ints
    ends: Ints
    rows: Ints


@dataclass(frozen=True, slots=True)
class Sentences(Pieces):
    """Lines that are not blank; `first` and `last` enclose their content without surrounding white space."""

    first: Ints
    last: Ints


@once
def lines_of(block: Block) -> Pieces:
    """The lines, which are separated by newlines; each document has one more line than newlines."""
    newlines = np.flatnonzero(block.data == 10)
    first, last = np.searchsorted(newlines, block.starts), np.searchsorted(newlines, block.ends) + 1
    if not block.rows:
        return Pieces(first, first, first)
    ends = newlines[first[0] : last[-1]]
    return Pieces(newlines[first[0] - 1 : last[-1] - 1] + 1, ends, np.repeat(np.arange(block.rows), last - first))


@once
def _line_words(block: Block) -> tuple[Ints, Ints]:
    # For every line, its first word and the first word of the next line.
    first = np.searchsorted(words_of(block).starts, lines_of(block).starts)
    after = np.empty_like(first)
    after[:-1] = first[1:]
    after[-1:] = len(words_of(block).starts)
    return first, after


@once
def sentences_of(block: Block) -> Sentences:
    """Lines that are not blank, with the start and end of their content (as left by str.strip())."""
    lines, (first, after) = lines_of(block), _line_words(block)
    some = np.flatnonzero(after > first)
    words = words_of(block)
    return Sentences(
        lines.starts[some],
        lines.ends[some],
        lines.rows[some],
        words.starts[first[some]],
        words.ends[after[some] - 1],
    )


def count_pieces(block: Block, pieces: Pieces, chosen: Bools | None = None) -> Ints:
    """How many lines (sentences, paragraphs) each document has, or how many of the chosen ones."""
    rows = pieces.rows if chosen is None else pieces.rows[chosen]
    return np.bincount(rows, minlength=block.rows)


def line_counts(block: Block) -> Ints:
    return count_pieces(block, lines_of(block))


def sentence_counts(block: Block) -> Ints:
    return count_pieces(block, sentences_of(block))


def bullet_sentences(block: Block) -> Ints:
    """How many lines begin with a bullet."""
    at = sentences_of(block).first
    bullet = block.data[at] == 0xE2  # all bullets have three bytes, of which this is the first
    some = np.flatnonzero(bullet)
    pairs = block.data[at[some] + 1].astype(np.int64) << 8 | block.data[at[some] + 2]
    bullet[some] = np.isin(pairs, _BULLET_TAILS)
    return count_pieces(block, sentences_of(block), bullet)


def endmark_sentences(block: Block) -> Ints:
    """How many lines end with ``. ? ! " '``."""
    return count_pieces(block, sentences_of(block), _ENDMARK[block.data[sentences_of(block).last - 1]])


def ellipsis_sentences(block: Block) -> Ints:
    """How many lines end with an ellipsis or with "read more"."""
    sentences, data, raw = sentences_of(block), block.data, block.raw
    last, before = data[sentences.last - 1], data[sentences.last - 2]
    at = np.flatnonzero(_ELLIPSIS_END[last] & _ELLIPSIS_BEFORE[before])
    chosen = np.zeros(len(last), np.bool_)
    for index in at.tolist():
        start, end = sentences.first[index], sentences.last[index]
        chosen[index] = raw[max(start, end - 16) : end].lower().endswith(_ELLIPSIS_BYTES)
    return count_pieces(block, sentences, chosen)


def repeats(block: Block, pieces: Pieces) -> Bools:
    """Which lines (paragraphs) occurred earlier in their document."""
    starts, ends, rows = pieces.starts, pieces.ends, pieces.rows
    sizes = ends - starts
    eights = block.eights
    head = eights[starts] | BEYOND[np.minimum(sizes, 8)]
    tail, middle = eights[ends - 8], eights[starts + np.maximum(sizes // 2 - 4, 0)]
    small = np.flatnonzero(sizes < 16)
    tail[small] = head[small]
    middle[small] = eights[starts[small] + 8] | BEYOND[np.clip(sizes[small] - 8, 0, 8)]
    # A cheap first test; only lines with the same sum are compared.
    with np.errstate(over="ignore"):
        sums = head * ODD[0] ^ (tail + sizes.astype(np.uint64)) * ODD[1]
        sums = (sums ^ sums >> np.uint64(29)) * ODD[2] ^ middle * ODD[3] ^ rows.astype(np.uint64) * ODD[4]
    numbers, count = numbered(sums)
    alike = np.flatnonzero((np.bincount(numbers, minlength=count) > 1)[numbers])
    again = np.zeros(len(starts), np.bool_)
    met: set[tuple[int, bytes]] = set()
    raw = block.raw
    for index, row, start, end in zip(
        alike.tolist(), rows[alike].tolist(), starts[alike].tolist(), ends[alike].tolist(), strict=True
    ):
        key = row, raw[start:end]
        if key in met:
            again[index] = True
        else:
            met.add(key)
    return again


def sum_pieces(block: Block, pieces: Pieces, chosen: Bools | None = None) -> Ints:
    """How many code points are in the lines (paragraphs) of each document, or in the chosen ones."""
    starts, ends, rows = pieces.starts, pieces.ends, pieces.rows
    if chosen is not None:
        starts, ends, rows = starts[chosen], ends[chosen], rows[chosen]
    return np.bincount(rows, block.ordered_lengths(starts, ends), block.rows).astype(np.int64)


@once
def repeated_sentences(block: Block) -> Bools:
    return repeats(block, sentences_of(block))


def distinct_sentences(block: Block) -> Ints:
    return count_pieces(block, sentences_of(block), ~repeated_sentences(block))


def sentence_chars(block: Block) -> Ints:
    return sum_pieces(block, sentences_of(block))


def distinct_sentence_chars(block: Block) -> Ints:
    return sum_pieces(block, sentences_of(block), ~repeated_sentences(block))


@once
def paragraphs_of(block: Block) -> Pieces:
    """The paragraphs, which are separated by two consecutive newlines, including empty ones."""
    ends = lines_of(block).ends  # positions of newlines; the last of each document is the one after it
    foreign = np.zeros(len(ends), np.bool_)
    if len(ends):
        foreign[np.cumsum(line_counts(block)) - 1] = True
    # The position of each newline in its run. A newline at an even position, with another one after it, separates
    # paragraphs.
    fresh = np.ones(len(ends), np.bool_)
    fresh[1:] = (ends[1:] != ends[:-1] + 1) | foreign[:-1]
    index = np.arange(len(ends))
    place = index - np.maximum.accumulate(np.where(fresh, index, 0))
    follows = np.zeros(len(ends), np.bool_)
    follows[:-1] = ~fresh[1:] & ~foreign[1:] & ~foreign[:-1]
    split = ends[follows & (place % 2 == 0)]
    starts = np.sort(np.concatenate((block.starts, split + 2)))
    return Pieces(starts, np.sort(np.concatenate((block.ends, split))), block.rows_of(starts))


def paragraph_counts(block: Block) -> Ints:
    return count_pieces(block, paragraphs_of(block))


@once
def repeated_paragraphs(block: Block) -> Bools:
    return repeats(block, paragraphs_of(block))


def distinct_paragraphs(block: Block) -> Ints:
    return count_pieces(block, paragraphs_of(block), ~repeated_paragraphs(block))


def paragraph_chars(block: Block) -> Ints:
    return sum_pieces(block, paragraphs_of(block))


def distinct_paragraph_chars(block: Block) -> Ints:
    return sum_pieces(block, paragraphs_of(block), ~repeated_paragraphs(block))


def boilerplate_paragraphs(block: Block) -> Ints:
    """How many paragraphs contain one of `BOILERPLATE`; -1 for documents with "lorem ipsum"."""
    suspects = [block.find(part, lower=True) for part in (b"cookie", b"privacy", b"terms of use", b"lorem ipsum")]
    if not block.is_ascii:
        suspects.append(block.find("\u212a".encode()))  # the Kelvin sign, whose lower case is k
    counts = np.zeros(block.rows, np.int64)
    for row in distinct(block.rows_of(np.concatenate(suspects))).tolist():
        text = block.document(row).lower()
        if "lorem ipsum" in text:
            counts[row] = -1
        else:
            counts[row] = sum(any(part in piece for part in BOILERPLATE) for piece in text.split("\n\n"))
    return counts


@once
def printed_lines_of(block: Block) -> Pieces:
    """The lines of str.splitlines(), which recognises more line ends than the newline, and returns no empty line at the
    end.
    """
    data = block.data
    marks = data == 10
    marks |= (data >= 11) & (data <= 13) | (data >= 28) & (data <= 30)
    at = np.flatnonzero(marks)
    at = at[(at >= block.starts[0]) & (at <= block.ends[-1])] if block.rows else at[:0]
    behind = at + 1
    if not block.is_ascii:
        points, _ = block.wide
        rare = points[(data[points] == 0xC2) & (data[points + 1] == 0x85)]
        rare3 = points[(data[points] == 0xE2) & (data[points + 1] == 0x80) & (data[points + 2] & 0xFE == 0xA8)]
        at = np.concatenate((at, rare, rare3))
        behind = np.concatenate((behind, rare + 2, rare3 + 3))
        order = np.argsort(at)
        at, behind = at[order], behind[order]
    own = np.isin(at, block.ends, invert=True)  # the newline after a document does not belong to it
    joined = np.flatnonzero((data[at[:-1]] == 13) & (data[at[1:]] == 10) & (at[1:] == at[:-1] + 1) & own[1:])
    behind[joined] += 1
    at, behind = np.delete(at, joined + 1), np.delete(behind, joined + 1)
    starts = np.concatenate((block.starts[:1], behind[:-1]))
    rows = block.rows_of(starts)
    whole = ~((starts == at) & (at == block.ends[rows])) if block.rows else np.zeros(0, np.bool_)
    return Pieces(starts[whole], at[whole], rows[whole])


def inner_words(block: Block, pieces: Pieces) -> tuple[Ints, Ints]:
    """For each line or paragraph, its first word and the first word after it."""
    words = words_of(block).starts
    return np.searchsorted(words, pieces.starts), np.searchsorted(words, pieces.ends)


def between_newlines(block: Block, at_least: int, *, strip: bool) -> Pieces:
    """The pieces between runs of at least this many newlines, in the text itself or in the text stripped of white
    space.
    """
    ends = lines_of(block).ends
    own = np.isin(ends, block.ends, invert=True)
    newlines = ends[own]
    fresh = np.ones(len(newlines), np.bool_)
    fresh[1:] = newlines[1:] != newlines[:-1] + 1
    heads = np.flatnonzero(fresh)
    sizes = np.diff(heads, append=len(newlines))
    runs, sizes = newlines[heads[sizes >= at_least]], sizes[sizes >= at_least]
    first, last = block.starts, block.ends
    if strip:
        first, last = stripped_of(block)
        inside = block.rows_of(runs)
        chosen = (runs > first[inside]) & (runs < last[inside])
        runs, sizes = runs[chosen], sizes[chosen]
    starts = np.sort(np.concatenate((first, runs + sizes)), kind="stable")
    return Pieces(starts, np.sort(np.concatenate((last, runs)), kind="stable"), block.rows_of(starts))
