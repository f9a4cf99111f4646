"""What a run has set aside: rows that could not be read, and rows or tasks that a stage failed on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curator_core.accounts import Accounts
from curator_core.ledger import open_accounts, read_rejects


@dataclass
class RejectGroup:
    """Rejects of one kind, stage and reason: how many rows, and the first few of them."""

    kind: str
    stage: str
    reason: str
    rows: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)


def rejects_of(run_dir: str) -> Iterator[dict[str, Any]]:
    """The rejects that count, one by one: those of attempts that were repeated or interrupted are left out."""
    if not any(table.num_rows for table in read_rejects(run_dir)):
        return
    accounts = open_accounts(run_dir)
    # A task that was begun by a worker that died, and done by another, stands in the files of both. The one that did
    # it has all of its rejects, the other some.
    most: dict[tuple[str, str, int], tuple[int, int]] = {}
    for number, table in enumerate(read_rejects(run_dir)):
        counts: dict[tuple[str, str, int], int] = {}
        for row in _valid(table.drop_columns(["raw", "message"]), accounts):
            key = (row["task"], row["stage"], row["attempt"])
            counts[key] = counts.get(key, 0) + 1
        for key, count in counts.items():
            if count > most.get(key, (0, 0))[0]:
                most[key] = (count, number)
    for number, table in enumerate(read_rejects(run_dir)):
        for row in _valid(table, accounts):
            if most[row["task"], row["stage"], row["attempt"]][1] == number:
                yield row


def group_rejects(run_dir: str, examples: int = 3) -> list[RejectGroup]:
    """The rejects that count by stage and reason, the most frequent first, each with its first ``examples``."""
    groups: dict[tuple[str, str, str], RejectGroup] = {}
    for row in rejects_of(run_dir):
        key = (row["kind"], row["stage"], row["reason"])
        group = groups.setdefault(key, RejectGroup(*key))
        group.rows += row["rows"]
        if len(group.examples) < examples:
            group.examples.append({name: row[name] for name in ("task", "source", "position", "message", "raw")})
    return sorted(groups.values(), key=lambda group: (-group.rows, group.stage, group.reason))


def _valid(table: pa.Table, accounts: Accounts) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=1000):
        for row in batch.to_pylist():
            if row["generation"] != accounts.generation(row["run_source"]):
                continue
            if accounts.attempt_of(row["run_source"], row["task"]) == row["attempt"]:
                yield row
