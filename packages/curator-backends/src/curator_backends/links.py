"""How the driver and its workers reach the coordinator: it is an actor on a cluster, and part of the driver on a local
Ray that we start.

An actor is one more process that imports Ray while the workers import it. Where everything runs on this machine, the
coordinator is an object in the driver, and workers reach it through a socket in a folder that only this user can enter.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from curator_backends.coordinator import Coordinator, Status, start_coordinator

# The longest path of a socket on Linux, excluding the terminating zero.
_LONGEST_PATH = 107
STOP_SECONDS = 5.0


class Link(ABC):
    """The coordinator, seen from the driver or from a worker."""

    @abstractmethod
    def call(self, method: str, *arguments: Any, timeout: float | None = None) -> Any:
        """Call a method of `Coordinator` and wait for its answer."""

    @abstractmethod
    def tell(self, method: str, *arguments: Any) -> None:
        """Call a method whose answer nobody needs, without waiting."""

    def status_now(self, received: int) -> Status | None:
        """The coordinator's status, or None if it has not arrived yet; this method does not wait."""
        status: Status = self.call("status", received)
        return status

    def last_status(self, timeout: float) -> Status | None:
        """The outstanding answer to a `status_now`, if there is one: its failures are in no other answer."""
        return None

    def close(self) -> None:  # noqa: B027 - the worker's side has nothing to close
        """End the coordinator; the driver calls this when the run is over."""


class ActorLink(Link):
    """The coordinator in an actor: on a cluster, and where sources are still being listed into the object store."""

    def __init__(self, actor: Any, token: str) -> None:
        self._actor = actor
        self._token = token
        self._pending: Any = None

    @classmethod
    def start(cls, ray: Any, token: str) -> ActorLink:
        return cls(start_coordinator(ray, token), token)

    def __reduce__(self) -> tuple[Callable[[Any, str], ActorLink], tuple[Any, str]]:
        return ActorLink, (self._actor, self._token)

    def call(self, method: str, *arguments: Any, timeout: float | None = None) -> Any:
        import ray

        return ray.get(self._call(method, *arguments), timeout=timeout)

    def tell(self, method: str, *arguments: Any) -> None:
        self._call(method, *arguments)

    def status_now(self, received: int) -> Status | None:
        import ray

        if self._pending is None:
            self._pending = self._call("status", received)
        ready, _ = ray.wait([self._pending], timeout=0)
        return self.last_status(0.0) if ready else None

    def last_status(self, timeout: float) -> Status | None:
        import ray

        if self._pending is None:
            return None
        status: Status = ray.get(self._pending, timeout=timeout)
        self._pending = None
        return status

    def close(self) -> None:
        self._actor.end.remote(self._token)

    def _call(self, method: str, *arguments: Any) -> Any:
        return self._actor.call.remote(self._token, method, *arguments)


class DriverLink(Link):
    """The coordinator in the driver's own process; a worker gets a `WorkerLink` instead."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is created here, for this user alone."""
        self._coordinator = Coordinator()
        self._lock = threading.Lock()
        folder.mkdir(mode=0o700, parents=True)
        self._address = str(folder / "coordinator")
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(self._address)
        self._listening.listen(128)
        self._end, self._end_signal = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="curator-coordinator", daemon=True)
        self._thread.start()

    @staticmethod
    def fits(folder: Path) -> bool:
        """Whether the path is short enough for a socket."""
        return len(os.fsencode(folder / "coordinator")) <= _LONGEST_PATH

    def __reduce__(self) -> tuple[Callable[[str], WorkerLink], tuple[str]]:
        return WorkerLink, (self._address,)

    def call(self, method: str, *arguments: Any, timeout: float | None = None) -> Any:
        with self._lock:
            return getattr(self._coordinator, method)(*arguments)

    def tell(self, method: str, *arguments: Any) -> None:
        self.call(method, *arguments)

    def close(self) -> None:
        self._end_signal.close()
        self._thread.join(STOP_SECONDS)

    def _serve(self) -> None:
        connections: dict[int, Connection] = {}  # by descriptor
        try:
            with self._listening, self._end:
                while True:
                    ready, _, _ = select.select([self._listening.fileno(), self._end.fileno(), *connections], [], [])
                    if self._end.fileno() in ready:
                        return
                    for one in ready:
                        if one == self._listening.fileno():
                            accepted = Connection(self._listening.accept()[0].detach())
                            connections[accepted.fileno()] = accepted
                        elif not self._answer(connections[one]):
                            connections.pop(one).close()
        finally:
            for connection in connections.values():
                connection.close()

    def _answer(self, connection: Connection) -> bool:
        """Answer one call; returns False if the worker is gone."""
        try:
            method, arguments, answered = pickle.loads(connection.recv_bytes())  # noqa: S301 - sent by a process of this run
            answer = self.call(method, *arguments)
            if answered:
                connection.send_bytes(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))
        except (EOFError, OSError):
            return False
        return True


class WorkerLink(Link):
    """A worker's end of a `DriverLink`: one connection, opened by the first call."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._connection: Connection | None = None
        self._lock = threading.Lock()  # the heartbeat runs in its own thread

    def __reduce__(self) -> tuple[Callable[[str], WorkerLink], tuple[str]]:
        return WorkerLink, (self._address,)

    def __del__(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()

    def call(self, method: str, *arguments: Any, timeout: float | None = None) -> Any:
        with self._lock:
            connection = self._send(method, arguments, answered=True)
            return pickle.loads(connection.recv_bytes())  # noqa: S301 - sent by the driver that started this process

    def tell(self, method: str, *arguments: Any) -> None:
        with self._lock:
            self._send(method, arguments, answered=False)

    def _send(self, method: str, arguments: tuple[Any, ...], *, answered: bool) -> Connection:
        if self._connection is None:
            end = socket.socket(socket.AF_UNIX)
            end.connect(self._address)
            self._connection = Connection(end.detach())
        self._connection.send_bytes(pickle.dumps((method, arguments, answered), pickle.HIGHEST_PROTOCOL))
        return self._connection
