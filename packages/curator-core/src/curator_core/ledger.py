"""The run's memory: events and rejects, written by the workers where the work happens, read by whoever resumes.

A writer collects rows and publishes them as whole Parquet files under names that no other writer uses; nothing is
appended to, locked, or shared, so any file system and any number of workers will do. A fact is relied on only after
the `flush` that made it durable. Small files of one writer are packed into larger ones as they add up; a crash in the
middle leaves a fact twice, which changes nothing, because facts are keyed by task.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from curator_core import storage
from curator_core.accounts.accounts import Accounts
from curator_core.accounts.events import EVENT_SCHEMA, INDEX, Event, events_from, events_table
from curator_core.accounts.tally import Tally
from curator_core.arrow.arrays import array
from curator_core.errors import RunRefused, UsageError
from curator_core.formatting import plain
from curator_core.model.recorder import Reject
from curator_core.model.spool import Spool
from curator_core.model.task import StagePerfStats

_WORD = pa.dictionary(pa.int32(), pa.string())

REJECT_SCHEMA = pa.schema(
    [
        ("kind", _WORD),  # "reject": a row that could not be read; "quarantine": a row or task that a stage failed on
        ("run_source", _WORD),
        ("generation", _WORD),
        ("attempt", pa.int32()),
        ("task", pa.string()),
        ("stage", _WORD),
        ("reason", _WORD),
        ("source", pa.string()),
        ("position", pa.string()),
        ("rows", pa.int64()),
        ("message", pa.string()),
        ("raw", pa.binary()),
    ]
)

# Tasks that reached the end of a pipeline without a writer: a resumed run gives them back.
RESULT_SCHEMA = pa.schema([("task", pa.string()), ("attempt", pa.int32()), ("data", pa.large_binary())])

# The sources that a run has listed, each with the generation that counts; a later row replaces an earlier one.
SOURCE_SCHEMA = pa.schema([("source", pa.string()), ("generation", pa.string()), ("group", pa.string())])

# A flush waits for a disk: it is due when it costs a small part of the time since the one before, or after this time.
FLUSH_SECONDS = 1.0
FLUSH_SHARE = 250
FLUSH_BYTES = 32 << 20
FLUSH_EVENTS = 20_000
# Counts of so few calls are handed on as they are, more are summed up by stage.
FEW_COUNTS = 32
PACK_FILES = 32
PACK_LEVELS = 3


@dataclass(slots=True)
class RejectRow:
    """A reject with the task and the stage it belongs to."""

    kind: str
    run_source: str
    generation: str
    attempt: int
    task: str
    stage: str
    reject: Reject


class _RejectRows(Spool[RejectRow]):
    """What waits for the next flush; a file of nothing but bad rows comes in one piece."""

    __slots__ = ()

    def to_table(self, things: list[RejectRow]) -> pa.Table:
        return rejects_table(things)

    def from_table(self, table: pa.Table) -> Iterator[RejectRow]:
        for row in table.to_pylist():
            reject = Reject(*(row.pop(name) for name in ("reason", "source", "position", "message", "raw", "rows")))
            yield RejectRow(
                row["kind"], row["run_source"], row["generation"], row["attempt"], row["task"], row["stage"], reject
            )

    def size(self, thing: RejectRow) -> int:
        return len(thing.reject.raw or b"") + len(thing.reject.message)


class Sink(Protocol):
    """Where the adapter hands in what it knows."""

    def event(self, event: Event) -> None: ...

    def reject(self, row: RejectRow) -> None: ...

    def flush(self) -> None:
        """Make everything handed in durable."""


class MemorySink:
    """For a run with no run directory: facts stay in this process until the executor collects them.

    Rejects are counted with the events, and not kept: there is no place to look at them.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []

    def event(self, event: Event) -> None:
        self.events.append(event)

    def reject(self, row: RejectRow) -> None:
        pass

    def flush(self) -> None:
        pass

    def take(self) -> list[Event]:
        """What has come in since the last call."""
        taken, self.events = self.events, []
        return taken


