"""Polls a running dataset from inside Ray Data's own loop, to detect stalls and to collect the workers' reports.

Ray Data waits forever for resources that it cannot get. The guard ends such a run and reports what it was waiting for.
This module imports Ray Data, so it is imported when a run starts.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import ray
from ray.data._internal.execution import streaming_executor_state
from ray.data._internal.execution.execution_callback import ExecutionCallback

POLL_SECONDS = 1.0


class StartingActors:
    """Keeps actors until they have started, even if Ray Data no longer needs them.

    Ray kills an actor whose last reference goes while it starts, even if its stage is set up by then and is being torn
    down. An actor that has started may finish its teardown.
    """

    def __init__(self) -> None:
        self._actors: dict[Any, Any] = {}  # the reference to the answer that an actor gives when it has started

    def keep(self, executor: Any) -> None:
        """Keep the actors that a running dataset is starting. A Ray version with other names keeps none."""
        for operator in getattr(executor, "_topology", None) or ():
            pending = getattr(getattr(operator, "_actor_pool", None), "_pending_actors", None) or {}
            for actor in pending.values():
                self.add(actor)

    def add(self, actor: Any) -> None:
        """Keep this actor. It gets a call of ours: Ray Data cancels its own when it no longer needs the actor. The call is
        not repeated, as calls of Ray Data's actors are: Ray prints the error of an actor that fails to start with each.
        """
        if actor not in self._actors:
            self._actors[actor] = actor.__ray_ready__.options(max_task_retries=0).remote()

    def release(self, every: bool = False) -> None:
        """Let those go that have started, or have failed to, or ``every`` actor; this method does not wait."""
        if every:
            self._actors.clear()
        if self._actors:
            references = list(self._actors.values())
            started, _ = ray.wait(references, num_returns=len(references), timeout=0, fetch_local=False)
            done = set(started)
            self._actors = {actor: answer for actor, answer in self._actors.items() if answer not in done}


# Guards by token: Ray Data creates the callback itself and sends its class to workers, where there is nothing to guard.
_polls: dict[str, Callable[[], None]] = {}
_starting: dict[str, StartingActors] = {}


class GuardCallback(ExecutionCallback):
    """Called by Ray Data at every step of its loop."""

    token: ClassVar[str] = ""

    def __init__(self) -> None:
        self._next = 0.0

    def on_execution_step(self, executor: Any) -> None:
        """Poll if it is time; an error from the poll ends the run."""
        starting = _starting.get(self.token)
        if starting is not None:
            starting.keep(executor)
            starting.release()
        now = time.monotonic()
        poll = _polls.get(self.token)
        if poll is not None and now >= self._next:
            self._next = now + POLL_SECONDS
            poll()


@contextlib.contextmanager
def guarded(token: str, poll: Callable[[], None], starting: StartingActors) -> Iterator[type]:
    """A callback class that calls ``poll`` and keeps actors that start, valid for the length of a ``with`` block."""
    _polls[token] = poll
    _starting[token] = starting
    try:
        yield type("CuratorGuard", (GuardCallback,), {"token": token})
    finally:
        _polls.pop(token, None)
        _starting.pop(token, None)


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
