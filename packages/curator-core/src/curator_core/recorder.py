"""What a stage wants to be known about the task it is working on: rows that left, files written, numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from curator_core.task import FileRecord


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that was set aside: where it stood, why, and its bytes as far as the run keeps them."""

    reason: str
    source: str = ""
    position: str = ""
    message: str = ""
    raw: bytes | None = None
    rows: int = 1


@dataclass(slots=True)
class Recorder:
    """Collects what one call of a stage reports; the adapter takes it after the call."""

    dropped: dict[str, int] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    read: int | None = None
    outputs: list[FileRecord] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    # Rows that a column filter or another stage wants shown in a report as examples of a reason.
    samples: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.dropped or self.rejects or self.outputs or self.metrics or self.read is not None)
