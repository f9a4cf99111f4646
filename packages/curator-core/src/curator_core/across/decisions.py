"""The table of decisions: which documents are removed, which one stays for each of them, and why?

One row for each document that is removed and one for each *witness*, the document that stays and was compared with it.
A document without a row stays and is no witness. The columns:

| column | meaning |
|---|---|
| ``number`` | the document (see `curator_core.across.roll`); the table is sorted by it |
| ``source``, ``row`` | where the document is: the id of its source, and its row there |
| ``id`` | its id as text, if documents have ids |
| ``collection`` | the collection that it belongs to |
| ``decision`` | ``removed`` or ``kept`` |
| ``witness_number``, ``witness_source``, ``witness_row``, ``witness_id`` | the same for the document that stays in its
place; null in the row of a kept document, and for rules that need no witness |
| ``jaccard`` | the part of all their shingles that both documents have |
| ``containment`` | the part of its shingles that the witness has |
| ``new_words`` | the highest number of words in a window of 25 that the witness does not have |
| ``shared_bands`` | how many bands of the sketch they share |
| ``similarity`` | the cosine of both vectors, or another measure of similarity, at most 1 |
| ``rule`` | the rule that removes it: ``exact``, ``nothing_new``, ``containment``, ``jaccard``, ``fraction``, ``list``,
… |
| ``copy_of``, ``copy_of_id`` | for an exact copy whose representative was removed as well: the number and the id of the
representative. The figures are then those of the representative |
| ``cluster`` | the number of the witness that survives; the witness itself has it as well |
| ``cluster_size`` | the witness and the documents that were removed for it |
| ``component_size`` | the size of the connected component; nothing depends on it |

The table is a folder of Parquet files, each for a range of batches, with a manifest and the roll of the batches. A step
that reads the sources again needs only the part for its batch.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.roll import ROW_BITS, Roll
from curator_core.arrow.arrays import array, null, scalar, to_numpy
from curator_core.errors import RunRefused, UsageError
from curator_core.model.task import FileRecord

MANIFEST = "_decisions.json"
ROLL = "_roll.arrow"
REMOVED, KEPT = "removed", "kept"
SCHEMA = pa.schema(
    [
        pa.field("number", pa.uint64(), nullable=False),
        ("source", pa.string()),
        ("row", pa.int64()),
        ("id", pa.string()),
        ("collection", pa.string()),
        pa.field("decision", pa.string(), nullable=False),
        ("witness_number", pa.uint64()),
        ("witness_source", pa.string()),
        ("witness_row", pa.int64()),
        ("witness_id", pa.string()),
        ("jaccard", pa.float64()),
        ("containment", pa.float64()),
        ("new_words", pa.int32()),
        ("shared_bands", pa.int32()),
        ("similarity", pa.float64()),
        ("rule", pa.string()),
        ("copy_of", pa.uint64()),
        ("copy_of_id", pa.string()),
        ("cluster", pa.uint64()),
        ("cluster_size", pa.int64()),
        ("component_size", pa.int64()),
    ]
)
# A batch has some thousands of rows, so most of a larger row group would be read for nothing.
_GROUP_ROWS = 1 << 14
# The last row groups of the current part are kept: the next batch is usually in the same one.
_HELD_GROUPS = 4


def decisions_table(columns: Mapping[str, Any], roll: Roll | None = None) -> pa.Table:
    """A table of decisions with these columns, sorted by ``number``; missing columns are null.

    With a ``roll``, the source and the row of each document and witness are filled in from their numbers.
    """
    unknown = [name for name in columns if name not in SCHEMA.names]
    if unknown:
        raise ValueError(f"a table of decisions cannot have a column {unknown[0]!r}")
    given = {name: _column(name, values) for name, values in columns.items()}
    rows = len(given["number"])
    if roll is not None:
        for number, source, row in (("number", "source", "row"), ("witness_number", "witness_source", "witness_row")):
            if number in given and source not in given:
                given |= dict(zip((source, row), _places(given[number], roll), strict=True))
    made = [given[f.name] if f.name in given else pa.nulls(rows, f.type) for f in SCHEMA]
    return _sorted(pa.Table.from_arrays(made, schema=SCHEMA))


def write_decisions(folder: str, part: str, table: pa.Table) -> FileRecord:
    """Write the decisions about a range of batches into ``<part>.parquet``: ``part`` is the id of the task that made
    them.
    """
    return write_parts(folder, part, iter([_sorted(table.select(SCHEMA.names).cast(SCHEMA))]))


def write_parts(folder: str, part: str, tables: Iterator[pa.Table]) -> FileRecord:
    """Like `write_decisions`, for tables that come one after another, in order."""
    import pyarrow.parquet as pq  # deferred: the import takes 30 ms, and not every process writes decisions

    rows = 0
    before = -1
    with (
        storage.write_atomic(storage.join(folder, f"{part}.parquet")) as out,
        pq.ParquetWriter(out, SCHEMA, compression="zstd", write_page_checksum=True) as file,
    ):
        for table in tables:
            if not table.num_rows:
                continue
            numbers = to_numpy(table["number"])
            if int(numbers[0]) <= before or (numbers[1:] <= numbers[:-1]).any():
                raise ValueError(f"a document has two decisions, or they are not in order: {_first_twice(numbers)}")
            before = int(numbers[-1])
            rows += table.num_rows
            file.write_table(table, row_group_size=_GROUP_ROWS)
    return out.record(rows=rows)


def finish_decisions(
    folder: str, records: Sequence[FileRecord], roll: Roll, settings: Mapping[str, Any] | None = None
) -> None:
    """Complete a table of decisions: its manifest, and the roll, beside the files that ``records`` name.

    ``settings`` say how the decisions were made: ``rule``, ``threshold``, ``max_new_words``, and others. Call it from a
    stage's ``finish``; it can be interrupted anywhere and repeated.
    """
    import pyarrow.parquet as pq

    files: list[dict[str, Any]] = []
    counts = {REMOVED: 0, KEPT: 0}
    for record in records:
        if not record.rows:
            continue
        with storage.open_input(record.path) as stream, pq.ParquetFile(stream) as file:
            bounds = _bounds(file.metadata)
            for batch in file.iter_batches(columns=["decision"], use_threads=False):
                removed = pc.sum(pc.equal(batch.column(0), scalar(REMOVED))).as_py() or 0
                counts[REMOVED] += removed
                counts[KEPT] += batch.num_rows - removed
        entry = {"path": storage.relative(record.path, folder), "rows": record.rows, "sha256": record.sha256}
        files.append({**entry, "first": int(bounds[0, 0]), "last": int(bounds[-1, 1])})
    files.sort(key=lambda entry: (entry["first"], entry["path"]))
    for one, other in itertools.pairwise(files):
        if one["last"] >= other["first"]:
            raise ValueError(f"{one['path']!r} and {other['path']!r} hold decisions about the same range of documents")
    roll.write(storage.join(folder, ROLL))
    manifest = {"version": 1, **counts, "settings": dict(settings or {}), "files": files}
    storage.write_bytes_atomic(storage.join(folder, MANIFEST), json.dumps(manifest, indent=1).encode())


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    rows: int
    first: int
    last: int


@dataclass(slots=True, eq=False)
class Decisions:
    """A complete table of decisions, for reading."""

    folder: str
    settings: dict[str, Any]
    removed: int
    kept: int
    roll: Roll
    _files: list[_File]
    _footers: dict[str, Any] = field(default_factory=dict)
    _groups: dict[tuple[str, int, tuple[str, ...] | None], pa.Table] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: str) -> Decisions:
        """Open the table in a folder. Only its manifest and its roll are read."""
        place = storage.join(folder, MANIFEST)
        if not storage.exists(place):
            raise UsageError(
                f"{folder!r} holds no complete table of decisions (there is no {MANIFEST}): give the folder that a "
                "deduplication, or other work across rows, has written, such as RUN/decisions"
            )
        manifest = json.loads(storage.read_bytes(place))
        files = [
            _File(storage.join(folder, entry["path"]), entry["rows"], entry["first"], entry["last"])
            for entry in manifest["files"]
        ]
        roll = Roll.read(storage.join(folder, ROLL))
        return cls(folder, manifest["settings"], manifest[REMOVED], manifest[KEPT], roll, files)

    def of_batch(self, batch: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The decisions about the documents of one batch, by its number; sorted by document."""
        first, last = batch << ROW_BITS, ((batch + 1) << ROW_BITS) - 1
        wanted = None if columns is None else tuple(dict.fromkeys(["number", *columns]))
        found = []
        for entry in self._files:
            if entry.last < first or entry.first > last:
                continue
            bounds = self._footer(entry.path)[1]
            for group in np.flatnonzero((bounds[:, 1] >= np.uint64(first)) & (bounds[:, 0] <= np.uint64(last))):
                table = self._group(entry.path, int(group), wanted)
                numbers = to_numpy(table["number"])
                start = int(np.searchsorted(numbers, np.uint64(first)))
                stop = int(np.searchsorted(numbers, np.uint64(last), side="right"))
                if stop > start:
                    found.append(table.slice(start, stop - start))
        if not found:
            schema = SCHEMA if wanted is None else pa.schema([SCHEMA.field(name) for name in wanted])
            return pa.Table.from_batches([], schema)
        return pa.concat_tables(found).combine_chunks()

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The whole table, in order, one piece at a time."""
        for part in self.parts():
            yield from self.part(part, columns)

    def parts(self) -> list[str]:
        """The names of the parts, in order."""
        return [storage.file_name(entry.path).removesuffix(".parquet") for entry in self._files]

    def part(self, part: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """One part, in order, one piece at a time."""
        path = storage.join(self.folder, f"{part}.parquet")
        with _opened(path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=None if columns is None else list(columns), use_threads=False)

    def _footer(self, path: str) -> tuple[Any, NDArray[np.uint64]]:
        if path not in self._footers:
            with _opened(path) as file:
                self._footers[path] = file.metadata, _bounds(file.metadata)
        return self._footers[path]  # type: ignore[no-any-return]

    def _group(self, path: str, group: int, columns: tuple[str, ...] | None) -> pa.Table:
        key = path, group, columns
        if key not in self._groups:
            while len(self._groups) >= _HELD_GROUPS:
                del self._groups[next(iter(self._groups))]
            with _opened(path, self._footer(path)[0]) as file:
                chosen = None if columns is None else list(columns)
                self._groups[key] = file.read_row_group(group, columns=chosen, use_threads=False)
        return self._groups[key]


def decisions_of(folder: str, batch: int, columns: Sequence[str] | None = None) -> pa.Table:
    """The decisions about the documents of one batch. A worker that needs many batches keeps a `Decisions` and calls
    `Decisions.of_batch`.
    """
    return Decisions.open(folder).of_batch(batch, columns)


# Lists of ids --------------------------------------------------------------------------------------------------------


def write_removed(folder: str, path: str) -> FileRecord:
    """A list of the documents that a table of decisions removes, for other tools.

    The ending of ``path`` chooses the format: ``.txt`` has one id per line; ``.jsonl`` and ``.parquet`` also say where
    the document is, which rule removes it, and which document stays for it.
    """
    put = _LISTS.get(path.rpartition(".")[2])
    if put is None:
        raise UsageError(f"a list of documents ends in .txt, .jsonl or .parquet, and {path!r} does not")
    decisions = Decisions.open(folder)
    with storage.write_atomic(path) as out:
        put(out, _removed(decisions))
    return out.record(rows=decisions.removed)


def _removed(decisions: Decisions) -> Iterator[pa.Table]:
    for table in decisions.tables([*_LISTED, "decision"]):
        yield table.filter(pc.equal(table["decision"], scalar(REMOVED))).select(_LISTED)


def _put_text(out: storage.AtomicFile, tables: Iterator[pa.Table]) -> None:
    for table in tables:
        if table["id"].null_count:
            raise UsageError(
                f"documents have no ids, and {out.path!r} can contain only ids: a list that ends in .jsonl or "
                ".parquet says where the documents are"
            )
        out.writelines(_lines(table["id"].to_pylist(), out.path))


def _put_json(out: storage.AtomicFile, tables: Iterator[pa.Table]) -> None:
    for table in tables:
        out.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in table.to_pylist())


def _put_parquet(out: storage.AtomicFile, tables: Iterator[pa.Table]) -> None:
    import pyarrow.parquet as pq

    schema = pa.schema([SCHEMA.field(name) for name in _LISTED])
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)


_LISTED = ["id", "source", "row", "rule", "witness_id", "witness_source", "witness_row"]
_LISTS = {"txt": _put_text, "jsonl": _put_json, "parquet": _put_parquet}


def _lines(ids: Iterable[str], path: str) -> Iterator[bytes]:
    for one in ids:
        if "\n" in one or "\r" in one:
            raise UsageError(
                f"the id {one!r} has a line break in it, so {path!r} cannot hold it: use .jsonl or .parquet"
            )
        yield one.encode("utf-8", "surrogatepass") + b"\n"


# How -----------------------------------------------------------------------------------------------------------------


def _column(name: str, values: Any) -> pa.Array:
    kind = SCHEMA.field(name).type
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if not isinstance(values, pa.Array):
        return array(values, kind) if not isinstance(values, np.ndarray) else array(values).cast(kind)
    return values.cast(kind)


def _places(numbers: pa.Array, roll: Roll) -> tuple[pa.Array, pa.Array]:
    if not numbers.null_count:
        sources, rows = roll.places(to_numpy(numbers))
        return sources, array(rows)
    there = numbers.is_valid()
    sources, rows = roll.places(to_numpy(numbers.filter(there)))
    # Each valid number gets the next place; the others stay null.
    at = pc.if_else(there, array(np.cumsum(to_numpy(there)) - 1), null(pa.int64()))
    return sources.take(at), array(rows).take(at)


def _sorted(table: pa.Table) -> pa.Table:
    numbers = to_numpy(table["number"])
    if not (numbers[1:] < numbers[:-1]).any():
        return table
    return table.take(array(np.argsort(numbers, kind="stable")))


def _first_twice(numbers: NDArray[np.uint64]) -> str:
    wrong = np.flatnonzero(numbers[1:] <= numbers[:-1])
    return f"number {int(numbers[wrong[0] + 1])}" if len(wrong) else f"number {int(numbers[0])}"


def _bounds(metadata: Any) -> NDArray[np.uint64]:
    """The first and the last number of each row group."""
    statistics = (metadata.row_group(group).column(0).statistics for group in range(metadata.num_row_groups))
    bounds = np.array([(each.min, each.max) for each in statistics], np.uint64)
    return bounds.reshape(-1, 2)


@contextlib.contextmanager
def _opened(path: str, metadata: Any = None) -> Iterator[Any]:
    """An open part. Damage that is found here or in the block raises an error that names the file."""
    import pyarrow.parquet as pq

    try:
        with (
            storage.open_input(path) as stream,
            pq.ParquetFile(stream, metadata=metadata, page_checksum_verification=True) as file,
        ):
            yield file
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the storage failed, not the content
            raise
        raise RunRefused(
            f"{path!r} is damaged ({' '.join(str(error).split())}): it is written whole or not at all, so something else "
            "changed it; make the decisions again"
        ) from None
