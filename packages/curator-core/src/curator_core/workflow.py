"""A workflow: pipelines that pass files to one another, and are planned, run, resumed and reported as one."""

from __future__ import annotations

import contextlib
import copy
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import GeneratorType
from typing import Any, ClassVar, Literal, Self

from curator_core import storage
from curator_core.errors import CuratorError, PlanError, RunRefused, UsageError
from curator_core.executors.base import BaseExecutor
from curator_core.formatting import count, text_html
from curator_core.model.machine import Machine
from curator_core.model.parameters import bound_arguments, call_text, values_of
from curator_core.model.seen_options import SeenOptions
from curator_core.model.task import Task
from curator_core.pipeline import Pipeline, executor_of
from curator_core.planning.plan import Plan
from curator_core.running import steps as records
from curator_core.running.attempt import WORKFLOW
from curator_core.running.directory import RunDirectory
from curator_core.running.log import write_log
from curator_core.running.notebook import CellProgress, in_notebook
from curator_core.running.options import RunOptions
from curator_core.running.outputs import Outputs
from curator_core.running.progress import STARTING, Progress, RunProgress
from curator_core.running.record import now, run_record
from curator_core.running.result import RunResult, RunSummary, StepSummary
from curator_core.running.run import Order, opened, run_stages, starting
from curator_core.running.steps import STEPS, WORK, EarlierSteps, StepRecord
from curator_core.running.telemetry import MetricsOptions, metrics_options, observed
from curator_core.running.workflow_plan import (
    PlannedStep,
    WorkflowPlan,
    check_steps_apart,
    folders_of,
    is_within,
    taken_by,
    texts_of,
)


@dataclass(frozen=True)
class Step:
    """A step of a workflow, with its settings in the workflow.

    ``frees`` are folders below ``work_dir`` that no later step reads; they are removed when this step is complete.
    ``counts`` says that the rows of this step are those of the workflow; if no step counts, the rows are those of the
    last step.
    """

    of: Pipeline | Workflow
    frees: Sequence[str] = ()
    counts: bool = False

    @property
    def name(self) -> str:
        return self.of.name


