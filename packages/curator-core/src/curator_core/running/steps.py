"""The run directory of a workflow: which steps there are, how each stands, and what each has left for those after it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from curator_core import storage
from curator_core.accounts.source_list import SourceList
from curator_core.errors import RunRefused
from curator_core.running.directory import RunDirectory
from curator_core.running.options import RunOptions

STEPS, WORK = "steps", "work"
KIND = "workflow"  # of a run directory; that of a pipeline has none


@dataclass
class StepRecord:
    """What the run directory remembers of a step.

    ``before`` is the fingerprint of what the steps before it had left when it began, and ``left`` of what it has left
    itself. ``anew``: it has to begin anew and has not begun yet. ``freed``: the folders of ``work`` that went when it was
    complete.
    """

    name: str
    folder: str
    state: str = "running"
    before: str = ""
    left: str = ""
    anew: bool = False
    freed: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return self.state in ("done", "quarantined")


@dataclass
class EarlierSteps:
    """What a run directory holds of the attempts before: nothing, or how far a workflow has come.

    ``replaces``: the run began with a fresh start and is not complete, so it may still write over finished output.
    """

    attempt: int = 0
    state: str = ""
    steps: dict[str, StepRecord] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    replaces: bool = False
    record: dict[str, Any] = field(default_factory=dict)

    def given_back_from(self, number: int) -> list[str]:
        """The folders that went with step ``number`` (the first is 1) or one after it."""
        return [folder for record in list(self.steps.values())[number - 1 :] for folder in record.freed]


def step_folder(number: int, name: str) -> str:
    """Where the run directory of a step is, in that of its workflow."""
    return f"{STEPS}/{number:02d}-{name}"


def look(directory: RunDirectory, options: RunOptions) -> EarlierSteps:
    """How far a workflow has come here; refused where this run may not go on with it. Writes nothing."""
    try:
        record = directory.read_json("run.json")
    except RunRefused:
        if not options.fresh:
            raise
        record = {}
    if record is None:
        if options.retry:
            raise RunRefused(f"{directory.url!r} holds no run to retry")
        return EarlierSteps(replaces=options.fresh)
    found = EarlierSteps(
        int(record.get("attempt", 1)),
        str(record.get("state", "")),
        {step["folder"]: _record(step) for step in record.get("steps", ())},
        dict(record.get("marks", {})),
        bool(record.get("replaces")) and record.get("state") not in ("done", "quarantined"),
        dict(record),
    )
    if options.fresh:
        return EarlierSteps(marks=found.marks, replaces=True)
    if record.get("kind") != KIND:
        raise RunRefused(
            f"{directory.url!r} holds the run of a pipeline, not of a workflow: choose another run directory, or start "
            "over with fresh=True (--fresh)"
        )
    if not (options.resume or options.retry):
        if any(step.complete or has_events(directory.path(step.folder)) for step in found.steps.values()):
            raise RunRefused(
                f"{directory.url!r} already holds a run ({found.state or 'unfinished'}): continue it with resume=True "
                "(--resume), start over with fresh=True (--fresh), or choose another run directory"
            )
        return EarlierSteps(marks=found.marks, replaces=found.replaces)
    return found


def has_events(run_dir: str) -> bool:
    """Whether a run, or a step of it, has recorded any work."""
    directory = RunDirectory(run_dir)
    return not directory.is_empty("ledger") or any(has_events(place) for place in step_folders(run_dir))


def step_folders(run_dir: str) -> list[str]:
    """The run directories of the steps of a workflow, in order; none for the run of a pipeline."""
    record = RunDirectory(run_dir).read_json("run.json")
    return [storage.join(run_dir, step["folder"]) for step in (record or {}).get("steps", ())]


def left_by(directory: RunDirectory) -> str:
    """A fingerprint of what a complete step has left: its files, or, where it writes none, what it was made of."""
    record = directory.read_json("run.json") or {}
    marks = record.get("marks", {})
    if marks:
        # Not the folders: a run directory may have moved.
        return _digest(sorted(marks.values()))
    plan = directory.read_json("plan.json") or {}
    rows = SourceList(directory.url).rows.values()
    return _digest([plan.get("fingerprint"), sorted((row.source, row.generation) for row in rows)])


def fingerprint_of(lefts: Iterable[str]) -> str:
    """A fingerprint of what several steps have left."""
    return _digest(list(lefts))


def as_values(records: Iterable[StepRecord]) -> list[dict[str, Any]]:
    """The records as ``run.json`` holds them."""
    return [asdict(record) for record in records]


def _record(content: Mapping[str, Any]) -> StepRecord:
    known = {item.name for item in fields(StepRecord)}
    return StepRecord(**{key: value for key, value in content.items() if key in known})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
