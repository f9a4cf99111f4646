"""How do Python values become Arrow arrays, and Arrow arrays numpy arrays, without loading pandas?

If pandas is installed, `pyarrow.array` imports it at the first call in a process, to check whether its argument is a
Series. So do `pyarrow.scalar`, a plain number as the argument of a compute function, and `to_numpy`. That takes a sixth
of a second in each worker, although stages rarely use pandas.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_NONE = type(None)
_NUMBERS: dict[pa.DataType, tuple[type, type]] = {
    pa.int64(): (int, np.int64),
    pa.int32(): (int, np.int32),
    pa.uint64(): (int, np.uint64),
    pa.float32(): (float, np.float32),
    pa.float64(): (float, np.float64),
    pa.bool_(): (bool, np.bool_),
}
_PLAIN: dict[int, np.dtype[Any]] = {
    pa.from_numpy_dtype(kind).id: np.dtype(kind)
    for kind in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
}
_BOOL = pa.bool_().id
_SCALARS = {int: pa.int64(), float: pa.float64(), str: pa.string()}
_WORDS = pa.dictionary(pa.int32(), pa.string())
# For more bytes of text than this, the copies made here would soon take longer than the import.
_MOST_BYTES = 1 << 20


def array(values: Sequence[Any] | np.ndarray[Any, Any], kind: pa.DataType | None = None) -> pa.Array:
    """Return or raise the same as `pyarrow.array` for a list or for a numpy array without masks.

    ``kind`` may be left out for a numpy array.
    """
    made = _from_numpy(values, kind) if isinstance(values, np.ndarray) else _from_list(values, kind)
    return pa.array(values, kind) if made is None else made


def scalar(value: float | str) -> pa.Scalar:
    """Return the same as `pyarrow.scalar` for a number, a text or a truth value. Use it for arguments of compute
    functions, which would convert a plain value with pandas loaded.
    """
    if isinstance(value, bool):
        return _truth(value)
    kind = _SCALARS.get(type(value))
    return pa.scalar(value) if kind is None else array([value], kind)[0]


@functools.cache
def _truth(value: bool) -> pa.Scalar:
    return array([value], pa.bool_())[0]


def null(kind: pa.DataType) -> pa.Scalar:
    """A null of a type, as ``pyarrow.scalar(None, kind)`` returns it."""
    return pa.nulls(1, kind)[0]


def distinct[Number: np.integer[Any]](values: NDArray[Number]) -> NDArray[Number]:
    """The different values, sorted. `numpy.unique` gives the same, but it hashes values, which takes fifty times as
    long for millions of mostly different ones.
    """
    ordered = np.sort(values, axis=None)
    new = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    return ordered[new]


def grouped[Number: np.integer[Any]](
    values: NDArray[Number],
) -> tuple[NDArray[Number], NDArray[np.int64], NDArray[np.int64]]:
    """The different values, sorted; the place of the first of each; and for each value, which of them it is.

    `numpy.unique` gives the same, but loads the masked arrays of numpy, which takes as long as all small calls of a
    short run.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    new = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    which = np.empty(len(order), np.int64)
    which[order] = np.cumsum(new) - 1
    return ordered[new], order[new], which


