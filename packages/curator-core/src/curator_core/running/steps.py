"""The run directory of a workflow: its steps, the state of each, and the output that each has left for later ones."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from curator_core import storage
from curator_core.accounts.ledger import open_accounts
from curator_core.accounts.source_list import GONE, SourceList
from curator_core.errors import RunRefused
from curator_core.model.task import Task
from curator_core.planning.plan import Plan, difference
from curator_core.running.attempt import WORKFLOW
from curator_core.running.directory import RunDirectory
from curator_core.running.options import RunOptions
from curator_core.running.outputs import SUCCESS, Outputs, checksum
from curator_core.running.progress import RunProgress
from curator_core.running.result import RunSummary
from curator_core.running.sources import Sources
from curator_core.running.verdict import ordered_results
from curator_core.running.workflow_plan import is_within

STEPS, WORK = "steps", "work"


@dataclass
class StepRecord:
    """The record of a step in the run directory.

    ``before`` is the fingerprint of the output of earlier steps when it began, and ``left`` that of its own output.
    ``anew`` says that it must start afresh and has not begun yet. ``freed`` are the folders, relative to the run
    directory, that were removed when it was complete.
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
    """The records of earlier attempts of a workflow in a run directory, if any.

    ``replaces`` says that the run began with a fresh start and is not complete, so it may still overwrite finished
    output.
    """

    attempt: int = 0
    state: str = ""
    steps: dict[str, StepRecord] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    replaces: bool = False
    ours: bool = False  # a workflow has run here: ``steps`` and ``work`` are its own
    warnings: list[str] = field(default_factory=list)

    def given_back_from(self, number: int) -> list[str]:
        """The folders that were removed with step ``number`` (the first is 1) or a later one."""
        return [folder for record in list(self.steps.values())[number - 1 :] for folder in record.freed]


def step_folder(number: int, name: str) -> str:
    """The run directory of a step, relative to that of its workflow."""
    return f"{STEPS}/{number:02d}-{name}"


def look(directory: RunDirectory, options: RunOptions) -> EarlierSteps:
    """Read how far a workflow has got here; raise if this run may not continue it. Nothing is written."""
    try:
        record = directory.read_json("run.json")
    except RunRefused:
        if not options.fresh:
            raise
        record = {}
    ours = _is_workflow(directory, record)
    for name in (STEPS, WORK):
        if not ours and not directory.is_empty(name):
            raise RunRefused(
                f"{directory.path(name)!r} exists already, and no run of a workflow has made it. A workflow stores "
                "its own files there, so choose another run directory"
            )
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
        ours,
    )
    if options.fresh:
        return EarlierSteps(marks=found.marks, replaces=True, ours=ours)
    if not ours:
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
        return EarlierSteps(marks=found.marks, replaces=found.replaces, ours=True)
    return found


def _is_workflow(directory: RunDirectory, record: Mapping[str, Any] | None) -> bool:
    if record:
        return record.get("kind") == WORKFLOW
    with contextlib.suppress(RunRefused):  # damaged too
        return bool((directory.read_json("plan.json") or {}).get("kind") == WORKFLOW)
    return False


def has_events(run_dir: str) -> bool:
    """Whether a run, or a step of it, has recorded any work."""
    directory = RunDirectory(run_dir)
    return not directory.is_empty("ledger") or any(has_events(place) for place in step_folders(run_dir))


def counting_folder(run_dir: str) -> str | None:
    """The run directory of the step that counts; None for the run of a pipeline."""
    record = RunDirectory(run_dir).read_json("run.json") or {}
    return storage.join(run_dir, record["counts"]) if record.get("counts") else None


def step_folders(run_dir: str) -> list[str]:
    """The run directories of the steps of a workflow, in order; none for the run of a pipeline."""
    record = RunDirectory(run_dir).read_json("run.json")
    return [storage.join(run_dir, step["folder"]) for step in (record or {}).get("steps", ())]


def pipelines_in(run_dir: str, above: str = "") -> dict[str, str]:
    """The run directories of all pipelines of a workflow, by the names of their steps; empty for the run of a pipeline."""
    record = RunDirectory(run_dir).read_json("run.json") or {}
    found: dict[str, str] = {}
    for step in record.get("steps", ()):
        place = storage.join(run_dir, step["folder"])
        found |= pipelines_in(place, f"{above}{step['name']}/") or {f"{above}{step['name']}": place}
    return found


def workflows_in(run_dir: str) -> list[str]:
    """The run directories of the workflows among the steps of a workflow, in order, with those within them."""
    found: list[str] = []
    for place in step_folders(run_dir):
        if step_folders(place):
            found += [place, *workflows_in(place)]
    return found


