"""Reads CSV: every cell is text, unchanged, unless the type of its column is declared."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import array, scalar
from curator_core.errors import UsageError, nearest
from curator_core.formatting import count
from curator_core.model.places import Places, place_rows
from curator_core.model.stage import ANY_COLUMNS, FanOut
from curator_core.model.task import DocumentBatch, FileGroupTask
from curator_core.stages.partitioned_reader import PartitionedReader
from curator_core.storage import file_name, open_input
from curator_text.readers._arguments import (
    bounded_bytes,
    checked_columns,
    checked_encoding,
    twice_named,
    with_path,
)
from curator_text.readers._bytes import COMPRESSED_SUFFIXES, Truncated, as_utf8, decompressed, seems_to_be
from curator_text.readers._csv_rows import BadRow, Row, RowCutter, Rows
from curator_text.readers._schema import check_schema, type_name

# Cells, and the number of each row.
_Numbered = tuple[pa.Table, Sequence[int]]
_HEAD_BYTES = 1 << 16
_RAW_KEPT = 1 << 16
# A block with a bad row is split into this many pieces, and pieces without a bad row are parsed at once.
_PIECES = 16
SUFFIXES = tuple(base + end for base in (".csv", ".tsv") for end in ("", *COMPRESSED_SUFFIXES))


@dataclass(kw_only=True, eq=False, repr=False)
class CsvParameters:
    """The parameters of both `CsvReader` and `CsvRead`."""

    schema: Mapping[str, Any] | None = None
    columns: Sequence[str] | None = None
    delimiter: str | None = None
    header: bool | Sequence[str] = True
    encoding: str = "utf-8"
    batch_bytes: int | str = "8MiB"
    max_row_bytes: int | str = "64MiB"
    path_column: str | None = None


@dataclass(kw_only=True)
class CsvRead(CsvParameters, FanOut[FileGroupTask, DocumentBatch]):
    """Reads the CSV files of a task; see `CsvReader`."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        self._types = check_schema(self.schema, name)
        for column, kind in self._types.items():
            if not (pa.types.is_primitive(kind) or pa.types.is_string(kind)):
                raise UsageError(
                    f"{name}.schema[{column!r}] is {type_name(kind)}, but a CSV cell cannot contain such a value"
                )
        self._columns = checked_columns(self.columns, name)
        if self.delimiter is not None and (
            not isinstance(self.delimiter, str) or len(self.delimiter.encode()) != 1 or self.delimiter in '"\r\n'
        ):
            raise UsageError(f"{name}.delimiter must be one ASCII character other than a quote, not {self.delimiter!r}")
        if self.header is False or (self.header is not True and not _are_names(self.header)):
            raise UsageError(
                f"{name}.header must be true, or, for a file without a header, the names of its columns, not "
                f"{self.header!r}"
            )
        self._encoding = checked_encoding(self.encoding, name)
        self._batch_bytes = bounded_bytes("batch_bytes", self.batch_bytes)
        self._max_row_bytes = bounded_bytes("max_row_bytes", self.max_row_bytes)

    def outputs(self) -> list[str]:
        names = self._columns or (tuple(self.header) if not isinstance(self.header, bool) else (ANY_COLUMNS,))
        return [*names, *([self.path_column] if self.path_column else [])]

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        empty: pa.Table | None = None
        given = False
        for path in task.data:
            for cells, numbers in self._tables(path):
                table = with_path(cells, self.path_column, path)
                if table.num_rows:
                    given = True
                    batch = DocumentBatch(data=table, dataset_name=task.dataset_name)
                    yield place_rows(batch, Places(path, "row", numbers))
                elif empty is None:
                    empty = table
        # Files without rows still provide their columns, so that output from them has a schema.
        if not given and empty is not None:
            yield DocumentBatch(data=empty, dataset_name=task.dataset_name)

    def _tables(self, path: str) -> Iterator[_Numbered]:
        with open_input(path) as raw:
            hint = _Hint(raw, self.encoding)
            cutter = self._cutter(raw, path)
            names = list(self.header) if not isinstance(self.header, bool) else self._header(cutter, path, hint)
            if names is None:
                return
            twice = twice_named([name for name in names if self._columns is None or name in self._columns], path)
            if twice is not None:
                self._give_up(cutter, path, twice)
                return
            try:
                self._check_names(names, path)
            except UsageError as error:
                self._give_up(cutter, path, str(error))
                raise
            file = _File(path, names, self._delimiter_of(path), hint)
            yield self._typed(pa.table([array([], pa.binary())] * len(names), names), file, range(0))
            number = 1
            for found in _gathered(cutter.rest(), self._batch_bytes):
                if isinstance(found, Rows):
                    count = int(_filled(found).sum())
                    if count:
                        # One batch for a block, since each batch becomes a file.
                        yield from _joined(list(self._parsed(found, file, number)))
                else:
                    count = len(found)
                    yield from self._one_by_one(found, file, number)
                number += count

    def _cutter(self, raw: BinaryIO, path: str) -> RowCutter:
        raw.seek(0)
        return RowCutter(
            as_utf8(decompressed(raw), self._encoding),
            self._delimiter_of(path),
            block_bytes=self._batch_bytes,
            max_row_bytes=self._max_row_bytes,
        )

    def _header(self, cutter: RowCutter, path: str, hint: _Hint) -> list[str] | None:
        """The names in the first row; None if there is no usable row."""
        first = cutter.first()
        if first is None:
            for damage in cutter.rest():  # damage in the first line, or an empty file
                if isinstance(damage, BadRow):
                    self.record_read(1)
                    self.record_rejected(
                        damage.reason, source=path, position="line 1", message=damage.message, raw=damage.raw
                    )
            return None
        try:
            if isinstance(first, Row) and not any(b"\0" in cell for cell in first.cells):
                return [cell.decode() for cell in first.cells]
        except UnicodeDecodeError:
            pass
        self._give_up(
            cutter, path, f"the names of the columns are not in {self.encoding}{hint or ': give encoding=…'}", 1
        )
        return None

    def _give_up(self, cutter: RowCutter, path: str, message: str, more: int = 0) -> None:
        """Record a file from which no row can be read."""
        rows = more + sum(int(_filled(found).sum()) if isinstance(found, Rows) else 1 for found in cutter.rest())
        self.record_read(rows)
        self.record_rejected("unusable header", source=path, position="line 1", message=message, rows=rows)

    def _check_names(self, names: list[str], path: str) -> None:
        if self.path_column in (self._columns or names):
            with_path(pa.table({self.path_column: []}), self.path_column, path)
        for wanted in (*(self._columns or ()), *(self._types if self._columns is None else ())):
            if wanted not in names:
                raise UsageError(
                    f"{file_name(path)!r} has no column {wanted!r}{nearest(wanted, names) or '.'} "
                    f"It has: {', '.join(names)}"
                )

    def _delimiter_of(self, path: str) -> str:
        if self.delimiter is not None:
            return self.delimiter
        name = file_name(path).lower()
        return "\t" if any(name.endswith(".tsv" + end) for end in ("", *COMPRESSED_SUFFIXES)) else ","

    # Rows ------------------------------------------------------------------------------------------------------------

    def _parsed(self, rows: Rows, file: _File, first: int, pieces: int = _PIECES) -> Iterator[_Numbered]:
        """The tables of rows whose quotes are correct; some rows may have a wrong number of cells."""
        filled = _filled(rows)
        count = int(filled.sum())
        table = _at_once(rows.data, file)
        if table is not None and table.num_rows == count:
            self.record_read(count)
            yield self._typed(table, file, range(first, first + count))
            return
        if pieces == 1 or len(rows.ends) <= pieces:
            cutter = RowCutter(
                cast(BinaryIO, io.BytesIO(rows.data)),
                file.delimiter,
                block_bytes=len(rows.data) + 1,
                max_row_bytes=1 << 30,
            )
            yield from self._one_by_one(list(cutter.each()), file, first)
            return
        step = -(-len(rows.ends) // pieces)
        starts = np.concatenate(([0], rows.ends))
        for at in range(0, len(rows.ends), step):
            ends = rows.ends[at : at + step]
            start = int(starts[at])
            piece = Rows(rows.data[start : int(ends[-1])], ends - start)
            yield from self._parsed(piece, file, first, 1)
            first += int(filled[at : at + step].sum())

    def _one_by_one(self, rows: Sequence[Row | BadRow], file: _File, first: int) -> Iterator[_Numbered]:
        good: list[Row] = []
        numbers: list[int] = []
        self.record_read(len(rows))
        for number, row in enumerate(rows, first):
            if isinstance(row, BadRow):
                self._reject(file, row.reason, number, row.message, row.raw)
            elif len(row.cells) != len(file.names):
                message = f"{count(len(row.cells), 'cell')}, but the file has {count(len(file.names), 'column')}"
                self._reject(file, "wrong number of cells", number, message, row.raw)
            else:
                good.append(row)
                numbers.append(number)
        if good:
            columns = [array([row.cells[at] for row in good], pa.binary()) for at in range(len(file.names))]
            yield self._typed(pa.Table.from_arrays(columns, names=file.names), file, numbers)

    def _typed(self, table: pa.Table, file: _File, numbers: Sequence[int]) -> _Numbered:
        """The cells as text or as their declared types, with the numbers of their rows; a row with a cell that does not
        fit is rejected.
        """
        good: pa.ChunkedArray | None = None
        columns = []
        names = [name for name in file.names if self._columns is None or name in self._columns]
        names = names if self._columns is None else list(self._columns)
        for name in names:
            column = table.column(file.names.index(name))
            kind = self._types.get(name, pa.string())
            try:
                columns.append(_convert(column, kind))
                continue
            except pa.ArrowInvalid:
                pass
            cells: list[Any] = []
            flags: list[bool] = []
            for row, cell in enumerate(column):
                try:
                    cells.append(_convert(array([cell.as_py()], pa.binary()), kind)[0].as_py())
                    flags.append(True)
                except pa.ArrowInvalid as error:
                    cells.append(None)
                    flags.append(False)
                    if good is None or good[row].as_py():
                        utf8 = "utf8" in str(error).lower()
                        reason = f"bad {_SHOWN.get(self._encoding, self.encoding)}" if utf8 else "type conflict"
                        what = f"is not {self.encoding}{file.hint}" if utf8 else f"is {type_name(kind)}: {error}"
                        self._reject(file, reason, numbers[row], f"column {name!r} {what}", cell.as_py())
            fine = pa.chunked_array([array(flags, pa.bool_())])
            good = fine if good is None else pc.and_(good, fine)
            columns.append(pa.chunked_array([array(cells, kind)]))
        result = pa.table(columns, names=names)
        if good is None:
            return result, numbers
        return result.filter(good), [number for number, fine in zip(numbers, good.to_pylist(), strict=True) if fine]

    def _reject(self, file: _File, reason: str, number: int, message: str, raw: bytes) -> None:
        self.record_rejected(reason, source=file.path, position=f"row {number}", message=message, raw=raw[:_RAW_KEPT])


@dataclass(kw_only=True)
class CsvReader(CsvParameters, PartitionedReader[DocumentBatch]):
    """Reads CSV files, plain or compressed; quoted cells may contain line ends.

    Every cell is text, unchanged: even ``00123``, ``NA`` and the empty cell. ``schema`` declares other types, as in
    ``{score: float64}``; in these columns, an empty cell is null. ``delimiter`` is by default a comma, or a tab for
    files named ``.tsv``. ``header`` is True if the first line names the columns, or else the list of their names.
    ``encoding`` is the encoding of the files, such as ``utf-16`` or ``cp1252``. A row that does not fit the types, or
    is longer than ``max_row_bytes``, is rejected with its number; if a quote is not closed, its line is rejected.
    """

    read = CsvRead
    suffixes = SUFFIXES


def _joined(parts: list[_Numbered]) -> list[_Numbered]:
    """The parts of a block as one."""
    if len(parts) < 2:
        return parts
    return [(pa.concat_tables([table for table, _ in parts]), [row for _, rows in parts for row in rows])]


_SHOWN = {"utf-8": "UTF-8"}


class _Hint:
    """A hint about the encoding of a file, computed on demand."""

    def __init__(self, raw: BinaryIO, encoding: str) -> None:
        raw.seek(0)
        self._head = b""
        with contextlib.suppress(Truncated):  # it is reported with the rows
            self._head = decompressed(raw).read(_HEAD_BYTES)
        self._encoding = encoding

    def __str__(self) -> str:
        found = seems_to_be(self._head) if self._encoding == "utf-8" else None
        return "" if found is None else f"; the file looks like {found}: give encoding={found!r}"

    def __bool__(self) -> bool:
        return bool(str(self))


@dataclass(frozen=True, slots=True)
class _File:
    """The file that is being read."""

    path: str
    names: list[str]
    delimiter: str
    hint: _Hint


def _gathered(found: Iterable[Rows | Row | BadRow], limit: int) -> Iterator[Rows | list[Row | BadRow]]:
    """Blocks of rows as they arrive, and single rows gathered into lists of about ``limit`` bytes."""
    single: list[Row | BadRow] = []
    size = 0
    for rows in found:
        if not isinstance(rows, Rows):
            single.append(rows)
            size += len(rows.raw)
        if single and (isinstance(rows, Rows) or size >= limit):
            yield single
            single, size = [], 0
        if isinstance(rows, Rows):
            yield rows
    if single:
        yield single


def _filled(rows: Rows) -> np.ndarray[Any, Any]:
    """Which rows are not blank lines."""
    bytes_ = np.frombuffer(rows.data, np.uint8)
    starts = np.concatenate(([0], rows.ends[:-1]))
    lengths = rows.ends - starts
    blank = (bytes_[starts] == 10) | (bytes_[starts] == 13)
    filled: np.ndarray[Any, Any] = ~(blank & (lengths <= 2))
    return filled


def _at_once(data: bytes, file: _File) -> pa.Table | None:
    """The cells of rows as bytes, or None if one of the rows has a wrong number of them."""
    import pyarrow.csv as pc_csv

    # Use names of our own, since two names in the file may be equal.
    names = [str(at) for at in range(len(file.names))]
    try:
        return pc_csv.read_csv(
            pa.BufferReader(data),
            read_options=pc_csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=names),
            parse_options=pc_csv.ParseOptions(delimiter=file.delimiter, newlines_in_values=True),
            # Read bytes, so that a cell that is not UTF-8 makes only its row a reject, not the file.
            convert_options=pc_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.binary()),
                strings_can_be_null=False,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None


def _are_names(header: Any) -> bool:
    if not isinstance(header, list | tuple) or not all(isinstance(name, str) for name in header):
        return False
    return 0 < len(header) == len(set(header))


def _convert(column: Any, kind: pa.DataType) -> Any:
    text = column.cast(pa.string())
    if pa.types.is_string(kind):
        return text
    empty = pc.equal(text, scalar(""))
    return pc.if_else(empty, array([None], pa.string())[0], text).cast(kind)
