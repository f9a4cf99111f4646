"""Makes WebDataset tars of drawn pictures with captions: the same bytes for the same arguments and the same libjpeg.

    python benchmarks/make_images.py FOLDER --images 4000 --tars 8 --side 330 --corrupt 0.01

Pictures are sums of smooth noise at many scales (the spectrum of photographs), gradients and a few shapes; sizes and
aspect ratios vary around ``--side``. Corrupt ones are cut short, overwritten, emptied, misnamed or no image at all.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SUBJECTS = ("harbour", "forest path", "market stall", "old bridge", "mountain lake", "city tram", "tea house", "dog")
LIGHTS = ("at dawn", "in the rain", "under snow", "at night", "on a bright day", "in autumn")
ASPECTS = (1.0, 1.0, 4 / 3, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9)
DAMAGES = ("cut", "noise", "empty", "text", "misnamed")


def picture(seed: int, side: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    aspect = ASPECTS[rng.integers(len(ASPECTS))]
    width = max(16, int(side * aspect**0.5 * rng.uniform(0.9, 1.1)))
    height = max(16, int(width / aspect))
    field = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 8):
        cells = 2**octave + 1
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        field += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32) * 0.7**octave
    field += np.linspace(0, rng.uniform(-90, 90), height, dtype=np.float32)[:, None, None]
    field += rng.normal(0, 6, (height, width, 1)).astype(np.float32)  # grain, with edges that stay sharp
    field = (field - field.min()) / max(float(field.max() - field.min()), 1e-6) * 255
    image = Image.fromarray(field.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 5))):
        x, y = rng.integers(0, width), rng.integers(0, height)
        reach = int(rng.integers(10, max(11, side // 3)))
        color = tuple(int(value) for value in rng.integers(0, 256, 3))
        shape = (int(x), int(y), int(x) + reach, int(y) + reach)
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)(shape, fill=color)
    return image


def encode(image: Image.Image, kind: str = "JPEG", quality: int = 88) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, quality=quality)
    return out.getvalue()


def damaged(data: bytes, how: str, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    if how == "cut":
        return data[: len(data) // 2]
    if how == "noise":
        broken = bytearray(data)
        middle = len(broken) // 2
        broken[middle : middle + 400] = b"\xff\xd0" + rng.bytes(398)
        return bytes(broken)
    if how == "empty":
        return b""
    if how == "text":
        return b"<html><body>404: the picture is gone</body></html>"
    return encode(Image.new("RGB", (40, 30), (20, 90, 160)), "PNG")


def caption(seed: int) -> str:
    rng = np.random.default_rng(seed + 1)
    return f"A {SUBJECTS[rng.integers(len(SUBJECTS))]} {LIGHTS[rng.integers(len(LIGHTS))]}, picture {seed}"


def write(folder: Path, images: int, tars: int, side: int, corrupt: float, first_seed: int = 0) -> dict[str, list[str]]:
    """The tars, and which keys are bad, by tar."""
    folder.mkdir(parents=True, exist_ok=True)
    bad: dict[str, list[str]] = {}
    every = round(1 / corrupt) if corrupt else 0
    for number in range(tars):
        rows = range(images * number // tars, images * (number + 1) // tars)
        target = folder / f"{number:05d}.tar"
        bad[target.name] = []
        with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
            for row in rows:
                key = f"{row:09d}"
                image = picture(first_seed + row, side)
                data = encode(image)
                if every and row % every == every // 2:
                    data = damaged(data, DAMAGES[row // every % len(DAMAGES)], row)
                    bad[target.name].append(key)
                text = caption(first_seed + row)
                facts = {"width": image.width, "height": image.height, "seed": first_seed + row}
                members = (("jpg", data), ("txt", text.encode()), ("json", json.dumps(facts).encode()))
                for ext, body in members:
                    info = tarfile.TarInfo(f"{key}.{ext}")
                    info.size = len(body)
                    tar.addfile(info, io.BytesIO(body))
    return bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--tars", type=int, default=8)
    parser.add_argument("--side", type=int, default=330)
    parser.add_argument("--corrupt", type=float, default=0.01)
    arguments = parser.parse_args()
    bad = write(arguments.folder, arguments.images, arguments.tars, arguments.side, arguments.corrupt)
    (arguments.folder / "corrupt.json").write_text(json.dumps(bad, indent=1) + "\n")
    total = sum(path.stat().st_size for path in arguments.folder.glob("*.tar"))
    print(
        f"{arguments.images} images in {arguments.tars} tars, {total / 1e6:.1f} MB, {sum(map(len, bad.values()))} bad"
    )


if __name__ == "__main__":
    main()
