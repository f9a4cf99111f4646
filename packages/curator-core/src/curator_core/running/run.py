"""One run from plan to verdict: list sources, skip what is complete, run the rest, prove that nothing is missing."""

from __future__ import annotations

import contextlib
import functools
import json
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from importlib import metadata
from itertools import islice
from operator import itemgetter, length_hint
from typing import Any, cast

from curator_core import storage
from curator_core.accounts.accounts import Accounts
from curator_core.accounts.events import DONE, FAILED, MERGE, MERGED, Event, events_table
from curator_core.accounts.ledger import LedgerWriter, open_accounts, read_results
from curator_core.accounts.parquet import write_parquet
from curator_core.accounts.source_list import GONE, Listed, SourceList
from curator_core.accounts.tally import StageTotals, Tally
from curator_core.errors import AccountingError, CuratorError, PlanError, RunRefused, TooManyErrors, UsageError
from curator_core.executors.base import BaseExecutor, SegmentRun
from curator_core.formatting import count
from curator_core.model.codec import decode_task
from curator_core.model.lineage import source_id, source_of
from curator_core.model.machine import system_name
from curator_core.model.stage import ProcessingStage, overrides
from curator_core.model.task import EmptyTask, FileGroupTask, FileRecord, StagePerfStats, Task
from curator_core.planning.make import make_plan
from curator_core.planning.plan import difference
from curator_core.running.directory import RunDirectory
from curator_core.running.options import RunOptions
from curator_core.running.outputs import SUCCESS, _add_outputs, _checksum, _ending, _mark, _once
from curator_core.running.result import Progress, RunProgress, RunResult, RunSummary
from curator_core.running.sources import _batches, _generation, _started
from curator_core.worker.context import RunContext
from curator_core.worker.merge import MergeTask, store_task

# A run is not judged by max_error_fraction before it has seen this many rows.
ERROR_SAMPLE_ROWS = 100


