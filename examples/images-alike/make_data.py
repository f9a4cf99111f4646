"""Makes two WebDataset tars in a folder: drawn scenes, and changed copies of some of them in the second tar.

    python make_data.py FOLDER

The same bytes every time. Needs Pillow, which curator-image installs.
"""

from __future__ import annotations

import io
import random
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageEnhance, ImageOps

WIDTH, HEIGHT = 320, 240
SCENES = 24


def scene(seed: int) -> Image.Image:
    """Draws hills, a sky with clouds and a sun, and houses, at places that depend on the seed."""
    chance = random.Random(seed)
    image = Image.new("RGB", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(image)
    top, bottom = ([chance.randrange(90, 240) for _ in range(3)] for _ in range(2))
    for y in range(HEIGHT):
        draw.line((0, y, WIDTH, y), tuple(a + (b - a) * y // HEIGHT for a, b in zip(top, bottom, strict=True)))
    for _ in range(chance.randint(3, 6)):
        x, y, size = chance.randrange(WIDTH), chance.randrange(HEIGHT // 2), chance.randint(20, 70)
        shade = chance.randrange(200, 256)
        draw.ellipse((x - size, y - size // 3, x + size, y + size // 3), (shade, shade, shade))
    x, y, size = chance.randrange(WIDTH), chance.randrange(HEIGHT // 3), chance.randint(12, 30)
    draw.ellipse((x - size, y - size, x + size, y + size), (250, chance.randrange(180, 250), 60))
    for layer in range(3):
        line, height = [], HEIGHT * (4 + layer) // 7
        for x in range(-40, WIDTH + 80, 40):
            line.append((x, height + chance.randint(-45, 25)))
        draw.polygon([*line, (WIDTH, HEIGHT), (0, HEIGHT)], tuple(chance.randrange(20, 150) for _ in range(3)))
    for _ in range(chance.randint(2, 6)):
        x, y, size = chance.randrange(WIDTH), chance.randrange(HEIGHT // 2, HEIGHT), chance.randint(12, 34)
        draw.rectangle((x, y, x + size, y + size), tuple(chance.randrange(60, 240) for _ in range(3)))
        draw.polygon(
            ((x - 4, y), (x + size // 2, y - size // 2), (x + size + 4, y)),
            tuple(chance.randrange(40, 160) for _ in range(3)),
        )
    return image


def captioned(image: Image.Image) -> Image.Image:
    ImageDraw.Draw(image).text((12, HEIGHT - 28), "somewhere else", "white", font_size=16)
    return image


def cropped(image: Image.Image) -> Image.Image:
    return image.crop((0, 6, int(WIDTH * 0.95), HEIGHT - 6))


# The name of each copy in the second tar, and how it is made.
COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half-size": lambda image: image.resize((WIDTH // 2, HEIGHT // 2)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "bordered": lambda image: ImageOps.expand(image, 12, "white"),
    "captioned": captioned,
    "cropped": cropped,
    "mirrored": ImageOps.mirror,
    "compressed": lambda image: image,
}


def encoded(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def write(path: Path, images: dict[str, bytes]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in images.items():
            info = tarfile.TarInfo(f"{name}.jpg")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def main(folder: str) -> None:
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    write(target / "scenes-0.tar", {f"scene-{number:02d}": encoded(scene(number), 92) for number in range(SCENES)})
    others = {f"scene-{number:02d}": encoded(scene(number), 92) for number in range(SCENES, SCENES + SCENES // 2)}
    for number, (name, change) in enumerate(COPIES.items()):
        others[f"scene-{number:02d}-{name}"] = encoded(change(scene(number)), 40)
    write(target / "scenes-1.tar", others)


if __name__ == "__main__":
    main(sys.argv[1])
