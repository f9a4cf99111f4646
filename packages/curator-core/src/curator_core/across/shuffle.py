"""How do rows get to partitions, so that one task gets all rows that belong together, even if the data do not fit in
memory?

Each row has a *place*, 64 bits that give its position in an order. The places are cut into equal ranges, the
partitions. `write_partitioned` writes the rows of one batch to a file, sorted by place; `finish_partitioned` writes the
manifest of all files; `Partitions` makes a task of each partition that has rows; `partition_pieces` and
`partition_sorted` read it. Rows are in the order of their places, and rows with the same place keep the order of the
input, so the result does not depend on the number of files, partitions or workers.

A file is Arrow IPC, uncompressed: rows by partition, in record batches of 64 KiB or more (if the file is large enough)
that end where a partition ends. So reading a partition from a file takes one read of its footer and one of the
partition. A file may also hold the content of several files, one after the other within each partition; then each
record batch says how many rows came from which file.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core import storage
from curator_core.arrow.arrays import array, to_numpy
from curator_core.arrow.json_column import JSON
from curator_core.arrow.kinds import one_schema
from curator_core.arrow.widening import fitted, keeps_values
from curator_core.errors import CuratorError, UsageError, check_whole
from curator_core.formatting import count
from curator_core.model.lineage import source_id
from curator_core.model.stage import SourceStage
from curator_core.model.task import EmptyTask, FileGroupTask, FileRecord

MANIFEST = "_shuffle.json"
PLACE = "place"
MOST_PARTITIONS = 1 << 16

_LAYOUT = b"curator.shuffle"
_RUNS = b"curator.runs"
_END = 1 << 64
# A record batch costs some hundred bytes and some hundred microseconds, so smaller ones than this are not worthwhile.
_LEAST_BATCH_BYTES = 1 << 16
_MOST_BATCH_BYTES = 1 << 22
_MOST_OPEN = 256
_MOST_OPEN_BYTES = 1 << 31

# A function that returns a table with the columns and types of a schema.
type Fit = Callable[[pa.Table, pa.Schema], pa.Table]


# Writing -------------------------------------------------------------------------------------------------------------


def write_partitioned(
    path: str,
    table: pa.Table,
    places: NDArray[np.uint64],
    partitions: int,
    *,
    column: str = PLACE,
    notes: Mapping[str, int] | None = None,
    durable: bool = False,
    batch_bytes: int | None = None,
) -> FileRecord:
    """Write a table to one file with its rows in the order of their ``places``, which are stored in ``column``.

    Partition *p* of ``partitions`` holds the places in [p·2⁶⁴/partitions, (p+1)·2⁶⁴/partitions). If the table has a
    column of that name, it must hold these places. ``notes`` are numbers about the file, which `notes_of` returns.

    ``batch_bytes`` is the size of record batches for a file from which single rows are looked up; it should be large,
    since each batch is accessed separately.

    Without ``durable``, the function does not wait until the file is on disk. After a crash of the whole machine the
    file may be damaged; its reader detects that.
    """
    check_partitions("write_partitioned: partitions", partitions)
    if table.num_rows != len(places):
        raise UsageError(f"write_partitioned: {count(len(places), 'place')} for {count(table.num_rows, 'row')}")
    if column in table.column_names:
        if table.schema.field(column).type != pa.uint64() or not np.array_equal(to_numpy(table[column]), places):
            raise UsageError(
                f"a column is called {column!r}, the name that the shuffle needs for the places of rows: rename it before"
            )
        table = table.drop_columns([column])
    table = table.unify_dictionaries().combine_chunks()
    if (places[1:] < places[:-1]).any():
        order = sorted_order(places)
        places, table = places[order], table.take(array(order))
    table = table.append_column(column, array(places))
    edges = np.append(np.searchsorted(places, _starts(partitions)), len(places)).astype(np.int64)
    with storage.write_atomic(path, durable=durable) as out:
        _write(out, table, edges, column, notes or {}, batch_bytes=batch_bytes)
    return out.record(rows=table.num_rows)


def notes_of(record: FileRecord) -> dict[str, int]:
    """The ``notes`` that were passed to `write_partitioned` for a file."""
    file, _ = _open(record.path, record.bytes)
    with file:
        notes: dict[str, int] = json.loads(file.schema.metadata[_LAYOUT])["notes"]
    return notes


def sorted_order(values: NDArray[Any]) -> NDArray[np.int64]:
    """The result of ``np.argsort(values, kind="stable")``, several times as fast if few values are equal."""
    order = np.argsort(values)
    ranked = values[order]
    same = ranked[1:] == ranked[:-1]
    ties = int(np.count_nonzero(same))
    if not ties:
        return order
    if ties > len(values) // 4:
        return np.argsort(values, kind="stable")
    tied = np.zeros(len(values), np.bool_)
    tied[1:] = same
    tied[:-1] |= same
    at = np.flatnonzero(tied)
    rows = order[at]
    order[at] = rows[np.lexsort((rows, ranked[at]))]
    return order


def check_partitions(what: str, partitions: int) -> None:
    """Raise `UsageError` unless this is a valid number of partitions."""
    check_whole(what, partitions)
    if partitions > MOST_PARTITIONS:
        raise UsageError(f"{what} must be {MOST_PARTITIONS} at most, not {partitions!r}")


def first_place(partition: int, partitions: int) -> int:
    """The lowest place of a partition; 2⁶⁴ for the one after the last."""
    return -(-partition * _END // partitions)


@functools.lru_cache(maxsize=8)
def _starts(partitions: int) -> NDArray[np.uint64]:
    return np.array([first_place(number, partitions) for number in range(partitions)], np.uint64)


def _write(
    out: Any,
    table: pa.Table,
    edges: NDArray[np.int64],
    column: str,
    notes: Mapping[str, int],
    runs: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    batch_bytes: int | None = None,
) -> None:
    """Write rows; those of partition *p* are ``edges[p]`` to ``edges[p + 1]``.

    ``runs``, if the rows come from several files, gives the first row of each run from one file, and the number of that
    file.
    """
    row_bytes = max(1, table.nbytes // max(1, table.num_rows))
    least, most = batch_bytes or _LEAST_BATCH_BYTES, batch_bytes or _MOST_BATCH_BYTES
    cuts = _cuts(edges, max(1, least // row_bytes), max(1, most // row_bytes))
    parts = [table.slice(start, stop - start).to_batches() for start, stop in itertools.pairwise(cuts)]
    batches = [batch for part in parts for batch in part if batch.num_rows]
    starts = np.cumsum([0, *(batch.num_rows for batch in batches)])[:-1]
    layout = {
        "column": column,
        "partitions": len(edges) - 1,
        "bytes": table.nbytes,
        "notes": dict(notes),
        "edges": _packed(np.diff(edges)),
        "batches": _packed(np.diff(starts, append=len(table))),
    }
    schema = table.schema.with_metadata({**(table.schema.metadata or {}), _LAYOUT: json.dumps(layout).encode()})
    with pa.ipc.new_file(out, schema) as writer:
        for start, batch in zip(starts.tolist(), batches, strict=True):
            extra = None if runs is None else {_RUNS: _runs_in(runs, start, start + batch.num_rows)}
            writer.write_batch(batch.replace_schema_metadata(schema.metadata), custom_metadata=extra)


def _runs_in(runs: tuple[NDArray[np.int64], NDArray[np.int64]], start: int, stop: int) -> str:
    """The runs from row ``start`` to ``stop``: the numbers of their files, and their lengths."""
    begins, files = runs
    first, last = np.searchsorted(begins, start, "right") - 1, np.searchsorted(begins, stop)
    counts = np.diff(np.clip(begins[first:last], start, stop), append=stop)
    return _packed(np.concatenate([files[first:last], counts]))


def _cuts(edges: NDArray[np.int64], least: int, most: int) -> list[int]:
    """The rows at which record batches begin and end: at edges of partitions, at least ``least`` and at most ``most``
    rows apart.
    """
    rows = int(edges[-1])
    wanted = edges[np.searchsorted(edges, np.arange(least, rows, least))]
    cuts = np.unique(np.concatenate([[0], wanted, [rows]])).tolist()
    fine = [at for start, stop in itertools.pairwise(cuts) for at in range(start, stop, most)]
    return [*fine, rows] if rows else [0, 0]


def _packed(numbers: NDArray[np.int64]) -> str:
    return base64.b64encode(zlib.compress(numbers.astype("<u4").tobytes(), 1)).decode()


def _unpacked(text: str) -> NDArray[np.int64]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u4").astype(np.int64)


# The manifest --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ShuffleFile:
    """A file of a shuffle. It holds the rows of ``count`` files that stages wrote, beginning with the file of number
    ``first``.
    """

    path: str
    rows: int
    bytes: int
    sha256: str
    first: int
    count: int


@dataclass(frozen=True)
class Manifest:
    """The content of a folder of partitioned rows.

    ``schema`` is the schema of the rows without ``column``, which holds their places. ``rows`` and ``bytes`` are given
    for each partition; the bytes are estimated from the partition's share of the rows of each file. ``names`` are the
    names of the files that stages wrote, in lineage order; `partition_pieces` numbers pieces by their place among them.
    """

    folder: str
    partitions: int
    column: str
    schema: pa.Schema
    rows: NDArray[np.int64]
    bytes: NDArray[np.int64]
    files: list[ShuffleFile]
    names: list[str]
    facts: dict[str, Any]
    keeps_open: bool = True
    # Files that stay open from one partition to the next, by number. Only few and small files do, because a mapped file
    # occupies disk even after it is removed.
    _open: dict[int, tuple[Any, _Layout]] = field(default_factory=dict, repr=False, compare=False)

    @functools.cached_property
    def _stays_open(self) -> bool:
        small = len(self.files) <= _MOST_OPEN and sum(file.bytes for file in self.files) <= _MOST_OPEN_BYTES
        return self.keeps_open and small and storage.is_local(self.folder)

    @contextlib.contextmanager
    def opened(self, number: int) -> Iterator[tuple[Any, _Layout]]:
        """The reader of a file, and the layout of its partitions."""
        if number in self._open:
            yield self._open[number]
            return
        file = self.files[number]
        if self._stays_open:
            self._open[number] = found = _open(file.path, file.bytes)
            yield found
            return
        source, layout = _open(file.path, file.bytes)
        with source:
            yield source, layout

    @property
    def schema_with_places(self) -> pa.Schema:
        return self.schema.append(pa.field(self.column, pa.uint64()))


def finish_partitioned(
    folder: str,
    records: Sequence[FileRecord],
    *,
    partitions: int | None = None,
    json_allowed: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write the manifest of the files that `write_partitioned` left in ``folder``; ``records`` are in lineage order.

    A stage's `finish` calls it. ``partitions`` is used only if there are no files. ``facts`` are stored in the manifest
    for the reader. If a column has different types in the files, the manifest gets a type that holds all of its values.
    If only JSON does, that is an error unless ``json_allowed`` is set; the reader must then say how to write values as
    JSON.
    """
    schemas: dict[bytes, list[FileRecord]] = {}  # equal schemas may still differ in their metadata
    layouts: list[_Layout] = []
    for record in records:
        file, layout = _open(record.path, record.bytes)
        with file:
            plain = _plain(file.schema, layout.column).serialize().to_pybytes()
        schemas.setdefault(plain, []).append(record)
        if layouts and (layout.partitions, layout.column) != (layouts[0].partitions, layouts[0].column):
            raise CuratorError(
                f"{records[0].path!r} has {layouts[0].partitions} partitions and {record.path!r} has {layout.partitions}: "
                "files of one shuffle must have the same number: write all of them again (fresh=True, --fresh)"
            )
        layouts.append(layout)
    count = layouts[0].partitions if layouts else partitions or 1
    rows, size = np.zeros(count, np.int64), np.zeros(count, np.float64)
    for layout in layouts:
        each = np.diff(layout.edges)
        rows += each
        size += each * (layout.bytes / max(1, layout.rows))
    names = [storage.relative(record.path, folder) for record in records]
    files = [
        ShuffleFile(name, record.rows, record.bytes, record.sha256, number, 1)
        for number, (name, record) in enumerate(zip(names, records, strict=True))
    ]
    schema = _schema_of_all(schemas, json_allowed)
    column = layouts[0].column if layouts else PLACE
    _write_manifest(
        Manifest(folder, count, column, schema, rows, np.ceil(size).astype(np.int64), files, names, dict(facts or {}))
    )


