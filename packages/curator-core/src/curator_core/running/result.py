"""What came of a run: progress, summary, result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from curator_core.accounts.tally import StageTotals, Tally
from curator_core.model.task import Task

Progress = Callable[["RunProgress"], None]


@dataclass
class RunProgress:
    """What a progress display may show; one object, updated as the run goes."""

    name: str
    total_sources: int | None = None
    skipped_sources: int = 0
    finished_sources: int = 0
    segment: int = 0
    segments: int = 1
    seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)
    state: str = "running"


@dataclass
class RunSummary:
    """What came of a run, in numbers."""

    name: str
    state: Literal["done", "quarantined", "failed"] = "done"
    executor: str = ""
    attempt: int = 1
    seconds: float = 0.0
    opened_after: float = 0.0  # seconds until the executor was there: a cluster takes some to start
    worked_after: float | None = None  # seconds until the first work was done
    sources: int = 0
    sources_skipped: int = 0
    sources_failed: int = 0
    stages: list[StageTotals] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    rows_written: int = 0
    results: int = 0
    shares: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return {"done": 0, "failed": 1, "quarantined": 3}[self.state]

    @property
    def rows_dropped(self) -> int:
        return sum(stage.rows_dropped for stage in self.stages)

    @property
    def rows_rejected(self) -> int:
        return sum(stage.rows_rejected for stage in self.stages)

    @property
    def rows_quarantined(self) -> int:
        return sum(stage.quarantined for stage in self.stages)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "exit_code": self.exit_code}


_LEFT = ("dropped", "rejected", "quarantined")


@dataclass(repr=False)
class RunResult(Sequence[Task[Any]]):
    """The tasks that reached the end, in lineage order, and the summary."""

    tasks: list[Task[Any]]
    summary: RunSummary
    run_dir: str | None = None

    @property
    def exit_code(self) -> int:
        return self.summary.exit_code

    def __repr__(self) -> str:
        summary = self.summary
        left = [f"{name} {rows:,}" for name in _LEFT if (rows := getattr(summary, f"rows_{name}"))]
        parts = [f"{len(self.tasks)} results", f"{summary.sources} sources", *(f"rows {text}" for text in left)]
        return f"RunResult({summary.name!r} {summary.state}: {', '.join(parts)}, {summary.seconds:g} s)"

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: Any) -> Any:
        return self.tasks[index]