class LedgerWriter:
    """One worker's hand in the ledger of a run directory."""

    def __init__(self, run_dir: str, attempt: int = 1) -> None:
        self.run_dir = run_dir
        self.name = f"{attempt:04d}-{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._events: list[Event] = []
        self._rejects = _RejectRows()
        self._number = 0
        self._levels: list[list[str]] = []  # files of this writer by how often they were packed
        self._flushed = time.monotonic()
        self._flush_seconds = 0.002
        self._tally = Tally()  # what `take_counts` has not told yet
        self._attempt = attempt
        self._results: list[tuple[str, pa.Buffer]] = []
        self._result_bytes = 0

    def keep(self, task_id: str, data: pa.Buffer) -> None:
        """Store a result with the next flush; many share a file."""
        self._results.append((task_id, data))
        self._result_bytes += data.size

    def event(self, event: Event) -> None:
        self._events.append(event)
        self._tally.add(event.counts)
        if len(self._events) >= FLUSH_EVENTS or self._result_bytes >= FLUSH_BYTES:
            self.flush()

    def reject(self, row: RejectRow) -> None:
        self._rejects.append(row)

    def take_counts(self) -> list[StagePerfStats]:
        """What stages did since the last call: a few entries, however many events there were."""
        return self._tally.take(FEW_COUNTS)

    @property
    def pending(self) -> int:
        return len(self._events) + len(self._rejects)

    def due(self) -> bool:
        """Whether enough has come together, or stood long enough, to be worth a file."""
        return bool(self._events or self._rejects) and (
            len(self._events) >= FLUSH_EVENTS
            or time.monotonic() - self._flushed >= min(FLUSH_SECONDS, FLUSH_SHARE * self._flush_seconds)
        )

    def flush(self) -> None:
        started = time.monotonic()
        # Results and rejects first: a durable event says that everything about its task is known.
        if self._results:
            columns: list[list[Any]] = [
                [task for task, _ in self._results],
                [self._attempt] * len(self._results),
                [memoryview(data) for _, data in self._results],
            ]
            arrays = [array(c, f.type) for c, f in zip(columns, RESULT_SCHEMA, strict=True)]
            self._write("results", pa.table(arrays, schema=RESULT_SCHEMA))
            self._results, self._result_bytes = [], 0
        if self._rejects:
            self._write("rejects", self._rejects.tables())
            self._rejects.clear()
        if self._events:
            path = self._write("ledger", events_table(self._events))
            self._events = []
            self._pack(path)
        self._flushed = time.monotonic()
        self._flush_seconds = (self._flush_seconds + self._flushed - started) / 2

    def _write(self, folder: str, tables: pa.Table | Iterator[pa.Table]) -> str:
        path = storage.join(self.run_dir, folder, f"{self.name}-{self._number:06d}.parquet")
        self._number += 1
        write_parquet(path, tables)
        return path

    def _pack(self, path: str, level: int = 0) -> None:
        """Put files of one level into one of the next when there are enough: n writes leave about log n files."""
        while len(self._levels) <= level:
            self._levels.append([])
        files = self._levels[level]
        files.append(path)
        if len(files) < PACK_FILES or level >= PACK_LEVELS:
            return
        tables = [_read(small, EVENT_SCHEMA) for small in files]
        packed = self._write("ledger", pa.concat_tables(tables).unify_dictionaries())
        for small in files:
            storage.remove(small)
        self._levels[level] = []
        self._pack(packed, level + 1)


GONE = "-"  # the generation of a source that is not listed any more


@dataclass(frozen=True, slots=True)
class Listed:
    """A source that was handed out, and the generation that its events carry if they count.

    ``group``: the files and ranges of a source of several, as JSON.
    """

    source: str
    generation: str = GONE
    group: str = ""


class SourceList:
    """The sources that a run directory knows, those that have gone included; written by the driver alone."""

    def __init__(self, run_dir: str) -> None:
        self._folder = storage.join(run_dir, "sources")
        self._number = 0
        self.rows: dict[str, Listed] = {}
        for path, table in _files(run_dir, "sources", SOURCE_SCHEMA):
            self._number = int(storage.file_name(path).partition(".")[0]) + 1
            for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
                self.rows[row[0]] = Listed(*row)

    def note(self, rows: Iterable[Listed]) -> None:
        """Write rows down; they are durable when this returns."""
        new = list(rows)
        if not new:
            return
        columns = [[r.source for r in new], [r.generation for r in new], [r.group for r in new]]
        table = pa.table([array(c, pa.string()) for c in columns], schema=SOURCE_SCHEMA)
        write_parquet(storage.join(self._folder, f"{self._number:08d}.parquet"), table)
        self._number += 1
        self.rows.update((row.source, row) for row in new)

    def groups(self) -> dict[str, Any]:
        """The files of each source of several that has not gone."""
        return {row.source: json.loads(row.group) for row in self.rows.values() if row.group and row.generation != GONE}


def open_accounts(run_dir: str, listing: SourceList | None = None) -> Accounts:
    """The accounts of a run directory: what its ledger says of the sources as they were listed last."""
    accounts = Accounts()
    for row in (listing or SourceList(run_dir)).rows.values():
        accounts.expect(row.source, row.generation)
    for path, table in _files(run_dir, "ledger", EVENT_SCHEMA, INDEX):
        accounts.add_table(table, functools.partial(_read, path, EVENT_SCHEMA))
    return accounts


