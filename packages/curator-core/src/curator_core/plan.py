"""What will actually run: composites expanded, contracts checked, stages fused, resources fitted.

`make_plan` is a plain function: same stages and machine in, same plan out, nothing of the user's touched. Everything
that can be known to fail fails here, before a task exists.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from curator_core.errors import PlanError, UsageError, nearest
from curator_core.formatting import count
from curator_core.model.engine_facts import RayStageSpecKeys
from curator_core.model.machine import Machine
from curator_core.model.resources import Resources
from curator_core.model.stage import (
    ANY_COLUMNS,
    CompositeStage,
    FanOut,
    Merge,
    ProcessingStage,
    SourceStage,
    accepted_tasks,
    is_fanout,
    needed_columns,
    overrides,
)
from curator_core.model.task import DocumentBatch, EmptyTask, Task

Stage = ProcessingStage[Any, Any]


@dataclass(frozen=True)
class PlannedStage:
    """A stage with the name that tells it apart in this run (``Upper``, ``Upper#2``)."""

    stage: Stage
    name: str

    @property
    def is_fanout(self) -> bool:
        return is_fanout(self.stage)


@dataclass(frozen=True)
class Group:
    """Stages that run one after the other in one worker, depth first."""

    stages: tuple[PlannedStage, ...]
    resources: Resources
    num_workers: int | None = None

    @property
    def name(self) -> str:
        return "+".join(planned.name for planned in self.stages)

    @property
    def is_fanout(self) -> bool:
        """Whether what leaves the group should be spread over the workers of the next."""
        return any(planned.is_fanout for planned in self.stages)

    @property
    def keeps_state(self) -> bool:
        """Whether a worker is worth keeping: a stage asks for it, has a ``setup``, or uses a GPU."""
        for planned in self.stages:
            fact = planned.stage.ray_stage_spec().get(RayStageSpecKeys.IS_ACTOR_STAGE)
            if fact or (fact is None and (self.resources.requires_gpu or overrides(planned.stage, "setup"))):
                return True
        return False

    @property
    def runtime_env(self) -> dict[str, Any] | None:
        env = self.stages[0].stage.runtime_env
        return dict(env) if env else None


@dataclass(frozen=True)
class Segment:
    """Groups that stream into one another. A segment after the first starts with the merge that it waits for."""

    groups: tuple[Group, ...]
    merge: PlannedStage | None = None


@dataclass(frozen=True)
class Plan:
    """What a run will do, and why."""

    name: str
    source: PlannedStage | None
    segments: tuple[Segment, ...]
    machine: Machine
    decisions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def stages(self) -> list[PlannedStage]:
        """All stages in order, the source and the merges included."""
        found = [self.source] if self.source else []
        for segment in self.segments:
            if segment.merge:
                found.append(segment.merge)
            for group in segment.groups:
                found.extend(group.stages)
        return found

    def steps(self) -> list[dict[str, Any]]:
        """The stages as values: what the run directory remembers and what a change is told by."""
        return [
            {
                "name": planned.name,
                "class": f"{type(planned.stage).__module__}.{type(planned.stage).__qualname__}",
                "version": planned.stage.version,
                "params": {key: _plain(value) for key, value in planned.stage.params().items()},
            }
            for planned in self.stages
        ]

    def fingerprint(self) -> str:
        """A short hash of everything about the stages that decides what comes out."""
        text = json.dumps(self.steps(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def describe(self) -> str:
        """The plan for a person to read."""
        lines = [f"{self.name}: {len(self.stages)} stages on {_machine_text(self.machine)}"]
        if self.source:
            lines += ["sources, listed by the driver", f"  {self.source.name}  {_shown(self.source)}"]
        number = 0
        for segment in self.segments:
            if segment.merge:
                lines += [f"barrier: {segment.merge.name} waits for everything before it", f"  {_shown(segment.merge)}"]
            for group in segment.groups:
                number += 1
                lines.append(f"group {number}  {_needs(group)}{'  fans out' if group.is_fanout else ''}")
                for planned in group.stages:
                    lines.append(f"  {planned.name}  {_shown(planned)}")
                    reads, adds = needed_columns(planned.stage), list(planned.stage.outputs())
                    if reads or adds:
                        lines.append(
                            f"      reads {', '.join(reads) or 'nothing'}; adds {', '.join(adds) or 'nothing'}"
                        )
        if self.decisions:
            lines += ["decisions", *(f"  {text}" for text in self.decisions)]
        if self.warnings:
            lines += ["warnings", *(f"  {text}" for text in self.warnings)]
        return "\n".join(lines)


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

    ``simultaneous`` says that every group holds its workers at the same time (Ray Data, Xenna streaming), so that
    their needs add up; otherwise (LocalExecutor) a worker runs one group after the other. ``environments`` says that
    a stage's ``runtime_env`` is provided; where it is not, the plan warns.
    """
    if not stages:
        raise PlanError("the pipeline has no stages: add a reader first, for example JsonlReader(paths='in/*.jsonl')")
    decisions: list[str] = []
    warnings: list[str] = []
    flat = expand(stages, decisions)
    named = _name(flat)
    _check_kinds(named)
    columns = _check_contracts(named, first_task)
    named = _specialise(named)
    source, rest = (named[0], named[1:]) if isinstance(named[0].stage, SourceStage) else (None, named)
    if not environments:
        warnings += [
            f"{planned.name} asks for an environment of its own (runtime_env): it runs in that of this process"
            for planned in rest
            if planned.stage.runtime_env
        ]
    segments: list[Segment] = []
    merge: PlannedStage | None = None
    waiting: list[PlannedStage] = []
    for planned in rest:
        if isinstance(planned.stage, Merge):
            segments.append(Segment(tuple(_fuse(waiting, decisions)), merge))
            merge, waiting = planned, []
        else:
            waiting.append(planned)
    segments.append(Segment(tuple(_fuse(waiting, decisions)), merge))
    segments = [_fit(segment, machine, simultaneous, decisions) for segment in segments]
    _check_gpus(segments, machine, simultaneous)
    return Plan(name, source, tuple(segments), machine, tuple(decisions), tuple(warnings), columns)


def difference(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> list[str]:
    """What changed between two lists of `Plan.steps`, one line each."""
    old, new = {step["name"]: step for step in before}, {step["name"]: step for step in after}
    lines = [f"stage {name!r} is gone" for name in old if name not in new]
    lines += [f"stage {name!r} is new" for name in new if name not in old]
    for name, step in new.items():
        earlier = old.get(name)
        if earlier is None:
            continue
        for key in ("class", "version"):
            if earlier[key] != step[key]:
                lines.append(f"stage {name!r}: {key} was {earlier[key]!r}, is {step[key]!r}")
        for key in sorted({*earlier["params"], *step["params"]}):
            was, now = earlier["params"].get(key), step["params"].get(key)
            if was != now:
                lines.append(f"stage {name!r}: {key} was {was!r}, is {now!r}")
    shared_old, shared_new = [n for n in old if n in new], [n for n in new if n in old]
    if shared_old != shared_new:
        lines.append(f"the order of stages was {', '.join(shared_old)}; is {', '.join(shared_new)}")
    return lines


def expand(stages: Iterable[Stage], decisions: list[str], depth: int = 0) -> list[Stage]:
    """The stages that do the work: those of composites in their place; what became of these is added to ``decisions``."""
    flat: list[Stage] = []
    for stage in stages:
        if not isinstance(stage, ProcessingStage):
            hint = " (a class; add parentheses)" if isinstance(stage, type) else ""
            raise PlanError(f"a pipeline is made of stages, but got {stage!r}{hint}")
        if not isinstance(stage, CompositeStage):
            flat.append(stage)
            continue
        if depth > 20:
            raise PlanError(f"composite {stage.name!r} decomposes into itself without end")
        parts = list(stage.decompose())
        if not parts:
            raise PlanError(f"composite {stage.name!r} decomposes into no stages")
        for part in parts:
            if not isinstance(part, ProcessingStage):
                hint = " (a class; add parentheses)" if isinstance(part, type) else ""
                raise PlanError(f"composite {stage.name!r} decomposes into stages, but gave {part!r}{hint}")
        parts = [_inherit(stage, part, len(parts)) for part in parts]
        inner = expand(parts, decisions, depth + 1)
        if depth == 0:
            decisions.append(f"expanded {stage.name} into {', '.join(part.name for part in inner)}")
        flat.extend(inner)
    return flat


def _inherit(composite: Stage, part: Stage, parts: int) -> Stage:
    """What `with_` set on a composite holds for its parts, where they have not set it themselves."""
    settings = composite.settings()
    own = part.settings()
    given = {key: value for key, value in settings.items() if key not in own}
    if "name" in settings:
        given["name"] = settings["name"] if parts == 1 else f"{settings['name']}.{part.name}"
    if isinstance(part, SourceStage):  # it runs in the driver
        given = {key: value for key, value in given.items() if key == "name"}
    return part.with_(**given) if given else part


def _check_kinds(named: Sequence[PlannedStage]) -> None:
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


def _own_copy(stage: Stage, name: str) -> Stage:
    """A copy for this run: what `setup` and `process` write on it stays here, and it knows its name in the plan.

    Parameters are shared, other state is copied deeply, as it is on the way to a worker process: a stage that counts
    or remembers starts afresh in every run, wherever it runs.
    """
    twin = copy.copy(stage)
    given = {id(value): value for value in stage._given.values()}
    for key, value in vars(stage).items():
        if key in ("_given", "_recorder") or id(value) in given or isinstance(value, _PLAIN):
            continue
        # A lock or a handle cannot be copied: in this process it can be shared, and a pool says that it cannot be sent.
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


def _check_contracts(named: Sequence[PlannedStage], first_task: type[Task[Any]]) -> dict[str, tuple[str, ...]]:
    task_type: type[Task[Any]] = first_task
    known: set[str] = set()
    open_ended = first_task not in (EmptyTask,)  # tasks that the user brings have columns the plan cannot see
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
    if remover and (column in remover.stage.removes() or maker):
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


def _makers(column: str) -> list[str]:
    """Registered stages that produce a column as they come, by name. Looked for only to say so in an error."""
    from curator_core.config.build import load_stage
    from curator_core.registry import STAGES, entries  # deferred: only an error needs the registry

    found = []
    for name in entries(STAGES):
        # One that needs parameters, or a package that is not installed, cannot be the advice.
        with contextlib.suppress(Exception):
            if column in load_stage(name)().outputs():
                found.append(name)
    return found[:3]


def _specialise(named: Sequence[PlannedStage]) -> list[PlannedStage]:
    """Tell every stage what later stages read, from the back."""
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


def _fuse(named: Sequence[PlannedStage], decisions: list[str]) -> list[Group]:
    groups: list[list[PlannedStage]] = []
    why: list[str] = []
    for planned in named:
        reason = _boundary(groups[-1], planned) if groups else "start"
        if reason is None:
            groups[-1].append(planned)
        else:
            groups.append([planned])
            why.append(reason)
    fused = []
    for members, reason in zip(groups, why, strict=True):
        if len(members) > 1:
            decisions.append(f"fused {' + '.join(p.name for p in members)}: they can share a worker")
        if reason != "start":
            decisions.append(f"new group at {members[0].name}: {reason}")
        fused.append(Group(tuple(members), _together(members), members[0].stage.num_workers()))
    return fused


def _boundary(group: Sequence[PlannedStage], planned: PlannedStage) -> str | None:
    """Why ``planned`` cannot join the group, or None."""
    last, stage = group[-1], planned.stage
    if last.is_fanout:
        return f"{last.name} fans out, and its children may go to several workers"
    on_gpu = [member.name for member in group if member.stage.resources.requires_gpu]
    if stage.resources.requires_gpu and not on_gpu:
        return "it uses a GPU"
    if on_gpu and not stage.resources.requires_gpu and not stage.light:
        return f"it needs no GPU, {on_gpu[-1]} does"
    if (last.stage.runtime_env or None) != (stage.runtime_env or None):
        return "it has an environment of its own"
    if last.stage.num_workers() != stage.num_workers():
        who, wanted = ("it", stage.num_workers()) if stage.num_workers() else (last.name, last.stage.num_workers())
        return f"{who} wants {count(wanted or 0, 'worker')}"
    ours, theirs = _engine_facts(last.stage), _engine_facts(stage)
    if ours != theirs:
        return "it has scheduling facts of its own"
    return None


def _engine_facts(stage: Stage) -> dict[str, Any]:
    ignored = (RayStageSpecKeys.IS_FANOUT_STAGE, RayStageSpecKeys.IS_ACTOR_STAGE)
    ray = {key: value for key, value in stage.ray_stage_spec().items() if key not in ignored}
    return {"ray": ray, "xenna": stage.xenna_stage_spec()}


def _together(members: Sequence[PlannedStage]) -> Resources:
    """What one worker needs that runs these one after the other: the most of each; GPU memory adds up, models stay."""
    needs = [planned.stage.resources for planned in members]
    gpus = max(need.gpus for need in needs)
    memory = sum(need.gpu_memory_gb for need in needs)
    if gpus and memory:
        memory = 0.0  # whole GPUs are enough for the parts too
    return Resources(cpus=max(need.cpus for need in needs), gpus=gpus, gpu_memory_gb=memory)


def _fit(segment: Segment, machine: Machine, simultaneous: bool, decisions: list[str]) -> Segment:
    groups = list(segment.groups)
    for index, group in enumerate(groups):
        if group.resources.cpus > machine.cpus:
            decisions.append(
                f"{group.name}: asks for {group.resources.cpus:g} CPUs a worker, {machine.name} has {machine.cpus:g}; "
                f"it gets {machine.cpus:g}"
            )
            groups[index] = replace(group, resources=replace(group.resources, cpus=machine.cpus))
    if simultaneous and len(groups) > 1:
        total = sum(group.resources.cpus * (group.num_workers or 1) for group in groups)
        if total > machine.cpus:
            # Floored, so that rounding never pushes the sum above what there is.
            factor = machine.cpus / total
            decisions.append(
                f"{len(groups)} groups ask for {total:g} CPUs together, {machine.name} has {machine.cpus:g}: "
                f"CPU requests scaled by {factor:.3g}"
            )
            groups = [
                replace(g, resources=replace(g.resources, cpus=int(g.resources.cpus * factor * 1000) / 1000))
                for g in groups
            ]
    return replace(segment, groups=tuple(groups))


def _check_gpus(segments: Sequence[Segment], machine: Machine, simultaneous: bool) -> None:
    for segment in segments:
        shares: dict[str, float] = {}
        for group in segment.groups:
            need = group.resources
            if not need.requires_gpu:
                continue
            asked = f"gpus={need.gpus:g}" if need.gpus else f"gpu_memory_gb={need.gpu_memory_gb:g}"
            if not machine.gpus:
                raise PlanError(
                    f"stage {group.name!r} asks for {asked}, but {machine.name} has no GPU: give the stage "
                    "resources without a GPU (it then runs on the CPU, where it can), or run on a cluster that has one"
                )
            if need.gpus * (group.num_workers or 1) > machine.gpus:
                raise PlanError(f"stage {group.name!r} asks for {asked}, but {machine.name} has {machine.gpus:g} GPUs")
            if machine.gpu_memory_gb is not None:
                try:
                    shares[group.name] = need.gpu_share(machine.gpu_memory_gb) * (group.num_workers or 1)
                except PlanError as error:
                    raise PlanError(f"stage {group.name!r}: {error}") from None
        if simultaneous and sum(shares.values()) > machine.gpus:
            listed = ", ".join(f"{name} {share:g}" for name, share in shares.items())
            raise PlanError(
                f"the GPU stages need {sum(shares.values()):g} GPUs at the same time ({listed}), but {machine.name} has "
                f"{machine.gpus:g}: put GPU stages next to one another so that they share a worker, or lower their needs"
            )


def _plain(value: Any) -> Any:
    """A parameter as JSON can hold it, the same in every process."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, ProcessingStage):
        return {"class": type(value).__qualname__, "params": _plain(value.params())}
    if callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    text = repr(value)
    return text if " at 0x" not in text else f"{type(value).__module__}.{type(value).__qualname__}"


def _machine_text(machine: Machine) -> str:
    gpus = f", {machine.gpus:g} GPUs" if machine.gpus else ", no GPU"
    return f"{machine.name} ({machine.cpus:g} {'CPU' if machine.cpus == 1 else 'CPUs'}{gpus})"


def _needs(group: Group) -> str:
    need = group.resources
    parts = [f"{need.cpus:g} {'CPU' if need.cpus == 1 else 'CPUs'}"]
    if need.gpus:
        parts.append(f"{need.gpus:g} {'GPU' if need.gpus == 1 else 'GPUs'}")
    if need.gpu_memory_gb:
        parts.append(f"{need.gpu_memory_gb:g} GB of a GPU")
    if group.num_workers:
        parts.append(count(group.num_workers, "worker"))
    return ", ".join(parts)


def _shown(planned: PlannedStage) -> str:
    # Not repr(): what with_() has set stands in the line of the group, or is the name itself.
    return planned.stage.call(brief=True)


def check_stage_list(stages: Iterable[object]) -> list[Stage]:
    """The stages as a list, or an error that names what is not one."""
    found = []
    for stage in stages:
        if not isinstance(stage, ProcessingStage):
            hint = ": it is a class, call it to make a stage" if isinstance(stage, type) else ""
            raise UsageError(f"a pipeline is made of stages, but got {stage!r}{hint}")
        found.append(stage)
    return found
