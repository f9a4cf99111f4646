"""Filters by repetition: of lines, of paragraphs, of n-grams of words.

Names, parameters, defaults and scores are those of NeMo Curator. If several n-grams are the most frequent, NeMo Curator
takes any of them; here, the first in the text is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curator_core.errors import UsageError, check_whole
from curator_core.formatting import count
from curator_text.features.batch import TextFeatures
from curator_text.features.block import Block
from curator_text.features.grams import covered_gram_chars, top_gram_removed
from curator_text.features.lines import (
    distinct_paragraph_chars,
    distinct_paragraphs,
    distinct_sentence_chars,
    distinct_sentences,
    paragraph_chars,
    paragraph_counts,
    sentence_chars,
    sentence_counts,
)
from curator_text.features.words import word_counts
from curator_text.filters.base import TextFilter, at_least, at_most, check_number, ratio, share
from curator_text.filters.heuristic import check_lang

# The limit of n: n-grams are computed from (n-1)-grams, and all of these are kept.
MOST_WORDS = 100


@dataclass
class RepeatedLinesFilter(TextFilter):
    """Keep documents in which enough of the lines are distinct."""

    max_repeated_line_fraction: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "max_repeated_line_fraction")

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        return ratio(text.per_row(distinct_sentences), text.per_row(sentence_counts), empty=0.0)

    def limits(self) -> str:
        return f"documents with at least {share(self.max_repeated_line_fraction)} of lines distinct"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_least(scores, self.max_repeated_line_fraction)


@dataclass
class RepeatedParagraphsFilter(TextFilter):
    """Keep documents in which enough of the paragraphs are distinct; paragraphs are separated by empty lines."""

    max_repeated_paragraphs_ratio: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "max_repeated_paragraphs_ratio")

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        return ratio(text.per_row(distinct_paragraphs), text.per_row(paragraph_counts), empty=0.0)

    def limits(self) -> str:
        return f"documents with at least {share(self.max_repeated_paragraphs_ratio)} of paragraphs distinct"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_least(scores, self.max_repeated_paragraphs_ratio)


@dataclass
class RepeatedLinesByCharFilter(TextFilter):
    """Keep documents in which the distinct lines make up enough of the characters of all lines."""

    max_repeated_lines_char_ratio: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "max_repeated_lines_char_ratio")

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        return ratio(text.per_row(distinct_sentence_chars), text.per_row(sentence_chars), empty=0.0)

    def limits(self) -> str:
        return (
            f"documents with at least {share(self.max_repeated_lines_char_ratio)} of the characters of their lines in "
        )
        "distinct lines"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_least(scores, self.max_repeated_lines_char_ratio)


@dataclass
class RepeatedParagraphsByCharFilter(TextFilter):
    """Keep documents in which the distinct paragraphs make up enough of the characters of all paragraphs."""

    max_repeated_paragraphs_char_ratio: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "max_repeated_paragraphs_char_ratio")

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        return ratio(text.per_row(distinct_paragraph_chars), text.per_row(paragraph_chars), empty=0.0)

    def limits(self) -> str:
        return f"documents with at least {share(self.max_repeated_paragraphs_char_ratio)} of the characters of their "
        "paragraphs in distinct paragraphs"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_least(scores, self.max_repeated_paragraphs_char_ratio)


@dataclass
class RepeatingTopNGramsFilter(TextFilter):
    """Drop documents that shrink too much if all occurrences of their most frequent n-gram of words are removed.

    A document of fewer than ``n`` words scores 1.
    """

    n: int = 2
    max_repeating_ngram_ratio: float = 0.2
    lang: str = "en"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_n(self)
        check_number(self, "max_repeating_ngram_ratio")
        check_lang(self)

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        scores = ratio(text.per_row(top_gram_removed, self.n), text.per_row(Block.char_counts), empty=1.0)
        return np.where(text.per_row(word_counts) < self.n, 1.0, scores)

    def limits(self) -> str:
        return f"documents with at most {share(self.max_repeating_ngram_ratio)} of their characters in their most frequent run of {count(self.n, 'word')}"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_most(scores, self.max_repeating_ngram_ratio)

    def short_name(self) -> str:
        return f"repeating_top_{self.n}grams"


@dataclass
class RepeatingDuplicateNGramsFilter(TextFilter):
    """Drop documents in which too many characters are in repeated n-grams of words.

    A document of fewer than ``n`` words scores 1.
    """

    n: int = 2
    max_repeating_duplicate_ngram_ratio: float = 0.2
    lang: str = "en"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_n(self)
        check_number(self, "max_repeating_duplicate_ngram_ratio")
        check_lang(self)

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        scores = ratio(text.per_row(covered_gram_chars, self.n), text.per_row(Block.char_counts), empty=1.0)
        return np.where(text.per_row(word_counts) < self.n, 1.0, scores)

    def limits(self) -> str:
        return f"documents with at most {share(self.max_repeating_duplicate_ngram_ratio)} of their characters in runs of {count(self.n, 'word')} that occurred before"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_most(scores, self.max_repeating_duplicate_ngram_ratio)

    def short_name(self) -> str:
        return f"repeating_duplicate_{self.n}grams"


def check_n(stage: Any) -> None:
    """Raise unless ``n`` is a number of words."""
    check_whole(f"{type(stage).__name__}.n", stage.n)
    if stage.n > MOST_WORDS:
        raise UsageError(f"{type(stage).__name__}.n must be at most {MOST_WORDS}, not {stage.n!r}")
