"""Computes the keys of documents: one of the whole text, and one for each band of its sketch. Documents that share a
key are candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.copies import (
    EXACT,
    Copies,
    ExactKeys,
    PartitionStage,
    exact_keys,
    finish_keys,
    partition_table,
    with_old_copies,
    write_keys,
)
from curator_core.across.documents import DocumentParameters, collection_salts
from curator_core.across.shuffle import Partitions, finish_partitioned
from curator_core.arrow.arrays import array, distinct, to_numpy
from curator_core.model.stage import SourceStage
from curator_core.model.task import DocumentBatch, EmptyTask, FileGroupTask, FileRecord
from curator_text._columns import require_texts
from curator_text.dedup.sketch import near_keys
from curator_text.dedup.words import LETTERS_IN_SHINGLE, WORDS_IN_SHINGLE, Kind

NEAR, EDGES, COPIES = "near", "edges", "copies"


@dataclass(kw_only=True, eq=False, repr=False)
class SketchParameters:
    """The size of a sketch, which decides how likely two documents are to share a key: ``bands`` bands of ``rows`` rows
    over shingles of ``ngram`` words or characters.

    By default, a shingle has 3 words or 13 characters.
    """

    unit: Kind = "words"
    ngram: int | None = None
    bands: int = 26
    rows: int = 5
    seed: int = 0

    @property
    def shingle(self) -> int:
        """The number of words or characters in a shingle."""
        if self.ngram is not None:
            return self.ngram
        return WORDS_IN_SHINGLE if self.unit == "words" else LETTERS_IN_SHINGLE


@dataclass(kw_only=True)
class FuzzyKeys(SketchParameters, ExactKeys):
    """Writes the keys of each document, by partition, and at the end the roll of all batches."""

    def process(self, task: DocumentBatch) -> FileGroupTask:
        self.ids(task.to_pyarrow().slice(0, 0))  # a later step needs ids: raise now if the type is unsuitable
        exact, exact_places = exact_keys(self, task, with_names=False)
        near, near_places = document_keys(self, self, task)
        records = [
            write_keys(self, self.path, task, EXACT, exact, exact_places),
            write_keys(self, self.path, task, NEAR, near, near_places),
        ]
        return FileGroupTask(data=[records[-1].path], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        notes = finish_keys(self.path, outputs, [NEAR, EXACT], self.index, type(self).__name__)
        require_texts(notes, self.column)


def document_keys(
    sketch: SketchParameters, stage: DocumentParameters, task: DocumentBatch
) -> tuple[pa.Table, NDArray[np.uint64]]:
    """One entry for each band of each document that has words: its row in the batch, and the key."""
    texts = stage.texts(task.to_pyarrow())
    keys, counts = near_keys(
        texts, bands=sketch.bands, rows=sketch.rows, seed=sketch.seed, kind=sketch.unit, size=sketch.shingle
    )
    if stage.scope == "per_collection":
        keys = keys ^ collection_salts(stage.collections(task))[:, :1]
    there = np.flatnonzero(counts)
    rows = np.repeat(there.astype(np.uint32), sketch.bands)
    return pa.table({"row": array(rows)}), keys[there].ravel()


@dataclass(kw_only=True)
class KeyPartitions(SourceStage[FileGroupTask]):
    """Lists the partitions of keys of both kinds; each is a source."""

    near: str
    exact: str

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        for kind, folder in ((NEAR, self.near), (EXACT, self.exact)):
            for partition in Partitions(path=folder).process(task):
                yield replace(
                    partition,
                    task_id=f"{kind}-{partition.task_id}",
                    _metadata={**partition._metadata, "kind": kind},
                )


@dataclass(kw_only=True)
class FindCandidates(PartitionStage):
    """Ties all documents of a partition that share a key to the first of them, and exact copies to the preferred one.

    Documents of an index are tied to new documents that share a key with them, and exact copies of old documents are
    tied to these.

    The edges only bring texts together and decide nothing, so any document with the key may be the one to which the
    others are tied.
    """

    def process(self, task: FileGroupTask) -> FileGroupTask:
        table = partition_table(task)
        assert table is not None  # only partitions with rows are tasks
        records = []
        if task._metadata["kind"] == NEAR:
            first, other = self._near(to_numpy(table["place"]), to_numpy(table["number"]))
        else:
            preference = self.preference()
            table = with_old_copies(table, self._old, preference)
            numbers = to_numpy(table["number"])
            copies = Copies(table, preference, self._old.are_old(numbers), among_new=self.against != "index")
            other = numbers[copies.order[copies.removed]]
            first = numbers[copies.order[copies.best[copies.removed]]]
            path = storage.join(self.path, COPIES, f"{task.task_id}.arrow")
            made = pa.table({"number": array(other), "copy_of": array(first)})
            records.append(self.write_by_batch(path, made))
        path = storage.join(self.path, EDGES, f"{task.task_id}.arrow")
        with storage.write_atomic(path, durable=False) as out:
            edges = pa.table({"a": array(first), "b": array(other)})
            with pa.ipc.new_file(out, edges.schema) as writer:
                writer.write_table(edges)
        records.append(out.record(rows=edges.num_rows))
        for record in records:
            self.record_output(record)
        return FileGroupTask(data=[records[-1].path], dataset_name=task.dataset_name)

    def _near(
        self, keys: NDArray[np.uint64], numbers: NDArray[np.uint64]
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        if not self._old and self.against != "index":
            return _stars(keys, numbers)
        theirs = self._old.matching(NEAR, distinct(keys))
        old_keys = to_numpy(theirs["place"]) if theirs is not None else np.zeros(0, np.uint64)
        if self.against == "index":  # drop keys that no document of the index has
            shared = np.isin(keys, old_keys)
            keys, numbers = keys[shared], numbers[shared]
        if theirs is not None:
            keys = np.concatenate([keys, old_keys])
            numbers = np.concatenate([numbers, to_numpy(theirs["number"])])
        # New documents have smaller numbers than old ones, and each key here belongs to a new document, so old
        # documents are tied to new ones.
        return _stars(keys, numbers)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        storage.make_folder(storage.join(self.path, EDGES))  # otherwise there is no folder if no document has words
        folder = storage.join(self.path, COPIES)
        finish_partitioned(folder, [record for record in outputs if storage.parent(record.path) == folder])


def _stars(keys: NDArray[np.uint64], numbers: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Tie each document to the document with the smallest number that shares a key with it; each pair is returned once."""
    order = np.argsort(keys)
    keys = keys[order]
    again = np.zeros(len(keys) + 1, np.bool_)  # whether a key equals the one before
    again[1:-1] = keys[1:] == keys[:-1]
    shared = np.flatnonzero(again[1:] | again[:-1])  # most keys belong to one document only
    numbers, starts = numbers[order[shared]], np.flatnonzero(~again[shared])
    if not len(starts):
        return numbers, numbers
    first = np.repeat(np.minimum.reduceat(numbers, starts), np.diff(np.append(starts, len(numbers))))
    tied = first != numbers
    first, numbers = first[tied], numbers[tied]
    order = np.lexsort((numbers, first))
    first, numbers = first[order], numbers[order]
    new = np.ones(len(first), np.bool_)
    new[1:] = (first[1:] != first[:-1]) | (numbers[1:] != numbers[:-1])
    return first[new], numbers[new]
