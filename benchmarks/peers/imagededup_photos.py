"""Writes the photographs that are part of scikit-learn and scikit-image to a folder.

benchmarks/peers/envs/imagededup/bin/python benchmarks/peers/imagededup_photos.py FOLDER
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import skimage
import sklearn
from PIL import Image, UnidentifiedImageError

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
LEAST_SIDE = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    folders = [Path(sklearn.__file__).parent / "datasets/images", Path(skimage.__file__).parent / "data"]
    for path in sorted(path for folder in folders for path in folder.iterdir() if path.suffix in SUFFIXES):
        try:
            image = Image.open(path)
        except UnidentifiedImageError:  # formats that Pillow does not read
            continue
        with image:
            if image.mode in ("RGB", "L") and min(image.size) >= LEAST_SIDE:
                shutil.copy(path, options.folder / path.name)


if __name__ == "__main__":
    main()
