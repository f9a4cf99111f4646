"""Caches results about the documents of a batch for consecutive filters."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curator_core.arrow.arrays import array, to_numpy
from curator_core.arrow.row_hash import column_of
from curator_core.errors import UsageError
from curator_text.features.block import Block, Bools, Ints, Measure
from curator_text.features.grams import top_gram_starts

if TYPE_CHECKING:
    from curator_core.model.task import DocumentBatch

# The size of a block. Sizes between 256 KiB and 1 MiB are equally fast (measured); with smaller blocks, calls cost
# more, and with larger ones, arrays do not fit into the cache.
BLOCK_BYTES = 1 << 19


class TextFeatures:
    """The documents of a column, and the results computed about them so far.

    The object follows a batch through filters: see `curator_core.model.task.Derived`. A null counts as an empty text.
    """

    def __init__(self, blocks: list[Block], alive: list[Ints | None]) -> None:
        self._blocks, self._alive = blocks, alive

    @classmethod
    def of(cls, values: Sequence[str | None] | pa.Array | pa.ChunkedArray) -> TextFeatures:
        """Features of a list or an Arrow array of strings."""
        if isinstance(values, str):
            raise UsageError("text filters score a list of texts, so put a single text in brackets: score([text])")
        if not isinstance(values, pa.Array | pa.ChunkedArray):
            try:
                values = array(values, pa.large_string())
            except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
                raise UsageError(f"text filters score text, but not all of these values are text: {error}") from error
        chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
        blocks = [block for chunk in chunks for block in _blocks(chunk)]
        return cls(blocks, [None] * len(blocks))

    def __len__(self) -> int:
        return sum(
            block.rows if alive is None else len(alive) for block, alive in zip(self._blocks, self._alive, strict=True)
        )

    def per_row(self, method: Measure, *args: Hashable) -> npt.NDArray[Any]:
        """The result of a method of `Block`, or of a function of a block, for every document; it is cached."""
        parts = [
            block.per_row(method, *args) if alive is None else block.per_row(method, *args)[alive]
            for block, alive in zip(self._blocks, self._alive, strict=True)
        ]
        if not parts:
            return method(Block([]), *args)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def texts(self) -> Iterator[str]:
        """The documents as strings, for rules that process one document at a time."""
        for block, alive in zip(self._blocks, self._alive, strict=True):
            for row in range(block.rows) if alive is None else alive.tolist():
                yield block.document(row)

    def filter(self, mask: pa.BooleanArray | Bools) -> TextFeatures:
        """The features of the documents that ``mask`` keeps, with the results computed so far."""
        keep = np.asarray(to_numpy(mask) if isinstance(mask, pa.Array) else mask, np.bool_)
        blocks: list[Block] = []
        rest: list[Ints | None] = []
        done = 0
        for block, alive in zip(self._blocks, self._alive, strict=True):
            rows = np.arange(block.rows) if alive is None else alive
            chosen = keep[done : done + len(rows)]
            done += len(rows)
            if chosen.all():
                blocks.append(block)
                rest.append(alive)
                continue
            rows = rows[chosen]
            if len(rows):
                small = _compacted(block, rows)
                blocks.append(small or block)
                rest.append(None if small else rows)
        return TextFeatures(blocks, rest)


def features_of(batch: DocumentBatch, column: str) -> TextFeatures:
    """The features of a batch's column: those that another filter has already made, or new ones."""
    key = f"text:{column}"
    known = batch._derived.get(key)
    if isinstance(known, TextFeatures):
        return known
    made = TextFeatures.of(column_of(batch.to_pyarrow(), column))
    batch._derived[key] = made
    return made


def _blocks(values: pa.Array) -> Iterator[Block]:
    kind = values.type
    if pa.types.is_null(kind):
        values = values.cast(pa.large_string())
    elif pa.types.is_dictionary(kind):
        values = values.cast(kind.value_type)
    if pa.types.is_string_view(values.type):
        values = values.cast(pa.large_string())
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        raise UsageError(f"text filters read a column of strings, not of {kind}: cast it first")
    if not len(values):
        return
    wide = pa.types.is_large_string(values.type)
    _, offsets, content = values.buffers()
    bounds = np.frombuffer(offsets, np.int64 if wide else np.int32, len(values) + 1, values.offset * (8 if wide else 4))
    memory = memoryview(content) if content is not None else memoryview(b"")
    starts, ends = bounds[:-1].tolist(), bounds[1:].tolist()
    if values.null_count:
        # A null may still have bytes in the buffer; it counts as empty.
        valid = to_numpy(values.is_valid())
        ends = np.where(valid, bounds[1:], bounds[:-1]).tolist()
    done = 0
    while done < len(values):
        stop = int(np.searchsorted(bounds, int(bounds[done]) + BLOCK_BYTES))
        stop = min(max(stop, done + 1), len(values), done + 20_000)
        yield Block([memory[a:b] for a, b in zip(starts[done:stop], ends[done:stop], strict=True)])
        done = stop


def _compacted(block: Block, rows: Ints) -> Block | None:
    """A block with only these rows, or None if most of the old block is still in use."""
    if block.byte_counts()[rows].sum() > 0.7 * len(block.raw):
        return None
    spans, raw = block.spans, memoryview(block.raw)
    small = Block([raw[a:b] for a, b in (spans[row] for row in rows.tolist())])
    small._memo = {key: value[rows] for key, value in block._memo.items() if key[0] is not top_gram_starts}
    return small
