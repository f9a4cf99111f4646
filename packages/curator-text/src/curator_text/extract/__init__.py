"""Extracts text from pages and dumps."""

from __future__ import annotations

from curator_text.extract.html import HtmlExtractor

__all__ = ["HtmlExtractor"]
