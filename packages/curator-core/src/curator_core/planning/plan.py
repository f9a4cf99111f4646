"""What will a run do, in which groups and segments, and how do two plans differ?"""

from __future__ import annotations

import hashlib
import inspect
import json
import textwrap
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from curator_core.formatting import count, text_html
from curator_core.model.engine_facts import RayStageSpecKeys
from curator_core.model.machine import Machine
from curator_core.model.resources import Resources
from curator_core.model.stage import (
    ProcessingStage,
    is_fanout,
    needed_columns,
    overrides,
)

Stage = ProcessingStage[Any, Any]


@dataclass(frozen=True)
class PlannedStage:
    """A stage with its name, which is unique in this run (``Upper``, ``Upper#2``)."""

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
        """Whether the tasks that leave the group should be spread over the workers of the next group."""
        return any(planned.is_fanout for planned in self.stages)

    @property
    def keeps_state(self) -> bool:
        """Whether a worker should be kept between tasks: a stage asks for it, has a ``setup``, or uses a GPU."""
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
        """The stages as values, which are stored in the run directory to detect changes."""
        return [
            {
                "name": planned.name,
                "class": _public(f"{type(planned.stage).__module__}.{type(planned.stage).__qualname__}"),
                "version": planned.stage.version,
                "params": {key: _plain(value) for key, value in planned.stage.params().items()},
            }
            for planned in self.stages
        ]

    def fingerprint(self) -> str:
        """A short hash of everything about the stages that affects the output."""
        return fingerprint(self.steps())

    def _repr_html_(self) -> str:
        return text_html(self.describe())

    def describe(self) -> str:
        """The plan for a person to read."""
        lines = [f"{self.name}: {count(len(self.stages), 'stage')} on {machine_text(self.machine)}"]
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
                    if said := planned.stage.describe():
                        lines += textwrap.wrap(said, 112, initial_indent="      ", subsequent_indent="        ")
                    if planned.stage.dropped:
                        lines.append(f"      writes the rows that it drops to {planned.stage.dropped}")
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


def _public(name: str) -> str:
    """The dotted name of a class. For Curator's own classes it omits the modules, which are private and may move, since
    run directories must stay valid.
    """
    package, _, rest = name.partition(".")
    return f"{package}.{rest.rpartition('.')[2]}" if package.startswith("curator_") else name


def fingerprint(steps: Sequence[dict[str, Any]]) -> str:
    """A short hash of `Plan.steps`, either from a plan or from ``plan.json``."""
    text = json.dumps(steps, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def difference(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> list[str]:
    """The changes between two lists of `Plan.steps`, one per line."""
    old, new = {step["name"]: step for step in before}, {step["name"]: step for step in after}
    lines = [f"stage {name!r} is gone" for name in old if name not in new]
    lines += [f"stage {name!r} is new" for name in new if name not in old]
    for name, step in new.items():
        earlier = old.get(name)
        if earlier is None:
            continue
        was, now = _public(earlier["class"]), _public(step["class"])
        if was != now:
            lines.append(f"stage {name!r}: class was {was!r}, is {now!r}")
        if earlier["version"] != step["version"]:
            lines.append(f"stage {name!r}: version was {earlier['version']!r}, is {step['version']!r}")
        for key in sorted({*earlier["params"], *step["params"]}):
            was, now = earlier["params"].get(key), step["params"].get(key)
            if was != now:
                lines.append(f"stage {name!r}: {key} was {was!r}, is {now!r}")
    shared_old, shared_new = [n for n in old if n in new], [n for n in new if n in old]
    if shared_old != shared_new:
        lines.append(f"the order of stages was {', '.join(shared_old)}; is {', '.join(shared_new)}")
    return lines


def _plain(value: Any) -> Any:
    """A parameter as a JSON value that is the same in every process."""
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
        return _named(value)
    text = repr(value)
    return text if " at 0x" not in text else f"{type(value).__module__}.{type(value).__qualname__}"


def _named(value: Any) -> str:
    """The name of a function, with a hash of its code if the name is not distinct, as with a lambda."""
    name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    if "<" not in name or not isinstance(value, types.FunctionType):
        return name
    try:
        # The source text is hashed, because bytecode differs between versions of Python.
        text = inspect.getsource(value)
    except (OSError, TypeError):
        text = value.__code__.co_code.hex() + repr(value.__code__.co_consts) + repr(value.__code__.co_names)
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    around = [_plain(cell) for cell in cells if isinstance(cell, str | int | float | bool | list | tuple | dict | None)]
    digest = hashlib.sha256(json.dumps([" ".join(text.split()), around, repr(value.__defaults__)]).encode())
    return f"{name}:{digest.hexdigest()[:12]}"


def machine_text(machine: Machine) -> str:
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
    # repr() is not used, because the settings of with_() are in the line of the group, or are the name itself.
    return planned.stage.call(brief=True)
