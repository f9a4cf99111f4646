"""What does a stage record about its task? Rows that left, files that it wrote, and metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curator_core.arrow.arrays import array
from curator_core.errors import AccountingError
from curator_core.formatting import plain
from curator_core.model.spool import Spool
from curator_core.model.task import FileRecord, Task


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that was set aside: its place, the reason, and as many of its bytes as the run keeps."""

    reason: str
    source: str = ""
    position: str = ""
    message: str = ""
    raw: bytes | None = None
    rows: int = 1


_COLUMNS = pa.schema(
    [
        ("reason", pa.string()),
        ("source", pa.string()),
        ("position", pa.string()),
        ("message", pa.string()),
        ("raw", pa.binary()),
        ("rows", pa.int64()),
    ]
)


class Rejects(Spool[Reject]):
    """The rejects of one call of a stage; there may be as many as lines in a file."""

    __slots__ = ()

    def to_table(self, things: list[Reject]) -> pa.Table:
        columns: list[list[Any]] = [
            [plain(thing.reason) for thing in things],
            [plain(thing.source) for thing in things],
            [plain(thing.position) for thing in things],
            [plain(thing.message) for thing in things],
            [thing.raw for thing in things],
            [thing.rows for thing in things],
        ]
        return pa.table([array(c, f.type) for c, f in zip(columns, _COLUMNS, strict=True)], schema=_COLUMNS)

    def from_table(self, table: pa.Table) -> Iterator[Reject]:
        return map(Reject, *(column.to_pylist() for column in table.columns))

    def size(self, thing: Reject) -> int:
        return len(thing.raw or b"") + len(thing.message)


@dataclass(frozen=True, slots=True)
class Judged:
    """A filter's verdict on each row of its input: its score, and whether it stays.

    ``reasons`` is one word for all rows that leave, or an array with a word for each of them, in order.
    """

    batch: Any  # the rows of the input without those that the stage has rejected
    scores: pa.Array
    kept: pa.BooleanArray
    reasons: pa.Array | str


@dataclass(frozen=True, slots=True)
class Scored:
    """The numbers by which a stage that is no filter chooses rows, as floats; NaN for a row without one.

    ``distances`` say how far each row is from the limit, and ``limit`` names the parameter that sets it.
    """

    name: str
    limit: str
    values: Any
    distances: Any


@dataclass(slots=True)
class Recorder:
    """The records about one task, or about a whole call if a stage is tried by hand."""

    dropped: dict[str, int] = field(default_factory=dict)
    # The dropped rows, if the stage says which: their places in the task as it was given.
    which: dict[str, list[Any]] = field(default_factory=dict)
    of: Any = None  # the batch that these places refer to, if it is not the task itself
    judged: Judged | None = None
    scored: Scored | None = None
    rejects: Rejects = field(default_factory=Rejects)
    read: int | None = None
    outputs: list[FileRecord] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        left = self.dropped or self.rejects or self.outputs or self.metrics or self.read is not None
        return bool(left or self.judged is not None or self.scored is not None)


class CallRecorder:
    """The records of one call with several tasks, separately for each task, since it may be run again with other tasks."""

    __slots__ = ("_stage", "_tasks", "current", "recorders")

    def __init__(self, stage: str, tasks: Sequence[Task[Any]]) -> None:
        self._stage = stage
        self._tasks = tasks
        self.recorders = [Recorder() for _ in tasks]
        self.current: Recorder | None = None

    def of(self, task: Task[Any]) -> Recorder:
        """The recorder of one of the tasks; the argument is the task itself or another object with the same id."""
        for same in (lambda mine: mine is task, lambda mine: bool(task.task_id) and mine.task_id == task.task_id):
            for mine, recorder in zip(self._tasks, self.recorders, strict=True):
                if same(mine):
                    return recorder
        raise AccountingError(
            f"stage {self._stage!r} records something for task {task.task_id!r}, which is not one of the "
            f"{len(self._tasks)} that it was given"
        )

    def chosen(self, what: str) -> Recorder:
        """The recorder of the task that the stage names; raise if it does not name one."""
        if self.current is None:
            raise AccountingError(
                f"stage {self._stage!r} was given {len(self._tasks)} tasks, and {what}() does not name its task: "
                f"call it inside `with self.about(task):`, or with {what}(…, task=task)"
            )
        return self.current
