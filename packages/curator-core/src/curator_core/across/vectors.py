"""How are vectors compared with the same result everywhere? They are scaled to length one and rounded to whole numbers,
whose products are exact in any order of sums.

BLAS chooses its order of sums by processor, number of threads and shape of the arrays, so the last bits of a product
differ from machine to machine. Here a vector of length one is rounded to whole numbers of 12 bits. Each product and
each partial sum of products is then a whole number below 2²⁴, which is exact in float32, and BLAS computes it at full
speed with the same bits everywhere. The error of such a product has a known bound (`Whole.error`). Decisions that need
more digits are made from the vectors themselves, in float64 and in a fixed order (`cosines`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core.arrow.arrays import array, to_numpy
from curator_core.arrow.json_column import JSON, values_of
from curator_core.errors import UsageError

type Vectors = NDArray[np.float32]

_LARGEST = float(np.finfo(np.float32).max)
EXACT = 1 << 12  # products of two vectors of this length stay below 2²⁴
_BLOCK = 256  # as many rows as fit in the cache


def vectors_of(
    values: pa.ChunkedArray, what: str, name: Callable[[int], str] = lambda row: f"row {row + 1:,}"
) -> tuple[Vectors, NDArray[np.int64]]:
    """The vectors of a column, scaled to length one, and the rows that have one; ``name`` names a row for an error.

    A null, a vector of zeros, and one with a null, NaN or infinity have no direction, so these rows have no vector.
    """
    if values.type == JSON:
        values, _ = lists_in(values)
    kind = values.type
    if pa.types.is_null(kind):
        return np.zeros((0, 0), np.float32), np.zeros(0, np.int64)
    listed = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not listed or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise UsageError(f"{what} must hold vectors, lists of numbers of the same length, and holds {kind}")
    wide = values.cast(pa.large_list(kind.value_type)).combine_chunks()
    if isinstance(wide, pa.ChunkedArray):
        wide = wide.chunk(0) if wide.num_chunks else pa.array([], wide.type)
    offsets = to_numpy(wide.offsets)
    lengths = np.diff(offsets)
    there = np.flatnonzero(to_numpy(wide.is_valid()) & (lengths > 0))
    if not len(there):
        return np.zeros((0, 0), np.float32), there
    size = int(lengths[there[0]])
    others = there[lengths[there] != size]
    if len(others):
        one, other = int(there[0]), int(others[0])
        raise two_lengths(what, (size, name(one)), (int(lengths[other]), name(other)))
    flat = wide.values
    floats = flat if flat.type == pa.float32() else flat.cast(pa.float32(), safe=False)
    numbers = to_numpy(floats.fill_null(float("nan")) if floats.null_count else floats)
    if len(there) == len(lengths):
        found = numbers[offsets[0] : offsets[-1]].reshape(-1, size)
    else:
        found = numbers[(offsets[there][:, None] + np.arange(size)).ravel()].reshape(-1, size)
    made = np.empty(found.shape, np.float32)
    good = np.ones(len(found), np.bool_)
    memory = np.empty((2, min(_BLOCK, len(found)), size))
    for start in range(0, len(found), _BLOCK):
        part = slice(start, start + _BLOCK)
        good[part] = _unit(found[part], made[part], memory)
    return (made, there) if good.all() else (made[good], there[good])


def lists_in(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, list[int]]:
    """A column of JSON as lists of numbers, null where a value is something else; and the rows of those values."""
    values = values_of(column)
    found = [_numbers(value) for value in values]
    others = [
        row for row, (value, made) in enumerate(zip(values, found, strict=True)) if made is None and value is not None
    ]
    return pa.chunked_array([array(found, pa.list_(pa.float64()))]), others


def _numbers(value: Any) -> list[float | None] | None:
    if not isinstance(value, list) or not all(
        number is None or (isinstance(number, int | float) and not isinstance(number, bool)) for number in value
    ):
        return None
    # No vector has a number that float32 cannot hold, such as an integer of forty digits.
    return [None if number is None or abs(number) > _LARGEST else float(number) for number in value]


def _unit(block: Vectors, made: Vectors, memory: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Write vectors, scaled to length one, to ``made``; return which of them have a direction."""
    wide, squares = memory[0, : len(block)], memory[1, : len(block)]
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        # In float64, the squares of float32 numbers are neither infinite nor zero, unless the number itself is.
        wide[:] = block
        np.multiply(wide, wide, out=squares)
        lengths = np.sqrt(_added(squares))
        wide /= lengths[:, None]
        # 0 is added so that -0 becomes 0 and equal vectors have the same bytes.
        wide += 0.0
        made[:] = wide
    good: NDArray[np.bool_] = np.isfinite(lengths) & (lengths > 0)
    return good


