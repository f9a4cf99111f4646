"""Makes two WebDataset tars in a folder: drawn landscapes with captions, and typical damage of tars.

    python make_data.py FOLDER

The same bytes every time. Needs Pillow, which curator-image installs.
"""

from __future__ import annotations

import io
import json
import random
import sys
import tarfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

COLOURS = {"red": (190, 60, 50), "green": (60, 140, 70), "blue": (60, 90, 170), "yellow": (215, 185, 60)}
# The widths of the small pictures of each tar, and how blurred others are.
SIZES = ((48, 118, 126, 132), (64, 124, 130, 160))
RADII = ((9, 2.1, 1.9, 1.2), (6, 2.4, 2, 1.6))


def landscape(random_: random.Random, width: int, height: int) -> tuple[Image.Image, str]:
    """A picture of hills under a sky, with a house, and its caption."""
    name, roof = random_.choice(list(COLOURS.items()))
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    for y in range(height):
        draw.line((0, y, width, y), fill=(120 + 100 * y // height, 160 + 60 * y // height, 230 - 40 * y // height))
    for layer in range(4):
        base = height * (3 + layer) // 7
        points = [(x, base + random_.randint(-height // 9, height // 9)) for x in range(0, width + 40, 40)]
        shade = 130 - 25 * layer
        draw.polygon([(0, height), *points, (width, height)], fill=(shade - 30, shade, shade - 45))
    for _ in range(width * height // 60):  # grass, so that the picture has sharp details
        x, y = random_.randrange(width), random_.randrange(height * 3 // 4, height)
        draw.line((x, y, x + random_.randint(-2, 2), y - 5), fill=(60, random_.randint(90, 170), 50))
    side = width // 6
    x, y = random_.randint(side, width - 2 * side), height * 2 // 3
    draw.rectangle((x, y - side, x + side, y), fill=(225, 215, 195))
    draw.polygon([(x - 8, y - side), (x + side // 2, y - 2 * side + 10), (x + side + 8, y - side)], fill=roof)
    return image, f"a house with a {name} roof in front of green hills"


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if kind == "jpg" else kind.upper(), quality=88)
    return buffer.getvalue()


def main(folder: str) -> None:
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    random_ = random.Random(11)
    for shard in range(2):
        with tarfile.open(target / f"houses-{shard}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(40):
                key = f"{shard}{number:05d}"
                image, caption = landscape(random_, random_.randint(260, 420), random_.randint(260, 420))
                kind = random_.choice(("jpg", "jpg", "jpg", "png", "webp"))
                # Some that a limit only just keeps or drops, and some that are plainly wrong.
                if number % 10 == 3:
                    image = image.resize((SIZES[shard][number // 10], 140))
                if number % 10 == 5:
                    image = image.filter(ImageFilter.GaussianBlur(RADII[shard][number // 10]))
                if number % 20 == 7:
                    plain = Image.new("RGB", image.size, COLOURS["blue"])
                    plain.paste(image.crop((0, 0, image.width, image.height * (number - 7) // 170)))
                    image = plain
                data = encoded(image, kind)
                if number % 20 == 9:
                    data = data[: len(data) // 3]  # cut short
                if number == 11:
                    data = b""
                meta = json.dumps({"key": key, "width": image.width, "height": image.height})
                for extension, content in ((kind, data), ("txt", caption.encode()), ("json", meta.encode())):
                    info = tarfile.TarInfo(f"{key}.{extension}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


if __name__ == "__main__":
    main(sys.argv[1])
