"""A pipeline as the text of a pipeline file: what `load_pipeline` reads back as equal stages."""

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
from curator_core.registry import STAGES, entries, load


def dump_pipeline(pipeline: Pipeline, *, executor: str = "local", run_dir: str | None = None) -> str:
    """The YAML of a pipeline: registered names where there are some, dotted paths otherwise, no defaults.

    Relative paths are written as they are; in a file they are relative to it. A stage that only this process knows (a
    lambda, a class of a notebook) cannot be written, and the error names it.
    """
    items: list[Any] = []
    for stage in pipeline.stages:
        params = {key: _plain(value, f"{stage.name}.{key}") for key, value in _given(stage).items()}
        item: Any = {_name(stage): params} if params else _name(stage)
        settings = {key: _setting(value, f"{stage.name}, {key}") for key, value in stage.settings().items()}
        if settings:
            item = {**(item if isinstance(item, dict) else {item: {}}), "with": settings}
        items.append(item)
    content: dict[str, Any] = {"name": pipeline.name, "stages": items, "executor": executor}
    if run_dir is not None:
        content["run_dir"] = run_dir
    return str(
        yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    )


def inline(value: Any) -> str:
    """A value as YAML in one line, by the rules of `dump_pipeline`."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 30, default_flow_style=True)
    return str(text).removesuffix("\n").removesuffix("\n...")


def _given(stage: ProcessingStage[Any, Any]) -> dict[str, Any]:
    """The parameters that were given and are not the defaults."""
    default = {}
    try:
        default = type(stage)().params()
    except (CuratorError, TypeError):  # it needs parameters: all that were given are written
        return {key: value for key, value in stage.params().items() if key in stage._given}
    return {key: value for key, value in stage.params().items() if key not in default or default[key] != value}


def _name(stage: ProcessingStage[Any, Any]) -> str:
    kind = type(stage)
    known = entries(STAGES)
    if len(known.get(kind.__name__, [])) == 1 and load(STAGES, kind.__name__) is kind:
        return str(kind.__name__)
    path = f"{kind.__module__}.{kind.__qualname__}"
    if kind.__module__ == "__main__" or "<" in path:
        raise UsageError(
            f"stage {stage.name!r} is defined in a script or notebook, so a file cannot name it: put {kind.__name__} into "
            "a module beside the file"
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
    if hasattr(value, "__fspath__"):
        return str(os.fspath(value))
    raise UsageError(f"{where} is {value!r}, which a file cannot hold: it holds numbers, texts, lists and mappings")


def _setting(value: Any, where: str) -> Any:
    if isinstance(value, Resources):
        default = asdict(Resources())
        return {key: part for key, part in asdict(value).items() if part != default[key]}
    return _plain(value, where)


class _Dumper(yaml.SafeDumper):
    """Lists are indented below their key, and a text that our reader would take for something else is quoted."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    # PyYAML quotes what is no text in YAML 1.1; files are read by the rules of 1.2, where `1e-3` is a number.
    style = '"' if _means_something_else(value) else None
    node: yaml.Node = dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)
    return node


def _means_something_else(value: str) -> bool:
    try:
        return bool(parse_value(value) != value)
    except UsageError:
        return False  # what cannot stand without quotes gets them anyway


_Dumper.add_representer(str, _text)
