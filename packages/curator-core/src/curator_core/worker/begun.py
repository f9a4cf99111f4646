"""Which tasks have the stages of a group begun ahead? Any of them may be the reason why a worker dies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curator_core.model.task import Task


class Begun:
    """The begun tasks by stage; the stages of a group share one object."""

    def __init__(self, allowed: bool = True) -> None:
        """``allowed`` says whether stages may begin tasks: a call with a time limit must be the only work."""
        self.allowed = allowed
        self._tasks: list[tuple[str, Task[Any]]] = []

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def add(self, stage: str, task: Task[Any]) -> None:
        self._tasks.append((stage, task))

    def end(self, stage: str, task: Task[Any]) -> None:
        """Remove a task that is finished, or whose result will not be requested."""
        self._tasks = [(name, begun) for name, begun in self._tasks if name != stage or begun is not task]

    def suspects(self, stage: str, tasks: Sequence[Task[Any]]) -> tuple[str, Sequence[Task[Any]]]:
        """The suspects if the worker dies while ``stage`` works on ``tasks``: a stage, and all tasks that may be the
        cause.

        Several suspects are never blamed: they are run again without begun tasks, so that the cause is found.
        """
        others = [(name, task) for name, task in self._tasks if name != stage or not any(task is own for own in tasks)]
        if not others:
            return stage, tasks
        return others[0][0], [*tasks, *(task for _, task in others)]
