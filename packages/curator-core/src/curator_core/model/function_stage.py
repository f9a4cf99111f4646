"""Stages that are made of a function, with ``@stage``."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from curator_core.errors import UsageError
from curator_core.model.parameters import _hints, _signature
from curator_core.model.resources import Resources
from curator_core.model.stage import FanOut, ProcessingStage, _task_type
from curator_core.model.task import Task


class FunctionStage(ProcessingStage[Any, Any]):
    """What `stage` makes of a function; its parameters after the first are the stage's parameters."""

    _function: ClassVar[Callable[..., Any]]
    _inputs: ClassVar[Sequence[str]] = ()
    _outputs: ClassVar[Sequence[str]] = ()
    _removes: ClassVar[Sequence[str]] = ()

    def __init__(self, **params: Any) -> None:
        for name, parameter in _signature(type(self)).parameters.items():
            if name not in params and parameter.default is parameter.empty and parameter.kind is parameter.KEYWORD_ONLY:
                raise UsageError(f"{type(self).__name__} needs the parameter {name!r}")
        self._kwargs = params

    def inputs(self) -> Sequence[str]:
        return list(self._inputs)

    def outputs(self) -> Sequence[str]:
        return list(self._outputs)

    def removes(self) -> Sequence[str]:
        return list(self._removes)

    def process(self, task: Any) -> Any:
        return type(self)._function(task, **self._kwargs)


class FunctionFanOut(FunctionStage, FanOut[Any, Any]):
    """What `stage` makes of a generator function."""

    def process(self, task: Any) -> Any:
        return type(self)._function(task, **self._kwargs)


def stage(
    function: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    removes: Sequence[str] = (),
    resources: Resources = Resources(),
    batch_size: int = 1,
    creates_rows: bool = False,
) -> Any:
    """Make a stage class of a function ``f(task, **parameters)``; a generator function makes a fan-out.

    For example::

        @stage(inputs=["text"], outputs=["shout"])
        def Shout(batch: DocumentBatch, mark: str = "!") -> DocumentBatch: ...

        Pipeline([..., Shout(mark="?")])
    """
    if function is None:
        return functools.partial(
            stage,
            name=name,
            inputs=inputs,
            outputs=outputs,
            removes=removes,
            resources=resources,
            batch_size=batch_size,
            creates_rows=creates_rows,
        )
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters:
        raise UsageError(f"@stage needs a function that takes a task, but {function.__name__}() takes nothing")
    hints = _hints(function)
    generator = inspect.isgeneratorfunction(function)
    namespace: dict[str, Any] = {
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__doc__": function.__doc__,
        "__signature__": inspect.Signature(
            [p.replace(kind=p.KEYWORD_ONLY, annotation=hints.get(p.name, p.annotation)) for p in parameters[1:]]
        ),
        "_function": staticmethod(function),
        "_inputs": tuple(inputs),
        "_outputs": tuple(outputs),
        "_removes": tuple(removes),
        "resources": resources,
        "batch_size": batch_size,
        "creates_rows": creates_rows or generator,
        "name": name or function.__name__,
        "task_in": _task_type(hints.get(parameters[0].name)) or Task,
        "task_out": _task_type(hints.get("return")) or Task,
    }
    return types.new_class(
        function.__name__, (FunctionFanOut if generator else FunctionStage,), {}, lambda ns: ns.update(namespace)
    )
