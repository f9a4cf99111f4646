"""How are the tables of a run directory stored? As Parquet, or, if they are small and only a run reads them, as Arrow
streams. A file is written whole, and a damaged one is reported by its name.
"""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa

from curator_core import storage
from curator_core.errors import RunRefused, UsageError

PARQUET, STREAM = ".parquet", ".arrow"
ENDINGS = (PARQUET, STREAM)
_MARK = b"crc32 of the rest:"
# Below this size, zstd spends more time on preparing each column than on its bytes, and Parquet more than a stream.
_SMALL_BYTES = 1 << 20
# Columns that files of earlier versions lack: rows from there have no value.
LATER = frozenset({"picture", "vector"})
_END = 8  # the bytes after the footer: the length of the footer, and four letters


def write_parquet(path: str, tables: pa.Table | Iterator[pa.Table]) -> None:
    """Write one table, or several with the same columns, to a Parquet file, which then exists whole or not at all."""
    import pyarrow.parquet as pq  # deferred: the import takes 30 ms, and not every process writes a ledger

    given = iter((tables,)) if isinstance(tables, pa.Table) else tables
    first = next(given)
    with storage.write_atomic(path) as target:
        out = _Summed(target)
        small = isinstance(tables, pa.Table) and is_small(tables)
        words = [field.name for field in first.schema if pa.types.is_dictionary(field.type)]
        with pq.ParquetWriter(
            out,
            first.schema,
            compression="lz4" if small else "zstd",
            store_schema=True,
            write_page_checksum=True,
            # A small file is read whole, so it needs neither a dictionary for each column nor statistics, which take half
            # of the time of writing it.
            use_dictionary=words if small else True,
            write_statistics=not small,
        ) as file:
            file.write_table(first)
            for table in given:
                file.write_table(table)
            out.hold()
        out.finish()


def is_small(table: pa.Table) -> bool:
    """Whether most of the time of writing and reading a table does not depend on its rows."""
    return bool(table.nbytes < _SMALL_BYTES)


def write_stream(path: str, table: pa.Table) -> None:
    """Write a small table to a file as a stream of Arrow and a checksum, which is after the end of the stream."""
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(
        out, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
    ) as file:
        file.write_table(table.combine_chunks())
    data = out.getvalue()
    with storage.write_atomic(path) as target:
        target.write(data)
        target.write(_MARK + zlib.crc32(data).to_bytes(4, "little"))


class _Summed(io.RawIOBase):
    """Writes a checksum of all other bytes before the footer, where readers of Parquet ignore it.

    Parquet's own checksums cover pages only. A bit that flips in a page's header or in the footer can leave a file that
    is readable but has other content.
    """

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._sum = 0
        self._held: bytearray | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._sum = zlib.crc32(data, self._sum)
        if self._held is None:
            self._out.write(data)
        else:
            self._held += data
        return len(data)

    def hold(self) -> None:
        """Hold all further writes back: the footer may be among them."""
        self._held = bytearray()

    def finish(self) -> None:
        held = bytes(self._held or b"")
        footer = len(held) - _END - int.from_bytes(held[-_END:-4], "little")
        self._out.write(held[:footer] + _MARK + self._sum.to_bytes(4, "little") + held[footer:])


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
            if not path.endswith(ENDINGS) or path in seen:
                continue
            seen.add(path)
            try:
                table = read_file(path, schema, columns)
            except UsageError:
                if storage.exists(path):
                    raise
                packed = True  # by a run that is in progress, into a file that the next listing contains
                continue
            yield path, table


def size_of(run_dir: str, folder: str) -> int:
    """The total size of the files in a folder of a run directory, in bytes on disk."""
    place = storage.join(run_dir, folder)
    return sum(file.size for file in storage.scan(place)) if storage.exists(place) else 0


def read_file(path: str, schema: pa.Schema, columns: Sequence[str] | None = None, *, verify: bool = True) -> pa.Table:
    """Read a whole file, or these columns of it. ``verify=False`` skips the checksum, for files that have been read
    before.
    """
    if path.endswith(STREAM):
        return _read_stream(path, schema, columns)
    with _opened(path, verify=verify) as parquet:
        # No threads are used: most files are small, and waking a pool takes longer than reading one.
        table = parquet.read(columns=None if columns is None else list(columns), use_threads=False)
        return _as_written(table, schema, columns)


