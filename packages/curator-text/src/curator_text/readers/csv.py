"""Reading CSV: every cell is text as it stands, unless its column's type is declared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrays import array, scalar
from curator_core.errors import UsageError
from curator_core.files import FilePartitioning, checked_paths
from curator_core.stages import ANY_COLUMNS, CompositeStage, FanOut, ProcessingStage
from curator_core.storage import open_input
from curator_core.task import DocumentBatch, EmptyTask, FileGroupTask
from curator_text.readers._arguments import bounded_bytes, checked_columns
from curator_text.readers._bytes import COMPRESSED_SUFFIXES, Truncated, decompressed
from curator_text.readers._json import check_schema, type_name

SUFFIXES = tuple(base + end for base in (".csv", ".tsv") for end in ("", *COMPRESSED_SUFFIXES))


@dataclass(kw_only=True)
class CsvRead(FanOut[FileGroupTask, DocumentBatch]):
    """Reads the CSV files of a task; see `CsvReader`."""

    schema: Mapping[str, Any] | None = None
    columns: Sequence[str] | None = None
    delimiter: str = ","
    header: bool | Sequence[str] = True
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
        if not isinstance(self.delimiter, str) or len(self.delimiter) != 1:
            raise UsageError(f"{name}.delimiter must be one character, not {self.delimiter!r}")
        if isinstance(self.header, str):
            raise UsageError(f"{name}.header must be true or a list of column names, not {self.header!r}")
        if self.header is False:
            raise UsageError(f"{name}.header must be true, or the names of the columns of a file that has none")
        self._batch_bytes = bounded_bytes("batch_bytes", self.batch_bytes)

    def outputs(self) -> list[str]:
        names = self._columns or (tuple(self.header) if not isinstance(self.header, bool) else (ANY_COLUMNS,))
        return [*names, *([self.path_column] if self.path_column else [])]

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        for path in task.data:
            for table in self._tables(path):
                if self.path_column:
                    paths = pa.repeat(pa.scalar(path, pa.string()), table.num_rows)
                    yield DocumentBatch(
                        data=table.append_column(self.path_column, paths), dataset_name=task.dataset_name
                    )
                else:
                    yield DocumentBatch(data=table, dataset_name=task.dataset_name)

    def _tables(self, path: str) -> Iterator[pa.Table]:
        import pyarrow.csv as pc_csv

        given = 0
        wrong: list[Any] = []

        def set_aside(row: Any) -> str:
            wrong.append(row)
            return "skip"

        with open_input(path) as raw:
            try:
                head = decompressed(raw).read(1 << 16) or b""
                raw.seek(0)
                names = None if isinstance(self.header, bool) else list(self.header)
                reader = pc_csv.open_csv(
                    pa.PythonFile(_Whole(decompressed(raw)), mode="r"),
                    read_options=pc_csv.ReadOptions(
                        use_threads=False, block_size=self._batch_bytes, column_names=names, encoding="utf8"
                    ),
                    parse_options=pc_csv.ParseOptions(
                        delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=set_aside
                    ),
                    # As bytes: a cell that is no UTF-8 costs its row, and not its file.
                    convert_options=pc_csv.ConvertOptions(
                        column_types=dict.fromkeys(names or _header(head, self.delimiter), pa.binary()),
                        strings_can_be_null=False,
                        quoted_strings_can_be_null=False,
                        include_columns=list(self._columns) if self._columns else None,
                    ),
                )
                while True:
                    batch = reader.read_next_batch()
                    table = self._typed(pa.Table.from_batches([batch]), path, given)
                    self.record_read(batch.num_rows)
                    given += batch.num_rows
                    self._tell(wrong, path)
                    if table.num_rows:
                        yield table
            except StopIteration:
                self._tell(wrong, path)
            except (pa.ArrowInvalid, pa.ArrowKeyError, OSError, Truncated) as error:
                if isinstance(error, pa.ArrowKeyError):
                    raise UsageError(f"{path!r}: {error}; the columns of a file are named in its first line") from error
                self._tell(wrong, path)
                if not (isinstance(error, pa.ArrowInvalid) and "Empty CSV file" in str(error)):
                    self.record_read(1)
                    self.record_rejected("broken CSV", source=path, position=f"after row {given}", message=str(error))

    def _typed(self, table: pa.Table, path: str, before: int) -> pa.Table:
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
                            position=f"row {before + row + 1}",
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
                position="" if row.number is None else f"row {row.number - isinstance(self.header, bool)}",
                message=f"{row.actual_columns} cells, and the file has {row.expected_columns} columns",
                raw=row.text.encode("utf-8", "surrogateescape") if isinstance(row.text, str) else row.text,
            )
        wrong.clear()


@dataclass(kw_only=True)
class CsvReader(CompositeStage[EmptyTask, DocumentBatch]):
    """Reads CSV files, plain or compressed; quoted cells may hold line ends.

    Every cell is text as it stands: ``00123``, ``NA`` and the empty cell too. ``schema`` declares other types, as in
    ``{score: float64}``; there an empty cell is null. ``delimiter`` is one character. ``header`` is true where the first
    line names the columns, or the list of their names. A row that does not fit is set aside with its number.
    """

    paths: str | Sequence[str]
    schema: Mapping[str, Any] | None = None
    columns: Sequence[str] | None = None
    delimiter: str = ","
    header: bool | Sequence[str] = True
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
                batch_bytes=self.batch_bytes,
                path_column=self.path_column,
            ),
        ]


class _Whole:
    """A file whose reads are full until it ends, as Arrow expects of it."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return bytes(self._raw.read())
        pieces = []
        while size and (piece := self._raw.read(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        self.closed = True


def _header(head: bytes, delimiter: str) -> list[str]:
    """The names in the first line, to fix their types; Arrow reads it again."""
    import csv
    import io

    text = head.decode("utf-8-sig", "replace")
    return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])


def _convert(column: Any, kind: pa.DataType) -> Any:
    text = column.cast(pa.string())
    if pa.types.is_string(kind):
        return text
    empty = pc.equal(text, scalar(""))
    return pc.if_else(empty, array([None], pa.string())[0], text).cast(kind)
