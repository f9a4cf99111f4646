"""What would a pipeline do? Its sources are counted, the first rows are read, and each stage is tried on them; nothing
is written.

`curate plan` shows it and `curate init --data` builds on it. The rows come from the first, a middle and the last
source, so that differences between the columns of files are noticed. No run directory is read or written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from operator import length_hint
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curator_core import formatting
from curator_core.accounts.ledger import MemorySink
from curator_core.accounts.tally import StageTotals, Tally
from curator_core.arrow.json_column import JSON
from curator_core.errors import CuratorError
from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
from curator_core.model.stage import ANY_COLUMNS, Merge, needed_columns, overrides
from curator_core.model.task import DocumentBatch, EmptyTask, Task
from curator_core.planning.plan import Plan, PlannedStage
from curator_core.worker.context import RunContext
from curator_core.worker.group import GroupRunner

ROWS = 1000
# The number of sources that are read, spread over all sources.
SOURCES = 3
# A text column is guessed by its name before its content.
TEXT_NAMES = ("text", "content", "body", "raw_content", "document", "page", "article", "markdown", "abstract")


@dataclass(frozen=True)
class Preview:
    """The sources of a pipeline, and the results of its stages for some of their rows."""

    sources: int = 0
    files: int = 0
    bytes: int = 0
    rows: int = 0  # the number of rows read
    sampled_sources: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    text_column: str | None = None
    captions: bool = False  # whether any row has a caption
    stages: tuple[StageTotals, ...] = ()
    not_tried: tuple[str, ...] = ()  # the first stage that was not tried, and all later ones
    why_not: str = ""
    problem: str = ""  # the error that a run would fail with

    def describe(self) -> str:
        """The preview for a person to read."""
        lines = [f"data: {self._sources_text()}"] if self.sources else []
        if self.columns:
            lines.append(f"  columns: {', '.join(f'{name} ({kind})' for name, kind in self.columns.items())}")
        if self.stages:
            lines.append(f"tried on {self._sample_text()}")
            width = max(len(stage.name) for stage in self.stages)
            for stage in self.stages:
                lines.append(f"  {stage.name:<{width}}  {stage_text(stage)}")
        if self.not_tried:
            rest = f", and {', '.join(self.not_tried[1:])} after it" if len(self.not_tried) > 1 else ""
            lines.append(f"not tried: {self.not_tried[0]}, which {self.why_not}{rest}")
        if self.problem:
            lines.append(f"problem: {self.problem}")
        return "\n".join(lines)

    def _sources_text(self) -> str:
        parts = [formatting.count(self.sources, "source")]
        if self.files:
            parts.append(f"{formatting.count(self.files, 'file')}, {formatting.size(self.bytes)}")
        return " in ".join(parts)

    def _sample_text(self) -> str:
        of = "it" if self.sources == 1 else f"{self.sampled_sources} of them"
        return f"the first {formatting.count(self.rows, 'row')} of {of}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "sources": self.sources,
            "files": self.files,
            "bytes": self.bytes,
            "columns": self.columns,
            "text_column": self.text_column,
            "sample": {"rows": self.rows, "sources": self.sampled_sources},
            "stages": [
                {
                    "name": stage.name,
                    "rows_in": stage.rows_in,
                    "rows_out": stage.rows_out,
                    "dropped": stage.dropped,
                    "rejected": stage.rejected,
                }
                for stage in self.stages
            ],
            "not_tried": list(self.not_tried),
            "why_not": self.why_not,
            "problem": self.problem,
        }

    def _repr_html_(self) -> str:
        return formatting.text_html(self.describe())


def stage_text(stage: StageTotals) -> str:
    """What one stage does with the sample: ``keeps 71.0 % (290 of 1,000 dropped: too few words 290)``."""
    if not stage.rows_in:
        return "no row reached it"
    lost = [(reason, rows) for part in (stage.dropped, stage.rejected) for reason, rows in part.items()]
    gone = sum(rows for _, rows in lost)
    if stage.rows_out + gone > stage.rows_in:
        return f"makes {formatting.count(stage.rows_out, 'row')} of {stage.rows_in:,}"
    if not gone:
        return f"keeps all {stage.rows_in:,}"
    lost.sort(key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{reason} {rows:,}" for reason, rows in lost[:3])
    more = f", and {formatting.count(len(lost) - 3, 'other reason')}" if len(lost) > 3 else ""
    kept = formatting.percent(stage.rows_in - gone, stage.rows_in)
    return f"keeps {kept} ({gone:,} of {stage.rows_in:,} leave: {shown}{more})"


def make_preview(plan: Plan, rows: int = ROWS) -> Preview:
    """Read about ``rows`` rows of the plan's sources and try its stages on them.

    A missing path, a missing column and an error of a stage become ``problem``, so that the plan can still be shown.
    """
    if plan.source is None:
        return Preview()
    if not plan.source.stage.tried_by_plan:
        names = tuple(planned.name for planned in plan.stages)
        return Preview(not_tried=names, why_not="asks a server for its list")
    try:
        found, tasks = survey(plan.source.stage.process(EmptyTask()) or ())
    except CuratorError as error:
        return Preview(problem=str(error))
    return _Trial(plan, tasks, rows).preview(found) if tasks else found


def survey(sources: Iterable[Task[Any]]) -> tuple[Preview, list[Task[Any]]]:
    """Count the sources and files, and return the first, a middle and the last source; the others are not kept."""
    middle = length_hint(sources, 0) // 2
    count = files = size = 0
    chosen: dict[int, Task[Any]] = {}
    last: Task[Any] | None = None
    for place, task in enumerate(sources):
        if place in (0, middle):
            chosen[place] = task
        last, count = task, place + 1
        for _, bytes_ in task._metadata.get("source_files", ()):
            files += 1
            size += bytes_ or 0
    if last is not None:
        chosen[count - 1] = last
    return Preview(sources=count, files=files, bytes=size), [chosen[place] for place in sorted(chosen)]


class _Trial:
    """The stages of a plan on a few tasks, one stage after the other."""

    def __init__(self, plan: Plan, tasks: Sequence[Task[Any]], rows: int) -> None:
        self.stages = [planned for planned in plan.stages if planned is not plan.source]
        self.tasks: list[Task[Any]] = list(tasks)
        self.sources = len(tasks)
        self.rows = rows
        self.tally = Tally()
        self.columns: dict[str, str] = {}
        self.text_column: str | None = None
        self.captions = False
        self.read = 0

    def preview(self, found: Preview) -> Preview:
        why_not, problem, tried = "", "", 0
        for planned in self.stages:
            why_not = _why_not(planned)
            if why_not:
                break
            problem = self._missing(planned) or self._try(planned)
            if problem:
                break
            tried += 1
        totals = self.tally.stages
        return replace(
            found,
            rows=self.read,
            sampled_sources=self.sources,
            columns=self.columns,
            text_column=self.text_column,
            captions=self.captions,
            stages=tuple(totals[planned.name] for planned in self.stages[:tried] if planned.name in totals),
            not_tried=() if problem else tuple(planned.name for planned in self.stages[tried:]),
            why_not=why_not,
            problem=problem,
        )

    def _try(self, planned: PlannedStage) -> str:
        """Replace the tasks by the stage's results; return the error if it raised one."""
        sink = MemorySink()
        runner = GroupRunner([planned], RunContext(on_error="fail", writes=False), sink=sink)
        reads = not any(isinstance(task, DocumentBatch) for task in self.tasks)
        try:
            runner.setup_on_node(NodeInfo(), WorkerMetadata())
            runner.setup(WorkerMetadata())
            try:
                results: list[Task[Any]] = []
                for task in self.tasks:
                    made = runner.run([task])
                    share = -(-self.rows // self.sources)
                    results += _first_rows(made, share) if reads else made
            finally:
                runner.teardown()
        except CuratorError as error:
            return str(error)
        # Rows that are cut off here are not counted: a reader's rows are those that go to the next stage.
        counts = [count for event in sink.take() for count in event.counts]
        for task in results:
            counts += task._pending
            task._pending = []
        self.tasks = results
        if reads and any(isinstance(task, DocumentBatch) for task in results):
            self._look_at_columns()
        elif not reads:
            self.tally.add(counts)
        return ""

    def _look_at_columns(self) -> None:
        tables = [task.to_pyarrow() for task in self.tasks if isinstance(task, DocumentBatch)]
        self.read = sum(len(table) for table in tables)
        for table in tables:
            for column in table.schema:
                kind = _kind(column)
                before = self.columns.setdefault(column.name, kind)
                if kind not in (before, "null"):
                    self.columns[column.name] = kind if before == "null" else "mixed"
        self.text_column = likely_text(tables)
        self.captions = any(t[name].null_count < len(t) for t in tables for name in t.column_names if name == "caption")

    def _missing(self, planned: PlannedStage) -> str:
        """The error for a column that the stage reads and the data lack, with the column that may have been meant."""
        batches = [task for task in self.tasks if isinstance(task, DocumentBatch)]
        for batch in batches:
            names = batch.column_names
            missing = [name for name in needed_columns(planned.stage, type(batch)) if name not in names]
            if missing and missing != [ANY_COLUMNS]:
                hint = ""
                if self.text_column and self.text_column in names and self.text_column not in missing:
                    hint = (
                        f"; {self.text_column!r} looks like the text: give the stage column={self.text_column!r}, or put "
                        f"RenameColumns(columns={{{self.text_column!r}: {missing[0]!r}}}) after the reader"
                    )
                return (
                    f"stage {planned.name!r} reads column {', '.join(map(repr, missing))}, which the data lack: they have "
                    f"{', '.join(names) or 'no columns'}{hint}"
                )
        return ""


def _why_not(planned: PlannedStage) -> str:
    """Why a stage is not tried on a sample, or an empty text."""
    stage = planned.stage
    if isinstance(stage, Merge):
        return "waits for all rows"
    if stage.output_folder() or overrides(stage, "finish"):
        return "writes files"
    if stage.resources.requires_gpu:
        return "uses a GPU"
    if not stage.tried_by_plan:
        return "loads a model, or fetches something"
    return ""


def _first_rows(tasks: Iterator[Task[Any]], rows: int) -> list[Task[Any]]:
    """The first tasks with ``rows`` rows in all; the last one is cut."""
    found: list[Task[Any]] = []
    left = rows
    try:
        for task in islice(tasks, SOURCES * rows):
            if isinstance(task, DocumentBatch) and task.num_rows > left:
                task = task.with_data(task.to_pyarrow().slice(0, left))  # noqa: PLW2901 - the same task with fewer rows
            found.append(task)
            left -= task.num_items if isinstance(task, DocumentBatch) else 0
            if left <= 0:
                break
    finally:
        close = getattr(tasks, "close", None)
        if close is not None:
            close()
    return found


def _kind(column: pa.Field) -> str:
    return "json" if column.type == JSON else str(column.type)


def likely_text(tables: Sequence[pa.Table]) -> str | None:
    """The column that most likely contains the text of the documents: chosen by its name, or else by the highest
    average length.
    """
    lengths: dict[str, list[float]] = {}
    for table in tables:
        for column in table.schema:
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                mean = pc.mean(pc.utf8_length(table[column.name])).as_py()
                lengths.setdefault(column.name, []).append(mean or 0.0)
    named = [name for name in TEXT_NAMES if name in lengths]
    if named:
        return named[0]
    longest = max(lengths, key=lambda name: sum(lengths[name]) / len(lengths[name]), default=None)
    # Columns of codes or names do not count as text.
    return longest if longest is not None and max(lengths[longest]) >= 40 else None