def _write_manifest(manifest: Manifest) -> None:
    content = {
        "partitions": manifest.partitions,
        "column": manifest.column,
        "facts": manifest.facts,
        "schema": base64.b64encode(manifest.schema.serialize().to_pybytes()).decode(),
        "rows": manifest.rows.tolist(),
        "bytes": manifest.bytes.tolist(),
        "files": [[f.path, f.rows, f.bytes, f.sha256, f.first, f.count] for f in manifest.files],
        "names": manifest.names,
    }
    storage.write_bytes_atomic(storage.join(manifest.folder, MANIFEST), json.dumps(content).encode())


def read_manifest(path: str) -> Manifest:
    """The manifest of a folder. The argument is the folder or, as in tasks, the path of the manifest."""
    if storage.file_name(path) != MANIFEST:
        path = storage.join(path, MANIFEST)
    return _manifest_of(path, storage.fingerprint(path))


@functools.lru_cache(maxsize=1)  # a worker reads one partition after the other
def _manifest_of(path: str, _: str) -> Manifest:
    content = json.loads(storage.read_bytes(path))
    folder = storage.parent(path)
    return Manifest(
        folder=folder,
        partitions=content["partitions"],
        column=content["column"],
        schema=pa.ipc.read_schema(pa.py_buffer(base64.b64decode(content["schema"]))),
        rows=np.array(content["rows"], np.int64),
        bytes=np.array(content["bytes"], np.int64),
        files=[ShuffleFile(storage.join(folder, name), *rest) for name, *rest in content["files"]],
        names=content["names"],
        facts=content["facts"],
    )


