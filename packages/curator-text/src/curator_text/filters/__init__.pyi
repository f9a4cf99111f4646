# Made from _HOME in __init__.py; not for editing: `make generate` renews it.

from curator_text.filters.base import DocumentFilter as DocumentFilter
from curator_text.filters.base import TextFilter as TextFilter
from curator_text.filters.code import AlphaFilter as AlphaFilter
from curator_text.filters.code import GeneralCommentToCodeFilter as GeneralCommentToCodeFilter
from curator_text.filters.code import HTMLBoilerplateFilter as HTMLBoilerplateFilter
from curator_text.filters.code import NumberOfLinesOfCodeFilter as NumberOfLinesOfCodeFilter
from curator_text.filters.code import PerExtensionFilter as PerExtensionFilter
from curator_text.filters.code import PythonCommentToCodeFilter as PythonCommentToCodeFilter
from curator_text.filters.code import XMLHeaderFilter as XMLHeaderFilter
from curator_text.filters.fasttext import FastTextLangId as FastTextLangId
from curator_text.filters.fasttext import FastTextQualityFilter as FastTextQualityFilter
from curator_text.filters.heuristic import BoilerPlateStringFilter as BoilerPlateStringFilter
from curator_text.filters.heuristic import BulletsFilter as BulletsFilter
from curator_text.filters.heuristic import CommonEnglishWordsFilter as CommonEnglishWordsFilter
from curator_text.filters.heuristic import EllipsisFilter as EllipsisFilter
from curator_text.filters.heuristic import LongWordFilter as LongWordFilter
from curator_text.filters.heuristic import MeanWordLengthFilter as MeanWordLengthFilter
from curator_text.filters.heuristic import NonAlphaNumericFilter as NonAlphaNumericFilter
from curator_text.filters.heuristic import NumbersFilter as NumbersFilter
from curator_text.filters.heuristic import ParenthesesFilter as ParenthesesFilter
from curator_text.filters.heuristic import PornographicUrlsFilter as PornographicUrlsFilter
from curator_text.filters.heuristic import PunctuationFilter as PunctuationFilter
from curator_text.filters.heuristic import SubstringFilter as SubstringFilter
from curator_text.filters.heuristic import SymbolsToWordsFilter as SymbolsToWordsFilter
from curator_text.filters.heuristic import UrlsFilter as UrlsFilter
from curator_text.filters.heuristic import WhiteSpaceFilter as WhiteSpaceFilter
from curator_text.filters.heuristic import WordCountFilter as WordCountFilter
from curator_text.filters.heuristic import WordsWithoutAlphabetsFilter as WordsWithoutAlphabetsFilter
from curator_text.filters.histogram import HistogramFilter as HistogramFilter
from curator_text.filters.lists import BadWordsFilter as BadWordsFilter
from curator_text.filters.lists import UrlBlocklistFilter as UrlBlocklistFilter
from curator_text.filters.perplexity import KenLMPerplexityFilter as KenLMPerplexityFilter
from curator_text.filters.recipes import C4ParagraphFilter as C4ParagraphFilter
from curator_text.filters.recipes import C4QualityFilter as C4QualityFilter
from curator_text.filters.recipes import FineWebQualityFilter as FineWebQualityFilter
from curator_text.filters.recipes import GopherQualityFilter as GopherQualityFilter
from curator_text.filters.recipes import GopherRepetitionFilter as GopherRepetitionFilter
from curator_text.filters.recipes import RefinedWebLineFilter as RefinedWebLineFilter
from curator_text.filters.repetition import RepeatedLinesByCharFilter as RepeatedLinesByCharFilter
from curator_text.filters.repetition import RepeatedLinesFilter as RepeatedLinesFilter
from curator_text.filters.repetition import RepeatedParagraphsByCharFilter as RepeatedParagraphsByCharFilter
from curator_text.filters.repetition import RepeatedParagraphsFilter as RepeatedParagraphsFilter
from curator_text.filters.repetition import RepeatingDuplicateNGramsFilter as RepeatingDuplicateNGramsFilter
from curator_text.filters.repetition import RepeatingTopNGramsFilter as RepeatingTopNGramsFilter
from curator_text.filters.tokens import TokenCountFilter as TokenCountFilter
from curator_text.filters.tokens import TokenizerFertilityFilter as TokenizerFertilityFilter

__all__ = [
    "AlphaFilter",
    "BadWordsFilter",
    "BoilerPlateStringFilter",
    "BulletsFilter",
    "C4ParagraphFilter",
    "C4QualityFilter",
    "CommonEnglishWordsFilter",
    "DocumentFilter",
    "EllipsisFilter",
    "FastTextLangId",
    "FastTextQualityFilter",
    "FineWebQualityFilter",
    "GeneralCommentToCodeFilter",
    "GopherQualityFilter",
    "GopherRepetitionFilter",
    "HTMLBoilerplateFilter",
    "HistogramFilter",
    "KenLMPerplexityFilter",
    "LongWordFilter",
    "MeanWordLengthFilter",
    "NonAlphaNumericFilter",
    "NumberOfLinesOfCodeFilter",
    "NumbersFilter",
    "ParenthesesFilter",
    "PerExtensionFilter",
    "PornographicUrlsFilter",
    "PunctuationFilter",
    "PythonCommentToCodeFilter",
    "RefinedWebLineFilter",
    "RepeatedLinesByCharFilter",
    "RepeatedLinesFilter",
    "RepeatedParagraphsByCharFilter",
    "RepeatedParagraphsFilter",
    "RepeatingDuplicateNGramsFilter",
    "RepeatingTopNGramsFilter",
    "SubstringFilter",
    "SymbolsToWordsFilter",
    "TextFilter",
    "TokenCountFilter",
    "TokenizerFertilityFilter",
    "UrlBlocklistFilter",
    "UrlsFilter",
    "WhiteSpaceFilter",
    "WordCountFilter",
    "WordsWithoutAlphabetsFilter",
    "XMLHeaderFilter",
]
