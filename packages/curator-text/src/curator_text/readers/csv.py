"""Reading CSV: every cell is text as it stands, unless its column's type is declared."""

from __future__ import annotations

import bisect
import codecs
import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import array, scalar
from curator_core.errors import UsageError, nearest
from curator_core.model.stage import ANY_COLUMNS, CompositeStage, FanOut, ProcessingStage
from curator_core.model.task import DocumentBatch, EmptyTask, FileGroupTask
from curator_core.stages.files import FilePartitioning, checked_paths
from curator_core.storage import file_name, open_input
from curator_text.readers._arguments import (
    bounded_bytes,
    check_unique,
    checked_columns,
    checked_encoding,
    with_path,
)
from curator_text.readers._bytes import COMPRESSED_SUFFIXES, Truncated, decompressed
from curator_text.readers._schema import check_schema, type_name

_HEAD_BYTES = 1 << 16
SUFFIXES = tuple(base + end for base in (".csv", ".tsv") for end in ("", *COMPRESSED_SUFFIXES))


@dataclass(kw_only=True)
class CsvRead(FanOut[FileGroupTask, DocumentBatch]):
    """Reads the CSV files of a task; see `CsvReader`."""

    schema: Mapping[str, Any] | None = None
    columns: Sequence[str] | None = None
    delimiter: str | None = None
    header: bool | Sequence[str] = True
    encoding: str = "utf-8"
    batch_bytes: int | str = "8MiB"
    path_column: str | None = None

    def __post_init__(self) -> None:
        name = type(self).__name__
        self._types = check_schema(self.schema, name)
        for column, kind in self._types.items():
            if not (pa.types.is_primitive(kind) or pa.types.is_string(kind)):
                raise UsageError(
                    f"{name}.schema[{column!r}] is {type_name(kind)}, and a cell of CSV holds no such value"
                )
        self._columns = checked_columns(self.columns, name)
        if self.delimiter is not None and (
            not isinstance(self.delimiter, str) or len(self.delimiter.encode()) != 1 or self.delimiter in '"\r\n'
        ):
            raise UsageError(f"{name}.delimiter must be one ASCII character and no quote, not {self.delimiter!r}")
        if self.header is False or (self.header is not True and not _are_names(self.header)):
            raise UsageError(
                f"{name}.header must be true, or the names of the columns of a file that has none, not {self.header!r}"
            )
        self._encoding = checked_encoding(self.encoding, name)
        self._batch_bytes = bounded_bytes("batch_bytes", self.batch_bytes)

    def outputs(self) -> list[str]:
        names = self._columns or (tuple(self.header) if not isinstance(self.header, bool) else (ANY_COLUMNS,))
        return [*names, *([self.path_column] if self.path_column else [])]

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        empty: pa.Table | None = None
        given = False
        for path in task.data:
            for cells in self._tables(path):
                table = with_path(cells, self.path_column, path)
                if table.num_rows:
                    given = True
                    yield DocumentBatch(data=table, dataset_name=task.dataset_name)
                elif empty is None:
                    empty = table
        # Files that gave no row still tell their columns, so that what is written from them has a schema.
        if not given and empty is not None:
            yield DocumentBatch(data=empty, dataset_name=task.dataset_name)

    def _tables(self, path: str) -> Iterator[pa.Table]:
        given = 0
        wrong: list[Any] = []
        places: list[int] = []  # of the rows that were set aside for their cells

        def set_aside(row: Any) -> str:
            wrong.append(row)
            if row.number is not None:
                bisect.insort(places, row.number - (self.header is True))
            return "skip"

        try:
            with open_input(path) as raw:
                names = list(self.header) if not isinstance(self.header, bool) else self._header(raw, path)
                if names is None:
                    return
                reader = self._open(raw, path, names, set_aside)
                if not all(pa.types.is_binary(kind) for kind in reader.schema.types):
                    # Arrow reads the first line in another way; what it calls the columns is what counts.
                    wrong.clear()
                    places.clear()
                    reader = self._open(raw, path, reader.schema.names, set_aside)
                yield self._typed(reader.schema.empty_table(), path, 0, places)
                while True:
                    batch = reader.read_next_batch()
                    table = self._typed(pa.Table.from_batches([batch]), path, given, places)
                    self.record_read(batch.num_rows)
                    given += batch.num_rows
                    self._tell(wrong, path)
                    if table.num_rows:
                        yield table
        except StopIteration:
            self._tell(wrong, path)
        except (pa.ArrowInvalid, OSError, Truncated, UnicodeDecodeError) as error:
            self._tell(wrong, path)
            if isinstance(error, pa.ArrowInvalid) and "Empty CSV file" in str(error):
                return
            message = str(error)
            if "straddles two block boundaries" in message:
                message = f"a row is longer than batch_bytes={self.batch_bytes}: give more"
            self._broken(path, f"after row {given}", f"{message}; what is behind it was not read")

    def _open(self, raw: BinaryIO, path: str, names: list[str], set_aside: Callable[[Any], str]) -> Any:
        import pyarrow.csv as pc_csv

        raw.seek(0)
        check_unique([name for name in names if self._columns is None or name in self._columns], path)
        for wanted in (*(self._columns or ()), *(self._types if self._columns is None else ())):
            if wanted not in names:
                raise UsageError(
                    f"{file_name(path)!r} has no column {wanted!r}{nearest(wanted, names) or '.'} "
                    f"It has: {', '.join(names)}"
                )
        return pc_csv.open_csv(
            pa.PythonFile(_Whole(decompressed(raw), self._encoding), mode="r"),
            read_options=pc_csv.ReadOptions(
                use_threads=False,
                block_size=self._batch_bytes,
                column_names=None if self.header is True else names,
            ),
            parse_options=pc_csv.ParseOptions(
                delimiter=self._delimiter_of(path), newlines_in_values=True, invalid_row_handler=set_aside
            ),
            # As bytes: a cell that is no UTF-8 costs its row, and not its file.
            convert_options=pc_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.binary()),
                strings_can_be_null=False,
                quoted_strings_can_be_null=False,
                include_columns=list(self._columns) if self._columns else None,
            ),
        )

    def _header(self, raw: BinaryIO, path: str) -> list[str] | None:
        """The names in the first line, to fix their types (Arrow reads it again); None if there is none that can be used."""
        head = _Whole(decompressed(raw), self._encoding).read(_HEAD_BYTES)
        lines = io.StringIO(head.decode("utf-8-sig", "surrogateescape"), newline="")
        names = next((row for row in csv.reader(lines, delimiter=self._delimiter_of(path)) if row), None)
        if names is not None and any("\0" in name or (not name.isascii() and _has_surrogates(name)) for name in names):
            self._broken(path, "line 1", f"the names of the columns are not in {self.encoding}: give encoding=…")
            return None
        return names

    def _delimiter_of(self, path: str) -> str:
        if self.delimiter is not None:
            return self.delimiter
        name = file_name(path).lower()
        return "\t" if any(name.endswith(".tsv" + end) for end in ("", *COMPRESSED_SUFFIXES)) else ","

    def _broken(self, path: str, position: str, message: str) -> None:
        self.record_read(1)
        self.record_rejected("broken CSV", source=path, position=position, message=message)

    def _typed(self, table: pa.Table, path: str, before: int, places: list[int]) -> pa.Table:
        """The cells as text or as their declared types; rows with a cell that is neither are set aside."""
        good: pa.ChunkedArray | None = None
        columns = []
        for name, column in zip(table.column_names, table.columns, strict=True):
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
                        self.record_rejected(
                            "bad UTF-8" if utf8 else "type conflict",
                            source=path,
                            position=f"row {_place(before + row + 1, places)}",
                            message=f"column {name!r} is {type_name(kind)}: {error}",
                            raw=cell.as_py(),
                        )
            fine = pa.chunked_array([array(flags, pa.bool_())])
            good = fine if good is None else pc.and_(good, fine)
            columns.append(pa.chunked_array([array(cells, kind)]))
        result = pa.table(columns, names=table.column_names)
        return result if good is None else result.filter(good)

    def _tell(self, wrong: list[Any], path: str) -> None:
        for row in wrong:
            self.record_read(1)
            self.record_rejected(
                "wrong number of cells",
                source=path,
                position="" if row.number is None else f"row {row.number - (self.header is True)}",
                message=f"{row.actual_columns} cells, and the file has {row.expected_columns} columns",
                raw=row.text.encode("utf-8", "surrogateescape") if isinstance(row.text, str) else row.text,
            )
        wrong.clear()


