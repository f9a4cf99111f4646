"""A pipeline: stages in a row, a plan of what they will do, and a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

from curator_core.errors import PlanError, UsageError, check_whole
from curator_core.executors.base import BaseExecutor
from curator_core.executors.local import LocalExecutor
from curator_core.model.machine import Machine, this_machine
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import EmptyTask, Task
from curator_core.planning.make import check_stage_list, make_plan
from curator_core.planning.plan import Plan
from curator_core.running.options import RunOptions
from curator_core.running.preview import ROWS, Preview, make_preview
from curator_core.running.result import Progress, RunResult
from curator_core.running.run import run_stages


class Pipeline:
    """Stages in order. Nothing of a stage is changed by building, planning or running it."""

    def __init__(self, stages: Sequence[ProcessingStage[Any, Any]] = (), *, name: str = "pipeline") -> None:
        if isinstance(stages, ProcessingStage):
            stages = [stages]
        self.stages = check_stage_list(stages)
        self.name = name

    def add_stage(self, stage: ProcessingStage[Any, Any]) -> Self:
        """Append a stage; returns the pipeline, so calls can be chained."""
        self.stages.extend(check_stage_list([stage]))
        return self

    def plan(
        self,
        executor: BaseExecutor | None = None,
        *,
        machine: Machine | None = None,
        initial_tasks: Sequence[Task[Any]] | None = None,
    ) -> Plan:
        """What would run on ``executor`` (LocalExecutor if none), or on a described ``machine``; starts nothing."""
        check_tasks(initial_tasks)
        return make_plan(
            self.stages,
            machine or (executor.machine() if executor is not None else this_machine()),
            name=self.name,
            simultaneous=executor.simultaneous if executor is not None else False,
            environments=executor.environments if executor is not None else LocalExecutor.environments,
            first_task=type(initial_tasks[0]) if initial_tasks else EmptyTask,
        )

    def describe(self) -> str:
        """The plan on this machine as text; a pipeline that cannot run says why."""
        try:
            return self.plan().describe()
        except PlanError as error:
            stages = "\n".join(f"  {stage!r}" for stage in self.stages)
            return f"{self.name}: cannot run as it is\n{stages}\n{error}"

    def preview(self, rows: int = ROWS, executor: BaseExecutor | None = None) -> Preview:
        """Count the sources, read about ``rows`` rows and try the stages on them; nothing is written, sent or recorded."""
        check_whole("rows", rows)
        return make_preview(self.plan(executor), rows)

    def run(
        self,
        executor: BaseExecutor | None = None,
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
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> RunResult:
        """Run the pipeline and prove that nothing was lost.

        ``run_dir``: a folder or URL for the ledger, rejects and report; with it a run can be resumed.
        ``resume``: continue the run in ``run_dir``: complete sources are skipped, others start again. With
        ``allow_changed`` even though the stages have changed. ``fresh``: forget what is in ``run_dir``, and replace
        finished output, which is refused otherwise.
        ``retry``: resume, and run sources with quarantined work again too.
        ``on_error``: ``fail`` stops at the first stage that raises; ``quarantine`` sets the rows aside and continues.
        ``retries``: how often a stage is asked again before that. ``max_error_fraction``: the share of rows that may
        be rejected or quarantined before the run stops. ``limit``: only the first N sources.
        """
        check_tasks(initial_tasks)
        options = RunOptions(
            run_dir=run_dir,
            resume=resume,
            fresh=fresh,
            allow_changed=allow_changed,
            retry=retry,
            on_error=on_error,
            retries=retries,
            max_error_fraction=max_error_fraction,
            limit=limit,
        )
        return run_stages(
            self.stages,
            executor or LocalExecutor(),
            name=self.name,
            initial_tasks=initial_tasks,
            options=options,
            progress=progress,
        )

    def __repr__(self) -> str:
        return f"Pipeline({self.stages!r}, name={self.name!r})"


def check_tasks(tasks: Any) -> None:
    """Raise `UsageError` unless these are tasks; a table or frame in their place is the usual slip."""
    if tasks is None:
        return
    kind = type(tasks).__name__
    if isinstance(tasks, Task):
        raise UsageError(f"initial_tasks is a list of tasks: write initial_tasks=[task], not one {kind}")
    if hasattr(tasks, "columns") or hasattr(tasks, "column_names"):
        raise UsageError(
            f"initial_tasks is a list of tasks, not a {kind}: wrap it, [DocumentBatch(data={_said(tasks)})]"
        )
    for task in tasks:
        if isinstance(task, Task):
            continue
        if hasattr(task, "columns") or hasattr(task, "column_names"):
            raise UsageError(f"initial_tasks holds a {type(task).__name__}: wrap it, DocumentBatch(data={_said(task)})")
        raise UsageError(f"initial_tasks holds tasks such as DocumentBatch or FileGroupTask, not {task!r:.200}")


def _said(value: Any) -> str:
    return "df" if type(value).__name__ == "DataFrame" else "table"
