"""What is a stage? A map over tasks that declares what it needs, reads and adds.

Write a class with plain constructor parameters and one method, ``process``::

    @dataclass
    class MinLength(ProcessingStage[DocumentBatch, DocumentBatch]):
        chars: int = 100

        def inputs(self) -> list[str]:
            return ["text"]

        def process(self, task: DocumentBatch) -> DocumentBatch:
            ...

The base class is the kind of work: `ProcessingStage` (one task to one, or to none), `FanOut` (one to many), `Merge`
(many to one), `ColumnFilter` (a score and a predicate, see `curator_core.stages.column_filter`).
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar, get_args, get_origin

import pyarrow as pa

from curator_core.errors import UsageError, check_whole, nearest
from curator_core.model.engine_facts import NodeInfo, RayStageSpecKeys, WorkerMetadata
from curator_core.model.machine import Machine
from curator_core.model.parameters import (
    UNSET,
    bound_arguments,
    call_text,
    checked_folder,
    checked_name,
    checked_seconds,
    own_signature,
    positional_only,
    same_value,
    values_of,
)
from curator_core.model.recorder import CallRecorder, Judged, Recorder, Reject, Scored
from curator_core.model.resources import Resources
from curator_core.model.task import DocumentBatch, EmptyTask, FileRecord, Task

X = TypeVar("X", bound=Task)  # type: ignore[type-arg]
Y = TypeVar("Y", bound=Task)  # type: ignore[type-arg]

_IN: Any = X  # the type variable itself

# In `outputs()`, this means that the stage may add columns that depend on the data (a reader without a declared
# schema).
ANY_COLUMNS = "*"


def task_type_of(annotation: Any) -> type[Task[Any]] | None:
    if isinstance(annotation, TypeVar) or annotation is None:
        return None
    origin = get_origin(annotation)
    if origin in (list, Iterable, Iterator, Sequence) or (isinstance(origin, type) and issubclass(origin, Iterable)):
        return task_type_of(get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        found = [kind for kind in map(task_type_of, get_args(annotation)) if kind is not None]
        return found[0] if len(found) == 1 else None
    if isinstance(origin, type) and issubclass(origin, Task):
        return origin
    return annotation if isinstance(annotation, type) and issubclass(annotation, Task) else None


class ColumnNeed(NamedTuple):
    """A stage's requirement for a column; see `ProcessingStage.column_needs`."""

    stage: str
    need: object


class ColumnReader(NamedTuple):
    """A stage that reads a column and could share a worker with the maker of the column; see
    `ProcessingStage.suited_to`.
    """

    stage: str
    resources: Resources
    rows_s: float | None  # the rows that a worker processes per second, if known


class MadeFor(NamedTuple):
    """A stage that makes its columns as later stages need them, and the plan's sentences about that."""

    stage: ProcessingStage[Any, Any]
    decisions: Sequence[str] = ()
    warnings: Sequence[str] = ()


