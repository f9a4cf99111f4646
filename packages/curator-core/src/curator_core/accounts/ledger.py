"""How does a run record its work durably? Workers write events and rejects, and a resumed run reads them.

A writer collects rows and publishes them as whole files under names that no other writer uses; nothing is
appended to, locked, or shared, so it works on any file system and with any number of workers. An event is relied on
only after the `flush` that made it durable. Small files of one writer are packed into larger ones as they add up; a
crash in the middle leaves an event in two files, which changes nothing, because events are keyed by task.
"""

from __future__ import annotations

import functools
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pyarrow as pa

from curator_core import storage
from curator_core.accounts.accounts import Accounts
from curator_core.accounts.events import EVENT_SCHEMA, INDEX, Event, events_from, events_table
from curator_core.accounts.reject_rows import REJECT_SCHEMA, RejectRow, RejectRows
from curator_core.accounts.seen_rows import SAMPLE_SCHEMA, SEEN_SCHEMA, SeenRows
from curator_core.accounts.seen_sums import sources_in, sums_of
from curator_core.accounts.source_list import SourceList
from curator_core.accounts.table_files import (
    PARQUET,
    STREAM,
    is_small,
    read_file,
    read_folder,
    read_pieces,
    read_tables,
    size_of,
    write_parquet,
    write_stream,
)
from curator_core.accounts.tally import Tally
from curator_core.accounts.work_times import WorkTimes
from curator_core.arrow.arrays import array
from curator_core.model.task import StagePerfStats

# The tasks at the end of a pipeline without a writer are stored, so that a resumed run can return them.
RESULT_SCHEMA = pa.schema([("task", pa.string()), ("attempt", pa.int32()), ("data", pa.large_binary())])

# A flush waits for a disk, and prepares counts and samples. It is due when it takes a small part of the time since the last
# one, or after this time.
FLUSH_SECONDS = 10.0
FLUSH_SHARE = 250
# The assumed seconds of a flush before the first one is measured.
_FIRST_FLUSH = 0.04
FLUSH_BYTES = 32 << 20
FLUSH_EVENTS = 20_000
# The counts of up to this many calls are passed on one by one; those of more calls are summed by stage.
FEW_COUNTS = 32
# A ledger of up to this many bytes is read once and held in memory; from a larger one, columns are read again when they
# are needed.
HELD_BYTES = 1 << 20
# The folders of tables that only a run itself reads.
_OWN = ("seen", "samples")
PACK_FILES = 32
PACK_LEVELS = 3


class Sink(Protocol):
    """Where the adapter records events, rejects and results."""

    def event(self, event: Event) -> None: ...

    def reject(self, row: RejectRow) -> None: ...

    def flush(self) -> None:
        """Make everything recorded so far durable."""


