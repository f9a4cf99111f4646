"""``curate stages``."""

from __future__ import annotations

import inspect
import json
from typing import Any

import click


@click.command("stages", short_help="List the stages that are installed, or explain one.")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def stages_command(name: str | None, as_json: bool) -> None:
    """List all registered stages by package; with NAME (or a dotted path) show its parameters, columns and needs."""
    if name is None:
        _list(as_json)
        return
    facts = stage_facts(name)
    click.echo(json.dumps(facts, indent=1) if as_json else _shown(facts))


def stage_facts(name: str) -> dict[str, Any]:
    """What a stage says of itself, without making one where its parameters have no defaults."""
    from curator_core.errors import CuratorError  # these import pyarrow and pydantic
    from curator_core.registry import load_stage, shown_type
    from curator_core.stages import (
        CompositeStage,
        FanOut,
        Merge,
        SourceStage,
        accepted_tasks,
        constructor_signature,
        needed_columns,
    )

    cls = load_stage(name)
    parameters = []
    for key, parameter in constructor_signature(cls).parameters.items():
        required = parameter.default is inspect.Parameter.empty
        default = None if required else _default(cls, key, parameter.default)
        parameters.append(
            {"name": key, "type": shown_type(parameter.annotation), "required": required, "default": default}
        )
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
        "parameters": parameters,
        "resources": {
            "cpus": cls.resources.cpus,
            "gpus": cls.resources.gpus,
            "gpu_memory_gb": cls.resources.gpu_memory_gb,
        },
        "light": cls.light,
    }
    try:
        stage = cls()
        facts["takes"] = " or ".join(kind.__name__ for kind in accepted_tasks(stage))
        facts["reads"], facts["adds"] = list(needed_columns(stage)), list(stage.outputs())
        facts["removes"] = list(stage.removes())
        if isinstance(stage, CompositeStage):
            facts["stands for"] = [part.name for part in stage.decompose()]
    except (CuratorError, TypeError):
        pass  # it has parameters without defaults, so its columns depend on them
    return facts


def _list(as_json: bool) -> None:
    from curator_core.registry import STAGES, entries  # only this command needs it

    found = entries(STAGES)
    if as_json:
        told = [{"name": e.name, "class": e.target, "package": e.owner} for owners in found.values() for e in owners]
        click.echo(json.dumps(told, indent=1))
        return
    owners = sorted({entry.owner for several in found.values() for entry in several})
    for owner in owners:
        click.echo(click.style(owner, bold=True))
        for name, several in found.items():
            if any(entry.owner == owner for entry in several):
                others = [entry.owner for entry in several if entry.owner != owner]
                click.echo(f"  {name}{f'  (also in {others[0]}: use a dotted path)' if others else ''}")
    click.echo("\nMore about one: curate stages NAME")


def _shown(facts: dict[str, Any]) -> str:
    lines = [f"{facts['name']}  ({facts['class']})", "", facts["about"], "", "Parameters"]
    width = max((len(p["name"]) for p in facts["parameters"]), default=0)
    for parameter in facts["parameters"]:
        end = "required" if parameter["required"] else f"default {parameter['default']}"
        lines.append(f"  {parameter['name']:<{width}}  {parameter['type']}, {end}")
    if not facts["parameters"]:
        lines.append("  none")
    needs = facts["resources"]
    asked = [f"{needs['cpus']:g} CPU"]
    asked += [f"{needs['gpus']:g} GPU"] if needs["gpus"] else []
    asked += [f"{needs['gpu_memory_gb']:g} GB of a GPU"] if needs["gpu_memory_gb"] else []
    lines += ["", f"Kind       {facts['kind']}; {facts['takes']} in, {facts['gives']} out"]
    for key, label in (("reads", "Reads"), ("adds", "Adds"), ("removes", "Removes"), ("stands for", "Stands for")):
        if facts.get(key):
            lines.append(f"{label:<10} {', '.join('any column' if name == '*' else name for name in facts[key])}")
    light = "; light: behind a GPU stage it runs in the worker of that" if facts["light"] else ""
    lines.append(f"Resources  {', '.join(asked)} a worker{light}")
    return "\n".join(lines)


def _default(cls: Any, key: str, value: Any) -> str:
    if type(value).__name__ != "_HAS_DEFAULT_FACTORY_CLASS":
        return repr(value)
    factory = cls.__dataclass_fields__[key].default_factory
    return repr(factory())