class ProcessingStage(ABC, Generic[X, Y]):
    """A map over tasks. Constructors check and keep their parameters; `setup` opens, loads and probes."""

    # Class attributes are the defaults; `with_` overrides them on a copy.
    name: str = ""
    resources: Resources = Resources()
    batch_size: int = 1  # the highest number of tasks in a call of `process_batch`
    # Seconds that one task may take; after that, the worker is ended and the error policy applies to the task. None: no
    # limit.
    task_timeout_s: float | None = None
    # A folder for the rows that the stage drops, with the reason; None: the folder of the run's option, if any.
    dropped: str | None = None
    runtime_env: Mapping[str, Any] | None = None
    # True for a stage that makes new rows on purpose (a splitter); otherwise more rows out than in are an error.
    creates_rows: bool = False
    # True for a stage with hardly any work of its own (a threshold, a small head): after a stage that uses a GPU it runs
    # in that stage's worker, so that rows that it drops are never sent to another.
    light: bool = False
    # False for a stage that `curate plan` must not try on a few rows: it loads a model, sends data, or takes a long
    # time.
    tried_by_plan: ClassVar[bool] = True
    # Parameters whose text may be the path of a file or folder, or something else (a list, a model's name). Parameters
    # called path, file and the like are always paths. In a pipeline file, all of these are relative to the file. If the
    # parameter is a mapping, its values are paths, or mappings with paths among their entries.
    maybe_paths: ClassVar[tuple[str, ...]] = ()
    # How many tasks the stage begins (see `begin`) before the result of the first is requested; 0 begins none.
    begins_ahead: int = 0
    # True for a stage that changes tasks only by `filter` and `append_column`: columns that it does not read may then
    # stay beside the table.
    follows_rows: bool = False
    # True for a stage that is no filter, chooses rows by their content, and says which rows it drops (`record_dropped`
    # with ``which``): the run then keeps samples of the rows that stay, too.
    shows_kept: bool = False
    version: str = "1"  # part of the run's fingerprint: raise it when the stage's result changes

    task_in: ClassVar[type[Task[Any]]] = Task  # type: ignore[type-abstract]
    task_out: ClassVar[type[Task[Any]]] = Task  # type: ignore[type-abstract]

    _given: dict[str, Any]  # the arguments of the constructor, kept by __new__

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # @dataclass keeps existing methods; those that it would make ignore `with_()`.
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
                kind = task_type_of(argument)
                if kind is not None:
                    setattr(cls, "task_in" if variable is _IN else "task_out", kind)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if inspect.isabstract(cls):
            raise UsageError(what_is_missing(cls))
        self = super().__new__(cls)
        object.__setattr__(self, "_given", bound_arguments(cls, args, kwargs))
        return self

    # Declarations --------------------------------------------------------------------------------

    def inputs(self) -> Sequence[str] | Mapping[type[Task[Any]], Sequence[str]]:
        """Columns the stage reads. A mapping by task type if it accepts several."""
        return []

    def outputs(self) -> Sequence[str]:
        """Columns the stage adds; `ANY_COLUMNS` is among them if they depend on the data."""
        return []

    def may_be_empty(self) -> Sequence[str]:
        """The columns of `outputs()` that often have no value in any row, which is then no reason for an alarm: an
        optional field of the input, or a note on a few rows.
        """
        return []

    def replaces(self) -> Sequence[str]:
        """The columns of `outputs()` that the stage may overwrite. Columns that it both reads and writes need not be
        listed. If the data already have any other output column, that is an error.
        """
        return []

    def removes(self) -> Sequence[str]:
        """Columns that the stage removes; `ANY_COLUMNS` if only `outputs()` remain."""
        return []

    def describe(self) -> str:
        """What the stage does with its parameters, as a clause for people: "keeps documents of 50 to 100,000 words".

        `curate plan` shows it beside the stage's name. Empty if the name says everything.
        """
        return ""

    def num_workers(self) -> int | None:
        """The number of workers that the stage asks for; None leaves it to the executor."""
        return self.__dict__.get("_num_workers")

    def ray_stage_spec(self) -> dict[str, Any]:
        """Facts for Ray Data, under `RayStageSpecKeys`."""
        return dict(self.__dict__.get("_ray_spec", {}))

    def xenna_stage_spec(self) -> dict[str, Any]:
        """Facts for Xenna, under `XennaStageSpecKeys`."""
        return dict(self.__dict__.get("_xenna_spec", {}))

    def needed_by(self, columns: frozenset[str]) -> ProcessingStage[Any, Any]:
        """Called once by the plan with the columns that later stages read: return a copy that makes only those.

        The default returns the stage itself. A reader of images uses it to decode pixels only for stages that need
        them.
        """
        return self

    def column_needs(self) -> Mapping[str, object]:
        """What this stage requires of the columns that it reads, apart from their names: for example the size of
        pictures.

        The stage that makes the column gets the value through `made_for`; only these two interpret it. The plan calls
        this when a model may not be on this machine yet: leave out requirements that are not known.
        """
        return {}

    def made_for(self, needs: Mapping[str, Sequence[ColumnNeed]]) -> MadeFor:
        """Called once by the plan with the requirements of later stages for the columns that this one makes.

        Return a copy that makes the columns that way, with the decisions and warnings for the plan. Raise `UsageError`
        if no copy can satisfy all of them. Do not store derived values in the parameters, which are the user's.
        """
        return MadeFor(self)

    def rows_s(self) -> float | None:
        """The rows that one worker processes per second, if that is known while planning; a plan compares it with the
        speed of the stages before.
        """
        return None

    def suited_to(self, machine: Machine, readers: Mapping[str, Sequence[ColumnReader]]) -> MadeFor:
        """Called once by the plan with the machine, and with the stages that read this stage's columns and could share
        its worker, if any: return a copy that suits them, for example one on a GPU instead of CPUs. The default returns
        the stage itself.
        """
        return MadeFor(self)

    def takes_beside(self) -> Sequence[str]:
        """The columns that the stage also accepts beside the table (`DocumentBatch.beside`)."""
        return []

    def gives_beside(self, columns: Collection[str]) -> ProcessingStage[Any, Any]:
        """Called by the plan with columns that stages in the same worker take beside the table: return a copy that
        leaves them there (`DocumentBatch.with_beside`), or the stage itself if that gains nothing.
        """
        return self

    def plan_notes(self) -> Sequence[str]:
        """Sentences for the plan about choices that the stage's parameters leave open."""
        return []

    # Work ------------------------------------------------------------------------------------------

    @abstractmethod
    def process(self, task: X) -> Y | Iterable[Y] | None:
        """Return the resulting task, a list of tasks, or None to drop the task. The method must not change ``task``
        itself.
        """

    def begin(self, task: X) -> Callable[[], Y | Iterable[Y] | None] | None:
        """Start work on a task that will be needed soon, on the stage's own thread or device, and return at once.

        Return a function. It is called once, in place of `process`: it waits for the work to finish and returns the
        result of `process`. Record nothing before it is called. It may never be called, and `process` may still be
        called for the task if the first attempt failed. Return None if there is nothing to begin. Up to `begins_ahead`
        tasks are begun before the first result is requested, while later stages of the same worker process earlier
        tasks. `begin` is not called for a stage that has `process_batch`.
        """
        return None

    def process_batch(self, tasks: list[X]) -> Sequence[Y | Iterable[Y] | None]:
        """Process several tasks at once; element *i* of the result is the return value of `process` for task *i*."""
        results = []
        for task in tasks:
            with self.about(task):
                results.append(self.process(task))
        return results

    def setup_on_node(self, node: NodeInfo, worker: WorkerMetadata) -> None:
        """Called once per machine, before any worker's `setup` there: for downloads."""

    def setup(self, worker: WorkerMetadata) -> None:
        """Called once per worker, before its first task: for models, connections, caches."""

    def teardown(self) -> None:
        """Called once per worker, after its last task, on success and on failure."""

    def output_folder(self) -> str | None:
        """For writers: the folder that the stage fills. The run marks it with ``_SUCCESS`` and removes leftover files."""
        return None

    def write_rows(self, path: str, table: pa.Table) -> FileRecord | None:
        """For writers: write a table with all of its columns in the writer's format, to ``path`` with the format's
        ending.

        Dropped rows are written this way if the run is asked to keep them. Return None if the writer cannot write this
        table; it is then written as Parquet.
        """
        return None

    def finish(self, outputs: Sequence[FileRecord]) -> Sequence[FileRecord] | None:
        """Called once per run, in the driver, after every source is complete.

        ``outputs`` are the files that this stage recorded, in lineage order. Return the records of the files that exist
        afterwards, or None if they are the same. It must be safe to repeat, even if some of ``outputs`` are gone
        because an earlier call was interrupted.
        """
        return None

    def conclusion(self) -> str:
        """A text about the run for people, such as a table; it is shown below the summary after `finish`."""
        return ""

    def repacks(self) -> bool:
        """For writers: whether `finish` replaces the files that tasks wrote with others."""
        return overrides(self, "finish")

    # Records ------------------------------------------------------------------------

    # In `process_batch` these calls must name their task: with ``task=``, or inside ``about(task)``.

    @property
    def recorder(self) -> Recorder:
        """The records since the adapter last took them; useful for trying a stage by hand."""
        recorder = self.__dict__.get("_recorder")
        if recorder is None:
            recorder = Recorder()
            object.__setattr__(self, "_recorder", recorder)
        return recorder

    @contextlib.contextmanager
    def about(self, task: Task[Any]) -> Iterator[None]:
        """Calls in the block record about ``task``, which is one of the tasks of `process_batch`."""
        call = self.__dict__.get("_call")
        if call is None:
            yield
            return
        before, call.current = call.current, call.of(task)
        try:
            yield
        finally:
            call.current = before

    def record_dropped(
        self, reason: str, rows: int = 1, *, which: Any = None, of: Any = None, task: Task[Any] | None = None
    ) -> None:
        """Record that ``rows`` rows of the task leave the pipeline here, on purpose, for ``reason``.

        ``which`` gives their places in the input table, as numbers from 0, so that the rows can be shown and written.
        If the stage has rejected rows before, ``of`` is the batch that the places refer to. Without ``which``, the rows
        are only counted.
        """
        if rows:
            recorder = self._recorder_of(task, "record_dropped")
            recorder.dropped[reason] = recorder.dropped.get(reason, 0) + rows
            if which is not None:
                recorder.which.setdefault(reason, []).append(which)
                recorder.of = of if of is not None else recorder.of

    def record_scored(
        self, name: str, limit: str, values: Any, distances: Any, *, of: Any = None, task: Task[Any] | None = None
    ) -> None:
        """Record the number by which each row of the task is chosen, and its distance from the limit that the parameter
        ``limit`` sets, as two arrays of floats.

        The run then keeps the rows nearest to the limit as samples. It is for stages with ``shows_kept``; ``of`` is as
        in `record_dropped`.
        """
        recorder = self._recorder_of(task, "record_scored")
        recorder.scored = Scored(name, limit, values, distances)
        recorder.of = of if of is not None else recorder.of

    def record_judged(self, judged: Judged, *, task: Task[Any] | None = None) -> None:
        """For filters: record the score of every row, which rows stay, and why the others leave. The report of scores
        is made from this.
        """
        self._recorder_of(task, "record_judged").judged = judged

    def record_rejected(
        self,
        reason: str,
        *,
        source: str = "",
        position: str | int = "",
        message: str = "",
        raw: bytes | None = None,
        rows: int = 1,
        task: Task[Any] | None = None,
    ) -> None:
        """Record a row that could not be read or handled in the run's rejects, with its place and the reason."""
        reject = Reject(reason, source, str(position), message, raw, rows)
        self._recorder_of(task, "record_rejected").rejects.append(reject)

    def record_read(self, rows: int, *, task: Task[Any] | None = None) -> None:
        """For readers: record the number of rows in the input, so that rows in = rows out + dropped + rejected can be
        checked.
        """
        recorder = self._recorder_of(task, "record_read")
        recorder.read = (recorder.read or 0) + rows

    def record_output(self, record: FileRecord, *, task: Task[Any] | None = None) -> None:
        """For writers: record a file that now has its final name."""
        self._recorder_of(task, "record_output").outputs.append(record)

    def record_metric(self, name: str, value: float) -> None:
        """Record a number that the stage defines; it is summed over calls and shown in statistics."""
        call = self.__dict__.get("_call")
        # A sum over all calls needs no task, so it is stored with the first one.
        recorder = self.recorder if call is None else call.recorders[0] if call.current is None else call.current
        metrics = recorder.metrics
        metrics[name] = metrics.get(name, 0.0) + value

    def _recorder_of(self, task: Task[Any] | None, what: str) -> Recorder:
        call: CallRecorder | None = self.__dict__.get("_call")
        if call is None:
            return self.recorder
        return call.chosen(what) if task is None else call.of(task)

    # Values: parameters, copies, comparison -----------------------------------------------------------------------

    def params(self) -> dict[str, Any]:
        """The constructor's parameters and their values, defaults included."""
        return values_of(self, self._given)

    def with_(
        self,
        *,
        name: str | None = None,
        resources: Resources | None = None,
        batch_size: int | None = None,
        num_workers: int | None = UNSET,
        runtime_env: Mapping[str, Any] | None = UNSET,
        task_timeout_s: float | None = UNSET,
        dropped: str | None = UNSET,
        ray_stage_spec: Mapping[str, Any] | None = None,
        xenna_stage_spec: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> Self:
        """A copy with other settings or constructor parameters; the original does not change."""
        if params:
            signature = own_signature(type(self))
            for key in params:
                if key not in signature.parameters:
                    known = [*signature.parameters, *_SETTINGS]
                    raise UsageError(f"{type(self).__name__}.with_() has no parameter {key!r}{nearest(key, known)}")
            given = {k: v for k, v in self._given.items() if k not in positional_only(signature)}
            twin = type(self)(**{**given, **params})
            for key in _OVERRIDES:
                if key in self.__dict__:
                    object.__setattr__(twin, key, self.__dict__[key])
        else:
            twin = copy.copy(self)
            object.__setattr__(twin, "_recorder", None)
        changes: dict[str, Any] = {}
        if name is not None:
            changes["name"] = checked_name(name)
        if resources is not None:
            if not isinstance(resources, Resources):
                raise UsageError(f"resources must be a Resources(…), not {resources!r}")
            changes["resources"] = resources
        if batch_size is not None:
            check_whole("batch_size", batch_size)
            changes["batch_size"] = batch_size
        if num_workers is not UNSET:
            check_whole("num_workers", num_workers, optional=True)
            changes["_num_workers"] = num_workers
        if runtime_env is not UNSET:
            changes["runtime_env"] = runtime_env
        if task_timeout_s is not UNSET:
            changes["task_timeout_s"] = (
                None if task_timeout_s is None else checked_seconds("task_timeout_s", task_timeout_s)
            )
        if dropped is not UNSET:
            changes["dropped"] = checked_folder("dropped", dropped)
        if ray_stage_spec is not None:
            changes["_ray_spec"] = {**self.__dict__.get("_ray_spec", {}), **ray_stage_spec}
        if xenna_stage_spec is not None:
            changes["_xenna_spec"] = {**self.__dict__.get("_xenna_spec", {}), **xenna_stage_spec}
        for key, value in changes.items():
            object.__setattr__(twin, key, value)
        return twin

    def settings(self) -> dict[str, Any]:
        """The settings that `with_` has changed, by name; empty for a stage as its constructor made it."""
        kept = zip(_SETTINGS, _OVERRIDES, strict=True)
        return {name: self.__dict__[key] for name, key in kept if key in self.__dict__}

    def call(self, *, brief: bool = False) -> str:
        """The Python call that makes the stage: its name and the parameters that are not the defaults.

        ``brief`` shows only the beginning of a long list.
        """
        return call_text(self, self.params(), self._given, brief=brief)

    def __repr__(self) -> str:
        settings = [f"{key}={value!r}" for key, value in self.settings().items()]
        return f"{self.call()}.with_({', '.join(settings)})" if settings else self.call()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        assert isinstance(other, ProcessingStage)
        return same_value(self.params(), other.params()) and self.settings() == other.settings()

    __hash__ = None  # type: ignore[assignment]  # equality is by value, and parameters may be lists


_SETTINGS = (
    "name",
    "resources",
    "batch_size",
    "num_workers",
    "runtime_env",
    "task_timeout_s",
    "dropped",
    "ray_stage_spec",
    "xenna_stage_spec",
)
_OVERRIDES = (
    "name",
    "resources",
    "batch_size",
    "_num_workers",
    "runtime_env",
    "task_timeout_s",
    "dropped",
    "_ray_spec",
    "_xenna_spec",
)


def what_is_missing(cls: type[ProcessingStage[Any, Any]]) -> str:
    """Why an abstract class is not a stage: the methods that it lacks, and misspelled ones that may be meant."""
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if cls.__module__.startswith("curator_") or any(name in vars(cls) for name in missing):
        return f"{cls.__name__} is a base class of stages: name one of its subclasses"
    own = [name for name in vars(cls) if callable(vars(cls)[name]) and not name.startswith("__")]
    hints = [nearest(name, own) for name in missing]
    methods = ", ".join(f"{name}()" for name in missing)
    return f"{cls.__name__} is not a stage yet: {methods} is missing{next((hint for hint in hints if hint), '')}"


class FanOut(ProcessingStage[X, Y]):
    """One task becomes many. If ``process`` is a generator, children stream and only one at a time is in memory."""

    @abstractmethod
    def process(self, task: X) -> Iterable[Y] | None:
        """Return the children of ``task`` in a fixed order: the same task must give the same children every time."""

    def ray_stage_spec(self) -> dict[str, Any]:
        return {RayStageSpecKeys.IS_FANOUT_STAGE: True, **super().ray_stage_spec()}


class SourceStage(FanOut[EmptyTask, Y]):
    """The first stage of a pipeline: it lists the sources (files, ranges) without reading them.

    It runs in the driver, lazily. Each child must have a ``task_id`` made with `lineage.source_id`, so that a source
    keeps its id when other sources appear or disappear, and a ``_generation``, a value that changes when the content of
    the source changes.
    """

    def reads_from(self, folder: str) -> str | None:
        """The entry of the input, as the user wrote it, by which a file in ``folder`` would be a source of the next
        run; None if there is none. If a run wrote to such a folder, the next run would read its output.
        """
        return None


class Merge(ProcessingStage[X, Y]):
    """Many tasks become one: all tasks that reach the stage in lineage order, ``batch_size`` at a time.

    It is a barrier: all stages before it are complete when it starts, so the result does not depend on the order of
    arrival. ``batch_size = 0`` merges everything into one.
    """

    batch_size = 0

    @abstractmethod
    def process(self, tasks: Sequence[X]) -> Y | None:  # type: ignore[override]
        """Return one task made from several. ``tasks`` loads its elements one at a time when they are iterated."""


class CompositeStage(ProcessingStage[X, Y]):
    """Several stages under one name, which the plan expands. Composites may be nested.

    Settings that `with_` makes on it (resources, batch_size, …) apply to those of its stages that do not set them
    themselves; its name becomes a prefix of theirs.
    """

    @abstractmethod
    def decompose(self) -> list[ProcessingStage[Any, Any]]:
        """Return the stages that do the work, in order; at least one."""

    def process(self, task: X) -> Y:
        raise UsageError(
            f"{type(self).__name__} is a composite: run it in a Pipeline, or run the stages of its decompose()"
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


def added_columns(stage: ProcessingStage[Any, Any], task_type: type[Task[Any]] | None = None) -> list[str]:
    """The columns that must not exist yet when a stage takes a task of this type."""
    may_be_there = {ANY_COLUMNS, *needed_columns(stage, task_type), *stage.replaces()}
    return [column for column in stage.outputs() if column not in may_be_there]


def overrides(stage: ProcessingStage[Any, Any], method: str) -> bool:
    """Whether a stage overrides an optional method."""
    base = next(kind for kind in (Merge, FanOut, ProcessingStage) if isinstance(stage, kind) and hasattr(kind, method))
    return getattr(type(stage), method) is not getattr(base, method)


def is_fanout(stage: ProcessingStage[Any, Any]) -> bool:
    """Whether the stage turns one task into many: by its type, or by the fact in ``ray_stage_spec()``."""
    fact = stage.ray_stage_spec().get(RayStageSpecKeys.IS_FANOUT_STAGE)
    return isinstance(stage, FanOut) if fact is None else bool(fact)


def may_stay_beside(stage: ProcessingStage[Any, Any], column: str) -> bool:
    """Whether a stage accepts a task with this column beside the table."""
    return column in stage.takes_beside() or (stage.follows_rows and column not in needed_columns(stage))