class MemorySink:
    """The sink of a run without a run directory: events stay in this process until the executor collects them.

    Rejects are counted with the events but not kept, because there is no place to show them.
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
        """The events since the last call."""
        taken, self.events = self.events, []
        return taken


class LedgerWriter:
    """Writes one worker's events, rejects and results to the run directory."""

    def __init__(self, run_dir: str, attempt: int = 1, flush_seconds: float = FLUSH_SECONDS) -> None:
        self.run_dir = run_dir
        self._most_seconds = flush_seconds
        self.name = f"{attempt:04d}-{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._events: list[Event] = []
        self._rejects = RejectRows()
        self.seen = SeenRows()
        self.times = WorkTimes()
        # A function that makes the records of another process about the same tasks durable.
        self.before_flush: Callable[[], None] | None = None
        self._number = 0
        # The files of this writer, by folder and by how often they were packed.
        self._levels: dict[str, list[list[str]]] = {}
        self._flushed = time.monotonic()
        self._flush_seconds = _FIRST_FLUSH
        self._tally = Tally()  # the counts that `take_counts` has not returned yet
        self._attempt = attempt
        self._results: list[tuple[str, pa.Buffer]] = []
        self._result_bytes = 0
        # Pairs of source and generation: those whose tasks have all come here (see `through`), and those with counts in
        # a file already.
        self._through: set[tuple[str, str]] = set()
        self._partly: set[tuple[str, str]] = set()

    def through(self, source: str, generation: str) -> None:
        """Note that all tasks of a source have come to this writer, so that one sum may stand for the counts of its
        tasks.
        """
        self._through.add((source, generation))

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
        """The counts of stages since the last call: a few entries, however many events there were."""
        return self._tally.take(FEW_COUNTS)

    @property
    def pending(self) -> int:
        return len(self._events) + len(self._rejects)

    def due(self) -> bool:
        """Whether the records that wait are many enough, or have waited long enough, to be written to a file."""
        return bool(self._events or self._rejects) and (
            len(self._events) >= FLUSH_EVENTS
            or time.monotonic() - self._flushed >= min(self._most_seconds, FLUSH_SHARE * self._flush_seconds)
        )

    def flush(self) -> None:
        """Write all records that wait. If this fails or is interrupted, the rest waits for the next call."""
        started = time.monotonic()
        # Events are written last: a durable event promises that all other records of its task are durable too. Nothing
        # is cleared before it is written, since SIGTERM may come between any two lines and the worker flushes again as
        # it ends. An event that was written but not yet cleared is then written twice, and counted once.
        if self.before_flush is not None:
            self.before_flush()
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
        if (seen := self.seen.counts()) is not None:
            path = self._write("seen", self._summed(seen))
            self.seen.clear_counts()
            self._partly -= self._through
            self._through = set()
            self._pack("seen", path, SEEN_SCHEMA)
        if (samples := self.seen.samples()) is not None:
            path = self._write("samples", samples)
            self.seen.clear_samples()
            self._pack("samples", path, SAMPLE_SCHEMA)
        if self._events:
            path = self._write("ledger", events_table(self._events))
            self._events = []
            self._pack("ledger", path, EVENT_SCHEMA)
        self.times.write(self.run_dir, self.name)
        self._flushed = time.monotonic()
        self._flush_seconds = (self._flush_seconds + self._flushed - started) / 2

    def _summed(self, seen: pa.Table) -> pa.Table:
        """The counts, where one sum replaces those of each source whose tasks have all come here, unless a part of them
        is in a file already.
        """
        # This is noted before anything is written or cleared: a sum takes precedence over the counts of single tasks,
        # so a sum of the remaining ones alone would hide those in the file.
        self._partly |= sources_in(seen) - self._through
        return sums_of(seen, self._through - self._partly)

    def _write(self, folder: str, tables: pa.Table | Iterator[pa.Table]) -> str:
        # Only a run itself reads counts and samples; the other tables may be queried with any tool.
        small = folder in _OWN and isinstance(tables, pa.Table) and is_small(tables)
        path = storage.join(self.run_dir, folder, f"{self.name}-{self._number:06d}{STREAM if small else PARQUET}")
        self._number += 1
        (write_stream if small else write_parquet)(path, tables)
        return path

    def _pack(self, folder: str, path: str, schema: pa.Schema, level: int = 0) -> None:
        """Pack the files of one level into one file of the next level when there are enough: n writes leave about log n
        files.
        """
        levels = self._levels.setdefault(folder, [])
        while len(levels) <= level:
            levels.append([])
        files = levels[level]
        files.append(path)
        if len(files) < PACK_FILES or level >= PACK_LEVELS:
            return
        tables = [read_file(small, schema, verify=False) for small in files]
        packed = self._write(folder, pa.concat_tables(tables).unify_dictionaries())
        levels[level] = []  # before the files are removed: after an interruption, the next pack must not look for them
        for small in files:
            storage.remove(small)
        self._pack(folder, packed, schema, level + 1)


def open_accounts(run_dir: str, listing: SourceList | None = None) -> Accounts:
    """The accounts of a run directory: the events in its ledger, for the sources as they were last listed."""
    accounts = Accounts()
    for row in (listing or SourceList(run_dir)).rows.values():
        accounts.expect(row.source, row.generation)
    held = size_of(run_dir, "ledger") <= HELD_BYTES
    for path, table in read_folder(run_dir, "ledger", EVENT_SCHEMA, None if held else INDEX):
        load = table.select if held else functools.partial(read_file, path, EVENT_SCHEMA, verify=False)
        accounts.add_table(table, load)
    return accounts


def read_events(run_dir: str) -> Iterator[Event]:
    """All events of a run, file by file, in any order."""
    for table in read_tables(run_dir, "ledger", EVENT_SCHEMA):
        yield from events_from(table)


def read_results(run_dir: str, wanted: set[str]) -> dict[str, pa.Buffer]:
    """The stored results of the ``wanted`` tasks, each from the newest attempt."""
    found: dict[str, tuple[int, pa.Buffer]] = {}
    for table in read_tables(run_dir, "results", RESULT_SCHEMA):
        ids, attempts, data = table["task"].to_pylist(), table["attempt"].to_pylist(), table["data"]
        for index, (task, attempt) in enumerate(zip(ids, attempts, strict=True)):
            if task in wanted and (task not in found or found[task][0] <= attempt):
                found[task] = (attempt, data[index].as_buffer())
    return {task: buffer for task, (_, buffer) in found.items()}


def read_rejects(run_dir: str) -> Iterator[tuple[str, pa.Table]]:
    """The rejects of a run, a piece at a time, each with the file that holds it; `rejects_of` gives only those that
    count.
    """
    place = storage.join(run_dir, "rejects")
    for path in sorted(storage.list_files(place)) if storage.exists(place) else ():
        if path.endswith(PARQUET):
            for table in read_pieces(path, REJECT_SCHEMA):
                yield path, table


def _host() -> str:
    return "".join(c if c.isalnum() else "_" for c in socket.gethostname())[:24] or "host"