def _schema_of_all(schemas: Mapping[bytes, Sequence[FileRecord]], json_allowed: bool) -> pa.Schema:
    if not schemas:
        return pa.schema([])
    kinds = [pa.ipc.read_schema(pa.py_buffer(schema)) for schema in schemas]
    records = list(schemas.values())

    def fits(number: int, name: str, kind: pa.DataType) -> bool:
        return all(_keeps(record, name, kind) for record in records[number])

    schema = one_schema(kinds, fits)
    for part in schema:
        if part.type == JSON and not json_allowed:
            found = {
                kind.field(part.name).type: records[at][0].path
                for at, kind in enumerate(kinds)
                if part.name in kind.names
            }
            if JSON not in found:
                where = " and ".join(f"{kind} in {path!r}" for kind, path in itertools.islice(found.items(), 2))
                raise UsageError(
                    f"column {part.name!r} is {where}, and no single type holds the values of both: give both one "
                    "type in a "
                    "stage before (Cast), or leave the column out"
                )
    return schema


def _keeps(record: FileRecord, name: str, kind: pa.DataType) -> bool:
    """Whether the values of a file's column are unchanged in another type."""
    file, _ = _open(record.path, record.bytes)
    with file:
        return all(keeps_values(file.get_batch(number).column(name), kind) for number in range(file.num_record_batches))


