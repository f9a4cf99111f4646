"""Measures how many good photographs the defaults of BlurFilter and BorderFilter drop, and how many bad ones.

    python benchmarks/image_defaults.py PHOTO…

Each photograph is measured unchanged, cut out on plain backgrounds, blurred, and with bars and frames. The script
prints the share that each threshold drops; the table in docs/images.md comes from it.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from curator_image.decode import Picture, decode_batch
from curator_image.measures.stats import SINGLE, luma

GROUNDS = (255, 128, 20)


def opened(path: str) -> Image.Image:
    image = Image.open(path).convert("RGB")
    image.thumbnail((640, 640), Image.Resampling.LANCZOS)
    return image


def cut_out(image: Image.Image, share: float, tone: int, *, oval: bool) -> Image.Image:
    size = [max(1, int(side * share**0.5)) for side in image.size]
    mask = Image.new("L", size, 0 if oval else 255)
    if oval:
        ImageDraw.Draw(mask).ellipse((0, 0, size[0] - 1, size[1] - 1), fill=255)
    ground = Image.new("RGB", image.size, (tone,) * 3)
    place = [(outer - inner) // 2 for outer, inner in zip(image.size, size, strict=True)]
    ground.paste(image.resize(size, Image.Resampling.LANCZOS), place, mask)
    return ground


def barred(image: Image.Image, share: float, tone: int, *, upright: bool) -> Image.Image:
    size = [round(side / (1 - share)) if upright == (at == 0) else side for at, side in enumerate(image.size)]
    ground = Image.new("RGB", size, (tone,) * 3)
    ground.paste(image, [(outer - inner) // 2 for outer, inner in zip(size, image.size, strict=True)])
    return ground


def variants(images: list[Image.Image]) -> Iterator[tuple[str, list[Image.Image]]]:
    yield "as they are", images
    for share in (0.5, 0.25, 0.1):
        yield (
            f"cut out, {share:.0%} of plain background",
            [cut_out(i, share, t, oval=True) for i in images for t in GROUNDS],
        )
    for percent in (0.25, 0.5, 0.75, 1, 1.5, 2):
        blur = [image.filter(ImageFilter.GaussianBlur(max(image.size) * percent / 100)) for image in images]
        yield f"blurred by {percent} % of the longer side", blur
    for share in (0.12, 0.25):
        bars = [barred(image, share, tone, upright=u) for image in images for tone in (0, 255) for u in (False, True)]
        yield f"bars of {share:.0%} together", bars
    yield "frames of 36%", [cut_out(image, 0.64, tone, oval=False) for image in images for tone in (0, 255)]


def thumb(image: Image.Image) -> Any:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return decode_batch([out.getvalue()], Picture(128, 128, "squash", "bilinear"))[0][0]


def main(paths: list[str]) -> None:
    images = [opened(path) for path in paths]
    print(f"{len(images)} photographs; share dropped by")
    print(f"{'':36}sharpness under  50   100   150    border over 0.05  0.1   0.2")
    for name, made in variants(images):
        greys = [luma(thumb(image)) for image in made]
        blur, border = (np.array([SINGLE[what](grey) for grey in greys]) for what in ("blur", "border"))
        shares = [
            *((blur < level).mean() for level in (50, 100, 150)),
            *((border > s).mean() for s in (0.05, 0.1, 0.2)),
        ]
        print(f"{name:36}             " + "  ".join(f"{share:5.0%}" for share in shares))


if __name__ == "__main__":
    main(sys.argv[1:])