class Workflow(ABC):
    """Several pipelines as one piece of work. Subclasses have plain parameters, like stages, and define the steps.

    ``later`` describes the steps that are unknown until others are complete. If it is set, a plan made before the run
    contains only the first step.
    """

    later: str = ""
    # Parameters that contain paths although their names do not say so; in a pipeline file they are relative to the
    # file.
    sure_paths: ClassVar[tuple[str, ...]] = ()

    _given: dict[str, Any]  # the arguments of the constructor, kept by __new__
    _name: str | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        object.__setattr__(self, "_given", bound_arguments(cls, args, kwargs))
        return self

    @property
    def name(self) -> str:
        return self._name or type(self).__name__

    def named(self, name: str) -> Self:
        """A copy called ``name``, which is the name of a run and of a step in another workflow."""
        twin = copy.copy(self)
        object.__setattr__(twin, "_name", name)
        return twin

    def params(self) -> dict[str, Any]:
        """The constructor's parameters and their values, defaults included."""
        return values_of(self, self._given)

    def call(self, *, brief: bool = False) -> str:
        """The Python call that makes the workflow; ``brief`` shortens long lists."""
        return call_text(self, self.params(), self._given, brief=brief)

    @abstractmethod
    def steps(self, work_dir: str) -> Iterator[Pipeline | Workflow | Step]:
        """The steps in order; files that one leaves for the next are under ``work_dir``.

        A generator is asked for a step when all steps before it are complete, and may read the files that they have
        left; ``yield`` returns the `RunSummary` of its step. In a resumed run it is asked for all steps again, and the
        folders that a step freed (`Step.frees`) no longer exist. The names of steps in a workflow must be unique.
        """

    def check_room(self, work_dir: str) -> None:  # noqa: B027 - most workflows check nothing
        """Raise `UsageError` if the disk clearly lacks room for the files that steps pass to one another.

        It is called once, before the first step of a new run begins.
        """

    def plan(
        self,
        executor: BaseExecutor | None = None,
        *,
        machine: Machine | None = None,
        run_dir: str | None = None,
    ) -> WorkflowPlan:
        """The plans of all steps that are known before the run, and the files that they pass to one another. Nothing is
        started.

        ``run_dir`` is the run directory that the run would have; the plan shows the files between steps in it.
        """
        found = _planned(self, executor, machine, run_dir or _RUN_DIR, {})
        check_steps_apart(found)
        return found

    def describe(self) -> str:
        """The plan on this machine as text, or the reason why the workflow cannot run."""
        try:
            return self.plan().describe()
        except PlanError as error:
            return f"{self.name}: cannot run as it is\n  {self.call(brief=True)}\n{error}"

    def _repr_html_(self) -> str:
        return text_html(self.describe())

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
        dropped: str | None = None,
        seen: SeenOptions | Mapping[str, Any] | bool = True,
        metrics: MetricsOptions | Mapping[str, Any] | bool | None = None,
        progress: Progress | None = None,
    ) -> RunResult:
        """Run the steps in order on one executor, and verify for each that nothing was lost.

        The options are those of `Pipeline.run`. With ``resume``, complete steps are skipped, and the first incomplete
        one resumes. ``limit`` applies to steps that read from outside the run directory. The result contains the
        summary of the step that counts; ``summary.steps`` contains the outcome of each step.
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
            dropped=dropped,
            seen=seen,
        )
        session = _Session(executor_of(executor), temporary=run_dir is None)
        report = progress or (CellProgress() if in_notebook() else (lambda _: None))
        chosen = metrics_options(metrics)
        with observed(chosen, report, self.name, session.executor, run_dir) as shown, contextlib.closing(session):
            report = shown or report
            if run_dir is not None:
                return _run(self, session, options, report)
            with tempfile.TemporaryDirectory(prefix="curator-workflow-") as place:
                result = _run(self, session, replace(options, run_dir=place), report)
                result.run_dir = None
                return result


class Steps(Workflow):
    """A workflow from a list of steps."""

    def __init__(self, of: Sequence[Pipeline | Workflow | Step]) -> None:
        self.of = list(of)

    def steps(self, work_dir: str) -> Iterator[Pipeline | Workflow | Step]:
        yield from self.of

    def call(self, *, brief: bool = False) -> str:
        names = [step.name for step in self.of]
        return f"Steps([{', '.join(names)}])"


_RUN_DIR = "run"
# For plans that only show what would run; larger than any real machine.
_ANYWHERE = Machine(cpus=1e9, memory_gb=1e9, gpus=1e9, gpu_memory_gb=1e9, name="any machine")


def _planned(
    workflow: Workflow, executor: BaseExecutor | None, machine: Machine | None, run_dir: str, left: dict[str, str]
) -> WorkflowPlan:
    """The plan of a workflow. ``left`` lists the folders that earlier steps fill; those of its own steps are added."""
    asked = _Asked(workflow, storage.join(run_dir, WORK))
    found: list[PlannedStep] = []
    later = workflow.later
    while True:
        try:
            step = asked.next(None)
        except CuratorError:
            raise
        except Exception as error:
            # It reads the output of a step, and no step has run yet. A run asks for it later.
            if not found:
                raise
            later = f"the steps after {found[-1].name!r} are not known until it is complete ({error})"
            break
        if step is None:
            break
        plan: Plan | WorkflowPlan
        takes: tuple[tuple[str, str], ...] = ()
        if isinstance(step.of, Workflow):
            place = storage.join(run_dir, records.step_folder(len(found) + 1, step.name))
            plan = _planned(step.of, executor, machine, place, left)
        else:
            plan = _plan_of(workflow, step.of, executor, machine)
            takes = taken_by(plan, left)
            left |= dict.fromkeys(folders_of(plan), step.name)
        found.append(PlannedStep(step.name, plan, takes, tuple(step.frees), step.counts))
        if later:
            break
    if not found:
        raise PlanError(f"workflow {workflow.name!r} has no steps")
    return WorkflowPlan(workflow.name, workflow.call(brief=True), tuple(found), later)


def _plan_of(workflow: Workflow, pipeline: Pipeline, executor: BaseExecutor | None, machine: Machine | None) -> Plan:
    try:
        return pipeline.plan(executor, machine=machine)
    except PlanError as error:
        raise PlanError(f"step {pipeline.name!r} of {workflow.name!r}: {error}") from error


class _Session:
    """The part that all steps share: the executor, which is opened when a step first needs it and stays open until the
    end.

    ``temporary`` says that the run directory is removed with the run, so no later run can recognise its own output.
    """

    def __init__(self, executor: BaseExecutor, *, temporary: bool) -> None:
        self.executor = executor
        self.temporary = temporary
        self.started = time.monotonic()
        self.opened_after = 0.0
        self.worked_after: float | None = None
        self.machine: Machine | None = None
        self._stack = contextlib.ExitStack()

    def expect(self, pipeline: Pipeline) -> None:
        """If the executor is not open, ``pipeline`` is the first to run, and workers load its modules while the
        executor opens.
        """
        if self.machine is None:
            self.executor.expect(pipeline.stages)

    def open(self) -> Machine:
        if self.machine is None:
            self._stack.enter_context(opened(self.executor))
            self.executor.get_ready()
            self.machine = self.executor.machine()
            self.opened_after = round(time.monotonic() - self.started, 3)
        return self.machine

    def worked(self, state: RunProgress) -> None:
        if self.worked_after is None and state.finished_sources:
            self.worked_after = round(time.monotonic() - self.started, 3)

    def close(self) -> None:
        self._stack.close()


class _StartOver(Exception):
    """A step of ``run`` has work to do, but the files that it needs have been removed."""

    def __init__(self, run: _Run, reason: str) -> None:
        super().__init__(reason)
        self.run = run


def _run(
    workflow: Workflow, session: _Session, options: RunOptions, report: Progress, outer: _Run | None = None
) -> RunResult:
    """A workflow in its run directory; ``outer`` is the run of the workflow that it is a step of."""
    assert options.run_dir is not None
    directory = RunDirectory(options.run_dir)
    directory.lock()
    begun = False
    try:
        earlier = records.look(directory, options)
        while True:
            run = _Run(workflow, directory, session, options, report, earlier, outer)
            try:
                return run.run()
            except _StartOver as order:
                if order.run is not run:
                    raise
                earlier = EarlierSteps(
                    earlier.attempt,
                    earlier.state,
                    marks=earlier.marks,
                    replaces=True,
                    ours=True,
                    warnings=[str(order)],
                )
            finally:
                begun = begun or run.begun
    finally:
        directory.unlock(leave_no_trace=not begun)


class _Run:
    """One attempt at a workflow in its run directory."""

    def __init__(
        self,
        workflow: Workflow,
        directory: RunDirectory,
        session: _Session,
        options: RunOptions,
        report: Progress,
        earlier: EarlierSteps,
        outer: _Run | None,
    ) -> None:
        self.workflow = workflow
        self.directory = directory
        self.session = session
        self.options = options
        self.report = report
        self.earlier = earlier
        self.outer = outer
        self.root: str = outer.root if outer is not None else directory.url
        self.attempt = earlier.attempt + 1
        self.started = time.monotonic()
        self.started_at = now()
        self.begun = False
        self.plan: WorkflowPlan | None = None
        self.records: list[StepRecord] = []
        self.summaries: list[StepSummary] = []
        self.marks = dict(earlier.marks)
        self.warnings: list[str] = []
        self.notes: list[str] = []  # the conclusions of the stages of all steps
        self.freed: list[str] = []  # all folders that were freed
        self.counting: RunSummary | None = None
        self.results_in = ""  # the run directory of the step that counts
        self.results: list[Task[Any]] | None = None  # its results, if this attempt has them
        self.counted = False

    @property
    def work_dir(self) -> str:
        return self.directory.path(WORK)

    def run(self) -> RunResult:
        try:
            outcome: RunSummary | None = None
            asked = _Asked(self.workflow, self.work_dir)
            while (step := asked.next(outcome)) is not None:
                outcome = self._step(step)
            if not self.records:
                raise UsageError(f"workflow {self.workflow.name!r} has no steps")
            return self._conclude()
        except _StartOver:
            raise
        except BaseException as error:
            self._record_failure(error)
            raise

    # One step -----------------------------------------------------------------------------------------------------

    def _step(self, step: Step) -> RunSummary:
        """Run a step, or find that it has nothing to do; return the outcome."""
        folder = records.step_folder(len(self.records) + 1, step.name)
        before = records.fingerprint_of(record.left for record in self.records)
        known = self.earlier.steps.get(folder)
        record = StepRecord(step.name, folder, before=before)
        if known is not None:
            record = replace(known)
            if known.before != before:
                # The work of a step is valid only for the input that it was made from.
                record = StepRecord(step.name, folder, before=before, anew=True)
        summary = StepSummary(step.name, folder=folder)
        self.records.append(record)
        self.summaries.append(summary)
        place = RunDirectory(self.directory.path(folder))
        if isinstance(step.of, Workflow):
            result = self._nested(step.of, record, summary, place)
        else:
            result = self._pipeline(step.of, record, summary, place)
        found = result.summary
        self._note(summary, found)
        self.notes += found.notes
        if found.state == "quarantined" and not step.counts:
            self.warnings.append(
                f"step {step.name!r} is done with work set aside ({count(found.rows_rejected, 'row')} rejected, "
                f"{found.rows_quarantined:,} quarantined): look at it with `curate rejects {place.url}`"
            )
        if not self.counted:
            self.counting, self.counted = found, step.counts
            self.results_in, self.results = place.url, None if summary.complete_before else result.tasks
        if not record.complete or not summary.complete_before:
            record.state = found.state
            record.left = records.left_by(place)
            # A retry reads the rows that were set aside again.
            given = () if found.has_quarantined else step.frees
            record.freed = [storage.relative(storage.absolute(folder), self.directory.url) for folder in given]
            self.marks |= records.marks_in(place.url)
            if self.begun:
                self._write_record()
        for folder in record.freed:
            # This is recorded first: if the run is killed in between, the resumed run removes the folder.
            if storage.exists(self.directory.path(folder)):
                storage.remove(self.directory.path(folder))
        self.freed += record.freed
        return found

    def _pipeline(self, pipeline: Pipeline, record: StepRecord, summary: StepSummary, place: RunDirectory) -> RunResult:
        plan = _plan_of(self.workflow, pipeline, self.session.executor, _ANYWHERE)
        outside = plan.source is not None and not any(
            is_within(text, self.root) for text in texts_of(plan.source.stage.params())
        )
        options = replace(
            self.options,
            run_dir=place.url,
            limit=self.options.limit if outside else None,
            dropped=None if self.options.dropped is None else storage.join(self.options.dropped, record.name),
        )
        later = list(self.earlier.steps.values())[len(self.records) - 1 :]
        freed = [self.directory.path(item) for item in (*self.freed, *(f for other in later for f in other.freed))]
        if (
            record.complete
            and not record.anew
            and records.stands(record.name, plan, place, options, outside=outside, freed=freed)
        ):
            summary.complete_before = True
            return RunResult([], records.summary_of(place.url), place.url)
        self.session.expect(pipeline)
        self.begin()
        begun = not record.anew and place.read_json("run.json") is not None
        options = replace(
            options,
            resume=begun and (options.resume or options.retry),
            retry=begun and options.retry,
            fresh=record.anew,
        )
        order = Order(
            pipeline.stages,
            self.session.executor,
            pipeline.name,
            None,
            options,
            self._progress(record),
            opened=True,
            replaces=self.earlier.replaces,
            own=self.marks,
        )
        return run_stages(order)

    def _nested(self, workflow: Workflow, record: StepRecord, summary: StepSummary, place: RunDirectory) -> RunResult:
        again = self.options.retry and record.state == "quarantined"
        if record.complete and not (record.anew or again) and self.earlier.given_back_from(len(self.records)):
            # The files that it would read again no longer exist, but the steps before it have produced the same output
            # as before.
            plan = place.read_json("plan.json")
            if plan is not None and plan.get("call") == workflow.call():
                summary.complete_before = True
                return RunResult([], records.summary_of(place.url), place.url)
        begun = not record.anew and place.read_json("run.json") is not None
        options = replace(
            self.options,
            run_dir=place.url,
            resume=begun and (self.options.resume or self.options.retry),
            retry=begun and self.options.retry,
            fresh=record.anew or (self.earlier.replaces and not begun),
        )
        result = _run(workflow, self.session, options, self._progress(record), outer=self)
        summary.complete_before = all(step.complete_before for step in result.summary.steps)
        return result

    def _progress(self, record: StepRecord) -> Progress:
        number = len(self.records)

        def progress(state: RunProgress) -> None:
            if record.anew and state.state not in (STARTING, "failed"):  # it has begun
                record.anew = False
                self._write_record()
            self.session.worked(state)
            # The state is copied, because the next call returns the same object, which does not name the step.
            shown = replace(
                state,
                step=number,
                steps=len(self.plan.steps) if self.plan is not None and not self.plan.later else None,
                step_name=f"{record.name}/{state.step_name}" if state.step else record.name,
            )
            self.report(shown)

        return progress

    # The record ---------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Prepare once for a step with work to do: open the executor, plan all known steps, and take the run directory."""
        number = len(self.records)
        given_back = self.earlier.given_back_from(number)
        if given_back:
            raise _StartOver(
                self,
                f"every step starts again: step {self.records[-1].name!r} is no longer complete, and the folders "
                f"that it needs were freed ({', '.join(map(repr, given_back))})",
            )
        if self.outer is not None:
            self.outer.begin()
        record = self.records[-1]
        record.state = "running"
        if self.begun:
            self._write_record()
            return
        if not self.earlier.steps:
            self.workflow.check_room(self.work_dir)
        if self.session.machine is None and self.session.executor.opening:
            self.report(starting(self.workflow.name, self.session.executor, self.session.started))
        machine = self.session.open()
        self.plan = self.workflow.plan(self.session.executor, machine=machine, run_dir=self.directory.url)
        if self.outer is None:
            self._check_outputs()
        self.begun = True
        if self.attempt > 1:
            self.directory.sweep(recursive=False)  # each step does this in its own folder
        self._write_record()
        if not self.earlier.steps:
            # The existing records are not needed: this is a fresh start, or the last run did nothing.
            self.directory.clear(keep="run.json")
            for name in (STEPS, WORK):
                if self.earlier.ours:
                    storage.remove(self.directory.path(name))
        self.directory.write_json(
            "plan.json",
            {
                "kind": WORKFLOW,
                "name": self.plan.name,
                "call": self.workflow.call(),
                "fingerprint": self.plan.fingerprint(),
                "steps": self.plan.values(),
                "text": self.plan.describe(),
            },
        )

    def _check_outputs(self) -> None:
        """Raise errors now that a step would otherwise raise hours later."""
        assert self.plan is not None
        if self.earlier.replaces:
            return
        marks = {**self.marks, **records.marks_in(self.directory.url)}
        for name, plan in self.plan.pipelines():
            try:
                Outputs(plan, marks).require_own(recorded=not self.session.temporary)
            except RunRefused as error:
                raise RunRefused(f"step {name!r}: {error}") from error

    def _note(self, summary: StepSummary, found: RunSummary) -> None:
        summary.state = found.state
        summary.sources = found.sources
        summary.rows_in, summary.rows_out = found.rows_in, found.rows_out
        summary.seconds = found.seconds
        summary.steps = found.steps

    def _summary(self, state: Literal["done", "quarantined", "failed"]) -> RunSummary:
        found = self.counting if self.counting is not None else RunSummary(self.workflow.name)
        return replace(
            found,
            name=self.workflow.name,
            state=state,
            executor=type(self.session.executor).__name__,
            attempt=self.attempt if self.begun else max(1, self.earlier.attempt),
            seconds=round(time.monotonic() - self.started, 3),
            opened_after=self.session.opened_after,
            worked_after=self.session.worked_after,
            warnings=[*self.earlier.warnings, *self.warnings, *found.warnings],
            notes=list(self.notes),
            steps=list(self.summaries),
        )

    def _conclude(self) -> RunResult:
        states = {summary.state for summary in self.summaries}
        summary = self._summary("quarantined" if "quarantined" in states else "done")
        if self.begun or self.earlier.state != summary.state:
            outputs = records.outputs_of(self.results_in)
            self._write_record(summary.state, summary=summary.as_dict(), outputs=outputs)
            self._write_report()
        for folder in self.earlier.steps.keys() - {record.folder for record in self.records}:
            storage.remove(self.directory.path(folder))
        results = self.results if self.results is not None else _stored(self.results_in)
        return RunResult(results, summary, self.directory.url)

    def _record_failure(self, error: BaseException) -> None:
        if not self.begun:
            return
        if self.summaries and self.summaries[-1].state == "running":
            self.summaries[-1].state = "failed"
            if self.records[-1].state == "running":
                self.records[-1].state = "failed"
        summary = self._summary("failed")
        step = f"step {len(self.records)} ({self.records[-1].name}): " if self.records else ""
        if isinstance(error, KeyboardInterrupt):
            text = "interrupted before it was done"
        else:
            text = str(error) if isinstance(error, CuratorError) else f"{type(error).__name__}: {error}"
        summary.problems = [*summary.problems, step + text]
        with contextlib.suppress(CuratorError):  # the disk may have failed; the first error is shown
            self._write_record("failed", summary=summary.as_dict())
            write_log(self.directory.url, records.pipelines_in(self.directory.url))

    def _write_report(self) -> None:
        from curator_core.running.report import write_report  # deferred: only a run that ends needs the import

        write_log(self.directory.url, records.pipelines_in(self.directory.url))
        write_report(self.directory.url)

    def _write_record(self, state: str = "running", **more: Any) -> None:
        machine = self.session.machine or self.session.executor.machine()
        executor = type(self.session.executor).__name__
        record = run_record(state, self.attempt, self.marks, executor, self.options, machine, self.started_at)
        present = {step.folder for step in self.records}
        rest = [
            step
            for number, step in enumerate(self.earlier.steps.values())
            if number >= len(self.records) and step.folder not in present and state not in ("done", "quarantined")
        ]
        extra = {
            "kind": WORKFLOW,
            "workflow": self.workflow.name,
            "replaces": self.earlier.replaces,
            "steps": records.as_values([*self.records, *rest]),
            "counts": storage.relative(self.results_in, self.directory.url) if self.results_in else None,
        }
        self.directory.write_json("run.json", {**record, **extra, **more})