# Fewer files ---------------------------------------------------------------------------------------------------------


def write_together(path: str, manifest: Manifest, files: Sequence[ShuffleFile], *, fit: Fit = fitted) -> FileRecord:
    """Write the content of several consecutive files of a shuffle to one file. Rows keep their order.

    All of it is in memory at once.
    """
    schema = manifest.schema_with_places
    tables: list[pa.Table] = []
    partitions: list[NDArray[np.uint16]] = []
    numbers: list[NDArray[np.int64]] = []
    each = np.arange(manifest.partitions, dtype=np.uint16)
    for file in files:
        layout = _read_file(file, schema, fit, tables, numbers)
        partitions.append(np.repeat(each, np.diff(layout.edges)))
    table = pa.concat_tables([schema.empty_table(), *tables]).unify_dictionaries().combine_chunks()
    where = np.concatenate(partitions)
    order = np.argsort(where, kind="stable")  # a radix sort, since values have 16 bits
    which = np.concatenate([np.zeros(0, np.int64), *numbers])[order] - files[0].first
    rows = table.take(array(order))
    return _write_lot(path, rows, where, which, files, manifest.partitions, manifest.column, durable=False)


def _read_file(
    file: ShuffleFile, schema: pa.Schema, fit: Fit, tables: list[pa.Table], numbers: list[NDArray[np.int64]]
) -> _Layout:
    """Append the content of a file, and for each row the number of its original file."""
    source, layout = _open(file.path, file.bytes)
    with source:
        for at in range(source.num_record_batches):
            found, batch = _numbered(file, source, at)
            tables.append(fit(_unmarked(batch), schema))
            numbers.append(found)
    return layout


