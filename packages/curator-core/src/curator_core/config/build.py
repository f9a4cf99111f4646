"""How are stages, workflows and executors made from names and plain values? With strict checks."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeAliasType, Union, get_args, get_origin

from curator_core.errors import CuratorError, UsageError, nearest
from curator_core.registry import STAGES, WORKFLOWS, entries, load

if TYPE_CHECKING:
    from curator_core.executors.base import BaseExecutor
    from curator_core.model.stage import ProcessingStage
    from curator_core.workflow import Workflow

# The settings that `with:` beside a stage can have, and their types.
SETTINGS: dict[str, Any] = {
    "name": str,
    "resources": dict[str, float],
    "batch_size": int,
    "num_workers": int,
    "runtime_env": dict[str, Any],
    "task_timeout_s": float,
    "dropped": str,
    "ray_stage_spec": dict[str, Any],
    "xenna_stage_spec": dict[str, Any],
}


def load_stage(name: str) -> type[ProcessingStage[Any, Any]]:
    """The stage class of a registered name or a dotted path."""
    from curator_core.model.stage import (  # listing names must not import pyarrow
        ProcessingStage,
        what_is_missing,
    )

    if name in entries(WORKFLOWS) and name not in entries(STAGES):
        raise UsageError(f"{name!r} is a workflow, not a stage: in a file it is named under `workflow:`")
    found = load(STAGES, name)
    if not (isinstance(found, type) and issubclass(found, ProcessingStage)):
        hint = " (a function: put @stage above it)" if inspect.isfunction(found) else ""
        raise UsageError(f"{name!r} is not a stage but {found!r}{hint}")
    if inspect.isabstract(found):
        raise UsageError(what_is_missing(found))
    return found


def load_workflow(name: str) -> type[Workflow]:
    """The workflow class of a registered name or a dotted path."""
    from curator_core.workflow import Workflow  # listing names must not import pyarrow

    if name in entries(STAGES) and name not in entries(WORKFLOWS):
        raise UsageError(f"{name!r} is a stage, not a workflow: in a file it is one of the `stages:`")
    found = load(WORKFLOWS, name)
    if not (isinstance(found, type) and issubclass(found, Workflow)):
        raise UsageError(f"{name!r} is not a workflow but {found!r}")
    return found


def build_workflow(name: str, params: Mapping[str, Any] | None = None) -> Workflow:
    """A workflow from its name and parameters as they are in a file; parameters that are stages are written
    ``{StageName: {…}}``.
    """
    from curator_core.model.parameters import constructor_signature  # listing names must not import pyarrow

    cls = load_workflow(name)
    made: Workflow = build(cls, name, params or {}, constructor_signature(cls))
    return made


def load_executor(name: str) -> type[BaseExecutor]:
    """The executor class of a registered name or a dotted path."""
    from curator_core.executors.base import executor_class  # listing names must not import pyarrow

    return executor_class(name)


def build_stage(name: str, params: Mapping[str, Any] | None = None) -> ProcessingStage[Any, Any]:
    """A stage from its name and parameters as they are in a file (text, numbers, lists, mappings), strictly checked."""
    from curator_core.model.parameters import constructor_signature  # listing names must not import pyarrow

    cls = load_stage(name)
    stage: ProcessingStage[Any, Any] = build(cls, name, params or {}, constructor_signature(cls))
    return stage


def build(cls: Any, name: str, params: Mapping[str, Any], signature: inspect.Signature | None = None) -> Any:
    """Make an object of ``cls`` from plain values, after checking them against the annotations of the constructor."""
    signature = signature or inspect.signature(cls)
    parameters = {key: p for key, p in signature.parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    values: dict[str, Any] = {}
    for key, value in params.items():
        if key in parameters:
            values[key] = checked(name, key, parameters[key].annotation, value)
        elif open_ended:
            values[key] = value
        else:
            raise ParameterError(
                name,
                key,
                f"{name} has no parameter {key!r}{nearest(str(key), parameters) or '.'} "
                f"It takes: {', '.join(parameters) or 'no parameters'}",
            )
    for key, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and key not in values:
            raise ParameterError(name, None, f"{name} needs the parameter {key!r}")
    try:
        return cls(**values)
    except CuratorError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: {error}") from error


class ParameterError(UsageError):
    """A stage does not have this parameter, or rejects its value; ``parameter`` is None if a parameter is missing."""

    def __init__(self, stage: str, parameter: str | None, message: str) -> None:
        super().__init__(stage, parameter, message)
        self.stage = stage
        self.parameter = parameter
        self.message = message

    def __str__(self) -> str:
        return self.message


def checked(name: str, key: str, annotation: Any, value: Any) -> Any:
    """``value`` as ``annotation`` requires it: a list may become a tuple and a whole number a float, but text never
    becomes a number.
    """
    if _is_exactly(value, annotation):
        return value
    if is_stage_type(annotation):
        return _stage_value(name, key, value)
    from pydantic import ValidationError  # the import takes 0.1 s

    adapter = _adapter(annotation)
    if adapter is None:
        return value
    try:
        # Values from a file are checked by pydantic's strict rules for JSON, in which a list is accepted as any kind of
        # sequence.
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = None  # for example a date, which exists in YAML but not in JSON
    try:
        return adapter.validate_python(value, strict=True) if text is None else adapter.validate_json(text, strict=True)
    except ValidationError as error:
        raise ParameterError(
            name, key, f"{name}.{key} must be {shown_type(annotation)}, not {value!r}{_inner(error)}"
        ) from None


def is_stage_type(annotation: Any) -> bool:
    """Whether a parameter of this type is a stage, as in ``ProcessingStage | None``."""
    if get_origin(annotation) in (Union, UnionType):
        return any(is_stage_type(part) for part in get_args(annotation))
    kind = get_origin(annotation) or annotation
    if not isinstance(kind, type) or kind.__module__ == "builtins":
        return False
    from curator_core.model.stage import ProcessingStage  # listing names must not import pyarrow

    return issubclass(kind, ProcessingStage)


def _stage_value(name: str, key: str, value: Any) -> Any:
    """The stage that a value stands for: a name, or ``{StageName: {parameter: value}}`` with or without ``with:``."""
    from curator_core.model.stage import ProcessingStage  # listing names must not import pyarrow

    if isinstance(value, ProcessingStage):
        return value
    item = {value: None} if isinstance(value, str) else value
    names = [each for each in item if each != "with"] if isinstance(item, Mapping) else []
    if not isinstance(item, Mapping) or len(names) != 1 or not isinstance(names[0], str):
        raise ParameterError(
            name, key, f"{name}.{key} is a stage, written {{StageName: {{parameter: value}}}}, not {value!r}"
        )
    params = item[names[0]] or {}
    try:
        if not isinstance(params, Mapping):
            raise UsageError(f"{names[0]} takes a mapping of parameters, {{name: value}}, not {params!r}")
        stage = build_stage(names[0], params)
        extra = {each: setting_value(each, given) for each, given in (item.get("with") or {}).items()}
        return stage.with_(**extra) if extra else stage
    except UsageError as error:
        raise ParameterError(name, key, f"{name}.{key}: {error}") from error


def setting_value(key: str, value: Any) -> Any:
    """A value of ``with:``, checked; raise `UsageError` if it is not accepted."""
    from curator_core.model.resources import Resources  # listing names must not import pyarrow

    if key not in SETTINGS:
        raise UsageError(f"with takes no {key!r}{nearest(str(key), SETTINGS) or '.'} It takes: {', '.join(SETTINGS)}")
    found = checked("with", key, SETTINGS[key], value)
    return build(Resources, "resources", found) if key == "resources" else found


def _is_exactly(value: Any, annotation: Any) -> bool:
    """Whether a single value already has its type, as most have; pydantic is then not loaded."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return type(value) in (str, int, float, bool, type(None)) and type(value) in kinds


