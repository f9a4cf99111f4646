"""What will run? Composites are expanded, contracts checked, stages fused, and resources fitted to the machine.

`make_plan` is a pure function: the same stages and machine give the same plan, and the user's objects do not change.
All errors that can be detected in advance are raised here, before a task exists.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from curator_core.errors import CuratorError, PlanError, UsageError
from curator_core.model.machine import Machine
from curator_core.model.resources import Resources
from curator_core.model.stage import (
    ColumnNeed,
    ColumnReader,
    CompositeStage,
    Merge,
    ProcessingStage,
    SourceStage,
    needed_columns,
)
from curator_core.model.task import EmptyTask, Task
from curator_core.planning.contracts import check_contracts, check_kinds, check_one_reader, check_outputs
from curator_core.planning.fusion import check_gpus, fit, fuse, keep_beside
from curator_core.planning.plan import Plan, PlannedStage, Segment, Stage


def make_plan(
    stages: Sequence[Stage],
    machine: Machine,
    *,
    name: str = "pipeline",
    simultaneous: bool = False,
    environments: bool = True,
    first_task: type[Task[Any]] = EmptyTask,
) -> Plan:
    """Plan ``stages`` for ``machine``.

    ``simultaneous`` says that all groups have workers at the same time (Ray Data, Xenna streaming), so that their needs
    add up; otherwise (LocalExecutor) a worker runs one group after the other. ``environments`` says that the executor
    provides a stage's ``runtime_env``; if not, the plan contains a warning.
    """
    if not stages:
        raise PlanError("the pipeline has no stages: add a reader first, for example JsonlReader(paths='in/*.jsonl')")
    check_one_reader(stages)
    decisions: list[str] = []
    warnings: list[str] = []
    flat = expand(check_stage_list(stages), decisions)
    named = _name(flat)
    check_kinds(named)
    check_outputs(named)
    columns = check_contracts(named, first_task)
    named = _satisfy_needs(_specialise(named), decisions, warnings)
    named = _suit(named, machine, decisions, warnings)
    source, rest = (named[0], named[1:]) if isinstance(named[0].stage, SourceStage) else (None, named)
    if not environments:
        warnings += [
            f"{planned.name} asks for its own environment (runtime_env), but runs in that of this process"
            for planned in rest
            if planned.stage.runtime_env
        ]
    segments: list[Segment] = []
    merge: PlannedStage | None = None
    waiting: list[PlannedStage] = []
    for planned in rest:
        if isinstance(planned.stage, Merge):
            segments.append(Segment(tuple(fuse(waiting, decisions)), merge))
            merge, waiting = planned, []
        else:
            waiting.append(planned)
    segments.append(Segment(tuple(fuse(waiting, decisions)), merge))
    segments = [fit(keep_beside(segment, decisions), machine, simultaneous, decisions) for segment in segments]
    for planned in named:
        decisions += planned.stage.plan_notes()
    check_gpus(segments, machine, simultaneous)
    return Plan(name, source, tuple(segments), machine, tuple(decisions), tuple(warnings), columns)


def expand(stages: Iterable[Stage], decisions: list[str], depth: int = 0) -> list[Stage]:
    """The stages that do the work, with each composite replaced by its stages; the replacements are added to
    ``decisions``.
    """
    flat: list[Stage] = []
    for stage in stages:
        if not isinstance(stage, CompositeStage):
            flat.append(stage)
            continue
        if depth > 20:
            raise PlanError(f"composite {stage.name!r} decomposes into itself endlessly")
        parts = check_stage_list(stage.decompose(), f"composite {stage.name!r} decomposes into", PlanError)
        if not parts:
            raise PlanError(f"composite {stage.name!r} decomposes into no stages")
        parts = [_inherit(stage, part, len(parts)) for part in parts]
        inner = expand(parts, decisions, depth + 1)
        if depth == 0:
            decisions.append(f"expanded {stage.name} into {', '.join(part.name for part in inner)}")
        flat.extend(inner)
    return flat


def _inherit(composite: Stage, part: Stage, parts: int) -> Stage:
    """Apply the settings that `with_` makes on a composite to a part of it, unless the part has its own."""
    settings = composite.settings()
    own = part.settings()
    given = {key: value for key, value in settings.items() if key not in own}
    if "name" in settings:
        given["name"] = settings["name"] if parts == 1 else f"{settings['name']}.{part.name}"
    if isinstance(part, SourceStage):  # a source stage runs in the driver
        given = {key: value for key, value in given.items() if key == "name"}
    return part.with_(**given) if given else part


def _own_copy(stage: Stage, name: str) -> Stage:
    """A copy of the stage for this run, with its name in the plan. Attributes that `setup` and `process` set do not
    reach the user's object.

    Parameters are shared; other state is copied deeply, as when a stage is sent to a worker process. So a stage with
    state starts afresh in every run, wherever it runs.
    """
    twin = copy.copy(stage)
    given = {id(value): value for value in stage._given.values()}
    for key, value in vars(stage).items():
        if key in ("_given", "_recorder") or id(value) in given or isinstance(value, _PLAIN):
            continue
        # A lock or a handle cannot be copied. In this process it can be shared; a pool reports that it cannot be sent.
        with contextlib.suppress(Exception):
            object.__setattr__(twin, key, copy.deepcopy(value, dict(given)))
    object.__setattr__(twin, "_recorder", None)
    if stage.name != name:
        object.__setattr__(twin, "name", name)
    return twin


_PLAIN = (str, bytes, int, float, bool, type(None), Resources)


def _name(stages: Sequence[Stage]) -> list[PlannedStage]:
    seen: dict[str, int] = {}
    taken = {stage.name for stage in stages}
    named = []
    for stage in stages:
        number = seen[stage.name] = seen.get(stage.name, 0) + 1
        name = stage.name if number == 1 else f"{stage.name}#{number}"
        while number > 1 and name in taken:
            number += 1
            name = f"{stage.name}#{number}"
        seen[stage.name] = number
        taken.add(name)
        named.append(PlannedStage(_own_copy(stage, name), name))
    return named


def _specialise(named: Sequence[PlannedStage]) -> list[PlannedStage]:
    """Tell every stage, from the last to the first, which columns later stages read."""
    wanted: set[str] = set()
    result: list[PlannedStage] = []
    for planned in reversed(named):
        stage = planned.stage.needed_by(frozenset(wanted))
        if not isinstance(stage, ProcessingStage):
            raise PlanError(f"{planned.name}.needed_by() must return a stage, not {stage!r}")
        wanted -= set(stage.outputs())
        declared = stage.inputs()
        if isinstance(declared, Mapping):
            for columns in declared.values():
                wanted.update(columns)
        else:
            wanted.update(declared)
        result.append(replace(planned, stage=stage))
    return result[::-1]


def _satisfy_needs(named: Sequence[PlannedStage], decisions: list[str], warnings: list[str]) -> list[PlannedStage]:
    """Let every stage make its columns as the stages that read them require."""
    needs = [(planned, planned.stage.column_needs()) for planned in named]
    result: list[PlannedStage] = []
    for index, planned in enumerate(named):
        asked: dict[str, list[ColumnNeed]] = {}
        for column in planned.stage.outputs():
            for reader, needed in needs[index + 1 :]:
                if column in needed:
                    asked.setdefault(column, []).append(ColumnNeed(reader.name, needed[column]))
                if column in reader.stage.outputs() or column in reader.stage.removes():
                    break  # later stages read the new column of this name
        if not asked:
            result.append(planned)
            continue
        try:
            made = planned.stage.made_for(asked)
        except UsageError as error:
            raise PlanError(str(error)) from error
        decisions += made.decisions
        warnings += made.warnings
        result.append(replace(planned, stage=made.stage))
    return result


def _suit(
    named: Sequence[PlannedStage], machine: Machine, decisions: list[str], warnings: list[str]
) -> list[PlannedStage]:
    """Let every stage that has a choice adapt to the machine and to the stages that read its columns."""
    result: list[PlannedStage] = []
    for index, planned in enumerate(named):
        readers: dict[str, list[ColumnReader]] = {}
        for column in planned.stage.outputs():
            for later in named[index + 1 :]:
                stage = later.stage
                if column in needed_columns(stage):
                    readers.setdefault(column, []).append(ColumnReader(later.name, stage.resources, stage.rows_s()))
                if column in stage.outputs() or column in stage.removes() or later.is_fanout:
                    break
                if not (stage.light or stage.resources.requires_gpu):
                    break  # later stages are not in the worker of a stage on a GPU
        made = planned.stage.suited_to(machine, readers)
        decisions += made.decisions
        warnings += made.warnings
        result.append(planned if made.stage is planned.stage else replace(planned, stage=made.stage))
    return result


def check_stage_list(
    stages: Iterable[object], what: str = "a pipeline is made of", error: type[CuratorError] = UsageError
) -> list[Stage]:
    """The stages as a list; raise an error that names an item that is not a stage. ``what`` says whose stages they are."""
    found = []
    for stage in stages:
        if not isinstance(stage, ProcessingStage):
            hint = " (a class: add parentheses to make a stage of it)" if isinstance(stage, type) else ""
            raise error(f"{what} stages, but got {stage!r}{hint}")
        found.append(stage)
    return found
