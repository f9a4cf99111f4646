"""Filters that read only the caption. The filters of curator-text can also read it, with ``column="caption"``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import array, scalar
from curator_core.errors import check_whole
from curator_core.stages.column_filter import ColumnFilter
from curator_image.batch import CAPTION
from curator_image.measures._range import check_range, in_words, sides, within


@dataclass(kw_only=True)
class CaptionLengthFilter(ColumnFilter):
    """Keeps captions of ``min_chars`` to ``max_chars`` characters; an image without a caption has 0."""

    column: str = CAPTION
    min_chars: int | None = 5
    max_chars: int | None = 1000

    score_type: ClassVar[pa.DataType] = pa.int64()
    light = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("CaptionLengthFilter", "min_chars", self.min_chars, "max_chars", self.max_chars)

    def score_array(self, values: pa.Array) -> pa.Array:
        trimmed = pc.utf8_trim_whitespace(values.cast(pa.string()))
        return pc.fill_null(pc.utf8_length(trimmed).cast(pa.int64()), scalar(0))

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return within(scores, self.min_chars, self.max_chars)

    def reasons(self, scores: pa.Array) -> pa.Array:
        return sides(scores, "caption", self.max_chars, above="too long", below="too short")

    def limits(self) -> str:
        return in_words("images with a caption", self.min_chars, self.max_chars, "characters")


@dataclass(kw_only=True)
class CaptionDuplicateFilter(ColumnFilter):
    """Drops images whose caption occurs more than ``max_count`` times in their batch: "image", "photo of the day".

    The score is the number of occurrences, regardless of letter case and surrounding spaces; a missing caption scores 0
    and passes. A batch contains the rows that the reader makes from one source, at most ``images_per_batch``, except
    those that have been dropped since. Batches do not depend on which worker reads them. To find equal captions across
    a whole collection, use a deduplication workflow.
    """

    column: str = CAPTION
    max_count: int = 3

    score_type: ClassVar[pa.DataType] = pa.int64()
    light = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("CaptionDuplicateFilter.max_count", self.max_count)

    def score_array(self, values: pa.Array) -> pa.Array:
        plain = pc.utf8_lower(pc.utf8_trim_whitespace(values.cast(pa.string())))
        plain = pc.if_else(pc.equal(plain, scalar("")), pa.nulls(len(plain), pa.string()), plain)
        counts = plain.drop_null().value_counts()
        if not len(counts):
            return array([0] * len(values), pa.int64())
        places = pc.index_in(plain, counts.field("values"))
        first = array([0], places.type)[0]
        found = pc.if_else(pc.is_valid(plain), counts.field("counts").take(pc.fill_null(places, first)), scalar(0))
        return found.cast(pa.int64())

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return pc.less_equal(scores, scalar(self.max_count))

    def limits(self) -> str:
        return f"images whose caption occurs at most {self.max_count:,} times in its batch"
