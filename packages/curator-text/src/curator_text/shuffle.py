"""A shuffle of all rows that no memory has to hold: rows go to partitions by a hash, and each partition is sorted.

The order is that of a seeded hash of each row's key, and rows of one key keep the order that they came in. So it depends on
the data and the seed alone, not on the number of partitions, of files or of workers. `ShuffleWriter` ends a pipeline,
`ShuffleReader` begins the next, and `GlobalShuffle` is both, from files to files.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from curator_core import storage
from curator_core.arrow.arrays import array, to_numpy
from curator_core.arrow.json_column import values_of
from curator_core.arrow.kinds import one_schema
from curator_core.arrow.widening import keeps_values
from curator_core.errors import UsageError
from curator_core.model.lineage import source_id
from curator_core.model.stage import ANY_COLUMNS, CompositeStage, FanOut, ProcessingStage, SourceStage
from curator_core.model.task import DocumentBatch, EmptyTask, FileGroupTask, FileRecord
from curator_core.pipeline import Pipeline
from curator_core.stages.files import parse_bytes
from curator_core.workflow import Workflow
from curator_text.blend import check_seed, hashes
from curator_text.readers.jsonl import JsonlReader
from curator_text.readers.parquet import ParquetReader
from curator_text.widening import fitted
from curator_text.writers import JsonlWriter, ParquetWriter

MANIFEST = "_shuffle.json"
_HASH = "__shuffle_hash__"
_LAYOUT = b"shuffle_layout"
_END = 1 << 64
_MOST_PARTITIONS = 1 << 16


@dataclass(kw_only=True)
class ShuffleWriter(ProcessingStage[DocumentBatch, FileGroupTask]):
    """Writes each batch to ``path`` with its rows laid out by partition, for `ShuffleReader` to go on from.

    A row's place in the order comes from ``key_column`` and ``seed``. ``partitions`` is how many pieces the reader's
    work comes in; the order does not depend on it. The files are for the reader alone and can be removed after it.
    """

    path: str
    key_column: str = "id"
    seed: int = 0
    partitions: int = 64

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path:
            raise UsageError(f"ShuffleWriter.path must be a folder or URL to write to, not {self.path!r}")
        check_seed(self)
        count = self.partitions
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MOST_PARTITIONS:
            raise UsageError(f"ShuffleWriter.partitions must be 1 to {_MOST_PARTITIONS}, not {count!r}")

    def inputs(self) -> list[str]:
        return [self.key_column]

    def output_folder(self) -> str:
        return self.path

    def process(self, task: DocumentBatch) -> FileGroupTask:
        table = task.to_pyarrow()
        if _HASH in table.column_names:
            raise UsageError(f"a column is called {_HASH!r}, a name that ShuffleWriter needs: rename it")
        keys = hashes(values_of(table[self.key_column]), self.seed)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        table = table.unify_dictionaries().take(array(order)).append_column(_HASH, array(keys))
        starts = np.array([_first(number, self.partitions) for number in range(self.partitions)], np.uint64)
        edges = [*np.searchsorted(keys, starts).tolist(), len(keys)]
        parts = [table.slice(start, stop - start).to_batches() for start, stop in itertools.pairwise(edges)]
        parts = [[batch for batch in part if batch.num_rows] for part in parts]
        layout = {"rows": np.diff(edges).tolist(), "batches": [len(part) for part in parts]}
        schema = table.schema.with_metadata({**(table.schema.metadata or {}), _LAYOUT: json.dumps(layout)})
        path = storage.join(self.path, f"{task.task_id or 'batch'}.arrow")
        with storage.write_atomic(path) as out, pa.ipc.new_file(out, schema) as writer:
            for part in parts:
                for batch in part:
                    writer.write_batch(batch.cast(schema))
        record = out.record(rows=table.num_rows)
        self.record_output(record)
        return FileGroupTask(data=[path], records=[record], dataset_name=task.dataset_name)

    def repacks(self) -> bool:
        return False

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        """Write down which files there are, in the order of the input, and what they have in common."""
        schemas: list[pa.Schema] = []
        rows = np.zeros(self.partitions, np.int64)
        for record in outputs:
            with storage.open_input(record.path) as stream, pa.ipc.open_file(stream) as file:
                schema = file.schema
                rows += np.array(_layout(schema)["rows"], np.int64)
                schemas.append(_plain(schema))
        manifest = {
            "key_column": self.key_column,
            "seed": self.seed,
            "partitions": self.partitions,
            "rows": rows.tolist(),
            "schema": None,
            "files": [[storage.relative(record.path, self.path), record.sha256] for record in outputs],
        }
        if schemas:
            schema = one_schema(schemas, lambda number, name, kind: _keeps(outputs[number].path, name, kind))
            manifest["schema"] = base64.b64encode(schema.serialize().to_pybytes()).decode()
        storage.write_bytes_atomic(storage.join(self.path, MANIFEST), json.dumps(manifest).encode())


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
        if not isinstance(self.path, str) or not self.path:
            raise UsageError(f"ShuffleReader.path must be the folder of a ShuffleWriter, not {self.path!r}")
        for name in ("memory", "batch_bytes"):
            parse_bytes(getattr(self, name), f"ShuffleReader.{name}")

    def outputs(self) -> list[str]:
        return [ANY_COLUMNS]

    def decompose(self) -> list[ProcessingStage[Any, Any]]:
        return [ShufflePartitions(path=self.path), ShuffleRead(memory=self.memory, batch_bytes=self.batch_bytes)]


@dataclass(kw_only=True)
class ShufflePartitions(SourceStage[FileGroupTask]):
    """Names the partitions of a shuffle that have rows; each is a source."""

    path: str

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        place = storage.join(self.path, MANIFEST)
        if not storage.exists(storage.join(self.path, "_SUCCESS")) or not storage.exists(place):
            raise UsageError(
                f"{self.path!r} holds no complete shuffle: run a pipeline that ends in ShuffleWriter first"
            )
        content = storage.read_bytes(place)
        manifest = json.loads(content)
        partitions = [number for number, rows in enumerate(manifest["rows"]) if rows]
        # With no row at all the columns are still known.
        for number in partitions or ([0] if manifest["files"] else []):
            yield FileGroupTask(
                data=[place],
                task_id=source_id(f"part-{number:05d}", [str(manifest["partitions"]), str(number)]),
                dataset_name=task.dataset_name,
                _generation=hashlib.sha256(content).hexdigest()[:16],
                _metadata={"partition": number},
            )


@dataclass(kw_only=True)
class ShuffleRead(FanOut[FileGroupTask, DocumentBatch]):
    """Reads one partition of a shuffle in order; see `ShuffleReader`."""

    memory: int | str = "128MiB"
    batch_bytes: int | str = "8MiB"

    def __post_init__(self) -> None:
        self._memory = parse_bytes(self.memory, "ShuffleRead.memory")
        self._batch_bytes = parse_bytes(self.batch_bytes, "ShuffleRead.batch_bytes")

    def outputs(self) -> list[str]:
        return [ANY_COLUMNS]

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        (place,) = task.data
        manifest = json.loads(storage.read_bytes(place))
        number, count = task._metadata["partition"], manifest["partitions"]
        shuffle = _Shuffle(
            [storage.join(storage.parent(place), name) for name, _ in manifest["files"]],
            number,
            pa.ipc.read_schema(pa.py_buffer(base64.b64decode(manifest["schema"]))),
        )
        rows = 0
        for table in self._sorted(shuffle, _first(number, count), _first(number + 1, count)):
            per_batch = max(1, table.num_rows * self._batch_bytes // max(1, table.nbytes))
            for start in range(0, table.num_rows, per_batch):
                piece = table.slice(start, per_batch)
                rows += piece.num_rows
                self.record_read(piece.num_rows)
                yield DocumentBatch(data=piece, dataset_name=task.dataset_name)
        if not rows:
            yield DocumentBatch(data=shuffle.schema.empty_table(), dataset_name=task.dataset_name)

    def _sorted(self, shuffle: _Shuffle, low: int, high: int) -> Iterator[pa.Table]:
        """The rows with a hash in ``[low, high)``, in order, in tables that fit the memory."""
        if high - low == 1:  # rows of one hash are in order as they come
            yield from (table.drop_columns([_HASH]) for table in shuffle.pieces(low, high))
            return
        held: list[pa.Table] = []
        size = 0
        for table in shuffle.pieces(low, high):
            held.append(table)
            size += table.nbytes
            if size > self._memory:
                break
        else:
            if held:
                table = pa.concat_tables(held).unify_dictionaries()
                held.clear()
                order = np.argsort(to_numpy(table[_HASH]), kind="stable")
                yield table.drop_columns([_HASH]).take(array(order)).combine_chunks()
            return
        held.clear()
        middle = (low + high) // 2
        yield from self._sorted(shuffle, low, middle)
        yield from self._sorted(shuffle, middle, high)


@dataclass(frozen=True, slots=True)
class _Shuffle:
    """One partition over all files."""

    paths: list[str]
    partition: int
    schema: pa.Schema

    def pieces(self, low: int, high: int) -> Iterator[pa.Table]:
        """The rows with a hash in ``[low, high)``, file by file, each a table of its own memory."""
        schema = self.schema.append(pa.field(_HASH, pa.uint64()))
        for path in self.paths:
            with storage.open_input(path) as stream, pa.ipc.open_file(stream) as file:
                batches = _layout(file.schema)["batches"]
                before = sum(batches[: self.partition])
                for number in range(before, before + batches[self.partition]):
                    batch = file.get_batch(number)
                    keys = to_numpy(batch.column(_HASH))
                    start, stop = (_place(keys, edge) for edge in (low, high))
                    if start == stop:
                        continue
                    if stop - start < len(keys):
                        batch = batch.take(array(np.arange(start, stop)))  # a slice would hold on to the whole
                    yield fitted(pa.Table.from_batches([batch]), schema)


@dataclass(kw_only=True)
class GlobalShuffle(Workflow):
    """Puts all rows of many files in a random order, the same for the same data and seed, into other files.

    ``paths`` are read and ``path`` is written, both in ``format`` (``jsonl`` or ``parquet``). ``partitions``, ``memory``
    and ``target_size`` are those of `ShuffleWriter`, `ShuffleReader` and the writers.
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
        list(self.steps("work"))  # each stage checks what it is given

    def steps(self, work_dir: str) -> Iterator[Pipeline]:
        between = storage.join(work_dir, "partitions")
        out: dict[str, Any] = {"path": self.path, "target_size": self.target_size}
        if self.compression is not None:
            out["compression"] = self.compression
        reader = JsonlReader(paths=self.paths) if self.format == "jsonl" else ParquetReader(paths=self.paths)
        writer = JsonlWriter(**out) if self.format == "jsonl" else ParquetWriter(**out)
        scatter = ShuffleWriter(path=between, key_column=self.key_column, seed=self.seed, partitions=self.partitions)
        yield Pipeline([reader, scatter], name="scatter")
        yield Pipeline([ShuffleReader(path=between, memory=self.memory), writer], name="gather")


def _first(partition: int, partitions: int) -> int:
    """The lowest hash of a partition: the range of hashes is cut into equal parts."""
    return -(-partition * _END // partitions)


def _place(keys: np.ndarray[Any, Any], edge: int) -> int:
    return len(keys) if edge >= _END else int(np.searchsorted(keys, np.uint64(edge)))


def _layout(schema: pa.Schema) -> dict[str, list[int]]:
    layout: dict[str, list[int]] = json.loads(schema.metadata[_LAYOUT])
    return layout


def _keeps(path: str, name: str, kind: pa.DataType) -> bool:
    """Whether a column of a file keeps its values in a type."""
    with storage.open_input(path) as stream, pa.ipc.open_file(stream) as file:
        return all(keeps_values(file.get_batch(number).column(name), kind) for number in range(file.num_record_batches))


def _plain(schema: pa.Schema) -> pa.Schema:
    """The schema as it was before the shuffle."""
    metadata = {key: value for key, value in (schema.metadata or {}).items() if key != _LAYOUT}
    return schema.remove(schema.get_field_index(_HASH)).with_metadata(metadata or None)
