"""Converts a head from any supported format to safetensors: ``python -m curator_image.models.convert IN OUT``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from curator_core.errors import CuratorError
from curator_image.models.source import file_sha256
from curator_image.models.weights import read_weights, write_weights


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert one file; returns 0 when it was written, and 2 when the input cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m curator_image.models.convert",
        description="Convert a model head (Keras SavedModel folder or zip, .pth, .safetensors) to safetensors.",
    )
    parser.add_argument("source", type=Path, help="the SavedModel folder, zip or file of weights")
    parser.add_argument("target", type=Path, help="the .safetensors file to write")
    options = parser.parse_args(arguments)
    try:
        weights = read_weights(options.source)
        write_weights(weights, options.target)
    except CuratorError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    for name, value in sorted(weights.items()):
        sys.stdout.write(f"{name}  {list(value.shape)}\n")
    sys.stdout.write(f"wrote {options.target}, SHA-256 {file_sha256(options.target)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