def write_parquet(path: str, tables: pa.Table | Iterator[pa.Table]) -> None:
    """A Parquet file of one table, or of several of the same columns, that is there whole or not at all."""
    import pyarrow.parquet as pq  # deferred: it costs 30 ms, and not every process writes a ledger

    given = iter((tables,)) if isinstance(tables, pa.Table) else tables
    first = next(given)
    with (
        storage.write_atomic(path) as out,
        pq.ParquetWriter(out, first.schema, compression="zstd", store_schema=True) as file,
    ):
        file.write_table(first)
        for table in given:
            file.write_table(table)


def rejects_table(rows: list[RejectRow]) -> pa.Table:
    columns: list[list[Any]] = [
        [r.kind for r in rows],
        [r.run_source for r in rows],
        [r.generation for r in rows],
        [r.attempt for r in rows],
        [r.task for r in rows],
        [r.stage for r in rows],
        [plain(r.reject.reason) for r in rows],
        [plain(r.reject.source) for r in rows],
        [plain(r.reject.position) for r in rows],
        [r.reject.rows for r in rows],
        [plain(r.reject.message) for r in rows],
        [r.reject.raw for r in rows],
    ]
    return pa.table([array(c, f.type) for c, f in zip(columns, REJECT_SCHEMA, strict=True)], schema=REJECT_SCHEMA)


def read_events(run_dir: str) -> Iterator[Event]:
    """All events of a run, file by file, in no order that matters."""
    for table in _tables(run_dir, "ledger", EVENT_SCHEMA):
        yield from events_from(table)


def read_results(run_dir: str, wanted: set[str]) -> dict[str, pa.Buffer]:
    """The stored results of the wanted tasks, those of the newest attempt."""
    found: dict[str, tuple[int, pa.Buffer]] = {}
    for table in _tables(run_dir, "results", RESULT_SCHEMA):
        ids, attempts, data = table["task"].to_pylist(), table["attempt"].to_pylist(), table["data"]
        for index, (task, attempt) in enumerate(zip(ids, attempts, strict=True)):
            if task in wanted and (task not in found or found[task][0] <= attempt):
                found[task] = (attempt, data[index].as_buffer())
    return {task: buffer for task, (_, buffer) in found.items()}


def read_rejects(run_dir: str) -> Iterator[tuple[str, pa.Table]]:
    """The rejects of a run with the file that they stand in, a piece at a time; see `rejects_of` for those that count."""
    place = storage.join(run_dir, "rejects")
    for path in sorted(storage.list_files(place)) if storage.exists(place) else ():
        if path.endswith(".parquet"):
            for table in _pieces(path, REJECT_SCHEMA):
                yield path, table


def _tables(run_dir: str, folder: str, schema: pa.Schema) -> Iterator[pa.Table]:
    for _, table in _files(run_dir, folder, schema):
        yield table


def _files(
    run_dir: str, folder: str, schema: pa.Schema, columns: Sequence[str] | None = None
) -> Iterator[tuple[str, pa.Table]]:
    place = storage.join(run_dir, folder)
    if not storage.exists(place):
        return
    seen: set[str] = set()
    packed = True
    while packed:
        packed = False
        for path in sorted(storage.list_files(place)):
            if not path.endswith(".parquet") or path in seen:
                continue
            seen.add(path)
            try:
                table = _read(path, schema, columns)
            except UsageError:
                if storage.exists(path):
                    raise
                packed = True  # by a run that is at work, into a file that the next listing has
                continue
            yield path, table


def _read(path: str, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    import pyarrow.parquet as pq

    # Without threads: most files are small, and waking a pool costs more than reading one.
    with _undamaged(path), storage.open_input(path) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
        table = parquet.read(columns=None if columns is None else list(columns), use_threads=False)
        return table.cast(pa.schema([schema.field(name) for name in table.column_names]))


def _pieces(path: str, schema: pa.Schema) -> Iterator[pa.Table]:
    import pyarrow.parquet as pq

    with _undamaged(path), storage.open_input(path) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
        for group in range(parquet.num_row_groups):
            table = parquet.read_row_group(group, use_threads=False)
            yield table.cast(pa.schema([schema.field(name) for name in table.column_names]))


@contextlib.contextmanager
def _undamaged(path: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the place, not the content
            raise
        known_elsewhere = storage.file_name(storage.parent(path)) in ("ledger", "sources")
        raise RunRefused(
            f"{path!r} is damaged ({error}): it is written whole or not at all, so something else changed it; "
            + (
                "remove it and go on with resume=True (--resume): what only this file told of is run again"
                if known_elsewhere
                else "start over with fresh=True (--fresh), or remove it and do without what it held"
            )
        ) from None


def _host() -> str:
    return "".join(c if c.isalnum() else "_" for c in socket.gethostname())[:24] or "host"
