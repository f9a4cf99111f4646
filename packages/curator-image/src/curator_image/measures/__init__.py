"""Measures of images that need no model; each annotates, filters, or filters inversely."""

from __future__ import annotations

from curator_image.measures.caption import CaptionDuplicateFilter, CaptionLengthFilter
from curator_image.measures.header import AspectRatioFilter, BytesPerPixelFilter, FormatFilter, ResolutionFilter
from curator_image.measures.pixels import (
    BlurFilter,
    BorderFilter,
    BrightnessFilter,
    ColorfulnessFilter,
    ContrastFilter,
    EntropyFilter,
    UniformFilter,
)
from curator_image.measures.stats import PictureStats

__all__ = [
    "AspectRatioFilter",
    "BlurFilter",
    "BorderFilter",
    "BrightnessFilter",
    "BytesPerPixelFilter",
    "CaptionDuplicateFilter",
    "CaptionLengthFilter",
    "ColorfulnessFilter",
    "ContrastFilter",
    "EntropyFilter",
    "FormatFilter",
    "PictureStats",
    "ResolutionFilter",
    "UniformFilter",
]
