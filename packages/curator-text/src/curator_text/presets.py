"""Published recipes: each is a sequence of filters with the limits of its paper.

Recipes are composites, so a plan shows their filters, and a run counts the documents that each filter drops. To change
a limit, or to insert a filter, list the filters yourself: ``Gopher().decompose()`` returns them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from curator_core.errors import UsageError
from curator_core.model.stage import CompositeStage, ProcessingStage
from curator_core.model.task import DocumentBatch
from curator_text.filters import code, heuristic, lists, recipes, repetition
from curator_text.language import LanguageFilter

Stages = list[ProcessingStage[Any, Any]]


@dataclass(kw_only=True)
class Recipe(CompositeStage[DocumentBatch, DocumentBatch]):
    """Base of the recipes: the column that they read, and the treatment of documents that do not pass.

    ``mode="annotate"`` drops nothing and changes no text: each filter adds columns with its score and its decision.
    """

    column: str = "text"
    mode: Literal["filter", "annotate"] = "filter"

    def filters(self) -> Stages:
        """The filters of the recipe, in order."""
        raise NotImplementedError(f"{type(self).__name__} needs filters()")

    def decompose(self) -> Stages:
        found = self.filters()
        return found if self.mode == "filter" else [stage.with_(mode=self.mode) for stage in found]

    def __post_init__(self) -> None:
        if self.mode not in ("filter", "annotate"):
            raise UsageError(f"{type(self).__name__}.mode must be 'filter' or 'annotate', not {self.mode!r}")
        if not isinstance(self.column, str) or not self.column:
            raise UsageError(f"{type(self).__name__}.column must be the name of a column, not {self.column!r}")


@dataclass
class WebEnglish(Recipe):
    """The 28 heuristics for English web text from NeMo Curator's configuration."""

    def filters(self) -> Stages:
        here: dict[str, Any] = {"column": self.column}
        return [
            heuristic.NonAlphaNumericFilter(**here),
            heuristic.SymbolsToWordsFilter(**here),
            heuristic.NumbersFilter(**here),
            heuristic.UrlsFilter(**here),
            heuristic.WhiteSpaceFilter(**here),
            heuristic.ParenthesesFilter(**here),
            heuristic.BoilerPlateStringFilter(**here),
            repetition.RepeatedLinesFilter(**here),
            repetition.RepeatedParagraphsFilter(**here),
            repetition.RepeatedLinesByCharFilter(**here),
            repetition.RepeatedParagraphsByCharFilter(**here),
            heuristic.WordCountFilter(**here),
            heuristic.PunctuationFilter(**here),
            heuristic.WordsWithoutAlphabetsFilter(**here),
            heuristic.CommonEnglishWordsFilter(**here),
            heuristic.MeanWordLengthFilter(**here),
            heuristic.LongWordFilter(**here),
            heuristic.EllipsisFilter(**here),
            *(
                repetition.RepeatingTopNGramsFilter(n=n, max_repeating_ngram_ratio=limit, **here)
                for n, limit in ((2, 0.2), (3, 0.18), (4, 0.16))
            ),
            *(
                repetition.RepeatingDuplicateNGramsFilter(n=n, max_repeating_duplicate_ngram_ratio=limit, **here)
                for n, limit in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
            ),
            heuristic.BulletsFilter(**here),
        ]


@dataclass
class Gopher(Recipe):
    """The filters of Gopher's MassiveText: repetition, then quality."""

    def filters(self) -> Stages:
        return [recipes.GopherRepetitionFilter(column=self.column), recipes.GopherQualityFilter(column=self.column)]