def _stored(run_dir: str) -> list[Task[Any]]:
    """The results of a complete run, or of the step that counts."""
    while (step := records.counting_folder(run_dir)) is not None:
        run_dir = step
    return records.results_of(run_dir)


class _Asked:
    """Iterates over the steps of a workflow, and checks that each has its own name."""

    _steps: Any

    def __init__(self, workflow: Workflow, work_dir: str) -> None:
        self._workflow = workflow
        self._steps = iter(workflow.steps(work_dir))
        self._work_dir = storage.absolute(work_dir)
        self._names: list[str] = []

    def next(self, outcome: RunSummary | None) -> Step | None:
        """The next step; ``outcome`` is the outcome of the one before."""
        try:
            given = self._steps.send(outcome) if self._listens() else next(self._steps)
        except StopIteration:
            return None
        what = f"workflow {self._workflow.name!r}"
        step = given if isinstance(given, Step) else Step(given)
        if not isinstance(step.of, Pipeline | Workflow):
            raise UsageError(f"{what}: a step is a Pipeline or a Workflow, not {step.of!r}")
        if not step.name or "/" in step.name or "\0" in step.name or step.name in (".", ".."):
            raise UsageError(f"{what}: a step's name is also that of a folder, so it cannot be {step.name!r}")
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

    def _listens(self) -> bool:
        """Whether a ``yield`` receives the outcome of the step; ``yield from`` a list does not."""
        inner = self._steps
        while isinstance(inner, GeneratorType) and inner.gi_yieldfrom is not None:
            inner = inner.gi_yieldfrom
        return isinstance(inner, GeneratorType)
