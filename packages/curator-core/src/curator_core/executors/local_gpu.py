"""How do local workers share a GPU? One process owns it and runs the stages that use it; the workers send it tasks and
continue with others meanwhile.

As without a GPU, a source stays with one worker from its first stage to its last. At a group of stages that use the
GPU, the worker sends the task to the owner and gets the result back. The owner's events either come with the answer (in
a run without a run directory) or are made durable before the worker reports a source as durable.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import pyarrow as pa

from curator_core.accounts.events import Event
from curator_core.accounts.ledger import LedgerWriter, MemorySink
from curator_core.errors import CuratorError
from curator_core.executors.local_protocol import CallFile, Done
from curator_core.executors.shared_blocks import Channel
from curator_core.model.codec import decode_task, encode_task
from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
from curator_core.model.stage import overrides
from curator_core.model.task import StagePerfStats, Task
from curator_core.planning.plan import Group
from curator_core.worker.calls import NO_CARE, Care
from curator_core.worker.context import RunContext
from curator_core.worker.group import GroupRunner
from curator_core.worker.sending import packed_error, unpacked_error

# A worker may have this many bytes in requests without an answer, but at least FEW requests, so that one waits while
# another is computed, and at most MANY.
AHEAD_BYTES = 256 << 20
FEW, MANY = 2, 16
# The number of answers that may wait to be sent; with more, the owner waits for the workers to take them.
ANSWERS = 4


@dataclass(frozen=True, slots=True)
class Request:
    """Tasks of one call, encoded in the buffers of the message; ``group`` is one of those that the owner runs."""

    number: int
    group: int
    source: int  # the number of the source in the driver, which is blamed if the owner dies
    care: Care | None


@dataclass(frozen=True, slots=True)
class Durable:
    """Make the events of all answered requests durable."""

    number: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a request: tasks, encoded in the buffers, and events; or an error that ends the run."""

    number: int
    events: list[Event] = field(default_factory=list)
    error: bytes | None = None


class OwnerGone(Exception):
    """The process that owns the GPU is gone; the driver will start another one and end this worker."""


# In a worker -------------------------------------------------------------------------------------------------------------


class Owner:
    """A worker's connection to the process that owns a GPU."""

    def __init__(self, channel: Channel, ahead_bytes: int = AHEAD_BYTES) -> None:
        self._channel = channel
        self._numbers = itertools.count()
        self._answers: dict[
            int, tuple[Answer, list[pa.Buffer]]
        ] = {}  # answers that arrived during the wait for another
        self._unwanted: set[int] = set()
        self.ahead_bytes = ahead_bytes
        self.source = -1

    def ask(self, group: int, buffers: Sequence[pa.Buffer], care: Care) -> int:
        """Send tasks; return the number of the request."""
        number = next(self._numbers)
        self._send(Request(number, group, self.source, care or None), buffers)
        return number

    def answer(self, number: int) -> tuple[Answer, list[pa.Buffer]]:
        """Wait for the answer to a request."""
        while number not in self._answers:
            try:
                answer, buffers = self._channel.receive()
            except (EOFError, OSError) as error:
                raise OwnerGone from error
            if answer.number in self._unwanted:
                self._unwanted.remove(answer.number)
            else:
                self._answers[answer.number] = answer, buffers
        return self._answers.pop(number)

    def forget(self, number: int) -> None:
        """Discard the answer to a request."""
        if self._answers.pop(number, None) is None:
            self._unwanted.add(number)

    def make_durable(self) -> None:
        """Return when the owner's events for answered tasks are durable."""
        number = next(self._numbers)
        self._send(Durable(number))
        self.answer(number)

    def _send(self, message: Request | Durable, buffers: Sequence[pa.Buffer] = ()) -> None:
        try:
            self._channel.send(message, buffers)
        except OSError as error:
            raise OwnerGone from error


class OwnedGroup:
    """Replaces a group that uses the GPU in a worker's chain of stages; its attributes are those of the last stage of
    the group.
    """

    def __init__(self, runner: GroupRunner, first: int, last: int, group: int, owner: Owner) -> None:
        adapters = runner.adapters[first:last]
        self._last = adapters[-1]
        # A request has as many tasks as one of the stages takes per call, so that stages that begin tasks ahead get the
        # next ones at once.
        self._batch = max(1, *(adapter.stage.batch_size for adapter in adapters))
        # A stage that computes tasks together gets as many as it asks for; others may get fewer if the tasks are large.
        self._may_cut = not any(overrides(adapter.stage, "process_batch") for adapter in adapters)
        self._group = group
        self._owner = owner
        self._sink = runner.sink

    def __getattr__(self, name: str) -> Any:
        return getattr(self._last, name)

    def setup_on_node(self, node: NodeInfo, worker: WorkerMetadata) -> None:
        """The owner does this."""

    def setup(self, worker: WorkerMetadata) -> None:
        """The owner does this while the worker reads its first source."""

    def teardown(self) -> None:
        """The owner does this."""

    def stream(self, tasks: Iterator[Task[Any]], care: Care = NO_CARE) -> Iterator[Task[Any]]:
        """The owner's results for ``tasks``, in their order. Some tasks are always sent ahead, so that the owner never
        waits for the next.
        """
        ahead: deque[tuple[int, int]] = deque()
        size, more = 0, True
        try:
            while more or ahead:
                while more and (len(ahead) < FEW or (size < self._owner.ahead_bytes and len(ahead) < MANY)):
                    buffers, bytes_ = self._request(tasks)
                    if not buffers:
                        more = False
                        break
                    ahead.append((self._owner.ask(self._group, buffers, care), bytes_))
                    size += bytes_
                    del buffers
                if ahead:
                    number, bytes_ = ahead[0]
                    answer, made = self._owner.answer(number)
                    ahead.popleft()
                    size -= bytes_
                    if answer.error is not None:
                        raise unpacked_error(answer.error)
                    for event in answer.events:
                        self._sink.event(event)
                    yield from map(decode_task, made)
        finally:
            for number, _ in ahead:
                self._owner.forget(number)

    def _request(self, tasks: Iterator[Task[Any]]) -> tuple[list[pa.Buffer], int]:
        """Encode the tasks of the next call; return them and their size, which is limited so that `FEW` calls fit."""
        buffers: list[pa.Buffer] = []
        size = 0
        for task in islice(tasks, self._batch):
            buffers.append(encode_task(task))
            size += buffers[-1].size
            if self._may_cut and FEW * size >= self._owner.ahead_bytes:
                break
        return buffers, size


