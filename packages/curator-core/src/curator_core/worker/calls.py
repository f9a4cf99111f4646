"""Which stage works on which task? This is the evidence if a worker dies or takes too long.

An adapter announces every call of a stage to a `CallObserver`. From that, an executor makes a `Care`, which says how to
run the source again.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from curator_core.errors import CuratorError, TaskTimeout
from curator_core.model.task import Task


@dataclass(frozen=True)
class Care:
    """How to run a source again after a worker has died on it, or was ended because it took too long.

    ``alone`` are stages that get one task per call, so that the cause is found; ``aside`` are tasks that go to the
    error policy without a call of the stage, each with the reason.
    """

    alone: frozenset[str] = frozenset()
    aside: Mapping[tuple[str, str], CuratorError] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.alone or self.aside)


NO_CARE = Care()


class CallObserver:
    """Called around every call of a stage; the base class observes nothing.

    ``limit_s`` is how long the call may take (`task_timeout_s`, for each task of the call). How late workers are ended
    depends on the observer: from outside the worker, or from a thread in it.
    """

    def begin(self, stage: str, tasks: Sequence[Task[Any]], limit_s: float | None) -> None:
        """Called before the stage works on these tasks."""

    def end(self) -> None:
        """Called after the stage has returned or raised."""


class TimeLimits(CallObserver):
    """Time limits in the user's own process, which must not be ended.

    In the main thread a system timer interrupts the stage, at the latest when it returns from native code. In another
    thread nothing can interrupt it, so the time is checked when the call returns.
    """

    def __init__(self) -> None:
        self._error: TaskTimeout | None = None
        self._deadline = 0.0
        self._timer = False
        self._before: Any = None

    def begin(self, stage: str, tasks: Sequence[Task[Any]], limit_s: float | None) -> None:
        if limit_s is None:
            return
        self._error = TaskTimeout(stage, tasks[0].task_id, limit_s / len(tasks))
        self._deadline = time.monotonic() + limit_s
        self._timer = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
        if self._timer:
            self._before = signal.signal(signal.SIGALRM, self._interrupt)
            signal.setitimer(signal.ITIMER_REAL, limit_s)

    def end(self) -> None:
        error, self._error = self._error, None
        timer, self._timer = self._timer, False
        if timer:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, self._before)
        if error is not None and time.monotonic() > self._deadline:
            raise error

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
