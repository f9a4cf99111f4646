"""What is this run, given what ran in its run directory before: a first attempt, a fresh start, or a resumed run?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from curator_core import storage
from curator_core.accounts.source_list import SourceList
from curator_core.errors import RunRefused
from curator_core.planning.plan import Plan, difference
from curator_core.running.directory import RunDirectory
from curator_core.running.options import RunOptions

PLANS = "plans"
WORKFLOW = "workflow"  # the kind in run.json if the run is that of a workflow; runs of pipelines have none


@dataclass(frozen=True)
class Earlier:
    """The records of earlier attempts in a run directory; empty without a run directory."""

    listing: SourceList | None = None
    plan: dict[str, Any] | None = None
    record: dict[str, Any] = field(default_factory=dict)
    has_events: bool = False

    @property
    def success_files(self) -> dict[str, str]:
        """The checksum of the success file that the run has written, for each folder."""
        return dict(self.record.get("marks", {}))


@dataclass(frozen=True)
class Attempt:
    """The present attempt.

    ``pipeline_attempt`` is the attempt that introduced the present pipeline, 0 for the first. ``stale`` says that the
    records in the run directory must be discarded before this run begins. ``changes`` are the differences from the
    previous plan.
    """

    number: int = 1
    pipeline_attempt: int = 0
    stale: bool = False
    changes: tuple[str, ...] = ()


def look(directory: RunDirectory | None, options: RunOptions) -> Earlier:
    """Read the records of earlier attempts. Raise for everything that can be refused without a plan. Nothing is
    written.
    """
    if directory is None:
        return Earlier()
    record = _read(directory, "run.json", options) or {}
    if record.get("kind") == WORKFLOW:
        raise RunRefused(
            f"{directory.url!r} holds the run of a workflow: choose another run directory for this pipeline"
        )
    earlier = Earlier(
        SourceList(directory.url),
        _read(directory, "plan.json", options),
        record,
        not directory.is_empty("ledger"),
    )
    if options.fresh:
        return earlier
    if earlier.plan is None:
        if options.retry:
            raise RunRefused(f"{directory.url!r} holds no run to retry")
    # A run that failed before its first task was done (a package was missing) has no work that could be lost.
    elif earlier.has_events and not (options.resume or options.retry):
        raise RunRefused(
            f"{directory.url!r} already holds a run ({earlier.record.get('state', 'unfinished')}): continue it with "
            "resume=True (--resume), start over with fresh=True (--fresh), or choose another run directory"
        )
    return earlier


def settle(directory: RunDirectory | None, options: RunOptions, earlier: Earlier, plan: Plan) -> Attempt:
    """Decide whether to begin, to start afresh or to continue; raise on a refusal. Nothing is written."""
    if directory is None or earlier.plan is None:
        return Attempt()
    if options.fresh:
        return Attempt(stale=True)
    changes = difference(earlier.plan["steps"], plan.steps())
    if changes and earlier.has_events and not options.allow_changed:
        listed = "\n".join(f"  {line}" for line in changes)
        raise RunRefused(
            f"the pipeline has changed since the run in {directory.url!r} began:\n{listed}\nStart over with "
            "fresh=True (--fresh), or keep the finished work and run only the rest with the changed pipeline, with "
            "allow_changed=True (--allow-changed)"
        )
    if not (options.resume or options.retry):
        return Attempt(stale=True)
    number = int(earlier.record.get("attempt", 1)) + 1
    return Attempt(number, number if changes else int(earlier.plan.get("since", 0)), changes=tuple(changes))


def write_plan(directory: RunDirectory, plan: Plan, attempt: Attempt, earlier: Earlier) -> None:
    """Write the present plan, and keep it and the previous one under the attempts that introduced them."""
    content = {
        "name": plan.name,
        "fingerprint": plan.fingerprint(),
        "since": attempt.pipeline_attempt,
        "steps": plan.steps(),
        "text": plan.describe(),
    }
    if attempt.changes and earlier.plan is not None:
        before = _plan_file(int(earlier.plan.get("since", 0)))
        if not storage.exists(directory.path(before)):  # earlier versions stored only the last plan
            directory.write_json(before, earlier.plan)
    directory.write_json(_plan_file(attempt.pipeline_attempt), content)
    directory.write_json("plan.json", content)


def plans_of(directory: RunDirectory) -> list[dict[str, Any]]:
    """The plans that a run directory has events of, in order; ``since`` is the first attempt that each applies to."""
    folder = directory.path(PLANS)
    names = [storage.file_name(path) for path in storage.list_files(folder)] if storage.exists(folder) else []
    found = [directory.read_json(f"{PLANS}/{name}") for name in sorted(names)] or [directory.read_json("plan.json")]
    return sorted((plan for plan in found if plan), key=lambda plan: int(plan.get("since", 0)))


def plan_of(generation: str, since: Sequence[int]) -> int:
    """The index in ``since`` (the attempts that introduced a plan, ascending) of the plan under which a source was
    processed.
    """
    begun = int(generation.partition("+")[2] or 0)
    return max((place for place, attempt in enumerate(since) if attempt <= begun), default=0)


def _plan_file(since: int) -> str:
    return f"{PLANS}/{since:04d}.json"


def _read(directory: RunDirectory, name: str, options: RunOptions) -> Any:
    try:
        return directory.read_json(name)
    except RunRefused:
        if options.fresh:  # starting over does not need the content of a damaged file
            return {}
        raise
