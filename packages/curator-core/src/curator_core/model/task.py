"""A task: a batch of data on its way through a pipeline."""

from __future__ import annotations

import copy
import functools
import importlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

import pyarrow as pa

from curator_core.arrow.arrays import array
from curator_core.arrow.frames import from_frame, to_frame
from curator_core.errors import UsageError
from curator_core.formatting import count

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


@dataclass(slots=True)
class StagePerfStats:
    """The statistics of one stage for one task: time, rows, and why rows left."""

    stage_name: str
    process_time: float = 0.0
    calls: int = 1
    rows_in: int = 0
    rows_out: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    quarantined: int = 0
    custom_metrics: dict[str, float] = field(default_factory=dict)

    @property
    def num_items_processed(self) -> int:
        return self.rows_in

    @property
    def rows_dropped(self) -> int:
        return sum(self.dropped.values())

    @property
    def rows_rejected(self) -> int:
        return sum(self.rejected.values())


@dataclass(kw_only=True)
class Task(ABC, Generic[T]):
    """A batch of data. ``task_id`` is its lineage; the run sets it, and stages need not change it."""

    data: T
    task_id: str = ""
    dataset_name: str = ""
    _stage_perf: list[StagePerfStats] = field(default_factory=list, repr=False, compare=False)
    _metadata: dict[str, Any] = field(default_factory=dict, repr=False)
    # The accounting of the run: see curator_core.worker.adapter. It is not data, so it is neither compared nor shown.
    _source: str = field(default="", repr=False, compare=False)
    _generation: str = field(default="", repr=False, compare=False)
    _pending: list[StagePerfStats] = field(default_factory=list, repr=False, compare=False)
    _outputs: list[Any] = field(default_factory=list, repr=False, compare=False)

    # What num_items counts. The numbers before and after a stage are compared only if both count the same thing.
    unit: ClassVar[str] = "items"

    @property
    @abstractmethod
    def num_items(self) -> int:
        """The number of items (rows, files) in the task."""

    @abstractmethod
    def validate(self) -> bool:
        """Whether the task is well formed. Called before the first stage that gets the task."""

    def __copy__(self) -> Self:
        # What `copy.copy` does without this method takes several times as long.
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        for name in _slots_of(type(self)):
            if hasattr(self, name):
                setattr(twin, name, getattr(self, name))
        return twin

    def with_data(self, data: T) -> Self:
        """A copy with other data and the same identity; the usual return value of ``process``."""
        twin = self.__copy__()
        twin.data = data
        twin._metadata = dict(self._metadata)
        return twin


@functools.cache
def _slots_of(kind: type) -> tuple[str, ...]:
    """The attributes of a class that are not in ``__dict__``."""
    found = [vars(base).get("__slots__", ()) for base in kind.__mro__]
    names = chain.from_iterable([given] if isinstance(given, str) else given for given in found)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


