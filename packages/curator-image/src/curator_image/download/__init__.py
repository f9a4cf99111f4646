"""Download images from lists of addresses into WebDataset tars."""

from __future__ import annotations

from curator_image.download.stage import ImageDownload, ImageFetch
from curator_image.download.urls import UrlListRead

__all__ = ["ImageDownload", "ImageFetch", "UrlListRead"]
