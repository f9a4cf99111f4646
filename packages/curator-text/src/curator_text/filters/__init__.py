"""Filters over a column of text. Names load on first use."""

from __future__ import annotations

from curator_core.lazy import lazy_names

_HOME = {
    "AlphaFilter": "code",
    "BadWordsFilter": "lists",
    "BoilerPlateStringFilter": "heuristic",
    "BulletsFilter": "heuristic",
    "C4ParagraphFilter": "recipes",
    "C4QualityFilter": "recipes",
    "CommonEnglishWordsFilter": "heuristic",
    "DocumentFilter": "base",
    "EllipsisFilter": "heuristic",
    "FastTextLangId": "fasttext",
    "FastTextQualityFilter": "fasttext",
    "FineWebQualityFilter": "recipes",
    "GeneralCommentToCodeFilter": "code",
    "GopherQualityFilter": "recipes",
    "GopherRepetitionFilter": "recipes",
    "HTMLBoilerplateFilter": "code",
    "HistogramFilter": "histogram",
    "KenLMPerplexityFilter": "perplexity",
    "LongWordFilter": "heuristic",
    "MeanWordLengthFilter": "heuristic",
    "NonAlphaNumericFilter": "heuristic",
    "NumberOfLinesOfCodeFilter": "code",
    "NumbersFilter": "heuristic",
    "ParenthesesFilter": "heuristic",
    "PerExtensionFilter": "code",
    "PornographicUrlsFilter": "heuristic",
    "PunctuationFilter": "heuristic",
    "PythonCommentToCodeFilter": "code",
    "RefinedWebLineFilter": "recipes",
    "RepeatedLinesByCharFilter": "repetition",
    "RepeatedLinesFilter": "repetition",
    "RepeatedParagraphsByCharFilter": "repetition",
    "RepeatedParagraphsFilter": "repetition",
    "RepeatingDuplicateNGramsFilter": "repetition",
    "RepeatingTopNGramsFilter": "repetition",
    "SubstringFilter": "heuristic",
    "SymbolsToWordsFilter": "heuristic",
    "TextFilter": "base",
    "TokenCountFilter": "tokens",
    "TokenizerFertilityFilter": "tokens",
    "UrlBlocklistFilter": "lists",
    "UrlsFilter": "heuristic",
    "WhiteSpaceFilter": "heuristic",
    "WordCountFilter": "heuristic",
    "WordsWithoutAlphabetsFilter": "heuristic",
    "XMLHeaderFilter": "code",
}

__all__ = sorted(_HOME)  # noqa: PLE0605 - the table above is the one place that lists names

__getattr__, __dir__ = lazy_names(__name__, _HOME)
