"""How does ``@stage`` make a stage from a function?"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Concatenate, ParamSpec, Protocol, get_origin, overload

from curator_core.errors import UsageError
from curator_core.model.parameters import own_signature, type_hints
from curator_core.model.resources import Resources
from curator_core.model.stage import FanOut, ProcessingStage, task_type_of
from curator_core.model.task import Task

P = ParamSpec("P")


class FunctionStage(ProcessingStage[Any, Any]):
    """A stage that `stage` makes from a function; the function's parameters after the task are those of the stage."""

    _function: ClassVar[Callable[..., Any]]
    _inputs: ClassVar[Sequence[str]] = ()
    _outputs: ClassVar[Sequence[str]] = ()
    _removes: ClassVar[Sequence[str]] = ()
    _takes_stage: ClassVar[bool] = False

    def __init__(self, *values: Any, **params: Any) -> None:
        signature = own_signature(type(self))
        self._kwargs = dict(signature.bind_partial(*values, **params).arguments)
        for name, parameter in signature.parameters.items():
            if name not in self._kwargs and parameter.default is parameter.empty:
                raise UsageError(f"{type(self).__name__} needs the parameter {name!r}")

    def inputs(self) -> Sequence[str]:
        return list(self._inputs)

    def outputs(self) -> Sequence[str]:
        return list(self._outputs)

    def removes(self) -> Sequence[str]:
        return list(self._removes)

    def process(self, task: Any) -> Any:
        itself = (self,) if self._takes_stage else ()
        return type(self)._function(task, *itself, **self._kwargs)


class FunctionFanOut(FunctionStage, FanOut[Any, Any]):
    """A stage that `stage` makes from a generator function."""

    def process(self, task: Any) -> Any:
        return FunctionStage.process(self, task)


class StageMaker(Protocol):
    """The type of ``@stage(…)``: a decorator whose stage takes the function's parameters."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Any, ProcessingStage[Any, Any], P], Any], /
    ) -> Callable[P, FunctionStage]: ...

    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], Any], /) -> Callable[P, FunctionStage]: ...


@overload
def stage[**P](
    function: Callable[Concatenate[Any, ProcessingStage[Any, Any], P], Any], /
) -> Callable[P, FunctionStage]: ...


@overload
def stage[**P](function: Callable[Concatenate[Any, P], Any], /) -> Callable[P, FunctionStage]: ...


@overload
def stage(
    *,
    name: str | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    removes: Sequence[str] = (),
    resources: Resources = Resources(),
    batch_size: int = 1,
    creates_rows: bool = False,
) -> StageMaker: ...


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
    """Make a stage class from a function ``f(task, **parameters)``; a generator function becomes a fan-out.

    For example::

        @stage(inputs=["text"], outputs=["shout"])
        def Shout(batch: DocumentBatch, mark: str = "!") -> DocumentBatch: ...

        Pipeline([..., Shout(mark="?")])

    A function that drops or rejects rows takes the stage itself as its second argument, to record them::

        @stage(inputs=["text"])
        def LongTexts(batch: DocumentBatch, stage: ProcessingStage, chars: int = 100) -> DocumentBatch:
            kept = batch.filter(pc.greater_equal(pc.utf8_length(batch.to_pyarrow()["text"]), chars))
            stage.record_dropped("too short", batch.num_rows - kept.num_rows)
            return kept
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
        raise UsageError(f"@stage needs a function that takes a task, but {function.__name__}() has no parameters")
    hints = type_hints(function)
    takes_stage = len(parameters) > 1 and _is_stage(parameters[1], hints.get(parameters[1].name))
    own = parameters[2:] if takes_stage else parameters[1:]
    for parameter in own:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise UsageError(
                f"@stage {function.__name__}: a stage's parameters have names, so that a pipeline file can give them; "
                f"{str(parameter)!r} has none"
            )
    generator = inspect.isgeneratorfunction(function)
    namespace: dict[str, Any] = {
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__doc__": function.__doc__,
        "__signature__": inspect.Signature([p.replace(annotation=hints.get(p.name, p.annotation)) for p in own]),
        "_function": staticmethod(function),
        "_takes_stage": takes_stage,
        "_inputs": tuple(inputs),
        "_outputs": tuple(outputs),
        "_removes": tuple(removes),
        "resources": resources,
        "batch_size": batch_size,
        "creates_rows": creates_rows or generator,
        "name": name or function.__name__,
        "task_in": task_type_of(hints.get(parameters[0].name)) or Task,
        "task_out": task_type_of(hints.get("return")) or Task,
    }
    return types.new_class(
        function.__name__, (FunctionFanOut if generator else FunctionStage,), {}, lambda ns: ns.update(namespace)
    )


def _is_stage(parameter: inspect.Parameter, hint: Any) -> bool:
    kind = get_origin(hint) or hint
    if isinstance(kind, type) and issubclass(kind, ProcessingStage):
        return True
    return hint is None and parameter.name == "stage" and parameter.default is parameter.empty
