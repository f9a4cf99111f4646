"""Which row is at a given place, or has a given id?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curator_core import storage
from curator_core.arrow.json_column import JSON, values_of
from curator_core.data.rows import Rows, place_text
from curator_core.data.values import rows_of
from curator_core.errors import UsageError, nearest
from curator_core.formatting import count
from curator_core.model.places import Places, places_of
from curator_core.model.recorder import Reject
from curator_core.model.task import DocumentBatch, FileGroupTask

# Columns that may identify a row; the first one that exists is used.
ID_COLUMNS = ("id", "key", "doc_id", "document_id", "uid", "uuid", "url", "path")
# The number of other ids that are kept for suggestions.
_SEEN = 10_000
_PLACE = re.compile(r"(?:(line|row|byte) )?(\d+)")


@dataclass(frozen=True)
class FoundRow:
    """A row and its place."""

    source: str
    position: str
    columns: dict[str, Any]
    batch: DocumentBatch  # only this row


@dataclass(frozen=True)
class FoundReject:
    """The reject at a place that holds no row."""

    reject: Reject


def split_address(data: str) -> tuple[str, str | None]:
    """Split ``a.jsonl:12`` into ``a.jsonl`` and ``12``; the place is None if all of it is a file name."""
    if storage.has_magic(data) or _is_there(data):
        return data, None
    at = len(data)
    while (at := data.rfind(":", 0, at)) > 0:
        if data[at : at + 3] != "://" and _is_there(data[:at]):
            return data[:at], data[at + 1 :]
    return data, None


def _is_there(path: str) -> bool:
    try:
        return bool(storage.exists(path))
    except UsageError:  # no file can have this name
        return False


def row_at(rows: Rows, path: str, place: str) -> FoundRow | FoundReject:
    """The row at a place of a file: ``12`` or ``line 12``, ``byte 4711``, or the key of an image."""
    asked = _PLACE.fullmatch(place)
    span = None
    range_of = getattr(rows.reading[0], "range_of", None)
    if asked is not None and range_of is not None:
        span = range_of(path, asked[1] or "", int(asked[2]))
    last = ""
    rows.wanted = lambda reject: span is not None or reject.position in (place, f"line {place}", f"row {place}")
    task = FileGroupTask(data=[path], ranges=[span], task_id="shown")
    for batch in rows.batches(task):
        if not batch.num_rows:
            continue
        places = places_of(batch)
        if places is None:
            raise UsageError(
                f"{rows.reader} does not record the places of rows: show a row by its id, or see `curate head`"
            )
        row = _row_of(places, place, asked)
        if row is None and span is not None and batch.num_rows == 1:
            row = 0  # the range contains only this row, whose place is then a number of bytes
        if row is not None:
            return _found(batch, row, place if span is not None else None)
        last = places.at(batch.num_rows - 1)[1]
    if rows.examples:
        return FoundReject(rows.examples[0])
    raise UsageError(
        f"{path!r} has no row at {place!r}" + (f": the last row read is at {last}" if last else ": it has no rows")
    )


def _row_of(places: Places, place: str, asked: re.Match[str] | None) -> int | None:
    found = places.found
    if places.unit:
        if asked is None or asked[1] not in (None, places.unit):
            return None
        number = int(asked[2])
        if isinstance(found, range):
            return found.index(number) if number in found else None
        at = np.flatnonzero(np.asarray(found) == number)
        return int(at[0]) if len(at) else None
    names = [str(name) for name in found]
    if place in names:
        return names.index(place)
    # A member of a tar belongs to a row: `cat.jpg` belongs to `cat`.
    longest = max((name for name in names if name and place.startswith(f"{name}.")), key=len, default=None)
    return None if longest is None else names.index(longest)


def rows_with_id(rows: Rows, wanted: str, column: str | None) -> Iterator[FoundRow]:
    """The rows with an id, in the order of the data; if there are none, the error suggests another id."""
    seen: dict[str, None] = {}
    read = 0
    found = False
    name = column
    for source in rows.sources():
        for batch in rows.batches(source):
            if not batch.num_rows:
                continue
            table = batch.to_pyarrow()
            name = column or id_column(table.column_names)
            if name not in table.column_names:
                raise UsageError(
                    f"{'the data have no column ' + repr(column) if column else 'no column of the data is called id'}"
                    f"{nearest(column, table.column_names) if column else ''}: "
                    f"they have {', '.join(table.column_names)}; name one with --id-column, or a row by its place, FILE:LINE"
                )
            ids = _texts(table.column(name))
            for row in [at for at, text in enumerate(ids) if text == wanted]:
                found = True
                yield _found(batch, row)
            read += len(ids)
            if len(seen) < _SEEN:
                seen.update(dict.fromkeys(text for text in ids[:_SEEN] if text is not None))
    if not found:
        rest = f" in the column {name!r} of {count(read, 'row')}" if read else ": there are no rows"
        raise UsageError(f"there is no {wanted!r}{rest}{nearest(wanted, seen)}")


def id_column(names: Sequence[str]) -> str:
    """The column that identifies a row; an empty text if there is none."""
    return next((name for name in ID_COLUMNS if name in names), "")


def _texts(column: pa.ChunkedArray) -> list[str | None]:
    if column.type == JSON:
        return [None if value is None else str(value) for value in values_of(column)]
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        texts: list[str | None] = column.to_pylist()
        return texts
    return [None if value is None else str(value) for value in column.to_pylist()]


def _found(batch: DocumentBatch, row: int, asked: str | None = None) -> FoundRow:
    table = batch.to_pyarrow().slice(row, 1)
    source, position = place_text(batch, row)
    if asked is not None and position.startswith("byte "):
        position = asked if not asked.isdigit() else f"line {asked}"
    return FoundRow(source, position, rows_of(table)[0], batch.with_data(table))
