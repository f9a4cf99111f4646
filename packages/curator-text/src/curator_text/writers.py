"""Writes documents to one file for each task, which is named after its lineage and appears only when it is complete."""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, cast
from urllib.parse import quote

import pyarrow as pa

from curator_core.arrow.arrays import array
from curator_core.arrow.json_column import values_of, whole_as_integers
from curator_core.errors import UsageError, nearest
from curator_core.model.parameters import paths_as_text
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch, FileGroupTask, FileRecord
from curator_core.stages.files import parse_bytes
from curator_core.storage import AtomicFile, join, write_atomic
from curator_core.storage.packing import parts_folder
from curator_text import packing
from curator_text.json_text import json_lines
from curator_text.parquet_files import brought_to, schema_of, write_packed, write_table

_SUFFIX = {"gzip": ".gz", "zstd": ".zst", "bz2": ".bz2", "xz": ".xz"}
_ALIASES = {"gz": "gzip", "zst": "zstd", "bzip2": "bz2", "none": None}
_PARQUET_CODECS = ("zstd", "snappy", "gzip", "brotli", "lz4", "none")
_LONGEST_NAME = 255  # in bytes; the limit of all common file systems
_NOT_IN_NAMES = re.compile(r"[^\w ()+,\-=@~.]+")


@dataclass(kw_only=True)
class JsonlWriter(ProcessingStage[DocumentBatch, FileGroupTask]):
    """Writes each batch as JSON lines under ``path``, in a file named after the task.

    ``compression`` is ``gzip``, ``zstd``, ``bz2`` or ``xz``. ``columns`` names the columns to write, in order. A null
    is written as ``null``, or left out with ``nulls="omit"``. The values of a ``json`` column are written as JSON
    values. Dates and times are written as ISO 8601 text, decimals as numbers, and NaN and infinities, which JSON cannot
    represent, as null.

    With ``target_size`` (such as ``"256MB"``), the files of all tasks are packed at the end of the run into
    ``00000.jsonl``, ``00001.jsonl`` and so on, of at most that size, in the order of the input.
    """

    path: str
    compression: str | None = None
    columns: Sequence[str] | None = None
    nulls: Literal["write", "omit"] = "write"
    target_size: int | str | None = None

    def __post_init__(self) -> None:
        _check_path(self)
        self._target_size = _limit(self)
        self._codec = _ALIASES.get(str(self.compression), self.compression)
        if self._codec is not None and self._codec not in _SUFFIX:
            raise UsageError(
                f"JsonlWriter.compression must be one of {', '.join(_SUFFIX)}, or left out, not {self.compression!r}"
            )
        if self.nulls not in ("write", "omit"):
            raise UsageError(f"JsonlWriter.nulls must be 'write' or 'omit', not {self.nulls!r}")

    def inputs(self) -> list[str]:
        return list(self.columns or ())

    def output_folder(self) -> str:
        return self.path

    def process(self, task: DocumentBatch) -> FileGroupTask:
        record = self._write(join(_folder(self), _name(task)), _chosen(task, self.columns))
        return _done(self, task, [record])

    def _write(self, path: str, table: pa.Table) -> FileRecord:
        with write_atomic(f"{path}{self._suffix()}") as out:
            if self._codec is None:
                out.writelines(json_lines(table, self.nulls == "omit"))
            else:
                _write_compressed(out, json_lines(table, self.nulls == "omit"), self._codec)
        return out.record(rows=table.num_rows)

    def write_rows(self, path: str, table: pa.Table) -> FileRecord | None:
        return None if any(_is_binary(field.type) for field in table.schema) else self._write(path, table)

    def _suffix(self) -> str:
        return f".jsonl{_SUFFIX.get(self._codec or '', '')}"

    def repacks(self) -> bool:
        return self._target_size is not None

    def finish(self, outputs: Sequence[FileRecord]) -> list[FileRecord] | None:
        """Pack the files of all tasks; in every format except zstd, concatenated files are a valid file."""
        if self._target_size is None:
            return None
        write = packing.repack_zstd if self._codec == "zstd" else packing.copy_bytes
        return packing.pack(
            self.path, outputs, limit=self._target_size, suffix=self._suffix(), settings={}, write=write
        )


def _is_binary(kind: pa.DataType) -> bool:
    """Whether a column contains bytes or lists of bytes, which JSON cannot represent."""
    if kind.num_fields:
        return any(_is_binary(kind.field(place).type) for place in range(kind.num_fields))
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


