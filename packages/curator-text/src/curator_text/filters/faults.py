"""Finds the places in a text for which it was dropped: repeated lines, digits, a word of a list.

It is used for the few dropped texts that a run keeps as samples. Filters measure whole blocks of texts and store no
places, so this module searches for the places again, one text at a time in plain Python. The marked places explain a
score and are not part of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

Span = tuple[int, int]
Finder = Callable[[Any, str, str], Iterable[Span]]

# How many characters of a text are searched; the sample shows far fewer.
_SEARCHED = 20_000
# How many characters are searched for runs of words, since counting these takes longer.
_COUNTED = 3_000
# The largest number of places that are marked.
MOST_SPANS = 200
_DIGITS = re.compile(r"[0-9]+")
_ODD = re.compile(r"[^a-zA-Z0-9\n?!,. ]+")
# The set at the beginning lets the search skip all other characters at once.
_SYMBOLS = re.compile(r"[#.…](?:(?<=#)#*|(?<=\.)\.{2,}|(?<=…))")
_HASHES = re.compile(r"#+")
_DOTS = re.compile(r"[.…](?:(?<=\.)\.{2,}|(?<=…))")
_URL = re.compile(r"https?://[^\s<>\"')\]]+")
_BLANKS = re.compile(r"[ \t\n\r\b]{2,}")
_BRACKETS = re.compile(r"[()\[\]{}⟨⟩]+")
_BULLET = re.compile(r"^[ \t]*[-*•‣▶◦●▪►–]", re.MULTILINE)  # noqa: RUF001
_TRAILING = re.compile(r"(?:\.{3}|…|read more)[ \t]*$", re.MULTILINE | re.IGNORECASE)
_POLICY = re.compile(
    r"terms of use|privacy policy|cookie policy|uses? (?:of )?cookies|use of cookies|lorem ipsum", re.IGNORECASE
)
_WORD = re.compile(r"\S+")
_LINE = re.compile(r"[^\n]+")
_PARAGRAPH = re.compile(r"[^\n](?:[^\n]|\n(?!\n))*")
_XML = re.compile(r"<\?xml[^>]*>?")
_ENDS = (".", "?", "!", '"', "'", "。", "！", "？")  # noqa: RUF001


def at_fault(stage: Any, text: str, reason: str) -> Iterable[Span]:
    """The places that caused a filter's decision, in order; none if it concerns the text as a whole."""
    for kind in type(stage).__mro__:
        finder = _FINDERS.get(kind.__name__)
        if finder is not None:
            return finder(stage, text[:_SEARCHED], reason)
    return ()


def _all(pattern: re.Pattern[str]) -> Finder:
    return lambda _stage, text, _reason: _spans(pattern, text)


def _spans(pattern: re.Pattern[str], text: str) -> Iterator[Span]:
    return map(re.Match.span, pattern.finditer(text))


def _repeated(pieces: re.Pattern[str], text: str) -> Iterator[Span]:
    """The pieces that occurred earlier in the text."""
    known: set[str] = set()
    for match in pieces.finditer(text):
        piece = match.group().strip()
        if piece in known:
            yield match.span()
        elif piece:
            known.add(piece)


def _lines_without_end(text: str, marks: tuple[str, ...] = _ENDS) -> Iterator[Span]:
    return (
        match.span()
        for match in _LINE.finditer(text)
        if match.group().strip() and not match.group().rstrip().endswith(marks)
    )


def _grams(text: str, size: int) -> tuple[list[tuple[str, ...]], Callable[[int], Span]]:
    """The runs of words of a text in order, with their begin and end."""
    words = list(_WORD.finditer(text[:_COUNTED]))
    texts = [match.group() for match in words]
    runs = list(zip(*(texts[at:] for at in range(size)), strict=False))
    return runs, lambda at: (words[at].start(), words[at + size - 1].end())


def _top_gram(text: str, size: int) -> list[Span]:
    """The occurrences of the most frequent run of words, if it is repeated. Of several, the longest counts, and of
    equally long ones the first.
    """
    runs, place = _grams(text, size)
    counts = Counter(runs)
    most = max(counts.values(), default=0)
    if most < 2:
        return []
    top = max((run for run, found in counts.items() if found == most), key=lambda run: sum(map(len, run)))
    return _joined(place(at) for at, run in enumerate(runs) if run == top)


def _again(text: str, size: int) -> list[Span]:
    """The runs of words that occurred earlier in the text."""
    runs, place = _grams(text, size)
    known: set[tuple[str, ...]] = set()
    found = []
    for at, run in enumerate(runs):
        if run in known:
            found.append(place(at))
        known.add(run)
    return _joined(found)


def _joined(spans: Iterable[Span]) -> list[Span]:
    found: list[Span] = []
    for start, end in spans:
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _long_words(stage: Any, text: str, _reason: str) -> Iterator[Span]:
    return (match.span() for match in _WORD.finditer(text) if len(match.group()) > stage.max_word_length)


def _words_without_letters(text: str) -> Iterator[Span]:
    return (match.span() for match in _WORD.finditer(text) if not any(map(str.isalpha, match.group())))


