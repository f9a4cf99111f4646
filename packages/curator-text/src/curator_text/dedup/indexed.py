"""Adds the words of documents that stay to an index, and finds them again for comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curator_core import storage
from curator_core.across.additions import AddToIndex
from curator_core.across.copies import EXACT, exact_keys, write_keys
from curator_core.across.decided import ROLL
from curator_core.across.groups import groups_of
from curator_core.across.index import MANIFEST, ROWS, OldDocuments
from curator_core.across.preference import Preference
from curator_core.across.roll import Roll, first_number
from curator_core.across.shuffle import finish_partitioned, write_partitioned
from curator_core.arrow.arrays import array
from curator_core.model.lineage import source_id
from curator_core.model.stage import FanOut, SourceStage
from curator_core.model.task import DocumentBatch, EmptyTask, FileGroupTask, FileRecord
from curator_text.dedup.keys import NEAR, SketchParameters, document_keys
from curator_text.dedup.texts import SPREAD, word_columns

WORDS = "words"
# How many batches of an index a task reads: most contain few needed documents, or none.
_BATCHES = 32


@dataclass(kw_only=True)
class AddTexts(SketchParameters, AddToIndex):
    """Writes the keys and words of each document that stays, according to ``decisions``, to a run of the index.

    It reads the documents again. ``keys`` contains the name of the run in the index.
    """

    placed: ClassVar[tuple[str, ...]] = (NEAR, EXACT)
    others: ClassVar[tuple[str, ...]] = (WORDS,)

    def write(self, folder: str, documents: DocumentBatch) -> list[FileRecord]:
        exact, exact_places = exact_keys(self, documents, with_names=False)
        exact = exact.drop_columns(Preference.of(self.keep, type(self).__name__).names)
        near, near_places = document_keys(self, self, documents)
        return [
            write_keys(self, folder, documents, EXACT, exact, exact_places, durable=True),
            write_keys(self, folder, documents, NEAR, near, near_places, durable=True),
            self._write_words(folder, documents),
        ]

    def _write_words(self, folder: str, documents: DocumentBatch) -> FileRecord:
        table = documents.to_pyarrow()
        columns: dict[str, Any] = {
            "id": self.ids(table),
            "collection": self.collections(documents).dictionary_decode(),
            **word_columns(self.texts(table), np.ones(table.num_rows, np.bool_), self.unit),
        }
        made = pa.table(columns)
        path = storage.join(folder, WORDS, f"{documents.task_id or 'batch'}.arrow")
        with storage.write_atomic(path) as out, pa.ipc.new_file(out, made.schema) as writer:
            writer.write_table(made.combine_chunks(), max_chunksize=ROWS)
        return out.record(rows=documents.num_rows)


@dataclass(kw_only=True)
class IndexBatches(SourceStage[FileGroupTask]):
    """Lists the batches of the index with which the run is compared, several to a source."""

    keys: str

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        old = OldDocuments(self.keys, len(Roll.read(storage.join(self.keys, ROLL))))
        for run, (first, stop) in zip(old.runs, old.batches(), strict=True):
            for start in range(first, stop, _BATCHES):
                batches = list(range(start, min(start + _BATCHES, stop)))
                yield FileGroupTask(
                    # This manifest is final. The files with the words are looked up when they are read.
                    data=[storage.join(self.keys, MANIFEST)],
                    task_id=source_id(f"{run.name}-{start - first:06d}", [run.name, str(start - first)]),
                    _metadata={"batches": batches},
                )


@dataclass(kw_only=True)
class IndexedTexts(FanOut[FileGroupTask, FileGroupTask]):
    """Writes the words of each document of the index that is in a group, partitioned by group like those of new
    documents.
    """

    path: str
    keys: str
    groups: str
    keep: Sequence[Any] = ("longest", "first")
    partitions: int = 32

    def output_folder(self) -> str:
        return self.path

    def repacks(self) -> bool:
        return False

    def setup(self, worker: Any) -> None:
        self._old = OldDocuments(self.keys, len(Roll.read(storage.join(self.keys, ROLL))))

    def process(self, task: FileGroupTask) -> Iterator[FileGroupTask]:
        batches = task._metadata["batches"]
        found = [table for batch in batches if (table := self._of_batch(batch)) is not None]
        if not found:
            return
        made = pa.concat_tables(found)
        groups = made["group"].to_numpy()
        path = storage.join(self.path, f"{task.task_id}.arrow")
        record = write_partitioned(path, made, groups * SPREAD, self.partitions)
        self.record_output(record)
        yield FileGroupTask(data=[path], records=[record], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        finish_partitioned(self.path, outputs, partitions=self.partitions)

    def _of_batch(self, batch: int) -> pa.Table | None:
        rows, groups = groups_of(self.groups, batch)
        if not len(rows):
            return None
        table = self._old.rows_of_batch(WORDS, batch, rows)
        zeros = array(np.zeros(len(rows), np.uint64))
        numbers = array(first_number(batch) + rows.astype(np.uint64))
        # Old documents come first whatever the order of preference, in the order of their numbers.
        preferred = Preference.of(self.keep, type(self).__name__).names
        columns = {
            "number": numbers,
            "hash_high": zeros,
            "hash_low": zeros,
            "id": table["id"],
            "collection": table["collection"].dictionary_encode(),
            **dict.fromkeys(preferred, zeros),
            "words": table["words"],
            "marks": table["marks"],
            "group": array(groups),
            "copy_of": numbers,
        }
        return pa.table(columns)
