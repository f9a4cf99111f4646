"""Which batches does an input have, in what order, and what is the number of each document?

A document is one row of a batch that a reader yields. Batches are numbered in lineage order, and the **number of a
document** is its batch's number, shifted left by 32 bits, plus its row in the batch. Reading the same input again gives
the same batches, so a later step gets the same number for each document, from the id of the task that carries it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curator_core import storage
from curator_core.arrow.arrays import array, to_numpy
from curator_core.errors import RunRefused, UsageError
from curator_core.formatting import count
from curator_core.model.task import DocumentBatch, FileRecord

# The number of bits by which a batch's number is shifted in a document's number.
ROW_BITS = 32
_END = 1 << ROW_BITS
_SUFFIX = ".arrow"
_WORD = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        pa.field("task_id", pa.string(), nullable=False),
        pa.field("source", _WORD, nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("first_row", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Roll:
    """All batches of an input, in lineage order; the place of a batch is its number.

    ``first_row`` is the row of the source at which each batch begins.
    """

    task_ids: pa.Array
    rows: NDArray[np.int64]
    sources: pa.Array = field(init=False)
    first_row: NDArray[np.int64] = field(init=False)
    _order: NDArray[np.int64] = field(init=False)
    _path: str = ""

    def __post_init__(self) -> None:
        if len(self.rows) > _END:
            raise UsageError(
                f"an input may have {_END:,} batches, not {len(self.rows):,}: let the reader make larger ones"
            )
        if len(self.rows) and self.rows.max() >= _END:
            raise UsageError(
                f"a batch may have {_END - 1:,} rows, not {self.rows.max():,}: let the reader make smaller ones"
            )
        ids = self.task_ids
        sources = pc.replace_substring_regex(ids, r"\..*", "").dictionary_encode()
        codes = to_numpy(sources.indices)
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.rows)])[:-1]
        # The batches of a source are consecutive; a different source id starts another one.
        begins = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]]) if len(codes) else np.zeros(0, np.int64)
        if len(begins) != len(sources.dictionary):
            raise ValueError("the batches of a source are not together: they are not in lineage order")
        starts = np.repeat(before[begins], np.diff(np.r_[begins, len(codes)]))
        order = to_numpy(pc.sort_indices(ids)).astype(np.int64)
        sorted_ids = ids.take(array(order))
        if len(sorted_ids) > 1:
            same = to_numpy(pc.equal(sorted_ids.slice(1), sorted_ids.slice(0, len(sorted_ids) - 1)))
            if same.any():
                raise ValueError(f"two batches are called {sorted_ids[int(np.argmax(same))].as_py()!r}")
        for name, value in (("sources", sources), ("first_row", before - starts), ("_order", order)):
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, outputs: Sequence[FileRecord]) -> Roll:
        """The roll of the batches for which a stage has written one file each, named ``<task_id>.arrow``.

        ``outputs`` is the argument of `ProcessingStage.finish`, so it is in lineage order.
        """
        names = [storage.file_name(record.path) for record in outputs]
        for name in names:
            if not name.endswith(_SUFFIX):
                raise ValueError(f"{name!r} is not called after a task: <task_id>{_SUFFIX}")
        ids = array([name.removesuffix(_SUFFIX) for name in names], pa.string())
        return cls(ids, np.fromiter((record.rows for record in outputs), np.int64, len(names)))

    @classmethod
    def read(cls, path: str) -> Roll:
        """The roll in a file that `write` made."""
        with storage.open_input(path) as stream, pa.ipc.open_file(stream) as file:
            table = file.read_all().combine_chunks()
        ids = table["task_id"].combine_chunks()
        if isinstance(ids, pa.ChunkedArray):  # the table has no chunks
            ids = array([], pa.string())
        return cls(ids, to_numpy(table["rows"]).copy(), path)

    def write(self, path: str) -> FileRecord:
        """Write the roll to a file, whole or not at all."""
        columns = [self.task_ids, self.sources, array(self.rows), array(self.first_row)]
        options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
        table = pa.Table.from_arrays([pa.chunked_array([column]) for column in columns], schema=SCHEMA)
        with storage.write_atomic(path) as out, pa.ipc.new_file(out, SCHEMA, options=options) as writer:
            writer.write_table(table)
        return out.record(rows=len(self))

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"<Roll of {len(self):,} batches, {self.documents:,} documents>"

    @property
    def documents(self) -> int:
        """The number of documents."""
        return int(self.rows.sum())

    def number_of(self, task_id: str, rows: int | None = None) -> int:
        """The number of a batch; raise `RunRefused` if no batch has this id, or if it had a different number of
        ``rows``.
        """
        low, high = 0, len(self._order)
        while low < high:
            middle = (low + high) // 2
            if self.task_ids[int(self._order[middle])].as_py() < task_id:
                low = middle + 1
            else:
                high = middle
        batch = int(self._order[low]) if low < len(self._order) else -1
        if batch < 0 or self.task_ids[batch].as_py() != task_id:
            at = "" if not self._path else f" in {self._path!r}"
            raise RunRefused(
                f"the batch {task_id!r} was not there when the batches of the input were numbered{at}: the files, or the "
                "options of the reader, have changed since, there is another stage before this one, or an earlier step has set "
                "the batch aside. Read the same files in the same way without the rows that fail, or begin the work across rows "
                "again (fresh=True, --fresh)"
            )
        if rows is not None and rows != self.rows[batch]:
            raise RunRefused(
                f"the batch {task_id!r} has {count(rows, 'row')}, and had {int(self.rows[batch]):,} when the batches of the input "
                "were numbered: the input has changed since, or a stage before this one drops rows. Read the same files in "
                "the same way, or begin the work across rows again (fresh=True, --fresh)"
            )
        return batch

    def numbers_of(self, batch: DocumentBatch) -> NDArray[np.uint64]:
        """The numbers of the documents of a batch that was read again, with the checks of `number_of`."""
        return first_number(self.number_of(batch.task_id, batch.num_rows)) + np.arange(batch.num_rows, dtype=np.uint64)

    def places(self, numbers: NDArray[np.uint64]) -> tuple[pa.Array, NDArray[np.int64]]:
        """The id of each document's source, and the document's row in it."""
        batches, rows = (
            (numbers >> np.uint64(ROW_BITS)).astype(np.int64),
            (numbers & np.uint64(_END - 1)).astype(np.int64),
        )
        if len(batches) and (batches.max() >= len(self) or (rows >= self.rows[batches]).any()):
            wrong = numbers[(batches >= len(self)) | (rows >= self.rows[np.minimum(batches, len(self) - 1)])]
            raise ValueError(f"no document has the number {int(wrong[0])}")
        return self.sources.take(array(batches)).dictionary_decode(), self.first_row[batches] + rows

    def ranges(self, parts: int) -> list[tuple[int, int]]:
        """Up to ``parts`` ranges of batches ``(first, after the last)`` with about the same number of documents."""
        if not len(self):
            return []
        ends = np.cumsum(np.maximum(self.rows, 1))
        edges = np.searchsorted(ends, np.arange(1, parts) * (ends[-1] / parts), side="left") + 1
        cuts = np.unique(np.r_[0, np.minimum(edges, len(self)), len(self)])
        return [(int(first), int(stop)) for first, stop in itertools.pairwise(cuts)]


def first_number(batch: int) -> np.uint64:
    """The number of the first document of a batch."""
    return np.uint64(batch << ROW_BITS)


def batches_of(numbers: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The number of each document's batch."""
    return (numbers >> np.uint64(ROW_BITS)).astype(np.int64)


def rows_of(numbers: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Each document's row in its batch."""
    return (numbers & np.uint64(_END - 1)).astype(np.int64)
