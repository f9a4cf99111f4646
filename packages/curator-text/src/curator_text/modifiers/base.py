"""The base of modifiers, which consist of one method on a text; it handles nulls, columns and counts.

    @dataclass(kw_only=True)
    class Shout(Modifier):
        def modify(self, text: str) -> str:
            return text.upper()

To call it directly: ``Shout().apply(["a", None])``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curator_core.arrow.arrays import array
from curator_core.arrow.row_hash import column_of
from curator_core.errors import UsageError, check_free
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch
from curator_text._columns import is_text, not_text, with_text


@dataclass(kw_only=True)
class Modifier(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Base of stages that change the text in ``column``, or write the changed text to ``output_column``.

    A null stays null. The metric ``modified`` counts the documents that changed.
    """

    column: str = "text"
    output_column: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.column, str) or not self.column:
            raise UsageError(f"{type(self).__name__}.column must be the name of a column, not {self.column!r}")
        name = self.output_column
        if name is not None and (not isinstance(name, str) or not name):
            raise UsageError(f"{type(self).__name__}.output_column must be the name of a column, not {name!r}")

    def modify(self, text: str) -> str:
        """The new text, or the same text if there is nothing to change."""
        raise NotImplementedError(f"{type(self).__name__} needs modify(text)")

    def may_change(self, values: pa.Array) -> Any:
        """A boolean array that marks the texts that `modify` may change, if that is quick to compute; None means all
        texts.
        """
        return None

    def apply(self, values: Sequence[str | None] | pa.Array | pa.ChunkedArray) -> pa.Array:
        """The changed texts of a list or an Arrow array, as the same type."""
        given = _as_array(values)
        plain = _as_text(given)
        worth = self.may_change(plain)
        flags = None if worth is None else worth.fill_null(False).to_pylist()
        if flags is not None and not any(flags):
            return given
        changed = 0
        texts = plain.to_pylist()
        for row, text in enumerate(texts):
            if text is None or (flags is not None and not flags[row]):
                continue
            new = self.modify(text)
            if new != text:
                texts[row] = new
                changed += 1
        if not changed:
            return given
        self.record_metric("modified", changed)
        return array(texts, given.type)

    def inputs(self) -> list[str]:
        return [self.column]

    def outputs(self) -> list[str]:
        return [self.output_column or self.column]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        task = with_text(self, task, self.column)
        column = column_of(task.to_pyarrow(), self.column)
        if not is_text(column.type):
            raise not_text(self, self.column, column.type)
        given = _as_array(column)
        name = self.output_column or self.column
        if name != self.column:
            check_free(type(self).__name__, task.column_names, [name])
        new = self.apply(given)
        return task if name == self.column and new is given else task.append_column(name, new)


def _as_array(values: Any) -> pa.Array:
    if isinstance(values, str):
        raise UsageError("a modifier changes a list of texts, so put a single text in brackets: apply([text])")
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
    if not isinstance(values, pa.Array | pa.ChunkedArray):
        values = array(list(values), pa.string())
    if isinstance(values, pa.ChunkedArray):  # combine_chunks returns a chunked array if the texts exceed 2 GB
        values = pa.concat_arrays([chunk.cast(pa.large_string()) for chunk in values.chunks])
    if not is_text(values.type):
        raise UsageError(
            f"a modifier changes text, but these values are {values.type}: cast them first, for example with Cast"
        )
    return values


def _as_text(values: pa.Array) -> pa.Array:
    # Arrow's matching functions accept only plain strings.
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    plain = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    return values if plain else values.cast(pa.large_string())
