"""Do the stages fit together? The columns that a stage reads exist, and tasks have the type that it accepts."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Sequence
from typing import Any

from curator_core.errors import PlanError, UsageError, check_free, nearest
from curator_core.model.stage import (
    ANY_COLUMNS,
    CompositeStage,
    FanOut,
    SourceStage,
    accepted_tasks,
    added_columns,
    needed_columns,
)
from curator_core.model.task import DocumentBatch, EmptyTask, Task
from curator_core.planning.plan import PlannedStage


def check_one_reader(stages: Sequence[Any]) -> None:
    """Check that a pipeline has one reader, at its start. Composites are not yet expanded, so that errors use the
    user's names.
    """
    readers = [(place, stage) for place, stage in enumerate(stages) if _reads_files(stage)]
    if len(readers) < 2:
        return
    names = [stage.name for _, stage in readers]
    if len({type(stage) for _, stage in readers}) == 1:
        remedy = f"give one {names[0]} all the paths: `paths` takes a list"
    else:
        remedy = "read each format in a pipeline of its own, or bring them to one format first"
    raise PlanError(f"a pipeline can have only one reader, but {' and '.join(map(repr, names))} are readers: {remedy}")


def _reads_files(stage: Any) -> bool:
    if isinstance(stage, CompositeStage):
        with contextlib.suppress(Exception):  # its errors are reported when it is expanded
            parts = stage.decompose()
            return bool(parts) and _reads_files(parts[0])
    return isinstance(stage, SourceStage)


def check_kinds(named: Sequence[PlannedStage]) -> None:
    for index, planned in enumerate(named):
        stage = planned.stage
        if index and isinstance(stage, SourceStage):
            raise PlanError(
                f"stage {planned.name!r} lists sources, so it can only come first; it comes after "
                f"{named[index - 1].name!r}"
            )
        if not isinstance(stage, FanOut) and inspect.isgeneratorfunction(type(stage).process):
            raise PlanError(
                f"stage {planned.name!r} yields its results, so one task becomes many: derive "
                f"{type(stage).__name__} from FanOut"
            )


def check_outputs(named: Sequence[PlannedStage]) -> None:
    """Raise if the pipeline writes to its input: the next run would read the output of this one."""
    source = named[0].stage
    if not isinstance(source, SourceStage):
        return
    for planned in named:
        folder = planned.stage.output_folder()
        entry = source.reads_from(folder) if folder else None
        if entry is not None:
            raise PlanError(
                f"stage {planned.name!r} writes to {folder!r}, which {named[0].name!r} reads by {entry!r}: the next "
                "run would read the output of this one. Write to a folder beside the input"
            )


def check_contracts(named: Sequence[PlannedStage], first_task: type[Task[Any]]) -> dict[str, tuple[str, ...]]:
    task_type: type[Task[Any]] = first_task
    known: set[str] = set()
    open_ended = first_task not in (EmptyTask,)  # the plan does not know the columns of tasks that the user passes
    before = "the start of the pipeline"
    result: dict[str, tuple[str, ...]] = {}
    for index, planned in enumerate(named):
        stage = planned.stage
        accepted = accepted_tasks(stage)
        if not any(issubclass(task_type, kind) or issubclass(kind, task_type) for kind in accepted):
            raise PlanError(_type_message(planned, accepted, task_type, before, index, named))
        needed = needed_columns(stage, task_type)
        for column in needed:
            if column not in known and not open_ended:
                raise PlanError(_column_message(planned, column, known, index, named))
        try:
            check_free(f"stage {planned.name!r}", known, added_columns(stage, task_type))
        except UsageError as error:
            raise PlanError(str(error)) from None
        removed = set(stage.removes())
        if ANY_COLUMNS in removed:
            known, open_ended = set(), False
        known -= removed
        produced = type(stage).task_out
        if issubclass(task_type, produced) and produced is not Task:
            produced = task_type if issubclass(task_type, DocumentBatch) else produced
        if produced is not Task:
            if not issubclass(produced, DocumentBatch):
                known, open_ended = set(), False
            task_type = produced
        else:
            open_ended = True
        outputs = set(stage.outputs())
        if ANY_COLUMNS in outputs:
            open_ended = True
        known |= outputs - {ANY_COLUMNS}
        before = planned.name
        result[planned.name] = tuple(sorted(known)) + ((ANY_COLUMNS,) if open_ended else ())
    return result


def _type_message(
    planned: PlannedStage,
    accepted: Sequence[type[Task[Any]]],
    task_type: type[Task[Any]],
    before: str,
    index: int,
    named: Sequence[PlannedStage],
) -> str:
    wanted = " or ".join(kind.__name__ for kind in accepted)
    text = f"stage {planned.name!r} takes {wanted}, but {before} gives {task_type.__name__}"
    later = [p.name for p in named[index + 1 :] if any(issubclass(type(p.stage).task_out, kind) for kind in accepted)]
    writer = next((p for p in reversed(named[:index]) if p.stage.output_folder()), None)
    if writer is not None and writer.name == before:
        if planned.stage.output_folder():
            return (
                f"{before!r} and {planned.name!r} are writers, but a pipeline can have only one, at its end. To "
                f"write the rows in another format as well, run a second pipeline that reads "
                f"{writer.stage.output_folder()!r}; to spread rows over folders "
                "by a column, use partition_by if the writer has it"
            )
        return f"{text}: {before!r} is a writer and ends the pipeline; put {planned.name!r} before it"
    if index == 0 and task_type is EmptyTask:
        return f"{text}: start the pipeline with a reader, or pass initial_tasks to run()"
    if later:
        return f"{text}. {later[0]!r} gives {wanted}: put it before {planned.name!r}"
    return f"{text}: put a stage between them that turns {task_type.__name__} into {wanted}"


def _column_message(
    planned: PlannedStage, column: str, known: set[str], index: int, named: Sequence[PlannedStage]
) -> str:
    text = f"stage {planned.name!r} reads column {column!r}, which no stage before it produces"
    at_hand = f"Columns at this point: {', '.join(sorted(known)) or 'none'}"
    remover = next((p for p in reversed(named[:index]) if {column, ANY_COLUMNS} & set(p.stage.removes())), None)
    maker = next((p for p in reversed(named[:index]) if column in p.stage.outputs()), None)
    if remover and (column in remover.stage.removes() or maker or _may_have_had(named, remover)):
        return (
            f"stage {planned.name!r} reads column {column!r}, which {remover.name!r} removed: put {planned.name!r} "
            f"before it, or keep the column. {at_hand}"
        )
    later = [p.name for p in named[index + 1 :] if column in p.stage.outputs()]
    if later:
        return f"{text}. {later[0]!r} produces it: put it before {planned.name!r}. {at_hand}"
    if hint := nearest(column, known):
        return f"{text}{hint} {at_hand}"
    if makers := _makers(column):
        text += f". {' or '.join(makers)} would: put it before {planned.name!r}"
    return f"{text}. {at_hand}"


def _may_have_had(named: Sequence[PlannedStage], remover: PlannedStage) -> bool:
    """Whether the columns before a stage depend on the data, as after a reader without a schema."""
    return any(ANY_COLUMNS in p.stage.outputs() for p in named[: named.index(remover)])


def _makers(column: str) -> list[str]:
    """The names of registered stages that produce a column with their default parameters, for an error message."""
    from curator_core.registry import STAGES, entries, load  # deferred: only an error needs the registry

    found = []
    for name in entries(STAGES):
        # Stages that need parameters or a missing package cannot be suggested.
        with contextlib.suppress(Exception):
            if column in load(STAGES, name)().outputs():
                found.append(name)
    return found[:3]