def _write_lot(
    path: str,
    table: pa.Table,
    where: NDArray[np.uint16],
    which: NDArray[np.int64],
    files: Sequence[ShuffleFile],
    partitions: int,
    column: str,
    *,
    durable: bool,
) -> FileRecord:
    """Write rows that are in the order of partitions and files. ``where`` holds their partitions in any order;
    ``which`` gives for each row the number of its original file, counted from the first of ``files``.
    """
    notes = {"first": files[0].first, "count": sum(file.count for file in files)}
    edges = np.append(0, np.cumsum(np.bincount(where, minlength=partitions))).astype(np.int64)
    begins = np.flatnonzero(np.append(True, which[1:] != which[:-1])) if len(which) else np.zeros(0, np.int64)
    with storage.write_atomic(path, durable=durable) as out:
        _write(out, table.combine_chunks(), edges, column, notes, (begins, which[begins]))
    return out.record(rows=table.num_rows)


@dataclass(frozen=True)
class Joined:
    """Several shuffles as one: their files one after the other, with the largest number of partitions that one of them
    has.
    """

    manifests: Sequence[Manifest]

    @functools.cached_property
    def partitions(self) -> int:
        return max(manifest.partitions for manifest in self.manifests)

    @functools.cached_property
    def files(self) -> list[ShuffleFile]:
        """The files of all shuffles, with their numbers in the joined one."""
        before = itertools.accumulate((len(manifest.names) for manifest in self.manifests), initial=0)
        return [
            replace(file, first=start + file.first)
            for start, manifest in zip(before, self.manifests, strict=False)
            for file in manifest.files
        ]

    @functools.cached_property
    def schema(self) -> pa.Schema:
        schemas: dict[bytes, list[FileRecord]] = {}
        for manifest in self.manifests:
            records = [FileRecord(file.path, file.rows, file.bytes, file.sha256) for file in manifest.files]
            schemas.setdefault(manifest.schema.serialize().to_pybytes(), []).extend(records)
        return _schema_of_all(schemas, json_allowed=False)

    def write(self, path: str, files: Sequence[ShuffleFile]) -> FileRecord:
        """Write the content of some consecutive files to one file, which is on disk when this returns. All of the
        content is in memory at once.
        """
        column = self.manifests[0].column
        schema = self.schema.append(pa.field(column, pa.uint64()))
        tables: list[pa.Table] = [schema.empty_table()]
        numbers = [np.zeros(0, np.int64)]
        for file in files:
            _read_file(file, schema, fitted, tables, numbers)
        table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
        which = np.concatenate(numbers) - files[0].first
        # Files may have other numbers of partitions, so all rows are sorted again.
        where = (np.searchsorted(_starts(self.partitions), to_numpy(table[column]), "right") - 1).astype(np.uint16)
        order = np.lexsort((to_numpy(table[column]), which, where))
        rows = table.take(array(order))
        return _write_lot(path, rows, where, which[order], files, self.partitions, column, durable=True)

    def finish(self, folder: str, records: Sequence[FileRecord]) -> None:
        """Write the manifest of the files that `write` has left in ``folder``."""
        names = [f"{number}/{name}" for number, manifest in enumerate(self.manifests) for name in manifest.names]
        rows, size = np.zeros(self.partitions, np.int64), np.zeros(self.partitions, np.float64)
        for record in records:
            file, layout = _open(record.path, record.bytes)
            with file:
                each = np.diff(layout.edges)
            rows += each
            size += each * (layout.bytes / max(1, layout.rows))
        bytes_ = np.ceil(size).astype(np.int64)
        parts = (folder, self.partitions, self.manifests[0].column, self.schema, rows, bytes_)
        before = Manifest(*parts, [], names, {})
        if sum(record.rows for record in records) != sum(int(manifest.rows.sum()) for manifest in self.manifests):
            raise CuratorError(f"{folder!r} does not hold all rows that were read: write it again")
        finish_together(folder, before, records)


