"""Extraction: pages and dumps become text."""

from __future__ import annotations

from curator_text.extract.html import HtmlExtractor

__all__ = ["HtmlExtractor"]
