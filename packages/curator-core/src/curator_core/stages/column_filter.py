"""What is a filter? It computes a score for every row, keeps rows by a predicate, and records why the others are
dropped.

A filter's author writes a score, for an array or for one value, and a predicate::

    @dataclass
    class WordCount(ColumnFilter):
        min_words: int = 50

        score_type = pa.int64()

        def score_one(self, text: str | None) -> int:
            return len((text or "").split())

        def keep_array(self, scores: pa.Array) -> pa.Array:
            return pc.greater_equal(scores, self.min_words)

The base class adds the three modes, the accounting and the columns. To try a filter by hand: ``WordCount().score(["a
b"])``.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import array, null, scalar
from curator_core.arrow.json_column import values_of
from curator_core.errors import UsageError, check_free
from curator_core.formatting import count
from curator_core.model.recorder import Judged
from curator_core.model.scores import Score
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch
from curator_core.stages.found_limits import found_scores

FILTER_MODES = ("filter", "annotate", "invert")


@dataclass(kw_only=True)
class ColumnFilter(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Base of filters over one column.

    ``mode``: ``filter`` keeps the rows that pass, ``invert`` keeps those that do not, ``annotate`` keeps all and adds
    the score and the verdict as columns. ``score_column`` names a column for the score in any mode. In ``annotate``
    mode the default is the filter's short name, and the column of the verdict has ``_keep`` after it.
    """

    column: str = "text"
    mode: Literal["filter", "annotate", "invert"] = "filter"
    score_column: str | None = None

    follows_rows = True

    # The type of the score array if `score_one` is used.
    score_type: ClassVar[pa.DataType] = pa.float64()

    def __post_init__(self) -> None:
        if self.mode not in FILTER_MODES:
            raise UsageError(f"{type(self).__name__}.mode must be one of {', '.join(FILTER_MODES)}, not {self.mode!r}")
        if not isinstance(self.column, str) or not self.column:
            raise UsageError(f"{type(self).__name__}.column must be the name of a column, not {self.column!r}")

    # For authors ---------------------------------------------------------------------------------------------------

    def score_one(self, value: Any) -> Any:
        """The score of one value; the author overrides this or `score_array`."""
        raise NotImplementedError(f"{type(self).__name__} needs score_one(value) or score_array(values)")

    def score_array(self, values: pa.Array) -> pa.Array:
        """The scores of an array, in order; the default calls `score_one` for each value (None for null)."""
        return array([self.score_one(value) for value in values_of(values)], self.score_type)

    def score_batch(self, batch: DocumentBatch) -> pa.Array:
        """The scores of a batch; override it to read several columns or to share what other filters computed."""
        return self.score(batch.to_pyarrow().column(self.column))

    def keep_array(self, scores: pa.Array) -> pa.Array:
        """Whether each row passes, as booleans; null counts as false."""
        raise NotImplementedError(f"{type(self).__name__} needs keep_array(scores)")

    def reasons(self, scores: pa.Array) -> pa.Array | str:
        """The reason for dropping rows with these scores: one word for all, or an array of words."""
        return self.short_name()

    def limits(self) -> str:
        """The rows that pass, with the limits, in words: "documents of 50 to 100,000 words".

        By default it names the parameters and their values.
        """
        common = {field.name for field in dataclasses.fields(ColumnFilter)}
        shown = [f"{name}={value!r}" for name, value in self.params().items() if name not in common]
        return f"rows by {', '.join(shown)}" if shown else "rows"

    # What a run shows of the filter --------------------------------------------------------------------------------

    def score_parts(self, scores: pa.Array) -> dict[str, pa.Array]:
        """The numeric parts of the scores, by name: the scores themselves, or the fields of a struct; empty if they are
        not numbers.
        """
        if pa.types.is_struct(scores.type):
            fields = zip((field.name for field in scores.type), scores.flatten(), strict=True)
            return {
                name: values
                for name, values in fields
                if _is_number(values.type) and not pa.types.is_boolean(values.type)
            }
        return {self.short_name(): scores} if _is_number(scores.type) else {}

    def tests(self, scores: pa.Array) -> dict[str, pa.Array]:
        """Whether each row fails each test of the filter, by the reason for dropping it; most filters have one test."""
        return {"": pc.invert(self.keep(scores))}

    def scores_with(self, part: str, values: Sequence[float]) -> pa.Array:
        """Scores with these values in one part, for finding the limits; see `declared_scores`."""
        if not pa.types.is_struct(self.score_type):
            return array([_as_type(value, self.score_type) for value in values], self.score_type)
        columns = []
        for field in self.score_type:
            shown = values if field.name == part else [0.5] * len(values)
            text = pa.types.is_string(field.type)
            columns.append(array(["" if text else _as_type(value, field.type) for value in shown], field.type))
        return pa.StructArray.from_arrays(columns, fields=list(self.score_type))

    def declared_scores(self) -> list[Score]:
        """The scores that are counted in bins, each with its limits.

        The default finds the limits by trying the filter on scores at, below and above each number among its
        parameters, so that the limits shown are those that the filter applies. Override it to choose the bins.
        """
        return found_scores(self)

    def at_fault(self, text: str, reason: str) -> Iterable[tuple[int, int]]:
        """The passages for which a text was dropped with ``reason``, in order, as pairs of start and end in characters.

        Called only for the few rows that a run keeps as samples. The result is read only up to the end of the part of
        the text that is shown, so a generator need not search the rest.
        """
        return ()

    # For users -----------------------------------------------------------------------------------------------------

    def score(self, values: Sequence[Any] | pa.Array | pa.ChunkedArray) -> pa.Array:
        """The scores of a list or an Arrow array of values."""
        return self.score_array(_as_array(values))

    def keep(self, scores: Sequence[Any] | pa.Array | pa.ChunkedArray) -> pa.BooleanArray:
        """Whether each score passes; never null."""
        return pc.fill_null(_as_array(self.keep_array(_as_array(scores, self.score_type))), scalar(False))

    def short_name(self) -> str:
        """``word_count`` for ``WordCountFilter``: the reason for dropping, and the column in annotate mode."""
        return _short_name(type(self).__name__)

    def columns_added(self) -> tuple[str | None, str | None]:
        """The names of the score and the verdict columns, None for one that is not added."""
        if self.mode == "annotate":
            score = self.score_column or self.short_name()
            return score, f"{score}_keep"
        return self.score_column, None

    def describe(self) -> str:
        if self.mode == "annotate":
            return f"drops nothing; marks {self.limits()}"
        return f"{'keeps' if self.mode == 'filter' else 'drops'} {self.limits()}"

    # The stage -----------------------------------------------------------------------------------------------------

    def inputs(self) -> list[str]:
        return [self.column]

    def outputs(self) -> list[str]:
        return [name for name in self.columns_added() if name]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        scores = self.score_batch(task)
        passed = self.keep(scores)
        for what, values in (("score_array", scores), ("keep_array", passed)):
            if len(values) != task.num_rows:
                raise ValueError(
                    f"{type(self).__name__}.{what} gave {count(len(values), 'value')} for {count(task.num_rows, 'row')}"
                )
        score_name, verdict_name = self.columns_added()
        check_free(type(self).__name__, task.column_names, (score_name, verdict_name))
        if score_name:
            task = task.append_column(score_name, scores)
        if verdict_name:
            why = self._reasons(scores, passed) if passed.true_count < len(passed) else ""
            self.record_judged(Judged(task, scores, passed, why))
            return task.append_column(verdict_name, passed)
        kept = pc.invert(passed) if self.mode == "invert" else passed
        lost = len(kept) - kept.true_count
        if not lost:
            self.record_judged(Judged(task, scores, kept, ""))
            return task
        reasons = self._reasons(scores, kept)
        self.record_judged(Judged(task, scores, kept, reasons))
        if isinstance(reasons, str):
            self.record_dropped(reasons, lost)
        else:
            for entry in reasons.value_counts():
                self.record_dropped(entry["values"].as_py(), entry["counts"].as_py())
        return task.filter(kept)

    def _reasons(self, scores: pa.Array, kept: pa.BooleanArray) -> pa.Array | str:
        """The reasons why rows are not kept: one word for all of them, or one for each."""
        if self.mode == "invert":
            return f"not {self.short_name()}"
        found = self.reasons(scores.filter(pc.invert(kept)))
        if isinstance(found, str):
            return found
        found = _as_array(found)
        if pa.types.is_dictionary(found.type):
            found = found.cast(pa.string())
        return pc.fill_null(pc.if_else(pc.equal(found, scalar("")), null(found.type), found), scalar(self.short_name()))


@functools.cache
def _short_name(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.removesuffix("Filter")).lower()


def _as_array(values: Any, kind: pa.DataType | None = None) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
    if isinstance(values, pa.Array):
        return values
    return array(values, kind) if kind is not None and len(values) == 0 else array(values)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _as_type(value: float, kind: pa.DataType) -> Any:
    if pa.types.is_boolean(kind):
        return value >= 1
    return int(value) if pa.types.is_integer(kind) else value