def finish_together(folder: str, before: Manifest, records: Sequence[FileRecord]) -> None:
    """Write the manifest of the files that `write_together` made from all files of another folder."""
    files = []
    for record in records:
        notes = notes_of(record)
        name = storage.relative(record.path, folder)
        files.append(ShuffleFile(name, record.rows, record.bytes, record.sha256, notes["first"], notes["count"]))
    files.sort(key=lambda file: file.first)
    behind = 0
    for file in files:
        if file.first != behind:
            raise CuratorError(f"{folder!r} lacks the files from number {behind} on: write it again")
        behind += file.count
    if behind != len(before.names) or sum(file.rows for file in files) != int(before.rows.sum()):
        raise CuratorError(f"{folder!r} does not hold all rows of {before.folder!r}: write it again")
    _write_manifest(replace(before, folder=folder, files=files, _open={}))


# Reading -------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Partitions(SourceStage[FileGroupTask]):
    """Lists the partitions of a shuffle that have rows. Each is a source, with its number in
    ``_metadata["partition"]``.

    With ``empty_too``, a shuffle without any rows yields its first partition, so that a reader can still report the
    columns.
    """

    path: str
    empty_too: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path:
            raise UsageError(f"{type(self).__name__}.path must be the folder of a shuffle, not {self.path!r}")

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        place = require_complete(self.path)
        manifest = read_manifest(place)
        generation = hashlib.sha256(storage.read_bytes(place)).hexdigest()[:16]
        numbers: list[int] = np.flatnonzero(manifest.rows).tolist()
        if not numbers and self.empty_too and manifest.files:
            numbers = [0]
        for number in numbers:
            yield FileGroupTask(
                data=[place],
                task_id=source_id(f"part-{number:05d}", [str(manifest.partitions), str(number)]),
                dataset_name=task.dataset_name,
                _generation=generation,
                _metadata={"partition": number},
            )


def require_complete(folder: str) -> str:
    """The path of a folder's manifest; raise if the run that writes the shuffle has not finished."""
    place = storage.join(folder, MANIFEST)
    # A stage that writes several shuffles has one success file in the folder above them.
    marks = (storage.join(above, "_SUCCESS") for above in (folder, storage.parent(folder)))
    if not storage.exists(place) or not any(map(storage.exists, marks)):
        raise UsageError(f"{folder!r} holds no complete shuffle: run the pipeline that writes it to its end first")
    return place


def partition_pieces(task: FileGroupTask, *, fit: Fit = fitted) -> Iterator[tuple[int, pa.Table]]:
    """The rows of a partition, file by file: the number of each file in the manifest, and its rows in order of place.

    The places are in the manifest's ``column``. A table keeps only the memory of its own part of the file.
    """
    held: list[pa.Table] = []
    current = -1
    for numbers, table in partition_tables(task, fit=fit):
        cuts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        for start, stop in itertools.pairwise(cuts):
            number = int(numbers[start])
            if held and number != current:
                yield current, pa.concat_tables(held)
                held = []
            current = number
            held.append(table.slice(start, stop - start))
    if held:
        yield current, pa.concat_tables(held)


def partition_tables(
    task: FileGroupTask, *, low: int = 0, high: int = _END, fit: Fit = fitted
) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
    """The rows of a partition with a place in [low, high), a few MiB at a time, and for each row the number of its
    file.

    The numbers never decrease, and rows with the same number are in the order of their places.
    """
    (place,) = task.data
    yield from _tables(read_manifest(place), task._metadata["partition"], low, high, fit)


def range_tables(
    manifest: Manifest, first: int, stop: int, *, fit: Fit = fitted
) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
    """The rows of the partitions ``first`` to ``stop`` - 1 together, as `partition_tables` yields those of one. If the
    partitions are small, this takes much less time than reading each.
    """
    schema = manifest.schema_with_places
    for at in range(len(manifest.files)):
        for numbers, batch in _batches(manifest, at, first, stop):
            yield numbers, fit(_unmarked(batch), schema)


