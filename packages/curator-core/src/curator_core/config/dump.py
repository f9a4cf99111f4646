"""A pipeline as the text of a pipeline file, which `load_pipeline` reads back as equal stages."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import yaml

from curator_core.config.yaml_file import parse_value
from curator_core.errors import CuratorError, UsageError
from curator_core.model.resources import Resources
from curator_core.model.stage import ProcessingStage
from curator_core.pipeline import Pipeline
from curator_core.registry import STAGES, WORKFLOWS, entries, load
from curator_core.workflow import Step, Steps, Workflow


def dump_pipeline(pipeline: Pipeline | Workflow, *, executor: str = "local", run_dir: str | None = None) -> str:
    """The YAML of a pipeline or a workflow: registered names where they exist, dotted paths otherwise, no defaults.

    Relative paths are written as they are; those in a file are relative to the file. A stage that exists only in this
    process (a lambda, a class of a notebook) cannot be written; the error names it.
    """
    content: dict[str, Any] = {"name": pipeline.name, **_work(pipeline), "executor": executor}
    if run_dir is not None:
        content["run_dir"] = run_dir
    return str(
        yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    )


def inline(value: Any) -> str:
    """A value as YAML in one line, written as in `dump_pipeline`."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 30, default_flow_style=True)
    return str(text).removesuffix("\n").removesuffix("\n...")


def _work(work: Pipeline | Workflow) -> dict[str, Any]:
    if isinstance(work, Pipeline):
        return {"stages": [_stage(stage) for stage in work.stages]}
    if isinstance(work, Steps):
        return {"workflow": [_step(step) for step in work.of]}
    params = {key: _plain(value, f"{work.name}.{key}") for key, value in _given(work, work._given).items()}
    name = _name(work, WORKFLOWS, "workflow")
    return {"workflow": {name: params} if params else name}


def _step(step: Pipeline | Workflow | Step) -> dict[str, Any]:
    if isinstance(step, Step):
        if step.frees or step.counts:
            raise UsageError(f"step {step.name!r} sets frees or counts, which a file cannot hold")
        step = step.of
    return {"name": step.name, **_work(step)}


def _stage(stage: ProcessingStage[Any, Any]) -> Any:
    params = {key: _plain(value, f"{stage.name}.{key}") for key, value in _given(stage, stage._given).items()}
    name = _name(stage, STAGES, "stage")
    item: Any = {name: params} if params else name
    settings = {key: _setting(value, f"{stage.name}, {key}") for key, value in stage.settings().items()}
    if settings:
        item = {**(item if isinstance(item, dict) else {item: {}}), "with": settings}
    return item


def _given(owner: ProcessingStage[Any, Any] | Workflow, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given parameters that differ from the defaults."""
    default = {}
    try:
        default = type(owner)().params()
    except (CuratorError, TypeError):  # it requires parameters: all that were given are written
        return {key: value for key, value in owner.params().items() if key in given}
    return {key: value for key, value in owner.params().items() if key not in default or default[key] != value}


def _name(owner: ProcessingStage[Any, Any] | Workflow, group: str, what: str) -> str:
    kind = type(owner)
    known = entries(group)
    if len(known.get(kind.__name__, [])) == 1 and load(group, kind.__name__) is kind:
        return str(kind.__name__)
    path = f"{kind.__module__}.{kind.__qualname__}"
    if kind.__module__ == "__main__" or "<" in path:
        raise UsageError(
            f"{what} {owner.name!r} is defined in a script or notebook, so a file cannot name it: move "
            f"{kind.__name__} to a module beside the file"
        )
    return path


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item, where) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(_plain(item, where) for item in value)
    if isinstance(value, ProcessingStage):
        return _stage(value)
    if hasattr(value, "__fspath__"):
        return str(os.fspath(value))
    raise UsageError(f"{where} is {value!r}, which a file cannot hold: a file holds numbers, texts, lists and mappings")


def _setting(value: Any, where: str) -> Any:
    if isinstance(value, Resources):
        default = asdict(Resources())
        return {key: part for key, part in asdict(value).items() if part != default[key]}
    return _plain(value, where)


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key, and quotes a text that our reader would read as another type."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    # PyYAML quotes text by the rules of YAML 1.1; files are read by those of 1.2, where `1e-3` is a number.
    style = '"' if _means_something_else(value) else None
    node: yaml.Node = dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)
    return node


def _means_something_else(value: str) -> bool:
    try:
        return bool(parse_value(value) != value)
    except UsageError:
        return False  # PyYAML quotes it anyway


_Dumper.add_representer(str, _text)
