"""Makes a small JPEG of an image for people who read pages and reports, not for models."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pyarrow as pa

from curator_core.arrow.arrays import array
from curator_core.errors import check_whole
from curator_core.model.stage import ProcessingStage
from curator_image.batch import BYTES, ImageBatch
from curator_image.decode.pictures import pillow_pixels, pillow_resize
from curator_image.decode.probe import BadImage, probe

_QUALITY = 75
# A very long image is cut to its middle part, at most this many times as long as it is wide.
_LONGEST = 4


@dataclass(kw_only=True)
class Thumbnail(ProcessingStage[ImageBatch, ImageBatch]):
    """Adds a JPEG thumbnail with sides of at most ``side`` pixels for people to look at; null for an image that cannot
    be decoded.
    """

    side: int = 96
    thumbnail_column: str = "thumbnail"

    def __post_init__(self) -> None:
        check_whole("Thumbnail.side", self.side)

    def inputs(self) -> list[str]:
        return [BYTES]

    def outputs(self) -> list[str]:
        return [self.thumbnail_column]

    def process(self, task: ImageBatch) -> ImageBatch:
        images = task.to_pyarrow().column(BYTES)
        made = [None if image is None else jpeg_thumbnail(image, self.side) for image in images.to_pylist()]
        return task.append_column(self.thumbnail_column, array(made, pa.binary()))


def jpeg_thumbnail(image: bytes, side: int = 96) -> bytes | None:
    """A JPEG of an encoded image with sides of at most ``side`` pixels; None if it cannot be decoded."""
    from PIL import Image

    try:
        header = probe(image, check_end=False)
        longest = max(header.width, header.height)
        scale = next(scale for scale in (8, 4, 2, 1) if scale == 1 or longest // scale >= side)
        pixels = pillow_pixels(image, header, scale if header.format == "jpeg" else 1)
    except BadImage:
        return None
    height, width = pixels.shape[:2]
    across, down = min(width, _LONGEST * height), min(height, _LONGEST * width)
    left, top = (width - across) // 2, (height - down) // 2
    pixels = pixels[top : top + down, left : left + across]
    if max(across, down) > side:
        shrink = side / max(across, down)
        pixels = pillow_resize(pixels, max(1, round(across * shrink)), max(1, round(down * shrink)), "box")
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