# In the process that owns the GPU ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Client:
    channel: Channel
    gone: bool = False


class Server:
    """Runs the groups for all workers: there is a reading thread for each worker, one thread that computes, and one
    that sends answers.
    """

    def __init__(
        self, groups: Sequence[Group], context: RunContext, calls: CallFile, report: Callable[[Done], None]
    ) -> None:
        self.sink = context.open_sink()
        self.runners = [GroupRunner(group, context, sink=self.sink, calls=calls) for group in groups]
        self._calls = calls
        self._report = report
        self._waiting: deque[tuple[_Client, Request | Durable, list[pa.Buffer]]] = deque()
        self._answers: deque[tuple[_Client, Answer, list[Task[Any]]]] = deque()
        self._changed = threading.Condition()
        self._ended = False
        threading.Thread(target=self._send, name="curator-gpu-answers", daemon=True).start()

    def setup_on_node(self, worker: WorkerMetadata) -> None:
        for runner in self.runners:
            runner.setup_on_node(NodeInfo(), worker)

    def setup(self, worker: WorkerMetadata) -> None:
        for number, runner in enumerate(self.runners):
            # Each runner writes its own log, under the name of its worker.
            runner.setup(worker if not number else replace(worker, worker_id=f"{worker.worker_id}-{number}"))

    def teardown(self) -> None:
        """Tear all groups down, and then raise the first error, if any."""
        failure: BaseException | None = None
        for runner in self.runners:
            try:
                runner.teardown()
            except BaseException as error:
                failure = failure or error
        self.flush()
        if failure is not None:
            raise failure

    def flush(self) -> None:
        for runner in self.runners:
            runner.flush()

    def connect(self, channel: Channel) -> None:
        """Serve another worker."""
        client = _Client(channel)
        threading.Thread(target=self._read, args=(client,), name="curator-gpu-requests", daemon=True).start()

    def end(self) -> None:
        """Let `serve` return when all requests are computed."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def serve(self) -> None:
        """Compute requests of workers in the order of arrival, until `end`."""
        while True:
            with self._changed:
                while not self._waiting and not self._ended:
                    self._changed.wait()
                if not self._waiting:
                    return
                client, request, buffers = self._waiting.popleft()
            if client.gone:
                continue
            if isinstance(request, Durable):
                self.flush()
                self._hand_over(client, Answer(request.number), [])
            else:
                self._compute(client, request, buffers)
            del buffers

    def _compute(self, client: _Client, request: Request, buffers: list[pa.Buffer]) -> None:
        self._calls.source(request.source)
        made: list[Task[Any]] = []
        error: bytes | None = None
        try:
            tasks = map(decode_task, buffers)
            made = list(self.runners[request.group].run(tasks, request.care or NO_CARE))
        except Exception as failure:
            error = packed_error(failure)
        self._calls.source()
        counts: list[StagePerfStats] = []
        events: list[Event] = []
        if isinstance(self.sink, LedgerWriter):
            counts = self.sink.take_counts()
        else:
            assert isinstance(self.sink, MemorySink)
            events = self.sink.take()
        if counts:
            self._report(Done([], 0.0, counts, [], durable=False))
        self._hand_over(client, Answer(request.number, events, error), made)

    def _hand_over(self, client: _Client, answer: Answer, made: list[Task[Any]]) -> None:
        with self._changed:
            while len(self._answers) >= ANSWERS:
                self._changed.wait()
            self._answers.append((client, answer, made))
            self._changed.notify_all()

    def _read(self, client: _Client) -> None:
        try:
            while True:
                request, buffers = client.channel.receive()
                with self._changed:
                    self._waiting.append((client, request, buffers))
                    self._changed.notify_all()
                del request, buffers
        except (EOFError, OSError):
            client.gone = True

    def _send(self) -> None:
        while True:
            with self._changed:
                while not self._answers:
                    self._changed.wait()
                client, answer, made = self._answers.popleft()
                self._changed.notify_all()
            if client.gone:
                continue
            try:
                buffers = [encode_task(task) for task in made]
            except Exception as error:
                answer, buffers = Answer(answer.number, error=packed_error(_unsendable(error))), []
            made = []
            with contextlib.suppress(OSError):  # the worker is gone; its sources are run again
                client.channel.send(answer, buffers)
            del buffers


def _unsendable(error: Exception) -> CuratorError:
    return CuratorError(
        f"the output of a stage on the GPU cannot be sent to a worker process ({error}); run with workers=0, which "
        "sends nothing"
    )


def share_of_memory(memory_gb: float, workers: int) -> int:
    """The number of bytes that each worker may have in requests, so that all requests take only a part of memory."""
    return max(1 << 20, min(AHEAD_BYTES, int(memory_gb * 2**30) // 8 // max(1, workers)))
