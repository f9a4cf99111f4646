"""Makes two WebDataset tars in a folder: drawn tiles, some of which are in two files.

    python make_data.py FOLDER

The same bytes every time. Needs Pillow, which curator-image brings.
"""

from __future__ import annotations

import io
import random
import sys
import tarfile
from pathlib import Path

from PIL import Image, ImageDraw

PICTURES = 24


def tile(seed: int) -> Image.Image:
    """A picture of coloured shapes."""
    random_ = random.Random(seed)
    image = Image.new("RGB", (96, 72), tuple(random_.randrange(256) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = random_.randrange(96), random_.randrange(72)
        size = random_.randint(6, 30)
        draw.ellipse((x, y, x + size, y + size), fill=tuple(random_.randrange(256) for _ in range(3)))
    return image


def encoded(image: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "webp":
        image.save(out, "WEBP", lossless=True)
    else:
        image.save(out, "PNG" if kind == "png" else "JPEG", quality=90)
    return out.getvalue()


def main(folder: str) -> None:
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for shard in range(2):
        with tarfile.open(target / f"tiles-{shard}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(PICTURES):
                # Four files of the second tar are also in the first, and four others have the same pixels as files of
                # the first.
                same = shard == 1 and number % 3 == 0
                seed = number if same else 100 * shard + number
                kind = "webp" if same and number % 2 else "png" if number % 3 == 0 else "jpg"
                data = encoded(tile(seed), kind)
                if number == 7:
                    data = data[: len(data) // 2]  # cut short
                info = tarfile.TarInfo(f"{shard}{number:05d}.{kind}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    main(sys.argv[1])
