"""``curate stages``."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import click

if TYPE_CHECKING:
    from curator_core.model.stage import ProcessingStage


def _names(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The registered names that begin with this text, for completion in a shell."""
    from curator_core.registry import STAGES, WORKFLOWS, entries

    del ctx, parameter
    return [name for name in sorted({**entries(STAGES), **entries(WORKFLOWS)}) if name.startswith(incomplete)]


@click.command("stages", short_help="List the stages and workflows that are installed, or explain one.")
@click.argument("name", required=False, shell_complete=_names)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def stages_command(name: str | None, as_json: bool) -> None:
    """List all registered stages and workflows by package; with NAME (or a dotted path) show its parameters, columns and needs.

    NAME may also be in a module in the working folder.
    """
    if name is None:
        _list(as_json)
        return
    here = os.getcwd()  # noqa: PTH109 - paths are text there
    if here not in sys.path:
        sys.path.insert(0, here)
    facts = _workflow_facts(name) or stage_facts(name)
    click.echo(json.dumps(facts, indent=1) if as_json else _shown(facts))


def _workflow_facts(name: str) -> dict[str, Any] | None:
    """The facts about a workflow; None if the name is not that of a workflow."""
    from curator_core.config.build import load_workflow
    from curator_core.errors import CuratorError
    from curator_core.registry import STAGES, entries  # only this command needs the import
    from curator_core.workflow import Workflow  # these import pyarrow

    if name in entries(STAGES):
        return None
    try:
        cls = load_workflow(name)
    except CuratorError:  # errors in the name are reported when it is loaded as a stage
        return None
    facts: dict[str, Any] = {
        "name": name,
        "class": f"{cls.__module__}.{cls.__qualname__}",
        "about": inspect.getdoc(cls) or "",
        "kind": "a workflow: several pipelines as one",
        "parameters": _parameters(cls),
    }
    try:
        plan = cls(**_required(cls)).plan()
        facts["steps"] = {step: [planned.name for planned in inner.stages] for step, inner in plan.pipelines()}
        if plan.later:
            facts["later"] = plan.later
    except Exception:  # it rejects the placeholder values, so its steps depend on its parameters
        facts["steps"] = "depend on its parameters"
    assert issubclass(cls, Workflow)
    return facts


def _parameters(cls: Any) -> list[dict[str, Any]]:
    from curator_core.config.build import shown_type
    from curator_core.model.parameters import constructor_signature  # these import pyarrow

    parameters = []
    for key, parameter in constructor_signature(cls).parameters.items():
        required = parameter.default is inspect.Parameter.empty
        default = None if required else _default(cls, key, parameter.default)
        parameters.append(
            {"name": key, "type": shown_type(parameter.annotation), "required": required, "default": default}
        )
    return parameters


def _required(cls: Any) -> dict[str, Any]:
    """The value of a parameter without a default is its name, so that a column is shown as <column>."""
    from curator_core.model.parameters import constructor_signature  # imports pyarrow

    hints = constructor_signature(cls).parameters
    return {key: _stand_in(key, p.annotation) for key, p in hints.items() if p.default is inspect.Parameter.empty}


def stage_facts(name: str) -> dict[str, Any]:
    """The facts about a stage."""
    from curator_core.config.build import load_stage
    from curator_core.model.stage import CompositeStage, FanOut, Merge, SourceStage, accepted_tasks
    from curator_core.planning.make import expand  # these import pyarrow

    cls = load_stage(name)
    kinds = (
        (SourceStage, "lists sources"),
        (Merge, "merges many tasks into one"),
        (FanOut, "makes many tasks of one"),
        (CompositeStage, "stands for several stages"),
    )
    facts: dict[str, Any] = {
        "name": name,
        "class": f"{cls.__module__}.{cls.__qualname__}",
        "about": inspect.getdoc(cls) or "",
        "kind": next((text for base, text in kinds if issubclass(cls, base)), "one task in, one task out"),
        "takes": cls.task_in.__name__,
        "gives": cls.task_out.__name__,
        "parameters": _parameters(cls),
        "resources": {
            "cpus": cls.resources.cpus,
            "gpus": cls.resources.gpus,
            "gpu_memory_gb": cls.resources.gpu_memory_gb,
        },
        "light": cls.light,
    }
    try:
        stage = cls(**_required(cls))
        facts["takes"] = " or ".join(kind.__name__ for kind in accepted_tasks(stage))
        parts = expand([stage], [])
        if isinstance(stage, CompositeStage):
            facts["stands for"] = [part.name for part in parts]
        facts |= _columns(parts)
    except Exception:  # it rejects the placeholder values, so its columns depend on its parameters
        facts["columns"] = "depend on its parameters"
    return facts