def rows_between(
    manifest: Manifest, low: int, high: int, *, fit: Fit = fitted
) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
    """The rows of all partitions with a place in [low, high), as `partition_tables` yields them, by partition."""
    count = manifest.partitions
    for partition in range(low * count // _END, (high - 1) * count // _END + 1):
        if manifest.rows[partition]:
            yield from _tables(manifest, partition, low, high, fit)


def _tables(
    manifest: Manifest, partition: int, low: int, high: int, fit: Fit
) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
    whole = low <= first_place(partition, manifest.partitions) and high >= first_place(
        partition + 1, manifest.partitions
    )
    schema = manifest.schema_with_places
    for at in range(len(manifest.files)):
        for numbers, batch in _batches(manifest, at, partition, partition + 1):
            if whole:
                yield numbers, fit(_unmarked(batch), schema)
                continue
            places = to_numpy(batch.column(manifest.column))
            within = np.flatnonzero((places >= np.uint64(low)) & (places <= np.uint64(high - 1)))
            if len(within):
                yield numbers[within], fit(_unmarked(batch.take(array(within))), schema)


def rows_in_files(task: FileGroupTask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each row of a partition, in the order of `partition_tables`, the index of its file in the manifest's
    ``files``, and its row there.
    """
    manifest = read_manifest(task.data[0])
    partition: int = task._metadata["partition"]
    bounds = np.zeros((len(manifest.files), 2), np.int64)
    for number in range(len(bounds)):
        with manifest.opened(number) as (_, layout):
            bounds[number] = layout.edges[partition : partition + 2]
    files = np.repeat(np.arange(len(bounds)), bounds[:, 1] - bounds[:, 0])
    rows = np.concatenate([np.arange(low, high) for low, high in bounds.tolist()] or [np.zeros(0, np.int64)])
    return files, rows


def batches_in_file(manifest: Manifest, number: int) -> tuple[NDArray[np.int64], list[pa.RecordBatch]]:
    """All record batches of a file of a shuffle, and the number of the first row of each. A local file is mapped, so
    only the parts that are accessed are read.
    """
    file = manifest.files[number]
    source, layout = _open(file.path, file.bytes)
    with _damage(file.path):
        return layout.starts, [source.get_batch(at) for at in range(source.num_record_batches)]


def partition_sorted(task: FileGroupTask, memory: int, *, fit: Fit = fitted) -> Iterator[pa.Table]:
    """The rows of a partition in the order of place, file, and row in the file, in tables of up to about ``memory``
    bytes.

    It holds about three times ``memory``. Rows with the same place are in one table, unless they take more than
    ``memory``.
    """
    column = read_manifest(task.data[0]).column
    for span in partition_spans(task, memory, fit=fit):
        if span.tables is None:  # rows with the same place arrive in order
            yield from (table for _, table in span.read())
            continue
        table = pa.concat_tables(span.tables).unify_dictionaries().combine_chunks()
        span.tables.clear()
        # The pieces are sorted, and this kind of sort merges sorted runs.
        order = np.argsort(to_numpy(table[column]), kind="stable")
        yield table.take(array(order)).combine_chunks()


@dataclass(frozen=True, slots=True)
class Span:
    """A range of places [low, high) of a partition. Its rows are included if they fit in memory, in the order of files.

    If the rows of a single place do not fit, ``tables`` is None, and `read` reads them again at each call.
    """

    task: FileGroupTask
    low: int
    high: int
    tables: list[pa.Table] | None
    fit: Fit

    def read(self) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
        """Read the rows from the files, as `partition_tables` yields them."""
        return partition_tables(self.task, low=self.low, high=self.high, fit=self.fit)


def partition_spans(task: FileGroupTask, memory: int, *, fit: Fit = fitted) -> Iterator[Span]:
    """A partition cut into ranges of places, in order. Each range holds up to about ``memory`` bytes, or is a single
    place.

    A larger range is halved and read again. Ranges without rows are left out.
    """
    manifest = read_manifest(task.data[0])
    partition: int = task._metadata["partition"]
    low, high = (first_place(number, manifest.partitions) for number in (partition, partition + 1))
    return _spans(task, low, high, memory, fit)


def _spans(task: FileGroupTask, low: int, high: int, memory: int, fit: Fit) -> Iterator[Span]:
    held: list[pa.Table] = []
    size = 0
    for _, table in partition_tables(task, low=low, high=high, fit=fit):
        held.append(table)
        size += table.nbytes
        if size > memory:
            break
    else:
        if held:
            yield Span(task, low, high, held, fit)
        return
    held.clear()
    if high - low == 1:
        yield Span(task, low, high, None, fit)
        return
    middle = (low + high) // 2
    yield from _spans(task, low, middle, memory, fit)
    yield from _spans(task, middle, high, memory, fit)


def _batches(
    manifest: Manifest, number: int, first_partition: int, stop_partition: int
) -> Iterator[tuple[NDArray[np.int64], pa.RecordBatch]]:
    """The rows of a range of partitions in one file, and for each row the number of its original file."""
    file = manifest.files[number]
    with manifest.opened(number) as (source, layout):
        low, high = layout.edges[[first_partition, stop_partition]].tolist()
        if low == high:
            return
        first, last = (np.searchsorted(layout.starts, [low, high - 1], "right") - 1).tolist()
        for at in range(first, last + 1):
            numbers, batch = _numbered(file, source, at)
            before = int(layout.starts[at])
            start, stop = max(0, low - before), min(batch.num_rows, high - before)
            if (start, stop) != (0, batch.num_rows):
                numbers = numbers[start:stop]
                # A slice keeps the whole batch alive, which takes memory of this process unless the file is mapped.
                if storage.is_local(file.path):
                    batch = batch.slice(start, stop - start)
                else:
                    batch = batch.take(array(np.arange(start, stop)))
            yield numbers, batch


def _numbered(file: ShuffleFile, source: Any, at: int) -> tuple[NDArray[np.int64], pa.RecordBatch]:
    """A record batch of a file, and for each of its rows the number of the original file."""
    with _damage(file.path):
        if file.count == 1:
            batch = source.get_batch(at)
            return np.full(batch.num_rows, file.first, np.int64), batch
        batch, extra = source.get_batch_with_custom_metadata(at)
        runs = _unpacked(extra[_RUNS].decode()).reshape(2, -1)
        return np.repeat(runs[0] + file.first, runs[1]), batch


# Files ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layout:
    """The rows at which the partitions of a file begin and end, and at which its record batches begin."""

    column: str
    partitions: int
    rows: int
    bytes: int
    edges: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, schema: pa.Schema) -> _Layout:
        found = json.loads(schema.metadata[_LAYOUT])
        edges = np.concatenate([[0], np.cumsum(_unpacked(found["edges"]))])
        starts = np.cumsum(np.append(0, _unpacked(found["batches"])))[:-1]
        return cls(found["column"], found["partitions"], int(edges[-1]), found["bytes"], edges, starts)


def _open(path: str, size: int) -> tuple[Any, _Layout]:
    """Open a file of a shuffle; if it is not the file that was written, an error names it."""
    source = storage.open_arrow(path)
    with _damage(path):
        found = source.size()
        if found != size:
            raise CuratorError(f"{path!r} has {found} bytes, and {size} were written: {_AGAIN}")
        file = pa.ipc.open_file(source)
    if _LAYOUT not in (file.schema.metadata or {}):
        raise CuratorError(f"{path!r} is not a file of a shuffle: {_AGAIN}")
    return file, _Layout.of(file.schema)


_AGAIN = (
    "the machine may have gone down while it was written; run the step that writes it again with fresh=True (--fresh)"
)


@contextlib.contextmanager
def _damage(path: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise CuratorError(f"{path!r} cannot be read ({error}): {_AGAIN}") from error


def _plain(schema: pa.Schema, column: str) -> pa.Schema:
    """The schema as it was before the shuffle."""
    metadata = {key: value for key, value in (schema.metadata or {}).items() if key != _LAYOUT}
    return schema.remove(schema.get_field_index(column)).with_metadata(metadata or None)


def _unmarked(batch: pa.RecordBatch) -> pa.Table:
    """A batch as a table, without the metadata that only the file needs."""
    metadata = {key: value for key, value in (batch.schema.metadata or {}).items() if key != _LAYOUT}
    return pa.Table.from_batches([batch]).replace_schema_metadata(metadata or None)
