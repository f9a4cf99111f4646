"""Which neighbouring stages share a worker, and do their needs fit the machine?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from curator_core.errors import PlanError
from curator_core.formatting import count
from curator_core.model.engine_facts import RayStageSpecKeys
from curator_core.model.machine import Machine
from curator_core.model.resources import Resources
from curator_core.model.stage import may_stay_beside
from curator_core.planning.plan import Group, PlannedStage, Segment, Stage


def fuse(named: Sequence[PlannedStage], decisions: list[str]) -> list[Group]:
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
        return "it has its own environment"
    if last.stage.num_workers() != stage.num_workers():
        who, wanted = ("it", stage.num_workers()) if stage.num_workers() else (last.name, last.stage.num_workers())
        return f"{who} wants {count(wanted or 0, 'worker')}"
    ours, theirs = _engine_facts(last.stage), _engine_facts(stage)
    if ours != theirs:
        return "it has its own scheduling settings"
    return None


def _engine_facts(stage: Stage) -> dict[str, Any]:
    ignored = (RayStageSpecKeys.IS_FANOUT_STAGE, RayStageSpecKeys.IS_ACTOR_STAGE)
    ray = {key: value for key, value in stage.ray_stage_spec().items() if key not in ignored}
    return {"ray": ray, "xenna": stage.xenna_stage_spec()}


def _together(members: Sequence[PlannedStage]) -> Resources:
    """The needs of a worker that runs these stages one after the other: the maximum of each resource. GPU memory adds
    up, since models stay loaded.
    """
    needs = [planned.stage.resources for planned in members]
    gpus = max(need.gpus for need in needs)
    memory = sum(need.gpu_memory_gb for need in needs)
    if gpus and memory:
        memory = 0.0  # whole GPUs also cover the needs of the other stages
    return Resources(cpus=max(need.cpus for need in needs), gpus=gpus, gpu_memory_gb=memory)


def keep_beside(segment: Segment, decisions: list[str]) -> Segment:
    """Let stages leave columns beside the table if a later stage in the same worker takes them from there."""
    groups = []
    for group in segment.groups:
        members = list(group.stages)
        for place, planned in enumerate(members):
            taken = {
                column: reader
                for column in planned.stage.outputs()
                if (reader := _taker(column, members[place + 1 :])) is not None
            }
            stage = planned.stage.gives_beside(taken.keys()) if taken else planned.stage
            if stage is not planned.stage:
                members[place] = replace(planned, stage=stage)
                decisions += [
                    f"column {column} of {planned.name} stays where it is made, beside the table, until {reader} takes it"
                    for column, reader in taken.items()
                ]
        groups.append(replace(group, stages=tuple(members)))
    return replace(segment, groups=tuple(groups))


def _taker(column: str, later: Sequence[PlannedStage]) -> str | None:
    """The first stage that reads a column, if it accepts the column beside the table and the stages before it leave it
    there.
    """
    for planned in later:
        if column in planned.stage.takes_beside():
            return planned.name
        if column in planned.stage.outputs() or not may_stay_beside(planned.stage, column):
            return None
    return None


def fit(segment: Segment, machine: Machine, simultaneous: bool, decisions: list[str]) -> Segment:
    groups = list(segment.groups)
    for index, group in enumerate(groups):
        if group.resources.cpus > machine.cpus:
            decisions.append(
                f"{group.name}: asks for {group.resources.cpus:g} CPUs a worker, {machine.name} has "
                f"{machine.cpus:g}; it gets {machine.cpus:g}"
            )
            groups[index] = replace(group, resources=replace(group.resources, cpus=machine.cpus))
    if simultaneous and len(groups) > 1:
        total = sum(group.resources.cpus * (group.num_workers or 1) for group in groups)
        if total > machine.cpus:
            # Rounded down, so that the sum never exceeds the CPUs of the machine.
            factor = machine.cpus / total
            decisions.append(
                f"{len(groups)} groups ask for {total:g} CPUs together, {machine.name} has {machine.cpus:g}: CPU "
                f"requests scaled by {factor:.3g}"
            )
            groups = [
                replace(g, resources=replace(g.resources, cpus=int(g.resources.cpus * factor * 1000) / 1000))
                for g in groups
            ]
    return replace(segment, groups=tuple(groups))


def check_gpus(segments: Sequence[Segment], machine: Machine, simultaneous: bool) -> None:
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
                    "resources without a GPU (it then runs on the CPU, if it can), or run on a cluster that has one"
                )
            if need.gpus * (group.num_workers or 1) > machine.gpus:
                raise PlanError(f"stage {group.name!r} asks for {asked}, but {machine.name} has {machine.gpus:g} GPUs")
            if machine.gpu_memory_gb is not None:
                try:
                    shares[group.name] = need.gpu_share(machine.gpu_memory_gb, machine.gpu_card) * (
                        group.num_workers or 1
                    )
                except PlanError as error:
                    raise PlanError(f"stage {group.name!r}: {error}") from None
        if simultaneous and sum(shares.values()) > machine.gpus:
            listed = ", ".join(f"{name} {share:g}" for name, share in shares.items())
            raise PlanError(
                f"the GPU stages need {sum(shares.values()):g} GPUs at the same time ({listed}), but {machine.name} has "
                f"{machine.gpus:g}: put GPU stages next to one another so that they share a worker, or lower their needs"
            )