def run_stages(
    stages: Sequence[ProcessingStage[Any, Any]],
    executor: BaseExecutor,
    *,
    name: str = "pipeline",
    initial_tasks: Sequence[Task[Any]] | None = None,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Run ``stages`` on ``executor`` and account for everything."""
    return _Run(stages, executor, name, initial_tasks, options or RunOptions(), progress).run()


class _Run:
    def __init__(
        self,
        stages: Sequence[ProcessingStage[Any, Any]],
        executor: BaseExecutor,
        name: str,
        initial_tasks: Sequence[Task[Any]] | None,
        options: RunOptions,
        progress: Progress | None,
    ) -> None:
        self.stages = stages
        self.executor = executor
        self.name = name
        self.initial_tasks = None if initial_tasks is None else list(initial_tasks)
        self.options = options
        self.report = progress or (lambda _: None)
        self.directory = RunDirectory(options.run_dir) if options.run_dir else None
        self.accounts = Accounts()
        self.order: dict[str, int] = {}  # sources of the first segment, in order
        self.segment_sources: list[dict[str, int]] = []
        self.listing: SourceList | None = None
        self.grouped = False  # whether a source of several files has been seen
        self.merges_now: set[str] = set()
        self.since = 0  # the attempt that brought the present pipeline; 0 for the first
        self.written: dict[str, Any] = {}
        self.marks: dict[str, str] = {}  # by folder, the checksum of the mark that this run directory has put there
        # By folder, the checksum of the mark of what a run without a directory writes over.
        self.replaced: dict[str, str] = {}
        self.attempt = 1
        self.earlier: Any = None  # the plan of what ran in the run directory before
        self.record: dict[str, Any] = {}  # what came of it
        self.stale = False  # whether the run directory holds what is to be forgotten before this run begins
        self.begun = False  # whether the run directory is ours: what goes wrong before leaves it as it was
        self.progress = RunProgress(name)
        self.summary = RunSummary(name, executor=type(executor).__name__)
        self.started = time.monotonic()

    def run(self) -> RunResult:
        if self.directory is not None:
            self.directory.lock()
        try:
            self._look_at_directory()  # an executor may take ten seconds to open: what needs no plan is refused before
            self.executor.open()
            self.summary.opened_after = round(time.monotonic() - self.started, 3)
            try:
                return self._run()
            except BaseException as error:
                self._record_failure(error)
                raise
            finally:
                self.executor.close()
        finally:
            if self.directory is not None:
                self.directory.unlock(leave_no_trace=not self.begun)

    def _run(self) -> RunResult:
        # An empty list of tasks says nothing of their type.
        nothing = EmptyTask if self.initial_tasks is None else Task
        first = type(self.initial_tasks[0]) if self.initial_tasks else nothing
        self.plan = make_plan(
            self.stages,
            self.executor.machine(),
            name=self.name,
            simultaneous=self.executor.simultaneous,
            environments=self.executor.environments,
            first_task=first,
        )
        self.summary.decisions = list(self.plan.decisions)
        self.summary.warnings = list(self.plan.warnings)
        if self.initial_tasks is not None and self.plan.source is not None:
            raise PlanError(
                f"the pipeline lists its own sources with {self.plan.source.name!r}, so it takes no initial_tasks"
            )
        self._settle_attempt()
        # Listed before anything is written: after a wrong path there is nothing to resume or to replace.
        first_tasks = _started(self._first_tasks())
        self._begin()
        self.context = RunContext(
            run_dir=self.directory.url if self.directory else None,
            attempt=self.attempt,
            on_error=self.options.on_error,
            retries=self.options.retries,
        )
        self.progress.segments = len(self.plan.segments)
        self._unmark_outputs()
        self.report(self.progress)  # that it has begun: the first source may take long
        results: dict[str, Task[Any]] = {}
        waiting: list[Task[Any]] = []
        for number, segment in enumerate(self.plan.segments):
            last = number == len(self.plan.segments) - 1
            self.progress.segment = number
            sources: dict[str, int] = {}
            self.segment_sources.append(sources)
            if number == 0:
                tasks = self._remember_sources(first_tasks, sources)
            else:
                tasks = self._merge_tasks(segment.merge, number, waiting, sources)
            waiting = []
            folder = ""
            if self.directory is not None:
                folder = "" if last else self.directory.path("spill", str(number))
            run = SegmentRun(
                segment,
                self._incomplete(tasks, number),
                self.context,
                "done" if last else "merged",
                folder,
                self._collect,
                self._advance,
            )
            stream = self.executor.run_segment(run) if segment.groups or segment.merge else self._pass_through(run)
            # Closed here and now: on an error or Ctrl-C no worker outlives this line.
            with _closing(stream):
                for task in stream:
                    if last:
                        results[task.task_id] = task
                    elif not folder:
                        waiting.append(task)
                    del task
            self._reload()
        return self._conclude(results)

    # The run directory -------------------------------------------------------------------------------------------

    def _look_at_directory(self) -> None:
        """What ran here before; refuse what needs no plan to be refused. Writes nothing."""
        directory, options = self.directory, self.options
        if directory is None:
            return
        self.listing = SourceList(directory.url)
        self.earlier = self._read_earlier("plan.json")
        self.record = self._read_earlier("run.json") or {}
        self.marks = dict(self.record.get("marks", {}))
        if options.fresh:
            return
        if self.earlier is None:
            if options.retry:
                raise RunRefused(f"{directory.url!r} holds no run to retry")
        # A run that failed before its first task was done (a package was missing) has nothing that could be lost.
        elif not (options.resume or options.retry or directory.is_empty("ledger")):
            raise RunRefused(
                f"{directory.url!r} already holds a run ({self.record.get('state', 'unfinished')}): go on with it with "
                "resume=True (--resume), start over with fresh=True (--fresh), or choose another run directory"
            )

    def _settle_attempt(self) -> None:
        """Decide whether to begin, to begin anew or to go on, or refuse; writes nothing."""
        directory, options = self.directory, self.options
        if directory is None:
            return
        if options.fresh:
            self.stale = self.earlier is not None
            return
        if self.earlier is not None:
            changes = difference(self.earlier["steps"], self.plan.steps())
            if changes and not options.allow_changed and not directory.is_empty("ledger"):
                listed = "\n".join(f"  {line}" for line in changes)
                raise RunRefused(
                    f"the pipeline has changed since the run in {directory.url!r} began:\n{listed}\nStart over with "
                    "fresh=True (--fresh), or keep what is done and run only the rest with the changed pipeline, with "
                    "allow_changed=True (--allow-changed)"
                )
        self._require_own_outputs()
        if self.earlier is None:
            return
        if not (options.resume or options.retry):
            self.stale = True
            return
        self.attempt = int(self.record.get("attempt", 1)) + 1
        self.since = self.attempt if changes else int(self.earlier.get("since", 0))
        self.summary.attempt = self.attempt

    def _begin(self) -> None:
        self.begun = True
        directory, listing = self.directory, self.listing
        if directory is None or listing is None:
            return
        if self.stale:
            # What the run before has written is known by its sources, so these are kept.
            listing.note([Listed(source) for source in listing.rows])
            directory.clear()
        if self.attempt > 1:
            directory.sweep()
            self.accounts = open_accounts(directory.url, listing)
        self._write_plan()

    def _read_earlier(self, name: str) -> Any:
        assert self.directory is not None
        try:
            return self.directory.read_json(name)
        except RunRefused:
            if self.options.fresh:  # what a damaged file said is not needed to start over
                return {}
            raise

    def _write_plan(self) -> None:
        assert self.directory is not None
        self.directory.write_json(
            "plan.json",
            {
                "name": self.plan.name,
                "fingerprint": self.plan.fingerprint(),
                "since": self.since,
                "steps": self.plan.steps(),
                "text": self.plan.describe(),
            },
        )
        self.directory.write_json("run.json", self._run_record("running"))

    def _run_record(self, state: str) -> dict[str, Any]:
        return {
            "state": state,
            "attempt": self.attempt,
            "marks": self.marks,
            "executor": self.summary.executor,
            "options": {
                "on_error": self.options.on_error,
                "retries": self.options.retries,
                "max_error_fraction": self.options.max_error_fraction,
                "limit": self.options.limit,
            },
            "command": sys.argv[:1],
            "versions": _versions(),
            "python": platform.python_version(),
            "machine": {"system": system_name(), "cpus": self.plan.machine.cpus, "gpus": self.plan.machine.gpus},
        }

    # Sources -----------------------------------------------------------------------------------------------------

    def _first_tasks(self) -> Iterator[Task[Any]]:
        tasks = islice(self._listed(), self.options.limit)
        for index, given in enumerate(tasks):
            task = given if given.task_id else replace(given, task_id=f"task-{index:05d}")
            if "." in task.task_id or "/" in task.task_id:
                raise UsageError(
                    f"the id of a source names files and the children of a task, so it has no dot and no slash: "
                    f"{task.task_id!r}"
                )
            if not task.validate():
                raise UsageError(f"source {task.task_id!r} is not a valid {type(task).__name__}")
            task._source = task.task_id
            yield task

    def _listed(self) -> Iterator[Task[Any]]:
        if self.initial_tasks is not None:
            for task in self.initial_tasks:
                yield replace(task, _stage_perf=[], _pending=[], _outputs=[])
            return
        if self.plan.source is None:
            yield EmptyTask(task_id=f"{_clean(self.plan.name)}")
            return
        groups = self.listing.groups() if self.listing is not None and self.attempt > 1 else {}
        start = EmptyTask(task_id="sources", _metadata={"earlier_groups": groups} if groups else {})
        made = cast(Any, self.plan.source.stage).process(start)
        # A source that knows how many it has says so; listing ahead only to count would hold them all.
        total = length_hint(made, 0)
        # As they are written and as they are: to make the path of each source absolute would take seconds.
        writers = [(spelling, name) for name, _, to in self._writers() for spelling in (to, storage.absolute(to))]
        folders = {spelling.rstrip("/"): name for spelling, name in writers}
        self.progress.total_sources = min(total, self.options.limit or total) if total else None
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
                    folders.clear()  # one is enough
            yield task

    def _remember_sources(self, tasks: Iterator[Task[Any]], sources: dict[str, int]) -> Iterator[Task[Any]]:
        for task in tasks:
            if task.task_id in sources:
                raise UsageError(f"two sources have the id {task.task_id!r}: every source needs an id of its own")
            sources[task.task_id] = len(sources)
            yield task

    def _incomplete(self, tasks: Iterator[Task[Any]], number: int) -> Iterator[Task[Any]]:
        """The sources that still have to run; those that are complete and unchanged are skipped.

        A source is noted in the run directory before it is handed out, with the generation that its events will
        carry. So whatever a killed attempt has left can be told from what counts.
        """
        if self.listing is None:
            yield from tasks
            return
        for batch in _batches(tasks):
            rows, todo = [], []
            for task in batch:
                if self._must_run(task, self.listing, self.summary.inputs if number == 0 else {}):
                    todo.append(task)
                elif number == 0:
                    self.progress.skipped_sources += 1
                    self.summary.sources_skipped += 1
                row = Listed(task.task_id, task._generation, self._group_of(task))
                if self.listing.rows.get(task.task_id) != row:
                    rows.append(row)
            self.listing.note(rows)
            for row in rows:
                self.accounts.expect(row.source, row.generation)
            yield from todo

    def _must_run(self, task: Task[Any], listing: SourceList, inputs: dict[str, int]) -> bool:
        """Whether a source has to run; sets the generation that it has or is to have."""
        base = task._generation
        known = listing.rows.get(task.task_id)
        if known is None or known.generation == GONE:
            inputs["new"] = inputs.get("new", 0) + 1
            # One that left and came back must not meet what it was.
            task._generation = _generation(base, self.since if known is None else self.attempt)
            return True
        was, _, era = known.generation.partition("+")
        if was != base.partition("+")[0]:
            inputs["changed"] = inputs.get("changed", 0) + 1
            task._generation = _generation(base, self.attempt)
            return True
        task._generation = known.generation
        if self.accounts.is_complete(task.task_id):
            again = self.options.retry and self.accounts.has_failures(task.task_id)
            if not again and self._outputs_stand(task.task_id):
                inputs["unchanged"] = inputs.get("unchanged", 0) + 1
                return False
            task._generation = _generation(base, self.attempt)
        elif int(era or 0) < self.since:
            # What this pipeline makes must not mix with what an earlier one made of the same source.
            task._generation = _generation(base, self.since)
        inputs["unfinished"] = inputs.get("unfinished", 0) + 1
        return True

    def _outputs_stand(self, source: str) -> bool:
        """Whether the files that a source led to are still there; what a finishing pass has repacked is not looked for."""
        for event in self.accounts.reachable(source):
            for stage, record in event.outputs:
                if stage in self._direct_outputs:
                    folder, present = self._direct_outputs[stage]
                    if storage.relative(record.path, folder) not in present:
                        return False
        return True

    @functools.cached_property
    def _direct_outputs(self) -> dict[str, tuple[str, set[str]]]:
        """Each writer that leaves its files as they are: its folder, and what is in it; listed once."""
        found: dict[str, tuple[str, set[str]]] = {}
        for name, stage, folder in self._writers():
            if not stage.repacks():
                paths = storage.list_files(folder) if storage.exists(folder) else []
                found[name] = (folder, {storage.relative(path, folder) for path in paths})
        return found

    def _group_of(self, task: Task[Any]) -> str:
        """The files of a source task of several, so that a resumed run makes the same groups."""
        if not isinstance(task, FileGroupTask):
            return ""
        self.grouped = self.grouped or len(task.data) > 1
        return json.dumps([list(part) for part in task.parts]) if self.grouped else ""

    def _merge_tasks(
        self, merge: Any, number: int, waiting: list[Task[Any]], sources: dict[str, int]
    ) -> Iterator[Task[Any]]:
        """The groups that a merge makes of everything before it, in lineage order."""
        before = self.segment_sources[number - 1]
        self._require_complete(before)
        members = self.accounts.tasks(self.accounts.rows(list(before), MERGED))
        in_memory = {task.task_id: task for task in waiting}
        size = merge.stage.batch_size or len(members)
        folder = self.directory.path("spill", str(number - 1)) if self.directory is not None else ""
        merges: list[Event] = []
        tasks: list[MergeTask] = []
        for start in range(0, len(members), max(1, size)):
            part = members[start : start + size]
            ids = [task for task, _ in part]
            name = source_id(merge.name, ids)
            # Not in the name: names must not depend on when a file was touched.
            stamp = source_id("", [generation for _, generation in part]).rpartition("-")[2]
            merged = MergeTask(
                data=ids, folder=folder, tasks=None if folder else [in_memory[task_id] for task_id in ids], task_id=name
            )
            merged._source, merged._generation = name, stamp
            tasks.append(merged)
            merges.append(Event(MERGE, name, name, stamp, self.attempt, stage=merge.name, members=ids))
        for event in merges:
            self.accounts.add(event)
        if self.directory is not None and merges:
            path = self.directory.path("ledger", f"{self.attempt:04d}-driver-merges-{number}.parquet")
            write_parquet(path, events_table(merges))
        self.merges_now.update(event.task for event in merges)
        yield from self._remember_sources(iter(tasks), sources)

    def _pass_through(self, run: SegmentRun) -> Iterator[Task[Any]]:
        """A segment with no stage in it: its sources are its results."""
        sink = self.context.open_sink()
        for task in run.tasks:
            if run.ending == "merged" and run.folder:
                store_task(run.folder, task)
            result = ""
            if run.ending == "done" and isinstance(task, FileGroupTask):
                result = json.dumps([task.data, []])
            kind = DONE if run.ending == "done" else MERGED
            sink.event(Event(kind, task._source, task.task_id, task._generation, self.attempt, result=result))
            yield task
        sink.flush()
        if not isinstance(sink, LedgerWriter):
            self._collect(sink.take())

    # While it runs -----------------------------------------------------------------------------------------------

    def _collect(self, events: Iterable[Event]) -> None:
        for event in events:
            self.accounts.add(event)

    def _advance(self, sources: int, counts: Iterable[StagePerfStats]) -> None:
        progress = self.progress
        progress.finished_sources += sources
        progress.tally.add(counts)
        progress.seconds = time.monotonic() - self.started
        if sources and self.summary.worked_after is None:
            self.summary.worked_after = round(progress.seconds, 3)
        self.report(progress)
        self._check_errors(progress.tally, final=False)

    def _check_errors(self, tally: Tally, final: bool) -> None:
        allowed = self.options.max_error_fraction
        if allowed is None:
            return
        read, bad = tally.rows_read, tally.rows_bad
        if bad and (final or read >= ERROR_SAMPLE_ROWS) and bad > allowed * max(read, 1):
            raise TooManyErrors(
                f"{bad} of {read} rows were rejected or quarantined, more than max_error_fraction={allowed:g} allows: "
                "look at them with `curate rejects RUN_DIR`, mend the cause, and resume"
            )

    def _reload(self) -> None:
        if self.directory is not None:
            self.accounts = open_accounts(self.directory.url, self.listing)

    # The verdict -------------------------------------------------------------------------------------------------

    def _require_complete(self, sources: Iterable[str]) -> None:
        short = []
        for source in sources:
            if not self.accounts.is_complete(source):
                settlement = self.accounts.settle(source)
                if settlement.missing:
                    short.append(settlement)
        if not short:
            return
        first = short[0]
        where = f"; stage {first.last_stage!r} saw it last" if first.last_stage else ", and no stage has recorded it"
        more = f" ({len(short) - 1} more sources are short too)" if len(short) > 1 else ""
        raise AccountingError(
            f"source {first.source!r} is short of {first.missing} of its share: task {first.missing_task!r} was never "
            f"accounted for{where}{more}. Run again with resume to make up for it"
        )

    def _conclude(self, results: dict[str, Task[Any]]) -> RunResult:
        for sources in self.segment_sources:
            self._require_complete(sources)
        self._note_removed()
        # Merges of an earlier listing no longer count.
        kept = {task: event for task, event in self.accounts.merges.items() if task in self.merges_now}
        self.accounts.merges = kept
        tally, outputs, failed = self._totals()
        self._check_errors(tally, final=True)
        self._settle_shares()
        self._finish_outputs(outputs)
        summary = self.summary
        summary.sources = len(self.segment_sources[0])
        summary.sources_failed = failed
        summary.warnings += [
            f"{stage.name} has rejected everything that it was given ({count(stage.rows_in, 'row')}): look at it with "
            "`curate rejects RUN_DIR`; it may be of another kind than the stage reads"
            for stage in summary.stages
            if 0 < stage.rows_in == stage.rows_rejected
        ]
        summary.state = "quarantined" if failed or summary.rows_quarantined else "done"
        tasks = self._ordered(results)
        summary.results = len(tasks)
        summary.seconds = round(time.monotonic() - self.started, 3)
        self.progress.state = summary.state
        self.progress.seconds = summary.seconds
        self.report(self.progress)
        if self.directory is not None:
            self.directory.write_json(
                "run.json", {**self._run_record(summary.state), "summary": summary.as_dict(), "outputs": self.written}
            )
            self._write_report()
        return RunResult(tasks, summary, self.directory.url if self.directory else None)

    def _note_removed(self) -> None:
        """Sources that are not listed any more are forgotten before their files go."""
        if self.listing is None:
            return
        present = self._sources_now()
        removed = [
            row.source for row in self.listing.rows.values() if row.generation != GONE and row.source not in present
        ]
        if removed:
            self.listing.note([Listed(source) for source in removed])
            self.summary.inputs["removed"] = len(removed) - sum(source in self.accounts.merges for source in removed)

    def _totals(self) -> tuple[Tally, dict[str, list[FileRecord]], int]:
        tally = Tally()
        for planned in self.plan.stages:
            if planned is not self.plan.source:
                tally.stages[planned.name] = StageTotals(planned.name)
        outputs: dict[str, list[FileRecord]] = {}
        for sources in self.segment_sources:
            rows = self.accounts.rows(list(sources))
            found: dict[str, list[tuple[int, int, FileRecord]]] = {}
            for places, table in self.accounts.tables(rows, ["counts", "outputs"]):
                tally.add_table(table["counts"])
                _add_outputs(found, places, table["outputs"].combine_chunks())
            for stage, records in found.items():
                records.sort(key=itemgetter(0, 1))
                outputs.setdefault(stage, []).extend(record for _, _, record in records)
        failed = len({task.partition(".")[0] for task in self._failed_tasks()})
        self.summary.stages = list(tally.stages.values())
        return tally, outputs, failed

    def _failed_tasks(self) -> list[str]:
        listed = [source for sources in self.segment_sources for source in sources]
        return [task for task, _ in self.accounts.tasks(self.accounts.rows(listed, FAILED))]

    def _settle_shares(self) -> None:
        first = list(self.segment_sources[0])
        ends = self.accounts.shares(first)
        merged = ends.pop(MERGED)
        if merged or sum(ends.values()) != len(first):
            told = ", ".join(f"{kind} {share}" for kind, share in ends.items())
            raise AccountingError(
                f"the shares of {len(first)} sources do not add up: {told}, and {len(first) - sum(ends.values())} is "
                "missing. Run again with resume to make up for it"
            )
        self.summary.shares = {key: _fraction(value) for key, value in ends.items()}

    def _ordered(self, results: dict[str, Task[Any]]) -> list[Task[Any]]:
        """Results in lineage order; those of sources that an earlier attempt finished are loaded."""
        rows = self.accounts.rows(list(self.segment_sources[-1]), DONE)
        ids = [task for task, _ in self.accounts.tasks(rows)]
        if any(task_id not in results for task_id in ids) and self.directory is not None:
            stored = set()
            for places, table in self.accounts.tables(rows, ["source", "path", "generation", "result", "outputs"]):
                for place, row in zip(places, table.to_pylist(), strict=True):
                    task_id = ids[place]
                    if task_id in results or not row["result"]:
                        continue
                    if row["result"] == "stored":
                        stored.add(task_id)
                    else:
                        results[task_id] = _file_group(task_id, row)
            for task_id, data in read_results(self.directory.url, stored).items() if stored else ():
                results[task_id] = decode_task(data, pickled=False)
        return [results[task_id] for task_id in ids if task_id in results]

    # Outputs -----------------------------------------------------------------------------------------------------

    def _writers(self) -> list[tuple[str, ProcessingStage[Any, Any], str]]:
        found = []
        for planned in self.plan.stages:
            folder = planned.stage.output_folder()
            if folder:
                found.append((planned.name, planned.stage, folder))
        return found

    def _require_own_outputs(self) -> None:
        """What another run has finished is not written over: files are named after their sources in every run."""
        for name, _, folder in self._writers():
            if self._marked_by_another(folder):
                raise RunRefused(
                    f"stage {name!r} writes to {folder!r}, which holds the finished output of another run: choose "
                    "another folder, or replace what is there with fresh=True (--fresh)"
                )

    def _marked_by_another(self, folder: str) -> bool:
        mark = storage.join(folder, SUCCESS)
        if not storage.exists(mark):
            return False
        return _checksum(storage.read_bytes(mark)) != self.marks.get(storage.absolute(folder))

    def _unmark_outputs(self) -> None:
        """A folder that is about to change is not a success any more."""
        for _, _, folder in self._writers():
            mark = storage.join(folder, SUCCESS)
            if storage.exists(mark):
                if self.directory is None:
                    self.replaced[folder] = _checksum(storage.read_bytes(mark))
                storage.remove(mark)

    def _finish_outputs(self, outputs: dict[str, list[FileRecord]]) -> None:
        for _, _, place in self._writers() if self.directory is not None else ():
            if self._marked_by_another(place):
                raise RunRefused(
                    f"another run has finished its output in {place!r} while this one ran, and their files have the "
                    "same names: choose another folder, or write it all again with fresh=True (--fresh)"
                )
        for planned in self.plan.stages:
            records = _once(outputs.get(planned.name, []))
            stage = planned.stage
            if overrides(stage, "finish"):
                standing = stage.finish(records)
                if standing is not None:
                    records = list(standing)
            folder = stage.output_folder()
            if not folder:
                continue
            names = [storage.relative(record.path, folder) for record in records]
            self._remove_strays(folder, set(names))
            storage.make_folder(folder)
            rows, size = sum(record.rows for record in records), sum(record.bytes for record in records)
            with storage.write_atomic(storage.join(folder, SUCCESS)) as out:
                for text in _mark(planned.name, rows, size, names, records):
                    out.write(text.encode("utf-8", "surrogatepass"))
                out.flush()
                checksum = out.sha256
                if self.replaced.get(folder, checksum) != checksum:
                    self.summary.warnings.append(
                        f"{folder!r} held another finished output, which this run has replaced"
                    )
                if self.directory is not None:
                    # Known to be ours before it is there: a run that is killed in between can be resumed.
                    self.marks[storage.absolute(folder)] = checksum
                    self.directory.write_json("run.json", self._run_record("running"))
            self.written[planned.name] = {"folder": storage.absolute(folder), "files": len(records)}
            self.summary.files += len(records)
            self.summary.bytes += size
            self.summary.rows_written += rows

    def _remove_strays(self, folder: str, standing: set[str]) -> None:
        """Remove what earlier attempts of this run left: files named after its sources that no event stands for."""
        if not storage.exists(folder):
            return
        targets = {storage.file_name(name) for name in (*standing, SUCCESS)}
        known = self.listing.rows if self.listing is not None else self._sources_now()
        # Another run may share the folder and the sources: what this stage has not written the like of is not its own.
        endings = {_ending(name) for name in targets - {SUCCESS}}
        others = 0
        for path in storage.list_files(folder, hidden=True):
            name = storage.relative(path, folder)
            if name in standing or name == SUCCESS:
                continue
            file = storage.file_name(path)
            temporary = storage.is_temporary(path)
            target = storage.target_name(path) if temporary else file
            ours = source_of(target) in known and (not endings or _ending(target) in endings)
            if ours or (temporary and target in targets):
                storage.remove(path)
            elif not file.startswith((".", "_")):
                others += 1
        if others:
            self.summary.warnings.append(
                f"{folder!r} also holds {others} files that this run did not write; {SUCCESS} does not list them"
            )

    def _sources_now(self) -> set[str]:
        return {source for sources in self.segment_sources for source in sources}

    def _record_failure(self, error: BaseException) -> None:
        self.summary.state = "failed"
        self.summary.seconds = round(time.monotonic() - self.started, 3)
        self.progress.state = "failed"
        if self.directory is None or isinstance(error, (RunRefused, PlanError)) or not self.begun:
            return
        if isinstance(error, KeyboardInterrupt):
            text = "interrupted before it was done"
        else:
            text = str(error) if isinstance(error, CuratorError) else f"{type(error).__name__}: {error}"
        self.summary.problems.append(text)
        self.summary.sources = self.progress.finished_sources + self.progress.skipped_sources
        place = {planned.name: number for number, planned in enumerate(self.plan.stages)}
        stages = self.progress.tally.stages.values()  # in the order in which workers told of them
        self.summary.stages = sorted(stages, key=lambda stage: place.get(stage.name, len(place)))
        with contextlib.suppress(CuratorError):  # the disk may be what failed; the first error is the one to show
            self.directory.write_json("run.json", {**self._run_record("failed"), "summary": self.summary.as_dict()})

    def _write_report(self) -> None:
        from curator_core.running.report import write_report  # deferred: only a run that ends with a directory needs it

        assert self.directory is not None
        write_report(self.directory.url)


@contextlib.contextmanager
def _closing(stream: Iterator[Task[Any]]) -> Iterator[None]:
    """Like `contextlib.closing`, for executors that may answer with any iterator."""
    try:
        yield
    finally:
        close = getattr(stream, "close", None)
        if close is not None:
            close()


def _file_group(task_id: str, row: dict[str, Any]) -> FileGroupTask:
    """The result of an event that stands in the event itself."""
    if row["result"] == "outputs":
        records = [FileRecord(o["path"], o["rows"], o["bytes"], o["sha256"]) for o in row["outputs"]]
        paths = [record.path for record in records]
    else:
        paths, listed = json.loads(row["result"])
        records = [FileRecord(*record) for record in listed]
    return FileGroupTask(
        data=paths, records=records, task_id=task_id, _source=row["source"], _generation=row["generation"]
    )


def _fraction(value: Fraction) -> str:
    return str(value)


def _clean(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name) or "pipeline"


@functools.cache
def _versions() -> dict[str, str]:
    wanted = ("curator-core", "curator-text", "curator-image", "curator-backends", "pyarrow", "ray", "cosmos-xenna")
    found = {}
    for name in wanted:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