def read_pieces(path: str, schema: pa.Schema) -> Iterator[pa.Table]:
    with _opened(path) as parquet:
        for group in range(parquet.num_row_groups):
            yield _as_written(parquet.read_row_group(group, use_threads=False), schema)


def _read_stream(path: str, schema: pa.Schema, columns: Sequence[str] | None) -> pa.Table:
    with _opened_file(path) as file:
        data = file.read()
        end = len(data) - len(_MARK) - 4
        if end < 0 or data[end:-4] != _MARK:
            raise pa.ArrowInvalid("it does not end with its checksum")
        if zlib.crc32(memoryview(data)[:end]) != int.from_bytes(data[-4:], "little"):
            raise pa.ArrowInvalid("its checksum does not match its content")
        with pa.ipc.open_stream(pa.py_buffer(data), options=pa.ipc.IpcReadOptions(use_threads=False)) as stream:
            table = stream.read_all()
        return _as_written(table if columns is None else table.select(columns), schema, columns)


@contextlib.contextmanager
def _opened(path: str, *, verify: bool = True) -> Iterator[Any]:
    """An open Parquet file."""
    import pyarrow.parquet as pq

    with _opened_file(path) as file:
        if verify:
            _compare(file)
        # The checksums of pages are verified as well: files of earlier versions have no others, and a file may change
        # after it was first read.
        with pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True) as parquet:
            yield parquet


@contextlib.contextmanager
def _opened_file(path: str) -> Iterator[BinaryIO]:
    """An open file. Damage that is found here or in the block raises an error that names the file."""
    try:
        with storage.open_input(path) as file:
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the storage failed, not the content
            raise
        raise RunRefused(_damage(path, error)) from None


def _compare(file: BinaryIO) -> None:
    """Raise `pa.ArrowInvalid` if the checksum in a file is not that of its other bytes."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _END))
    footer = size - _END - int.from_bytes(file.read(4), "little")
    place = footer - len(_MARK) - 4
    if place > 0:
        file.seek(place)
        found = file.read(len(_MARK) + 4)
        if found.startswith(_MARK):
            file.seek(0)
            rest = _sum_of(file, place, 0)
            file.seek(footer)
            if _sum_of(file, size - footer, rest) != int.from_bytes(found[-4:], "little"):
                raise pa.ArrowInvalid("its checksum does not match its content")
    file.seek(0)


def _sum_of(file: BinaryIO, length: int, begun: int) -> int:
    while length > 0 and (block := file.read(min(length, 1 << 20))):
        begun = zlib.crc32(block, begun)
        length -= len(block)
    return begun


def _as_written(table: pa.Table, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Return ``table`` in the types of ``schema``; raise `pa.ArrowInvalid` if it has other columns."""
    expected = set(schema.names if columns is None else columns)
    for name in sorted((expected - set(table.column_names)) & LATER):
        table = table.append_column(name, pa.nulls(len(table), schema.field(name).type))
    if expected != set(table.column_names):
        raise pa.ArrowInvalid(f"its columns are {', '.join(table.column_names)}, so it is a different file")
    types = pa.schema([schema.field(name) for name in table.column_names])
    return table if table.schema.equals(types) else table.cast(types)


def _damage(path: str, error: Exception) -> str:
    """An error that says what is wrong, what is lost with the file, and how to continue."""
    folder = storage.file_name(storage.parent(path))
    if folder in ("ledger", "sources"):
        remedy = "remove it and continue with resume=True (--resume): work that only this file recorded is run again"
    elif folder == "rejects":
        remedy = (
            "remove it: the rejects that only this file held are lost, everything else remains, and fresh=True "
            "(--fresh) finds "
            "them again"
        )
    else:
        remedy = "start over with fresh=True (--fresh), or remove it and lose what it held"
    said = " ".join(str(error).split())
    return f"{path!r} is damaged ({said}): it is written whole or not at all, so something else changed it; {remedy}"
