"""Downloads: a file arrives whole, or the failure is recorded."""

from __future__ import annotations

from curator_text.download.stages import CommonCrawlDownload, UrlDownload

__all__ = ["CommonCrawlDownload", "UrlDownload"]
