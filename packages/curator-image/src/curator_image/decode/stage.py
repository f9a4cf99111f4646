"""The stage that decodes: one decode per image, for every later stage that needs pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from curator_core.arrow.arrays import array
from curator_core.errors import UsageError, check_whole
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.stage import ColumnNeed, MadeFor, ProcessingStage
from curator_image.batch import BYTES, KEY, PICTURES, PIXELS, SHARD, THUMB, ImageBatch, tensor_column
from curator_image.decode.dali import DaliDecoder, dali_installed
from curator_image.decode.needs import MADE_AS, derive, written
from curator_image.decode.picture import Mode, Picture, Resample
from curator_image.decode.pictures import Decoder, DecoderName, Pixels, cpu_decoder, encoded
from curator_image.decode.probe import MAX_PIXELS, MAX_SIDE

DEFAULT_SIZE = 224


@dataclass(kw_only=True)
class DecodeOptions:
    """What `ImageReader` and `ImageDecode` share; see `ImageDecode`."""

    size: int | None = None
    mode: Mode | None = None
    resample: Resample | None = None
    thumb_size: int = 128
    decoder: DecoderName = "auto"
    detail: float = 1.0
    max_pixels: int = MAX_PIXELS
    max_side: int = MAX_SIDE


@dataclass(kw_only=True)
class ImageDecode(DecodeOptions, ProcessingStage[ImageBatch, ImageBatch]):
    """Decodes and resizes in one go, and sets corrupt images aside; the rest of their batch is unharmed.

    It adds what later stages of the pipeline read, and only that: ``pixels``, the picture for models (``size``,
    ``mode``, ``resample``), and ``thumb``, the whole image squashed to ``thumb_size``, for measures. With neither
    wanted it does nothing. Tried by hand, outside of a pipeline, it adds what ``columns`` names.

    Of ``size``, ``mode`` and ``resample``, each that is None is what the model of a later stage needs,
    by its ``preprocessor_config.json``; without such a model it is 224, ``crop`` or ``bicubic``. A given value is used,
    and the plan warns if a model needs another.

    ``decoder``: ``auto`` is DALI where the stage has a GPU and DALI is installed, and libjpeg-turbo otherwise;
    ``dali`` without a GPU uses DALI's CPU operators; ``turbo`` is libjpeg-turbo for JPEGs and Pillow for the rest;
    ``pillow`` is Pillow for everything.
    """

    columns: Sequence[Literal["pixels", "thumb"]] = PICTURES  # type: ignore[assignment]

    _decoder: Decoder | None = field(default=None, init=False, repr=False, compare=False)
    _needed: Picture | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("thumb_size", "max_pixels", "max_side"):
            check_whole(f"ImageDecode.{name}", getattr(self, name))
        check_whole("ImageDecode.size", self.size, optional=True)
        self.pictures()
        if self.decoder not in get_args(DecoderName):
            raise UsageError(
                f"ImageDecode.decoder must be one of {', '.join(get_args(DecoderName))}, not {self.decoder!r}"
            )
        unknown = [name for name in self.columns if name not in PICTURES]
        if isinstance(self.columns, str) or unknown:
            raise UsageError(f"ImageDecode.columns is a list of {' and '.join(PICTURES)}, not {self.columns!r}")

    def pictures(self) -> dict[str, Picture]:
        """Which picture each column holds."""
        size = self.size or DEFAULT_SIZE
        chosen = Picture(size, size, self.mode or "crop", self.resample or "bicubic", self.detail)
        return {
            PIXELS: self._needed or chosen,
            THUMB: Picture(self.thumb_size, self.thumb_size, "squash", "bilinear"),
        }

    def inputs(self) -> list[str]:
        return [KEY, BYTES]

    def outputs(self) -> list[str]:
        return list(self.columns)

    def replaces(self) -> list[str]:
        return list(self.columns)  # decoded again, at another size

    def needed_by(self, columns: frozenset[str]) -> Self:
        return self.with_(columns=[name for name in self.columns if name in columns])

    def made_for(self, needs: Mapping[str, Sequence[ColumnNeed]]) -> MadeFor:
        """Pixels as models need them; see `curator_image.decode.needs`."""
        pixels = needs.get(PIXELS, ())
        derived = derive(self.name, self.pictures()[PIXELS], self._chosen(), pixels)
        twin = self.with_()
        if all(isinstance(need.need, Picture) for need in pixels):
            twin._needed = derived.picture
        return MadeFor(twin, derived.decisions, derived.warnings)

    def _chosen(self) -> frozenset[str]:
        names = ("size", "mode", "resample")
        return frozenset(name for name in names if self._needed is not None or getattr(self, name) is not None)

    def setup(self, worker: WorkerMetadata) -> None:
        limits: dict[str, Any] = {"max_pixels": self.max_pixels, "max_side": self.max_side}
        device = worker.gpu_ids[0] if self.resources.requires_gpu and worker.gpu_ids else None
        if self.decoder == "dali" or (self.decoder == "auto" and self.resources.requires_gpu and dali_installed()):
            # Numbered within what the worker may see: an executor that gives one GPU shows it as number 0.
            self._decoder = DaliDecoder(0 if device is not None else None, **limits)
        else:
            self._decoder = cpu_decoder(self.decoder, **limits)

    def teardown(self) -> None:
        self._decoder = None

    def process(self, task: ImageBatch) -> ImageBatch | None:
        if not self.columns:
            return task
        if self._decoder is None:
            self.setup(WorkerMetadata())
        assert self._decoder is not None
        table = task.to_pyarrow()
        images = encoded(table.column(BYTES))
        pictures = self.pictures()
        decoded = self._decoder(images, [pictures[name] for name in self.columns])
        arrays = decoded.pictures
        if decoded.errors:
            good = np.ones(len(images), bool)
            keys = table.column(KEY)
            shards = table.column(SHARD) if SHARD in table.column_names else None
            for row, error in decoded.errors.items():
                good[row] = False
                self.record_rejected(
                    error.reason,
                    source=(shards[row].as_py() or "") if shards is not None else "",
                    position=keys[row].as_py() or f"row {row}",
                    message=error.message,
                    raw=images[row],
                )
            task = task.filter(array(good))
            arrays = tuple(_closed_up(pixels, good) for pixels in arrays)
        for name, pixels in zip(self.columns, arrays, strict=True):
            task = task.append_column(name, tensor_column(pixels))
        if PIXELS in self.columns:
            task = _noted(task, written(pictures[PIXELS], self._chosen()))
        return task


def _noted(task: ImageBatch, made_as: bytes) -> ImageBatch:
    """The batch with a note in the metadata of its pixels."""
    table = task.to_pyarrow()
    place = table.column_names.index(PIXELS)
    return task.with_data(table.set_column(place, table.field(place).with_metadata({MADE_AS: made_as}), table[PIXELS]))


def _closed_up(pixels: Pixels, good: NDArray[np.bool_]) -> Pixels:
    """The good rows, moved together in place: a copy of the array would cost more than the decoding did."""
    kept = 0
    for row in range(len(pixels)):
        if good[row]:
            if kept != row:
                pixels[kept] = pixels[row]
            kept += 1
    return pixels[:kept]
