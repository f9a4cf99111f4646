"""How are rows sorted by the values of columns when they do not fit in memory?

`SampleKeys` draws rows at random, and their keys cut the order into slots of about the same number of rows;
`SortWriter` shuffles all rows by slot, and `SortRead` sorts one slot after the other. A key is a row's values as bytes
that compare as the values do, so columns of any types make one key, and a slot with a single key needs no sorting.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.by_key import batches_of
from curator_core.across.selection import read_table, write_table
from curator_core.across.shuffle import (
    Span,
    check_partitions,
    finish_partitioned,
    partition_spans,
    read_manifest,
    write_partitioned,
)
from curator_core.arrow.arrays import array, to_numpy
from curator_core.arrow.kinds import one_schema
from curator_core.arrow.row_hash import column_of
from curator_core.arrow.widening import fitted, keeps_values
from curator_core.errors import UsageError
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.stage import ANY_COLUMNS, FanOut, ProcessingStage
from curator_core.model.task import DocumentBatch, FileGroupTask, FileRecord
from curator_core.stages.files import parse_bytes

KEY, SLOT = "__sort_key__", "__sort_slot__"
CUTS, TYPES = "_cuts.arrow", "_types.arrow"
# The number of rows drawn from a batch, and from all batches. A slot holds about a ten-thousandth of the rows.
_OF_A_BATCH, _OF_ALL = 1 << 10, 1 << 14
_SIGN = np.uint64(1 << 63)
_MISSING = np.uint64((1 << 64) - 1)
# Null comes last in either direction.
_THERE, _NULL = b"\x00", b"\x01"
_INVERTED = bytes(255 - byte for byte in range(256))


# Keys ----------------------------------------------------------------------------------------------------------------


def sort_keys(table: pa.Table, columns: Sequence[str], descending: Sequence[str], kinds: pa.Schema) -> list[bytes]:
    """For each row, bytes that sort as its values of ``columns`` do, in the types of ``kinds``."""
    parts = [_part(column_of(table, name), kinds.field(name).type, name, name in descending) for name in columns]
    return parts[0] if len(parts) == 1 else [b"".join(row) for row in zip(*parts, strict=True)]


def _part(values: pa.ChunkedArray, kind: pa.DataType, name: str, descending: bool) -> list[bytes]:
    if pa.types.is_null(kind):
        return [_NULL] * len(values)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    missing = to_numpy(values.is_null())
    encoded = _encoded(values.cast(kind), kind, name)
    if descending:
        encoded = [item.translate(_INVERTED) for item in encoded]
    return [_NULL if gone else _THERE + item for gone, item in zip(missing.tolist(), encoded, strict=True)]


def _encoded(values: pa.ChunkedArray, kind: pa.DataType, name: str) -> list[bytes]:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return [_ended((text or "").encode()) for text in values.to_pylist()]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return [_ended(item or b"") for item in values.to_pylist()]
    if pa.types.is_boolean(kind):
        values = values.cast(pa.int64())
    elif pa.types.is_floating(kind):
        real = to_numpy(pc.fill_null(values.cast(pa.float64()), array([0.0], pa.float64())[0])) + 0.0
        bits = real.view(np.uint64)
        # NaN comes after all numbers, whatever its bits.
        return _eights(np.where(np.isnan(real), _MISSING, np.where(bits & _SIGN, ~bits, bits | _SIGN)))
    elif pa.types.is_uint64(kind):
        return _eights(to_numpy(pc.fill_null(values, array([0], pa.uint64())[0])))
    elif pa.types.is_temporal(kind):
        values = values.cast(pa.int32() if kind.bit_width == 32 else pa.int64()).cast(pa.int64())
    elif not pa.types.is_integer(kind):
        raise UsageError(
            f"Sort.columns names {name!r}, which holds {kind}: sort by text, numbers, truth values or times"
        )
    whole = to_numpy(pc.fill_null(values.cast(pa.int64()), array([0], pa.int64())[0]))
    return _eights(whole.view(np.uint64) ^ _SIGN)


def _ended(item: bytes) -> bytes:
    # A text comes before a longer one that begins with it, even if another column follows.
    return item.replace(b"\x00", b"\x00\xff") + b"\x00\x00"


def _eights(numbers: NDArray[np.uint64]) -> list[bytes]:
    data = numbers.astype(">u8").tobytes()
    return [data[at : at + 8] for at in range(0, len(data), 8)]


# The three stages ----------------------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class SortParameters:
    """The columns to sort by: a later one decides between rows that are equal in those before it. The columns in
    ``descending`` are sorted from high to low.
    """

    columns: Sequence[str]
    descending: Sequence[str] = ()


@dataclass(kw_only=True)
class SampleKeys(SortParameters, ProcessingStage[DocumentBatch, FileGroupTask]):
    """Writes the values of some rows of each batch, drawn at random; at the end it writes the cuts of the order and one
    type for each column of all files.
    """

    path: str

    def inputs(self) -> list[str]:
        return list(self.columns)

    def output_folder(self) -> str:
        return self.path

    def repacks(self) -> bool:
        return False

    def process(self, task: DocumentBatch) -> FileGroupTask:
        table = task.to_pyarrow()
        for name in (KEY, SLOT):
            if name in table.column_names:
                raise UsageError(f"a column is called {name!r}, a name that Sort needs: rename it")
        table = pa.table({name: column_of(table, name) for name in self.columns})
        # The draw depends on the batch's id and the row, so a repeated task draws the same rows.
        seed = int.from_bytes(hashlib.blake2b(task.task_id.encode(), digest_size=8).digest(), "big")
        drawn = np.random.Generator(np.random.PCG64(seed)).random(table.num_rows)
        rows = np.sort(np.argsort(drawn, kind="stable")[:_OF_A_BATCH])
        made = table.take(array(rows)).append_column(SLOT, array(drawn[rows]))
        path = storage.join(self.path, f"{task.task_id or 'batch'}.arrow")
        record = write_table(path, made)
        self.record_output(record)
        return FileGroupTask(data=[path], records=[record], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        schemas: dict[bytes, list[str]] = {}
        for record in outputs:
            with storage.open_input(record.path) as stream, pa.ipc.open_file(stream) as file:
                plain = pa.schema([field for field in file.schema if field.name != SLOT])
                schemas.setdefault(plain.serialize().to_pybytes(), []).append(record.path)
        found = [pa.ipc.read_schema(pa.py_buffer(schema)) for schema in schemas]
        paths = list(schemas.values())

        def fits(number: int, name: str, kind: pa.DataType) -> bool:
            return all(keeps_values(read_table(path)[name], kind) for path in paths[number])

        kinds = one_schema(found, fits) if found else pa.schema([(name, pa.null()) for name in self.columns])
        for field in kinds:
            if isinstance(field.type, pa.BaseExtensionType):
                seen = sorted({str(schema.field(field.name).type) for schema in found})
                raise UsageError(
                    f"Sort.columns names {field.name!r}, which holds {' and '.join(seen)}: give it one type before (Cast)"
                )
        write_table(storage.join(self.path, TYPES), kinds.empty_table())
        # Each row has a random number, so the rows with the smallest ones are a random choice of all rows.
        lowest: list[tuple[float, bytes]] = []
        for record in outputs:
            table = read_table(record.path)
            keys = sort_keys(table, self.columns, self.descending, kinds)
            pairs = zip(to_numpy(table[SLOT]).tolist(), keys, strict=True)
            lowest = heapq.nsmallest(_OF_ALL, itertools.chain(lowest, pairs))
        cuts = sorted({key for _, key in lowest})
        write_table(storage.join(self.path, CUTS), pa.table({"key": pa.array(cuts, pa.large_binary())}))


@dataclass(kw_only=True)
class SortWriter(SortParameters, ProcessingStage[DocumentBatch, FileGroupTask]):
    """Writes each batch sorted by slot: 2·i for the keys between two cuts, 2·i + 1 for the key that is a cut."""

    path: str
    sample: str
    partitions: int = 64

    def __post_init__(self) -> None:
        check_partitions("Sort.partitions", self.partitions)

    def inputs(self) -> list[str]:
        return list(self.columns)

    def output_folder(self) -> str:
        return self.path

    def repacks(self) -> bool:
        return False

    def setup(self, worker: WorkerMetadata) -> None:
        self._kinds = read_table(storage.join(self.sample, TYPES)).schema
        self._cuts: list[bytes] = read_table(storage.join(self.sample, CUTS))["key"].to_pylist()

    def process(self, task: DocumentBatch) -> FileGroupTask:
        table = task.to_pyarrow()
        try:
            keys = sort_keys(table, self.columns, self.descending, self._kinds)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            kinds = ", ".join(f"{field.name}: {field.type}" for field in self._kinds)
            raise UsageError(
                f"values of {list(self.columns)!r} have another type than the sampled ones ({kinds}): {error}. Give "
                "each "
                "column one type before (Cast)"
            ) from error
        cuts = self._cuts
        at = [bisect_left(cuts, key) for key in keys]
        slots = [2 * i + (i < len(cuts) and cuts[i] == key) for i, key in zip(at, keys, strict=True)]
        places = np.array(slots, np.uint64) * slot_width(len(cuts))
        table = table.append_column(KEY, pa.array(keys, pa.large_binary()))
        path = storage.join(self.path, f"{task.task_id or 'batch'}.arrow")
        record = write_partitioned(path, table, places, self.partitions, column=SLOT)
        self.record_output(record)
        return FileGroupTask(data=[path], records=[record], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        finish_partitioned(self.path, outputs, partitions=self.partitions)


def slot_width(cuts: int) -> np.uint64:
    """The distance between the places of two neighbouring slots."""
    return np.uint64((1 << 64) // (2 * cuts + 2))


@dataclass(kw_only=True)
class SortRead(FanOut[FileGroupTask, DocumentBatch]):
    """Reads one partition in order; it follows `Partitions` of the folder that `SortWriter` wrote.

    It holds about three times ``memory`` bytes.
    """

    memory: int | str = "128MiB"
    batch_bytes: int | str = "8MiB"

    def __post_init__(self) -> None:
        self._memory = parse_bytes(self.memory, "Sort.memory")
        self._batch_bytes = parse_bytes(self.batch_bytes, "Sort.batch_bytes")

    def outputs(self) -> list[str]:
        return [ANY_COLUMNS]

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        schema, rows = read_manifest(task.data[0]).schema, 0
        for table in self._sorted(task):
            for piece in batches_of(table.drop_columns([KEY, SLOT]), self._batch_bytes):
                rows += piece.num_rows
                self.record_read(piece.num_rows)
                yield DocumentBatch(data=piece, dataset_name=task.dataset_name)
        if not rows:
            empty = schema.empty_table()
            yield DocumentBatch(data=empty.drop_columns([KEY]) if KEY in schema.names else empty)

    def _sorted(self, task: FileGroupTask) -> Iterator[pa.Table]:
        for span in partition_spans(task, self._memory, fit=self.fit):
            if span.tables is None:
                yield from _large(span, self._memory)
            else:
                yield _in_order(pa.concat_tables(span.tables))
                span.tables.clear()

    def fit(self, table: pa.Table, schema: pa.Schema) -> pa.Table:
        """A table of one file with the columns and types of all files."""
        return fitted(table, schema)


def _in_order(table: pa.Table) -> pa.Table:
    """The rows sorted by key; rows with equal keys keep their order."""
    table = table.unify_dictionaries().combine_chunks()
    order = pc.array_sort_indices(table[KEY])
    return table.take(order).combine_chunks()


def _large(span: Span, memory: int) -> Iterator[pa.Table]:
    """Read a slot that does not fit in ``memory``: its keys are held, and its rows are read again for each part of the
    keys.
    """
    sizes: dict[bytes, int] = {}
    for _, table in span.read():
        each = table.nbytes // max(1, table.num_rows) + 1
        for key in table[KEY].to_pylist():
            sizes[key] = sizes.get(key, 0) + each
    for first, last in _parts(sizes, memory):
        tables = (_between(table, first, last) for _, table in span.read())
        if first == last:  # rows with the same key arrive in order
            yield from (table for table in tables if table.num_rows)
        else:
            yield _in_order(pa.concat_tables(tables))


def _parts(sizes: dict[bytes, int], memory: int) -> Iterator[tuple[bytes, bytes]]:
    """The first and the last key of each part: as many consecutive keys as fit in memory, or one."""
    part: list[bytes] = []
    held = 0
    for key in sorted(sizes):
        if part and held + sizes[key] > memory:
            yield part[0], part[-1]
            part, held = [], 0
        part.append(key)
        held += sizes[key]
    if part:
        yield part[0], part[-1]


def _between(table: pa.Table, first: bytes, last: bytes) -> pa.Table:
    low, high = (pa.array([key], pa.large_binary())[0] for key in (first, last))
    return table.filter(pc.and_(pc.greater_equal(table[KEY], low), pc.less_equal(table[KEY], high)))
