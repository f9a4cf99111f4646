"""Reads JSON lines in bounded memory, preserves every value exactly, and reports every bad line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curator_core.model.places import Places, place_rows
from curator_core.model.stage import ANY_COLUMNS, FanOut
from curator_core.model.task import DocumentBatch, FileGroupTask
from curator_core.stages.partitioned_reader import PartitionedReader
from curator_core.storage import open_input
from curator_text.readers._arguments import bounded_bytes, checked_columns, checked_encoding, with_path
from curator_text.readers._blocks import LineParser, Parsed, guessed_types, infer_types
from curator_text.readers._bytes import (
    COMPRESSED_SUFFIXES,
    Block,
    LongLine,
    Truncated,
    as_utf8,
    check_span,
    decompressed,
    is_compressed,
    line_blocks,
    line_start,
    seems_to_be,
)
from curator_text.readers._lines import first_lines
from curator_text.readers._schema import check_schema, checks

SUFFIXES = tuple(base + end for base in (".jsonl", ".ndjson", ".json") for end in ("", *COMPRESSED_SUFFIXES))
# Types are inferred from at most this many lines, within at most this many bytes.
_FIRST_LINES = 200
_FIRST_BYTES = 1 << 20
# How many lines a guess uses. Examining 200 lines takes longer than checking that a block fits the guess.
_GUESS_LINES = 8
_GUESS_BYTES = 1 << 16
_RAW_KEPT = 1 << 16


@dataclass(kw_only=True, eq=False, repr=False)
class JsonlParameters:
    """The parameters of both `JsonlReader` and `JsonlRead`."""

    schema: Mapping[str, Any] | None = None
    columns: Sequence[str] | None = None
    encoding: str = "utf-8"
    batch_bytes: int | str = "8MiB"
    max_line_bytes: int | str = "64MiB"
    path_column: str | None = None


@dataclass(kw_only=True)
class JsonlRead(JsonlParameters, FanOut[FileGroupTask, DocumentBatch]):
    """Reads the files of a task as JSON lines; see `JsonlReader`."""

    def __post_init__(self) -> None:
        self._types = check_schema(self.schema, type(self).__name__)
        self._checks = checks(self._types)
        self._columns = checked_columns(self.columns, type(self).__name__)
        self._encoding = checked_encoding(self.encoding, type(self).__name__)
        self._batch_bytes = bounded_bytes("batch_bytes", self.batch_bytes)
        self._max_line_bytes = bounded_bytes("max_line_bytes", self.max_line_bytes)

    def outputs(self) -> list[str]:
        known = [*self._types] if self._columns is None else [*self._columns]
        return [
            *known,
            *([self.path_column] if self.path_column else []),
            *([ANY_COLUMNS] if self.columns is None else []),
        ]

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        empty: pa.Table | None = None
        for path, span in task.parts:
            for table, places in self._tables(path, span):
                if table.num_rows:
                    empty = pa.table({})
                    yield place_rows(DocumentBatch(data=table, dataset_name=task.dataset_name), places)
                elif empty is None:
                    empty = table
        # Files without rows still provide their columns, so that output from them has a schema.
        if empty is None or empty.num_columns:
            schema = pa.schema(list(self._types.items())) if empty is None else empty.schema
            # A file with only bad lines has no known columns, and a batch that has only the path would fail in the next
            # stage.
            if any(name != self.path_column for name in schema.names):
                yield DocumentBatch(data=schema.empty_table(), dataset_name=task.dataset_name)

    def range_of(self, path: str, unit: str, number: int) -> tuple[int, int] | None:
        """The byte range of a file that contains the row at a place such as line 12, or None if only reading the file
        can find it.
        """
        with open_input(path) as raw:
            if self._encoding != "utf-8" or is_compressed(raw):
                return None
            if unit == "byte":
                return number, number + 1
            start = line_start(raw, number)
        return None if start is None else (start, start + 1)

    def _tables(self, path: str, span: tuple[int, int] | None) -> Iterator[tuple[pa.Table, Places]]:
        parser: LineParser | None = None
        with open_input(path) as raw:
            check_span(raw, path, span)
            hint = seems_to_be(raw.read(_RAW_KEPT)) if self._encoding == "utf-8" and span is None else None
            raw.seek(0)
            file = as_utf8(decompressed(raw), self._encoding)
            blocks = line_blocks(file, block_bytes=self._batch_bytes, max_line_bytes=self._max_line_bytes, span=span)
            for block in blocks:
                if isinstance(block, LongLine):
                    self.record_read(1)
                    self.record_rejected(
                        "line too long",
                        source=path,
                        position=_position(block.line, block.offset),
                        message=f"{block.length} bytes, but max_line_bytes is {self._max_line_bytes}",
                        raw=block.head,
                    )
                    continue
                if isinstance(block, Truncated):
                    message, head, offset, line = block.args
                    self.record_read(1)
                    self.record_rejected(
                        "truncated file", source=path, position=_position(line, offset), message=message, raw=head
                    )
                    return
                if parser is None:
                    parser = self._parser(block, path, span)
                ends = block.line_ends()
                parsed = parser.parse(block.data, ends)
                places = _places(path, block, ends, parsed)
                block.lines = parsed.lines
                self.record_read(parsed.rows)
                for bad in parsed.bad:
                    line = None if block.line is None else block.line + bad.line
                    self.record_rejected(
                        bad.reason,
                        source=path,
                        position=_position(line, block.offset + bad.offset),
                        message=bad.message
                        + (f"; the file looks like {hint}: give encoding={hint!r}" if hint is not None else ""),
                        raw=bad.raw[:_RAW_KEPT],
                    )
                yield with_path(parsed.table, self.path_column, path), places

    def _parser(self, block: Block, path: str, span: tuple[int, int] | None) -> LineParser:
        wanted = {n: c for n, c in self._checks.items() if self._columns is None or n in self._columns}

        def settle() -> dict[str, pa.DataType]:
            return self._types_from(_head_of(block, span)) or self._first_types(path)

        if _holds_head(block, span):
            start = bytes(block.data[:_GUESS_BYTES])
            rows = list(first_lines(start[: start.rfind(b"\n") + 1], _GUESS_LINES))
            guess = guessed_types(rows, self._types, self._columns)
            if guess is not None:
                return LineParser(guess, self._columns, self._max_line_bytes, wanted, settle)
        return LineParser(settle(), self._columns, self._max_line_bytes, wanted)

    def _first_types(self, path: str) -> dict[str, pa.DataType]:
        """The types of a file's columns, the same for every range of the file."""
        with open_input(path) as raw:
            file = as_utf8(decompressed(raw), self._encoding)
            pieces: list[bytes] = []
            room = _FIRST_BYTES
            try:
                lines = 0
                while room and lines < _FIRST_LINES and (piece := file.read(min(room, 1 << 17))):
                    pieces.append(piece)
                    room -= len(piece)
                    lines += piece.count(b"\n")
            except Truncated:
                pass  # reported when the file is read
        return self._types_from(b"".join(pieces)) or {}

    def _types_from(self, head: bytes | None) -> dict[str, pa.DataType] | None:
        """The types that the user declared, and for other columns those of the file's first lines."""
        if self._columns is not None and all(name in self._types for name in self._columns):
            return {name: self._types[name] for name in self._columns}
        if head is None:
            return None
        rows = first_lines(head, _FIRST_LINES)
        if self._columns is None:
            return {**infer_types(rows), **self._types}
        found = infer_types({k: row[k] for k in self._columns if k in row} for row in rows)
        return {name: self._types.get(name) or found.get(name) or pa.null() for name in self._columns}


