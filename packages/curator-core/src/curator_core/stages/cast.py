"""How do columns get other types? Values are cast row by row, and a row with a value that cannot be cast is rejected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curator_core.arrow.arrays import array
from curator_core.arrow.json_column import JSON, values_of, whole_as_integers
from curator_core.arrow.row_hash import column_of
from curator_core.errors import UsageError, nearest
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch

_NAMES = {"text": "string", "str": "string", "int": "int64", "float": "float64", "boolean": "bool"}
_TYPES = {
    "string": pa.string(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "uint64": pa.uint64(),
    "float64": pa.float64(),
    "float32": pa.float32(),
    "bool": pa.bool_(),
}


@dataclass(kw_only=True)
class Cast(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Gives columns other types: ``Cast(columns={"text": "string", "score": "float64"})``.

    A number, a list or an object becomes its JSON text (``5``, ``0.5``). Text that is a number becomes that number. A
    row with a value that cannot be cast without changing it (``x`` or ``0.5`` as an integer) is rejected. A null stays
    a null.
    """

    columns: Mapping[str, str]

    def __post_init__(self) -> None:
        if not isinstance(self.columns, Mapping) or not self.columns:
            raise UsageError(
                f"Cast.columns must map columns to types, such as {{'text': 'string'}}, not {self.columns!r}"
            )
        self._types = {name: _type(name, kind) for name, kind in self.columns.items()}

    def inputs(self) -> list[str]:
        return list(self.columns)

    def outputs(self) -> list[str]:
        return list(self.columns)

    def describe(self) -> str:
        return "casts " + ", ".join(f"{name} to {kind}" for name, kind in self._types.items())

    def process(self, task: DocumentBatch) -> DocumentBatch:
        good = np.ones(task.num_rows, np.bool_)
        for name, kind in self._types.items():
            column = column_of(task.to_pyarrow(), name)
            if column.type == kind:
                continue
            made = _at_once(column, kind)
            if made is None:
                made = self._row_by_row(name, column, kind, good)
            task = task.append_column(name, made)
        return task if good.all() else task.filter(array(good))

    def _row_by_row(
        self, name: str, column: pa.ChunkedArray, kind: pa.DataType, good: np.ndarray[Any, Any]
    ) -> pa.Array:
        cells: list[Any] = []
        for row, value in enumerate(values_of(column)):
            try:
                cells.append(None if value is None else _cast(value, kind))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OverflowError):
                cells.append(None)
                if good[row]:
                    text = repr(value)
                    shown = text if len(text) <= 60 else f"{text[:57]}..."
                    self.record_rejected(
                        "cannot be cast", message=f"column {name!r} holds {shown}, which is not {kind}"
                    )
                good[row] = False
        return array(cells, kind)


def _type(name: str, spelled: Any) -> pa.DataType:
    kind = _TYPES.get(_NAMES.get(str(spelled), str(spelled)))
    if kind is None:
        raise UsageError(
            f"Cast.columns[{name!r}] is the unknown type {spelled!r}{nearest(str(spelled), _TYPES) or '.'} "
            f"It can be {', '.join(_TYPES)}"
        )
    return kind


def _at_once(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    """The column as cast by Arrow, or None if each value must be checked."""
    given = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if given == JSON or pa.types.is_nested(given) or (pa.types.is_floating(given) and pa.types.is_string(kind)):
        return None
    try:
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _cast(value: Any, kind: pa.DataType) -> Any:
    if pa.types.is_string(kind):
        if isinstance(value, str):
            return value
        if isinstance(value, bool | int | float | list | tuple | dict):
            return json.dumps(whole_as_integers(value), ensure_ascii=False, separators=(",", ":"), default=str)
        return pa.scalar(value).cast(kind).as_py()
    if isinstance(value, list | tuple | dict):
        raise pa.ArrowInvalid("several values")
    return pa.scalar(value).cast(kind).as_py()
