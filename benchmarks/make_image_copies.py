"""Tars of pictures of which a tenth are changed copies of another one, and labels: which picture each shows, and what was done.

    python benchmarks/make_image_copies.py FOLDER --images 4000
    python benchmarks/make_image_copies.py FOLDER --photos PHOTOS

The pictures are those of make_images.py. With ``--photos`` each of the photographs in a folder gets a copy of every kind, in place of
one in ten. The same bytes for the same arguments, wherever libjpeg and FreeType are the same.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from make_images import encode, picture
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

type Change = Callable[[Image.Image, np.random.Generator], bytes]

TARS, SIDE = 8, 330


def cropped(share: float) -> Change:
    def change(image: Image.Image, rng: np.random.Generator) -> bytes:
        width, height = image.size
        left, top = (int(size * share * rng.random()) for size in image.size)
        return encode(image.crop((left, top, left + width - int(width * share), top + height - int(height * share))))

    return change


def captioned(image: Image.Image, rng: np.random.Generator) -> bytes:
    image = image.copy()
    size = max(10, image.height // 12)
    at = (image.width // 20, int(image.height * rng.uniform(0.05, 0.85)))
    ImageDraw.Draw(image).text(
        at, "A caption across the picture", "white", ImageFont.load_default(size), stroke_width=1, stroke_fill="black"
    )
    return encode(image)


def bordered(image: Image.Image, rng: np.random.Generator) -> bytes:
    return encode(ImageOps.expand(image, image.width // 12, (0, 0, 0) if rng.random() < 0.5 else (255, 255, 255)))


CHANGES: dict[str, Change] = {
    "resize": lambda image, _: encode(image.resize((image.width // 2, image.height // 2))),
    "quality_30": lambda image, _: encode(image, quality=30),
    "crop_2": cropped(0.02),
    "crop_5": cropped(0.05),
    "crop_10": cropped(0.10),
    "brightness": lambda image, _: encode(ImageEnhance.Brightness(image).enhance(1.3)),
    "border": bordered,
    "mirror": lambda image, _: encode(ImageOps.mirror(image)),
    "text": captioned,
}


def generated(images: int) -> list[tuple[int, str, bytes]]:
    """The picture that each image shows, what was done to it, and its bytes."""
    copies = images // 10
    kinds = list(CHANGES)
    made = []
    for number in range(images - copies):
        image = picture(number, SIDE)
        made.append((number, "original", encode(image)))
        if number < copies:
            kind = kinds[number % len(kinds)]
            made.append((number, kind, CHANGES[kind](image, np.random.default_rng(number))))
    return made


def of_photos(folder: Path) -> list[tuple[int, str, bytes]]:
    made = []
    for number, path in enumerate(sorted(path for path in folder.iterdir() if path.suffix != ".json")):
        image = Image.open(path).convert("RGB")
        made.append((number, "original", encode(image)))
        made += [(number, kind, change(image, np.random.default_rng(number))) for kind, change in CHANGES.items()]
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--photos", type=Path)
    options = parser.parse_args()
    made = of_photos(options.photos) if options.photos else generated(options.images)
    order = np.random.default_rng(1).permutation(len(made)).tolist()
    options.folder.mkdir(parents=True, exist_ok=True)
    labels = {}
    for tar_number in range(TARS):
        places = range(len(order) * tar_number // TARS, len(order) * (tar_number + 1) // TARS)
        with tarfile.open(options.folder / f"{tar_number:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for place in places:
                number, kind, data = made[order[place]]
                key = f"{place:06d}"
                labels[key] = [number, kind]
                info = tarfile.TarInfo(f"{key}.jpg")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    (options.folder / "labels.json").write_text(json.dumps(labels))


if __name__ == "__main__":
    main()
