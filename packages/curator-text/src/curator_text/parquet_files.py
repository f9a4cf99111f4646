"""Gives the Parquet files of a folder the same schema, and joins several files into one."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from curator_core import storage
from curator_core.arrow.kinds import one_schema
from curator_core.arrow.widening import keeps_values
from curator_core.model.task import FileRecord
from curator_text.widening import fitted

# This many numbers of vectors, from at most this many rows, show whether compressing vectors is worthwhile.
_TRIED_NUMBERS, _TRIED_ROWS = 1 << 14, 1 << 10
# How many file footers are read at a time; most of the time is spent waiting for them.
_THREADS = 16


def write_table(out: storage.AtomicFile, table: pa.Table, *, compression: str, row_group_bytes: int) -> None:
    """Write a table as a Parquet file. A table without rows gets no row group, since some readers stop at an empty one."""
    import pyarrow.parquet as pq

    rows = max(1, table.num_rows)
    per_group = max(1, rows * row_group_bytes // max(1, table.get_total_buffer_size()))
    # The file contains counts and page statistics, but nothing like the time of writing, so it is reproducible.
    with pq.ParquetWriter(out, table.schema, **_encoding(table.schema, table, compression)) as writer:
        if table.num_rows:
            writer.write_table(table, row_group_size=min(rows, per_group))


def _encoding(schema: pa.Schema, first: pa.Table | None, compression: str) -> dict[str, Any]:
    """How the columns of a file are written. All except vectors are compressed, and get a dictionary if that is
    shorter, and statistics.

    The numbers in vectors are rarely repeated and in no order, so a dictionary and statistics cost as much time as the
    writing, for nothing. Vectors are compressed if that saves a tenth or more of the ``first`` rows.
    """
    vectors = [field.name for field in schema if _is_vector(field.type)]
    if not vectors:
        return {"compression": compression, "use_dictionary": True}
    import pyarrow.parquet as pq

    # Parquet has its own names for nested parts of a column, and only a file shows them.
    empty = io.BytesIO()
    pq.ParquetWriter(empty, schema).close()
    codecs = {name: compression if _compresses(first, name, compression) else "none" for name in vectors}
    chosen: dict[str, str] = {}
    others: list[str] = []
    for part in pq.read_metadata(empty).schema:
        vector = next((name for name in vectors if part.path.startswith(f"{name}.")), None)
        chosen[part.path] = compression if vector is None else codecs[vector]
        if vector is None:
            others.append(part.path)
    return {"compression": chosen, "use_dictionary": others, "write_statistics": others}


def _compresses(table: pa.Table | None, name: str, compression: str) -> bool:
    """Whether a codec makes the first vectors of a table at least a tenth smaller."""
    if table is None or compression == "none":
        return True
    values = [chunk.flatten() for chunk in table[name].slice(0, _TRIED_ROWS).chunks]
    few = pa.chunked_array(values, table.schema.field(name).type.value_type).slice(0, _TRIED_NUMBERS)
    data = few.to_numpy().tobytes()
    return len(pa.Codec(compression).compress(data)) <= 0.9 * len(data)


def _is_vector(kind: pa.DataType) -> bool:
    listed = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(listed and pa.types.is_floating(kind.value_type))


def write_packed(
    out: storage.AtomicFile, parts: Iterable[str], schema: pa.Schema, *, compression: str, row_group_bytes: int
) -> None:
    """Join several files into one with this schema and row groups of at most ``row_group_bytes``, unless a row group of
    theirs is larger.
    """
    import pyarrow.parquet as pq

    tables = _row_groups(parts, schema, row_group_bytes)
    first = next(tables, None)
    with pq.ParquetWriter(out, schema, **_encoding(schema, first, compression)) as writer:
        if first is not None:
            writer.write_table(first, row_group_size=first.num_rows)
            del first
        for table in tables:
            writer.write_table(table, row_group_size=table.num_rows)


def schema_of(paths: Sequence[str]) -> tuple[pa.Schema, list[pa.Schema]]:
    """A schema for the rows of all files, and the schema of each file."""
    schemas = _side_by_side(_schema, paths)
    return one_schema(schemas, lambda number, name, kind: _keeps(paths[number], name, kind)), schemas


def brought_to(
    schema: pa.Schema,
    records: Sequence[FileRecord],
    schemas: Sequence[pa.Schema],
    *,
    compression: str,
    row_group_bytes: int,
) -> list[FileRecord]:
    """Rewrite files that have another schema in place; returns the records of all files.

    This pass can be interrupted at any point and repeated: files that were already rewritten are recognised by their
    size.
    """

    def bring(entry: tuple[FileRecord, pa.Schema]) -> FileRecord:
        record, own = entry
        if own.with_metadata(None).equals(schema.with_metadata(None), check_metadata=True):
            return record if storage.info(record.path).size == record.bytes else _recorded(record)
        with storage.write_atomic(record.path) as out:
            write_packed(out, [record.path], schema, compression=compression, row_group_bytes=row_group_bytes)
        return out.record(rows=record.rows)

    return _side_by_side(bring, list(zip(records, schemas, strict=True)), min(4, os.cpu_count() or 1))


def _side_by_side[T, R](do: Callable[[T], R], things: Sequence[T], threads: int = _THREADS) -> list[R]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(do, things))


def _schema(path: str) -> pa.Schema:
    import pyarrow.parquet as pq

    with storage.open_input(path) as stream:
        return pq.read_schema(stream)


def _keeps(path: str, name: str, kind: pa.DataType) -> bool:
    """Whether a type preserves the values of a column of a file."""
    import pyarrow.parquet as pq

    with storage.open_arrow(path, mapped=False) as stream, pq.ParquetFile(stream) as file:
        groups = (file.read_row_group(number, columns=[name]) for number in range(file.num_row_groups))
        return all(keeps_values(table.column(name), kind) for table in groups)


def _row_groups(parts: Iterable[str], schema: pa.Schema, limit: int) -> Iterator[pa.Table]:
    """The rows of several files as tables of at most ``limit`` bytes, unless one of their row groups is larger."""
    import pyarrow.parquet as pq

    held: list[pa.Table] = []
    size = 0
    for part in parts:
        with storage.open_arrow(part, mapped=False) as stream, pq.ParquetFile(stream) as file:
            for number in range(file.num_row_groups):
                table = fitted(file.read_row_group(number), schema)
                if not table.num_rows:
                    continue
                if held and size + table.nbytes > limit:
                    yield pa.concat_tables(held)
                    held, size = [], 0
                held.append(table)
                size += table.nbytes
    if held:
        yield pa.concat_tables(held)


def _recorded(record: FileRecord) -> FileRecord:
    digest, size = hashlib.sha256(), 0
    with storage.open_input(record.path) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            size += len(block)
    return FileRecord(record.path, record.rows, size, digest.hexdigest())