def _stand_in(name: str, annotation: Any) -> Any:
    """A placeholder of this type that shows the name of its parameter."""
    if get_origin(annotation) in (Union, UnionType):
        return _stand_in(name, get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return get_args(annotation)[0]
    kind = get_origin(annotation) or annotation
    if kind in (bool, int, float):
        return kind(1)
    if isinstance(kind, type) and kind is not str and issubclass(kind, Mapping):
        return {f"<{name}>": _stand_in(name, (*get_args(annotation), str, str)[1])}
    if isinstance(kind, type) and kind is not str and issubclass(kind, Sequence):
        return [f"<{name}>"]
    return f"<{name}>"


def _columns(parts: Sequence[ProcessingStage[Any, Any]]) -> dict[str, list[str]]:
    """The columns that consecutive stages read from the input, add to it, and remove from it."""
    from curator_core.model.stage import needed_columns  # see stage_facts

    reads: dict[str, None] = {}
    adds: dict[str, None] = {}
    removes: dict[str, None] = {}
    for part in parts:
        reads |= dict.fromkeys(column for column in needed_columns(part) if column not in adds and "*" not in adds)
        gone = set(adds) if "*" in part.removes() else set(adds) & set(part.removes())
        removes |= dict.fromkeys(column for column in part.removes() if column not in gone)
        adds = {column: None for column in adds if column not in gone}
        adds |= dict.fromkeys(part.outputs())
    return {"reads": list(reads), "adds": list(adds), "removes": list(removes)}


def _list(as_json: bool) -> None:
    from curator_core.registry import STAGES, WORKFLOWS, entries  # only this command needs the import

    workflows = entries(WORKFLOWS)
    found = {**workflows, **entries(STAGES)}
    if as_json:
        listed = [
            {"name": e.name, "class": e.target, "package": e.owner}
            | ({"kind": "workflow"} if e.name in workflows else {})
            for owners in found.values()
            for e in owners
        ]
        click.echo(json.dumps(listed, indent=1))
        return
    owners = sorted({entry.owner for several in found.values() for entry in several})
    for owner in owners:
        click.echo(click.style(owner, bold=True))
        for name, several in sorted(found.items()):
            if any(entry.owner == owner for entry in several):
                others = [entry.owner for entry in several if entry.owner != owner]
                kind = "  (workflow)" if name in workflows else ""
                click.echo(f"  {name}{kind}{f'  (also in {others[0]}: use a dotted path)' if others else ''}")
    click.echo("\nMore about one: curate stages NAME")


def _shown(facts: dict[str, Any]) -> str:
    lines = [f"{facts['name']}  ({facts['class']})", "", facts["about"], "", "Parameters"]
    width = max((len(p["name"]) for p in facts["parameters"]), default=0)
    for parameter in facts["parameters"]:
        end = "required" if parameter["required"] else f"default {parameter['default']}"
        lines.append(f"  {parameter['name']:<{width}}  {parameter['type']}, {end}")
    if not facts["parameters"]:
        lines.append("  none")
    if "steps" in facts:
        lines += ["", f"Kind       {facts['kind']}"]
        steps = facts["steps"]
        if isinstance(steps, str):
            return "\n".join([*lines, f"Steps      {steps}"])
        lines += [f"Step       {step}: {', '.join(_repeated(stages))}" for step, stages in steps.items()]
        return "\n".join([*lines, *([f"Later      {facts['later']}"] if "later" in facts else [])])
    needs = facts["resources"]
    asked = [f"{needs['cpus']:g} CPU"]
    asked += [f"{needs['gpus']:g} GPU"] if needs["gpus"] else []
    asked += [f"{needs['gpu_memory_gb']:g} GB of a GPU"] if needs["gpu_memory_gb"] else []
    lines += ["", f"Kind       {facts['kind']}; {facts['takes']} in, {facts['gives']} out"]
    for key, label in (("reads", "Reads"), ("adds", "Adds"), ("removes", "Removes"), ("stands for", "Stands for")):
        if facts.get(key):
            lines.append(f"{label:<10} {', '.join(_repeated(facts[key]))}")
    if "columns" in facts:
        lines.append(f"Columns    {facts['columns']}")
    light = "; light: after a GPU stage it runs in that stage's worker" if facts["light"] else ""
    lines.append(f"Resources  {', '.join(asked)} a worker{light}")
    return "\n".join(lines)


def _repeated(names: Sequence[str]) -> list[str]:
    """Names for display: equal neighbours are shown once, with their number."""
    counted = [(name, len(list(same))) for name, same in groupby(names)]
    return [f"{'any column' if name == '*' else name}{f' (x{n})' if n > 1 else ''}" for name, n in counted]


def _default(cls: Any, key: str, value: Any) -> str:
    if type(value).__name__ != "_HAS_DEFAULT_FACTORY_CLASS":
        return repr(value)
    factory = cls.__dataclass_fields__[key].default_factory
    return repr(factory())
