"""Which stages choose, drop and rename columns, and keep rows by a comparison?"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import scalar
from curator_core.arrow.json_column import JSON, compared
from curator_core.arrow.row_hash import column_of
from curator_core.errors import UsageError
from curator_core.model.stage import ANY_COLUMNS, ProcessingStage
from curator_core.model.task import DocumentBatch
from curator_core.stages.column_filter import ColumnFilter

type Operator = Literal[
    "==", "!=", "<", "<=", ">", ">=", "in", "not in", "is null", "is not null", "contains", "starts with", "matches"
]
_COMPARE = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_TEXT = {"contains": pc.match_substring, "starts with": pc.starts_with, "matches": pc.match_substring_regex}
# The same operators for single values.
_PASSES: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "contains": operator.contains,
    "starts with": str.startswith,
    "matches": lambda value, pattern: pc.match_substring_regex(scalar(value), pattern).as_py(),
}
_NO_VALUE = ("is null", "is not null")


@dataclass
class SelectColumns(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Keeps only these columns, in this order."""

    columns: Sequence[str]

    def __post_init__(self) -> None:
        _check_names("SelectColumns", self.columns)

    def inputs(self) -> list[str]:
        return list(self.columns)

    def outputs(self) -> list[str]:
        return list(self.columns)

    def removes(self) -> list[str]:
        return [ANY_COLUMNS]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        table = task.to_pyarrow()
        for name in self.columns:
            column_of(table, name)
        return task.with_data(table.select(list(self.columns)))


@dataclass
class DropColumns(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Drops these columns; a missing column is an error."""

    columns: Sequence[str]

    def __post_init__(self) -> None:
        _check_names("DropColumns", self.columns)

    def inputs(self) -> list[str]:
        return list(self.columns)

    def removes(self) -> list[str]:
        return list(self.columns)

    def process(self, task: DocumentBatch) -> DocumentBatch:
        table = task.to_pyarrow()
        for name in self.columns:
            column_of(table, name)
        return task.with_data(table.drop_columns(list(self.columns)))


@dataclass
class RenameColumns(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Renames columns: ``{old: new}``. They keep their places."""

    columns: Mapping[str, str]

    def __post_init__(self) -> None:
        if not isinstance(self.columns, Mapping) or not self.columns:
            raise UsageError(f"RenameColumns.columns must be a mapping of old to new names, not {self.columns!r}")
        _check_names("RenameColumns", list(self.columns.values()))

    def inputs(self) -> list[str]:
        return list(self.columns)

    def outputs(self) -> list[str]:
        return list(self.columns.values())

    def removes(self) -> list[str]:
        return [name for name in self.columns if name not in self.columns.values()]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        table = task.to_pyarrow()
        for name in self.columns:
            column_of(table, name)
        names = [self.columns.get(name, name) for name in table.column_names]
        for name in self.columns.values():
            if names.count(name) > 1:
                raise UsageError(
                    f"RenameColumns: there is a column {name!r} already; drop it first, or pick another name"
                )
        return task.with_data(table.rename_columns(names))


@dataclass(kw_only=True)
class Where(ColumnFilter):
    """Keeps rows whose value in ``column`` compares with ``value``: ``Where(column="language", op="==", value="en")``.

    ``in`` and ``not in`` take a list, ``is null`` and ``is not null`` take none; ``contains``, ``starts with`` and
    ``matches`` (a regular expression, anywhere in the text) are for text. A null passes only ``is null``.
    """

    column: str
    op: Operator = "=="
    value: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        known = get_args(Operator.__value__)
        if self.op not in known:
            raise UsageError(f"Where.op must be one of {', '.join(known)}, not {self.op!r}")
        if self.op in _NO_VALUE and self.value is not None:
            raise UsageError(f"Where: {self.op!r} takes no value, but got {self.value!r}")
        if self.op not in _NO_VALUE and self.value is None:
            raise UsageError(f"Where: {self.op!r} needs a value; for nulls use op='is null' or op='is not null'")
        if self.op in ("in", "not in") and (isinstance(self.value, str) or not isinstance(self.value, Sequence)):
            raise UsageError(f"Where: {self.op!r} needs a list of values, not {self.value!r}")
        if self.op in _TEXT and not isinstance(self.value, str):
            raise UsageError(f"Where: {self.op!r} needs text, not {self.value!r}")

    def score_batch(self, batch: DocumentBatch) -> pa.Array:
        return column_of(batch.to_pyarrow(), self.column).combine_chunks()

    def score_array(self, values: pa.Array) -> pa.Array:
        """The values themselves: the score of a row is the value that is compared."""
        return values

    def keep_array(self, scores: pa.Array) -> pa.Array:
        try:
            return self._compared(scores)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise UsageError(
                f"Where cannot tell whether {self.column} {self.op} {self.value!r}: "
                f"the column holds {scores.type} ({error})"
            ) from error

    def reasons(self, scores: pa.Array) -> str:
        return f"not {self.column} {self.op}{'' if self.value is None else f' {self.value!r}'}"

    def _compared(self, scores: pa.Array) -> pa.Array:
        if self.op == "is null":
            return scores.is_null()
        if self.op == "is not null":
            return scores.is_valid()
        if scores.type == JSON:
            return compared(scores, self._passes)
        if self.op in _TEXT:
            return _TEXT[self.op](scores, self.value)
        if self.op in _COMPARE:
            return _COMPARE[self.op](scores, _fitting(pa.scalar(self.value), scores.type))
        among = pc.is_in(scores, value_set=pa.array(self.value, type=scores.type))
        return pc.and_(scores.is_valid(), among if self.op == "in" else pc.invert(among))

    def _passes(self, value: Any) -> bool | None:
        """Whether a value passes, in a column of several kinds; None if it is of another kind than the value it is
        compared with.
        """
        if self.op in ("in", "not in"):
            found = any(_same_kind(value, other) and value == other for other in self.value)
            return found if self.op == "in" else not found
        if not _same_kind(value, self.value):
            return True if self.op == "!=" else None
        return bool(_PASSES[self.op](value, self.value))


def _same_kind(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return isinstance(left, bool) and isinstance(right, bool)
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    return numbers or (isinstance(left, str) and isinstance(right, str))


def _fitting(value: pa.Scalar, kind: pa.DataType) -> pa.Scalar:
    """Convert a text to the type of the column, such as a date; numbers are left to Arrow, which widens and never
    rounds.
    """
    return value.cast(kind) if pa.types.is_string(value.type) and not pa.types.is_string(kind) else value


def _check_names(stage: str, names: Any) -> None:
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        raise UsageError(f"{stage}.columns must be a list of column names, not {names!r}")
    for name in names:
        if not isinstance(name, str) or not name:
            raise UsageError(f"{stage}.columns must hold names of columns, not {name!r}")
    if len(set(names)) != len(names):
        raise UsageError(f"{stage}.columns names a column twice: {list(names)!r}")
