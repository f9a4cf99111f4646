"""How does a run proceed from plan to verdict? It lists the sources, skips complete ones, runs the rest, and verifies
that nothing is missing.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import batched
from typing import Any

from curator_core import storage
from curator_core.accounts.accounts import Accounts
from curator_core.accounts.events import DONE, MERGED, Event
from curator_core.accounts.ledger import LedgerWriter, open_accounts
from curator_core.accounts.seen import sum_counts
from curator_core.accounts.tally import Tally
from curator_core.errors import CuratorError, PlanError, RunRefused, TooManyErrors
from curator_core.executors.base import BaseExecutor, SegmentRun
from curator_core.formatting import count
from curator_core.model.seen_options import seen_options
from curator_core.model.stage import ProcessingStage, SourceStage
from curator_core.model.task import EmptyTask, FileGroupTask, StagePerfStats, Task
from curator_core.planning.make import make_plan
from curator_core.planning.plan import Plan, Segment
from curator_core.running import attempt as attempts
from curator_core.running.attempt import Attempt, Earlier
from curator_core.running.declared import declared_scores, write_declared
from curator_core.running.directory import RunDirectory
from curator_core.running.log import write_log
from curator_core.running.merges import merge_tasks
from curator_core.running.options import RunOptions
from curator_core.running.outputs import Outputs
from curator_core.running.progress import STARTING, Progress, RunProgress
from curator_core.running.record import now, run_record
from curator_core.running.result import RunResult, RunStream, RunSummary
from curator_core.running.sources import Sources
from curator_core.running.telemetry import MetricsOptions, observed
from curator_core.running.verdict import (
    SourceRejects,
    count_results,
    ordered_results,
    require_complete,
    settled_shares,
    shares_by_plan,
    totals,
)
from curator_core.upkeep import with_rare_full_collections
from curator_core.worker.context import RunContext, format_of_dropped
from curator_core.worker.merge import store_task
from curator_core.worker.tokens import token_counter

# max_error_fraction applies only after this many rows.
ERROR_SAMPLE_ROWS = 100
# When results are yielded one by one, those of an earlier attempt are loaded for this many sources at a time.
RESULTS_AT_ONCE = 64


@dataclass(frozen=True)
class Order:
    """The stages to run, and the options.

    ``opened`` says that the executor is open and stays open, since the run is a step of a workflow. ``replaces`` says
    that the finished output of another run may be overwritten, as after a fresh start of the whole workflow. ``own``
    are the success files that earlier attempts of the workflow have written, by folder.
    """

    stages: Sequence[ProcessingStage[Any, Any]]
    executor: BaseExecutor
    name: str = "pipeline"
    initial_tasks: Sequence[Task[Any]] | None = None
    options: RunOptions = field(default_factory=RunOptions)
    progress: Progress | None = None
    opened: bool = False
    replaces: bool = False
    own: Mapping[str, str] = field(default_factory=dict)
    metrics: MetricsOptions | None = None


def run_stages(order: Order) -> RunResult:
    """Run stages on an executor and account for everything."""
    running = _running(order, keep=True)
    with with_rare_full_collections():
        try:
            while True:
                next(running)
        except StopIteration as end:
            result: RunResult = end.value
            return result


def iterate_stages(order: Order) -> RunStream:
    """The same run, which yields its results as they arrive and does not keep them."""
    return RunStream(_running(order, keep=False))


def _running(order: Order, *, keep: bool) -> Generator[Task[Any], None, RunResult]:
    """Run and yield the results; with ``keep`` they are in the `RunResult` instead."""
    with observed(order.metrics, order.progress, order.name, order.executor, order.options.run_dir) as progress:
        return (yield from _in_its_directory(replace(order, progress=progress), keep=keep))


def _in_its_directory(order: Order, *, keep: bool) -> Generator[Task[Any], None, RunResult]:
    directory = RunDirectory(order.options.run_dir) if order.options.run_dir else None
    started = time.monotonic()
    begun = False  # whether this run owns the run directory; a failure before that leaves it unchanged
    if directory is not None:
        directory.lock()
    try:
        # An executor may take ten seconds to open, so everything that can be refused without a plan is refused before.
        earlier = attempts.look(directory, order.options)
        if not order.opened:
            order.executor.expect(order.stages)
            if order.progress is not None and order.executor.opening:
                order.progress(starting(order.name, order.executor, started))
        with contextlib.nullcontext() if order.opened else opened(order.executor):
            run = _prepared(order, directory, earlier, started)
            first_tasks = run.sources.listed()
            begun = True
            return (yield from run.run(first_tasks, keep=keep))
    finally:
        if directory is not None:
            directory.unlock(leave_no_trace=not begun)


def starting(name: str, executor: BaseExecutor, begun: float) -> RunProgress:
    """The progress of a run whose executor is being opened."""
    return RunProgress(name, state=STARTING, waiting_for=executor.opening, begun=begun)


@contextlib.contextmanager
def opened(executor: BaseExecutor) -> Iterator[None]:
    """Open an executor, and close it afterwards, whatever happens."""
    executor.open()
    try:
        yield
    finally:
        executor.close()


def _prepared(order: Order, directory: RunDirectory | None, earlier: Earlier, started: float) -> _Run:
    """Plan a run and check that it may begin; nothing is written."""
    if (seen := seen_options(order.options.seen)) is not None and directory is not None:
        token_counter(seen)  # raises if the tokenizer cannot be loaded, before anything runs
    opened_after = round(time.monotonic() - started, 3)
    plan = _plan(order)
    _check_run_dir(plan, directory)
    attempt = attempts.settle(directory, order.options, earlier, plan)
    run = _Run(order, directory, earlier, plan, attempt, started)
    run.summary.opened_after = opened_after
    if not (order.options.fresh or order.replaces):
        run.outputs.require_own(recorded=directory is not None)
    return run


def _plan(order: Order) -> Plan:
    executor, initial_tasks = order.executor, order.initial_tasks
    # An empty list of tasks does not reveal their type.
    nothing = EmptyTask if initial_tasks is None else Task
    plan = make_plan(
        order.stages,
        executor.machine(),
        name=order.name,
        simultaneous=executor.simultaneous,
        environments=executor.environments,
        first_task=type(initial_tasks[0]) if initial_tasks else nothing,
    )
    if initial_tasks is not None and plan.source is not None:
        raise PlanError(f"the pipeline lists its own sources with {plan.source.name!r}, so it takes no initial_tasks")
    return plan


def _check_run_dir(plan: Plan, directory: RunDirectory | None) -> None:
    """Raise if the run directory is inside the input: its files would be the input of the next run."""
    source = plan.source
    if directory is None or source is None or not isinstance(source.stage, SourceStage):
        return
    entry = source.stage.reads_from(directory.url)
    if entry is not None:
        raise PlanError(
            f"the run directory {directory.url!r} is inside the input that {source.name!r} reads by {entry!r}: the "
            "next run would read "
            "its files; choose a run directory beside the input"
        )


class _Run:
    """A planned run that may begin. Its accounts are read again from the ledger after each segment."""

    def __init__(
        self,
        order: Order,
        directory: RunDirectory | None,
        earlier: Earlier,
        plan: Plan,
        attempt: Attempt,
        started: float,
    ) -> None:
        self.executor = order.executor
        self.options = order.options
        self.report = order.progress or (lambda _: None)
        self.directory = directory
        self.earlier = earlier
        self.plan = plan
        self.attempt = attempt
        self.started = started
        self.started_at = now()
        self.accounts = Accounts()
        self.progress = RunProgress(
            order.name,
            segments=len(plan.segments),
            stages=tuple(planned.name for planned in plan.stages if planned is not plan.source),
            begun=started,
        )
        self.summary = RunSummary(
            order.name,
            executor=type(order.executor).__name__,
            attempt=attempt.number,
            decisions=list(plan.decisions),
            warnings=list(plan.warnings),
        )
        folders = {storage.absolute(place) for planned in plan.stages if (place := planned.stage.output_folder())}
        own = {folder: mark for folder, mark in order.own.items() if folder in folders}
        self.outputs = Outputs(plan, own | earlier.success_files, self._write_record, dropped=order.options.dropped)
        self.sources = Sources(
            plan,
            self.outputs,
            order.options,
            earlier.listing,
            initial_tasks=order.initial_tasks,
            attempt=attempt.number,
            pipeline_attempt=attempt.pipeline_attempt,
            progress=self.progress,
            summary=self.summary,
        )
        seen = seen_options(order.options.seen)
        self.context = RunContext(
            run_dir=directory.url if directory else None,
            attempt=attempt.number,
            on_error=order.options.on_error,
            retries=order.options.retries,
            log_level=order.options.log_level,
            dropped=order.options.dropped,
            dropped_as=format_of_dropped(plan.stages),
            seen=seen,
            scores=declared_scores(plan) if seen and directory else {},
        )

    def run(self, first_tasks: Iterator[Task[Any]], *, keep: bool) -> Generator[Task[Any], None, RunResult]:
        results: dict[str, Task[Any]] = {}
        handed_out: set[str] = set()
        try:
            self._begin()
            for task in self._segments(first_tasks):
                if keep:
                    results[task.task_id] = task
                else:
                    if self.attempt.number > 1:
                        handed_out.add(task.task_id)
                    yield task
                del task
            result = self._conclude(results, keep=keep)
            if not keep:
                # The results of sources that an earlier attempt finished, one at a time.
                yield from self._finished_before(handed_out)
            return result
        except BaseException as error:
            self._record_failure(error)
            raise

    def _begin(self) -> None:
        directory, listing = self.directory, self.earlier.listing
        if directory is not None and listing is not None:
            if self.attempt.stale:
                # The output of the previous run is recognised by its sources, so these are kept.
                listing.forget(listing.rows)
                directory.clear()
            if self.attempt.number > 1:
                directory.sweep()
                self.accounts = open_accounts(directory.url, listing)
            attempts.write_plan(directory, self.plan, self.attempt, self.earlier)
            write_declared(directory.url, self.plan, self.context.scores, self.context.seen, self.attempt.number)
            self._write_record()
        if self.attempt.number == 1:  # a resumed run does this when it finds a source to run
            self.outputs.unmark()
        self.report(self.progress)  # show that the run has begun: the first source may take a long time

    # The segments -------------------------------------------------------------------------------------------------

    def _segments(self, tasks: Iterator[Task[Any]]) -> Iterator[Task[Any]]:
        """Run one segment after the other; yield the tasks that leave the last one as they arrive."""
        waiting: list[Task[Any]] = []
        for number, segment in enumerate(self.plan.segments):
            self.progress.segment = number
            if segment.merge is not None:
                before = self.sources.by_segment[number - 1]
                require_complete(self.accounts, before)
                tasks = merge_tasks(
                    segment.merge, number, self.accounts, before, waiting, self.attempt.number, self.directory
                )
            if number == len(self.plan.segments) - 1:
                yield from self._segment(number, segment, tasks)
            else:
                waiting = list(self._segment(number, segment, tasks))

    def _segment(self, number: int, segment: Segment, tasks: Iterator[Task[Any]]) -> Iterator[Task[Any]]:
        """Run a segment. The last one yields the results; the others yield the tasks that wait for the merge, unless
        they are stored.
        """
        last = number == len(self.plan.segments) - 1
        folder = "" if last or self.directory is None else self.directory.path("spill", str(number))
        run = SegmentRun(
            segment,
            self._unmarked(self.sources.incomplete(tasks, self.accounts)),
            self.context,
            "done" if last else "merged",
            folder,
            self._collect,
            self._advance,
            self._staffed,
        )
        stream = self.executor.run_segment(run) if segment.groups or segment.merge else self._pass_through(run)
        # The stream is closed at once, so that on an error or Ctrl-C no worker outlives this line.
        with _closing(stream):
            for task in stream:
                if last or not folder:
                    yield task
                del task
        if self.directory is not None:
            self.accounts = open_accounts(self.directory.url, self.earlier.listing)

    def _unmarked(self, tasks: Iterator[Task[Any]]) -> Iterator[Task[Any]]:
        """The sources that must run. The output is marked as unfinished only when there is one.

        A damaged ledger may be detected only when a source is looked up, and a resumed run that is refused must not
        change finished output.
        """
        for task in tasks:
            self.outputs.unmark()
            self.progress.taken_sources += 1
            if self.progress.working_since is None:
                self.progress.working_since = time.monotonic()
            yield task

    def _pass_through(self, run: SegmentRun) -> Iterator[Task[Any]]:
        """Run a segment without stages: its sources are its results."""
        sink = self.context.open_sink()
        for task in run.tasks:
            if run.ending == "merged" and run.folder:
                store_task(run.folder, task)
            result = ""
            if run.ending == "done" and isinstance(task, FileGroupTask):
                result = json.dumps([task.data, []])
            kind = DONE if run.ending == "done" else MERGED
            sink.event(Event.of(task, kind, attempt=self.attempt.number, result=result))
            yield task
        sink.flush()
        if not isinstance(sink, LedgerWriter):
            self._collect(sink.take())

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

    def _staffed(self, workers: int) -> None:
        if workers != self.progress.workers:
            self.progress.workers = workers
            self.report(self.progress)

    def _check_errors(self, tally: Tally, final: bool) -> None:
        allowed = self.options.max_error_fraction
        if allowed is None:
            return
        read, bad = tally.rows_read, tally.rows_bad
        if bad and (final or read >= ERROR_SAMPLE_ROWS) and bad > allowed * max(read, 1):
            raise TooManyErrors(
                f"{bad:,} of {count(read, 'row')} {'was' if bad == 1 else 'were'} rejected or quarantined, more than max_error_fraction={allowed:g} allows: "
                "look at them with `curate rejects RUN_DIR`, fix the cause, and resume"
            )

    # The verdict --------------------------------------------------------------------------------------------------

    def _conclude(self, results: dict[str, Task[Any]], *, keep: bool) -> RunResult:
        by_segment = self.sources.by_segment
        for ids in by_segment:
            require_complete(self.accounts, ids)
        self.sources.note_removed(self.accounts)
        # Merges of an earlier listing no longer count.
        present = {merge for ids in by_segment[1:] for merge in ids}
        self.accounts.merges = {task: event for task, event in self.accounts.merges.items() if task in present}
        found = totals(self.accounts, self.plan, by_segment)
        summary = self.summary
        summary.stages = list(found.tally.stages.values())
        self._check_errors(found.tally, final=True)
        summary.shares = settled_shares(self.accounts, by_segment[0])
        finished = self.outputs.finish(found.outputs, self.sources.known())
        summary.files, summary.bytes, summary.rows_written = finished.files, finished.bytes, finished.rows
        summary.sources = len(by_segment[0])
        summary.sources_failed = found.sources_failed
        summary.warnings += finished.warnings
        summary.notes += finished.notes
        self._judge_rejects(found.rejects)
        self._share_by_plan()
        aside = found.sources_failed or summary.rows_quarantined or summary.sources_rejecting
        summary.state = "quarantined" if aside else "done"
        run_dir = self.directory.url if self.directory else None
        tasks = ordered_results(self.accounts, by_segment[-1], results, run_dir) if keep else []
        summary.results = len(tasks) if keep else count_results(self.accounts, by_segment[-1])
        summary.seconds = round(time.monotonic() - self.started, 3)
        self.progress.state = summary.state
        self.progress.seconds = summary.seconds
        self.report(self.progress)
        if self.directory is not None:
            self._write_record(summary.state, summary=summary.as_dict(), outputs=finished.written)
            if storage.is_local(self.directory.url):
                self.directory.sweep()  # partial files of workers that have died in this attempt
            if self.context.seen is not None:
                sum_counts(self.directory.url, self.accounts, self.attempt.number)
            self._write_report()
        return RunResult(tasks, summary, run_dir)

    def _share_by_plan(self) -> None:
        """Report output of earlier plans that is beside that of the present one."""
        if self.directory is None:
            return
        plans = attempts.plans_of(self.directory)
        shares = shares_by_plan(self.accounts, plans, self.sources.by_segment) if len(plans) > 1 else []
        earlier = [share for share in shares if share.sources and share.changes]
        if not earlier:
            return
        self.summary.plans = [share for share in shares if share.sources]
        self.summary.warnings += [
            f"{count(share.sources, 'source')} of {self.summary.sources} ({count(share.rows_in, 'row')} read, "
            f"{share.rows_out:,} kept) were made under the pipeline of attempt {share.since}: {'; '.join(share.changes)}. "
            "fresh=True (--fresh) makes all output again"
            for share in earlier
        ]

    def _judge_rejects(self, rejects: Sequence[SourceRejects]) -> None:
        """Name the sources that lost more rows to rejects than allowed; those with nothing but rejects come first."""
        limit = self.options.max_reject_fraction
        see = (
            f"look at them with `curate rejects {self.directory.url}`"
            if self.directory is not None
            else "run with a run_dir to keep and see them"
        )
        nothing = [item for item in rejects if item.rejected == item.read]
        partly = [item for item in rejects if limit < item.fraction < 1]
        self.summary.sources_rejecting = len(partly) + (len(nothing) if limit < 1 else 0)
        notes = []
        if nothing:
            notes.append(
                f"{_named(nothing)} gave only rejects: the files may be of another kind than the stage reads; {see}"
            )
        if partly:
            worst = partly[0]
            notes.append(
                f"{_named(partly)} lost more rows to rejects than max_reject_fraction={limit:g} allows "
                f"({worst.rejected:,} of {worst.read:,}): {see}"
            )
        self.summary.warnings = [*notes, *self.summary.warnings]

    def _finished_before(self, handed_out: set[str]) -> Iterator[Task[Any]]:
        if self.directory is None or self.attempt.number == 1:
            return
        for sources in batched(self.sources.by_segment[-1], RESULTS_AT_ONCE):
            yield from ordered_results(self.accounts, sources, {}, self.directory.url, without=handed_out)

    def _record_failure(self, error: BaseException) -> None:
        summary = self.summary
        summary.state = "failed"
        summary.seconds = round(time.monotonic() - self.started, 3)
        self.progress.state = "failed"
        self.progress.seconds = summary.seconds
        with contextlib.suppress(Exception):  # the first error is the one to show, and it may be the display's
            self.report(self.progress)
        if self.directory is None or isinstance(error, (RunRefused, PlanError)):
            return
        if isinstance(error, KeyboardInterrupt):
            text = "interrupted before it was done"
        elif isinstance(error, GeneratorExit):
            text = "stopped before it was done: not all of its results were requested"
        else:
            text = str(error) if isinstance(error, CuratorError) else f"{type(error).__name__}: {error}"
        summary.problems.append(text)
        summary.sources = self.progress.finished_sources + self.progress.skipped_sources
        position = {planned.name: number for number, planned in enumerate(self.plan.stages)}
        stages = self.progress.tally.stages.values()  # they are in the order in which workers reported them
        summary.stages = sorted(stages, key=lambda stage: position.get(stage.name, len(position)))
        with contextlib.suppress(CuratorError):  # the disk may be what failed; the first error is the one to show
            self._write_record("failed", summary=summary.as_dict())
            write_log(self.directory.url)

    def _write_record(self, state: str = "running", **more: Any) -> None:
        if self.directory is None:
            return
        record = run_record(
            state,
            self.attempt.number,
            self.outputs.success_files,
            self.summary.executor,
            self.options,
            self.plan.machine,
            self.started_at,
        )
        self.directory.write_json("run.json", {**record, **more})

    def _write_report(self) -> None:
        from curator_core.running.report import write_report  # deferred: only a run that ends with a directory needs it

        assert self.directory is not None
        write_log(self.directory.url)
        # Sources that are no longer listed do not count, but they are still part of these accounts.
        write_report(self.directory.url, None if "removed" in self.summary.inputs else self.accounts)


def _named(items: Sequence[SourceRejects]) -> str:
    first = repr(items[0].source)
    return f"source {first}" if len(items) == 1 else f"{len(items):,} sources, first of all {first},"


@contextlib.contextmanager
def _closing(stream: Iterator[Task[Any]]) -> Iterator[None]:
    """Like `contextlib.closing`, for the iterators of executors, which may have no `close`."""
    try:
        yield
    finally:
        close = getattr(stream, "close", None)
        if close is not None:
            close()
