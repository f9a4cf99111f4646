"""Polls a running dataset from inside Ray Data's own loop, to detect stalls and to collect the workers' reports.

Ray Data waits forever for resources that it cannot get. The guard ends such a run and reports what it was waiting for.
This module imports Ray Data, so it is imported when a run starts.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from ray.data._internal.execution import streaming_executor_state
from ray.data._internal.execution.execution_callback import ExecutionCallback

POLL_SECONDS = 1.0

# Guards by token: Ray Data creates the callback itself and sends its class to workers, where there is nothing to guard.
_polls: dict[str, Callable[[], None]] = {}


class GuardCallback(ExecutionCallback):
    """Called by Ray Data at every step of its loop."""

    token: ClassVar[str] = ""

    def __init__(self) -> None:
        self._next = 0.0

    def on_execution_step(self, executor: Any) -> None:
        """Poll if it is time; an error from the poll ends the run."""
        now = time.monotonic()
        poll = _polls.get(self.token)
        if poll is not None and now >= self._next:
            self._next = now + POLL_SECONDS
            poll()


@contextlib.contextmanager
def guarded(token: str, poll: Callable[[], None]) -> Iterator[type]:
    """A callback class that calls ``poll``, valid for the length of a ``with`` block."""
    _polls[token] = poll
    try:
        yield type("CuratorGuard", (GuardCallback,), {"token": token})
    finally:
        _polls.pop(token, None)


@contextlib.contextmanager
def polling_every(seconds: float) -> Iterator[None]:
    """For the length of a ``with`` block, let Ray Data's loop wait at most this long for its running tasks.

    The loop waits until all of them are done or the time is up, so on a machine with few CPUs every block costs a part
    of the wait: 20 ms, mostly idle, with Ray Data's default of 0.1 s on two CPUs. A Ray version without this setting
    keeps its own pace.
    """
    name = "WAIT_FOR_TASK_COMPLETION_TIMEOUT_S"
    before = getattr(streaming_executor_state, name, None)
    if before is None:
        yield
        return
    setattr(streaming_executor_state, name, min(seconds, before))
    try:
        yield
    finally:
        setattr(streaming_executor_state, name, before)
