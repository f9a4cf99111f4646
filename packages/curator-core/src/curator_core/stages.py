"""A stage: a map over tasks that declares what it needs, what it reads and what it adds.

Write a class with plain constructor parameters and one method, ``process``::

    @dataclass
    class MinLength(ProcessingStage[DocumentBatch, DocumentBatch]):
        chars: int = 100

        def inputs(self) -> list[str]:
            return ["text"]

        def process(self, task: DocumentBatch) -> DocumentBatch:
            ...

The kind of work is the base class: `ProcessingStage` (one task to one, or to none), `FanOut` (one to many), `Merge`
(many to one), `ColumnFilter` (a score and a predicate, see `curator_core.stages.column_filter`).
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import re
import reprlib
import sys
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Generic, Self, TypeVar, get_args, get_origin

from curator_core.errors import UsageError, nearest
from curator_core.model.recorder import Recorder, Reject
from curator_core.model.resources import Resources
from curator_core.model.task import DocumentBatch, EmptyTask, FileRecord, Task

X = TypeVar("X", bound=Task)  # type: ignore[type-arg]
Y = TypeVar("Y", bound=Task)  # type: ignore[type-arg]

_IN: Any = X  # the variable itself, as a value

# In `outputs()`: the stage may add columns that only the data knows (a reader with no declared schema).
ANY_COLUMNS = "*"

_UNSET: Any = object()
_NAME = re.compile(r"[^\s/\\\0][^/\\\0]*")


def _task_type(annotation: Any) -> type[Task[Any]] | None:
    if isinstance(annotation, TypeVar) or annotation is None:
        return None
    origin = get_origin(annotation)
    if origin in (list, Iterable, Iterator, Sequence) or (isinstance(origin, type) and issubclass(origin, Iterable)):
        return _task_type(get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        found = [kind for kind in map(_task_type, get_args(annotation)) if kind is not None]
        return found[0] if len(found) == 1 else None
    if isinstance(origin, type) and issubclass(origin, Task):
        return origin
    return annotation if isinstance(annotation, type) and issubclass(annotation, Task) else None


class RayStageSpecKeys(StrEnum):
    """Facts of a stage that the Ray Data executor understands; any other key is an error there."""

    IS_FANOUT_STAGE = "is_fanout_stage"
    IS_ACTOR_STAGE = "is_actor_stage"
    MIN_WORKERS = "min_workers"
    MAX_WORKERS = "max_workers"
    INITIAL_WORKERS = "initial_workers"
    MAX_CALLS_PER_WORKER = "max_calls_per_worker"
    RAY_NUM_CPUS = "ray_num_cpus"
    RAY_REMOTE_ARGS = "ray_remote_args"
    RUNTIME_ENV = "runtime_env"


class XennaStageSpecKeys(StrEnum):
    """Facts of a stage that the Xenna executor understands; any other key is an error there."""

    NUM_WORKERS_PER_NODE = "num_workers_per_node"
    NUM_SETUP_ATTEMPTS = "num_setup_attempts"
    NUM_RUN_ATTEMPTS = "num_run_attempts"
    SLOTS_PER_ACTOR = "slots_per_actor"
    WORKER_MAX_LIFETIME_M = "worker_max_lifetime_m"
    WORKER_RESTART_INTERVAL_M = "worker_restart_interval_m"
    MAX_SETUP_FAILURE_PERCENTAGE = "max_setup_failure_percentage"


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """The machine that a worker is on."""

    node_id: str = "local"


@dataclass(frozen=True, slots=True)
class WorkerMetadata:
    """The worker that a stage is set up in."""

    worker_id: str = "local-0"
    gpu_ids: tuple[int, ...] = ()


class ProcessingStage(ABC, Generic[X, Y]):
    """A map over tasks. Constructors check and keep their parameters; `setup` opens, loads and probes."""

    # Class attributes are the defaults; `with_` overrides them on a copy.
    name: str = ""
    resources: Resources = Resources()
    batch_size: int = 1  # how many tasks `process_batch` is given at most
    runtime_env: Mapping[str, Any] | None = None
    # True for a stage that legitimately makes rows out of rows (a splitter); otherwise more rows out than in is an error.
    creates_rows: bool = False
    # True for a stage with hardly any work of its own (a threshold, a small head): behind a stage that uses a GPU it runs
    # in that stage's worker, so that what it drops is never sent to another.
    light: bool = False
    # Parameters whose text may be the path of a file or folder, or something else (a list, a model's name). Those that are
    # called path, file and the like always are. In a pipeline file both are relative to it.
    maybe_paths: ClassVar[tuple[str, ...]] = ()
    version: str = "1"  # part of the run's fingerprint: raise it when the stage's result changes

    task_in: ClassVar[type[Task[Any]]] = Task  # type: ignore[type-abstract]
    task_out: ClassVar[type[Task[Any]]] = Task  # type: ignore[type-abstract]

    _given: dict[str, Any]  # the arguments of the constructor, kept by __new__

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # @dataclass leaves alone what is there, and what it would make knows nothing of `with_()`.
        for special in ("__eq__", "__repr__"):
            if special not in cls.__dict__:
                setattr(cls, special, getattr(cls, special))
        if not cls.__dict__.get("name") or not isinstance(cls.__dict__["name"], str):
            if isinstance(cls.__dict__.get("name"), property):
                raise TypeError(f"{cls.__name__}.name must be a plain class attribute, not a property: with_() sets it")
            cls.name = cls.__name__
        for base in getattr(cls, "__orig_bases__", ()):
            origin = get_origin(base)
            if not (isinstance(origin, type) and issubclass(origin, ProcessingStage)):
                continue
            for variable, argument in zip(getattr(origin, "__parameters__", ()), get_args(base), strict=False):
                kind = _task_type(argument)
                if kind is not None:
                    setattr(cls, "task_in" if variable is _IN else "task_out", kind)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        signature = _signature(cls)
        takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
        for key in kwargs:
            if key not in signature.parameters and not takes_any:
                known = [name for name in signature.parameters if not name.startswith("_")]
                raise UsageError(
                    f"{cls.__name__} has no parameter {key!r}{nearest(key, known) or '.'} "
                    f"It takes: {', '.join(known) or 'no parameters'}"
                )
        try:
            bound = signature.bind_partial(*args, **kwargs)
        except TypeError as error:
            raise UsageError(f"{cls.__name__}: {error}") from None
        object.__setattr__(self, "_given", dict(bound.arguments))
        return self

    # What the stage says of itself --------------------------------------------------------------------------------

    def inputs(self) -> Sequence[str] | Mapping[type[Task[Any]], Sequence[str]]:
        """Columns the stage reads. A mapping by task type where it accepts several."""
        return []

    def outputs(self) -> Sequence[str]:
        """Columns the stage adds; `ANY_COLUMNS` among them when only the data can tell."""
        return []

    def removes(self) -> Sequence[str]:
        """Columns that are gone after the stage; `ANY_COLUMNS` when only `outputs()` remain."""
        return []

    def describe(self) -> str:
        """What these parameters make the stage do, as a clause for people: "keeps documents of 50 to 100,000 words".

        `curate plan` shows it beside the stage's name. Empty where the name says it all.
        """
        return ""

    def num_workers(self) -> int | None:
        """How many workers the stage wants; None leaves it to the executor."""
        return self.__dict__.get("_num_workers")

    def ray_stage_spec(self) -> dict[str, Any]:
        """Facts for Ray Data, under `RayStageSpecKeys`."""
        return dict(self.__dict__.get("_ray_spec", {}))

    def xenna_stage_spec(self) -> dict[str, Any]:
        """Facts for Xenna, under `XennaStageSpecKeys`."""
        return dict(self.__dict__.get("_xenna_spec", {}))

    def needed_by(self, columns: frozenset[str]) -> ProcessingStage[Any, Any]:
        """Called once by the plan with the columns that later stages read: return a copy that makes just those.

        The default returns the stage itself. A reader of images uses it to decode pixels only for who needs them.
        """
        return self

    # What the stage does ------------------------------------------------------------------------------------------

    @abstractmethod
    def process(self, task: X) -> Y | Iterable[Y] | None:
        """One task in; a task, a list of tasks, or None to drop it. It must not change ``task`` itself."""

    def process_batch(self, tasks: list[X]) -> Sequence[Y | Iterable[Y] | None]:
        """Several tasks at once; element *i* of the answer is what `process` would have returned for task *i*."""
        return [self.process(task) for task in tasks]

    def setup_on_node(self, node: NodeInfo, worker: WorkerMetadata) -> None:
        """Once per machine, before any worker's `setup` there: downloads."""

    def setup(self, worker: WorkerMetadata) -> None:
        """Once per worker, before its first task: models, connections, caches."""

    def teardown(self) -> None:
        """Once per worker, after its last task, on success and on failure."""

    def output_folder(self) -> str | None:
        """For writers: the folder that the stage fills. The run marks it with ``_SUCCESS`` and clears what is left over."""
        return None

    def finish(self, outputs: Sequence[FileRecord]) -> Sequence[FileRecord] | None:
        """Once per run, in the driver, after every source is complete: the finishing pass.

        ``outputs`` are the files that this stage recorded, in lineage order. Return the records of the files that
        stand afterwards, or None if they are the same. It must be safe to repeat, also when a repetition finds some
        of ``outputs`` gone because the pass before was cut off.
        """
        return None

    def repacks(self) -> bool:
        """For writers: whether `finish` puts other files in the place of those that tasks wrote."""
        return overrides(self, "finish")

    # What the stage reports while it works ------------------------------------------------------------------------

    @property
    def recorder(self) -> Recorder:
        """What was recorded since the adapter last looked; of use by itself where a stage is tried by hand."""
        recorder = self.__dict__.get("_recorder")
        if recorder is None:
            recorder = Recorder()
            object.__setattr__(self, "_recorder", recorder)
        return recorder

    def record_dropped(self, reason: str, rows: int = 1) -> None:
        """``rows`` rows of the present task leave the pipeline here, on purpose, for ``reason``."""
        if rows:
            dropped = self.recorder.dropped
            dropped[reason] = dropped.get(reason, 0) + rows

    def record_rejected(
        self,
        reason: str,
        *,
        source: str = "",
        position: str | int = "",
        message: str = "",
        raw: bytes | None = None,
        rows: int = 1,
    ) -> None:
        """A row could not be read or handled: it goes to the run's rejects, with where it stood and why."""
        self.recorder.rejects.append(Reject(reason, source, str(position), message, raw, rows))

    def record_read(self, rows: int) -> None:
        """For readers: how many rows the input held, so that rows in = rows out + dropped + rejected can be checked."""
        recorder = self.recorder
        recorder.read = (recorder.read or 0) + rows

    def record_output(self, record: FileRecord) -> None:
        """For writers: a file that now stands under its final name."""
        self.recorder.outputs.append(record)

    def record_metric(self, name: str, value: float) -> None:
        """A number of the stage's own; summed over calls and shown in statistics."""
        metrics = self.recorder.metrics
        metrics[name] = metrics.get(name, 0.0) + value

    # Values: parameters, copies, comparison -----------------------------------------------------------------------

    def params(self) -> dict[str, Any]:
        """The constructor's parameters and their values, defaults included."""
        values: dict[str, Any] = {}
        for key, parameter in _signature(type(self)).parameters.items():
            if key in self._given:
                values[key] = self._given[key]
            elif parameter.default is not inspect.Parameter.empty:
                values[key] = self.__dict__.get(key, parameter.default)
                if _is_factory(values[key]):
                    values[key] = None
        return values

    def with_(
        self,
        *,
        name: str | None = None,
        resources: Resources | None = None,
        batch_size: int | None = None,
        num_workers: int | None = _UNSET,
        runtime_env: Mapping[str, Any] | None = _UNSET,
        ray_stage_spec: Mapping[str, Any] | None = None,
        xenna_stage_spec: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> Self:
        """A copy with other settings or constructor parameters; the original stays as it is."""
        if params:
            signature = _signature(type(self))
            for key in params:
                if key not in signature.parameters:
                    known = [*signature.parameters, *_SETTINGS]
                    raise UsageError(f"{type(self).__name__}.with_() has no parameter {key!r}{nearest(key, known)}")
            given = {k: v for k, v in self._given.items() if k not in _positional_only(signature)}
            twin = type(self)(**{**given, **params})
            for key in _OVERRIDES:
                if key in self.__dict__:
                    object.__setattr__(twin, key, self.__dict__[key])
        else:
            twin = copy.copy(self)
            object.__setattr__(twin, "_recorder", None)
        changes: dict[str, Any] = {}
        if name is not None:
            changes["name"] = _checked_name(name)
        if resources is not None:
            if not isinstance(resources, Resources):
                raise UsageError(f"resources must be a Resources(…), not {resources!r}")
            changes["resources"] = resources
        if batch_size is not None:
            changes["batch_size"] = _positive("batch_size", batch_size)
        if num_workers is not _UNSET:
            changes["_num_workers"] = None if num_workers is None else _positive("num_workers", num_workers)
        if runtime_env is not _UNSET:
            changes["runtime_env"] = runtime_env
        if ray_stage_spec is not None:
            changes["_ray_spec"] = {**self.__dict__.get("_ray_spec", {}), **ray_stage_spec}
        if xenna_stage_spec is not None:
            changes["_xenna_spec"] = {**self.__dict__.get("_xenna_spec", {}), **xenna_stage_spec}
        for key, value in changes.items():
            object.__setattr__(twin, key, value)
        return twin

    def settings(self) -> dict[str, Any]:
        """What `with_` has overridden, by name; empty for a stage as its class made it."""
        kept = zip(_SETTINGS, _OVERRIDES, strict=True)
        return {name: self.__dict__[key] for name, key in kept if key in self.__dict__}

    def call(self, *, brief: bool = False) -> str:
        """How the stage is made, as Python: its name and the parameters that are not the defaults.

        ``brief`` is for reading: of a long list it shows the beginning.
        """
        signature = _signature(type(self))
        show = _BRIEF.repr if brief else repr
        shown = [
            f"{key}={show(value)}"
            for key, value in self.params().items()
            if not _same(value, signature.parameters[key].default)
            and (key in self._given or not _is_factory(signature.parameters[key].default))
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __repr__(self) -> str:
        settings = [f"{key}={value!r}" for key, value in self.settings().items()]
        return f"{self.call()}.with_({', '.join(settings)})" if settings else self.call()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        assert isinstance(other, ProcessingStage)
        return _same(self.params(), other.params()) and self.settings() == other.settings()

    __hash__ = None  # type: ignore[assignment]  # equality is by value, and parameters may be lists


_BRIEF = reprlib.Repr(maxlist=4, maxtuple=4, maxset=4, maxfrozenset=4, maxdict=8, maxstring=300, maxother=300)
_SETTINGS = ("name", "resources", "batch_size", "num_workers", "runtime_env", "ray_stage_spec", "xenna_stage_spec")
_OVERRIDES = ("name", "resources", "batch_size", "_num_workers", "runtime_env", "_ray_spec", "_xenna_spec")


class FanOut(ProcessingStage[X, Y]):
    """One task becomes many. ``process`` may be a generator: then children stream, and memory holds one at a time."""

    @abstractmethod
    def process(self, task: X) -> Iterable[Y] | None:
        """The children of ``task`` in a fixed order: the same task must give the same children every time."""

    def ray_stage_spec(self) -> dict[str, Any]:
        return {RayStageSpecKeys.IS_FANOUT_STAGE: True, **super().ray_stage_spec()}


class SourceStage(FanOut[EmptyTask, Y]):
    """The first stage of a pipeline: it names the sources (files, ranges) and reads none of them.

    It runs in the driver, lazily. Each child must bring a ``task_id`` made with `lineage.source_id`, so that a source
    keeps its id when others come or go, and ``_generation``: what changes when the content of the source does.
    """


class Merge(ProcessingStage[X, Y]):
    """Many tasks become one: all tasks that reach the stage in lineage order, ``batch_size`` at a time.

    It is a barrier: what is before it is complete before it starts, so the result does not depend on who came first.
    ``batch_size = 0`` merges everything into one.
    """

    batch_size = 0

    @abstractmethod
    def process(self, tasks: Sequence[X]) -> Y | None:  # type: ignore[override]
        """One task from several. ``tasks`` loads its elements one at a time when they are iterated."""


class CompositeStage(ProcessingStage[X, Y]):
    """Several stages under one name: sugar that the plan expands. Nesting is allowed.

    What `with_` sets on it (resources, batch_size, …) holds for each of its stages that has not set it itself; a name
    becomes the first part of theirs.
    """

    @abstractmethod
    def decompose(self) -> list[ProcessingStage[Any, Any]]:
        """The stages that do the work, in order; at least one."""

    def process(self, task: X) -> Y:
        raise UsageError(
            f"{type(self).__name__} is a composite: run it in a Pipeline, or run the stages of its decompose()"
        )


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


def accepted_tasks(stage: ProcessingStage[Any, Any]) -> tuple[type[Task[Any]], ...]:
    """The task types that a stage takes."""
    declared = stage.inputs()
    return tuple(declared) if isinstance(declared, Mapping) else (type(stage).task_in,)


def needed_columns(stage: ProcessingStage[Any, Any], task_type: type[Task[Any]] | None = None) -> list[str]:
    """The columns that a stage reads from a task of this type (the nearest declared ancestor counts)."""
    declared = stage.inputs()
    if not isinstance(declared, Mapping):
        return list(declared)
    for kind in (task_type or DocumentBatch).__mro__:
        if kind in declared:
            return list(declared[kind])
    return []


def overrides(stage: ProcessingStage[Any, Any], method: str) -> bool:
    """Whether a stage has its own version of an optional method."""
    base = next(kind for kind in (Merge, FanOut, ProcessingStage) if isinstance(stage, kind) and hasattr(kind, method))
    return getattr(type(stage), method) is not getattr(base, method)


def is_fanout(stage: ProcessingStage[Any, Any]) -> bool:
    """Whether one task becomes many here: by type, or by the fact in ``ray_stage_spec()``."""
    fact = stage.ray_stage_spec().get(RayStageSpecKeys.IS_FANOUT_STAGE)
    return isinstance(stage, FanOut) if fact is None else bool(fact)


@functools.cache
def _signature(cls: type) -> inspect.Signature:
    own = cls.__dict__.get("__signature__")
    if isinstance(own, inspect.Signature):
        return own
    if cls.__init__ is object.__init__:  # type: ignore[misc]
        return inspect.Signature()
    signature = inspect.signature(cls.__init__)  # type: ignore[misc]
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def constructor_signature(cls: type[ProcessingStage[Any, Any]]) -> inspect.Signature:
    """The parameters of a stage class with their types resolved, as far as they can be."""
    signature = _signature(cls)
    hints = _field_hints(cls) if dataclasses.is_dataclass(cls) else _hints(cls.__init__)
    return signature.replace(
        parameters=[p.replace(annotation=hints.get(n, p.annotation)) for n, p in signature.parameters.items()]
    )


def _is_factory(default: object) -> bool:
    """Whether a dataclass makes the value of this parameter anew for each object."""
    return type(default).__name__ == "_HAS_DEFAULT_FACTORY_CLASS"


def _positional_only(signature: inspect.Signature) -> set[str]:
    return {n for n, p in signature.parameters.items() if p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL)}


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception:  # names that exist only for type checkers: the raw annotations have to do
        return dict(getattr(function, "__annotations__", {}))


def _field_hints(cls: type) -> dict[str, Any]:
    """The types of a dataclass's fields. Each is looked up where it was written, which may be another module, and by
    itself, so that one that cannot be found (a name for type checkers alone) does not take the others along.
    """
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        home = vars(sys.modules[base.__module__]) if base.__module__ in sys.modules else {}
        for name, annotation in inspect.get_annotations(base).items():
            holder = types.SimpleNamespace(__annotations__={name: annotation})
            try:
                hints.update(typing.get_type_hints(holder, home, dict(vars(base))))
            except Exception:  # as in _hints
                hints[name] = annotation
    return hints


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f"a stage's name is a non-empty string with no slash, because files carry it; got {name!r}")
    return name


def _positive(what: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{what} must be a whole number of 1 or more, not {value!r}")
    return value


def _same(left: Any, right: Any) -> bool:
    if left is right:
        return True
    try:
        return bool(left == right)
    except (ValueError, TypeError):  # arrays compare element by element and have no single truth
        return False
