"""Shuffles all rows of files into new files without holding them in memory; see `curator_core.across.by_key`.

Rows are ordered by a seeded hash of their key, and rows with the same key keep their original order. So the order
depends only on the data and the seed, not on the number of partitions, files or workers. If types differ between files,
they are unified as in readers of JSON, and become JSON if no other type holds the values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across import by_key
from curator_core.across.shuffle import Partitions
from curator_core.arrow.json_column import values_of
from curator_core.errors import UsageError
from curator_core.model.stage import ProcessingStage
from curator_core.pipeline import Pipeline
from curator_core.workflow import Step, Workflow
from curator_text.blend import hashes
from curator_text.readers.jsonl import JsonlReader
from curator_text.readers.parquet import ParquetReader
from curator_text.widening import fitted
from curator_text.writers import JsonlWriter, ParquetWriter


@dataclass(kw_only=True)
class ShuffleWriter(by_key.ShuffleWriter):
    """Writes each batch to ``path`` with its rows sorted by partition, for `ShuffleReader`.

    The place of a row in the order depends on ``key_column``, a column or a list of columns, and ``seed``.
    ``partitions`` is the number of tasks of the reader; the order does not depend on it. Only the reader needs the
    files, so they can be removed afterwards.
    """

    json_allowed = True

    def places(self, table: pa.Table) -> NDArray[np.uint64]:
        if isinstance(self.key_column, str):
            return hashes(values_of(table[self.key_column]), self.seed)
        return super().places(table)


@dataclass(kw_only=True)
class ShuffleReader(by_key.ShuffleReader):
    """Reads the rows that `ShuffleWriter` wrote to ``path``, in the order of the shuffle, partition by partition.

    A worker uses about three times ``memory``: a larger partition is read in several passes. Batches have about
    ``batch_bytes``.
    """

    def decompose(self) -> list[ProcessingStage[Any, Any]]:
        return [
            Partitions(path=self.path, empty_too=True),
            ShuffleRead(memory=self.memory, batch_bytes=self.batch_bytes),
        ]


@dataclass(kw_only=True)
class ShuffleRead(by_key.ShuffleRead):
    """Reads one partition of a shuffle in order; see `ShuffleReader`."""

    def fit(self, table: pa.Table, schema: pa.Schema) -> pa.Table:
        return fitted(table, schema)


@dataclass(kw_only=True)
class GlobalShuffle(Workflow):
    """Writes all rows of many files to other files in a random order, which is the same for the same data and seed.

    ``paths`` are read and ``path`` is written, both in ``format`` (``jsonl`` or ``parquet``). ``partitions``,
    ``memory`` and ``target_size`` are those of `ShuffleWriter`, `ShuffleReader` and the writers.
    """

    paths: str | Sequence[str]
    path: str
    format: Literal["jsonl", "parquet"] = "jsonl"
    key_column: str = "id"
    seed: int = 0
    partitions: int = 64
    memory: int | str = "128MiB"
    compression: str | None = None
    target_size: int | str | None = None

    def __post_init__(self) -> None:
        if self.format not in ("jsonl", "parquet"):
            raise UsageError(f"GlobalShuffle.format must be 'jsonl' or 'parquet', not {self.format!r}")
        list(self.steps("work"))  # each stage checks its own parameters

    def steps(self, work_dir: str) -> Iterator[Pipeline | Step]:
        between = storage.join(work_dir, "partitions")
        out: dict[str, Any] = {"path": self.path, "target_size": self.target_size}
        if self.compression is not None:
            out["compression"] = self.compression
        reader = JsonlReader(paths=self.paths) if self.format == "jsonl" else ParquetReader(paths=self.paths)
        writer = JsonlWriter(**out) if self.format == "jsonl" else ParquetWriter(**out)
        scatter = ShuffleWriter(path=between, key_column=self.key_column, seed=self.seed, partitions=self.partitions)
        yield Pipeline([reader, scatter], name="scatter")
        yield Step(Pipeline([ShuffleReader(path=between, memory=self.memory), writer], name="gather"), frees=[between])
