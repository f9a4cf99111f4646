"""Modifiers: stages that change the text of a column and count their changes."""

from __future__ import annotations

from curator_text.modifiers.base import Modifier
from curator_text.modifiers.pii import PiiRedactor
from curator_text.modifiers.split import DocumentJoiner, DocumentSplitter
from curator_text.modifiers.text import (
    BoilerplateLineRemover,
    LineRemover,
    MarkdownRemover,
    NewlineNormalizer,
    QuotationRemover,
    Slicer,
    UnicodeRepair,
    UrlRemover,
    WhitespaceNormalizer,
)

__all__ = [
    "BoilerplateLineRemover",
    "DocumentJoiner",
    "DocumentSplitter",
    "LineRemover",
    "MarkdownRemover",
    "Modifier",
    "NewlineNormalizer",
    "PiiRedactor",
    "QuotationRemover",
    "Slicer",
    "UnicodeRepair",
    "UrlRemover",
    "WhitespaceNormalizer",
]
