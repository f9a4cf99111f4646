"""Counts the documents that contain each n-gram of the test sets. An n-gram in many documents is boilerplate or a
common phrase.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curator_core import storage
from curator_core.arrow.arrays import array, distinct, to_numpy
from curator_core.errors import UsageError
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch, FileGroupTask, FileRecord
from curator_text.decontaminate.index import TestIndex, counted
from curator_text.decontaminate.parameters import TestSetParameters
from curator_text.dedup.words import Ints

COUNTS = "counts.arrow"
_OF = b"test_sets"


@dataclass(kw_only=True)
class CountTestNgrams(TestSetParameters, ProcessingStage[DocumentBatch, FileGroupTask]):
    """Counts how many documents contain each n-gram of the test sets, and writes the counts to the folder ``path``.

    `Decontaminate` reads the counts from there (``counts_path``); its test sets, ``words`` and ``min_words`` must be
    the same. The workflow `Decontamination` runs both.
    """

    path: str

    def __post_init__(self) -> None:
        self.check_test_sets()
        if not isinstance(self.path, str) or not self.path:
            raise UsageError(f"CountTestNgrams.path must be a folder or URL to write to, not {self.path!r}")

    def inputs(self) -> list[str]:
        return [self.column]

    def output_folder(self) -> str:
        return self.path

    def repacks(self) -> bool:
        return False

    def setup(self, worker: WorkerMetadata) -> None:
        self.index()

    def process(self, task: DocumentBatch) -> FileGroupTask:
        index = self.index()
        found = [distinct(hits.grams) for hits in index.find(self.texts_in(task))]
        table = counted(np.concatenate([np.zeros(0, np.int64), *found]), len(index))
        path = storage.join(self.path, f"{task.task_id or 'batch'}.arrow")
        record = _write(path, table, index)
        self.record_output(record)
        return FileGroupTask(data=[path], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> list[FileRecord]:
        index = self.index()
        totals = np.zeros(len(index), np.int64)
        for record in outputs:
            grams, documents = _read(record.path, index)
            totals[grams] += documents
        some = np.flatnonzero(totals)
        table = pa.table({"gram": array(some), "documents": array(totals[some])})
        return [*outputs, _write(storage.join(self.path, COUNTS), table, index)]


def frequent_ngrams(path: str, index: TestIndex, max_documents: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """The n-grams that occur in more than ``max_documents`` documents, according to the counts in a folder."""
    place = storage.join(path, COUNTS)
    if not storage.exists(place):
        raise UsageError(
            f"{path!r} contains no complete counts of n-grams: run a pipeline that ends in CountTestNgrams first, or the "
            "workflow Decontamination, which does both"
        )
    grams, documents = _read(place, index)
    frequent = np.zeros(len(index), np.bool_)
    frequent[grams[documents > max_documents]] = True
    return frequent


def _write(path: str, table: pa.Table, index: TestIndex) -> FileRecord:
    schema = table.schema.with_metadata({_OF: index.fingerprint.encode()})
    with storage.write_atomic(path) as out, pa.ipc.new_file(out, schema) as writer:
        writer.write_table(table.cast(schema))
    return out.record(rows=0)  # these rows are counts, not rows of the data


def _read(path: str, index: TestIndex) -> tuple[Ints, Ints]:
    with storage.open_input(path) as stream, pa.ipc.open_file(stream) as file:
        if (file.schema.metadata or {}).get(_OF) != index.fingerprint.encode():
            raise UsageError(
                f"the counts in {path!r} belong to other test sets, or to n-grams of other lengths: count again with "
                "CountTestNgrams and the same parameters"
            )
        table = file.read_all()
    return to_numpy(table["gram"]), to_numpy(table["documents"])
