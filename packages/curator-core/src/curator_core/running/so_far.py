"""How far has a run got that is in progress or was interrupted? The answer is in the records of its workers about
complete work.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from curator_core.accounts.ledger import open_accounts
from curator_core.accounts.source_list import GONE, SourceList
from curator_core.accounts.tally import StageTotals, Tally
from curator_core.errors import CuratorError
from curator_core.running.attempt import WORKFLOW
from curator_core.running.directory import RunDirectory
from curator_core.running.locks import owner_at_work

# A ledger writer packs its small files during a run, so a listed file may be gone when it is read.
_TRIES = 5


@dataclass
class SoFar:
    """The complete part of a run. ``listed`` is the number of sources that it has listed so far, which need not be all."""

    name: str
    state: str  # ``running``, ``interrupted``, or the state in its record
    owner: str | None
    seconds: float | None  # seconds since it began; None if no process is working on it
    listed: int = 0
    complete: int = 0
    failed: int = 0
    stages: list[StageTotals] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def so_far(run_dir: str) -> SoFar:
    """How far the run in a run directory has got; if it has ended, its record says more."""
    directory = RunDirectory(run_dir)
    record = directory.read_json("run.json") or {}
    plan = directory.read_json("plan.json") or {}
    owner = owner_at_work(directory.url)
    found = SoFar(
        name=str(plan.get("name") or "run"),
        state="running"
        if owner is not None
        else "interrupted"
        if record.get("state") == "running"
        else str(record.get("state")),
        owner=owner,
        seconds=_since(record.get("started")) if owner is not None else None,
    )
    names = [step["name"] for step in plan.get("steps") or ()]
    for left in range(_TRIES - 1, -1, -1):
        try:
            _read(found, directory.url, names)
            break
        except (CuratorError, OSError):
            if not left or owner is None:
                raise
    return found


def settled(record: Mapping[str, Any], run_dir: str) -> dict[str, Any]:
    """The record of a run. If a pipeline has failed, its counts are read from the ledger: workers complete some work
    after the driver has stopped counting.
    """
    summary = record.get("summary")
    if record.get("state") != "failed" or record.get("kind") == WORKFLOW or not summary:
        return dict(record)
    try:
        found = so_far(run_dir)
    except (CuratorError, OSError):
        return dict(record)
    if not found.stages:
        return dict(record)
    counts = {"stages": [asdict(stage) for stage in found.stages], "sources": found.complete}
    return {**record, "summary": {**summary, **counts}}


def _read(found: SoFar, run_dir: str, names: Sequence[str]) -> None:
    listing = SourceList(run_dir)
    known = [row.source for row in listing.rows.values() if row.generation != GONE]
    accounts = open_accounts(run_dir, listing)
    tally = Tally()
    for _, table in accounts.tables(accounts.event_numbers(known), ["counts"]):
        tally.add_table(table["counts"])
    sources = [source for source in known if source not in accounts.merges]
    found.listed = len(sources)
    found.complete = sum(map(accounts.is_complete, sources))
    found.failed = sum(map(accounts.has_failures, sources))
    found.stages = [tally.stages[name] for name in names if name in tally.stages]


def _since(started: str | None) -> float | None:
    if not started:
        return None
    try:
        began = datetime.datetime.fromisoformat(started)
    except ValueError:
        return None
    return max(0.0, (datetime.datetime.now(datetime.UTC) - began).total_seconds())
