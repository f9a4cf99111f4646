"""Tracks which stage a worker is calling, to find tasks that kill workers and to end calls that take too long."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from curator_core.errors import TaskTimeout
from curator_core.model.task import Task
from curator_core.worker.calls import CallObserver


class WorkerCalls(CallObserver):
    """Reports each call while a ``suspect`` runs, and ends the process when a call exceeds its time limit.

    A Python thread watches the clock, so native code that holds the GIL is ended only when it releases the GIL.
    """

    def __init__(
        self,
        calling: Callable[[str, str, list[str]], Any],
        late: Callable[[str, list[str], TaskTimeout], Any],
    ) -> None:
        """``calling`` gets the suspect, the stage and its tasks; ``late`` gets the stage, its tasks and the error."""
        self.suspect = ""  # the task that runs alone because a worker died while working on it
        self._calling = calling
        self._late = late
        self._call: tuple[str, list[str], float] | None = None
        self._deadline = 0.0
        self._changed = threading.Condition()
        self._watching = False

    def begin(self, stage: str, tasks: Sequence[Task[Any]], limit_s: float | None) -> None:
        if self.suspect:
            self._calling(self.suspect, stage, [task.task_id for task in tasks])
        if limit_s is not None:
            with self._changed:
                self._call = (stage, [task.task_id for task in tasks], limit_s / len(tasks))
                self._deadline = time.monotonic() + limit_s
                self._changed.notify()
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="curator-time-limit", daemon=True).start()

    def end(self) -> None:
        if self._call is not None:
            with self._changed:
                self._call = None
        if self.suspect:
            self._calling(self.suspect, "", [])

    def _watch(self) -> None:
        with self._changed:
            while True:
                if self._call is None:
                    self._changed.wait()
                elif (left := self._deadline - time.monotonic()) > 0:
                    self._changed.wait(left)
                else:
                    stage, tasks, limit = self._call
                    break
        where = tasks[0] if len(tasks) == 1 else f"{tasks[0]} and {len(tasks) - 1} more"
        try:
            self._late(stage, tasks, TaskTimeout(stage, where, limit))
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
