"""How do sources enter a run? They are listed, named, recorded, and skipped if they are complete.

Two laws depend on the order in which these generators run. The first source is listed before the run directory is
touched (`Sources.listed`), so that a wrong path leaves nothing to resume or to replace. A source is recorded in the run
directory before it is handed out (`Sources.incomplete`), with the generation that its events will carry, so that
leftovers of a killed attempt can be distinguished from events that count.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from operator import length_hint
from typing import Any, Literal, NamedTuple, cast

from curator_core import storage
from curator_core.accounts.accounts import Accounts
from curator_core.accounts.source_list import GONE, Listed, SourceList
from curator_core.errors import UsageError
from curator_core.model.task import EmptyTask, FileGroupTask, Task
from curator_core.planning.plan import Plan
from curator_core.running.options import RunOptions
from curator_core.running.outputs import Outputs
from curator_core.running.progress import RunProgress
from curator_core.running.result import RunSummary

# Sources are recorded in the run directory before they are handed out: together, all that arrive within this time.
NOTE_SECONDS = 0.05
NOTE_SOURCES = 10_000


class Decision(NamedTuple):
    """Whether a source has to run, the generation that its events carry from now on, and its state."""

    # A tuple, because one is made for each source, and a frozen dataclass takes three times as long.

    run: bool
    generation: str
    kind: Literal["new", "changed", "unchanged", "unfinished"]


def decide(
    content: str, known: str | None, *, complete: bool, intact: bool, attempt: int, pipeline_attempt: int
) -> Decision:
    """Whether a source has to run.

    ``content`` is the present generation of the source, with which it was listed. ``known`` is the generation in the
    run directory, or None for a new source. ``complete`` says that every part of the source is accounted for, and
    ``intact`` that nothing requires it to run again: neither a missing file nor the user. ``pipeline_attempt`` is the
    attempt that introduced the present pipeline, 0 for the first.

    A generation is the content and, after a ``+``, the attempt that started the source again. The attempt distinguishes
    events of the same content that must not be mixed.
    """
    if known is None:
        return Decision(True, _begun(content, pipeline_attempt), "new")
    if known == GONE:
        # A source that left and came back must not be mixed with its old events.
        return Decision(True, _begun(content, attempt), "new")
    was, _, begun = known.partition("+")
    if was != content.partition("+")[0]:
        return Decision(True, _begun(content, attempt), "changed")
    if complete:
        return Decision(False, known, "unchanged") if intact else Decision(True, _begun(content, attempt), "unfinished")
    if int(begun or 0) < pipeline_attempt:
        # Output of this pipeline must not be mixed with that of an earlier one for the same source.
        return Decision(True, _begun(content, pipeline_attempt), "unfinished")
    return Decision(True, known, "unfinished")


def _begun(content: str, attempt: int) -> str:
    return f"{content.partition('+')[0]}+{attempt}" if attempt else content


class Sources:
    """The sources of a run, segment by segment. ``listing`` is the list in the run directory; None if there is none."""

    def __init__(
        self,
        plan: Plan,
        outputs: Outputs,
        options: RunOptions,
        listing: SourceList | None,
        *,
        initial_tasks: Sequence[Task[Any]] | None,
        attempt: int,
        pipeline_attempt: int,
        progress: RunProgress,
        summary: RunSummary,
    ) -> None:
        self.plan = plan
        self.outputs = outputs
        self.options = options
        self.listing = listing
        self.initial_tasks = initial_tasks
        self.attempt = attempt
        self.pipeline_attempt = pipeline_attempt
        self.progress = progress
        self.summary = summary
        self.by_segment: list[list[str]] = []  # the ids of the sources so far, in order
        self._several = False  # whether there has been a source of several files

    # Listing ------------------------------------------------------------------------------------------------------

    def listed(self) -> Iterator[Task[Any]]:
        """The sources of the first segment; the first one is listed at once."""
        tasks = self._named()
        return chain(list(islice(tasks, 1)), tasks)

    def _named(self) -> Iterator[Task[Any]]:
        for index, given in enumerate(islice(self._from_stage(), self.options.limit)):
            task = given if given.task_id else replace(given, task_id=f"task-{index:05d}")
            if "." in task.task_id or "/" in task.task_id:
                raise UsageError(
                    f"the id of a source names files and the children of a task, so it must have no dot and no slash: "
                    f"{task.task_id!r}"
                )
            if not task.validate():
                raise UsageError(f"source {task.task_id!r} is not a valid {type(task).__name__}")
            task._source = task.task_id
            # The part after the plus is the attempt, see `decide`.
            task._generation = task._generation.replace("+", "_")
            yield task

    def _from_stage(self) -> Iterator[Task[Any]]:
        if self.initial_tasks is not None:
            for task in self.initial_tasks:
                given = copy.copy(task)
                given._stage_perf, given._pending, given._outputs = [], [], []
                yield given
            return
        if self.plan.source is None:
            yield EmptyTask(task_id=f"{_clean(self.plan.name)}")
            return
        members = self.listing.members() if self.listing is not None and self.attempt > 1 else {}
        start = EmptyTask(task_id="sources", _metadata={"earlier_members": members} if members else {})
        made = cast(Any, self.plan.source.stage).process(start)
        # Some source stages report their number of sources. Listing all sources only to count them would hold them in
        # memory.
        total = length_hint(made, 0)
        self.progress.total_sources = min(total, self.options.limit or total) if total else None
        # Folders are looked up both as written and absolute, since making the path of each source absolute would take
        # seconds.
        folders = {
            spelling.rstrip("/"): writer.name
            for writer in self.outputs.writers
            for spelling in (writer.folder, storage.absolute(writer.folder))
        }
        for index, task in enumerate(made or ()):
            if not task.task_id:
                task.task_id = f"{self.plan.source.name}-{index:05d}"
            if folders and isinstance(task, FileGroupTask) and task.data:
                folder = task.data[0].rpartition("/")[0]
                if folder in folders:
                    self.summary.warnings.append(
                        f"{task.data[0]!r} is read from the folder that {folders[folder]} writes to: a run that finds "
                        "its input by that folder, or by a pattern, would read what this one has written"
                    )
                    folders.clear()  # one warning is enough
            yield task

    # Handing out --------------------------------------------------------------------------------------------------

    def incomplete(self, tasks: Iterator[Task[Any]], accounts: Accounts) -> Iterator[Task[Any]]:
        """The sources of the next segment that still have to run; those that are complete and unchanged are skipped."""
        first = not self.by_segment
        ids: list[str] = []
        self.by_segment.append(ids)
        return self._incomplete(self._met(tasks, ids), accounts, first)

    def _met(self, tasks: Iterator[Task[Any]], ids: list[str]) -> Iterator[Task[Any]]:
        met: set[str] = set()
        for task in tasks:
            if task.task_id in met:
                raise UsageError(f"two sources have the id {task.task_id!r}: every source needs an id of its own")
            met.add(task.task_id)
            ids.append(task.task_id)
            yield task

    def _incomplete(self, tasks: Iterator[Task[Any]], accounts: Accounts, first: bool) -> Iterator[Task[Any]]:
        if self.listing is None:
            yield from tasks
            return
        for batch in _batches(tasks):
            rows, todo = [], []
            for task in batch:
                known = self.listing.rows.get(task.task_id)
                decision = self._decide(task, known.generation if known else None, accounts)
                task._generation = decision.generation
                if decision.run:
                    todo.append(task)
                if first:
                    self._count(decision)
                row = Listed(task.task_id, decision.generation, self._members_of(task))
                if known != row:
                    rows.append(row)
            self.listing.note(rows)
            for row in rows:
                accounts.expect(row.source, row.generation)
            yield from todo

    def _decide(self, task: Task[Any], known: str | None, accounts: Accounts) -> Decision:
        content = task._generation
        # If the content has changed, it does not matter whether the source is complete, and finding out takes time.
        same = known is not None and known.partition("+")[0] == content.partition("+")[0]
        complete = same and accounts.is_complete(task.task_id)
        again = complete and self.options.retry and accounts.has_failures(task.task_id)
        return decide(
            content,
            known,
            complete=complete,
            intact=complete and not again and self.outputs.are_there(accounts.reachable(task.task_id)),
            attempt=self.attempt,
            pipeline_attempt=self.pipeline_attempt,
        )

    def _count(self, decision: Decision) -> None:
        inputs = self.summary.inputs
        inputs[decision.kind] = inputs.get(decision.kind, 0) + 1
        if not decision.run:
            self.progress.skipped_sources += 1
            self.summary.sources_skipped += 1

    def _members_of(self, task: Task[Any]) -> str:
        """The files of a source that has several, so that a resumed run groups the same files."""
        if not isinstance(task, FileGroupTask):
            return ""
        self._several = self._several or len(task.data) > 1
        return json.dumps([list(part) for part in task.parts]) if self._several else ""

    # Afterwards ---------------------------------------------------------------------------------------------------

    def met(self) -> set[str]:
        """All sources of this run, merges included."""
        return {source for ids in self.by_segment for source in ids}

    def known(self) -> set[str]:
        """All sources of this run and earlier attempts: files that are named after them belong to this run."""
        return self.met() if self.listing is None else set(self.listing.rows)

    def note_removed(self, accounts: Accounts) -> None:
        """Mark sources that are no longer listed as gone, before their files are removed."""
        if self.listing is None:
            return
        present = self.met()
        removed = [
            row.source for row in self.listing.rows.values() if row.generation != GONE and row.source not in present
        ]
        if removed:
            self.listing.forget(removed)
            self.summary.inputs["removed"] = len(removed) - sum(source in accounts.merges for source in removed)


def _batches(tasks: Iterator[Task[Any]]) -> Iterator[list[Task[Any]]]:
    """Batches of tasks as they arrive; batches are large if tasks arrive quickly."""
    while True:
        batch: list[Task[Any]] = []
        started = time.monotonic()
        for task in tasks:
            batch.append(task)
            if len(batch) >= NOTE_SOURCES or time.monotonic() - started >= NOTE_SECONDS:
                break
        if not batch:
            return
        yield batch


def _clean(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name) or "pipeline"
