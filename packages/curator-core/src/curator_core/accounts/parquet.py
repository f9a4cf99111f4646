"""Parquet files of a run directory: written whole, read in pieces, and reported by name when damaged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from curator_core import storage
from curator_core.errors import RunRefused, UsageError


def write_parquet(path: str, tables: pa.Table | Iterator[pa.Table]) -> None:
    """A Parquet file of one table, or of several of the same columns, that is there whole or not at all."""
    import pyarrow.parquet as pq  # deferred: it costs 30 ms, and not every process writes a ledger

    given = iter((tables,)) if isinstance(tables, pa.Table) else tables
    first = next(given)
    with (
        storage.write_atomic(path) as out,
        pq.ParquetWriter(out, first.schema, compression="zstd", store_schema=True, write_page_checksum=True) as file,
    ):
        file.write_table(first)
        for table in given:
            file.write_table(table)


def read_tables(run_dir: str, folder: str, schema: pa.Schema) -> Iterator[pa.Table]:
    for _, table in read_folder(run_dir, folder, schema):
        yield table


def read_folder(
    run_dir: str, folder: str, schema: pa.Schema, columns: Sequence[str] | None = None
) -> Iterator[tuple[str, pa.Table]]:
    place = storage.join(run_dir, folder)
    if not storage.exists(place):
        return
    seen: set[str] = set()
    packed = True
    while packed:
        packed = False
        for path in sorted(storage.list_files(place)):
            if not path.endswith(".parquet") or path in seen:
                continue
            seen.add(path)
            try:
                table = read_file(path, schema, columns)
            except UsageError:
                if storage.exists(path):
                    raise
                packed = True  # by a run that is at work, into a file that the next listing has
                continue
            yield path, table


def read_file(path: str, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    with _opened(path) as parquet:
        # Without threads: most files are small, and waking a pool costs more than reading one.
        table = parquet.read(columns=None if columns is None else list(columns), use_threads=False)
        return _as_written(table, schema, columns)


def read_pieces(path: str, schema: pa.Schema) -> Iterator[pa.Table]:
    with _opened(path) as parquet:
        for group in range(parquet.num_row_groups):
            yield _as_written(parquet.read_row_group(group, use_threads=False), schema)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
    """An open Parquet file; whatever is wrong with its content, here or in the block, is an error that names the file."""
    import pyarrow.parquet as pq

    try:
        with (
            storage.open_input(path) as file,
            # Checksums, for bits that flip in a page leave a file that reads, and says something else.
            pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True) as parquet,
        ):
            yield parquet
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the place, not the content
            raise
        raise RunRefused(_damage(path, error)) from None


def _as_written(table: pa.Table, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """``table`` in the types that it was written in; `pa.ArrowInvalid` where it holds other columns."""
    expected = set(schema.names if columns is None else columns)
    if expected != set(table.column_names):
        raise pa.ArrowInvalid(f"its columns are {', '.join(table.column_names)}, so it is another file")
    return table.cast(pa.schema([schema.field(name) for name in table.column_names]))


def _damage(path: str, error: Exception) -> str:
    """What is wrong, what is lost with the file, and how to go on."""
    folder = storage.file_name(storage.parent(path))
    if folder in ("ledger", "sources"):
        remedy = "remove it and continue with resume=True (--resume): what only this file recorded is run again"
    elif folder == "rejects":
        remedy = (
            "remove it: the rejects that only this file held are lost, all else stands, and fresh=True (--fresh) finds "
            "them again"
        )
    else:
        remedy = "start over with fresh=True (--fresh), or remove it and do without what it held"
    said = " ".join(str(error).split())
    return f"{path!r} is damaged ({said}): it is written whole or not at all, so something else changed it; {remedy}"
