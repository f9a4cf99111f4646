"""A worker process of LocalExecutor: it reads sources from a socket, runs them, and answers; it ends when its driver
ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from curator_core.executors.parent import end_with_parent

if TYPE_CHECKING:
    from curator_core.executors import local_gpu, shared_blocks
    from curator_core.executors import local_protocol as protocol
    from curator_core.worker.group import GroupRunner

# Sources that finish within this time are reported together.
REPORT_SECONDS = 0.05
# A worker that holds more than this after its stages were torn down runs no further segment.
KEEP_BYTES = 1 << 30


class Terminated(SystemExit):
    """SIGTERM was received; raising this removes partial files. No stage caused it, so no error policy applies."""


def serve(parent: int, connection: int, call_file: int, owner: int | None = None) -> None:
    """Be a worker of the driver at the other end of ``connection``, and end when the process ``parent`` ends.

    ``owner`` is the descriptor of the socket to the process that owns the GPU.
    """
    driver = Connection(connection)
    end_with_parent(parent)
    # Ctrl-C reaches the whole process group; the driver decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        start = json.loads(driver.recv_bytes())
        sys.path[:] = start["path"]  # before any import that depends on the driver's path
        _Worker(driver, call_file, start["card"], owner).work()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    from curator_core.leave import leave  # after the driver's path is set

    leave(0)


def _terminate(*_: object) -> None:
    raise Terminated(143)


class _Worker:
    """One worker, which sets up, runs and tears down one segment after the other."""

    def __init__(self, connection: Connection, call_file: int, card: str | None, owner: int | None) -> None:
        """``owner`` is the descriptor of the socket to the process that owns the GPU."""
        from curator_core.executors.local_protocol import CallFile

        self._connection = connection
        self._sending = threading.Lock()
        self._calls = CallFile(call_file)
        self._card = card
        self._owner_socket = owner
        self._owner: local_gpu.Owner | None = None
        self._server: local_gpu.Server | None = None
        self._runner: GroupRunner | None = None
        self._inbox: _Inbox | None = None
        # Sources that are finished but not yet reported.
        self._done: list[int] = []
        self._began = time.perf_counter()

    def work(self) -> None:
        from curator_core.executors import local_gpu
        from curator_core.executors import local_protocol as protocol

        self._inbox = _Inbox(self._connection, self._answer)
        try:
            while not isinstance(message := self._inbox.take(wait=True), protocol.Stop):
                # A worker that has waited for another to set up the machine may get no sources.
                if isinstance(message, protocol.SetUp):
                    self._set_up(message)
                    self._work_segment()
                elif isinstance(message, protocol.SetUpOwner):
                    self._serve(message)
                    self._tear_down()
                self._answer(protocol.Resting(_is_large()))
        except local_gpu.OwnerGone:
            # The driver also detects this, and ends this process when it knows the cause.
            self._runner = None
            self._answer(protocol.OwnerLost())
            self._inbox.take_end()
        except Exception as error:
            self._fail(error)
        finally:
            self._tear_down()
        self._answer(protocol.Stopped())

    def _work_segment(self) -> None:
        from curator_core.executors import local_protocol as protocol

        while not isinstance(message := self._next(), protocol.Rest):
            if isinstance(message, protocol.Source):
                self._run(message)
            else:
                assert isinstance(message, protocol.Flush)
                self._group().flush()
                self._answer(protocol.Durable())
        self._tear_down()
        signal.signal(signal.SIGTERM, _terminate)

    def _set_up(self, order: protocol.SetUp) -> None:
        import cloudpickle
        import pyarrow as pa

        from curator_core.executors.blas_threads import limit_blas_threads
        from curator_core.executors.local_protocol import NodeReady, Ready
        from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
        from curator_core.model.machine import gpu_numbers
        from curator_core.worker.group import GroupRunner

        pa.set_cpu_count(order.threads)
        stages, context, ending, folder = cloudpickle.loads(order.packed)
        limit_blas_threads(order.threads)
        worker = WorkerMetadata(order.worker_id, gpu_numbers((self._card or "").split(",")))
        runner = self._runner = GroupRunner(stages, context, ending=ending, folder=folder, calls=self._calls)
        if order.owned:
            self._leave_to_owner(runner, order)
        if order.node_first:
            runner.setup_on_node(NodeInfo(), worker)
            self._answer(NodeReady())
        runner.setup(worker)
        self._answer(Ready())

    def _leave_to_owner(self, runner: GroupRunner, order: protocol.SetUp) -> None:
        """Replace the stages that the owner of the GPU runs by one that sends it the tasks."""
        import socket

        from curator_core.accounts.ledger import LedgerWriter
        from curator_core.executors.local_gpu import OwnedGroup, Owner
        from curator_core.executors.shared_blocks import Channel

        owner = self._owner = Owner(Channel(socket.socket(fileno=self._owner_socket)), order.ahead_bytes)
        if isinstance(runner.sink, LedgerWriter):
            # The owner's records of the same tasks must be durable before the events of this worker.
            runner.sink.before_flush = owner.make_durable
        adapters: list[Any] = list(runner.adapters)
        for group, (first, last) in reversed(list(enumerate(order.owned))):
            adapters[first:last] = [OwnedGroup(runner, first, last, group, owner)]
        runner.adapters = adapters

    def _serve(self, order: protocol.SetUpOwner) -> None:
        """Own the GPU: run the tasks that workers send, until the driver sends another message."""
        import cloudpickle
        import pyarrow as pa

        from curator_core.executors.blas_threads import limit_blas_threads
        from curator_core.executors.local_gpu import Server
        from curator_core.executors.local_protocol import NodeReady, Ready
        from curator_core.model.engine_facts import WorkerMetadata
        from curator_core.model.machine import gpu_numbers

        assert self._inbox is not None
        pa.set_cpu_count(order.threads)
        groups, context = cloudpickle.loads(order.packed)
        limit_blas_threads(order.threads)
        worker = WorkerMetadata(order.worker_id, gpu_numbers((self._card or "").split(",")))
        server = self._server = Server(groups, context, self._calls, self._answer)
        if order.node_first:
            server.setup_on_node(worker)
            self._answer(NodeReady())
        server.setup(worker)
        self._inbox.hand_clients_to(server)
        self._answer(Ready())
        server.serve()
        self._inbox.take(wait=True)  # the message that ended it is Rest

    def _next(self) -> Any:
        """The next message. Finished sources are reported before the worker waits, and now and then in between."""
        assert self._inbox is not None
        if self._done and time.perf_counter() - self._began >= REPORT_SECONDS:
            self._report()
        message = self._inbox.take(wait=not self._done)
        if message is None:
            self._report()
            message = self._inbox.take(wait=True)
        if not self._done:
            self._began = time.perf_counter()
        return message

    def _run(self, source: protocol.Source) -> None:
        from curator_core.accounts.ledger import LedgerWriter
        from curator_core.executors.local_protocol import Result
        from curator_core.model.codec import decode_task
        from curator_core.worker.calls import NO_CARE

        self._calls.source(source.index)
        if self._owner is not None:
            self._owner.source = source.index
        try:
            task = decode_task(source.data)
            about = task._source, task._generation
            stream = self._group().run([task], source.care or NO_CARE)
            del task
            for result in stream:
                result._pending, result._outputs = [], []
                self._answer(Result(_encoded(result)))
        except Exception:
            self._group().flush()
            raise
        if isinstance(sink := self._group().sink, LedgerWriter):
            sink.through(*about)
        self._calls.source()
        self._done.append(source.index)

    def _report(self) -> None:
        from curator_core.accounts.ledger import LedgerWriter, MemorySink
        from curator_core.executors.local_protocol import Done

        done, self._done = self._done, []
        seconds = time.perf_counter() - self._began
        sink = self._group().sink
        if isinstance(sink, MemorySink):
            events = sink.take()
            counts = [count for event in events for count in event.counts]
            self._answer(Done(done, seconds, counts, events, True))
        else:
            assert isinstance(sink, LedgerWriter)
            durable = sink.due()
            if durable:
                sink.flush()
            self._answer(Done(done, seconds, sink.take_counts(), [], durable))

    def _fail(self, error: BaseException) -> None:
        from curator_core.executors.local_protocol import Failed
        from curator_core.worker.sending import packed_error

        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the driver will end this worker; it is torn down first
        self._answer(Failed(packed_error(error)))

    def _tear_down(self) -> None:
        from curator_core.executors.local_gpu import OwnerGone

        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a worker that hangs here is killed after a few seconds
        runner, self._runner = self._runner, None
        server, self._server = self._server, None
        self._owner = None
        if server is not None:
            try:
                server.teardown()
            except Exception as error:
                self._fail(error)
        if runner is None:
            return
        try:
            runner.teardown()
        except Exception as error:
            self._fail(error)
        with contextlib.suppress(OwnerGone):  # its work since the last flush is then done again
            runner.flush()

    def _group(self) -> GroupRunner:
        assert self._runner is not None
        return self._runner

    def _answer(self, message: Any) -> None:
        from curator_core.executors.local_protocol import send

        with self._sending:
            send(self._connection, message)


class _Inbox:
    """Messages that the worker has not begun. A thread receives them, so that the driver need not wait for a stage to
    end before it can send sources or take some back.
    """

    def __init__(self, connection: Connection, answer: Any) -> None:
        self._connection = connection
        self._answer = answer
        self._waiting: deque[Any] = deque()
        self._changed = threading.Condition()
        self._ended: BaseException | None = None
        self._server: local_gpu.Server | None = None
        self._clients: list[shared_blocks.Channel] = []  # sockets that arrived before there was a server for them
        threading.Thread(target=self._read, name="curator-inbox", daemon=True).start()

    def take(self, wait: bool) -> Any:
        """The next message, one source at a time; None if there is none and ``wait`` is false."""
        with self._changed:
            while wait and not self._waiting and self._ended is None:
                self._changed.wait()
            if self._waiting:
                return self._waiting.popleft()
            if self._ended is not None:
                raise self._ended
            return None

    def take_end(self) -> None:
        """Wait until the driver is gone or ends this process; there is nothing else to do."""
        with self._changed:
            while self._ended is None:
                self._changed.wait()

    def hand_clients_to(self, server: local_gpu.Server) -> None:
        """Pass the sockets of new workers to ``server`` from now on, until any other message ends it."""
        with self._changed:
            self._server = server
            for client in self._clients:
                server.connect(client)
            if self._waiting or self._ended is not None:
                server.end()

    def _add_client(self) -> None:
        import socket
        from multiprocessing.reduction import recv_handle

        from curator_core.executors.shared_blocks import Channel

        client = Channel(socket.socket(fileno=recv_handle(self._connection)))
        with self._changed:
            if self._server is None:
                self._clients.append(client)
            else:
                self._server.connect(client)

    def _read(self) -> None:
        from curator_core.executors import local_protocol as protocol

        try:
            while True:
                message = protocol.receive(self._connection)
                if isinstance(message, protocol.Client):
                    self._add_client()
                    continue
                with self._changed:
                    if isinstance(message, protocol.TakeBack):
                        back = self._give_back(message.parts)
                    else:
                        self._waiting.extend(message.sources if isinstance(message, protocol.Work) else [message])
                        if self._server is not None:
                            self._server.end()
                        self._changed.notify_all()
                        continue
                self._answer(protocol.GivenBack(back))
        except (EOFError, OSError) as error:
            with self._changed:
                self._ended = error if isinstance(error, EOFError) else EOFError()
                if self._server is not None:
                    self._server.end()
                self._changed.notify_all()

    def _give_back(self, parts: int) -> list[int]:
        """Give back the last of the sources that wait; this worker keeps its share, rounded down."""
        from curator_core.executors.local_protocol import Source

        back = []
        for _ in range(len(self._waiting) - len(self._waiting) // parts):
            if isinstance(self._waiting[-1], Source):
                back.append(self._waiting.pop().index)
        return back[::-1]


def _is_large() -> bool:
    """Whether this process holds much memory although its stages were torn down, for example because a library caches a
    model.
    """
    if _resident_bytes() <= KEEP_BYTES // 2:
        return False
    import gc

    import pyarrow as pa

    pool = pa.default_memory_pool()
    pool.release_unused()
    if _resident_bytes() <= KEEP_BYTES:
        return False
    # A garbage collection visits all objects of all modules, which takes longer than some steps, so it runs only here.
    gc.collect()
    pool.release_unused()
    return _resident_bytes() > KEEP_BYTES


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a constant path
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no Linux
        return 0


def _encoded(result: Any) -> bytes:
    from curator_core.errors import UsageError
    from curator_core.model.codec import encode_task

    try:
        return memoryview(encode_task(result)).tobytes()
    except Exception as error:
        raise UsageError(
            f"the result {result.task_id!r} cannot be sent from its worker process to the driver: {error}. End the "
            "pipeline with a table or a writer, or run with workers=0"
        ) from error


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))
