"""Checks whether scores lie in a range, for all measures, and words the reasons if they do not."""

from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import array, scalar
from curator_core.errors import UsageError


def check_range(stage: str, low_name: str, low: object, high_name: str, high: object) -> None:
    """Check that both ends are numbers or None, and in order."""
    for name, value in ((low_name, low), (high_name, high)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value)):
            raise UsageError(f"{stage}.{name} must be a number or None, not {value!r}")
    if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
        raise UsageError(f"{stage}: {low_name}={low!r} is above {high_name}={high!r}, so no image could pass")


def within(scores: pa.Array, low: float | None, high: float | None) -> pa.Array:
    """Whether each score lies in the range, ends included; null and NaN do not."""
    passed = pc.is_finite(scores) if pa.types.is_floating(scores.type) else pc.is_valid(scores)
    if low is not None:
        passed = pc.and_kleene(passed, pc.greater_equal(scores, _bound(scores, low)))
    if high is not None:
        passed = pc.and_kleene(passed, pc.less_equal(scores, _bound(scores, high)))
    return passed


def sides(
    scores: pa.Array, what: str, high: float | None, *, above: str = "too high", below: str = "too low"
) -> pa.Array:
    """The reasons for scores outside a range that ends at ``high``: ``what`` too low, or too high."""
    over = pc.greater(scores, _bound(scores, high)) if high is not None else array([False] * len(scores), pa.bool_())
    return pc.if_else(pc.fill_null(over, scalar(False)), scalar(f"{what} {above}"), scalar(f"{what} {below}"))


def _bound(scores: pa.Array, value: float) -> pa.Scalar:
    # Do not round a fractional limit for whole numbers: at least 2.5 characters means more than 2.
    return scalar(float(value) if pa.types.is_floating(scores.type) else value)


def in_words(what: str, low: float | None, high: float | None, unit: str = "") -> str:
    """The limits of a range in words: ``images with a width of 256 pixels or more``."""
    unit = f" {unit}" if unit else ""
    if low is not None and high is not None:
        return f"{what} of {low:.3g} to {high:,.6g}{unit}"
    if low is not None:
        return f"{what} of {low:,.3g}{unit} or more"
    return f"{what} of any value" if high is None else f"{what} of at most {high:,.6g}{unit}"
