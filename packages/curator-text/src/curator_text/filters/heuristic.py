"""Filters by simple measures of prose: words, characters, lines, marks.

Names, parameters, defaults and scores are those of NeMo Curator, so a recipe can be used unchanged. Here, scores are
defined for every text, even an empty one: if there is nothing to measure, a ratio has a value that its filter drops.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import scalar
from curator_core.errors import UsageError, check_whole
from curator_core.formatting import number
from curator_text import _unicode
from curator_text.features.batch import TextFeatures
from curator_text.features.block import BLANK, DIGIT, ENGLISH, LETTER, PAREN, Block
from curator_text.features.lines import (
    boilerplate_paragraphs,
    bullet_sentences,
    ellipsis_sentences,
    endmark_sentences,
    paragraph_counts,
    sentence_counts,
)
from curator_text.features.urls import url_chars, urls_of
from curator_text.features.words import (
    known_word_counts,
    longest_words,
    symbol_words,
    word_chars,
    word_counts,
    words_having,
)
from curator_text.filters.base import (
    TextFilter,
    at_least,
    at_most,
    between,
    check_number,
    check_range,
    ratio,
    share,
    spread,
)

COMMON_ENGLISH_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
_POSITIONS = {"prefix": "start with", "suffix": "end with", "any": "contain"}


@dataclass
class NonAlphaNumericFilter(TextFilter):
    """Drop documents in which too many characters are neither ``a-z A-Z 0-9`` nor newline nor ``? ! , .``."""

    max_non_alpha_numeric_to_text_ratio: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "max_non_alpha_numeric_to_text_ratio")

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        chars = text.per_row(Block.char_counts)
        return ratio(chars - text.per_row(Block.class_counts, ENGLISH), chars, empty=1.0)

    def limits(self) -> str:
        return f"documents with at most {share(self.max_non_alpha_numeric_to_text_ratio)} of characters other than a-z, A-Z, 0-9, newline and ? ! , ."

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_most(scores, self.max_non_alpha_numeric_to_text_ratio)


@dataclass
class SymbolsToWordsFilter(TextFilter):
    """Drop documents in which too many words are an ellipsis or mostly ``#``."""

    max_symbol_to_word_ratio: float = 0.1
    lang: str = "en"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "max_symbol_to_word_ratio")
        check_lang(self)

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        return ratio(text.per_row(symbol_words), text.per_row(word_counts), empty=1.0)

    def limits(self) -> str:
        return (
            f"documents with at most {share(self.max_symbol_to_word_ratio)} of words that are an ellipsis or mostly #"
        )

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_most(scores, self.max_symbol_to_word_ratio)


@dataclass
class NumbersFilter(TextFilter):
    """Drop documents in which too many characters are the digits 0 to 9."""

    max_number_to_text_ratio: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "max_number_to_text_ratio")

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        return ratio(text.per_row(Block.class_counts, DIGIT), text.per_row(Block.char_counts), empty=1.0)

    def limits(self) -> str:
        return f"documents with at most {share(self.max_number_to_text_ratio)} digits among their characters"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_most(scores, self.max_number_to_text_ratio)


@dataclass
class UrlsFilter(TextFilter):
    """Drop documents in which too many characters are part of http(s) addresses.

    ``url_regex`` replaces the pattern of an address; its whole match is counted.
    """

    max_url_to_text_ratio: float = 0.2
    url_regex: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "max_url_to_text_ratio")
        check_regex(self, "url_regex")

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        chars = text.per_row(Block.char_counts)
        if self.url_regex is None:
            return ratio(text.per_row(url_chars), chars, empty=1.0)
        find = re.compile(self.url_regex).finditer
        sizes = (sum(len(match.group()) for match in find(document)) for document in text.texts())
        return ratio(np.fromiter(sizes, np.int64, len(text)), chars, empty=1.0)

    def limits(self) -> str:
        where = "http(s) addresses" if self.url_regex is None else f"matches of {self.url_regex!r}"
        return f"documents with at most {share(self.max_url_to_text_ratio)} of their characters in {where}"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_most(scores, self.max_url_to_text_ratio)


@dataclass
class BulletsFilter(TextFilter):
    """Drop documents in which too many lines start with a bullet."""

    max_bullet_lines_ratio: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "max_bullet_lines_ratio")

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        return ratio(text.per_row(bullet_sentences), text.per_row(sentence_counts), empty=1.0)

    def limits(self) -> str:
        return f"documents with at most {share(self.max_bullet_lines_ratio)} of lines that start with a bullet"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_most(scores, self.max_bullet_lines_ratio)


