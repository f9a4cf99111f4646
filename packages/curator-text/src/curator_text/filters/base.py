"""A text filter: a measure of every document, and the range of values to keep.

Most filters consist of one method over `TextFeatures`::

    @dataclass
    class ShoutingFilter(TextFilter):
        max_ratio: float = 0.1

        def measure(self, text: TextFeatures) -> np.ndarray:
            return ratio(text.per_row(exclamation_marks), text.per_row(Block.char_counts), empty=1.0)

        def keep_array(self, scores: pa.Array) -> pa.Array:
            return pc.less_equal(scores, self.max_ratio)

If a rule is easier to write for one document, use a `DocumentFilter` with a method ``score_one(text)``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import array, scalar
from curator_core.arrow.row_hash import column_of
from curator_core.errors import MissingDependency, UsageError, check_free
from curator_core.formatting import number
from curator_core.model.task import DocumentBatch
from curator_core.stages.column_filter import ColumnFilter
from curator_text._columns import is_text, not_text, with_text
from curator_text.features.batch import TextFeatures, features_of
from curator_text.filters.faults import MOST_SPANS, at_fault

T = TypeVar("T")


@dataclass(kw_only=True)
class TextFilter(ColumnFilter):
    """Base of filters that measure text; consecutive filters in a pipeline share their measures."""

    def __post_init__(self) -> None:
        super().__post_init__()
        name = self.score_column
        if name is not None and (not isinstance(name, str) or not name or name == self.column):
            raise UsageError(
                f"{type(self).__name__}.score_column must be the name of a column other than that of the text, not {name!r}"
            )

    def process(self, task: DocumentBatch) -> DocumentBatch:
        check_free(type(self).__name__, task.column_names, self.outputs())
        return super().process(with_text(self, task, self.column))

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        """One score for each document."""
        raise NotImplementedError(f"{type(self).__name__} needs measure(text)")

    def scores_of(self, text: TextFeatures) -> pa.Array:
        """The scores as an Arrow array."""
        return array(self.measure(text), self.score_type)

    def score(self, values: Sequence[Any] | pa.Array | pa.ChunkedArray) -> pa.Array:
        return self.scores_of(TextFeatures.of(values))

    def score_array(self, values: pa.Array) -> pa.Array:
        return self.score(values)

    def score_batch(self, batch: DocumentBatch) -> pa.Array:
        kind = column_of(batch.to_pyarrow(), self.column).type
        if not is_text(kind):
            raise not_text(self, self.column, kind)
        return self.scores_of(features_of(batch, self.column))

    def at_fault(self, text: str, reason: str) -> Iterable[tuple[int, int]]:
        return islice(at_fault(self, text, reason), MOST_SPANS)

    def loaded(self, load: Callable[[], T]) -> T:
        """The result of ``load``, which runs once in each process: in `setup`, or in the first call if there was no
        setup.
        """
        if "_loaded" not in self.__dict__:
            object.__setattr__(self, "_loaded", load())
        found: T = self.__dict__["_loaded"]
        return found

    def __getstate__(self) -> dict[str, Any]:
        # A loaded model is not part of the stage, and many models cannot be pickled.
        return {key: value for key, value in self.__dict__.items() if key != "_loaded"}


@dataclass(kw_only=True)
class DocumentFilter(TextFilter):
    """Base of filters that score one document at a time: ``score_one`` gets a string, never null."""

    def scores_of(self, text: TextFeatures) -> pa.Array:
        return array([self.score_one(document) for document in text.texts()], self.score_type)


def optional(module: str, extra: str) -> Any:
    """Import a module of an extra, or raise an error with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependency(f'{module} is not installed: pip install "curator-text[{extra}]"') from error


def ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any], *, empty: float) -> npt.NDArray[np.float64]:
    """The part divided by the whole, or ``empty`` if the whole is 0."""
    result = np.full(len(whole), empty, np.float64)
    np.divide(part, whole, out=result, where=whole != 0)
    return result


def share(part: float) -> str:
    """A share as text: 0.25 is ``25 %``."""
    return f"{100 * part:.10g} %"


def spread(low: float, high: float) -> str:
    """A range as text: ``50 to 100,000``, ``at least 50``, ``at most 1,500``."""
    if high == float("inf"):
        return f"at least {_exactly(low)}"
    return f"{_exactly(low)} to {_exactly(high)}" if low > 0 else f"at most {_exactly(high)}"


def spread_share(low: float, high: float) -> str:
    """A range of shares as text: ``1 to 85 %``."""
    return f"{100 * low:.10g} to {share(high)}"


def _exactly(value: float) -> str:
    return number(value) if float(value).is_integer() else f"{value:.10g}"


def at_most(scores: pa.Array, limit: float) -> pa.Array:
    """Which scores are at most ``limit``."""
    return pc.less_equal(scores, scalar(limit))


def at_least(scores: pa.Array, limit: float) -> pa.Array:
    """Which scores are at least ``limit``."""
    return pc.greater_equal(scores, scalar(limit))


def between(scores: pa.Array, low: float, high: float) -> pa.Array:
    """Which scores are in the range, both ends included."""
    return pc.and_(pc.greater_equal(scores, scalar(low)), pc.less_equal(scores, scalar(high)))


def check_number(stage: object, name: str, *, low: float | None = None, high: float | None = None) -> None:
    """Raise unless the parameter is a number in the range."""
    value = getattr(stage, name)
    wrong = isinstance(value, bool) or not isinstance(value, int | float | np.number) or bool(np.isnan(value))
    if wrong or (low is not None and value < low) or (high is not None and value > high):
        limits = " and ".join(
            f"{word} {limit}" for word, limit in (("at least", low), ("at most", high)) if limit is not None
        )
        raise UsageError(
            f"{type(stage).__name__}.{name} must be a number{' of ' + limits if limits else ''}, not {value!r}"
        )


def check_range(stage: object, low: str, high: str) -> None:
    """Raise unless both parameters are numbers and the first is not above the second."""
    check_number(stage, low)
    check_number(stage, high)
    if getattr(stage, low) > getattr(stage, high):
        raise UsageError(
            f"{type(stage).__name__}: {low}={getattr(stage, low)!r} is above {high}={getattr(stage, high)!r}, "
            "so nothing would be kept"
        )
