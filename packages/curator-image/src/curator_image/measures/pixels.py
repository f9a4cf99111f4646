"""Filters that look at a small picture of the whole image: sharpness, light, colour, emptiness, borders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import pyarrow as pa

from curator_core.arrow.arrays import array
from curator_core.model.task import DocumentBatch
from curator_core.stages.column_filter import ColumnFilter
from curator_image.batch import THUMB
from curator_image.measures._range import check_range, in_words, sides, within
from curator_image.measures.stats import PictureStats


@dataclass(kw_only=True)
class _PictureFilter(ColumnFilter):
    """Base of the measures: each compares a statistic of the ``thumb`` column, which `ImageDecode` makes, with a range.

    The last measure drops ``thumb``, so that the column is not sent to stages that do not read it.
    """

    column: str = THUMB

    statistic: ClassVar[str] = ""
    what: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.bounds()
        check_range(type(self).__name__, "the minimum", low, "the maximum", high)
        self._drops_thumb = False

    def removes(self) -> list[str]:
        return [THUMB] if self._drops_thumb else []

    def needed_by(self, columns: frozenset[str]) -> Self:
        twin = self.with_()
        twin._drops_thumb = self.column == THUMB and THUMB not in columns
        return twin

    def process(self, task: DocumentBatch) -> DocumentBatch:
        made = super().process(task)
        return made.with_data(made.to_pyarrow().drop_columns([THUMB])) if self._drops_thumb else made

    def bounds(self) -> tuple[float | None, float | None]:
        raise NotImplementedError

    def score_batch(self, batch: DocumentBatch) -> pa.Array:
        return array(PictureStats.of(batch, self.column).get(self.statistic))

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return within(scores, *self.bounds())

    def reasons(self, scores: pa.Array) -> pa.Array:
        return sides(scores, self.what, self.bounds()[1])


@dataclass(kw_only=True)
class BlurFilter(_PictureFilter):
    """Keeps images that are sharp enough: the score is the variance of the Laplacian in the sharpest parts of the picture.

    Sharpness is measured at the size of the ``thumb`` column (128 x 128 by default), so blur that is invisible at that
    size does not count. The score is that of the second sharpest of 4 x 4 tiles, so a plain background does not lower
    it. Sharp photographs score 200 and more, and photographs that are blurred by a hundredth of their width score 5 to
    170. See the curve in ``docs/images.md``, and measure your own images with ``mode="annotate"``.
    """

    min_variance: float = 100.0
    max_variance: float | None = None

    statistic = "blur"
    what = "sharpness"

    def bounds(self) -> tuple[float | None, float | None]:
        return self.min_variance, self.max_variance

    def limits(self) -> str:
        return in_words("pictures with a sharpness", self.min_variance, self.max_variance)


@dataclass(kw_only=True)
class EntropyFilter(_PictureFilter):
    """Keeps images whose grey levels have this many bits of entropy: 0 means a single level, 8 means that all levels
    are equally common.
    """

    min_bits: float | None = 3.0
    max_bits: float | None = None

    statistic = "entropy"
    what = "entropy"

    def bounds(self) -> tuple[float | None, float | None]:
        return self.min_bits, self.max_bits

    def limits(self) -> str:
        return in_words("pictures with an entropy", self.min_bits, self.max_bits, "bits")


@dataclass(kw_only=True)
class BrightnessFilter(_PictureFilter):
    """Keeps images whose mean grey level lies in a range: 0 is black, 1 white."""

    min_brightness: float | None = 0.05
    max_brightness: float | None = 0.95

    statistic = "brightness"
    what = "brightness"

    def bounds(self) -> tuple[float | None, float | None]:
        return self.min_brightness, self.max_brightness

    def limits(self) -> str:
        return in_words("pictures with a mean brightness", self.min_brightness, self.max_brightness)


@dataclass(kw_only=True)
class ContrastFilter(_PictureFilter):
    """Keeps images with enough contrast: the score is the standard deviation of the grey levels, from 0 to 0.5."""

    min_contrast: float | None = 0.05
    max_contrast: float | None = None

    statistic = "contrast"
    what = "contrast"

    def bounds(self) -> tuple[float | None, float | None]:
        return self.min_contrast, self.max_contrast

    def limits(self) -> str:
        return in_words("pictures with a contrast", self.min_contrast, self.max_contrast)


@dataclass(kw_only=True)
class UniformFilter(_PictureFilter):
    """Drops images that are nearly one tone: the score is the share of pixels within 8 levels of the most common grey."""

    max_share: float = 0.9

    statistic = "uniform"
    what = "share of one tone"

    def bounds(self) -> tuple[float | None, float | None]:
        return None, self.max_share

    def limits(self) -> str:
        return f"pictures of which at most {100 * self.max_share:g} % are of one tone"


@dataclass(kw_only=True)
class ColorfulnessFilter(_PictureFilter):
    """Keeps images with enough colour, by the measure of Hasler and Süsstrunk: 0 is grey, 33 moderate, 82 high."""

    min_colorfulness: float | None = 5.0
    max_colorfulness: float | None = None

    statistic = "color"
    what = "colourfulness"

    def bounds(self) -> tuple[float | None, float | None]:
        return self.min_colorfulness, self.max_colorfulness

    def limits(self) -> str:
        return in_words("pictures with a colourfulness", self.min_colorfulness, self.max_colorfulness)


@dataclass(kw_only=True)
class BorderFilter(_PictureFilter):
    """Drops images with plain bands along their edges (letterboxes, frames): the score is their share of the picture.

    A band counts if it ends abruptly along at least half of its length. The plain background behind a product does not
    end abruptly, so it is not a border.
    """

    max_share: float = 0.1

    statistic = "border"
    what = "border"

    def bounds(self) -> tuple[float | None, float | None]:
        return None, self.max_share

    def limits(self) -> str:
        return f"pictures of which at most {100 * self.max_share:g} % are a plain border"
