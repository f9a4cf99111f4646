"""Which of a filter's parameters are limits of which score? They are found by trying the filter with scores at, below
and above each parameter.

The limits follow from the predicate, so a filter's author need not declare them and cannot get them wrong. A parameter
is a limit of a score if scores on one side of its value pass and those on the other fail, and both pass when the
parameter is moved far away.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from curator_core.arrow.arrays import to_numpy
from curator_core.model.scores import Limit, Score, default_edges

_COMMON = ("column", "mode", "score_column")


class Judge(Protocol):
    """The methods of a filter that this module uses."""

    def params(self) -> dict[str, Any]: ...

    def tests(self, scores: pa.Array) -> dict[str, pa.Array]: ...

    def scores_with(self, part: str, values: Sequence[float]) -> pa.Array: ...

    def score_parts(self, scores: pa.Array) -> dict[str, pa.Array]: ...


@dataclasses.dataclass(frozen=True)
class _Parameter:
    name: str
    value: float
    moved: Callable[[float], Judge]  # the filter with another value of the parameter


def found_scores(judge: Judge) -> list[Score]:
    """The scores of a filter with their limits. A filter that cannot be tried this way has scores without limits."""
    try:
        parts = judge.score_parts(judge.scores_with("", [0.0]))
    except Exception:  # if code of the filter's author fails, no limits are shown
        return []
    found = []
    for name, values in parts.items():
        integers = pa.types.is_integer(values.type) or pa.types.is_boolean(values.type)
        single = pa.types.is_float32(values.type)
        limits = list(_limits(judge, name, integers, single))
        # There is an edge at the number that the filter compares with: even 32-bit scores are compared with a 64-bit
        # limit.
        edges = default_edges(integers, [limit.value for limit in limits])
        found.append(Score(name, edges, integers=integers).with_limits(limits))
    return found


def _limits(judge: Judge, part: str, integers: bool, single: bool) -> Iterator[Limit]:
    # All values are tried in one call, since a recipe has a dozen scores and as many limits.
    parameters = [parameter for parameter in _numbers(judge) if not integers or parameter.value.is_integer()]
    tried = [_beside(parameter.value, integers, single) for parameter in parameters]
    passing = _passing(judge, part, [value for values in tried for value in values])
    for place, (parameter, values) in enumerate(zip(parameters, tried, strict=True)):
        changes = [
            (reason, side, found[3 * place + side], found[3 * place + side + 1])
            for reason, found in passing.items()
            for side in (0, 1)
            if found[3 * place + side] != found[3 * place + side + 1]
        ]
        if not changes:
            continue

        @functools.cache
        def freed(far: float, parameter: _Parameter = parameter, values: list[float] = values) -> dict[str, list[bool]]:
            return _passing(parameter.moved(far), part, values)

        for reason, side, _, right in changes:
            # Moved to one side, a limit stops nothing; to which side follows from the rows that it stops, usually.
            sides = (-math.inf, math.inf) if right else (math.inf, -math.inf)
            if any((other := freed(far)) and all(other.get(reason, [True] * 3)[side : side + 2]) for far in sides):
                inclusive = passing[reason][3 * place + 1] or values[1] != parameter.value
                yield Limit(parameter.name, parameter.value, "at least" if right else "at most", inclusive, reason)


def _beside(value: float, integers: bool, single: bool) -> list[float]:
    """The scores just below a value, at it, and just above it, in the precision of the score's type."""
    if integers:
        return [value - 1, value, value + 1]
    if single:
        near, far = np.float32(value), np.float32(np.inf)
        return [float(np.nextafter(near, -far)), float(near), float(np.nextafter(near, far))]
    return [math.nextafter(value, -math.inf), value, math.nextafter(value, math.inf)]


def _passing(judge: Judge, part: str, values: list[float]) -> dict[str, list[bool]]:
    """Whether each value passes each test; empty if the filter raises."""
    try:
        failed = judge.tests(judge.scores_with(part, values))
        return {reason: (~to_numpy(rows).astype(bool)).tolist() for reason, rows in failed.items()}
    except Exception:  # code of the filter's author, which may not handle these values
        return {}


def _numbers(judge: Any) -> Iterator[_Parameter]:
    """The numbers among the parameters, including those in pairs of a list."""
    for name, value in judge.params().items():
        if name in _COMMON:
            continue
        if _is_number(value):
            yield _Parameter(name, float(value), lambda other, name=name: _with(judge, name, other))  # type: ignore[misc]
        elif isinstance(value, list | tuple):
            for place, item in enumerate(value):
                if isinstance(item, list | tuple) and len(item) == 2 and all(map(_is_number, item)):
                    yield _Parameter(
                        f"{name}[{item[0]}]",
                        float(item[1]),
                        lambda other, name=name, value=value, place=place, n=item[0]: _with(  # type: ignore[misc]
                            judge, name, [*value[:place], (n, other), *value[place + 1 :]]
                        ),
                    )


def _with(judge: Any, name: str, value: Any) -> Judge:
    # The filter is copied, because its constructor could reject a value that is out of range.
    twin = copy.copy(judge)
    object.__setattr__(twin, name, value)
    return twin  # type: ignore[no-any-return]


def without_limits(judge: Any, limits: Sequence[Limit]) -> Any:
    """A copy of the filter without these limits; parameters in lists do not change."""
    twin = copy.copy(judge)
    for limit in limits:
        if "[" not in limit.parameter:
            object.__setattr__(twin, limit.parameter, -math.inf if limit.keeps == "at least" else math.inf)
    return twin


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