def ranges_within(sizes: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Cut things of these sizes into ranges, from the first on: each is as long as it can be with a sum of at most ``most``,
    but holds at least one thing.
    """
    ends = np.cumsum(sizes)
    first = 0
    while first < len(ends):
        before = int(ends[first - 1]) if first else 0
        last = max(int(np.searchsorted(ends, before + most, "right")), first + 1)
        yield first, last
        first = last


def to_numpy(values: pa.Array | pa.ChunkedArray) -> np.ndarray[Any, Any]:
    """Return the same as ``values.to_numpy(zero_copy_only=False)``."""
    if isinstance(values, pa.ChunkedArray):
        chunks = values.chunks or [array([], values.type)]
        return to_numpy(chunks[0]) if len(chunks) == 1 else np.concatenate([*map(to_numpy, chunks)])
    if values.null_count == 0:
        kind, start, size = values.type.id, values.offset, len(values)
        if kind in _PLAIN:
            return np.frombuffer(values.buffers()[1] or b"", _PLAIN[kind])[start : start + size]
        if kind == _BOOL:
            bits = np.frombuffer(values.buffers()[1] or b"", np.uint8)
            bits = bits[start // 8 : -(-(start + size) // 8)]
            return np.unpackbits(bits, bitorder="little")[start % 8 :][:size].view(np.bool_)
    return cast(np.ndarray[Any, Any], values.to_numpy(zero_copy_only=False))


def _from_numpy(values: np.ndarray[Any, Any], kind: pa.DataType | None) -> pa.Array | None:
    if values.ndim != 1 or values.dtype.kind not in "iufb" or not values.dtype.isnative:
        return None
    own = pa.from_numpy_dtype(values.dtype)
    if kind is not None and kind != own:
        return None
    return _whole(own, values, None)


def _from_list(values: Sequence[Any], kind: pa.DataType | None) -> pa.Array | None:
    if kind is None or type(values) not in (list, tuple):
        return None
    if pa.types.is_dictionary(kind):
        return array(values, kind.value_type).dictionary_encode() if kind == _WORDS else None
    types = set(map(type, values))
    if pa.types.is_list(kind) and types <= {list, _NONE}:
        return _lists(kind, values)
    nulls = _NONE in types
    types.discard(_NONE)
    if kind == pa.string() and types <= {str}:
        return _strings(values, nulls)
    if kind == pa.large_string():
        made = _from_list(values, pa.string())
        return None if made is None else made.cast(kind)
    if kind == pa.binary() and types <= {bytes}:
        return _binary(values, nulls)
    if kind == pa.large_binary() and types <= {bytes, memoryview}:
        return _large_binary(values, nulls)
    number = _NUMBERS.get(kind)
    if number is None or not types <= {number[0]}:
        return None
    filled = [0 if value is None else value for value in values] if nulls else values
    try:
        with np.errstate(over="ignore"):  # numbers too large for float32 become infinite
            numbers: np.ndarray[Any, Any] = np.array(filled, number[1])
    except OverflowError:
        return None
    return _whole(kind, numbers, _valid(values, nulls))


def _lists(kind: pa.ListType, values: Sequence[list[Any] | None]) -> pa.Array:
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(value or ()) for value in values], out=offsets[1:])
    flat = array(list(chain.from_iterable(value or () for value in values)), kind.value_type)
    bits = _bits(_valid(values, None in values))
    return pa.Array.from_buffers(kind, len(values), [bits, pa.py_buffer(offsets)], children=[flat])


def _whole(kind: pa.DataType, values: np.ndarray[Any, Any], valid: np.ndarray[Any, Any] | None) -> pa.Array:
    data = np.packbits(values, bitorder="little") if kind == pa.bool_() else np.ascontiguousarray(values)
    return pa.Array.from_buffers(kind, len(values), [_bits(valid), pa.py_buffer(data)])


def _strings(values: Sequence[str | None], nulls: bool) -> pa.Array | None:
    texts = [value or "" for value in values] if nulls else values
    if sum(map(len, cast(Sequence[str], texts))) > _MOST_BYTES:
        return None
    whole = "".join(cast(Sequence[str], texts))
    if whole.isascii():
        return _pieces(pa.string(), values, whole.encode(), map(len, cast(Sequence[str], texts)), nulls)
    try:
        pieces = list(map(str.encode, cast(Sequence[str], texts)))
    except UnicodeEncodeError:  # a lone surrogate
        return None
    return _pieces(pa.string(), values, b"".join(pieces), map(len, pieces), nulls)


def _binary(values: Sequence[bytes | None], nulls: bool) -> pa.Array | None:
    pieces = [value or b"" for value in values]
    if sum(map(len, pieces)) > _MOST_BYTES:
        return None
    return _pieces(pa.binary(), values, b"".join(pieces), map(len, pieces), nulls)


def _large_binary(values: Sequence[bytes | memoryview | None], nulls: bool) -> pa.Array:
    pieces = [b"" if value is None else value for value in values]
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum([memoryview(piece).nbytes for piece in pieces], out=offsets[1:])
    buffers = [_bits(_valid(values, nulls)), pa.py_buffer(offsets), pa.py_buffer(b"".join(pieces))]
    return pa.Array.from_buffers(pa.large_binary(), len(values), buffers)


def _pieces(kind: pa.DataType, values: Sequence[Any], data: bytes, lengths: Iterable[int], nulls: bool) -> pa.Array:
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum(np.fromiter(lengths, np.int32, len(values)), out=offsets[1:])
    buffers = [_bits(_valid(values, nulls)), pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(kind, len(values), buffers)


def _valid(values: Sequence[Any], nulls: bool) -> np.ndarray[Any, Any] | None:
    return np.fromiter((value is not None for value in values), np.bool_, len(values)) if nulls else None


def _bits(valid: np.ndarray[Any, Any] | None) -> pa.Buffer | None:
    return None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