def _bad_words(stage: Any, text: str, _reason: str) -> Iterator[Span]:
    single, others = stage._list()
    lowered = text.lower()
    if len(lowered) != len(text):  # the lower case of some letter has two characters, which would shift places
        return
    words = (match.span() for match in re.finditer(r"\w+", lowered) if match.group() in single)
    yield from sorted(chain(words, *(_spans(re.compile(re.escape(part)), lowered) for part, _ in others)))


def _substring(stage: Any, text: str, _reason: str) -> Iterator[Span]:
    return _spans(re.compile(re.escape(stage.substring)), text) if stage.substring else iter(())


def _urls(stage: Any, text: str, _reason: str) -> Iterator[Span]:
    return _spans(_URL if stage.url_regex is None else re.compile(stage.url_regex), text)


def _bad_urls(stage: Any, text: str, reason: str) -> Iterator[Span]:
    return ((start, end) for start, end in _urls(stage, text, reason) if "porn" in text[start:end])


def _whole(_stage: Any, text: str, _reason: str) -> Iterator[Span]:
    yield 0, len(text)


def _gopher(_stage: Any, text: str, reason: str) -> Iterable[Span]:
    match reason:
        case "gopher_too_many_hashes":
            return _spans(_HASHES, text)
        case "gopher_too_many_ellipsis":
            return _spans(_DOTS, text)
        case "gopher_too_many_bullets":
            return _spans(_BULLET, text)
        case "gopher_too_many_end_ellipsis":
            return _spans(_TRAILING, text)
        case "gopher_below_alpha_threshold":
            return _words_without_letters(text)
    return ()


def _gopher_repetition(_stage: Any, text: str, reason: str) -> Iterable[Span]:
    if reason.startswith("dup_line"):
        return _repeated(_LINE, text)
    if reason.startswith("dup_para"):
        return _repeated(_PARAGRAPH, text)
    size = re.search(r"\d+", reason)
    if size is None:
        return ()
    return _top_gram(text, int(size.group())) if reason.startswith("top_") else _again(text, int(size.group()))


def _fineweb(stage: Any, text: str, reason: str) -> Iterable[Span]:
    match reason:
        case "line_punct_ratio":
            return _lines_without_end(text, stage.stop_chars or _ENDS)
        case "short_line_ratio":
            return (
                m.span()
                for m in _LINE.finditer(text)
                if m.group().strip() and len(m.group()) <= stage.short_line_length
            )
        case "char_dup_ratio":
            return _repeated(_LINE, text)
    return ()


def _c4(_stage: Any, text: str, reason: str) -> Iterable[Span]:
    word = {"lorem_ipsum": "lorem ipsum", "curly_bracket": "{"}.get(reason)
    return _spans(re.compile(re.escape(word), re.IGNORECASE), text) if word else ()


def _clutter(stage: Any, text: str, _reason: str) -> Iterable[Span]:
    return (
        m.span() for m in _LINE.finditer(text) if (size := len(m.group().split())) and stage.is_clutter(m.group(), size)
    )


_FINDERS: dict[str, Finder] = {
    "BadWordsFilter": _bad_words,
    "BoilerPlateStringFilter": _all(_POLICY),
    "BulletsFilter": _all(_BULLET),
    "C4QualityFilter": _c4,
    "EllipsisFilter": _all(_TRAILING),
    "FineWebQualityFilter": _fineweb,
    "GopherQualityFilter": _gopher,
    "GopherRepetitionFilter": _gopher_repetition,
    "LongWordFilter": _long_words,
    "NonAlphaNumericFilter": _all(_ODD),
    "NumbersFilter": _all(_DIGITS),
    "ParenthesesFilter": _all(_BRACKETS),
    "PornographicUrlsFilter": _bad_urls,
    "PunctuationFilter": lambda _stage, text, _reason: _lines_without_end(text),
    "RefinedWebLineFilter": _clutter,
    "RepeatedLinesByCharFilter": lambda _stage, text, _reason: _repeated(_LINE, text),
    "RepeatedLinesFilter": lambda _stage, text, _reason: _repeated(_LINE, text),
    "RepeatedParagraphsByCharFilter": lambda _stage, text, _reason: _repeated(_PARAGRAPH, text),
    "RepeatedParagraphsFilter": lambda _stage, text, _reason: _repeated(_PARAGRAPH, text),
    "RepeatingDuplicateNGramsFilter": lambda stage, text, _reason: _again(text, stage.n),
    "RepeatingTopNGramsFilter": lambda stage, text, _reason: _top_gram(text, stage.n),
    "SubstringFilter": _substring,
    "SymbolsToWordsFilter": _all(_SYMBOLS),
    "UrlBlocklistFilter": _whole,
    "UrlsFilter": _urls,
    "WhiteSpaceFilter": _all(_BLANKS),
    "WordsWithoutAlphabetsFilter": lambda _stage, text, _reason: _words_without_letters(text),
    "XMLHeaderFilter": _all(_XML),
}
