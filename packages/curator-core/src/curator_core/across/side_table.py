"""What does a small table beside the data contain, and which of its rows has a given key?

A side table is Parquet, JSON lines, or a text file with one value per line. It is held in memory as a whole, up to a
limit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curator_core import storage
from curator_core.arrow.arrays import array, to_numpy
from curator_core.arrow.json_column import as_text
from curator_core.arrow.row_hash import column_of, row_digests
from curator_core.errors import UsageError, nearest
from curator_core.formatting import size
from curator_core.model.task import EmptyTask
from curator_core.stages.files import FilePartitioning

_ENDINGS = (".parquet", ".jsonl", ".ndjson", ".txt")
_CODECS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
# The size of an entry of the index: 16 bytes for a digest and 8 for a place.
_BYTES_PER_KEY = 24
_LINES_AT_ONCE = 10_000
_ROWS_AT_ONCE = 100_000


def read_side_table(
    what: str, paths: str | Sequence[str], keys: Sequence[str], columns: Sequence[str] | None, memory: int, way_out: str
) -> pa.Table:
    """Read the columns ``keys`` and ``columns`` (None: all) of a side table; raise if they take more than ``memory``
    bytes.

    ``what`` names the table in errors, and ``way_out`` says what to do if it is too large.
    """
    wanted = None if columns is None else list(dict.fromkeys([*keys, *columns]))
    held: list[pa.Table] = []
    used = 0
    for path in _files(paths):
        for table in _tables(what, path, keys, wanted):
            held.append(table)
            used += table.nbytes + _BYTES_PER_KEY * table.num_rows
            if used > memory:
                raise UsageError(
                    f"{what}: {paths!r} takes more than memory={size(memory)} in each worker; read fewer columns, raise memory "
                    f"if the machine has it for every worker, or {way_out}"
                )
    try:
        table = pa.concat_tables(held, promote_options="permissive").combine_chunks() if held else pa.table({})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UsageError(f"{what}: the files of {paths!r} have columns of different types ({error})") from None
    if not table.num_rows:  # empty JSON lines have no columns
        for name in dict.fromkeys(wanted or keys):
            table = table if name in table.column_names else table.append_column(name, pa.nulls(0))
    _check_columns(what, paths, table.column_names, wanted or keys)
    return table


@dataclass(frozen=True, slots=True, eq=False)
class KeyIndex:
    """Finds the row of a key. A null key, or a key that contains a null, matches no row. Numbers are equal whatever
    their types.
    """

    _high: NDArray[np.uint64]
    _low: NDArray[np.uint64]
    _rows: NDArray[np.int64]
    _longest: int

    @classmethod
    def of(cls, table: pa.Table, keys: Sequence[str]) -> KeyIndex:
        """The index of a table. If rows share a key, it holds the first of them, and `twice` returns one pair of these."""
        digests, valid = _digests(table, keys)
        rows = np.flatnonzero(valid)
        digests = digests[rows]
        order = np.lexsort((rows, digests[:, 1], digests[:, 0]))
        high, low, rows = digests[order, 0], digests[order, 1], rows[order]
        starts = np.flatnonzero(np.r_[True, high[1:] != high[:-1]]) if len(high) else np.zeros(0, np.int64)
        longest = int(np.diff(np.r_[starts, len(high)]).max(initial=0))
        return cls(high, low, rows, longest)

    def twice(self) -> tuple[int, int] | None:
        """Two rows with the same key, if there are any."""
        same = np.flatnonzero((self._high[1:] == self._high[:-1]) & (self._low[1:] == self._low[:-1]))
        return (int(self._rows[same[0]]), int(self._rows[same[0] + 1])) if len(same) else None

    def find(self, table: pa.Table, keys: Sequence[str]) -> NDArray[np.int64]:
        """For each row of ``table``, the row of the side table with its key; -1 if there is none."""
        digests, valid = _digests(table, keys)
        found = np.full(table.num_rows, -1, np.int64)
        if not len(self._high):
            return found
        start = np.searchsorted(self._high, digests[:, 0])
        # The halves of two digests are rarely equal: with a hundred million keys, in one of some thousand tables.
        for step in range(self._longest):
            at = np.minimum(start + step, len(self._high) - 1)
            hit = valid & (found < 0) & (self._high[at] == digests[:, 0]) & (self._low[at] == digests[:, 1])
            found[hit] = self._rows[at[hit]]
        return found


def keys_as_text(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    """The key columns only, as text."""
    found = {}
    for name in keys:
        column = column_of(table, name).combine_chunks()
        if pa.types.is_nested(column.type) or pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            raise UsageError(
                f"a list holds keys as text, and the column {name!r} is {column.type}, not text or numbers"
            )
        found[name] = as_text(column)
    return pa.table(found)


def are_lines(paths: str | Sequence[str]) -> bool:
    """Whether a side table is a text file, which has no types."""
    endings = tuple(f".txt{codec}" for codec in ("", *_CODECS))
    return all(path.lower().endswith(endings) for path in _files(paths))


def _digests(table: pa.Table, keys: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    # Each digest is an object of 50 bytes until they are joined, so this is done piece by piece.
    pieces = (table.slice(start, _ROWS_AT_ONCE) for start in range(0, table.num_rows, _ROWS_AT_ONCE))
    digests = b"".join(b"".join(row_digests(piece, keys)) for piece in pieces)
    valid = np.ones(table.num_rows, np.bool_)
    for name in keys:
        column = column_of(table, name)
        if column.null_count:
            valid &= to_numpy(pc.is_valid(column))
    return np.frombuffer(digests, "<u8").reshape(-1, 2).astype(np.uint64), valid


def _files(paths: str | Sequence[str]) -> list[str]:
    endings = [f"{ending}{codec}" for ending in _ENDINGS for codec in ("", *_CODECS)]
    tasks = FilePartitioning(paths=paths, extensions=endings).process(EmptyTask())
    return [path for task in tasks for path in task.data]


def _tables(what: str, path: str, keys: Sequence[str], columns: Sequence[str] | None) -> Iterator[pa.Table]:
    name = path.lower()
    codec = next((codec for ending, codec in _CODECS.items() if name.endswith(ending)), None)
    if codec is not None:
        name = name.rpartition(".")[0]
    if name.endswith(".parquet"):
        yield from _parquet(what, path, columns)
        return
    if not name.endswith(_ENDINGS):
        raise UsageError(f"{what}: a side table ends in {', '.join(_ENDINGS)}, and {path!r} does not")
    with storage.open_input(path) as raw:
        lines = _lines(raw if codec is None else pa.CompressedInputStream(raw, codec))
        for some in batched(enumerate(lines, 1), _LINES_AT_ONCE):
            if name.endswith(".txt"):
                yield _texts(what, path, keys, columns, [line for _, line in some])
            else:
                yield _rows(what, path, columns, some)


def _parquet(what: str, path: str, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    import pyarrow.parquet as pq  # deferred: the import takes 30 ms

    with storage.open_input(path) as stream:
        try:
            file = pq.ParquetFile(stream)
        except pa.ArrowInvalid as error:
            raise UsageError(f"{what}: {path!r} is not Parquet, or damaged ({error})") from None
        _check_columns(what, path, file.schema_arrow.names, columns)
        chosen = None if columns is None else list(columns)
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=chosen, use_threads=False)
        if not file.num_row_groups:
            yield file.read(columns=chosen)


def _texts(what: str, path: str, keys: Sequence[str], columns: Sequence[str] | None, lines: list[bytes]) -> pa.Table:
    _check_columns(what, path, list(keys[:1]), columns)
    try:
        return pa.table({keys[0]: array([line.decode() for line in lines if line], pa.string())})
    except UnicodeDecodeError as error:
        raise UsageError(f"{what}: {path!r} is not UTF-8 ({error})") from None


def _rows(what: str, path: str, columns: Sequence[str] | None, lines: Sequence[tuple[int, bytes]]) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for number, line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{what}: line {number} of {path!r} is not JSON ({error}): {line[:80]!r}") from None
        if not isinstance(row, dict):
            raise UsageError(f"{what}: line {number} of {path!r} is not an object: {line[:80]!r}")
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row if columns is None or name in columns)
    try:
        return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})
    except pa.ArrowException as error:
        raise UsageError(f"{what}: a column of {path!r} holds values of different kinds ({error})") from None


def _check_columns(what: str, path: str | Sequence[str], there: Sequence[str], columns: Sequence[str] | None) -> None:
    for name in columns or ():
        if name not in there:
            raise UsageError(
                f"{what}: {path!r} has no column {name!r}{nearest(name, there) or '.'} "
                f"It has: {', '.join(there) or 'none'}"
            )


def _lines(stream: Any) -> Iterator[bytes]:
    """The lines of a stream without their line breaks."""
    rest = b""
    while block := stream.read(1 << 20):
        *lines, rest = (rest + block).split(b"\n")
        yield from (line.removesuffix(b"\r") for line in lines)
    if rest:
        yield rest.removesuffix(b"\r")
