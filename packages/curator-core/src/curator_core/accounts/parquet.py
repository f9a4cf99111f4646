"""Parquet files of a run directory: written whole, read in pieces, and a damaged one is named."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

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
        pq.ParquetWriter(out, first.schema, compression="zstd", store_schema=True) as file,
    ):
        file.write_table(first)
        for table in given:
            file.write_table(table)


def _tables(run_dir: str, folder: str, schema: pa.Schema) -> Iterator[pa.Table]:
    for _, table in _files(run_dir, folder, schema):
        yield table


def _files(
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
                table = _read(path, schema, columns)
            except UsageError:
                if storage.exists(path):
                    raise
                packed = True  # by a run that is at work, into a file that the next listing has
                continue
            yield path, table


def _read(path: str, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    import pyarrow.parquet as pq

    # Without threads: most files are small, and waking a pool costs more than reading one.
    with _undamaged(path), storage.open_input(path) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
        table = parquet.read(columns=None if columns is None else list(columns), use_threads=False)
        return table.cast(pa.schema([schema.field(name) for name in table.column_names]))


def _pieces(path: str, schema: pa.Schema) -> Iterator[pa.Table]:
    import pyarrow.parquet as pq

    with _undamaged(path), storage.open_input(path) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
        for group in range(parquet.num_row_groups):
            table = parquet.read_row_group(group, use_threads=False)
            yield table.cast(pa.schema([schema.field(name) for name in table.column_names]))


@contextlib.contextmanager
def _undamaged(path: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the place, not the content
            raise
        known_elsewhere = storage.file_name(storage.parent(path)) in ("ledger", "sources")
        raise RunRefused(
            f"{path!r} is damaged ({error}): it is written whole or not at all, so something else changed it; "
            + (
                "remove it and go on with resume=True (--resume): what only this file told of is run again"
                if known_elsewhere
                else "start over with fresh=True (--fresh), or remove it and do without what it held"
            )
        ) from None