@dataclass(kw_only=True)
class ParquetWriter(ProcessingStage[DocumentBatch, FileGroupTask]):
    """Writes each batch as Parquet under ``path``, in a file named after the task; a batch without rows keeps its
    columns.

    ``compression`` is ``zstd``, ``snappy``, ``gzip``, ``brotli``, ``lz4`` or ``none``. ``columns`` names the columns to
    write. ``partition_by`` writes rows to folders ``column=value`` and leaves these columns out of the files, as Hive
    does. ``row_group_bytes`` limits the data of a row group before compression. Vectors are compressed only if that
    makes them a tenth smaller.

    With ``target_size`` (such as ``"512MB"``), the files of all tasks are packed at the end of the run into
    ``00000.parquet``, ``00001.parquet`` and so on, of about that size, in the order of the input, separately in each
    folder.

    At the end of the run, all files have the same columns and types: a missing column is filled with nulls, numbers get
    a type that holds all of them, and a column with several kinds of values becomes JSON.
    """

    path: str
    compression: str = "zstd"
    columns: Sequence[str] | None = None
    partition_by: Sequence[str] = ()
    row_group_bytes: int | str = "128MiB"
    target_size: int | str | None = None

    def __post_init__(self) -> None:
        _check_path(self)
        self._target_size = _limit(self)
        if self.compression not in _PARQUET_CODECS:
            raise UsageError(
                f"ParquetWriter.compression must be one of {', '.join(_PARQUET_CODECS)}, not {self.compression!r}"
            )
        if isinstance(self.partition_by, str):
            raise UsageError(f"ParquetWriter.partition_by must be a list of columns, such as [{self.partition_by!r}]")
        if len(set(self.partition_by)) != len(self.partition_by):
            raise UsageError(f"ParquetWriter.partition_by must be different columns, not {self.partition_by!r}")
        self._row_group_bytes = parse_bytes(self.row_group_bytes, "ParquetWriter.row_group_bytes")

    def inputs(self) -> list[str]:
        return list(dict.fromkeys([*(self.columns or ()), *self.partition_by]))

    def output_folder(self) -> str:
        return self.path

    def process(self, task: DocumentBatch) -> FileGroupTask:
        wanted = None if self.columns is None else list(dict.fromkeys([*self.columns, *self.partition_by]))
        table = _chosen(task, wanted)
        records = []
        for folder, part in _partitions(self, table, list(self.partition_by)):
            path = join(_folder(self), *folder, f"{_name(task)}.parquet")
            with write_atomic(path) as out:
                self._write(out, part)
            records.append(out.record(rows=part.num_rows))
        return _done(self, task, records)

    def _write(self, out: AtomicFile, table: pa.Table) -> None:
        write_table(out, table, compression=self.compression, row_group_bytes=self._row_group_bytes)

    def repacks(self) -> bool:
        return self._target_size is not None

    def finish(self, outputs: Sequence[FileRecord]) -> list[FileRecord] | None:
        """Give all files the same columns and types, and pack them if there is a ``target_size``."""
        settings: dict[str, Any] = {"compression": self.compression, "row_group_bytes": self._row_group_bytes}
        if self._target_size is None:
            schema, schemas = schema_of([record.path for record in outputs])
            return brought_to(schema, outputs, schemas, **settings)
        schema = pa.schema([])

        def prepare(fresh: Sequence[FileRecord], standing: Sequence[FileRecord]) -> list[FileRecord]:
            nonlocal schema
            schema, schemas = schema_of([record.path for record in (*standing, *fresh)])
            return brought_to(schema, standing, schemas[: len(standing)], **settings)

        return packing.pack(
            self.path,
            outputs,
            limit=self._target_size,
            suffix=".parquet",
            settings={"row_group_bytes": self._row_group_bytes},
            write=lambda parts, out: write_packed(out, parts, schema, **settings),
            prepare=prepare,
        )


def _write_compressed(out: AtomicFile, lines: Iterable[bytes], codec: str) -> None:
    if codec == "xz":
        with lzma.LZMAFile(cast(BinaryIO, out), "wb") as packed:
            packed.writelines(lines)
        return
    with pa.CompressedOutputStream(pa.PythonFile(out, mode="w"), codec) as stream:
        held: list[bytes] = []
        size = 0
        for line in lines:
            held.append(line)
            size += len(line)
            if size >= 1 << 18:
                stream.write(b"".join(held))
                held, size = [], 0
        stream.write(b"".join(held))


