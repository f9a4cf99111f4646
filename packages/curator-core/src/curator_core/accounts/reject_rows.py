"""How are rejects stored as rows of a table?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Self

import pyarrow as pa

from curator_core.accounts.events import WORD
from curator_core.arrow.arrays import array
from curator_core.formatting import plain
from curator_core.model.recorder import Reject
from curator_core.model.spool import Spool
from curator_core.model.task import Task

REJECT_SCHEMA = pa.schema(
    [
        ("kind", WORD),  # "reject": a row that could not be read; "quarantine": a row or task that a stage failed on
        ("run_source", WORD),
        ("generation", WORD),
        ("attempt", pa.int32()),
        ("task", pa.string()),
        ("stage", WORD),
        ("reason", WORD),
        ("source", pa.string()),
        ("position", pa.string()),
        ("rows", pa.int64()),
        ("message", pa.string()),
        ("raw", pa.binary()),
    ]
)


@dataclass(slots=True)
class RejectRow:
    """A reject with the task and the stage it belongs to."""

    kind: str
    run_source: str
    generation: str
    attempt: int
    task: str
    stage: str
    reject: Reject

    @classmethod
    def of(cls, task: Task[Any], kind: str, *, attempt: int, stage: str, reject: Reject) -> Self:
        """A reject of ``task``, with the source and the generation that the task carries."""
        return cls(
            kind=kind,
            run_source=task._source,
            generation=task._generation,
            attempt=attempt,
            task=task.task_id,
            stage=stage,
            reject=reject,
        )


class RejectRows(Spool[RejectRow]):
    """The rejects that wait for the next flush; a file of nothing but bad rows adds them all at once."""

    __slots__ = ()

    def to_table(self, things: list[RejectRow]) -> pa.Table:
        return rejects_table(things)

    def from_table(self, table: pa.Table) -> Iterator[RejectRow]:
        for row in table.to_pylist():
            reject = Reject(**{field.name: row.pop(field.name) for field in fields(Reject)})
            yield RejectRow(**row, reject=reject)

    def size(self, thing: RejectRow) -> int:
        return len(thing.reject.raw or b"") + len(thing.reject.message)


def rejects_table(rows: list[RejectRow]) -> pa.Table:
    columns: list[list[Any]] = [
        [r.kind for r in rows],
        [r.run_source for r in rows],
        [r.generation for r in rows],
        [r.attempt for r in rows],
        [r.task for r in rows],
        [r.stage for r in rows],
        [plain(r.reject.reason) for r in rows],
        [plain(r.reject.source) for r in rows],
        [plain(r.reject.position) for r in rows],
        [r.reject.rows for r in rows],
        [plain(r.reject.message) for r in rows],
        [r.reject.raw for r in rows],
    ]
    return pa.table([array(c, f.type) for c, f in zip(columns, REJECT_SCHEMA, strict=True)], schema=REJECT_SCHEMA)
