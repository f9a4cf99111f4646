"""Which rows has a run set aside? Rows that could not be read, and rows or tasks that a stage failed on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, takewhile
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa

from curator_core.accounts.accounts import Accounts
from curator_core.accounts.ledger import open_accounts, read_rejects
from curator_core.arrow.arrays import array, to_numpy

# A task, a stage that it went through, and the attempt.
Call = tuple[str, str, int]
_SHOWN = ["task", "source", "position", "message", "raw"]
_OF_SOURCE = ["kind", "stage", "reason", "run_source"]
_OF_ROW = ["rows", "source", "position", "message", "raw"]


@dataclass
class RejectGroup:
    """Rejects of one kind, stage and reason: how many rows, and the first few of them. ``steps`` are the steps of a
    workflow that have set them aside.
    """

    kind: str
    stage: str
    reason: str
    rows: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)
    steps: tuple[str, ...] = ()


def rejects_of(run_dir: str) -> Iterator[dict[str, Any]]:
    """The rejects that count, one by one: those of attempts that were repeated or interrupted are left out."""
    for table in _counting(run_dir):
        for batch in table.to_batches(max_chunksize=1000):
            yield from batch.to_pylist()


def rejects_of_steps(places: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The rejects of a workflow, one by one, each once. ``places`` are the run directories by step, and ``steps`` of a
    row are the steps that have set it aside.
    """
    for steps, table in _once(places):
        for batch in table.to_batches(max_chunksize=1000):
            for row in batch.to_pylist():
                yield {**row, "steps": list(steps)}


def group_rejects(run_dir: str, examples: int = 3, accounts: Accounts | None = None) -> list[RejectGroup]:
    """The rejects that count, grouped by stage and reason, the most frequent first, each group with its first
    ``examples`` rows. ``accounts`` are the accounts of the run, if the caller has read them already.
    """
    return _grouped((((), table) for table in _counting(run_dir, accounts)), examples)


def group_rejects_of_steps(places: Mapping[str, str], examples: int = 3) -> list[RejectGroup]:
    """Like `group_rejects`, for the steps of a workflow, whose run directories are ``places``: a row that several steps
    have read and set aside is counted once.
    """
    return _grouped(_once(places), examples)


def _grouped(tables: Iterator[tuple[tuple[str, ...], pa.Table]], examples: int) -> list[RejectGroup]:
    groups: dict[tuple[Any, ...], RejectGroup] = {}
    for steps, table in tables:
        starts, keys = _runs(table, ["kind", "stage", "reason"])
        sums = np.add.reduceat(to_numpy(table["rows"]), starts)
        for start, key, rows in zip(starts.tolist(), keys, sums.tolist(), strict=True):
            kind, stage, reason = key
            group = groups.setdefault((*key, steps), RejectGroup(kind, stage, reason, steps=steps))
            group.rows += rows
            if len(group.examples) < examples:
                # The slice may extend beyond the rows of this kind, so the others are left out.
                some = table.slice(start, examples - len(group.examples)).to_pylist()
                alike = takewhile(lambda row, key=key: (row["kind"], row["stage"], row["reason"]) == key, some)  # type: ignore[misc]
                group.examples += [{name: row[name] for name in _SHOWN} for row in alike]
    return sorted(groups.values(), key=lambda group: (-group.rows, group.stage, group.reason, group.steps))


# The kind, the stage, the reason and the run's source of some rejects, with the number of rows and the digest.
_Same = tuple[str, str, str, str, int, int]


def _once(places: Mapping[str, str]) -> Iterator[tuple[tuple[str, ...], pa.Table]]:
    """The rejects of several steps, those that equal the rejects of an earlier step left out, each with all of its
    steps.

    Steps that read a source in the same way set the same rows of it aside. These are compared by the sum of their
    digests, so that memory does not grow with the number of rows.
    """
    found = {step: _sums(place) for step, place in places.items()}
    steps: dict[_Same, tuple[str, ...]] = {}
    for step, sums in found.items():
        for key, (rows, digest) in sums.items():
            same = (*key, rows, digest)
            steps[same] = (*steps.get(same, ()), step)
    for step, place in places.items():
        mine = found[step]
        for table in _counting(place) if mine else ():
            for key, part in _by_source(table):
                named = steps[(*key, *mine[key])]
                if named[0] == step:
                    yield named, part


