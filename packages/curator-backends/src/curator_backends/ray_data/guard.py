"""Polls a running dataset now and then from inside Ray Data's own loop: does anything move, has a worker reported?

Ray Data waits for ever for resources that it cannot get. The guard ends such a run and says what it was waiting for.
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

# Guards by token: Ray Data makes the callback itself and sends its class to workers, which have nothing to guard.
_polls: dict[str, Callable[[], None]] = {}


class GuardCallback(ExecutionCallback):
    """Called by Ray Data at every step of its loop."""

    token: ClassVar[str] = ""

    def __init__(self) -> None:
        self._next = 0.0

    def on_execution_step(self, executor: Any) -> None:
        """Poll if it is time; an error from that ends the run."""
        now = time.monotonic()
        poll = _polls.get(self.token)
        if poll is not None and now >= self._next:
            self._next = now + POLL_SECONDS
            poll()


@contextlib.contextmanager
def guarded(token: str, poll: Callable[[], None]) -> Iterator[type]:
    """A class of callbacks that call ``poll``, valid for the length of a ``with`` block."""
    _polls[token] = poll
    try:
        yield type("CuratorGuard", (GuardCallback,), {"token": token})
    finally:
        _polls.pop(token, None)


@contextlib.contextmanager
def polling_every(seconds: float) -> Iterator[None]:
    """For the length of a ``with`` block, let Ray Data's loop wait at most this long for its running tasks.

    The loop waits until all of them are done or the time is over, so on a machine with few CPUs every block costs a
    part of the wait: with Ray Data's own 0.1 s on two CPUs, 20 ms, mostly idle. A version without this number keeps its
    own pace.
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