def marks_in(run_dir: str) -> dict[str, str]:
    """The checksums of the success files that a run or one of its steps has written, by folder."""
    directory = RunDirectory(run_dir)
    found = dict((directory.read_json("run.json") or {}).get("marks", {}))
    for place in step_folders(run_dir):
        found |= marks_in(place)
    return found


def left_by(directory: RunDirectory) -> str:
    """A fingerprint of the output of a complete step: of its files or, if it writes none, of its plan and sources."""
    record = directory.read_json("run.json") or {}
    if record.get("kind") == WORKFLOW:
        return _digest([step["left"] for step in record.get("steps", ())])
    marks = record.get("marks", {})
    if marks:
        # The folders are not included, since a run directory may have moved.
        return _digest(sorted(marks.values()))
    plan = directory.read_json("plan.json") or {}
    rows = SourceList(directory.url).rows.values()
    return _digest([plan.get("fingerprint"), sorted((row.source, row.generation) for row in rows)])


def stands(
    step: str, plan: Plan, directory: RunDirectory, options: RunOptions, *, outside: bool, freed: Iterable[str]
) -> bool:
    """Whether a complete step has nothing to do: its stages, its sources and its output have not changed.

    ``outside`` says that its sources are outside the run directory, so that others may have changed them. Output in the
    folders ``freed`` is not checked.
    """
    record, earlier = directory.read_json("run.json"), directory.read_json("plan.json")
    if record is None or earlier is None or "summary" not in record:
        return False
    changes = difference(earlier["steps"], plan.steps())
    if changes and options.allow_changed:
        return False
    if changes:
        listed = "\n".join(f"  {line}" for line in changes)
        raise RunRefused(
            f"step {step!r} has changed since the run in {directory.url!r} began:\n{listed}\nStart over with fresh=True "
            "(--fresh), or keep the finished work and run only the rest with the changed step, with "
            "allow_changed=True (--allow-changed)"
        )
    if options.retry and RunSummary.from_dict(record["summary"]).has_quarantined:
        return False
    if outside and not _same_sources(plan, directory, options, int(record["summary"]["sources"])):
        return False
    return all(
        is_marked(folder, mark)
        for folder, mark in record.get("marks", {}).items()
        if not any(is_within(folder, given) for given in freed)
    )


def is_marked(folder: str, mark: str) -> bool:
    """Whether the success file of a folder is the one with this checksum."""
    path = storage.join(folder, SUCCESS)
    return storage.exists(path) and checksum(storage.read_bytes(path)) == mark


def _same_sources(plan: Plan, directory: RunDirectory, options: RunOptions, number: int) -> bool:
    """Whether the sources that a step would list now are its ``number`` recorded sources, with the same content."""
    listing = SourceList(directory.url)
    sources = Sources(
        plan,
        Outputs(plan),
        options,
        listing,
        initial_tasks=None,
        attempt=2,
        pipeline_attempt=0,
        progress=RunProgress(plan.name),
        summary=RunSummary(plan.name),
    )
    met = 0
    for task in sources.listed():
        row = listing.rows.get(task.task_id)
        if row is None or row.generation.partition("+")[0] != task._generation.partition("+")[0]:
            return False
        met += 1
    return met == number


def summary_of(run_dir: str) -> RunSummary:
    """The summary of a run that was complete and had nothing to do this time."""
    record = RunDirectory(run_dir).read_json("run.json") or {}
    found = RunSummary.from_dict(record["summary"])
    found.sources_skipped, found.inputs = found.sources, {"unchanged": found.sources}
    waiting = list(found.steps)
    while waiting:
        step = waiting.pop()
        step.complete_before = True
        waiting += step.steps
    return found


def outputs_of(run_dir: str) -> dict[str, Any]:
    """The output of a run by stage: the folder and the number of files."""
    return dict((RunDirectory(run_dir).read_json("run.json") or {}).get("outputs", {})) if run_dir else {}


def results_of(run_dir: str) -> list[Task[Any]]:
    """The results of a complete run."""
    listing = SourceList(RunDirectory(run_dir).url)
    present = [row.source for row in listing.rows.values() if row.generation != GONE]
    return ordered_results(open_accounts(run_dir, listing), present, {}, run_dir)


def fingerprint_of(lefts: Iterable[str]) -> str:
    """A fingerprint of the output of several steps."""
    return _digest(list(lefts))


def as_values(records: Iterable[StepRecord]) -> list[dict[str, Any]]:
    """The records as values for ``run.json``."""
    return [asdict(record) for record in records]


def _record(content: Mapping[str, Any]) -> StepRecord:
    known = {item.name for item in fields(StepRecord)}
    return StepRecord(**{key: value for key, value in content.items() if key in known})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