def _sums(run_dir: str) -> dict[tuple[str, str, str, str], tuple[int, int]]:
    """The rejects of a run by kind, stage, reason and source: the number of rows, and the sum of the digests of rejects."""
    found: dict[tuple[str, str, str, str], tuple[int, int]] = {}
    for table in _counting(run_dir):
        for key, part in _by_source(table):
            rows, digest = found.get(key, (0, 0))
            for batch in part.select(_OF_ROW).to_batches(max_chunksize=1000):
                for number, *texts, raw in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    rows += number
                    digest += _digest(texts, raw)
            found[key] = rows, digest
    return found


def _by_source(table: pa.Table) -> Iterator[tuple[tuple[str, str, str, str], pa.Table]]:
    """The rejects of a table in runs of one kind, stage, reason and source."""
    starts, keys = _runs(table, _OF_SOURCE)
    ends = [*starts.tolist()[1:], table.num_rows]
    for start, stop, key in zip(starts.tolist(), ends, keys, strict=True):
        yield key, table.slice(start, stop - start)


def _digest(texts: Sequence[str], raw: bytes | None) -> int:
    parts = [*(text.encode("utf-8", "surrogatepass") for text in texts), raw or b""]
    framed = b"".join(b"%d:%b" % (len(part), part) for part in parts)
    return int.from_bytes(hashlib.blake2b(framed, digest_size=16).digest(), "little")


def _counting(run_dir: str, accounts: Accounts | None = None) -> Iterator[pa.Table]:
    """The rejects that count, a piece at a time."""
    # A task that one worker began before it died and another finished is in the files of both. The one that finished it
    # recorded all rejects of the task, the other only some.
    most: dict[Call, tuple[int, str]] = {}
    for path, tables in groupby(read_rejects(run_dir), itemgetter(0)):
        accounts = accounts or open_accounts(run_dir)
        counts: dict[Call, int] = {}
        for _, table in tables:
            for call, start, stop in _valid(table, accounts):
                counts[call] = counts.get(call, 0) + stop - start
        for call, count in counts.items():
            if count > most.get(call, (0, ""))[0]:
                most[call] = (count, path)
    if not most or accounts is None:
        return
    for path, table in read_rejects(run_dir):
        chosen = np.zeros(table.num_rows, np.bool_)
        for call, start, stop in _valid(table, accounts):
            chosen[start:stop] = most[call][1] == path
        if chosen.any():
            yield table if chosen.all() else table.filter(array(chosen))


def _valid(table: pa.Table, accounts: Accounts) -> Iterator[tuple[Call, int, int]]:
    """The calls of stages in the attempt that counts, each with the range of its rows."""
    starts, keys = _runs(table, ["run_source", "generation", "task", "stage", "attempt"])
    ends = [*starts.tolist()[1:], table.num_rows]
    for start, stop, (source, generation, task, stage, attempt) in zip(starts.tolist(), ends, keys, strict=True):
        if generation == accounts.generation(source) and accounts.attempt_of(source, task) == attempt:
            yield (task, stage, attempt), start, stop


def _runs(table: pa.Table, names: list[str]) -> tuple[np.ndarray[Any, Any], list[tuple[Any, ...]]]:
    """The positions at which a value changes in any of these columns, and the values that begin there."""
    changes = np.ones(table.num_rows, np.bool_)
    changes[1:] = False
    columns = []
    for name in names:
        kind = table.schema.field(name).type
        column = table[name].cast(kind.value_type) if pa.types.is_dictionary(kind) else table[name]
        columns.append(column)
        codes = to_numpy(column.combine_chunks().dictionary_encode().indices)
        changes[1:] |= codes[1:] != codes[:-1]
    starts = np.flatnonzero(changes)
    return starts, list(zip(*(column.take(array(starts)).to_pylist() for column in columns), strict=True))
