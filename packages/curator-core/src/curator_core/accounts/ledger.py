"""The run's durable record: events and rejects, written by the workers where the work happens, read on resume.

A writer collects rows and publishes them as whole Parquet files under names that no other writer uses; nothing is
appended to, locked, or shared, so any file system and any number of workers will do. A fact is relied on only after
the `flush` that made it durable. Small files of one writer are packed into larger ones as they add up; a crash in the
middle leaves a fact twice, which changes nothing, because facts are keyed by task.
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
from curator_core.accounts.parquet import read_file, read_folder, read_pieces, read_tables, size_of, write_parquet
from curator_core.accounts.reject_rows import REJECT_SCHEMA, RejectRow, RejectRows
from curator_core.accounts.seen_rows import SAMPLE_SCHEMA, SEEN_SCHEMA, SeenRows
from curator_core.accounts.seen_sums import sources_in, sums_of
from curator_core.accounts.source_list import SourceList
from curator_core.accounts.tally import Tally
from curator_core.accounts.work_times import WorkTimes
from curator_core.arrow.arrays import array
from curator_core.model.task import StagePerfStats

# Tasks that reached the end of a pipeline without a writer: a resumed run gives them back.
RESULT_SCHEMA = pa.schema([("task", pa.string()), ("attempt", pa.int32()), ("data", pa.large_binary())])

# A flush waits for a disk, and makes counts and samples ready: it is due when it costs a small part of the time since the last
# one, or after this time.
FLUSH_SECONDS = 5.0
FLUSH_SHARE = 250
# What a flush costs, until one was measured.
_FIRST_FLUSH = 0.01
FLUSH_BYTES = 32 << 20
FLUSH_EVENTS = 20_000
# Counts of up to this many calls are passed on one by one; more are summed by stage.
FEW_COUNTS = 32
# A ledger of up to this many bytes is read once and held; of a larger one, columns are read again when they are needed.
HELD_BYTES = 1 << 20
PACK_FILES = 32
PACK_LEVELS = 3


class Sink(Protocol):
    """Where the adapter records what it knows."""

    def event(self, event: Event) -> None: ...

    def reject(self, row: RejectRow) -> None: ...

    def flush(self) -> None:
        """Make everything recorded so far durable."""


class MemorySink:
    """For a run with no run directory: facts stay in this process until the executor collects them.

    Rejects are counted with the events, and not kept: there is nowhere to look at them.
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
    """Writes one worker's events, rejects and results to the run directory."""

    def __init__(self, run_dir: str, attempt: int = 1) -> None:
        self.run_dir = run_dir
        self.name = f"{attempt:04d}-{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._events: list[Event] = []
        self._rejects = RejectRows()
        self.seen = SeenRows()
        self.times = WorkTimes()
        # A function that makes durable what another process has recorded of the same tasks.
        self.before_flush: Callable[[], None] | None = None
        self._number = 0
        # Files of this writer by folder and by how often they were packed.
        self._levels: dict[str, list[list[str]]] = {}
        self._flushed = time.monotonic()
        self._flush_seconds = _FIRST_FLUSH
        self._tally = Tally()  # what `take_counts` has not reported yet
        self._attempt = attempt
        self._results: list[tuple[str, pa.Buffer]] = []
        self._result_bytes = 0
        # By source and generation: of all tasks of which the counts wait, and of some of which they are written down.
        self._through: set[tuple[str, str]] = set()
        self._partly: set[tuple[str, str]] = set()

    def through(self, source: str, generation: str) -> None:
        """All that there is of a source has come to this writer, so that one sum may stand for the counts of its tasks."""
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
        """What stages did since the last call: a few entries, however many events there were."""
        return self._tally.take(FEW_COUNTS)

    @property
    def pending(self) -> int:
        return len(self._events) + len(self._rejects)

    def due(self) -> bool:
        """Whether enough has come together, or has waited long enough, to be worth a file."""
        return bool(self._events or self._rejects) and (
            len(self._events) >= FLUSH_EVENTS
            or time.monotonic() - self._flushed >= min(FLUSH_SECONDS, FLUSH_SHARE * self._flush_seconds)
        )

    def flush(self) -> None:
        """Write everything that waits. Whatever is not written when this fails or is interrupted waits for the next
        call.
        """
        started = time.monotonic()
        # Events last: a durable event says that everything about its task is known. So nothing that belongs to them is
        # forgotten before it is written: SIGTERM may come between any two lines, and the worker flushes again as it ends.
        # An event that was written and not yet forgotten is then written twice, and read once.
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
        """Counts with those of sources that are through added up, unless a part of them is written down already."""
        # Noted before anything is written or forgotten: a sum of the rest would go before the part.
        self._partly |= sources_in(seen) - self._through
        return sums_of(seen, self._through - self._partly)

    def _write(self, folder: str, tables: pa.Table | Iterator[pa.Table]) -> str:
        path = storage.join(self.run_dir, folder, f"{self.name}-{self._number:06d}.parquet")
        self._number += 1
        write_parquet(path, tables)
        return path

    def _pack(self, folder: str, path: str, schema: pa.Schema, level: int = 0) -> None:
        """Put files of one level into one of the next when there are enough: n writes leave about log n files."""
        levels = self._levels.setdefault(folder, [])
        while len(levels) <= level:
            levels.append([])
        files = levels[level]
        files.append(path)
        if len(files) < PACK_FILES or level >= PACK_LEVELS:
            return
        tables = [read_file(small, schema, verify=False) for small in files]
        packed = self._write(folder, pa.concat_tables(tables).unify_dictionaries())
        levels[level] = []  # before they are removed: an interrupted pack must not look for them again
        for small in files:
            storage.remove(small)
        self._pack(folder, packed, schema, level + 1)


def open_accounts(run_dir: str, listing: SourceList | None = None) -> Accounts:
    """The accounts of a run directory: what its ledger says about the sources as they were last listed."""
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
    """The stored results of the wanted tasks, those of the newest attempt."""
    found: dict[str, tuple[int, pa.Buffer]] = {}
    for table in read_tables(run_dir, "results", RESULT_SCHEMA):
        ids, attempts, data = table["task"].to_pylist(), table["attempt"].to_pylist(), table["data"]
        for index, (task, attempt) in enumerate(zip(ids, attempts, strict=True)):
            if task in wanted and (task not in found or found[task][0] <= attempt):
                found[task] = (attempt, data[index].as_buffer())
    return {task: buffer for task, (_, buffer) in found.items()}


def read_rejects(run_dir: str) -> Iterator[tuple[str, pa.Table]]:
    """The rejects of a run with the file that they are in, a piece at a time; see `rejects_of` for those that count."""
    place = storage.join(run_dir, "rejects")
    for path in sorted(storage.list_files(place)) if storage.exists(place) else ():
        if path.endswith(".parquet"):
            for table in read_pieces(path, REJECT_SCHEMA):
                yield path, table


def _host() -> str:
    return "".join(c if c.isalnum() else "_" for c in socket.gethostname())[:24] or "host"