@dataclass
class C4(Recipe):
    """The filters of C4. It removes lines from the text; ``bad_words`` is an optional list or file.

    ``language`` keeps only documents in that language, with a probability of at least ``min_language_score`` (C4 itself
    uses English and 0.99); it needs the extra ``language``.
    """

    maybe_paths = ("bad_words",)

    bad_words: str | Sequence[str] | None = None
    language: str | Sequence[str] | None = None
    min_language_score: float = 0.99
    min_paragraphs: int | None = None

    def filters(self) -> Stages:
        found: Stages = _language(self.language, self.min_language_score, self.column)
        found.append(recipes.C4QualityFilter(column=self.column))
        if self.min_paragraphs:
            found.append(recipes.C4ParagraphFilter(self.min_paragraphs, column=self.column))
        if self.bad_words:
            found.append(lists.BadWordsFilter(self.bad_words, column=self.column))
        return found


@dataclass
class FineWeb(Recipe):
    """The filters of FineWeb: addresses, language, the two of Gopher, the one of C4 without ends of lines, and
    FineWeb's own.

    ``blocked_domains`` and ``blocked_words`` are optional lists or files for the column ``url``; if ``language`` is
    None, the language is not checked and no extra is needed.
    """

    maybe_paths = ("blocked_domains", "blocked_words")

    language: str | Sequence[str] | None = "en"
    min_language_score: float = 0.65
    blocked_domains: str | Sequence[str] | None = None
    blocked_words: str | Sequence[str] | None = None
    url_column: str = "url"

    def filters(self) -> Stages:
        return [
            *_addresses(self.blocked_domains, self.blocked_words, self.url_column),
            *_language(self.language, self.min_language_score, self.column),
            recipes.GopherRepetitionFilter(column=self.column),
            recipes.GopherQualityFilter(column=self.column),
            recipes.C4QualityFilter(filter_no_terminal_punct=False, column=self.column),
            recipes.FineWebQualityFilter(column=self.column),
        ]


@dataclass
class RefinedWeb(Recipe):
    """The filters of RefinedWeb after extraction: addresses, language, repetition, quality, corrections by line."""

    maybe_paths = ("blocked_domains", "blocked_words")

    language: str | Sequence[str] | None = "en"
    min_language_score: float = 0.65
    blocked_domains: str | Sequence[str] | None = None
    blocked_words: str | Sequence[str] | None = None
    url_column: str = "url"

    def filters(self) -> Stages:
        return [
            *_addresses(self.blocked_domains, self.blocked_words, self.url_column),
            *_language(self.language, self.min_language_score, self.column),
            recipes.GopherRepetitionFilter(column=self.column),
            recipes.GopherQualityFilter(column=self.column),
            recipes.RefinedWebLineFilter(column=self.column),
        ]


@dataclass
class DCLM(Recipe):
    """The heuristics of DCLM-Baseline, which are based on those of RefinedWeb: all steps before its deduplication and
    its model.
    """

    maybe_paths = ("blocked_domains", "blocked_words")

    language: str | Sequence[str] | None = "en"
    min_language_score: float = 0.65
    blocked_domains: str | Sequence[str] | None = None
    blocked_words: str | Sequence[str] | None = None
    url_column: str = "url"

    def filters(self) -> Stages:
        return [
            *_addresses(self.blocked_domains, self.blocked_words, self.url_column),
            *_language(self.language, self.min_language_score, self.column),
            recipes.RefinedWebLineFilter(column=self.column),
            recipes.GopherRepetitionFilter(column=self.column),
            recipes.GopherQualityFilter(column=self.column),
        ]


@dataclass
class PythonCode(Recipe):
    """Filters for Python files: comments, lines, letters, and files that are actually XML."""

    def filters(self) -> Stages:
        here: dict[str, Any] = {"column": self.column}
        return [
            code.NumberOfLinesOfCodeFilter(**here),
            code.XMLHeaderFilter(**here),
            code.AlphaFilter(**here),
            code.PythonCommentToCodeFilter(**here),
        ]


def _language(language: str | Sequence[str] | None, min_score: float, column: str) -> Stages:
    return [LanguageFilter(language, min_score, column=column)] if language else []


def _addresses(domains: str | Sequence[str] | None, words: str | Sequence[str] | None, column: str) -> Stages:
    return [lists.UrlBlocklistFilter(domains, words=words, column=column)] if domains or words else []
