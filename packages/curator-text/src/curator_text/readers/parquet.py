"""Reads Parquet files: only the requested columns, one row group at a time, and large files with several workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curator_core.arrow.arrays import array
from curator_core.errors import UsageError, nearest
from curator_core.model.lineage import source_id
from curator_core.model.places import Places, place_rows
from curator_core.model.stage import ANY_COLUMNS, FanOut
from curator_core.model.task import DocumentBatch, EmptyTask, FileGroupTask
from curator_core.stages.files import FilePartitioning, parse_bytes
from curator_core.stages.partitioned_reader import PartitionedReader
from curator_core.storage import file_name, info, open_arrow, open_input, parent
from curator_text.readers._arguments import bounded_bytes, checked_columns, twice_named, with_path

SUFFIXES = (".parquet", ".pq")
_MAX_BATCH_ROWS = 1 << 20
# If batches would have more rows than this, the size of the first rows is measured instead.
_MANY_ROWS = 1 << 13
_FIRST_ROWS = 64
# Errors that Arrow raises for a damaged file.
_DAMAGE = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, OSError, UnicodeDecodeError)
_VIEWS = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}


@dataclass(kw_only=True)
class ParquetPartitioning(FilePartitioning):
    """Names Parquet files, and ranges of row groups for files larger than ``split_bytes``; it reads only the footers."""

    split_bytes: int | str | None = "256MiB"

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        limit = None if self.split_bytes is None else parse_bytes(self.split_bytes)
        for group in super().process(task):
            path = group.data[0]
            size = info(path).size if limit is not None and len(group.data) == 1 else 0
            spans = _spans(path, size, limit) if limit is not None and size > limit else []
            if len(spans) < 2:
                yield group
                continue
            for span in spans:
                part = group.with_data([path])
                part.ranges = [span]
                part.task_id = source_id(file_name(path).partition(".")[0], [group.task_id, f"{span[0]}-{span[1]}"])
                yield part


@dataclass(kw_only=True, eq=False, repr=False)
class ParquetParameters:
    """The parameters of both `ParquetReader` and `ParquetRead`."""

    columns: Sequence[str] | None = None
    partition_by: Sequence[str] = ()
    batch_bytes: int | str = "16MiB"
    path_column: str | None = None


@dataclass(kw_only=True)
class ParquetRead(ParquetParameters, FanOut[FileGroupTask, DocumentBatch]):
    """Reads the Parquet files of a task; see `ParquetReader`."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        self._columns = checked_columns(self.columns, name)
        if isinstance(self.partition_by, str) or not all(isinstance(part, str) and part for part in self.partition_by):
            raise UsageError(
                f"{name}.partition_by must be a list of columns, such as ['lang'], not {self.partition_by!r}"
            )
        if twice := set(self.partition_by) & {*(self._columns or ()), self.path_column}:
            raise UsageError(f"{name} has {sorted(twice)[0]!r} both in partition_by and as another column")
        self._batch_bytes = bounded_bytes("batch_bytes", self.batch_bytes)

    def outputs(self) -> list[str]:
        known = [ANY_COLUMNS] if self._columns is None else list(self._columns)
        return [*known, *self.partition_by, *([self.path_column] if self.path_column else [])]

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        schema: pa.Schema | None = None
        given = False
        for path, span in task.parts:
            for table, numbers in self._tables(path, span):
                schema = schema or table.schema
                if table.num_rows:
                    given = True
                    batch = DocumentBatch(data=table, dataset_name=task.dataset_name)
                    yield place_rows(batch, Places(path, "row", numbers))
        if not given and schema is not None:
            yield DocumentBatch(data=schema.empty_table(), dataset_name=task.dataset_name)

    def range_of(self, path: str, unit: str, number: int) -> tuple[int, int] | None:
        """The byte range of the row group with row ``number``, or None if there is no such row or the file cannot be
        read.
        """
        import pyarrow.parquet as pq

        with open_input(path) as raw:
            try:
                file = pq.ParquetFile(raw, pre_buffer=False)
            except _DAMAGE:
                return None  # reported when the file is read
            for group in range(file.num_row_groups):
                number -= file.metadata.row_group(group).num_rows
                if number <= 0:
                    return _start(file, group), _start(file, group) + 1
        return None

    def _tables(
        self, path: str, span: tuple[int, int] | None
    ) -> Iterator[tuple[pa.Table, range | npt.NDArray[np.int64]]]:
        """The rows of a file, batch by batch, with the number of each row in the file, counted from 1."""
        import pyarrow.parquet as pq

        with open_arrow(path, mapped=False) as raw:
            try:
                file = pq.ParquetFile(raw, pre_buffer=False)
            except _DAMAGE as error:
                self._broken(path, "footer", error)
                return
            groups = [g for g in range(file.num_row_groups) if span is None or span[0] <= _start(file, g) < span[1]]
            try:
                names = self._present(file.schema_arrow.names, path)
            except UsageError as error:
                self._give_up(file, groups, path, str(error))
                raise
            there = file.schema_arrow.names
            twice = twice_named([name for name in there if names is None or name in names], path)
            if twice is not None:
                self._give_up(file, groups, path, twice)
                return
            yield self._with_parts(_chosen(pa.Table.from_batches([], file.schema_arrow), names), path), range(0)
            before = np.cumsum([1, *(file.metadata.row_group(g).num_rows for g in range(file.num_row_groups))])
            for group in groups:
                described = file.metadata.row_group(group)
                done = 0
                try:
                    rows = self._rows_of_a_batch(file, group, names)
                    for batch in file.iter_batches(rows, row_groups=[group], columns=names, use_threads=False):
                        done += batch.num_rows
                        self.record_read(batch.num_rows)
                        begin = int(before[group]) + done - batch.num_rows
                        numbers: range | npt.NDArray[np.int64] = range(begin, begin + batch.num_rows)
                        table, keep = self._readable(pa.Table.from_batches([batch]), path, group, done - batch.num_rows)
                        if keep is not None:
                            numbers = begin + np.flatnonzero(keep)
                        yield self._with_parts(table, path), numbers
                except _DAMAGE as error:
                    self._broken(path, f"row group {group}, row {done}", error, described.num_rows - done)

    def _readable(
        self, table: pa.Table, path: str, group: int, first: int
    ) -> tuple[pa.Table, npt.NDArray[np.bool_] | None]:
        """The rows whose values are valid for their types, and their numbers (None means all rows). A flipped bit can
        leave text that is not UTF-8, and Arrow does not check this while reading.
        """
        try:
            table.validate(full=True)
        except pa.ArrowInvalid:
            plain = _without_dictionaries(table)
            keep = np.ones(table.num_rows, np.bool_)
            for row in range(table.num_rows):
                try:
                    plain.slice(row, 1).validate(full=True)
                except pa.ArrowInvalid as error:
                    keep[row] = False
                    self.record_rejected(
                        "damaged Parquet",
                        source=path,
                        position=f"row group {group}, row {first + row}",
                        message=str(error),
                    )
            return plain.filter(array(keep)), keep
        return table, None

    def _with_parts(self, table: pa.Table, path: str) -> pa.Table:
        """The table with columns from the path: the values in the names of folders, and the path itself."""
        table = _without_views(table)
        for name in self.partition_by:
            value = _folder_value(path, name)
            if name in table.column_names:
                raise UsageError(f"{path!r} already has a column {name!r}: leave it out of partition_by")
            table = table.append_column(name, pa.repeat(array([value], pa.string())[0], table.num_rows))
        return with_path(table, self.path_column, path)

    def _rows_of_a_batch(self, file: Any, group: int, names: list[str] | None) -> int:
        described = file.metadata.row_group(group)
        rows = int(described.num_rows * self._batch_bytes // max(1, described.total_byte_size))
        # A value that many rows share takes little space in the file, but its full size for each row in memory.
        chosen = [part for part in file.schema_arrow if not names or part.name in names]
        each = sum(_bytes_of_vector(part.type) for part in chosen)  # known without reading the values
        long = [part.name for part in chosen if _may_be_long(part.type)]
        if rows > _MANY_ROWS and long:
            first = next(file.iter_batches(_FIRST_ROWS, row_groups=[group], columns=long, use_threads=False), None)
            if first is not None and first.num_rows:
                each += first.nbytes / first.num_rows
        if each:
            rows = min(rows, int(self._batch_bytes / each))
        return max(1, min(_MAX_BATCH_ROWS, rows))

    def _present(self, there: list[str], path: str) -> list[str] | None:
        if self._columns is None:
            return None
        for name in self._columns:
            if name not in there:
                raise UsageError(
                    f"{file_name(path)!r} has no column {name!r}{nearest(name, there) or '.'} It has: {', '.join(there)}"
                )
        return list(self._columns)

    def _give_up(self, file: Any, groups: Sequence[int], path: str, message: str) -> None:
        """Record a file, or a part of it, from which no row can be read."""
        rows = sum(file.metadata.row_group(group).num_rows for group in groups)
        self.record_read(rows)
        self.record_rejected("unusable columns", source=path, message=message, rows=rows)

    def _broken(self, path: str, position: str, error: Exception, rows: int = 1) -> None:
        self.record_read(rows)
        self.record_rejected("damaged Parquet", source=path, position=position, message=str(error), rows=rows)


@dataclass(kw_only=True)
class ParquetReader(ParquetParameters, PartitionedReader[DocumentBatch]):
    """Reads Parquet files without changing their types.

    Only the columns in ``columns`` are read from disk. Row groups are read one after the other, in batches of about
    ``batch_bytes``. Files larger than ``split_bytes`` are shared among workers by row group. A damaged row group is set
    aside. ``partition_by`` adds columns from the names of folders, such as ``lang`` in ``lang=en/0.parquet``, as text;
    they are null where `ParquetWriter` had a null or an empty text.
    """

    split_bytes: int | str | None = "256MiB"

    read = ParquetRead
    partitioning = ParquetPartitioning
    suffixes = SUFFIXES


def _spans(path: str, size: int, limit: int) -> list[tuple[int, int]]:
    """Ranges of complete row groups that cover a file, each with ``limit`` bytes or a little more."""
    import pyarrow.parquet as pq

    try:
        with open_input(path) as raw:
            file = pq.ParquetFile(raw, pre_buffer=False)
            starts = [_start(file, group) for group in range(file.num_row_groups)]
    except _DAMAGE:
        return []  # reported when the file is read
    cuts = [0]
    for start in starts[1:]:
        if start - cuts[-1] >= limit:
            cuts.append(start)
    return list(zip(cuts, [*cuts[1:], size], strict=True))


def _start(file: Any, group: int) -> int:
    """The start of a row group in its file; the row group belongs to the range that contains this byte."""
    described = file.metadata.row_group(group)
    if not described.num_columns:
        return 0
    chunk = described.column(0)
    offsets = [o for o in (chunk.dictionary_page_offset, chunk.data_page_offset) if o]
    return min(offsets, default=0)


def _without_dictionaries(table: pa.Table) -> pa.Table:
    """Unpack dictionaries, since one bad value in a dictionary would affect all rows."""
    for number, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            values = pa.chunked_array([chunk.dictionary_decode() for chunk in table.column(number).chunks])
            table = table.set_column(number, field.name, values)
    return table


def _without_views(table: pa.Table) -> pa.Table:
    """Convert columns of string views, which some programs write, to plain text, since pyarrow (26) cannot select rows
    of them.
    """
    fields = [field.with_type(_VIEWS.get(field.type, field.type)) for field in table.schema]
    schema = pa.schema(fields, table.schema.metadata)
    return table if schema.equals(table.schema) else table.cast(schema)


def _folder_value(path: str, name: str) -> str | None:
    folders = parent(path).split("/")
    value = next((folder[len(name) + 1 :] for folder in reversed(folders) if folder.startswith(f"{name}=")), None)
    if value is None:
        raise UsageError(f"{path!r} is not in a folder '{name}=…', but partition_by names {name!r}")
    return None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)


def _may_be_long(kind: pa.DataType) -> bool:
    return not (pa.types.is_primitive(kind) or pa.types.is_dictionary(kind) or _bytes_of_vector(kind))


def _bytes_of_vector(kind: pa.DataType) -> int:
    """The memory of each value in a column of vectors; 0 for other columns."""
    if not pa.types.is_fixed_size_list(kind) or not pa.types.is_primitive(kind.value_type):
        return 0
    return int(kind.list_size * kind.value_type.bit_width) // 8


def _chosen(table: pa.Table, names: list[str] | None) -> pa.Table:
    return table if names is None else table.select(names)
