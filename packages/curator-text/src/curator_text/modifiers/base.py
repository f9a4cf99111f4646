"""A modifier: one method on a text; nulls, columns and counts come from here.

    @dataclass(kw_only=True)
    class Shout(Modifier):
        def modify(self, text: str) -> str:
            return text.upper()

By hand: ``Shout().apply(["a", None])``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curator_core.errors import UsageError
from curator_core.stages import ProcessingStage
from curator_core.task import DocumentBatch


@dataclass(kw_only=True)
class Modifier(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Base of stages that change the text in ``column``, or put the changed text into ``output_column``.

    A null stays a null. How many documents changed is counted as the metric ``modified``.
    """

    column: str = "text"
    output_column: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.column, str) or not self.column:
            raise UsageError(f"{type(self).__name__}.column must be the name of a column, not {self.column!r}")

    def modify(self, text: str) -> str:
        """The new text; the same where nothing is to be done."""
        raise NotImplementedError(f"{type(self).__name__} needs modify(text)")

    def may_change(self, values: pa.Array) -> Any:
        """A boolean array of the texts that are worth asking `modify` about, where that is quick to tell; None for all."""
        return None

    def apply(self, values: Sequence[str | None] | pa.Array | pa.ChunkedArray) -> pa.Array:
        """The changed texts of a list or an Arrow array."""
        array = _as_text(values)
        worth = self.may_change(array)
        flags = None if worth is None else worth.fill_null(False).to_pylist()
        if flags is not None and not any(flags):
            return array
        changed = 0
        texts = array.to_pylist()
        for row, text in enumerate(texts):
            if text is None or (flags is not None and not flags[row]):
                continue
            new = self.modify(text)
            if new != text:
                texts[row] = new
                changed += 1
        if not changed:
            return array
        self.record_metric("modified", changed)
        return pa.array(texts, array.type)

    def inputs(self) -> list[str]:
        return [self.column]

    def outputs(self) -> list[str]:
        return [self.output_column or self.column]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        values = task.to_pyarrow()[self.column]
        new = self.apply(values)
        name = self.output_column or self.column
        if name == self.column and "modified" not in self.recorder.metrics:
            return task
        return task.append_column(name, new)


def _as_text(values: Any) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
    if not isinstance(values, pa.Array):
        values = pa.array(list(values), pa.string())
    if isinstance(values, pa.ChunkedArray):  # combine_chunks gives one where the texts are more than 2 GB
        values = pa.concat_arrays([chunk.cast(pa.large_string()) for chunk in values.chunks])
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        raise UsageError(f"a modifier changes text, and the column is {values.type}")
    return values
