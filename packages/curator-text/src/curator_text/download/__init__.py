"""Downloads: files from the web, whole or told."""

from __future__ import annotations

from curator_text.download.fetch import CommonCrawlDownload, UrlDownload

__all__ = ["CommonCrawlDownload", "UrlDownload"]
