"""Which runs are below a folder, and how did each end?"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curator_core import storage
from curator_core.errors import CuratorError, UsageError
from curator_core.running.attempt import WORKFLOW
from curator_core.running.directory import RunDirectory
from curator_core.running.locks import owner_at_work
from curator_core.running.result import RunSummary, StepSummary
from curator_core.running.so_far import settled, so_far

# The file that a run writes first, and the one that it always has once it has begun.
_RECORD = "run.json"
_PLAN = "plan.json"


@dataclass
class ListedRun:
    """An entry of a list of runs.

    ``state`` is that of the record, with two exceptions: it is ``interrupted`` if the record says that the run is
    active but no process is working on it, and ``damaged`` if the record cannot be read; ``problem`` says why.
    ``steps`` are those of a workflow.
    """

    name: str
    state: str
    folder: str
    started: str | None = None
    seconds: float | None = None
    sources: int | None = None
    rows_in: int | None = None
    rows_out: int | None = None
    attempt: int = 1
    problem: str = ""
    steps: list[ListedRun] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "steps": [step.as_dict() for step in self.steps]}


def runs_below(folder: str) -> list[ListedRun]:
    """The runs in a folder and in the folders inside it, in the order in which they began; steps are listed in their
    workflow.
    """
    if not storage.is_folder(folder):
        raise UsageError(f"there is no folder {folder!r}")
    found = [read_run(place) for place in _run_directories(folder)]
    return sorted(found, key=lambda run: (run.started or "", run.folder))


def read_run(run_dir: str) -> ListedRun:
    """The entry of a run directory; if it cannot be read, the entry says why."""
    directory = RunDirectory(run_dir)
    base = storage.file_name(run_dir)
    try:
        record = directory.read_json(_RECORD)
        plan = directory.read_json(_PLAN) or {}
    except CuratorError as error:
        return ListedRun(base, "damaged", run_dir, problem=str(error))
    if record is None:
        return ListedRun(str(plan.get("name") or base), "damaged", run_dir, problem="there is a plan and no run.json")
    state = str(record["state"])
    if state == "running" and owner_at_work(run_dir) is None:
        state = "interrupted"
    run = ListedRun(
        str(plan.get("name") or base),
        state,
        run_dir,
        started=record.get("started"),
        seconds=_seconds(record),
        attempt=int(record.get("attempt") or 1),
    )
    content = settled(record, run_dir).get("summary")
    if content:
        summary = RunSummary.from_dict(content)
        run.name, run.seconds = summary.name, summary.seconds
        run.sources, run.rows_in, run.rows_out = summary.sources, summary.rows_in, summary.rows_out
        run.steps = [_step(step, run_dir) for step in summary.steps]
    elif record.get("kind") != WORKFLOW:
        reached = so_far(run_dir)
        run.sources = reached.listed
        run.rows_in = max((stage.rows_in for stage in reached.stages), default=0)
        run.rows_out = reached.stages[-1].rows_out if reached.stages else 0
    else:
        begun = [storage.join(run_dir, step["folder"]) for step in record.get("steps") or () if step["folder"]]
        run.steps = [read_run(place) for place in begun if storage.exists(storage.join(place, _PLAN))]
    return run


def _step(step: StepSummary, run_dir: str) -> ListedRun:
    folder = storage.join(run_dir, step.folder) if step.folder else run_dir
    return ListedRun(
        step.name,
        step.state,
        folder,
        seconds=step.seconds,
        sources=step.sources,
        rows_in=step.rows_in,
        rows_out=step.rows_out,
        steps=[_step(inner, folder) for inner in step.steps],
    )


def _seconds(record: dict[str, Any]) -> float | None:
    """How long a run without a summary took; None if it is running or was interrupted."""
    started, ended = record.get("started"), record.get("ended")
    if not started or not ended:
        return None
    try:
        return (datetime.datetime.fromisoformat(ended) - datetime.datetime.fromisoformat(started)).total_seconds()
    except ValueError:
        return None


def _run_directories(folder: str) -> Iterator[str]:
    """The run directories in a folder; the inside of a run directory is not searched."""
    if not storage.is_local(folder):
        names = sorted(
            storage.parent(path) for path in storage.list_files(folder) if storage.file_name(path) in (_RECORD, _PLAN)
        )
        found: list[str] = []
        for place in dict.fromkeys(names):
            if not found or not f"{place}/".startswith(f"{found[-1]}/"):
                found.append(place)
        yield from found
        return
    # Files are not listed recursively: the ledger of a run may have a million.
    storage.require_files(folder)
    for here, folders, files in os.walk(storage.local_path(folder)):
        if _RECORD in files or (_PLAN in files and Path(here, "ledger").is_dir()):
            folders.clear()
            yield here.removeprefix("./")
            continue
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not storage.kernel_files_at(f"{here}/{name}")
        )