def row_sums(values: NDArray[Any]) -> NDArray[np.float64]:
    """The sum of every row of a matrix, in float64 and in a fixed order: halves are added until one number is left."""
    return _added(np.array(values, np.float64))


def _added(rest: NDArray[np.float64]) -> NDArray[np.float64]:
    """The result of `row_sums`, in the memory of its argument."""
    width = rest.shape[1]
    if not width:
        return np.zeros(len(rest))
    while width > 1:
        half, odd = divmod(width, 2)
        rest[:, :half] += rest[:, half : 2 * half]
        if odd:
            rest[:, half] = rest[:, width - 1]
        width = half + odd
    return np.array(rest[:, 0])


type Rows = NDArray[np.int64]


def cosines(
    one: Vectors, other: Vectors, rows: Rows | None = None, other_rows: Rows | None = None
) -> NDArray[np.float64]:
    """The cosine of each row of ``one`` with the same row of ``other``, with the same bits everywhere. ``rows`` and
    ``other_rows`` select rows; these are gathered one block at a time to stay in the cache.
    """
    found = np.empty(len(one) if rows is None else len(rows))
    for start in range(0, len(found), _BLOCK):
        part = slice(start, start + _BLOCK)
        products = (one[part] if rows is None else one[rows[part]]).astype(np.float64)
        products *= (other[part] if other_rows is None else other[other_rows[part]]).astype(np.float64)
        found[part] = _added(products)
    return found


class Memory:
    """Memory for one matrix after the other. The system clears new memory page by page, which takes longer than most
    uses of it.
    """

    def __init__(self) -> None:
        self._held = np.empty(0, np.float32)

    def matrix(self, rows: int, columns: int) -> Vectors:
        """A matrix whose numbers are not set. It is valid until the next call."""
        if rows * columns > len(self._held):
            self._held = np.empty(rows * columns, np.float32)
        return self._held[: rows * columns].reshape(rows, columns)


@dataclass(frozen=True, slots=True)
class Whole:
    """Vectors of length one times ``scale``, rounded to whole numbers; ``error`` bounds the length of the difference
    from the vector, relative to its length.

    The cosine of two vectors differs from the product of their whole numbers over ``scale`` squared by at most the sum
    and the product of their errors.
    """

    numbers: Vectors
    scale: float
    error: float

    @classmethod
    def of(cls, vectors: Vectors) -> Whole:
        """The whole numbers of vectors of length one."""
        size = vectors.shape[1]
        scale = scale_of(size)
        numbers = np.empty((len(vectors), size), np.float32)
        for start in range(0, len(numbers), _BLOCK):
            part = numbers[start : start + _BLOCK]
            np.multiply(vectors[start : start + _BLOCK], np.float32(scale), out=part)
            np.rint(part, out=part)
        # The error is up to 0.5 in each place, and a little more: float32 rounds before that, and the length of vectors
        # is one only to within 1e-6.
        return cls(numbers, scale, float(0.501 * np.sqrt(size) / scale + 2e-6))


