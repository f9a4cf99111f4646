"""Curate images: read shards, filter, embed, score and deduplicate.

Names load on first use, so `import curator_image` is fast.
"""

from __future__ import annotations

from curator_core.lazy import lazy_names

_HOME = {
    "AestheticFilter": "aesthetic",
    "AspectRatioFilter": "measures.header",
    "BadImage": "decode.probe",
    "BlurFilter": "measures.pixels",
    "BorderFilter": "measures.pixels",
    "BrightnessFilter": "measures.pixels",
    "BytesPerPixelFilter": "measures.header",
    "CaptionDuplicateFilter": "measures.caption",
    "CaptionLengthFilter": "measures.caption",
    "CaptionScoreFilter": "caption_score",
    "CaptionToText": "convert",
    "ColorfulnessFilter": "measures.pixels",
    "ContrastFilter": "measures.pixels",
    "EntropyFilter": "measures.pixels",
    "FormatFilter": "measures.header",
    "ImageBatch": "batch",
    "ImageDecode": "decode.stage",
    "ImageDownload": "download.stage",
    "ImageDuplicateRemoval": "convert",
    "ImageEmbedding": "embedding",
    "ImageFetch": "download.stage",
    "ImageRead": "reading.read",
    "ImageReader": "reader",
    "ImageWriter": "writer",
    "ImagesToDocuments": "convert",
    "NSFWFilter": "nsfw",
    "Picture": "decode.picture",
    "PixelHash": "decode.pixel_hash",
    "ResolutionFilter": "measures.header",
    "Thumbnail": "thumbnail",
    "UniformFilter": "measures.pixels",
    "UrlListRead": "download.urls",
    "decode_batch": "decode.pictures",
    "jpeg_thumbnail": "thumbnail",
    "probe": "decode.probe",
}

__all__ = sorted(_HOME)  # noqa: PLE0605 - the table above is the only list of names

__version__ = "0.1.0"

__getattr__, __dir__ = lazy_names(__name__, _HOME)
