"""What a stage wants to be known about the task it is working on: rows that left, files written, numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curator_core.arrow.arrays import array
from curator_core.formatting import plain
from curator_core.model.spool import Spool
from curator_core.model.task import FileRecord


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that was set aside: where it stood, why, and its bytes as far as the run keeps them."""

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
    """The rejects of one call of a stage, which may be as many as a file has lines."""

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


@dataclass(slots=True)
class Recorder:
    """Collects what one call of a stage reports; the adapter takes it after the call."""

    dropped: dict[str, int] = field(default_factory=dict)
    rejects: Rejects = field(default_factory=Rejects)
    read: int | None = None
    outputs: list[FileRecord] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    # Rows that a column filter or another stage wants shown in a report as examples of a reason.
    samples: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.dropped or self.rejects or self.outputs or self.metrics or self.read is not None)
