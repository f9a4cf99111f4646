"""Hashes the decoded pixels of each image, so that images with the same pixels can be found."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa

from curator_core.arrow.arrays import array
from curator_core.errors import UsageError, check_free, check_whole
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.stage import ProcessingStage
from curator_image.batch import BYTES, KEY, SHARD, ImageBatch
from curator_image.decode.pictures import CpuDecoder, Pixels, cpu_decoder, encoded
from curator_image.decode.probe import MAX_PIXELS, MAX_SIDE, BadImage

PIXEL_HASH = "pixel_hash"


@dataclass(kw_only=True)
class PixelHash(ProcessingStage[ImageBatch, ImageBatch]):
    """Adds ``output_column``: a hash of the pixels of each image, equal for images that show the same pixels.

    The hash covers the pixels at full size, upright, as 8-bit RGB, with white behind transparent parts. So a PNG and a
    lossless WebP of the same picture have equal hashes, with or without metadata, and a JPEG has another. Images that
    cannot be decoded are set aside. The hash of a lossy file depends on the ``decoder`` (``turbo`` or ``pillow``;
    ``auto`` is ``turbo``): compare only hashes from one installation.
    """

    output_column: str = PIXEL_HASH
    decoder: Literal["auto", "turbo", "pillow"] = "auto"
    max_pixels: int = MAX_PIXELS
    max_side: int = MAX_SIDE

    _decoder: CpuDecoder | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.output_column, str) or not self.output_column:
            raise UsageError(f"PixelHash.output_column must be the name of a column, not {self.output_column!r}")
        for name in ("max_pixels", "max_side"):
            check_whole(f"PixelHash.{name}", getattr(self, name))
        cpu_decoder(self.decoder)

    def inputs(self) -> list[str]:
        return [KEY, BYTES]

    def outputs(self) -> list[str]:
        return [self.output_column]

    def setup(self, worker: WorkerMetadata) -> None:
        self._decoder = cpu_decoder(self.decoder, max_pixels=self.max_pixels, max_side=self.max_side)

    def teardown(self) -> None:
        self._decoder = None

    def process(self, task: ImageBatch) -> ImageBatch:
        check_free("PixelHash", task.column_names, [self.output_column])
        if self._decoder is None:
            self.setup(WorkerMetadata())
        assert self._decoder is not None
        images = encoded(task.to_pyarrow().column(BYTES))
        hashes: list[str | None] = []
        errors: dict[int, BadImage] = {}
        for row, image in enumerate(images):
            try:
                hashes.append(hash_of(self._decoder.full_size(image)))
            except BadImage as error:
                hashes.append(None)
                errors[row] = error
        task = task.append_column(self.output_column, array(hashes, pa.string()))
        return self._without(task, images, errors) if errors else task

    def _without(self, task: ImageBatch, images: Sequence[bytes], errors: dict[int, BadImage]) -> ImageBatch:
        table = task.to_pyarrow()
        shards = table.column(SHARD) if SHARD in table.column_names else None
        for row, error in errors.items():
            self.record_rejected(
                error.reason,
                source=(shards[row].as_py() or "") if shards is not None else "",
                position=table.column(KEY)[row].as_py() or f"row {row}",
                message=error.message,
                raw=images[row],
            )
        good = np.ones(task.num_rows, np.bool_)
        good[list(errors)] = False
        return task.filter(array(good))


def hash_of(pixels: Pixels) -> str:
    """128 bits of BLAKE2b over the pixels and their shape, as hexadecimal digits."""
    height, width = pixels.shape[:2]
    digest = hashlib.blake2b(f"{width}x{height}:".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels))
    return digest.hexdigest()
