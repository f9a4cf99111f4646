"""Reads TensorFlow's checkpoint files (`variables.index`, `variables.data-*`) without TensorFlow.

A Keras SavedModel keeps its weights in such a bundle: a sorted table of names to entries (type, shape, position), and
files of raw little-endian numbers. Only these are read; the graph and everything executable are ignored.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curator_core.errors import CuratorError

_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}  # TensorFlow's DataType numbers


class BrokenBundle(CuratorError):
    """The index of a checkpoint is malformed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The location of one tensor."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int


def read_bundle(index: bytes, shard: Callable[[int, int], bytes]) -> dict[str, NDArray[np.generic]]:
    """The numeric tensors of a bundle by name; ``shard(i, of)`` returns the bytes of data file ``i``."""
    try:
        return _read(index, shard)
    except (ArithmeticError, IndexError, TypeError, ValueError, struct.error) as error:
        raise BrokenBundle(f"the index of the checkpoint is damaged: {error}") from error


def _read(index: bytes, shard: Callable[[int, int], bytes]) -> dict[str, NDArray[np.generic]]:
    entries = dict(_table(index))
    header = _fields(entries.pop(b"", b""))
    shards = _number(header, 1, 1)
    if _number(header, 2):
        raise BrokenBundle("the checkpoint is big-endian, which is not supported")
    data: dict[int, bytes] = {}
    tensors: dict[str, NDArray[np.generic]] = {}
    for name, value in entries.items():
        entry = _entry(value)
        kind = _TYPES.get(entry.dtype)
        if kind is None:
            continue  # strings: the object graph of the checkpoint
        if entry.shard not in data:
            data[entry.shard] = shard(entry.shard, shards)
        raw = data[entry.shard][entry.offset : entry.offset + entry.size]
        count = int(np.prod(entry.shape, dtype=np.int64))
        if len(raw) != entry.size or count * np.dtype(kind).itemsize != entry.size:
            raise BrokenBundle(f"tensor {name.decode(errors='replace')!r} is cut off: the data file is incomplete")
        tensors[name.decode()] = np.frombuffer(raw, dtype=kind).reshape(entry.shape)
    return tensors


def _entry(value: bytes) -> Entry:
    fields = _fields(value)
    dims = [_number(_fields(dim), 1) for shape in _messages(fields, 2) for dim in _messages(_fields(shape), 2)]
    numbers = (_number(fields, field) for field in (1, 3, 4, 5))
    dtype, shard, offset, size = numbers
    return Entry(dtype, tuple(dims), shard, offset, size)


def _number(fields: Mapping[int, list[int | bytes]], field: int, default: int = 0) -> int:
    value = fields.get(field, [default])[0]
    if not isinstance(value, int):
        raise BrokenBundle("an entry of the checkpoint has text instead of a number")
    return value


def _messages(fields: Mapping[int, list[int | bytes]], field: int) -> list[bytes]:
    values = fields.get(field, [])
    if not all(isinstance(value, bytes) for value in values):
        raise BrokenBundle("an entry of the checkpoint has a number instead of a message")
    return [value for value in values if isinstance(value, bytes)]


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(data) < _FOOTER_BYTES or struct.unpack("<Q", data[-8:])[0] != _MAGIC:
        raise BrokenBundle("this is not the index of a TensorFlow checkpoint (variables.index)")
    footer = data[-_FOOTER_BYTES:]
    position = 0
    for _ in range(2):  # the meta index, which is empty
        _, position = _varint(footer, position)
    offset, position = _varint(footer, position)
    size, position = _varint(footer, position)
    for _, handle in _block(data, offset, size):
        start, after = _varint(handle, 0)
        length, _ = _varint(handle, after)
        yield from _block(data, start, length)


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    if offset + size + 5 > len(data):
        raise BrokenBundle("the index of the checkpoint is cut off")
    if data[offset + size] != 0:
        raise BrokenBundle("the index of the checkpoint is compressed, but TensorFlow does not compress it")
    block = data[offset : offset + size]
    (restarts,) = struct.unpack_from("<I", block, size - 4)
    end = size - 4 * (restarts + 1)
    position, key = 0, b""
    while position < end:
        shared, position = _varint(block, position)
        rest, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + rest]
        position += rest
        yield key, block[position : position + length]
        position += length


def _fields(message: bytes) -> Mapping[int, list[int | bytes]]:
    """The fields of a protocol buffer message: numbers and byte strings by field number."""
    fields: dict[int, list[int | bytes]] = {}
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire = tag >> 3, tag & 7
        value: int | bytes
        if wire == 0:
            value, position = _varint(message, position)
        elif wire in (1, 5):
            width = 8 if wire == 1 else 4
            value = int.from_bytes(message[position : position + width], "little")
            position += width
        elif wire == 2:
            length, position = _varint(message, position)
            value = message[position : position + length]
            position += length
        else:
            raise BrokenBundle(f"an entry of the checkpoint has a field of unknown wire type {wire}")
        fields.setdefault(number, []).append(value)
    return fields


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise BrokenBundle("a number in the index of the checkpoint is cut off")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
