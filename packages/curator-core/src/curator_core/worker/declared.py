"""Do the input and output tasks of a stage have the types and columns that it declares?"""

from __future__ import annotations

from typing import Any

from curator_core.errors import AccountingError, StageError, UsageError, check_free
from curator_core.model.stage import ANY_COLUMNS, ProcessingStage, accepted_tasks, added_columns, needed_columns
from curator_core.model.task import DocumentBatch, Task


class Declared:
    """A stage's declarations about its input and output tasks."""

    def __init__(self, stage: ProcessingStage[Any, Any], name: str) -> None:
        self._stage = stage
        self._name = name
        self._accepts = accepted_tasks(stage)
        # For each type of task, the columns that the stage reads, and those that it adds, which must not exist before.
        self._columns: dict[type[Task[Any]], tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self.has_seen_outputs = False  # the columns of its output are checked once

    def unmet_by(self, task: Task[Any]) -> str | None:
        """The error in the columns of a task, if any; raise if the stage does not accept the type of the task."""
        kind = type(task)
        columns = self._columns.get(kind)
        if columns is None:
            columns = self._columns[kind] = self._columns_of(kind)
        needs, adds = columns
        if not (needs or adds) or not isinstance(task, DocumentBatch):
            return None
        names = task.column_names
        missing = [column for column in needs if column not in names]
        if missing:
            return f"column {', '.join(map(repr, missing))} is missing; the task has {', '.join(names) or 'no columns'}"
        try:
            check_free(self._name, names, adds)
        except UsageError as error:
            return str(error)
        return None

    def check_made(self, result: Task[Any], parent: Task[Any]) -> None:
        """Raise `StageError` if a result is not well formed, or if the first result lacks a declared column."""
        if not result.validate():
            what = type(result).__name__
            if isinstance(result, DocumentBatch):
                names = result.column_names
                twice = sorted({name for name in names if names.count(name) > 1})
                what += f": column {', '.join(map(repr, twice))} occurs twice" if twice else ""
            raise StageError(self._name, f"the stage made an invalid {what}", parent.task_id)
        if self.has_seen_outputs:
            return
        self.has_seen_outputs = True
        if not isinstance(result, DocumentBatch):
            return
        names = result.column_names
        missing = [name for name in self._stage.outputs() if name != ANY_COLUMNS and name not in names]
        if missing:
            raise StageError(
                self._name,
                f"the stage declares column {', '.join(map(repr, missing))} in outputs(), but its result has "
                f"{', '.join(names) or 'no columns'}",
                parent.task_id,
            )

    def _columns_of(self, kind: type[Task[Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if not any(issubclass(kind, accepted) for accepted in self._accepts):
            wanted = " or ".join(accepted.__name__ for accepted in self._accepts)
            raise AccountingError(f"stage {self._name!r} takes {wanted}, but got {kind.__name__}")
        return tuple(needed_columns(self._stage, kind)), tuple(added_columns(self._stage, kind))
