"""The outcome of a run: its summary and its results."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from html import escape
from typing import TYPE_CHECKING, Any, Literal, Self

import pyarrow as pa

from curator_core import storage
from curator_core.accounts.tally import StageTotals
from curator_core.errors import UsageError
from curator_core.formatting import count
from curator_core.model.task import DocumentBatch, FileGroupTask, Task
from curator_core.running.summary_html import summary_html

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class StepSummary:
    """The outcome of one step of a workflow; ``steps`` are those of a step that is itself a workflow."""

    name: str
    state: str = "running"
    folder: str = ""  # its own run directory, relative to the workflow's
    complete_before: bool = False  # an earlier attempt finished it, so this one had nothing to do
    sources: int = 0
    rows_in: int = 0
    rows_out: int = 0
    seconds: float = 0.0
    steps: list[StepSummary] = field(default_factory=list)


@dataclass
class PlanShare:
    """The rows that count and were made under one plan of a run directory, which applies from attempt ``since`` on.

    ``changes`` are its differences from the present plan; empty for the present plan.
    """

    since: int
    changes: list[str] = field(default_factory=list)
    sources: int = 0
    rows_in: int = 0
    rows_out: int = 0


@dataclass
class RunSummary:
    """The outcome of a run in numbers."""

    name: str
    state: Literal["done", "quarantined", "failed"] = "done"
    executor: str = ""
    attempt: int = 1
    seconds: float = 0.0
    opened_after: float = 0.0  # seconds until the executor was ready; a cluster takes some time to start
    worked_after: float | None = None  # seconds until the first work was done
    sources: int = 0
    sources_skipped: int = 0
    sources_failed: int = 0
    sources_rejecting: int = 0  # sources that have lost more rows to rejects than max_reject_fraction
    stages: list[StageTotals] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    rows_written: int = 0
    results: int = 0
    shares: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # notes of stages after they have finished
    decisions: list[str] = field(default_factory=list)
    plans: list[PlanShare] = field(default_factory=list)  # empty if all rows were made under the present plan
    # The steps of a workflow; all other fields are those of the step that counts.
    steps: list[StepSummary] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return {"done": 0, "failed": 1, "quarantined": 3}[self.state]

    @property
    def has_quarantined(self) -> bool:
        """Whether there are tasks or rows that a retry would run again."""
        return bool(self.sources_failed or self.rows_quarantined)

    @property
    def rows_in(self) -> int:
        """Rows that were read: the input of the stage with the largest input."""
        return max((stage.rows_in for stage in self.stages), default=0)

    @property
    def rows_out(self) -> int:
        """Rows that the last stage let through."""
        return self.stages[-1].rows_out if self.stages else 0

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

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> RunSummary:
        """The summary from a mapping that `as_dict` made; values that an earlier version did not record get their
        defaults.
        """
        known = {field.name for field in fields(cls)}
        found = cls(**{key: value for key, value in content.items() if key in known})
        found.stages = [StageTotals(**stage) for stage in content.get("stages", ())]
        found.plans = [PlanShare(**share) for share in content.get("plans", ())]
        found.steps = [_step(step) for step in content.get("steps", ())]
        return found


def _step(content: Mapping[str, Any]) -> StepSummary:
    return StepSummary(**{**content, "steps": [_step(step) for step in content.get("steps", ())]})


class RunStream(Iterator[Task[Any]]):
    """Yields the tasks that reach the end, one by one. After the last one the accounts are closed and ``summary`` is
    available.

    Stopping early (``break``, `close`) stops the run; with a run directory it can be resumed.
    """

    def __init__(self, tasks: Generator[Task[Any], None, RunResult]) -> None:
        self._tasks = tasks
        self._result: RunResult | None = None

    def __next__(self) -> Task[Any]:
        try:
            return next(self._tasks)
        except StopIteration as end:
            if end.value is not None:  # a second call after the end yields nothing
                self._result = end.value
            raise StopIteration from None

    @property
    def summary(self) -> RunSummary:
        if self._result is None:
            raise UsageError("the summary of a run is available when its last task has been taken")
        return self._result.summary

    def close(self) -> None:
        """Stop the run."""
        self._tasks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class RunReport:
    """The path of the page of a run; a notebook shows the page itself."""

    path: str

    def _repr_html_(self) -> str:
        page = storage.read_bytes(self.path).decode("utf-8", "replace")
        # The page is in a frame of its own, so that its style does not affect the notebook and its script does not run
        # there.
        return f'<iframe srcdoc="{escape(page)}" sandbox="" title="report" style="width:100%;height:640px;border:0"></iframe>'


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
        parts = [count(len(self.tasks), "result"), count(summary.sources, "source"), *(f"rows {text}" for text in left)]
        return f"RunResult({summary.name!r} {summary.state}: {', '.join(parts)}, {summary.seconds:g} s)"

    def _repr_html_(self) -> str:
        return summary_html(self.summary.as_dict(), repr(self))

    def to_arrow(self) -> pa.Table:
        """The rows of all results as one table; columns that some results lack are null for their rows."""
        return self._rows().to_pyarrow()

    def to_pandas(self) -> pd.DataFrame:
        """The rows of all results as one frame."""
        return self._rows().to_pandas()

    def _rows(self) -> DocumentBatch:
        tables = [task.to_pyarrow() for task in self.tasks if isinstance(task, DocumentBatch)]
        if len(tables) < len(self.tasks):
            files = [path for task in self.tasks if isinstance(task, FileGroupTask) for path in task.data]
            there = f"files ({', '.join(map(repr, files[:2]))}, …)" if files else type(self.tasks[0]).__name__
            raise UsageError(
                f"the results of {self.summary.name!r} are {there}, not rows: read the written files, or leave the "
                "writer out to get the rows here"
            )
        return DocumentBatch(data=pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({}))

    def report(self) -> RunReport:
        """The page of the run (``report.html``), which a notebook shows in its cell."""
        if self.run_dir is None:
            raise UsageError("a report needs a run directory: run with run_dir='runs/mine'")
        return RunReport(storage.join(self.run_dir, "report.html"))

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: Any) -> Any:
        return self.tasks[index]