@dataclass(kw_only=True)
class CsvReader(CompositeStage[EmptyTask, DocumentBatch]):
    """Reads CSV files, plain or compressed; quoted cells may hold line ends.

    Every cell is text as it stands: ``00123``, ``NA`` and the empty cell too. ``schema`` declares other types, as in
    ``{score: float64}``; there an empty cell is null. ``delimiter`` is a comma, and a tab for files named ``.tsv``, unless
    it is given. ``header`` is true where the first line names the columns, or the list of their names. ``encoding`` is
    that of the files, such as ``utf-16`` or ``cp1252``. A row that does not fit is set aside with its number.
    """

    paths: str | Sequence[str]
    schema: Mapping[str, Any] | None = None
    columns: Sequence[str] | None = None
    delimiter: str | None = None
    header: bool | Sequence[str] = True
    encoding: str = "utf-8"
    files_per_partition: int = 1
    bytes_per_partition: int | str | None = None
    limit: int | None = None
    batch_bytes: int | str = "8MiB"
    path_column: str | None = None

    def __post_init__(self) -> None:
        self.decompose()

    def decompose(self) -> list[ProcessingStage[Any, Any]]:
        checked_paths("CsvReader.paths", self.paths)
        return [
            FilePartitioning(
                paths=self.paths,
                files_per_partition=self.files_per_partition,
                bytes_per_partition=self.bytes_per_partition,
                limit=self.limit,
                extensions=SUFFIXES,
            ),
            CsvRead(
                schema=self.schema,
                columns=self.columns,
                delimiter=self.delimiter,
                header=self.header,
                encoding=self.encoding,
                batch_bytes=self.batch_bytes,
                path_column=self.path_column,
            ),
        ]


