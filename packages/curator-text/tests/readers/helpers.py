"""Runs a reader by hand, and checks that it accounts for every row."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import zstandard

from curator_core.model.recorder import Reject
from curator_core.model.task import DocumentBatch, EmptyTask, FileGroupTask

COMPRESS = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


@dataclass
class Read:
    batches: list[DocumentBatch]
    rejects: list[Reject]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for batch in self.batches for row in batch.to_pyarrow().to_pylist()]

    @property
    def table(self) -> pa.Table:
        return pa.concat_tables([batch.to_pyarrow() for batch in self.batches], promote_options="default")

    @property
    def reasons(self) -> list[tuple[str, str]]:
        return [(reject.reason, reject.position) for reject in self.rejects]


def read_files(stage: Any, paths: Sequence[str], ranges: Any = None) -> Read:
    stage.recorder.rejects.clear()
    stage.recorder.read = None
    batches = list(stage.process(FileGroupTask(data=[str(path) for path in paths], ranges=ranges)))
    rejected = sum(reject.rows for reject in stage.recorder.rejects)
    assert (stage.recorder.read or 0) == sum(batch.num_rows for batch in batches) + rejected
    return Read(batches, list(stage.recorder.rejects))


def read_all(reader: Any) -> Read:
    source, stage = reader.decompose()
    batches, rejects = [], []
    for task in source.process(EmptyTask()):
        assert task.task_id
        part = read_files(stage, task.data, task.ranges)
        batches += part.batches
        rejects += part.rejects
    return Read(batches, rejects)
