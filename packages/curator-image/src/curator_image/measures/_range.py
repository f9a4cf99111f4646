"""What the measures share: a range that a score must lie in, and one word for each way out of it."""

from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.compute as pc

from curator_core.errors import UsageError


def check_range(stage: str, low_name: str, low: object, high_name: str, high: object) -> None:
    """Both ends are numbers or None, and in order."""
    for name, value in ((low_name, low), (high_name, high)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value)):
            raise UsageError(f"{stage}.{name} must be a number or None, not {value!r}")
    if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
        raise UsageError(f"{stage}: {low_name}={low!r} is above {high_name}={high!r}, so nothing could pass")


def within(scores: pa.Array, low: float | None, high: float | None) -> pa.Array:
    """Which scores lie in the range, ends included; null and NaN do not."""
    passed = pc.is_finite(scores) if pa.types.is_floating(scores.type) else pc.is_valid(scores)
    if low is not None:
        passed = pc.and_kleene(passed, pc.greater_equal(scores, low))
    if high is not None:
        passed = pc.and_kleene(passed, pc.less_equal(scores, high))
    return passed


def sides(scores: pa.Array, what: str, high: float | None) -> pa.Array:
    """Reasons for scores out of a range that ends at ``high``: ``what`` too low, or too high."""
    above = pc.greater(scores, high) if high is not None else pa.array([False] * len(scores))
    return pc.if_else(pc.fill_null(above, False), f"{what} too high", f"{what} too low")