class _Whole:
    """A file as UTF-8, whose reads are full until it ends, as Arrow expects of it."""

    def __init__(self, raw: Any, encoding: str) -> None:
        self._raw = raw
        # UTF-8 as it is: what is no UTF-8 in it costs single rows.
        self._decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)()
        self._left = b""
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        pieces = [self._left]
        room = size - len(self._left)
        while (size < 0 or room > 0) and (piece := self._piece(room if size >= 0 else _HEAD_BYTES)):
            pieces.append(piece)
            room -= len(piece)
        data = b"".join(pieces)
        if size < 0:
            size = len(data)
        elif size > 1 and data[size - 1 : size] == b"\r":
            # Where a read begins with the second half of a line end Arrow drops that half, also in a quoted cell.
            size -= 1
        self._left = data[size:]
        return data[:size]

    def _piece(self, size: int) -> bytes:
        if self._decoder is None:
            return bytes(self._raw.read(size))
        while data := self._raw.read(size):
            if text := self._decoder.decode(data):
                return text.encode("utf-8", "replace")
        return self._decoder.decode(b"", final=True).encode("utf-8", "replace")

    def close(self) -> None:
        self.closed = True


def _are_names(header: Any) -> bool:
    if not isinstance(header, list | tuple) or not all(isinstance(name, str) for name in header):
        return False
    return 0 < len(header) == len(set(header))


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _place(number: int, places: list[int]) -> int:
    """The number of a row in its file, from its number among those that were not set aside for their cells."""
    return number + bisect.bisect_right(range(len(places)), number, key=lambda at: places[at] - at)


def _convert(column: Any, kind: pa.DataType) -> Any:
    text = column.cast(pa.string())
    if pa.types.is_string(kind):
        return text
    empty = pc.equal(text, scalar(""))
    return pc.if_else(empty, array([None], pa.string())[0], text).cast(kind)
