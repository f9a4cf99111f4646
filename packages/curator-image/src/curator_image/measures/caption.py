"""Filters by the caption alone; those of curator-text work on it too, with ``column="caption"``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from curator_core.errors import UsageError
from curator_core.stages.column_filter import ColumnFilter
from curator_image.batch import CAPTION
from curator_image.measures._range import check_range, sides, within


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
        return pc.fill_null(pc.utf8_length(trimmed), 0).cast(pa.int64())

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return within(scores, self.min_chars, self.max_chars)

    def reasons(self, scores: pa.Array) -> pa.Array:
        above = pc.equal(sides(scores, "x", self.max_chars), "x too high")
        return pc.if_else(above, "caption too long", "caption too short")


@dataclass(kw_only=True)
class CaptionDuplicateFilter(ColumnFilter):
    """Drops images whose caption stands more than ``max_count`` times in their batch: "image", "photo of the day".

    The score is how often it stands there, letter case and spaces at the ends aside; 0 for none, which passes. A batch
    is what the reader makes of one source, at most ``images_per_batch`` rows less what was dropped since: the same
    whoever works on it. To find equal captions across a whole collection, use a deduplication workflow.
    """

    column: str = CAPTION
    max_count: int = 3

    score_type: ClassVar[pa.DataType] = pa.int64()
    light = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.max_count, bool) or not isinstance(self.max_count, int) or self.max_count < 1:
            raise UsageError(
                f"CaptionDuplicateFilter.max_count must be a whole number of 1 or more, not {self.max_count!r}"
            )

    def score_array(self, values: pa.Array) -> pa.Array:
        plain = pc.utf8_lower(pc.utf8_trim_whitespace(values.cast(pa.string())))
        plain = pc.if_else(pc.equal(plain, ""), None, plain)
        counts = plain.drop_null().value_counts()
        if not len(counts):
            return pa.array([0] * len(values), pa.int64())
        places = pc.index_in(plain, counts.field("values"))
        found = pc.if_else(pc.is_valid(plain), counts.field("counts").take(pc.fill_null(places, 0)), 0)
        return found.cast(pa.int64())

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return pc.less_equal(scores, self.max_count)