@dataclass(kw_only=True)
class JsonlReader(JsonlParameters, PartitionedReader[DocumentBatch]):
    """Reads files of JSON lines: one object in each line, plain or compressed (gz, zst, bz2, xz).

    Values are not converted: ``"00123"`` stays text, a date stays text, an integer stays an integer. ``schema`` fixes
    the types of columns, as in ``{id: string, score: float64, tags: list<string>, meta: json}``, and lines that do not
    fit are rejected. Other columns get a type that holds all their values. If there is no such type, and for objects,
    the column is ``json``: it contains the JSON text of each value, and writers write the values again. A key that
    first appears later becomes a column from there on. A broken line is rejected with its file and line.

    ``columns`` names the columns to read. Files larger than ``split_bytes`` are read in ranges, by several workers,
    unless their ``encoding`` is not UTF-8. ``batch_bytes`` is the amount of text in one batch; a rest of less than half
    of it joins the last batch. ``path_column`` adds a column of that name with the path of the file.
    """

    split_bytes: int | str | None = "128MiB"

    read = JsonlRead
    suffixes = SUFFIXES

    def handed_on(self) -> dict[str, Any]:
        # In some encodings, the start of a character cannot be found in the middle of a file.
        whole = checked_encoding(self.encoding, type(self).__name__) != "utf-8"
        return {**super().handed_on(), **({"split_bytes": None} if whole else {})}


def _head_of(block: Block, span: tuple[int, int] | None) -> bytes | None:
    """The part of the file that `JsonlRead._first_types` would read, or None if this block does not contain all of it."""
    return bytes(block.data[:_FIRST_BYTES]) if _holds_head(block, span) else None


def _holds_head(block: Block, span: tuple[int, int] | None) -> bool:
    if block.offset:
        return False
    if (block.last and span is None) or len(block.data) >= _FIRST_BYTES:
        return True
    return bytes(block.data).count(b"\n") >= _FIRST_LINES


def _places(path: str, block: Block, ends: npt.NDArray[np.int64], parsed: Parsed) -> Places:
    """The places of the rows of a block: by line, or by byte if the number of earlier lines is unknown."""
    starts = np.concatenate((np.zeros(1, np.int64), ends + 1))
    if starts[-1] >= len(block.data):
        starts = starts[:-1]
    lines: range | npt.NDArray[np.int64] = range(len(starts))
    if parsed.rows != len(starts) or parsed.bad:
        bad = {row.line for row in parsed.bad}
        bounds = [*starts.tolist(), len(block.data)]
        filled = (bytes(block.data[bounds[at] : bounds[at + 1]]).strip() for at in range(len(starts)))
        lines = np.array([at for at, raw in enumerate(filled) if raw and at not in bad], np.int64)
    if block.line is None:
        return Places(
            path, "byte", starts[lines] + block.offset if isinstance(lines, np.ndarray) else starts + block.offset
        )
    first = block.line
    return Places(path, "line", lines + first if isinstance(lines, np.ndarray) else range(first, first + len(lines)))


def _position(line: int | None, offset: int) -> str:
    return f"byte {offset}" if line is None else f"line {line}"
