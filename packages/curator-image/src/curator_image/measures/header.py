"""Filters that read only the header and the file size, so no image is decoded for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import array, scalar
from curator_core.errors import UsageError
from curator_core.model.task import DocumentBatch
from curator_core.stages.column_filter import ColumnFilter
from curator_image.batch import BYTES, FORMAT, HEIGHT, WIDTH
from curator_image.decode.probe import EXTENSIONS
from curator_image.measures._range import check_range, in_words, sides, within

_SIDES = (("width", WIDTH), ("height", HEIGHT))


@dataclass(kw_only=True)
class ResolutionFilter(ColumnFilter):
    """Keeps images whose width and height, upright, lie in the given ranges of pixels.

    The score is ``{width, height}``. A row without a size is dropped.
    """

    column: str = WIDTH
    height_column: str = HEIGHT
    min_width: int = 0
    min_height: int = 0
    max_width: int | None = None
    max_height: int | None = None

    score_type: ClassVar[pa.DataType] = pa.struct([("width", pa.int64()), ("height", pa.int64())])
    light = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("ResolutionFilter", "min_width", self.min_width, "max_width", self.max_width)
        check_range("ResolutionFilter", "min_height", self.min_height, "max_height", self.max_height)

    def inputs(self) -> list[str]:
        return [self.column, self.height_column]

    def score_batch(self, batch: DocumentBatch) -> pa.Array:
        columns = [_whole(batch, name).cast(pa.int64()) for name in self.inputs()]
        return pa.StructArray.from_arrays(columns, ["width", "height"])

    def keep_array(self, scores: pa.Array) -> pa.Array:
        width, height = scores.field("width"), scores.field("height")
        return pc.and_(within(width, self.min_width, self.max_width), within(height, self.min_height, self.max_height))

    def tests(self, scores: pa.Array) -> dict[str, pa.Array]:
        found = {}
        for what, low, high in (
            ("width", self.min_width, self.max_width),
            ("height", self.min_height, self.max_height),
        ):
            found[f"{what} too low"] = pc.invert(within(scores.field(what), low, None))
            found[f"{what} too high"] = pc.fill_null(pc.invert(within(scores.field(what), None, high)), scalar(False))
        return found

    def reasons(self, scores: pa.Array) -> pa.Array:
        width = scores.field("width")
        wide = within(width, self.min_width, self.max_width)
        return pc.if_else(
            wide, sides(scores.field("height"), "height", self.max_height), sides(width, "width", self.max_width)
        )

    def limits(self) -> str:
        return f"{in_words('images with a width', self.min_width or None, self.max_width, 'pixels')} and {in_words('a height', self.min_height or None, self.max_height, 'pixels')}"


@dataclass(kw_only=True)
class AspectRatioFilter(ColumnFilter):
    """Keeps images whose width divided by height lies between ``min_ratio`` and ``max_ratio``."""

    column: str = WIDTH
    height_column: str = HEIGHT
    min_ratio: float | None = 1 / 3
    max_ratio: float | None = 3.0

    light = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("AspectRatioFilter", "min_ratio", self.min_ratio, "max_ratio", self.max_ratio)

    def inputs(self) -> list[str]:
        return [self.column, self.height_column]

    def score_batch(self, batch: DocumentBatch) -> pa.Array:
        width, height = (_whole(batch, name).cast(pa.float64()) for name in self.inputs())
        return pc.divide(width, height)

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return within(scores, self.min_ratio, self.max_ratio)

    def reasons(self, scores: pa.Array) -> pa.Array:
        return sides(scores, "image", self.max_ratio, above="too wide", below="too tall")

    def limits(self) -> str:
        return in_words("images with a ratio of width to height", self.min_ratio, self.max_ratio)


@dataclass(kw_only=True)
class BytesPerPixelFilter(ColumnFilter):
    """Keeps images with at least ``min_bytes`` and at most ``max_bytes`` of encoded bytes for each pixel.

    JPEG photographs have 0.1 to 0.5 bytes per pixel. Flat or heavily compressed pictures have far fewer, raw or padded
    ones far more.
    """

    column: str = BYTES
    min_bytes: float | None = 0.02
    max_bytes: float | None = None

    light = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("BytesPerPixelFilter", "min_bytes", self.min_bytes, "max_bytes", self.max_bytes)

    def inputs(self) -> list[str]:
        return [self.column, WIDTH, HEIGHT]

    def score_batch(self, batch: DocumentBatch) -> pa.Array:
        width, height = (_whole(batch, name).cast(pa.float64()) for name in (WIDTH, HEIGHT))
        size = pc.binary_length(_whole(batch, self.column)).cast(pa.float64())
        return pc.divide(size, pc.multiply(width, height))

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return within(scores, self.min_bytes, self.max_bytes)

    def reasons(self, scores: pa.Array) -> pa.Array:
        return sides(scores, "bytes per pixel", self.max_bytes)

    def limits(self) -> str:
        return in_words("images with a size", self.min_bytes, self.max_bytes, "bytes a pixel")


@dataclass(kw_only=True)
class FormatFilter(ColumnFilter):
    """Keeps images of the ``allowed`` formats. The format is taken from the bytes, not from the name."""

    column: str = FORMAT
    allowed: Sequence[str] = ("jpeg", "png", "webp")

    score_type: ClassVar[pa.DataType] = pa.string()
    light = True

    def __post_init__(self) -> None:
        super().__post_init__()
        known = sorted(set(EXTENSIONS.values()))
        if isinstance(self.allowed, str) or not self.allowed or set(self.allowed) - set(known):
            raise UsageError(f"FormatFilter.allowed must be a list of {', '.join(known)}, not {self.allowed!r}")

    def score_array(self, values: pa.Array) -> pa.Array:
        return values

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return pc.is_in(scores, array(list(self.allowed), pa.string()))

    def reasons(self, scores: pa.Array) -> pa.Array:
        return pc.binary_join_element_wise(scalar("format"), pc.fill_null(scores, scalar("unknown")), scalar(" "))

    def limits(self) -> str:
        return f"images of the format {', '.join(self.allowed)}"


def _whole(batch: DocumentBatch, name: str) -> pa.Array:
    column = batch.to_pyarrow().column(name)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
