"""A pipeline: consecutive stages that can be planned and run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, Self

from curator_core.errors import PlanError, UsageError, check_whole, nearest
from curator_core.executors.base import BaseExecutor, executor_class
from curator_core.executors.local import LocalExecutor
from curator_core.formatting import text_html
from curator_core.model.machine import Machine, this_machine
from curator_core.model.seen_options import SeenOptions
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import EmptyTask, Task
from curator_core.planning.make import check_stage_list, make_plan
from curator_core.planning.plan import Plan
from curator_core.running.notebook import CellProgress, in_notebook
from curator_core.running.options import RunOptions
from curator_core.running.preview import ROWS, Preview, make_preview
from curator_core.running.progress import Progress
from curator_core.running.result import RunResult, RunStream
from curator_core.running.run import Order, iterate_stages, run_stages
from curator_core.running.telemetry import MetricsOptions, metrics_options


class Pipeline:
    """Stages in order. Building, planning and running a pipeline does not change its stages."""

    def __init__(self, stages: Sequence[ProcessingStage[Any, Any]] = (), *, name: str = "pipeline") -> None:
        if isinstance(stages, ProcessingStage):
            stages = [stages]
        self.stages = check_stage_list(stages)
        self.name = name

    def add_stage(self, stage: ProcessingStage[Any, Any]) -> Self:
        """Append a stage and return the pipeline, so that calls can be chained."""
        self.stages.extend(check_stage_list([stage]))
        return self

    def plan(
        self,
        executor: BaseExecutor | None = None,
        *,
        machine: Machine | None = None,
        initial_tasks: Sequence[Task[Any]] | None = None,
    ) -> Plan:
        """Plan the run on ``executor`` (the default is LocalExecutor), or on a described ``machine``. Nothing is
        started.
        """
        tasks = checked_tasks(initial_tasks)
        return make_plan(
            self.stages,
            machine or (executor.machine() if executor is not None else this_machine()),
            name=self.name,
            simultaneous=executor.simultaneous if executor is not None else False,
            environments=executor.environments if executor is not None else LocalExecutor.environments,
            first_task=type(tasks[0]) if tasks else EmptyTask,
        )

    def describe(self) -> str:
        """The plan on this machine as text, or the reason why the pipeline cannot run."""
        try:
            return self.plan().describe()
        except PlanError as error:
            stages = "\n".join(f"  {stage!r}" for stage in self.stages)
            return f"{self.name}: cannot run as it is\n{stages}\n{error}"

    def preview(self, rows: int = ROWS, executor: BaseExecutor | None = None) -> Preview:
        """Count the sources, read about ``rows`` rows and try the stages on them; nothing is written, sent or recorded."""
        check_whole("rows", rows)
        return make_preview(self.plan(executor), rows)

    def _repr_html_(self) -> str:
        return text_html(self.describe())

    def run(
        self,
        executor: BaseExecutor | str | None = None,
        *,
        initial_tasks: Sequence[Task[Any]] | None = None,
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
        """Run the pipeline, and verify that nothing was lost.

        ``executor``: an executor, or its registered name (``local``, ``ray_data``, ``xenna``). ``run_dir``: a folder or
        URL for the ledger, rejects and report; with it a run can be resumed. ``resume``: continue the run in
        ``run_dir``: complete sources are skipped, others start again. ``allow_changed``: resume even if the stages have
        changed. ``fresh``: discard the content of ``run_dir``, and replace finished output; without it, finished output
        raises an error. ``retry``: resume, and also run sources with quarantined work again. ``on_error``: ``fail``
        stops at the first stage that raises; ``quarantine`` sets the rows aside and continues. ``retries``: how often a
        failing stage is called again first. ``max_error_fraction``: the share of rows that may be rejected or
        quarantined before the run stops. ``max_reject_fraction``: a source that loses more of its rows than this to
        rejects is named in the summary, and the exit code is 3. ``log_level``: the lowest level of log records in
        ``log.txt`` of the run directory, together with what stages print. ``limit``: only the first N sources.
        ``dropped``: a folder or URL for the rows that stages drop, written as Parquet with the reason. ``seen``: which
        samples and counts are kept in ``run_dir`` for views of the data, such as ``{"samples": 20, "by":
        ["language"]}`` (see `SeenOptions`), or False for nothing. ``metrics``: where numbers are sent during the run,
        such as ``{"file": "run.prom"}`` or ``{"port": 9109}`` (see `MetricsOptions`); nowhere by default.
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
        return run_stages(self._order(executor, initial_tasks, options, progress, metrics))

    def iterate(
        self,
        executor: BaseExecutor | str | None = None,
        *,
        initial_tasks: Sequence[Task[Any]] | None = None,
        metrics: MetricsOptions | Mapping[str, Any] | bool | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> RunStream:
        """Run the pipeline and yield the results one by one, as they arrive, in any order; the options are those of
        `run`.

        Only the results that the executor has ready are in memory. After the last one the accounts are closed, as at
        the end of `run`, and ``summary`` is set::

            with Pipeline([...]).iterate("ray_data") as results:
                for batch in results:
                    train_on(batch.to_pyarrow())
            print(results.summary.rows_dropped)
        """
        known = {field.name for field in fields(RunOptions)}
        for name in options:
            if name not in known:
                raise UsageError(f"iterate() has no option {name!r}{nearest(name, known)}")
        return iterate_stages(self._order(executor, initial_tasks, RunOptions(**options), progress, metrics))

    def _order(
        self,
        executor: BaseExecutor | str | None,
        initial_tasks: Sequence[Task[Any]] | None,
        options: RunOptions,
        progress: Progress | None,
        metrics: MetricsOptions | Mapping[str, Any] | bool | None,
    ) -> Order:
        tasks = checked_tasks(initial_tasks)
        shown = progress or (CellProgress() if in_notebook() else None)
        return Order(
            self.stages, executor_of(executor), self.name, tasks, options, shown, metrics=metrics_options(metrics)
        )

    def __repr__(self) -> str:
        return f"Pipeline({self.stages!r}, name={self.name!r})"


def checked_tasks(tasks: Any) -> list[Task[Any]] | None:
    """The tasks as a list; raise `UsageError` if they are not tasks. The usual mistake is to pass a table or frame."""
    if tasks is None:
        return None
    kind = type(tasks).__name__
    if isinstance(tasks, Task):
        raise UsageError(f"initial_tasks is a list of tasks: write initial_tasks=[task], not one {kind}")
    if hasattr(tasks, "columns") or hasattr(tasks, "column_names"):
        raise UsageError(
            f"initial_tasks is a list of tasks, not a {kind}: wrap it, [DocumentBatch(data={_said(tasks)})]"
        )
    found = list(tasks)  # a generator can be iterated only once
    for task in found:
        if isinstance(task, Task):
            continue
        if hasattr(task, "columns") or hasattr(task, "column_names"):
            raise UsageError(f"initial_tasks holds a {type(task).__name__}: wrap it, DocumentBatch(data={_said(task)})")
        raise UsageError(f"initial_tasks holds tasks such as DocumentBatch or FileGroupTask, not {task!r:.200}")
    return found


def _said(value: Any) -> str:
    return "df" if type(value).__name__ == "DataFrame" else "table"


def executor_of(given: BaseExecutor | str | None) -> BaseExecutor:
    """The executor itself, the one with this registered name, or LocalExecutor."""
    if given is None:
        return LocalExecutor()
    if isinstance(given, str):
        return executor_class(given)()
    if not isinstance(given, BaseExecutor):
        hint = "; call it: add parentheses" if isinstance(given, type) else ""
        raise UsageError(f"executor is an executor or the registered name of one, not {given!r}{hint}")
    return given