def least_product(cosine: float, size: int) -> float:
    """The lowest product in float32 of two vectors of length one and of ``size`` numbers that have a cosine of
    ``cosine`` or more, whatever the order of its sums.
    """
    # Each of the sums and products adds an error of up to 2⁻²⁴. 1e-6 is for the lengths and for this limit in float32.
    wrong = size * 2.0**-24
    return cosine - wrong / (1 - wrong) - 1e-6 if wrong < 0.5 else -np.inf


def whole_blocks(pieces: Sequence[Vectors], rows: int) -> Iterator[Vectors]:
    """The whole numbers of vectors that are in several pieces, ``rows`` vectors at a time; the next block overwrites
    the memory.
    """
    left = sum(map(len, pieces))
    if not left:
        return
    size = pieces[0].shape[1]
    scale = np.float32(scale_of(size))
    memory, filled = np.empty((min(rows, left), size), np.float32), 0
    for piece in pieces:
        done = 0
        while done < len(piece):
            stop = min(len(piece), done + len(memory) - filled)
            np.multiply(piece[done:stop], scale, out=memory[filled : filled + stop - done])
            filled, done = filled + stop - done, stop
            if filled == len(memory):
                yield np.rint(memory, out=memory)
                filled = 0
    if filled:
        yield np.rint(memory[:filled], out=memory[:filled])


def scale_of(size: int) -> float:
    """The length at which vectors of ``size`` numbers have exact products, even if rounding makes them a little longer."""
    scale = EXACT - np.ceil(np.sqrt(size) / 2) - 1
    if scale < EXACT // 4:
        raise UsageError(f"vectors of {size:,} numbers are too long: their products would not be exact")
    return float(scale)


def packed(vectors: Vectors) -> pa.Array:
    """Vectors as bytes, so that files with vectors and files without any have the same column type."""
    data = np.ascontiguousarray(vectors, "<f4")
    offsets = np.arange(len(data) + 1, dtype=np.int64) * (data.shape[1] * data.itemsize)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(data), buffers)


def unpacked(column: pa.ChunkedArray, what: str = "the column of vectors") -> Vectors:
    """The vectors that `packed` has put into a column; they must all have the same length."""
    parts = unpacked_pieces(column, what)
    if not parts:
        return np.zeros((0, 1), np.float32)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def unpacked_pieces(column: pa.ChunkedArray, what: str = "the column of vectors") -> list[Vectors]:
    """Like `unpacked`, but in pieces and without a copy."""
    parts, sizes = [], set()
    for chunk in column.chunks:
        if not len(chunk):
            continue
        _, bounds, data = chunk.buffers()
        offsets = np.frombuffer(bounds, np.int64, len(chunk) + 1, chunk.offset * 8)
        widths = np.diff(offsets)
        sizes |= {int(widths.min()), int(widths.max())}
        if len(sizes) > 1:
            raise two_lengths(what, (min(sizes) // 4, ""), (max(sizes) // 4, ""))
        numbers = np.frombuffer(data, "<f4", int(offsets[-1] - offsets[0]) // 4, int(offsets[0]))
        parts.append(numbers.reshape(len(chunk), -1))
    return parts


def two_lengths(what: str, one: tuple[int, str], other: tuple[int, str]) -> UsageError:
    """The error for vectors of different lengths; each length comes with the name of a row that has it, if known."""
    (size, name), (other_size, other_name) = one, other
    return UsageError(
        f"{what} must hold vectors of one length, but holds some of {size} "
        f"numbers{f' ({name})' if name else ''} and some of "
        f"{other_size}{f' ({other_name})' if other_name else ''}: they come from two models; keep those of one model"
    )


def as_lists(vectors: Vectors) -> pa.FixedSizeListArray:
    """Vectors as an Arrow column of lists."""
    return pa.FixedSizeListArray.from_arrays(array(np.ascontiguousarray(vectors).ravel()), max(1, vectors.shape[1]))
