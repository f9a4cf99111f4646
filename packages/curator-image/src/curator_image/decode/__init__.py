"""Decodes images: reads their headers, and makes pictures at the requested size."""

from __future__ import annotations

from curator_image.decode.picture import Picture
from curator_image.decode.pictures import CpuDecoder, Decoded, Decoder, cpu_decoder, decode_batch
from curator_image.decode.pixel_hash import PixelHash
from curator_image.decode.probe import BadImage, Header, probe
from curator_image.decode.stage import ImageDecode

__all__ = [
    "BadImage",
    "CpuDecoder",
    "Decoded",
    "Decoder",
    "Header",
    "ImageDecode",
    "Picture",
    "PixelHash",
    "cpu_decoder",
    "decode_batch",
    "probe",
]
