"""What will a workflow do? The plan of each step that is known from the start, and the files that steps pass to one
another.
"""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from curator_core import storage
from curator_core.errors import CuratorError, PlanError
from curator_core.formatting import count, text_html
from curator_core.model.stage import SourceStage
from curator_core.planning.plan import Plan, fingerprint, machine_text


@dataclass(frozen=True)
class PlannedStep:
    """One step: its plan, the folders of earlier steps that it reads (with the step of each), and the folders that it
    removes.
    """

    name: str
    plan: Plan | WorkflowPlan
    takes: tuple[tuple[str, str], ...] = ()
    frees: tuple[str, ...] = ()
    counts: bool = False


@dataclass(frozen=True)
class WorkflowPlan:
    """What a workflow will do. ``later`` describes the steps that become known only when others are complete."""

    name: str
    call: str
    steps: tuple[PlannedStep, ...]
    later: str = ""

    def pipelines(self, above: str = "") -> Iterator[tuple[str, Plan]]:
        """The plans of all pipelines in order, including those of inner workflows, each with the name of its step."""
        for step in self.steps:
            if isinstance(step.plan, WorkflowPlan):
                yield from step.plan.pipelines(f"{above}{step.name}/")
            else:
                yield f"{above}{step.name}", step.plan

    def values(self) -> list[dict[str, Any]]:
        """The steps as values for ``plan.json``."""
        return [
            {
                "name": step.name,
                "takes": [list(item) for item in step.takes],
                "frees": list(step.frees),
                "counts": step.counts,
                "steps": step.plan.values() if isinstance(step.plan, WorkflowPlan) else step.plan.steps(),
            }
            for step in self.steps
        ]

    def fingerprint(self) -> str:
        """A short hash of everything about the steps that affects the output."""
        return fingerprint(self.values())

    def _repr_html_(self) -> str:
        return text_html(self.describe())

    def describe(self) -> str:
        """The plan for a person to read."""
        plans = [plan for _, plan in self.pipelines()]
        where = f" on {machine_text(plans[0].machine)}" if plans else ""
        more = " and more" if self.later else ""
        lines = [f"{self.name}: {count(len(self.steps), 'step')}{more}{where}"]
        lines += textwrap.wrap(self.call, 116, initial_indent="  ", subsequent_indent="    ")
        lines += self._lines("")
        return "\n".join(lines)

    def _lines(self, above: str) -> list[str]:
        lines: list[str] = []
        for number, step in enumerate(self.steps, 1):
            place = f"{above}{number}"
            what = f"{step.plan.call}" if isinstance(step.plan, WorkflowPlan) else ""
            lines += ["", f"step {place}  {step.name}{'  (its rows are those of the workflow)' if step.counts else ''}"]
            lines += [f"  reads {folder!r}, which step {giver!r} leaves" for giver, folder in step.takes]
            if isinstance(step.plan, WorkflowPlan):
                lines += textwrap.wrap(what, 116, initial_indent="  ", subsequent_indent="    ")
                lines += step.plan._lines(f"{place}.")
            else:
                lines += [f"  {line}" for line in step.plan.describe().splitlines()[1:]]
            lines += [f"  frees {folder!r} when it is complete" for folder in step.frees]
        if self.later:
            lines += ["", *textwrap.wrap(f"later  {self.later}", 116, subsequent_indent="  ")]
        return lines


def taken_by(plan: Plan, left: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The folders in ``left`` (with the step that fills each) that the parameters of ``plan`` name, directly or as part
    of a path.
    """
    named = [text for planned in plan.stages for text in texts_of(planned.stage.params())]
    return tuple((step, folder) for folder, step in left.items() if any(is_within(text, folder) for text in named))


def is_within(path: str, folder: str) -> bool:
    """Whether a path is a folder or inside it; false for a text that is not a path."""
    with contextlib.suppress(CuratorError, ValueError):
        return f"{storage.absolute(path)}/".startswith(f"{storage.absolute(folder).rstrip('/')}/")
    return False


def folders_of(plan: Plan) -> list[str]:
    """The folders that a pipeline fills."""
    return [folder for planned in plan.stages if (folder := planned.stage.output_folder())]


def check_steps_apart(plan: WorkflowPlan) -> None:
    """Raise if a step writes to the input of an earlier one: the next run would read the output of this one."""
    plans = list(plan.pipelines())
    for number, (reader, reading) in enumerate(plans):
        source = reading.source
        if source is None or not isinstance(source.stage, SourceStage):
            continue
        for writer, writing in plans[number + 1 :]:
            for folder in folders_of(writing):
                entry = source.stage.reads_from(folder)
                if entry is not None:
                    raise PlanError(
                        f"step {writer!r} writes to {folder!r}, which {source.name!r} of step {reader!r} reads by "
                        f"{entry!r}: the next run would read the output of this one. Write to a folder beside the input"
                    )


def texts_of(value: Any) -> Iterator[str]:
    """All texts in a parameter, at any depth."""
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from texts_of(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from texts_of(item)
