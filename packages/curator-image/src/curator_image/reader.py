"""Reads images from WebDataset tars, folders of image files, and Parquet with a column of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from curator_core import storage
from curator_core.errors import UsageError
from curator_core.model.engine_facts import RayStageSpecKeys
from curator_core.model.resources import Resources
from curator_core.model.stage import ProcessingStage
from curator_core.stages.partitioned_reader import PartitionedReader, made_from
from curator_image.batch import ImageBatch
from curator_image.decode.pixel_hash import PixelHash
from curator_image.decode.stage import DecodeOptions, ImageDecode
from curator_image.reading.options import ReadOptions
from curator_image.reading.read import ImageRead
from curator_image.reading.sources import PICTURES, TARS, ImageSources


@dataclass
class ImageReader(ReadOptions, DecodeOptions, PartitionedReader[ImageBatch]):
    """Reads images with their sidecar files, one row per image.

    ``paths``: WebDataset tars (plain or gzipped), image files and folders of them, Parquet with a column of encoded
    images; a path, a folder, a pattern, or a list; local or any fsspec URL. Tars are streamed.

    Columns: ``key``, ``shard``, ``ext``, ``format``, ``width``, ``height`` (upright), ``members`` (the extensions of
    the sample), ``bytes`` (the original bytes), ``odd`` (unusual features), ``caption`` (the ``txt`` member), ``json``,
    one for every other member, and one for each of ``json_fields``: a list of names for text columns, or a mapping from
    names to ``string``, ``int``, ``float`` or ``bool``. Files with the same name as an image file and an extension in
    ``sidecars`` are also read.

    In a tar, every picture is a separate sample, with the members whose names begin with its name.
    ``grouping="first_dot"`` is the rule of WebDataset: all members whose names are equal up to the first dot form one
    sample, even if it has several pictures. A sample has at most ``max_members`` and ``max_sample_bytes``.

    If a later stage reads ``pixels`` or ``thumb``, `ImageDecode` adds them. Images are decoded and resized in one step;
    `ImageDecode` explains ``size``, ``mode``, ``resample``, ``thumb_size``, ``decoder`` and ``detail``. With
    ``decode=False`` you place an `ImageDecode` yourself, for example after filters that need only the header.

    ``pixel_hash=True`` adds a column of that name with `PixelHash`. The hash is equal for images with the same pixels,
    so deduplication can compare it.

    Corrupt, truncated, empty, oversized or hostile input goes to the rejects with its key and a reason. Input that is
    only unusual (``wrong extension``, ``text not UTF-8``, ``byte order mark``, ``broken json``) is read and noted in
    ``odd``, unless ``reject_odd`` lists the reason.
    """

    paths: str | Sequence[str]
    decode: bool = field(default=True, kw_only=True)
    pixel_hash: bool = field(default=False, kw_only=True)
    recursive: bool = field(default=True, kw_only=True)
    dataset_name: str = field(default="", kw_only=True)

    partitioning = ImageSources
    read = ImageRead
    # These are extensions of image files; images in Parquet may have any format.
    suffixes: ClassVar[Sequence[str]] = (*TARS, *PICTURES)

    def __post_init__(self) -> None:
        for name in ("decode", "pixel_hash"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"ImageReader.{name} must be true or false, not {getattr(self, name)!r}")
        self._check_read_options()
        super().__post_init__()

    def ray_stage_spec(self) -> dict[str, Any]:
        return {RayStageSpecKeys.IS_FANOUT_STAGE: True, **super().ray_stage_spec()}

    def outputs(self) -> list[str]:
        return [name for stage in self.decompose()[1:] for name in stage.outputs()]

    def decompose(self) -> list[ProcessingStage[Any, Any]]:
        given = self.params()
        sources, *reading = super().decompose()
        if self.pixel_hash:
            # DALI cannot decode at full size.
            given_here = {**given, "decoder": "auto" if self.decoder == "dali" else self.decoder}
            reading.append(made_from(given_here, PixelHash))
        if not self.decode:
            return [sources, *reading]
        decode = made_from(given, ImageDecode)
        if self.resources.requires_gpu:  # the resources are for decoding: reading files needs no GPU
            reading = [stage.with_(resources=Resources()) for stage in reading]
            decode = decode.with_(resources=self.resources)
        return [sources, *reading, decode]

    def handed_on(self) -> dict[str, Any]:
        roots = [_root(entry) for entry in ([self.paths] if isinstance(self.paths, str) else self.paths)]
        # The reader also takes sidecar files from a folder, and its sources decide which, so it passes no extensions
        # on.
        return {**super().handed_on(), "extensions": None, "roots": roots}


def _root(entry: str) -> str:
    """The folder to which the keys of image files are relative."""
    if storage.has_magic(entry):
        return str(storage.fixed_base(entry))
    return str(storage.parent(entry)) if entry.lower().endswith(PICTURES) else entry
