"""Reading Parquet: only the columns asked for, a row group at a time, large files by several workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curator_core.errors import UsageError, nearest
from curator_core.files import FilePartitioning, checked_paths, parse_bytes
from curator_core.lineage import source_id
from curator_core.stages import ANY_COLUMNS, CompositeStage, FanOut, ProcessingStage
from curator_core.storage import file_name, info, open_input
from curator_core.task import DocumentBatch, EmptyTask, FileGroupTask
from curator_text.readers._arguments import bounded_bytes, checked_columns

SUFFIXES = (".parquet", ".pq")
_MAX_BATCH_ROWS = 1 << 20


@dataclass(kw_only=True)
class ParquetPartitioning(FilePartitioning):
    """Names Parquet files, and ranges of row groups of those larger than ``split_bytes``; only their ends are read."""

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


@dataclass(kw_only=True)
class ParquetRead(FanOut[FileGroupTask, DocumentBatch]):
    """Reads the Parquet files of a task; see `ParquetReader`."""

    columns: Sequence[str] | None = None
    batch_bytes: int | str = "16MiB"
    path_column: str | None = None

    def __post_init__(self) -> None:
        self._columns = checked_columns(self.columns, type(self).__name__)
        self._batch_bytes = bounded_bytes("batch_bytes", self.batch_bytes)

    def outputs(self) -> list[str]:
        known = [ANY_COLUMNS] if self._columns is None else list(self._columns)
        return [*known, *([self.path_column] if self.path_column else [])]

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        schema: pa.Schema | None = None
        given = False
        for path, span in task.parts:
            for table in self._tables(path, span):
                schema = schema or table.schema
                if table.num_rows:
                    given = True
                    yield DocumentBatch(data=table, dataset_name=task.dataset_name)
        if not given and schema is not None:
            yield DocumentBatch(data=schema.empty_table(), dataset_name=task.dataset_name)

    def _tables(self, path: str, span: tuple[int, int] | None) -> Iterator[pa.Table]:
        import pyarrow.parquet as pq

        with open_input(path) as raw:
            try:
                file = pq.ParquetFile(raw, pre_buffer=False)
            except (pa.ArrowInvalid, OSError) as error:
                self._broken(path, "footer", error)
                return
            names = self._present(file.schema_arrow.names, path)
            groups = [g for g in range(file.num_row_groups) if span is None or span[0] <= _start(file, g) < span[1]]
            yield self._with_path(_chosen(pa.Table.from_batches([], file.schema_arrow), names), path)
            for group in groups:
                told = file.metadata.row_group(group)
                done = 0
                rows = max(1, min(_MAX_BATCH_ROWS, told.num_rows * self._batch_bytes // max(1, told.total_byte_size)))
                try:
                    for batch in file.iter_batches(rows, row_groups=[group], columns=names, use_threads=False):
                        done += batch.num_rows
                        self.record_read(batch.num_rows)
                        yield self._with_path(pa.Table.from_batches([batch]), path)
                except (pa.ArrowInvalid, OSError) as error:
                    self._broken(path, f"row group {group}, row {done}", error, told.num_rows - done)

    def _present(self, there: list[str], path: str) -> list[str] | None:
        if self._columns is None:
            return None
        for name in self._columns:
            if name not in there:
                raise UsageError(
                    f"{file_name(path)!r} has no column {name!r}{nearest(name, there)} It has: {', '.join(there)}"
                )
        return list(self._columns)

    def _broken(self, path: str, position: str, error: Exception, rows: int = 1) -> None:
        self.record_read(rows)
        self.record_rejected("damaged Parquet", source=path, position=position, message=str(error), rows=rows)

    def _with_path(self, table: pa.Table, path: str) -> pa.Table:
        if not self.path_column:
            return table
        return table.append_column(self.path_column, pa.repeat(pa.scalar(path, pa.string()), table.num_rows))


@dataclass(kw_only=True)
class ParquetReader(CompositeStage[EmptyTask, DocumentBatch]):
    """Reads Parquet files with their types as they are.

    ``columns`` reads only these from disk. Row groups come one after the other, in batches of about ``batch_bytes``.
    Files larger than ``split_bytes`` are shared among workers by row group. A damaged row group is set aside.
    """

    paths: str | Sequence[str]
    columns: Sequence[str] | None = None
    files_per_partition: int = 1
    bytes_per_partition: int | str | None = None
    split_bytes: int | str | None = "256MiB"
    limit: int | None = None
    batch_bytes: int | str = "16MiB"
    path_column: str | None = None

    def __post_init__(self) -> None:
        self.decompose()

    def decompose(self) -> list[ProcessingStage[Any, Any]]:
        checked_paths("ParquetReader.paths", self.paths)
        return [
            ParquetPartitioning(
                paths=self.paths,
                files_per_partition=self.files_per_partition,
                bytes_per_partition=self.bytes_per_partition,
                split_bytes=self.split_bytes,
                limit=self.limit,
                extensions=SUFFIXES,
            ),
            ParquetRead(columns=self.columns, batch_bytes=self.batch_bytes, path_column=self.path_column),
        ]


def _spans(path: str, size: int, limit: int) -> list[tuple[int, int]]:
    """Ranges of whole row groups that cover a file, each of ``limit`` bytes or a little more."""
    import pyarrow.parquet as pq

    try:
        with open_input(path) as raw:
            file = pq.ParquetFile(raw, pre_buffer=False)
            starts = [_start(file, group) for group in range(file.num_row_groups)]
    except (pa.ArrowInvalid, OSError):
        return []  # told when it is read
    cuts = [0]
    for start in starts[1:]:
        if start - cuts[-1] >= limit:
            cuts.append(start)
    return list(zip(cuts, [*cuts[1:], size], strict=True))


def _start(file: Any, group: int) -> int:
    """Where a row group begins in its file: it belongs to the range that this byte is in."""
    chunk = file.metadata.row_group(group).column(0)
    offsets = [o for o in (chunk.dictionary_page_offset, chunk.data_page_offset) if o]
    return min(offsets, default=0)


def _chosen(table: pa.Table, names: list[str] | None) -> pa.Table:
    return table if names is None else table.select(names)