def shown_type(annotation: Any) -> str:
    """A type as a user would write it."""
    if annotation is inspect.Parameter.empty:
        return "any value"
    if isinstance(annotation, TypeAliasType):
        return shown_type(annotation.__value__)
    if is_stage_type(annotation):
        return "a stage or None" if type(None) in get_args(annotation) else "a stage"
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(map(repr, get_args(annotation)))}"
    if get_origin(annotation) is None and isinstance(annotation, type):
        return annotation.__name__
    text = inspect.formatannotation(annotation) if not isinstance(annotation, str) else annotation
    for prefix in ("typing.", "collections.abc.", "curator_core.", "NoneType"):
        text = text.replace(prefix, "None" if prefix == "NoneType" else "")
    return text


def _inner(error: Any) -> str:
    """The place of the error inside a list or mapping, unless the whole value is wrong."""
    for item in error.errors():
        steps: Sequence[Any] = [step for step in item["loc"] if isinstance(step, int)]
        if steps:
            return f" (item {steps[0]} is {item['input']!r})"
    return ""


def _adapter(annotation: Any) -> Any:
    from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter  # the import takes 0.1 s

    if annotation is inspect.Parameter.empty or annotation is Any or isinstance(annotation, str):
        return None
    try:
        return TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError, NameError):
        return None  # a type that the stage defines: its constructor checks it
