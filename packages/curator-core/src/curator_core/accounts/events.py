"""Which events does a run record, and what is their table? A task became several tasks, or it ended."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa

from curator_core.arrow.arrays import array
from curator_core.formatting import plain
from curator_core.model.task import FileRecord, StagePerfStats, Task

FORK, DONE, DROPPED, FAILED, MERGED, MERGE = "fork", "done", "dropped", "failed", "merged", "merge"
KINDS = (FORK, DONE, DROPPED, FAILED, MERGED, MERGE)
KIND_CODES = {kind: code for code, kind in enumerate(KINDS)}

WORD = pa.dictionary(pa.int32(), pa.string())
_COUNT = pa.struct(
    [
        ("stage", pa.string()),
        ("seconds", pa.float32()),
        ("calls", pa.int32()),
        ("rows_in", pa.int64()),
        ("rows_out", pa.int64()),
        ("quarantined", pa.int64()),
        ("dropped", pa.string()),  # {"reason": rows} as JSON, or null if there are none; the next two are alike
        ("rejected", pa.string()),
        ("metrics", pa.string()),
    ]
)
_OUTPUT = pa.struct(
    [
        ("stage", pa.string()),
        ("path", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
    ]
)
EVENT_FIELDS = [
    ("kind", WORD),
    ("source", WORD),
    ("path", WORD),  # source and path together are the id of the task; empty for the source itself
    ("generation", WORD),
    ("attempt", pa.int32()),
    ("children", pa.int32()),
    ("quarantined", pa.int64()),
    ("stage", WORD),
    ("reason", WORD),
    ("counts", pa.list_(_COUNT)),
    ("outputs", pa.list_(_OUTPUT)),
    ("members", pa.list_(pa.string())),
    ("result", pa.string()),
]
EVENT_SCHEMA = pa.schema(EVENT_FIELDS)

# The columns that decide which sources are complete.
INDEX = ["kind", "source", "path", "generation", "attempt", "children", "quarantined"]


@dataclass(slots=True)
class Event:
    """An event of one task: it became ``children`` tasks, or it ended.

    ``counts`` are the rows and times of the stages that the task went through since the previous event in its lineage,
    so that every call of a stage is counted once, however often it was repeated. ``members`` (of a ``merge``) are the
    tasks that became the source ``task``.
    """

    kind: str
    source: str
    task: str
    generation: str = ""
    attempt: int = 1
    children: int = 0
    stage: str = ""
    reason: str = ""
    counts: list[StagePerfStats] = field(default_factory=list)
    outputs: list[tuple[str, FileRecord]] = field(default_factory=list)
    members: list[str] = field(default_factory=list)
    result: str = ""

    @classmethod
    def of(cls, task: Task[Any], kind: str, *, attempt: int, **more: Any) -> Self:
        """An event of ``task``, with the source and the generation that the task carries."""
        return cls(
            kind=kind, source=task._source, task=task.task_id, generation=task._generation, attempt=attempt, **more
        )


def events_table(events: Sequence[Event]) -> pa.Table:
    """Events as a table; texts that repeat are stored once."""
    counts = [count for event in events for count in event.counts]
    outputs = [output for event in events for output in event.outputs]
    count_columns: list[list[Any]] = [
        [c.stage_name for c in counts],
        [c.process_time for c in counts],
        [c.calls for c in counts],
        [c.rows_in for c in counts],
        [c.rows_out for c in counts],
        [c.quarantined for c in counts],
        [_json(c.dropped) for c in counts],
        [_json(c.rejected) for c in counts],
        [_json(c.custom_metrics) for c in counts],
    ]
    output_columns: list[list[Any]] = [
        [stage for stage, _ in outputs],
        [record.path for _, record in outputs],
        [record.rows for _, record in outputs],
        [record.bytes for _, record in outputs],
        [record.sha256 for _, record in outputs],
    ]
    columns: list[Any] = [
        [e.kind for e in events],
        [e.source for e in events],
        [e.task[len(e.source) :] for e in events],
        [e.generation for e in events],
        [e.attempt for e in events],
        [e.children for e in events],
        [sum([c.quarantined for c in e.counts]) for e in events],
        [e.stage for e in events],
        [plain(e.reason) for e in events],
        _lists(_COUNT, count_columns, [len(e.counts) for e in events]),
        _lists(_OUTPUT, output_columns, [len(e.outputs) for e in events]),
        [e.members for e in events],
        [e.result for e in events],
    ]
    arrays = [
        column if isinstance(column, pa.Array) else array(column, kind)
        for column, (_, kind) in zip(columns, EVENT_FIELDS, strict=True)
    ]
    return pa.table(arrays, schema=EVENT_SCHEMA)


def events_from(table: pa.Table) -> Iterator[Event]:
    """The events in a table."""
    for batch in table.select([name for name, _ in EVENT_FIELDS]).to_batches(max_chunksize=65_536):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            kind, source, path, generation, attempt, children, _, stage, reason, counts, outputs, members, result = row
            yield Event(
                kind=kind,
                source=source,
                task=source + path,
                generation=generation,
                attempt=attempt,
                children=children,
                stage=stage,
                reason=reason,
                counts=[_count(value) for value in counts],
                outputs=[(o["stage"], FileRecord(o["path"], o["rows"], o["bytes"], o["sha256"])) for o in outputs],
                members=members,
                result=result,
            )


def _count(value: dict[str, Any]) -> StagePerfStats:
    dropped, rejected, metrics = (json.loads(value[k]) if value[k] else {} for k in ("dropped", "rejected", "metrics"))
    return StagePerfStats(
        value["stage"],
        value["seconds"],
        value["calls"],
        value["rows_in"],
        value["rows_out"],
        dropped,
        rejected,
        value["quarantined"],
        metrics,
    )


def _lists(kind: pa.StructType, columns: list[list[Any]], lengths: list[int]) -> pa.Array:
    arrays = [array(column, kind.field(index).type) for index, column in enumerate(columns)]
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    values = pa.StructArray.from_arrays(arrays, fields=list(kind))
    return pa.ListArray.from_arrays(array(offsets), values, type=pa.list_(kind))


def _json(value: dict[str, Any]) -> str | None:
    return plain(json.dumps(value, separators=(",", ":"), ensure_ascii=False)) if value else None
