"""Which hash does a row have? The same on every machine for the same values, whatever the width and encoding of the
columns.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.json_column import JSON, values_of, whole_as_integers
from curator_core.errors import UsageError, nearest

# One byte for the kind of a value. It distinguishes null, a text and its bytes, and 1 from "1".
_NULL, _TEXT, _BYTES, _NUMBER, _NESTED = b"0", b"t", b"b", b"n", b"j"


def row_digests(table: pa.Table, columns: Sequence[str], salt: bytes = b"", size: int = 16) -> list[bytes]:
    """A BLAKE2b digest of ``size`` bytes for each row over the named columns, in their order."""
    streams = [_encoded(column_of(table, name)) for name in columns]
    start = hashlib.blake2b(salt, digest_size=size)
    digests = []
    for _ in range(table.num_rows):
        digest = start.copy()
        for kind, values in streams:
            value = next(values)
            if value is None:
                digest.update(_NULL)
            else:
                tag, value = (kind, value) if kind else value
                # Each value follows its length; otherwise ("ab", "c") and ("a", "bc") would be the same row.
                digest.update(b"%b%d:" % (tag, len(value)))
                digest.update(value)
        digests.append(digest.digest())
    return digests


def lineage_numbers(task_id: str, rows: int, seed: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """A pseudo-random 64-bit number for each row of a task, from the task's id, the row's place and a seed."""
    # SplitMix64: a bijection that spreads consecutive numbers over the whole range.
    value = row_numbers(task_id, rows, seed)
    shifted = value >> _SHIFTS[0]
    value ^= shifted
    value *= _FACTORS[0]
    np.right_shift(value, _SHIFTS[1], out=shifted)
    value ^= shifted
    value *= _FACTORS[1]
    np.right_shift(value, _SHIFTS[2], out=shifted)
    value ^= shifted
    return value


def row_numbers(task_id: str, rows: int, seed: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Different 64-bit numbers for the rows of a task, in steps of the golden ratio from a hash of the task's id and a
    seed. Each row may have any number, but those of two rows of one task always differ by the same: this is enough for
    choosing some rows of many tasks, and it takes less than half of the time of `lineage_numbers`.
    """
    base = int.from_bytes(hashlib.blake2b(f"{seed}\0{task_id}".encode(), digest_size=8).digest(), "little")
    steps = _FIRST_STEPS[:rows] if rows <= len(_FIRST_STEPS) else _steps(rows)
    return steps + np.uint64(base)


def _steps(rows: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    steps = np.arange(rows, dtype=np.uint64)
    steps *= np.uint64(0x9E3779B97F4A7C15)
    return steps


# Those of most tasks: 32 KB.
_FIRST_STEPS = _steps(4096)
_SHIFTS = tuple(map(np.uint64, (30, 27, 31)))
_FACTORS = tuple(map(np.uint64, (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)))


def column_of(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column by name, or an error that suggests the nearest name."""
    if name not in table.column_names:
        raise UsageError(
            f"there is no column {name!r}{nearest(name, table.column_names) or '.'} "
            f"The columns are: {', '.join(table.column_names) or 'none'}"
        )
    return table.column(name)


def _encoded(column: pa.ChunkedArray) -> tuple[bytes, Iterator[Any]]:
    """The kind of the values, and their bytes. If the kind may differ from value to value, it is empty and each item
    holds both.
    """
    kind = column.type
    if kind == JSON:
        return b"", (None if value is None else _of_any(value) for value in values_of(column))
    if pa.types.is_dictionary(kind):
        return _encoded(pc.cast(column, kind.value_type))
    if _is_text(kind):
        return _TEXT, _views(column.cast(pa.large_string()).cast(pa.large_binary()))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return _BYTES, _views(column.cast(pa.large_binary()))
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or _is_time(kind):
        return _NUMBER, _views(column.cast(pa.large_string()).cast(pa.large_binary()))
    if pa.types.is_floating(kind):
        return _NUMBER, (None if value is None else _float(float(value)) for value in column.to_pylist())
    return _NESTED, (None if value is None else _json(value) for value in column.to_pylist())


def _of_any(value: Any) -> tuple[bytes, bytes]:
    if isinstance(value, str):
        return _TEXT, value.encode("utf-8", "surrogatepass")
    if isinstance(value, bool):
        return _NUMBER, b"true" if value else b"false"
    if isinstance(value, int):
        return _NUMBER, str(value).encode()
    return (_NUMBER, _float(value)) if isinstance(value, float) else (_NESTED, _json(value))


def _float(value: float) -> bytes:
    plain = whole_as_integers(value)
    return str(plain).encode() if isinstance(plain, int) else value.hex().encode()


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_temporal(kind) and not pa.types.is_duration(kind) and not pa.types.is_interval(kind))


def _views(column: pa.ChunkedArray) -> Iterator[memoryview | None]:
    """The values as views of the column's own memory."""
    for chunk in column.chunks:
        if not len(chunk):
            continue
        _, offsets_buffer, data = chunk.buffers()
        offsets = np.frombuffer(offsets_buffer, dtype=np.int64)[chunk.offset : chunk.offset + len(chunk) + 1].tolist()
        view = memoryview(data if data is not None else b"")
        valid = chunk.is_valid().to_pylist() if chunk.null_count else None
        for index in range(len(chunk)):
            yield view[offsets[index] : offsets[index + 1]] if valid is None or valid[index] else None


def _json(value: Any) -> bytes:
    return json.dumps(whole_as_integers(value), sort_keys=True, ensure_ascii=False, default=_plain).encode(
        "utf-8", "surrogatepass"
    )


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else str(value)
