"""Gathers the texts of each group: the words of documents that share a key with another, partitioned by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.copies import DocumentStage
from curator_core.across.decided import ROLL
from curator_core.across.digests import digests
from curator_core.across.gather import BatchRows
from curator_core.across.groups import groups_of
from curator_core.across.inputs import Inputs
from curator_core.across.preference import Preference
from curator_core.across.roll import Roll, first_number
from curator_core.across.shuffle import finish_partitioned, write_partitioned
from curator_core.arrow.arrays import array, to_numpy
from curator_core.arrow.row_hash import column_of
from curator_core.model.task import DocumentBatch, FileGroupTask, FileRecord
from curator_text.dedup.words import Kind, words_of

SPREAD = np.uint64(0x9E3779B97F4A7C15)  # odd, so that different groups have different places


@dataclass(kw_only=True)
class GroupedTexts(DocumentStage):
    """Writes the words of each document in a group, partitioned by group; exact copies are only marked as copies."""

    keys: str
    groups: str
    copies: str
    unit: Kind = "words"

    def setup(self, worker: Any) -> None:
        self._roll = Roll.read(storage.join(self.keys, ROLL))
        self._inputs = Inputs.read(self.keys)
        self._copies = BatchRows(self.copies, len(self._roll))

    def process(self, task: DocumentBatch) -> FileGroupTask:
        if self._inputs is not None:
            self._inputs.require_same(task)
        batch = self._roll.number_of(task.task_id, task.num_rows)
        rows, groups = groups_of(self.groups, batch)
        numbers = first_number(batch) + rows.astype(np.uint64)
        copies = self._copies.of(batch)
        copy_of = numbers.copy()
        if copies.num_rows:  # a shuffle without rows has no columns
            copied = to_numpy(copies["number"])
            copy_of[np.searchsorted(numbers, copied)] = to_numpy(copies["copy_of"])
        table = task.to_pyarrow().take(array(rows))
        made = self._described(task.with_data(table), numbers, copy_of == numbers)
        made = made.append_column("group", array(groups)).append_column("copy_of", array(copy_of))
        path = storage.join(self.path, f"{task.task_id or 'batch'}.arrow")
        record = write_partitioned(path, made, groups * SPREAD, self.partitions)
        self.record_output(record)
        return FileGroupTask(data=[path], dataset_name=task.dataset_name)

    def _described(self, task: DocumentBatch, numbers: NDArray[np.uint64], whole: NDArray[np.bool_]) -> pa.Table:
        """The columns for comparing and naming documents, with words only for those that are ``whole``."""
        table = task.to_pyarrow()
        collections = self.collections(task)
        found = digests(column_of(table, self.column), normalize=self.normalize)
        columns: dict[str, Any] = {
            "number": array(numbers),
            "hash_high": array(found.high),
            "hash_low": array(found.low),
            "id": self.ids(table),
            "collection": collections,
        }
        preference = Preference.of(self.keep, type(self).__name__)
        for name, values in preference.encode(table, found.lengths, collections).items():
            columns[name] = array(values)
        return pa.table({**columns, **word_columns(self.texts(table), whole, self.unit)})

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        finish_partitioned(self.path, outputs)


def word_columns(texts: pa.ChunkedArray, whole: NDArray[np.bool_], unit: Kind) -> dict[str, pa.Array]:
    """The words or characters of the ``whole`` texts, and none for the others, as columns."""
    words = words_of(texts.filter(array(whole)), kind=unit)
    counts = np.zeros(len(whole), np.int64)
    counts[whole] = np.diff(words.offsets)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    # The marks of `Words`, or null if there are none, as in most batches of words.
    marks = (
        pa.nulls(len(whole), pa.large_list(pa.bool_()))
        if words.marks is None
        else pa.LargeListArray.from_arrays(array(offsets), array(words.marks))
    )
    return {"words": pa.LargeListArray.from_arrays(array(offsets), array(words.hashes)), "marks": marks}