@dataclass
class WhiteSpaceFilter(TextFilter):
    """Drop documents in which too many characters are blanks, tabs, newlines, returns or backspaces."""

    max_white_space_ratio: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "max_white_space_ratio")

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        return ratio(text.per_row(Block.class_counts, BLANK), text.per_row(Block.char_counts), empty=1.0)

    def limits(self) -> str:
        return f"documents with at most {share(self.max_white_space_ratio)} white space among their characters"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_most(scores, self.max_white_space_ratio)


@dataclass
class ParenthesesFilter(TextFilter):
    """Drop documents in which too many characters are parentheses, brackets or braces."""

    max_parentheses_ratio: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "max_parentheses_ratio")

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        return ratio(text.per_row(_parentheses), text.per_row(Block.char_counts), empty=1.0)

    def limits(self) -> str:
        return f"documents with at most {share(self.max_parentheses_ratio)} parentheses, brackets and braces among their characters"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_most(scores, self.max_parentheses_ratio)


@dataclass
class LongWordFilter(TextFilter):
    """Drop documents that have a word of more than this many characters, such as minified scripts."""

    max_word_length: int = 1000
    lang: str = "en"
    score_type: ClassVar[pa.DataType] = pa.int64()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "max_word_length")
        check_lang(self)

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        return text.per_row(longest_words)

    def limits(self) -> str:
        return f"documents with no word of more than {number(self.max_word_length)} characters"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_most(scores, self.max_word_length)


@dataclass
class WordCountFilter(TextFilter):
    """Keep documents whose number of words is in a range."""

    min_words: int = 50
    max_words: int = 100000
    lang: str = "en"
    score_type: ClassVar[pa.DataType] = pa.int64()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "min_words", "max_words")
        check_lang(self)

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        return text.per_row(word_counts)

    def limits(self) -> str:
        return f"documents of {spread(self.min_words, self.max_words)} words"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return between(scores, self.min_words, self.max_words)


@dataclass
class BoilerPlateStringFilter(TextFilter):
    """Drop documents in which too many paragraphs are about cookies, privacy policies or terms of use.

    A document that contains "lorem ipsum" scores 1. ``remove_if_at_top_or_bottom`` is accepted for recipes that name
    it; it changes nothing, here as in NeMo Curator.
    """

    remove_if_at_top_or_bottom: bool = True
    max_boilerplate_string_ratio: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "max_boilerplate_string_ratio")

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        found = text.per_row(boilerplate_paragraphs)
        scores = np.zeros(len(found))
        some = np.flatnonzero(found)
        if len(some):  # paragraphs are needed only if there is something to count
            scores = found / text.per_row(paragraph_counts)
            scores[found < 0] = 1.0
        return scores

    def limits(self) -> str:
        return f"documents with at most {share(self.max_boilerplate_string_ratio)} of paragraphs on cookies, privacy policies or terms of use"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_most(scores, self.max_boilerplate_string_ratio)


@dataclass
class MeanWordLengthFilter(TextFilter):
    """Keep documents whose mean word length is in a range."""

    min_mean_word_length: float = 3
    max_mean_word_length: float = 10
    lang: str = "en"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "min_mean_word_length", "max_mean_word_length")
        check_lang(self)

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        return ratio(text.per_row(word_chars), text.per_row(word_counts), empty=0.0)

    def limits(self) -> str:
        return (
            f"documents with a mean word length of {spread(self.min_mean_word_length, self.max_mean_word_length)} "
            "characters"
        )

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return between(scores, self.min_mean_word_length, self.max_mean_word_length)


@dataclass
class PunctuationFilter(TextFilter):
    """Drop documents in which too many lines do not end with ``. ? ! " '``."""

    max_num_sentences_without_endmark_ratio: float = 0.85

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "max_num_sentences_without_endmark_ratio")

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        lines = text.per_row(sentence_counts)
        return ratio(lines - text.per_row(endmark_sentences), lines, empty=1.0)

    def limits(self) -> str:
        return f"documents with at most {share(self.max_num_sentences_without_endmark_ratio)} of lines that do not end with . ? ! \" or '"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_most(scores, self.max_num_sentences_without_endmark_ratio)


@dataclass
class EllipsisFilter(TextFilter):
    """Drop documents in which too many lines end with an ellipsis or with "read more"."""

    max_num_lines_ending_with_ellipsis_ratio: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "max_num_lines_ending_with_ellipsis_ratio")

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        return ratio(text.per_row(ellipsis_sentences), text.per_row(sentence_counts), empty=1.0)

    def limits(self) -> str:
        return f'documents with at most {share(self.max_num_lines_ending_with_ellipsis_ratio)} of lines that end with an ellipsis or "read more"'

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_most(scores, self.max_num_lines_ending_with_ellipsis_ratio)


