"""Curate text: read, extract, filter, score and deduplicate documents.

Names load on first use, so that `import curator_text` is quick.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "AlphaFilter": "filters.code",
    "BadWordsFilter": "filters.lists",
    "Blend": "blend",
    "Block": "features",
    "BoilerPlateStringFilter": "filters.heuristic",
    "BoilerplateLineRemover": "modifiers",
    "BulletsFilter": "filters.heuristic",
    "C4": "presets",
    "C4ParagraphFilter": "filters.recipes",
    "C4QualityFilter": "filters.recipes",
    "CommonCrawlDownload": "download",
    "CommonEnglishWordsFilter": "filters.heuristic",
    "ContentTypeClassifier": "models",
    "CsvReader": "readers",
    "DCLM": "presets",
    "DocumentFilter": "filters.base",
    "DocumentJoiner": "modifiers",
    "DocumentSplitter": "modifiers",
    "DomainClassifier": "models",
    "EllipsisFilter": "filters.heuristic",
    "FastTextLangId": "filters.fasttext",
    "FastTextQualityFilter": "filters.fasttext",
    "FineWeb": "presets",
    "FineWebEduClassifier": "models",
    "FineWebQualityFilter": "filters.recipes",
    "GeneralCommentToCodeFilter": "filters.code",
    "GlobalShuffle": "shuffle",
    "Gopher": "presets",
    "GopherQualityFilter": "filters.recipes",
    "GopherRepetitionFilter": "filters.recipes",
    "HTMLBoilerplateFilter": "filters.code",
    "HistogramFilter": "filters.histogram",
    "HtmlExtractor": "extract",
    "JsonlRead": "readers",
    "JsonlReader": "readers",
    "JsonlWriter": "writers",
    "KenLMPerplexityFilter": "filters.perplexity",
    "LanguageFilter": "language",
    "LineRemover": "modifiers",
    "LongWordFilter": "filters.heuristic",
    "MarkdownRemover": "modifiers",
    "MeanWordLengthFilter": "filters.heuristic",
    "MegatronWriter": "tokenize",
    "Modifier": "modifiers",
    "NewlineNormalizer": "modifiers",
    "NonAlphaNumericFilter": "filters.heuristic",
    "NumberOfLinesOfCodeFilter": "filters.code",
    "NumbersFilter": "filters.heuristic",
    "PackTokens": "tokenize",
    "ParenthesesFilter": "filters.heuristic",
    "ParquetRead": "readers",
    "ParquetReader": "readers",
    "ParquetWriter": "writers",
    "PerExtensionFilter": "filters.code",
    "PiiRedactor": "modifiers",
    "PornographicUrlsFilter": "filters.heuristic",
    "PunctuationFilter": "filters.heuristic",
    "PythonCode": "presets",
    "PythonCommentToCodeFilter": "filters.code",
    "QualityClassifier": "models",
    "QuotationRemover": "modifiers",
    "RefinedWeb": "presets",
    "RefinedWebLineFilter": "filters.recipes",
    "RepeatedLinesByCharFilter": "filters.repetition",
    "RepeatedLinesFilter": "filters.repetition",
    "RepeatedParagraphsByCharFilter": "filters.repetition",
    "RepeatedParagraphsFilter": "filters.repetition",
    "RepeatingDuplicateNGramsFilter": "filters.repetition",
    "RepeatingTopNGramsFilter": "filters.repetition",
    "ShuffleReader": "shuffle",
    "ShuffleWriter": "shuffle",
    "Slicer": "modifiers",
    "SplitByHash": "blend",
    "SubstringFilter": "filters.heuristic",
    "SymbolsToWordsFilter": "filters.heuristic",
    "TextClassifier": "models",
    "TextEmbedding": "models",
    "TextFeatures": "features",
    "TextFilesReader": "readers",
    "TextFilter": "filters.base",
    "TokenCountFilter": "filters.tokens",
    "Tokenize": "tokenize",
    "TokenizerFertilityFilter": "filters.tokens",
    "UnicodeRepair": "modifiers",
    "UrlBlocklistFilter": "filters.lists",
    "UrlDownload": "download",
    "UrlRemover": "modifiers",
    "UrlsFilter": "filters.heuristic",
    "WarcReader": "readers",
    "WebEnglish": "presets",
    "WhiteSpaceFilter": "filters.heuristic",
    "WhitespaceNormalizer": "modifiers",
    "WikipediaDumpReader": "extract.wikipedia",
    "WordCountFilter": "filters.heuristic",
    "WordsWithoutAlphabetsFilter": "filters.heuristic",
    "XMLHeaderFilter": "filters.code",
}

__all__ = sorted(_HOME)  # noqa: PLE0605 - the table above is the one place that lists names

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