@dataclass(kw_only=True)
class EmptyTask(Task[None]):
    """A task without data, for a pipeline whose first stage makes its own."""

    data: None = None

    @property
    def num_items(self) -> int:
        return 0

    def validate(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class FileRecord:
    """The record of a file that a stage has written, which serves to verify it later and to resume without reading it."""

    path: str
    rows: int = 0
    bytes: int = 0
    sha256: str = ""


@dataclass(kw_only=True)
class FileGroupTask(Task[list[str]]):
    """The paths of files for a reader, or of files that a writer wrote, with their ``records``.

    ``ranges`` restricts each path to bytes ``[start, end)``; ``None`` for a path means the whole file.
    """

    data: list[str]
    ranges: list[tuple[int, int] | None] | None = None
    records: list[FileRecord] = field(default_factory=list)

    unit: ClassVar[str] = "files"

    @property
    def num_items(self) -> int:
        return len(self.data)

    @property
    def parts(self) -> list[tuple[str, tuple[int, int] | None]]:
        """Pairs of path and range."""
        return list(zip(self.data, self.ranges or [None] * len(self.data), strict=True))

    def validate(self) -> bool:
        paths = isinstance(self.data, list) and all(isinstance(path, str) and path for path in self.data)
        return paths and (self.ranges is None or len(self.ranges) == len(self.data))


class Derived(Protocol):
    """A value computed from a batch that can be filtered with it."""

    def filter(self, mask: pa.BooleanArray) -> Derived | None:
        """The value for the rows that ``mask`` keeps, or None if it is cheaper to compute it again."""


class Beside(Protocol):
    """A column that is not in the table: its values stay where a stage made them, for example on a GPU."""

    def filter(self, mask: pa.BooleanArray) -> Beside:
        """The column for the rows that ``mask`` keeps."""

    def landed(self) -> tuple[pa.Field, pa.Array]:
        """The column as an Arrow column for the table; the name of the field is ignored."""


@dataclass(kw_only=True)
class DocumentBatch(Task[Any]):
    """A table of documents: an Arrow table or a pandas frame, converted when a stage asks for the other."""

    data: pa.Table | pd.DataFrame
    # Values that stages computed from columns and share in this process, under keys such as "words:text". They are
    # never sent to other processes, and are discarded when the data are replaced other than by `filter` and
    # `append_column`.
    _derived: dict[str, Derived] = field(default_factory=dict, repr=False, compare=False)
    # Columns beside the table, by name. Only stages that declare them (`ProcessingStage.takes_beside`) get them in this
    # form; before any other stage, and before the task leaves this process, they are put into the table. They are
    # discarded with the data.
    _beside: dict[str, Beside] = field(default_factory=dict, repr=False, compare=False)

    unit: ClassVar[str] = "rows"
    # The column that the small picture of a row is made from, and the "module:function" that makes a JPEG from a value
    # or returns None. Rows of most batches have no picture. The function is given by name because most processes make
    # no pictures and need not load it.
    picture_column: ClassVar[str | None] = None
    picture_maker: ClassVar[str] = ""

    @classmethod
    def thumbnail(cls, value: bytes) -> bytes | None:
        """A small JPEG of a value of ``picture_column``, for reports; None if the value is not a picture."""
        module, _, function = cls.picture_maker.partition(":")
        made: bytes | None = getattr(importlib.import_module(module), function)(value) if module else None
        return made

    def __post_init__(self) -> None:
        if isinstance(self.data, pa.RecordBatch):
            self.data = pa.Table.from_batches([self.data])
        if not isinstance(self.data, pa.Table) and not _is_frame(self.data):
            raise UsageError(
                f"{type(self).__name__} takes a pyarrow.Table or a pandas.DataFrame, not {type(self.data).__name__}: "
                "for a list of dicts use pyarrow.Table.from_pylist(rows)"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.landed().__dict__, "_derived": {}}

    def __copy__(self) -> Self:
        # __getstate__ is not used, since it is for other processes: within this process the derived values stay valid.
        twin = super().__copy__()
        twin._derived = dict(self._derived)
        twin._beside = dict(self._beside)
        return twin

    @property
    def num_items(self) -> int:
        return len(self.data)

    @property
    def num_rows(self) -> int:
        return len(self.data)

    @property
    def column_names(self) -> list[str]:
        """The names of all columns; those beside the table come last."""
        names = self.data.column_names if isinstance(self.data, pa.Table) else map(str, self.data.columns)
        return [*names, *self._beside]

    def validate(self) -> bool:
        names = self.column_names
        return len(names) == len(set(names))

    def to_pyarrow(self) -> pa.Table:
        """The data as an Arrow table, without a copy if it is one."""
        if isinstance(self.data, pa.Table):
            return self.data
        return from_frame(self.data)

    def to_pandas(self) -> pd.DataFrame:
        """The data as a pandas frame, without a copy if it is one, or if the Arrow types allow it."""
        if not isinstance(self.data, pa.Table):
            return self.data
        return to_frame(self.data)

    def with_data(self, data: Any) -> Self:
        twin = super().with_data(data)
        twin._derived = {}
        twin._beside = {}
        twin.__post_init__()
        return twin

    def filter(self, mask: pa.BooleanArray | pa.ChunkedArray) -> Self:
        """The rows that ``mask`` keeps, with the values derived from the columns."""
        if isinstance(mask, pa.ChunkedArray):
            mask = mask.combine_chunks()
        twin = self.with_data(self.to_pyarrow().filter(mask))
        kept = ((key, value.filter(mask)) for key, value in self._derived.items())
        twin._derived = {key: value for key, value in kept if value is not None}
        twin._beside = {name: column.filter(mask) for name, column in self._beside.items()}
        return twin

    def with_beside(self, name: str, column: Beside) -> Self:
        """A copy with a column beside the table, which replaces one of the same name."""
        twin = copy.copy(self)
        if name in self.data.columns if _is_frame(self.data) else name in self.data.column_names:
            twin = self.with_data(self.to_pyarrow().drop_columns([name]))
            twin._beside = dict(self._beside)
        twin._beside[name] = column
        return twin

    def drop_columns(self, names: Sequence[str]) -> Self:
        """A copy without these columns, whether in the table or beside it."""
        table = self.to_pyarrow()
        inside = [name for name in names if name in table.column_names]
        twin = self.with_data(table.drop_columns(inside)) if inside else copy.copy(self)
        twin._beside = {name: column for name, column in self._beside.items() if name not in names}
        return twin

    def beside(self, name: str) -> Beside | None:
        """A column that is beside the table; None if it is in the table or does not exist."""
        return self._beside.get(name)

    def landed(self, stay: Collection[str] = ()) -> Self:
        """The task with the columns beside it moved into the table, except those in ``stay``; the task itself if there
        are none.
        """
        names = [name for name in self._beside if name not in stay]
        if not names:
            return self
        table = self.to_pyarrow()
        for name in names:
            column, values = self._beside[name].landed()
            table = table.append_column(column.with_name(name), values)
        twin = self.with_data(table)
        twin._derived = dict(self._derived)
        twin._beside = {name: column for name, column in self._beside.items() if name in stay}
        return twin

    def append_column(self, column: str | pa.Field, values: pa.Array | pa.ChunkedArray | Sequence[Any]) -> Self:
        """A copy with one more column, or with the column of that name replaced.

        ``column`` is a name, or a field with metadata; ``values`` is an Arrow array, or a list or numpy array with one
        value for each row.
        """
        table = self.to_pyarrow()
        name: str = column.name if isinstance(column, pa.Field) else column
        if not isinstance(values, pa.Array | pa.ChunkedArray):
            if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
                raise UsageError(f"append_column({name!r}) takes an array or a list, not {type(values).__name__}")
            values = array(values if hasattr(values, "dtype") else list(values))
        if len(values) != len(table):
            raise UsageError(f"append_column({name!r}): {count(len(values), 'value')} for {count(len(table), 'row')}")
        if name in table.column_names:
            twin = self.with_data(table.set_column(table.column_names.index(name), column, values))
            # Values that depend only on the rows stay valid when a column is replaced.
            twin._derived = {k: value for k, value in self._derived.items() if getattr(value, "of_rows", False)}
            twin._beside = dict(self._beside)
            return twin
        twin = self.with_data(table.append_column(column, values))
        twin._derived = dict(self._derived)
        twin._beside = {other: column for other, column in self._beside.items() if other != name}
        return twin


def _is_frame(data: object) -> bool:
    # Importing pandas takes 0.3 s: if the data are a frame, pandas has been imported. While another thread is still
    # importing it, no frame exists.
    frame = getattr(sys.modules.get("pandas"), "DataFrame", None)
    return frame is not None and isinstance(data, frame)
