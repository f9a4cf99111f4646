"""How does a pipeline pass its rows to the next one by key: in a random order, or all rows of a key together?

`ShuffleWriter` ends a pipeline and `ShuffleReader` begins the next, with all rows in the order of a seeded hash of
their key. If the rows of a key must be together, a subclass of `GroupByKey` takes the place of the reader.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.shuffle import (
    Partitions,
    check_partitions,
    finish_partitioned,
    partition_sorted,
    partition_spans,
    read_manifest,
    write_partitioned,
)
from curator_core.arrow.arrays import array, to_numpy
from curator_core.arrow.row_hash import row_digests
from curator_core.arrow.widening import fitted
from curator_core.errors import UsageError
from curator_core.formatting import size
from curator_core.model.stage import ANY_COLUMNS, CompositeStage, FanOut, ProcessingStage
from curator_core.model.task import DocumentBatch, EmptyTask, FileGroupTask, FileRecord
from curator_core.stages.files import parse_bytes

# The column of places in the files between the two pipelines; a user's column must not have this name.
HASH = "__shuffle_hash__"


@dataclass(kw_only=True)
class ShuffleWriter(ProcessingStage[DocumentBatch, FileGroupTask]):
    """Writes each batch to ``path`` with its rows sorted by partition, for `ShuffleReader` to read.

    A row's place in the order comes from ``key_column``, a column or a list of them, and ``seed``. ``partitions`` is
    the number of pieces into which the reader's work is divided; the order does not depend on it. The files are for the
    reader alone and can be removed afterwards.
    """

    path: str
    key_column: str | Sequence[str] = "id"
    seed: int = 0
    partitions: int = 64

    # Whether the reader may convert values to JSON if no other type holds the values of all files.
    json_allowed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not isinstance(self.path, str) or not self.path:
            raise UsageError(f"{name}.path must be a folder or URL to write to, not {self.path!r}")
        self._keys = key_columns(f"{name}.key_column", self.key_column)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise UsageError(f"{name}.seed must be a whole number, not {self.seed!r}")
        check_partitions(f"{name}.partitions", self.partitions)

    def inputs(self) -> list[str]:
        return self._keys

    def output_folder(self) -> str:
        return self.path

    def repacks(self) -> bool:
        return False

    def places(self, table: pa.Table) -> NDArray[np.uint64]:
        """The place of each row in the order; it depends on the key and the seed alone."""
        digests = row_digests(table, self._keys, salt=str(self.seed).encode(), size=8)
        return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64, copy=False)

    def process(self, task: DocumentBatch) -> FileGroupTask:
        table = task.to_pyarrow()
        if HASH in table.column_names:
            raise UsageError(f"a column is called {HASH!r}, a name that {type(self).__name__} needs: rename it")
        path = storage.join(self.path, f"{task.task_id or 'batch'}.arrow")
        record = write_partitioned(path, table, self.places(table), self.partitions, column=HASH)
        self.record_output(record)
        return FileGroupTask(data=[path], records=[record], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        """Write the manifest: the list of files in the order of the input, and the properties that they share."""
        finish_partitioned(
            self.path,
            outputs,
            partitions=self.partitions,
            json_allowed=self.json_allowed,
            facts={"key_columns": self._keys, "seed": self.seed},
        )


def key_columns(what: str, given: Any) -> list[str]:
    """Return the column or columns as a list; anything else is an error."""
    names = [given] if isinstance(given, str) else given
    if (
        not isinstance(names, list | tuple)
        or not names
        or not all(isinstance(name, str) and name for name in names)
        or len(set(names)) < len(names)
    ):
        raise UsageError(f"{what} must be a column or a list of different columns, not {given!r}")
    return list(names)


@dataclass(kw_only=True)
class ShuffleReader(CompositeStage[EmptyTask, DocumentBatch]):
    """Reads what `ShuffleWriter` left in ``path``: all rows, in the order of the shuffle, partition by partition.

    A worker holds about three times ``memory``: a partition with more is read in several passes. Batches hold about
    ``batch_bytes``.
    """

    path: str
    memory: int | str = "128MiB"
    batch_bytes: int | str = "8MiB"

    def __post_init__(self) -> None:
        self.decompose()  # each of these checks its parameters

    def outputs(self) -> list[str]:
        return [ANY_COLUMNS]

    def decompose(self) -> list[ProcessingStage[Any, Any]]:
        return [
            Partitions(path=self.path, empty_too=True),
            ShuffleRead(memory=self.memory, batch_bytes=self.batch_bytes),
        ]


@dataclass(kw_only=True)
class ShuffleRead(FanOut[FileGroupTask, DocumentBatch]):
    """Reads one partition of a shuffle in order; see `ShuffleReader`."""

    memory: int | str = "128MiB"
    batch_bytes: int | str = "8MiB"

    def __post_init__(self) -> None:
        self._memory = parse_bytes(self.memory, "ShuffleReader.memory")
        self._batch_bytes = parse_bytes(self.batch_bytes, "ShuffleReader.batch_bytes")

    def outputs(self) -> list[str]:
        return [ANY_COLUMNS]

    def fit(self, table: pa.Table, schema: pa.Schema) -> pa.Table:
        """A table of one file with the columns and types of all files."""
        return fitted(table, schema)

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        manifest = read_manifest(task.data[0])
        rows = 0
        for table in partition_sorted(task, self._memory, fit=self.fit):
            for piece in batches_of(table.drop_columns([manifest.column]), self._batch_bytes):
                rows += piece.num_rows
                self.record_read(piece.num_rows)
                yield DocumentBatch(data=piece, dataset_name=task.dataset_name)
        if not rows:
            yield DocumentBatch(data=manifest.schema.empty_table(), dataset_name=task.dataset_name)


def batches_of(table: pa.Table, batch_bytes: int) -> Iterator[pa.Table]:
    """A table in pieces of about ``batch_bytes``."""
    per_batch = max(1, table.num_rows * batch_bytes // max(1, table.nbytes))
    for start in range(0, table.num_rows, per_batch):
        yield table.slice(start, per_batch)


class GroupByKey(FanOut[FileGroupTask, DocumentBatch]):
    """Base of stages that get all rows of a key at once. It follows `Partitions`, in the pipeline after a
    `ShuffleWriter`.

    Write `process_group`. Groups are in the order of the hash of their key, and the rows of a group in the order of the
    input, whatever the number of partitions, files and workers::

        class Newest(GroupByKey):
            def process_group(self, rows):
                return rows.sort_by("date").slice(len(rows) - 1)

        Pipeline([Partitions(path="parts"), Newest(), JsonlWriter(path="out")])

    A group of more than ``memory`` is refused, unless the stage has a `process_large_group`. Rows that the stage does
    not return are dropped as ``grouped``; a stage that returns more rows than a group had must set ``creates_rows``.
    """

    memory: int | str
    batch_bytes: int | str

    def __init__(self, memory: int | str = "128MiB", batch_bytes: int | str = "8MiB") -> None:
        self.memory = memory
        self.batch_bytes = batch_bytes
        self._memory = parse_bytes(memory, f"{type(self).__name__}.memory")
        self._batch_bytes = parse_bytes(batch_bytes, f"{type(self).__name__}.batch_bytes")

    def outputs(self) -> list[str]:
        return [ANY_COLUMNS]

    @abstractmethod
    def process_group(self, rows: pa.Table) -> pa.Table | None:
        """Return the result for the rows of one key, or None to drop them."""

    def process_large_group(self, pieces: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """Return the result for the rows of a key that do not fit in memory; they come in pieces, in order."""
        first = next(pieces)
        raise UsageError(
            f"the rows of one key take more than {type(self).__name__}.memory ({size(self._memory)}): those of "
            f"{first.slice(0, 1).to_pylist()[0]!r}. Raise memory, choose a key that fewer rows share, or write "
            "process_large_group()"
        )

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        manifest = read_manifest(task.data[0])
        keys = manifest.facts.get("key_columns")
        if not keys:
            raise UsageError(f"{type(self).__name__} follows Partitions of a ShuffleWriter, not of {task.data[0]!r}")
        held: list[pa.Table] = []
        for table in self._results(task, manifest.column, keys):
            held.append(table)
            if sum(piece.nbytes for piece in held) >= self._batch_bytes:
                yield DocumentBatch(data=pa.concat_tables(held), dataset_name=task.dataset_name)
                held = []
        if held:
            yield DocumentBatch(data=pa.concat_tables(held), dataset_name=task.dataset_name)

    def _results(self, task: FileGroupTask, column: str, keys: list[str]) -> Iterator[pa.Table]:
        for span in partition_spans(task, self._memory):
            if span.tables is None:
                read = given = 0

                def pieces(span: Any = span) -> Iterator[pa.Table]:
                    nonlocal read
                    for _, table in span.read():
                        read += table.num_rows
                        yield table.drop_columns([column])

                for made in self.process_large_group(pieces()):
                    given += made.num_rows
                    yield made
                self._account(read, given)
                continue
            table = pa.concat_tables(span.tables).unify_dictionaries().combine_chunks()
            span.tables.clear()
            order = np.argsort(to_numpy(table[column]), kind="stable")
            table = table.take(array(order)).drop_columns([column]).combine_chunks()
            for group in _groups(table, keys):
                result = self.process_group(group)
                self._account(group.num_rows, 0 if result is None else result.num_rows)
                if result is not None and result.num_rows:
                    yield result

    def _account(self, read: int, given: int) -> None:
        self.record_read(read)
        self.record_dropped("grouped", max(0, read - given))


def _groups(table: pa.Table, keys: Sequence[str]) -> Iterator[pa.Table]:
    """Split a table in which rows with the same hash are together into groups; two keys with the same hash are two
    groups.
    """
    digests = np.frombuffer(b"".join(row_digests(table, keys)), "<u8").reshape(-1, 2)
    apart = (digests[1:] != digests[:-1]).any(axis=1)
    starts = np.flatnonzero(np.append(True, apart)).tolist() if table.num_rows else []
    for start, stop in zip(starts, [*starts[1:], table.num_rows], strict=True):
        yield table.slice(start, stop - start)
