"""A workflow: pipelines that hand files to one another, planned, run, resumed and reported as one thing."""

from __future__ import annotations

import contextlib
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import GeneratorType
from typing import Any, Literal

from curator_core import storage
from curator_core.errors import CuratorError, UsageError
from curator_core.executors.base import BaseExecutor
from curator_core.pipeline import Pipeline, executor_of
from curator_core.running import steps as records
from curator_core.running.directory import RunDirectory
from curator_core.running.notebook import CellProgress, in_notebook
from curator_core.running.options import RunOptions
from curator_core.running.record import now, run_record
from curator_core.running.result import Progress, RunProgress, RunResult, RunSummary, StepSummary
from curator_core.running.run import Order, opened, run_stages
from curator_core.running.steps import STEPS, WORK, EarlierSteps, StepRecord


@dataclass(frozen=True)
class Step:
    """A step of a workflow with what the workflow says of it.

    ``frees`` are folders below ``work_dir`` that no later step reads: they are removed when this step is complete.
    ``counts``: the rows of the workflow are the rows of this step; without one that counts they are those of the last.
    """

    of: Pipeline | Workflow
    frees: Sequence[str] = ()
    counts: bool = False

    @property
    def name(self) -> str:
        return self.of.name


class Workflow(ABC):
    """Several pipelines as one piece of work. Subclasses have plain parameters, like stages, and say what their steps are."""

    @property
    def name(self) -> str:
        return type(self).__name__

    @abstractmethod
    def steps(self, work_dir: str) -> Iterator[Pipeline | Workflow | Step]:
        """The steps in order; what one leaves for the next lies under ``work_dir``.

        A generator is asked for a step when all before it are complete, and may look at what they have left: a ``yield``
        brings the `RunSummary` of its step. Names are unique among the steps of a workflow.
        """

    def run(
        self,
        executor: BaseExecutor | str | None = None,
        *,
        run_dir: str | None = None,
        resume: bool = False,
        fresh: bool = False,
        allow_changed: bool = False,
        retry: bool = False,
        on_error: Literal["fail", "quarantine"] = "fail",
        retries: int = 0,
        max_error_fraction: float | None = None,
        max_reject_fraction: float = 0.05,
        log_level: Literal["debug", "info", "warning", "error"] = "warning",
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> RunResult:
        """Run the steps in order on one executor, and prove for each that nothing was lost.

        The options are those of `Pipeline.run`. With ``resume``, steps that are complete do nothing, and the first that is
        not goes on where it was. ``limit`` is for the steps that read what lies outside of the run directory. The result
        has the summary of the step that counts, and in ``summary.steps`` what came of each.
        """
        options = RunOptions(
            run_dir=run_dir,
            resume=resume,
            fresh=fresh,
            allow_changed=allow_changed,
            retry=retry,
            on_error=on_error,
            retries=retries,
            max_error_fraction=max_error_fraction,
            max_reject_fraction=max_reject_fraction,
            log_level=log_level,
            limit=limit,
        )
        report = progress or (CellProgress() if in_notebook() else (lambda _: None))
        session = _Session(executor_of(executor), report)
        if run_dir is not None:
            return _run(self, session, options)
        with tempfile.TemporaryDirectory(prefix="curator-workflow-") as place:
            result = _run(self, session, replace(options, run_dir=place))
            result.run_dir = None
            return result


class _Session:
    """What all steps share: the executor, which is opened when a step first needs it and stays open, and the display."""

    def __init__(self, executor: BaseExecutor, report: Progress) -> None:
        self.executor = executor
        self.report = report
        self.started = time.monotonic()
        self.opened_after = 0.0
        self.worked_after: float | None = None
        self._stack = contextlib.ExitStack()
        self._open = False

    def open(self) -> None:
        if not self._open:
            self._stack.enter_context(opened(self.executor))
            self._open = True
            self.opened_after = round(time.monotonic() - self.started, 3)

    def close(self) -> None:
        self._stack.close()


class _StartOver(Exception):
    """A step is not complete any more, and what it needs has been given back."""


def _run(workflow: Workflow, session: _Session, options: RunOptions) -> RunResult:
    """A workflow from its first step to its record; the outermost one."""
    with contextlib.closing(session):
        return _run_in(workflow, session, options, outer=None)


def _run_in(workflow: Workflow, session: _Session, options: RunOptions, outer: _Run | None) -> RunResult:
    assert options.run_dir is not None
    directory = RunDirectory(options.run_dir)
    directory.lock()
    run: _Run | None = None
    try:
        earlier = records.look(directory, options)
        while True:
            run = _Run(workflow, directory, session, options, earlier, outer)
            try:
                return run.run()
            except _StartOver:
                earlier = EarlierSteps(earlier.attempt, earlier.state, marks=earlier.marks, replaces=True)
    finally:
        directory.unlock(leave_no_trace=run is None or not run.begun)


class _Run:
    """One attempt at a workflow in its run directory."""

    def __init__(
        self,
        workflow: Workflow,
        directory: RunDirectory,
        session: _Session,
        options: RunOptions,
        earlier: EarlierSteps,
        outer: _Run | None,
    ) -> None:
        self.workflow = workflow
        self.directory = directory
        self.session = session
        self.options = options
        self.earlier = earlier
        self.outer = outer
        self.attempt = earlier.attempt + 1
        self.started = time.monotonic()
        self.started_at = now()
        self.begun = False
        self.records: list[StepRecord] = []
        self.summaries: list[StepSummary] = []
        self.marks = dict(earlier.marks)
        self.warnings: list[str] = []
        self.counting: RunResult | None = None
        self.counted = False

    @property
    def work_dir(self) -> str:
        return self.directory.path(WORK)

    def run(self) -> RunResult:
        try:
            outcome: RunSummary | None = None
            asked = _Asked(self.workflow, self.work_dir)
            while (step := asked.next(outcome)) is not None:
                result = self._step(step)
                outcome = result.summary
                if not self.counted:
                    self.counting, self.counted = result, step.counts
            if not self.records:
                raise UsageError(f"workflow {self.workflow.name!r} has no steps")
            return self._conclude()
        except _StartOver:
            raise
        except BaseException as error:
            self._record_failure(error)
            raise

    # One step -----------------------------------------------------------------------------------------------------

    def _step(self, step: Step) -> RunResult:
        number = len(self.records) + 1
        folder = records.step_folder(number, step.name)
        before = records.fingerprint_of(record.left for record in self.records)
        known = self.earlier.steps.get(folder)
        record = StepRecord(step.name, folder, before=before)
        if known is not None:
            # What it has done stands only on what it was done with.
            record.anew = known.anew or known.before != before
        self._begin()
        self.records.append(record)
        summary = StepSummary(step.name, folder=folder)
        self.summaries.append(summary)
        self._write_record()
        result = self._run_step(step, number, record)
        self._note(summary, result.summary)
        place = RunDirectory(self.directory.path(folder))
        record.state = result.summary.state
        record.left = records.left_by(place)
        self.marks.update((place.read_json("run.json") or {}).get("marks", {}))
        self._write_record()
        return result

    def _run_step(self, step: Step, number: int, record: StepRecord) -> RunResult:
        place = self.directory.path(record.folder)
        begun = not record.anew and RunDirectory(place).read_json("run.json") is not None

        def progress(state: RunProgress) -> None:
            if record.anew:  # it has begun
                record.anew = False
                self._write_record()
            if self.session.worked_after is None and state.finished_sources:
                self.session.worked_after = round(time.monotonic() - self.session.started, 3)
            self._show(state, step, number)

        options = replace(
            self.options,
            run_dir=place,
            resume=begun and (self.options.resume or self.options.retry),
            retry=begun and self.options.retry,
            fresh=record.anew,
        )
        if isinstance(step.of, Workflow):
            inner = _Session(self.session.executor, progress)
            inner._open = True
            return _run_in(step.of, inner, options, outer=self)
        order = Order(
            step.of.stages,
            self.session.executor,
            step.of.name,
            None,
            options,
            progress,
            opened=True,
            replaces=self.earlier.replaces,
        )
        return run_stages(order)

    def _show(self, state: RunProgress, step: Step, number: int) -> None:
        inner = f"/{state.step_name}" if state.step else ""
        state.step, state.step_name = number, f"{step.name}{inner}"
        self.session.report(state)

    # The record ---------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Open the executor and take the directory, once."""
        if self.begun:
            return
        self.session.open()
        self.begun = True
        self._write_record()
        if not self.earlier.steps:
            # What is here is of no use: a fresh start, or a run that never did a thing.
            self.directory.clear(keep="run.json")
            for name in (STEPS, WORK):
                storage.remove(self.directory.path(name))

    def _note(self, summary: StepSummary, found: RunSummary) -> None:
        summary.state = found.state
        summary.sources = found.sources
        summary.rows_in, summary.rows_out = found.rows_in, found.rows_out
        summary.seconds = found.seconds
        summary.steps = found.steps

    def _summary(self, state: Literal["done", "quarantined", "failed"]) -> RunSummary:
        found = self.counting.summary if self.counting is not None else RunSummary(self.workflow.name)
        return replace(
            found,
            name=self.workflow.name,
            state=state,
            executor=type(self.session.executor).__name__,
            attempt=self.attempt,
            seconds=round(time.monotonic() - self.started, 3),
            opened_after=self.session.opened_after,
            worked_after=self.session.worked_after,
            steps=list(self.summaries),
        )

    def _conclude(self) -> RunResult:
        states = {summary.state for summary in self.summaries}
        summary = self._summary("quarantined" if "quarantined" in states else "done")
        self._write_record(summary.state, summary=summary.as_dict())
        tasks = self.counting.tasks if self.counting is not None else []
        return RunResult(tasks, summary, self.directory.url)

    def _record_failure(self, error: BaseException) -> None:
        if not self.begun:
            return
        if self.summaries and self.summaries[-1].state == "running":
            self.summaries[-1].state = self.records[-1].state = "failed"
        summary = self._summary("failed")
        step = f"step {len(self.records)} ({self.records[-1].name}): " if self.records else ""
        if isinstance(error, KeyboardInterrupt):
            text = "interrupted before it was done"
        else:
            text = str(error) if isinstance(error, CuratorError) else f"{type(error).__name__}: {error}"
        summary.problems = [*summary.problems, step + text]
        with contextlib.suppress(CuratorError):  # the disk may be what failed; the first error is the one to show
            self._write_record("failed", summary=summary.as_dict())

    def _write_record(self, state: str = "running", **more: Any) -> None:
        record = run_record(
            state,
            self.attempt,
            self.marks,
            type(self.session.executor).__name__,
            self.options,
            self.session.executor.machine(),
            self.started_at,
        )
        steps = [*self.records, *list(self.earlier.steps.values())[len(self.records) :]]
        extra = {
            "kind": records.KIND,
            "workflow": self.workflow.name,
            "replaces": self.earlier.replaces,
            "steps": records.as_values(steps),
        }
        self.directory.write_json("run.json", {**record, **extra, **more})


class _Asked:
    """The steps of a workflow one by one, each with a name of its own."""

    def __init__(self, workflow: Workflow, work_dir: str) -> None:
        self._workflow = workflow
        self._steps = iter(workflow.steps(work_dir))
        self._work_dir = storage.absolute(work_dir)
        self._names: list[str] = []

    def next(self, outcome: RunSummary | None) -> Step | None:
        """The next step; ``outcome`` is what came of the one before."""
        try:
            given = self._steps.send(outcome) if isinstance(self._steps, GeneratorType) else next(self._steps)
        except StopIteration:
            return None
        what = f"workflow {self._workflow.name!r}"
        step = given if isinstance(given, Step) else Step(given)
        if not isinstance(step.of, Pipeline | Workflow):
            raise UsageError(f"{what}: a step is a Pipeline or a Workflow, not {step.of!r}")
        if not step.name or "/" in step.name or "\0" in step.name or step.name in (".", ".."):
            raise UsageError(f"{what}: the name of a step names a folder, so it is not {step.name!r}")
        if step.name in self._names:
            number = self._names.index(step.name) + 1
            raise UsageError(
                f"{what}: steps {number} and {len(self._names) + 1} are both called {step.name!r}: every step needs a "
                "name of its own"
            )
        for folder in step.frees:
            if not f"{storage.absolute(folder)}/".startswith(f"{self._work_dir.rstrip('/')}/"):
                raise UsageError(f"{what}: step {step.name!r} frees {folder!r}, which is not below {self._work_dir!r}")
        self._names.append(step.name)
        return step
