"""Downloads files completely, or records the failure."""

from __future__ import annotations

from curator_text.download.stages import CommonCrawlDownload, UrlDownload

__all__ = ["CommonCrawlDownload", "UrlDownload"]
