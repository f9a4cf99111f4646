"""A poll of a running dataset once in a while, from inside Ray Data's own loop: is anything moving, has a worker reported?

Ray Data waits for ever when what it needs cannot be had. The guard ends such a run and says what it was waiting for.
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

# By token: Ray Data makes the callback itself, and sends its class to the workers, where there is nothing to guard.
_polls: dict[str, Callable[[], None]] = {}


class GuardCallback(ExecutionCallback):
    """Called by Ray Data at every step of its loop."""

    token: ClassVar[str] = ""

    def __init__(self) -> None:
        self._next = 0.0

    def on_execution_step(self, executor: Any) -> None:
        """Poll, if it is time; what that raises ends the run."""
        now = time.monotonic()
        poll = _polls.get(self.token)
        if poll is not None and now >= self._next:
            self._next = now + POLL_SECONDS
            poll()


@contextlib.contextmanager
def guarded(token: str, poll: Callable[[], None]) -> Iterator[type]:
    """A class of callbacks that call ``poll``, for the length of a ``with`` block."""
    _polls[token] = poll
    try:
        yield type("CuratorGuard", (GuardCallback,), {"token": token})
    finally:
        _polls.pop(token, None)


@contextlib.contextmanager
def polling_every(seconds: float) -> Iterator[None]:
    """Let Ray Data's loop wait no longer than this for all its running tasks, for the length of a ``with`` block.

    It waits for the last of them or this long, so on a machine with few CPUs every block costs a share of it: 20 ms each
    with Ray Data's own 0.1 s on two CPUs, most of it idle. A version that has no such number keeps its own pace.
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
