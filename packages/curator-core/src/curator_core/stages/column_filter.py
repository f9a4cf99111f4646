"""A filter: compute a score for every row, keep rows by a predicate, and record why the others are dropped.

A filter's author writes a score, for an array or for one value, and a predicate::

    @dataclass
    class WordCount(ColumnFilter):
        min_words: int = 50

        score_type = pa.int64()

        def score_one(self, text: str | None) -> int:
            return len((text or "").split())

        def keep_array(self, scores: pa.Array) -> pa.Array:
            return pc.greater_equal(scores, self.min_words)

The three modes, the accounting and the columns come from here. By hand: ``WordCount().score(["a b"])``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import array, scalar
from curator_core.arrow.json_column import values_of
from curator_core.errors import UsageError, check_free
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch

FILTER_MODES = ("filter", "annotate", "invert")


@dataclass(kw_only=True)
class ColumnFilter(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Base of filters over one column.

    ``mode``: ``filter`` keeps the rows that pass, ``invert`` keeps those that do not, ``annotate`` keeps all and adds
    the score and the verdict as columns. ``score_column`` keeps the score as a column of that name in every mode; in
    ``annotate`` mode it defaults to the filter's short name, and the verdict is that name with ``_keep``.
    """

    column: str = "text"
    mode: Literal["filter", "annotate", "invert"] = "filter"
    score_column: str | None = None

    # The type of the score array, where `score_one` is used.
    score_type: ClassVar[pa.DataType] = pa.float64()

    def __post_init__(self) -> None:
        if self.mode not in FILTER_MODES:
            raise UsageError(f"{type(self).__name__}.mode must be one of {', '.join(FILTER_MODES)}, not {self.mode!r}")
        if not isinstance(self.column, str) or not self.column:
            raise UsageError(f"{type(self).__name__}.column must be the name of a column, not {self.column!r}")

    # For authors ---------------------------------------------------------------------------------------------------

    def score_one(self, value: Any) -> Any:
        """The score of one value; written by the author, unless `score_array` is."""
        raise NotImplementedError(f"{type(self).__name__} needs score_one(value) or score_array(values)")

    def score_array(self, values: pa.Array) -> pa.Array:
        """The scores of an array, in order; the default asks `score_one` for each value (None for null)."""
        return array([self.score_one(value) for value in values_of(values)], self.score_type)

    def score_batch(self, batch: DocumentBatch) -> pa.Array:
        """The scores of a batch; override it to read several columns or to share what other filters computed."""
        return self.score(batch.to_pyarrow().column(self.column))

    def keep_array(self, scores: pa.Array) -> pa.Array:
        """Booleans: which rows pass. Null counts as no."""
        raise NotImplementedError(f"{type(self).__name__} needs keep_array(scores)")

    def reasons(self, scores: pa.Array) -> pa.Array | str:
        """Why rows with these scores leave; one word for all, or an array of words."""
        return self.short_name()

    def limits(self) -> str:
        """What passes, limits included, as people say it: "documents of 50 to 100,000 words".

        The default names the parameters and their values.
        """
        common = {field.name for field in dataclasses.fields(ColumnFilter)}
        shown = [f"{name}={value!r}" for name, value in self.params().items() if name not in common]
        return f"rows by {', '.join(shown)}" if shown else "rows"

    # For users -----------------------------------------------------------------------------------------------------

    def score(self, values: Sequence[Any] | pa.Array | pa.ChunkedArray) -> pa.Array:
        """Scores of a list or an Arrow array of values."""
        return self.score_array(_as_array(values))

    def keep(self, scores: Sequence[Any] | pa.Array | pa.ChunkedArray) -> pa.BooleanArray:
        """Which of the scores pass; never null."""
        return pc.fill_null(_as_array(self.keep_array(_as_array(scores, self.score_type))), scalar(False))

    def short_name(self) -> str:
        """``WordCountFilter`` is ``word_count``: its reason for dropping, and its column in annotate mode."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__.removesuffix("Filter")).lower()

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
                raise ValueError(f"{type(self).__name__}.{what} gave {len(values)} values for {task.num_rows} rows")
        score_name, verdict_name = self.columns_added()
        check_free(type(self).__name__, task.column_names, (score_name, verdict_name))
        if score_name:
            task = task.append_column(score_name, scores)
        if verdict_name:
            return task.append_column(verdict_name, passed)
        kept = pc.invert(passed) if self.mode == "invert" else passed
        lost = len(kept) - kept.true_count
        if not lost:
            return task
        if self.mode == "invert":
            self.record_dropped(f"not {self.short_name()}", lost)
        else:
            self._record_reasons(scores.filter(pc.invert(kept)), lost)
        return task.filter(kept)

    def _record_reasons(self, scores: pa.Array, lost: int) -> None:
        reasons = self.reasons(scores)
        if isinstance(reasons, str):
            self.record_dropped(reasons, lost)
            return
        for entry in _as_array(reasons).value_counts():
            self.record_dropped(entry["values"].as_py() or self.short_name(), entry["counts"].as_py())


def _as_array(values: Any, kind: pa.DataType | None = None) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
    if isinstance(values, pa.Array):
        return values
    return array(values, kind) if kind is not None and len(values) == 0 else array(values)
