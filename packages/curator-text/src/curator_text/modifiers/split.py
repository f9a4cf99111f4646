"""Splits documents into parts, and joins parts into documents again."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import array
from curator_core.arrow.json_column import values_of
from curator_core.arrow.row_hash import column_of
from curator_core.errors import UsageError, check_free, check_whole
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch
from curator_text._columns import is_text, not_text, with_text


@dataclass(kw_only=True)
class DocumentSplitter(ProcessingStage[DocumentBatch, DocumentBatch]):
    r"""Splits each document at ``separator`` into rows: the other columns are repeated, and ``segment_column`` counts
    from 0.

    A null or an empty text stays one row. Only the separators are removed.
    """

    separator: str = "\n\n"
    column: str = "text"
    segment_column: str = "segment"
    creates_rows = True

    def __post_init__(self) -> None:
        _check_names(self, "column", "segment_column")
        if not isinstance(self.separator, str) or not self.separator:
            raise UsageError(f"DocumentSplitter.separator must be text, not {self.separator!r}")
        if self.segment_column == self.column:
            raise UsageError(f"DocumentSplitter.segment_column must not be the column of the text, {self.column!r}")

    def inputs(self) -> list[str]:
        return [self.column]

    def outputs(self) -> list[str]:
        return [self.column, self.segment_column]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        task = with_text(self, task, self.column)
        table = task.to_pyarrow()
        texts = column_of(table, self.column)
        kind = texts.type
        check_free(type(self).__name__, table.column_names, [self.segment_column])
        if not is_text(kind):
            raise not_text(self, self.column, kind)
        parents: list[int] = []
        segments: list[int] = []
        parts: list[str | None] = []
        for row, text in enumerate(texts.to_pylist()):
            pieces = [None] if text is None else text.split(self.separator)
            parents += [row] * len(pieces)
            segments += range(len(pieces))
            parts += pieces
        table = table.take(array(parents, pa.int64()))
        table = table.set_column(table.column_names.index(self.column), self.column, array(parts, kind))
        return task.with_data(table.append_column(self.segment_column, array(segments, pa.int64())))


@dataclass(kw_only=True)
class DocumentJoiner(ProcessingStage[DocumentBatch, DocumentBatch]):
    r"""Joins rows with the same ``id_column`` into one document, in the order of ``segment_column``, which is removed.

    The other columns are those of the first segment. With ``max_chars``, a new document begins where the joined text
    would exceed this length. Rows of one document must be in one batch, as they are after `DocumentSplitter`. Rows with
    a null id are not joined.
    """

    separator: str = "\n\n"
    column: str = "text"
    id_column: str = "id"
    segment_column: str = "segment"
    max_chars: int | None = None

    def __post_init__(self) -> None:
        _check_names(self, "column", "id_column", "segment_column")
        if not isinstance(self.separator, str):
            raise UsageError(f"DocumentJoiner.separator must be text, not {self.separator!r}")
        check_whole("DocumentJoiner.max_chars", self.max_chars, optional=True)

    def inputs(self) -> list[str]:
        return [self.id_column, self.segment_column, self.column]

    def removes(self) -> list[str]:
        return [self.segment_column]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        task = with_text(self, task, self.column)
        table = task.to_pyarrow()
        ids = values_of(column_of(table, self.id_column))
        texts = column_of(table, self.column).to_pylist()
        segments = column_of(table, self.segment_column)
        kind = table.schema.field(self.column).type
        if not is_text(kind):
            raise not_text(self, self.column, kind)
        # Documents in the order of their first row, with their segments in order.
        place: dict[object, int] = {}
        places = [place.setdefault((row,) if value is None else value, len(place)) for row, value in enumerate(ids)]
        order = pc.sort_indices(
            pa.table({"p": array(places, pa.int64()), "s": segments}),
            sort_keys=[("p", "ascending"), ("s", "ascending")],
        ).to_pylist()
        firsts: list[int] = []
        joined: list[list[str | None]] = []
        length = 0
        for row in order:
            text = texts[row]
            longer = length + len(self.separator) + len(text or "")
            fits = self.max_chars is None or longer <= self.max_chars
            if joined and places[firsts[-1]] == places[row] and fits:
                joined[-1].append(text)
                length = longer
            else:
                firsts.append(row)
                joined.append([text])
                length = len(text or "")
        values = [
            None if all(part is None for part in parts) else self.separator.join(part or "" for part in parts)
            for parts in joined
        ]
        self.record_dropped("joined into another", table.num_rows - len(firsts))
        out = table.take(array(firsts, pa.int64())).drop_columns([self.segment_column])
        return task.with_data(out.set_column(out.column_names.index(self.column), self.column, array(values, kind)))


def _check_names(stage: object, *parameters: str) -> None:
    for parameter in parameters:
        value = getattr(stage, parameter)
        if not isinstance(value, str) or not value:
            raise UsageError(f"{type(stage).__name__}.{parameter} must be the name of a column, not {value!r}")