# Both ----------------------------------------------------------------------------------------------------------------


def _partitions(stage: ParquetWriter, table: pa.Table, by: list[str]) -> Iterator[tuple[list[str], pa.Table]]:
    """The parts of a table with their folders, in order of first appearance.

    Rows are rejected if their value cannot be the name of a folder, because it is too long or not a single value.
    """
    if not by:
        yield [], table
        return
    for name in by:
        if pa.types.is_nested(table.schema.field(name).type):
            raise UsageError(
                f"ParquetWriter.partition_by names {name!r}, which is {table.schema.field(name).type}: a folder "
                "needs a single value as its name"
            )
    rest = table.drop_columns(by)
    keys = list(zip(*(values_of(table.column(name)) for name in by), strict=True))
    rows: dict[tuple[str, ...], list[int]] = {}  # several values may share a folder, as null and the empty text do
    wrong: dict[tuple[str, str], int] = {}
    for row, values in enumerate(keys):
        folder = tuple(f"{name}={_folder_value(value)}" for name, value in zip(by, values, strict=True))
        at = next((at for at, part in enumerate(folder) if len(part.encode()) > _LONGEST_NAME), None)
        nested = next((at for at, value in enumerate(values) if isinstance(value, list | dict)), None)
        if at is None and nested is None:
            rows.setdefault(folder, []).append(row)
            continue
        reason = "partition value too long" if nested is None else "partition value is not one value"
        column = by[at if nested is None and at is not None else nested or 0]
        wrong[reason, column] = wrong.get((reason, column), 0) + 1
    for (reason, column), count in wrong.items():
        stage.record_rejected(
            reason,
            message=f"column {column!r} names folders, whose names can have at most {_LONGEST_NAME} bytes",
            rows=count,
        )
    if not rows:
        yield [], rest.slice(0, 0)
    for folder, members in rows.items():
        yield list(folder), rest.take(array(members, pa.int64()))


def _folder_value(value: Any) -> str:
    if value is None or value == "":
        return "__HIVE_DEFAULT_PARTITION__"
    value = whole_as_integers(value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    # A value comes from the data, so escape everything that could leave the folder or hide the file. Letters of all
    # scripts are not escaped, as in other tools: an escaped letter takes up to nine characters, and a name is limited
    # to 255 bytes.
    if not text.strip("."):
        return text.replace(".", "%2E")
    return _NOT_IN_NAMES.sub(lambda found: quote(found[0], safe=""), text)


def _chosen(task: DocumentBatch, columns: Sequence[str] | None) -> pa.Table:
    table = task.to_pyarrow()
    if columns is None:
        return table
    for name in columns:
        if name not in table.column_names:
            raise UsageError(
                f"there is no column {name!r} to write{nearest(name, table.column_names) or '.'} "
                f"The batch has: {', '.join(table.column_names)}"
            )
    return table.select(list(columns))


def _folder(stage: JsonlWriter | ParquetWriter) -> str:
    """The folder to which tasks write: the output folder, or a folder for files that are packed later."""
    return stage.path if stage._target_size is None else parts_folder(stage.path)


def _limit(stage: JsonlWriter | ParquetWriter) -> int | None:
    given = stage.target_size
    return None if given is None else parse_bytes(given, f"{type(stage).__name__}.target_size")


def _name(task: DocumentBatch) -> str:
    return task.task_id or "batch"


def _done(stage: ProcessingStage[Any, Any], task: DocumentBatch, records: list[FileRecord]) -> FileGroupTask:
    for record in records:
        stage.record_output(record)
    return FileGroupTask(data=[record.path for record in records], records=records, dataset_name=task.dataset_name)


def _check_path(stage: Any) -> None:
    name = type(stage).__name__
    paths_as_text(stage, "path")
    if not isinstance(stage.path, str) or not stage.path:
        raise UsageError(f"{name}.path must be a folder or URL to write to, not {stage.path!r}")
    columns = stage.columns
    if columns is not None and (isinstance(columns, str) or not columns or len(set(columns)) != len(columns)):
        raise UsageError(f"{name}.columns must be a list of different names, not {columns!r}")
