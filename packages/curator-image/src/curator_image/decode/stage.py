"""The stage that decodes each image once, for every later stage that needs pixels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from curator_core.arrow.arrays import array
from curator_core.errors import UsageError, check_whole
from curator_core.formatting import count
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.machine import Machine
from curator_core.model.resources import Resources
from curator_core.model.stage import ColumnNeed, ColumnReader, MadeFor, ProcessingStage
from curator_image.batch import BYTES, KEY, PICTURES, PIXELS, SHARD, THUMB, ImageBatch, tensor_column
from curator_image.decode.beside import PixelsBeside
from curator_image.decode.dali import DaliDecoder, dali_installed
from curator_image.decode.needs import MADE_AS, derive, written
from curator_image.decode.picture import Mode, Picture, Resample
from curator_image.decode.pictures import Decoded, Decoder, DecoderName, Pixels, cpu_decoder, encoded
from curator_image.decode.probe import MAX_PIXELS, MAX_SIDE

DEFAULT_SIZE = 224
# How many JPEGs of 330 pixels, a typical size in web data sets, one CPU decodes and resizes per second; the measured
# number is 1,120. Larger JPEGs take longer (343 per second at 1,024 x 768), but a plan cannot see their size.
CPU_IMAGES_S = 1000.0
# The GPU memory for decoding `DEPTH` parts of `PART_PIXELS` at full size, with their pictures.
DALI_MEMORY_GB = 4.0
# How many batches DALI begins before the first result is requested.
AHEAD = 2


@dataclass(kw_only=True)
class DecodeOptions:
    """The parameters that `ImageReader` and `ImageDecode` share; see `ImageDecode`."""

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
    """Decodes and resizes images in one step, and sets corrupt images aside; other images of the batch are not
    affected.

    It adds only the columns that later stages read: ``pixels``, the picture for models (``size``, ``mode``,
    ``resample``), and ``thumb``, the whole image squashed to ``thumb_size``, for measures. If neither is needed, it
    does nothing. Outside a pipeline, it adds the columns that ``columns`` names.

    If ``size``, ``mode`` or ``resample`` is None, it is taken from the ``preprocessor_config.json`` of the model of a
    later stage; without such a model, the values are 224, ``crop`` and ``bicubic``. If a value is given, it is used,
    and the plan warns if a model needs another.

    ``decoder``: ``auto`` is DALI if the stage has a GPU and DALI is installed, and ``turbo`` otherwise; ``dali``
    without a GPU uses DALI's CPU operators; ``turbo`` is libjpeg-turbo for JPEGs and Pillow for the rest; ``pillow`` is
    Pillow for everything.
    """

    columns: Sequence[Literal["pixels", "thumb"]] = PICTURES  # type: ignore[assignment]

    follows_rows = True

    _decoder: Decoder | None = field(default=None, init=False, repr=False, compare=False)
    _needed: Picture | None = field(default=None, init=False, repr=False, compare=False)
    _beside: bool = field(default=False, init=False, repr=False, compare=False)
    _rebuilt: int = field(default=0, init=False, repr=False, compare=False)

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
        """The picture that each column holds."""
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
        return list(self.columns)  # it may decode them again, at another size

    def needed_by(self, columns: frozenset[str]) -> Self:
        return self.with_(columns=[name for name in self.columns if name in columns])

    def made_for(self, needs: Mapping[str, Sequence[ColumnNeed]]) -> MadeFor:
        """Make pixels as the models need them; see `curator_image.decode.needs`."""
        pixels = needs.get(PIXELS, ())
        derived = derive(self.name, self.pictures()[PIXELS], self._chosen(), pixels)
        twin = self.with_()
        if all(isinstance(need.need, Picture) for need in pixels):
            twin._needed = derived.picture
        return MadeFor(twin, derived.decisions, derived.warnings)

    def _chosen(self) -> frozenset[str]:
        names = ("size", "mode", "resample")
        return frozenset(name for name in names if self._needed is not None or getattr(self, name) is not None)

    def suited_to(self, machine: Machine, readers: Mapping[str, Sequence[ColumnReader]]) -> MadeFor:
        """Decode on a model's GPU if the CPUs are too slow for it, judged by the number of CPUs and the speed of the
        model.
        """
        models = [reader for reader in readers.get(PIXELS, ()) if reader.resources.requires_gpu]
        if self.decoder != "auto" or self.resources.requires_gpu or not machine.gpus or not models:
            return MadeFor(self)
        model = models[0]
        made = CPU_IMAGES_S * machine.cpus
        taken = min((machine.gpus * reader.rows_s for reader in models if reader.rows_s is not None), default=None)
        if taken is None:
            return MadeFor(self, [f"{self.name} decodes on CPUs: the speed of {model.stage} is not known"])
        rates = (
            f"{count(int(machine.cpus), 'CPU')} decode about {made:,.0f} images/s, and {model.stage} takes {taken:,.0f}"
        )
        if made >= taken:
            return MadeFor(self, [f"{self.name} decodes on CPUs: {rates}"])
        free = None if machine.gpu_memory_gb is None else machine.gpu_memory_gb - model.resources.gpu_memory_gb
        if free is not None and free < DALI_MEMORY_GB:
            return MadeFor(
                self, [f"{self.name} decodes on CPUs, although {rates}: only {free:g} GB of the GPU are left"]
            )
        if not dali_installed():
            remedy = 'pip install "curator-image[dali]", here and on the workers, to decode images on the GPU'
            return MadeFor(self, [f"{self.name} decodes on CPUs"], [f"the GPU will wait: {rates}. {remedy}"])
        twin = self.with_(resources=Resources(cpus=self.resources.cpus, gpu_memory_gb=DALI_MEMORY_GB))
        return MadeFor(twin, [f"{self.name} decodes on the GPU of {model.stage}, with DALI: {rates}"])

    def gives_beside(self, columns: Collection[str]) -> Self:
        """Keep the pixels that DALI makes on its device; other decoders make a column."""
        if PIXELS not in columns or not (self.decoder == "dali" or (self.decoder == "auto" and self._on_gpu())):
            return self
        twin = self.with_()
        twin._beside = True
        return twin

    def _on_gpu(self) -> bool:
        return self.resources.requires_gpu

    def setup(self, worker: WorkerMetadata) -> None:
        limits: dict[str, Any] = {"max_pixels": self.max_pixels, "max_side": self.max_side}
        device = worker.gpu_ids[0] if self._on_gpu() and worker.gpu_ids else None
        if self.decoder == "dali" or (self.decoder == "auto" and self._on_gpu() and dali_installed()):
            # The index among the GPUs that the worker sees: if an executor assigns one GPU, the worker sees it as
            # number 0.
            self._decoder = DaliDecoder(0 if device is not None else None, **limits)
            self.begins_ahead = AHEAD
        else:
            self._decoder = cpu_decoder(self.decoder, **limits)

    def teardown(self) -> None:
        if isinstance(self._decoder, DaliDecoder):
            self._decoder.close()
        self._decoder = None

    def begin(self, task: ImageBatch) -> Callable[[], ImageBatch] | None:
        """Start decoding; DALI decodes on its own threads while the model works on the previous batch."""
        decoder = self._decoder
        if not self.columns or not isinstance(decoder, DaliDecoder):
            return None
        images = encoded(task.to_pyarrow().column(BYTES))
        pictures = self.pictures()
        stay = [self._beside and name == PIXELS for name in self.columns]
        decoding = decoder.begin(images, [pictures[name] for name in self.columns], stay)
        return lambda: self._made(task, images, decoding.result())

    def process(self, task: ImageBatch) -> ImageBatch | None:
        if not self.columns:
            return task
        if self._decoder is None:
            self.setup(WorkerMetadata())
        if (finish := self.begin(task)) is not None:
            return finish()
        assert self._decoder is not None
        images = encoded(task.to_pyarrow().column(BYTES))
        pictures = self.pictures()
        return self._made(task, images, self._decoder(images, [pictures[name] for name in self.columns]))

    def _made(self, task: ImageBatch, images: Sequence[bytes], decoded: Decoded) -> ImageBatch:
        """The batch with its pictures; images that cannot be decoded are rejects."""
        table = task.to_pyarrow()
        if isinstance(self._decoder, DaliDecoder) and (rebuilt := self._decoder.rebuilt) > self._rebuilt:
            self.record_metric("pipelines_rebuilt", rebuilt - self._rebuilt)
            self._rebuilt = rebuilt
        good = np.ones(len(images), bool)
        for row, error in decoded.errors.items():
            good[row] = False
            shard = table.column(SHARD)[row].as_py() if SHARD in table.column_names else ""
            self.record_rejected(
                error.reason,
                source=shard or "",
                position=table.column(KEY)[row].as_py() or f"row {row}",
                message=error.message,
                raw=images[row],
            )
        kept = array(good)
        if decoded.errors:
            task = task.filter(kept)
        made_as = written(self.pictures()[PIXELS], self._chosen())
        for name, pixels in zip(self.columns, decoded.pictures, strict=True):
            if name == PIXELS and self._beside and isinstance(self._decoder, DaliDecoder):
                beside = PixelsBeside(pixels, {MADE_AS: made_as})
                task = task.with_beside(name, beside.filter(kept) if decoded.errors else beside)
            else:
                task = task.append_column(name, tensor_column(_closed_up(pixels, good) if decoded.errors else pixels))
                task = _noted(task, made_as) if name == PIXELS else task
        return task


def _noted(task: ImageBatch, made_as: bytes) -> ImageBatch:
    """The batch with ``made_as`` in the metadata of its pixels."""
    table = task.to_pyarrow()
    place = table.column_names.index(PIXELS)
    return task.with_data(table.set_column(place, table.field(place).with_metadata({MADE_AS: made_as}), table[PIXELS]))


def _closed_up(pixels: Pixels, good: NDArray[np.bool_]) -> Pixels:
    """The good rows, moved to the front in place, because copying the array would cost more than decoding did."""
    kept = 0
    for row in range(len(pixels)):
        if good[row]:
            if kept != row:
                pixels[kept] = pixels[row]
            kept += 1
    return pixels[:kept]
