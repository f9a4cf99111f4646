"""Which messages do the driver and a worker of LocalExecutor exchange, and where does a worker record its current call?

For each segment the driver sends `SetUp`, then `Work` as the worker finishes it, `TakeBack` when another worker has
nothing to do, `Flush`, and `Rest`; at the end it sends `Stop`. Each answer below names the message that it answers, if
any.
"""

from __future__ import annotations

import mmap
import os
import pickle
import struct
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from curator_core.accounts.events import Event
from curator_core.model.task import StagePerfStats, Task
from curator_core.worker.calls import CallObserver, Care

# From the driver -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetUp:
    """The stages and their context (see `curator_core.worker.sending`). ``node_first``: also set up the machine.

    ``threads`` is the number of threads that Arrow and numpy may use.
    """

    packed: bytes
    node_first: bool
    worker_id: str
    threads: int
    # The groups of stages that another process runs because they use a GPU: the first stage of each, and the one after
    # its last.
    owned: tuple[tuple[int, int], ...] = ()
    ahead_bytes: int = 0  # how many bytes may be in requests to that process


@dataclass(frozen=True, slots=True)
class SetUpOwner:
    """The groups that use a GPU, for the process that owns it; answered by `Ready`, as `SetUp` is."""

    packed: bytes
    node_first: bool
    worker_id: str
    threads: int


@dataclass(frozen=True, slots=True)
class Client:
    """Tell the owner of a GPU that the socket of another worker follows (`multiprocessing.reduction.send_handle`)."""


@dataclass(frozen=True, slots=True)
class Source:
    """An encoded source, its number in the driver, and how to run it."""

    index: int
    data: bytes
    care: Care | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """Sources to run, in this order."""

    sources: list[Source]


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Give back ``parts - 1`` of ``parts`` equal parts of the sources that have not begun, for ``parts - 1`` idle
    workers.
    """

    parts: int


@dataclass(frozen=True, slots=True)
class Flush:
    """Make finished sources durable."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Tear down, and wait for the stages of another segment."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Tear down and end."""


# From the worker -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NodeReady:
    """The setup that runs once per machine is finished."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The answer to `SetUp`."""


@dataclass(frozen=True, slots=True)
class Result:
    """An encoded task that has left the segment."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """These sources were finished in this many seconds; ``durable`` says that they and all before them are durable.

    ``events`` are the events of a run without a run directory.
    """

    indices: list[int]
    seconds: float
    counts: list[StagePerfStats]
    events: list[Event]
    durable: bool


@dataclass(frozen=True, slots=True)
class GivenBack:
    """The answer to `TakeBack`: sources that the worker will not run."""

    indices: list[int]


@dataclass(frozen=True, slots=True)
class Durable:
    """The answer to `Flush`."""


@dataclass(frozen=True, slots=True)
class OwnerLost:
    """The owner of the GPU no longer answers; the worker waits to be ended."""


@dataclass(frozen=True, slots=True)
class Failed:
    """An error that ends the run, packed (see `curator_core.worker.sending`); the worker also ends."""

    error: bytes


@dataclass(frozen=True, slots=True)
class Resting:
    """The answer to `Rest`; ``large``: the worker holds so much memory that another one should run the next segment."""

    large: bool = False


@dataclass(frozen=True, slots=True)
class Stopped:
    """The answer to `Stop`."""


def send(connection: Connection, message: Any) -> None:
    """Send a message of this module."""
    connection.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))


def receive(connection: Connection) -> Any:
    """The next message; raise `EOFError` or `OSError` if the other side is gone."""
    return pickle.loads(connection.recv_bytes())  # noqa: S301 - from a process that this one started, or that started this one


# A worker's current call ----------------------------------------------------------------------------------------------

_SIZE = 4096
# source, deadline, number of tasks in the call (0: no call), bytes of the text that follows
_HEAD = struct.Struct("<qdII")
_NO_SOURCE = -1


@dataclass(frozen=True, slots=True)
class CurrentCall:
    """The work of a worker: the number of its source, and the current call of a stage, if any."""

    index: int = _NO_SOURCE
    deadline: float = 0.0  # on the clock of `time.monotonic`, which all processes of a machine share; 0 for none
    tasks: int = 0
    stage: str = ""
    task: str = ""  # the first task of the call


def new_call_file() -> int:
    """The descriptor of a file for `CallFile`; it has no name."""
    with tempfile.TemporaryFile() as file:
        file.truncate(_SIZE)
        descriptor = os.dup(file.fileno())
    os.pwrite(descriptor, _HEAD.pack(_NO_SOURCE, 0.0, 0, 0), 0)
    return descriptor


def read_call(descriptor: int) -> CurrentCall:
    """Read the current call of the worker with this file, or its last one if it died."""
    while True:
        found, again = (os.pread(descriptor, _SIZE, 0) for _ in range(2))
        if found == again:  # a live worker may be writing it
            break
    index, deadline, tasks, length = _HEAD.unpack_from(found)
    if not tasks:
        return CurrentCall(index)
    text = found[_HEAD.size : _HEAD.size + length].decode("utf-8", "replace")
    stage, _, task = text.partition("\0")
    return CurrentCall(index, deadline, tasks, stage, task)


class CallFile(CallObserver):
    """Records a worker's current call in memory that the driver can read however the worker ends."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, _SIZE)
        self._index = _NO_SOURCE

    def source(self, index: int = _NO_SOURCE) -> None:
        """Record that the worker begins a source, or is between two."""
        self._index = index
        self._note(0.0, 0, 0)

    def begin(self, stage: str, tasks: Sequence[Task[Any]], limit_s: float | None) -> None:
        text = f"{stage}\0{tasks[0].task_id}".encode("utf-8", "surrogatepass")[: _SIZE - _HEAD.size]
        self._memory[_HEAD.size : _HEAD.size + len(text)] = text
        self._note(0.0 if limit_s is None else time.monotonic() + limit_s, len(tasks), len(text))

    def end(self) -> None:
        self._note(0.0, 0, 0)

    def _note(self, deadline: float, tasks: int, length: int) -> None:
        _HEAD.pack_into(self._memory, 0, self._index, deadline, tasks, length)