@dataclass
class CommonEnglishWordsFilter(TextFilter):
    """Keep documents with at least ``min_num_common_words`` of the words "the be to of and that have with", in lower
    case.

    With ``stop_at_false``, the score is at most the required number.
    """

    min_num_common_words: int = 2
    stop_at_false: bool = True
    score_type: ClassVar[pa.DataType] = pa.int64()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("CommonEnglishWordsFilter.min_num_common_words", self.min_num_common_words, least=0)

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        counts = text.per_row(known_word_counts, COMMON_ENGLISH_WORDS)
        return np.minimum(counts, self.min_num_common_words) if self.stop_at_false else counts

    def limits(self) -> str:
        return f"documents with at least {number(self.min_num_common_words)} of the words {', '.join(COMMON_ENGLISH_WORDS)}"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_least(scores, self.min_num_common_words)


@dataclass
class WordsWithoutAlphabetsFilter(TextFilter):
    """Keep documents in which enough of the words have a letter, of any alphabet."""

    min_words_with_alphabets: float = 0.8
    lang: str = "en"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "min_words_with_alphabets")
        check_lang(self)

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        having = text.per_row(words_having, LETTER, _unicode.ALPHABETIC)
        return ratio(having, text.per_row(word_counts), empty=0.0)

    def limits(self) -> str:
        return f"documents with at least {share(self.min_words_with_alphabets)} of words that have a letter"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_least(scores, self.min_words_with_alphabets)


@dataclass
class PornographicUrlsFilter(TextFilter):
    """Drop documents with an http(s) address that contains "porn"."""

    url_regex: str | None = None
    score_type: ClassVar[pa.DataType] = pa.int64()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_regex(self, "url_regex")

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        if self.url_regex is None:
            return text.per_row(_pornographic_urls)
        find = re.compile(self.url_regex).finditer
        flags = (any("porn" in match.group() for match in find(document)) for document in text.texts())
        return np.fromiter(flags, np.int64, len(text))

    def limits(self) -> str:
        where = "an http(s) address" if self.url_regex is None else f"matches of {self.url_regex!r}"
        return f'documents without "porn" in {where}'

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return pc.not_equal(scores, scalar(1))


@dataclass
class SubstringFilter(TextFilter):
    """Keep documents that start with, end with, or contain a text; ``mode="invert"`` drops them."""

    substring: str
    position: Literal["prefix", "suffix", "any"]
    score_type: ClassVar[pa.DataType] = pa.int64()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.position not in ("prefix", "suffix", "any"):
            raise UsageError(f"SubstringFilter.position must be 'prefix', 'suffix' or 'any', not {self.position!r}")
        if not isinstance(self.substring, str):
            raise UsageError(f"SubstringFilter.substring must be text, not {self.substring!r}")

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        return text.per_row(_has_substring, self.substring.encode(), self.position)

    def limits(self) -> str:
        return f"documents that {_POSITIONS[self.position]} {self.substring!r}"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return pc.equal(scores, scalar(1))


def check_lang(stage: Any) -> None:
    """Raise for languages without white space between words, because their words cannot be counted."""
    if not isinstance(stage.lang, str) or not stage.lang:
        raise UsageError(f"{type(stage).__name__}.lang must be a language code such as 'en', not {stage.lang!r}")
    if stage.lang.lower() in ("zh", "ja"):
        raise UsageError(
            f"{type(stage).__name__}.lang={stage.lang!r}: this language has no white space between words, so words "
            "cannot be counted; write the segmented text to another column first, and name that with column=…"
        )


def check_regex(stage: Any, name: str) -> None:
    """Raise unless the parameter is None or a regular expression."""
    value = getattr(stage, name)
    try:
        if value is not None:
            re.compile(value)
    except (re.error, TypeError) as error:
        raise UsageError(f"{type(stage).__name__}.{name}={value!r} is not a regular expression: {error}") from None


def _parentheses(block: Block) -> npt.NDArray[np.int64]:
    counts = block.class_counts(PAREN)
    if block.is_ascii:
        return counts
    return counts + block.count_at(np.sort(np.concatenate([block.find(mark.encode()) for mark in "⟨⟩"])))


def _pornographic_urls(block: Block) -> npt.NDArray[np.int64]:
    found = np.zeros(block.rows, np.int64)
    if len(block.find(b"porn")):
        for row, url in urls_of(block):
            if b"porn" in url:
                found[row] = 1
    return found


def _has_substring(block: Block, part: bytes, position: str) -> npt.NDArray[np.int64]:
    raw = block.raw
    if position == "prefix":
        found = (raw.startswith(part, start, end) for start, end in block.spans)
    elif position == "suffix":
        found = (raw.endswith(part, start, end) for start, end in block.spans)
    else:
        found = (raw.find(part, start, end) >= 0 for start, end in block.spans)
    return np.fromiter(found, np.int64, block.rows)
