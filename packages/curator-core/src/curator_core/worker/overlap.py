"""How much do neighbouring filters overlap? How many rows would each drop by itself, and how many would be dropped
anyway?

Each filter is tried on all rows that reach the first one. This repeats the work of all filters, on more rows, so it is
done only on request.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from curator_core.accounts.seen_rows import SeenRows, TaskKey
from curator_core.arrow.arrays import to_numpy
from curator_core.model.task import DocumentBatch, Task
from curator_core.planning.plan import PlannedStage
from curator_core.stages.column_filter import ColumnFilter


class Overlap:
    """Consecutive filters, each tried on the input of the first one."""

    def __init__(self, filters: Sequence[PlannedStage], attempt: int, rows: SeenRows) -> None:
        self._filters = filters
        self._attempt = attempt
        self._rows = rows

    def measure(self, task: Task[Any]) -> None:
        if not isinstance(task, DocumentBatch) or not task.num_rows:
            return
        key = TaskKey.of(task, self._attempt)
        try:
            failed = {planned.name: _failed(planned.stage, task) for planned in self._filters}
        except Exception:
            # For example on a row that an earlier filter would have dropped: a measurement must not fail a run.
            self._rows.count(key, self._filters[0].name, "overlap", "unmeasured", ["rows"], [task.num_rows])
            return
        names = list(failed)
        gone = np.zeros(task.num_rows, bool)
        for place, name in enumerate(names):
            mine = failed[name]
            first = mine & ~gone
            later = np.zeros(task.num_rows, bool)
            for other in names[place + 1 :]:
                later |= failed[other]
            numbers = [int(mine.sum()), int(first.sum()), int((first & later).sum())]
            self._rows.count(key, name, "overlap", "", ["alone", "first", "anyway"], numbers)
            others = [other for other in names if other != name]
            self._rows.count(
                key, name, "overlap", "with", others, [int((mine & failed[other]).sum()) for other in others]
            )
            gone |= mine


def overlaps(stages: Sequence[PlannedStage]) -> Iterator[tuple[int, list[PlannedStage]]]:
    """Each series of two or more neighbouring filters in a group, with the position of the first."""
    run: list[PlannedStage] = []
    for place, planned in enumerate([*stages, None]):
        stage = planned.stage if planned is not None else None
        if planned is not None and isinstance(stage, ColumnFilter) and stage.mode != "annotate" and not stage.removes():
            run.append(planned)
            continue
        if len(run) > 1:
            yield place - len(run), run
        run = []


def _failed(stage: Any, task: DocumentBatch) -> np.ndarray[Any, Any]:
    twin = copy.copy(stage)  # a loaded model is shared
    for name, value in (
        ("_recorder", None),
        ("_call", None),
        ("mode", "annotate"),
        ("score_column", "curator overlap"),
    ):
        object.__setattr__(twin, name, value)
    twin.process(task)
    judged = twin.recorder.judged
    if judged is None or len(judged.kept) != task.num_rows:
        raise ValueError("some rows are not judged")
    passed = to_numpy(judged.kept).astype(bool)
    return passed if stage.mode == "invert" else ~passed
