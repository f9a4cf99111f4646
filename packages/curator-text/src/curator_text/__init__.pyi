# Made from _HOME in __init__.py; not for editing: `make generate` renews it.

from curator_text.blend import Blend as Blend
from curator_text.blend import SplitByHash as SplitByHash
from curator_text.decontaminate import CountTestNgrams as CountTestNgrams
from curator_text.decontaminate import Decontaminate as Decontaminate
from curator_text.decontaminate import Decontamination as Decontamination
from curator_text.dedup.fuzzy import FuzzyDedup as FuzzyDedup
from curator_text.download import CommonCrawlDownload as CommonCrawlDownload
from curator_text.download import UrlDownload as UrlDownload
from curator_text.extract import HtmlExtractor as HtmlExtractor
from curator_text.extract.wikipedia import WikipediaDumpRead as WikipediaDumpRead
from curator_text.extract.wikipedia import WikipediaDumpReader as WikipediaDumpReader
from curator_text.features import Block as Block
from curator_text.features import TextFeatures as TextFeatures
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
from curator_text.language import LanguageFilter as LanguageFilter
from curator_text.models import ContentTypeClassifier as ContentTypeClassifier
from curator_text.models import DomainClassifier as DomainClassifier
from curator_text.models import FineWebEduClassifier as FineWebEduClassifier
from curator_text.models import QualityClassifier as QualityClassifier
from curator_text.models import TextClassifier as TextClassifier
from curator_text.models import TextEmbedding as TextEmbedding
from curator_text.modifiers import BoilerplateLineRemover as BoilerplateLineRemover
from curator_text.modifiers import DocumentJoiner as DocumentJoiner
from curator_text.modifiers import DocumentSplitter as DocumentSplitter
from curator_text.modifiers import LineRemover as LineRemover
from curator_text.modifiers import MarkdownRemover as MarkdownRemover
from curator_text.modifiers import Modifier as Modifier
from curator_text.modifiers import NewlineNormalizer as NewlineNormalizer
from curator_text.modifiers import PiiRedactor as PiiRedactor
from curator_text.modifiers import QuotationRemover as QuotationRemover
from curator_text.modifiers import Slicer as Slicer
from curator_text.modifiers import UnicodeRepair as UnicodeRepair
from curator_text.modifiers import UrlRemover as UrlRemover
from curator_text.modifiers import WhitespaceNormalizer as WhitespaceNormalizer
from curator_text.presets import C4 as C4
from curator_text.presets import DCLM as DCLM
from curator_text.presets import FineWeb as FineWeb
from curator_text.presets import Gopher as Gopher
from curator_text.presets import PythonCode as PythonCode
from curator_text.presets import RefinedWeb as RefinedWeb
from curator_text.presets import WebEnglish as WebEnglish
from curator_text.readers import CsvRead as CsvRead
from curator_text.readers import CsvReader as CsvReader
from curator_text.readers import JsonlRead as JsonlRead
from curator_text.readers import JsonlReader as JsonlReader
from curator_text.readers import ParquetRead as ParquetRead
from curator_text.readers import ParquetReader as ParquetReader
from curator_text.readers import TextFilesRead as TextFilesRead
from curator_text.readers import TextFilesReader as TextFilesReader
from curator_text.readers import WarcRead as WarcRead
from curator_text.readers import WarcReader as WarcReader
from curator_text.repeats.workflows import LineDedup as LineDedup
from curator_text.repeats.workflows import SubstringDedup as SubstringDedup
from curator_text.shuffle import GlobalShuffle as GlobalShuffle
from curator_text.shuffle import ShuffleReader as ShuffleReader
from curator_text.shuffle import ShuffleWriter as ShuffleWriter
from curator_text.tokenize import MegatronWriter as MegatronWriter
from curator_text.tokenize import PackTokens as PackTokens
from curator_text.tokenize import Tokenize as Tokenize
from curator_text.writers import JsonlWriter as JsonlWriter
from curator_text.writers import ParquetWriter as ParquetWriter

__all__ = [
    "C4",
    "DCLM",
    "AlphaFilter",
    "BadWordsFilter",
    "Blend",
    "Block",
    "BoilerPlateStringFilter",
    "BoilerplateLineRemover",
    "BulletsFilter",
    "C4ParagraphFilter",
    "C4QualityFilter",
    "CommonCrawlDownload",
    "CommonEnglishWordsFilter",
    "ContentTypeClassifier",
    "CountTestNgrams",
    "CsvRead",
    "CsvReader",
    "Decontaminate",
    "Decontamination",
    "DocumentFilter",
    "DocumentJoiner",
    "DocumentSplitter",
    "DomainClassifier",
    "EllipsisFilter",
    "FastTextLangId",
    "FastTextQualityFilter",
    "FineWeb",
    "FineWebEduClassifier",
    "FineWebQualityFilter",
    "FuzzyDedup",
    "GeneralCommentToCodeFilter",
    "GlobalShuffle",
    "Gopher",
    "GopherQualityFilter",
    "GopherRepetitionFilter",
    "HTMLBoilerplateFilter",
    "HistogramFilter",
    "HtmlExtractor",
    "JsonlRead",
    "JsonlReader",
    "JsonlWriter",
    "KenLMPerplexityFilter",
    "LanguageFilter",
    "LineDedup",
    "LineRemover",
    "LongWordFilter",
    "MarkdownRemover",
    "MeanWordLengthFilter",
    "MegatronWriter",
    "Modifier",
    "NewlineNormalizer",
    "NonAlphaNumericFilter",
    "NumberOfLinesOfCodeFilter",
    "NumbersFilter",
    "PackTokens",
    "ParenthesesFilter",
    "ParquetRead",
    "ParquetReader",
    "ParquetWriter",
    "PerExtensionFilter",
    "PiiRedactor",
    "PornographicUrlsFilter",
    "PunctuationFilter",
    "PythonCode",
    "PythonCommentToCodeFilter",
    "QualityClassifier",
    "QuotationRemover",
    "RefinedWeb",
    "RefinedWebLineFilter",
    "RepeatedLinesByCharFilter",
    "RepeatedLinesFilter",
    "RepeatedParagraphsByCharFilter",
    "RepeatedParagraphsFilter",
    "RepeatingDuplicateNGramsFilter",
    "RepeatingTopNGramsFilter",
    "ShuffleReader",
    "ShuffleWriter",
    "Slicer",
    "SplitByHash",
    "SubstringDedup",
    "SubstringFilter",
    "SymbolsToWordsFilter",
    "TextClassifier",
    "TextEmbedding",
    "TextFeatures",
    "TextFilesRead",
    "TextFilesReader",
    "TextFilter",
    "TokenCountFilter",
    "Tokenize",
    "TokenizerFertilityFilter",
    "UnicodeRepair",
    "UrlBlocklistFilter",
    "UrlDownload",
    "UrlRemover",
    "UrlsFilter",
    "WarcRead",
    "WarcReader",
    "WebEnglish",
    "WhiteSpaceFilter",
    "WhitespaceNormalizer",
    "WikipediaDumpRead",
    "WikipediaDumpReader",
    "WordCountFilter",
    "WordsWithoutAlphabetsFilter",
    "XMLHeaderFilter",
]

__version__: str
