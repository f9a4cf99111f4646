"""Worker processes on this machine, each over a socket of its own: hand out, take back, and replace the dead."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import cloudpickle

from curator_core.accounts.events import FAILED, Event
from curator_core.accounts.ledger import LedgerWriter, MemorySink
from curator_core.accounts.reject_rows import RejectRow
from curator_core.errors import UsageError, WorkerDied
from curator_core.executors.base import SegmentRun
from curator_core.model.codec import by_value, decode_task, encode_task
from curator_core.model.machine import available_cpus, device_order
from curator_core.model.recorder import Reject
from curator_core.model.stage import overrides
from curator_core.model.task import Task

MAX_DEATHS = 3
CHUNK_SECONDS = 0.05  # how much work one message should carry
MAX_CHUNK = 512
CHUNK_BYTES = 4 << 20  # and how many bytes, so that many small tasks travel together and large ones alone
# A message that waits while the worker is busy must fit into the socket's buffer: if the driver blocked on sending it
# while the worker blocked on sending a result, both would wait for ever.
AHEAD_BYTES = 32 << 10
STOP_SECONDS = 5.0
# A Ctrl-C that comes in the instant before a wait is heard when the wait is over, so no wait is long.
WAKE_SECONDS = 1.0


def _packed(run: SegmentRun) -> bytes:
    """What a worker needs to know, the stages included."""
    try:
        with by_value(*(kind for planned in run.stages for kind in type(planned.stage).__mro__)):
            return bytes(cloudpickle.dumps((run.stages, run.context, run.ending, run.folder)))
    except Exception as error:
        for planned in run.stages:
            try:
                cloudpickle.dumps(planned)
            except Exception as cause:
                raise UsageError(
                    f"stage {planned.name!r} cannot be sent to a worker process: {cause}. What a stage opens or loads "
                    "(a file, a lock, a connection, a model) belongs into its setup(); workers=0 sends nothing"
                ) from error
        raise


@dataclass
class _Worker:
    number: int
    process: subprocess.Popen[bytes]
    connection: Connection
    marker: int  # a file in which the worker says which source it is on
    card: str | None = None  # the GPUs it sees, where stages need one
    ready: bool = False
    outstanding: deque[list[int]] = field(default_factory=deque)
    held: tuple[list[int], bytes] | None = None  # the next chunk, too large to be sent ahead
    undurable: set[int] = field(default_factory=set)
    flushing: bool = False


class _Pool:
    """Worker processes for one segment, and the bookkeeping of which source is where."""

    def __init__(self, run: SegmentRun, size: int, cards: list[str] | None = None) -> None:
        self.run = run
        self.size = size
        self.cards = cards[:size] if cards else None  # GPUs that no worker has
        self.workers: list[_Worker] = []
        self.source: dict[int, Task[Any]] = {}  # sources that are not durably finished
        self.queue: deque[int] = deque()
        self.alone: set[int] = set()  # sources to be sent one by one, after a death
        self.deaths: dict[int, int] = {}
        self.finished: set[int] = set()
        self.next_index = 0
        self.exhausted = False
        self.started = 0
        self.seconds_per_source = 0.0
        # Where nothing is to be done once for the machine, no worker waits for the first.
        self.node_ready = not any(overrides(planned.stage, "setup_on_node") for planned in run.stages)
        self.payload = _packed(run)
        self.sink: LedgerWriter | MemorySink | None = None

    def __enter__(self) -> _Pool:
        try:
            for _ in range(self.size):
                self._start()
        except BaseException:
            self._kill_all()
            raise
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                self._stop_all()
        finally:
            self._kill_all()
            if self.sink is not None:
                self.sink.flush()

    # Processes ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * AHEAD_BYTES)
        with tempfile.TemporaryFile() as file:
            marker = os.dup(file.fileno())
        os.pwrite(marker, struct.pack("<q", -1), 0)
        environment = dict(os.environ)
        card = self.cards.pop(0) if self.cards else None
        if card is not None:
            environment |= {"CUDA_VISIBLE_DEVICES": card, **device_order()}
        command = [
            sys.executable,
            "-m",
            "curator_core.executors.local_worker",
            str(theirs.fileno()),
            str(marker),
            str(os.getpid()),
        ]
        try:
            process = subprocess.Popen(
                command, pass_fds=(theirs.fileno(), marker), stdin=subprocess.DEVNULL, env=environment
            )
        finally:
            theirs.close()
        worker = _Worker(self.started, process, Connection(ours.detach()), marker, card)
        self.started += 1
        self.workers.append(worker)
        share = max(1, int(available_cpus()) // self.size)
        worker.connection.send_bytes(json.dumps({"path": sys.path, "threads": share, "card": card}).encode())
        if self.node_ready or len(self.workers) == 1:
            self._set_up(worker)

    def _set_up(self, worker: _Worker) -> None:
        first = not self.node_ready  # the others come when it is ready
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            worker.connection.send_bytes(cloudpickle.dumps((self.payload, first, f"local-{worker.number}")))

    def _stop_all(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(OSError):
                worker.connection.send_bytes(b"stop")
        failure: BaseException | None = None
        for worker in self.workers:
            try:
                while True:
                    kind, value = cloudpickle.loads(worker.connection.recv_bytes())
                    if kind == "error":
                        failure = failure or value[1]
                    elif kind == "stopped":
                        break
            except (EOFError, OSError):
                pass
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(STOP_SECONDS)
        if failure is not None:
            raise failure

    def _kill_all(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.terminate()  # the worker removes what it was writing
        deadline = time.monotonic() + STOP_SECONDS
        for worker in self.workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.connection.close()
            with contextlib.suppress(OSError):
                os.close(worker.marker)
        self.workers = []

    # Sources -----------------------------------------------------------------------------------------------------

    def results(self) -> Iterator[Task[Any]]:
        while True:
            self._feed()
            if self.exhausted and not self.queue and not self.source:
                return
            for ready in wait([worker.connection for worker in self.workers], WAKE_SECONDS):
                worker = next(w for w in self.workers if w.connection is ready)
                try:
                    message = worker.connection.recv_bytes()
                except (EOFError, OSError):
                    self._buried(worker)
                    continue
                yield from self._take(worker, *cloudpickle.loads(message))

    def _feed(self) -> None:
        for worker in self.workers:
            while worker.ready and len(worker.outstanding) < 2:
                busy = bool(worker.outstanding)
                chunk, message = worker.held or self._next_chunk(busy)
                if not chunk and not busy:
                    chunk, message = self._take_over()
                if not chunk:
                    break
                worker.held = (chunk, message) if busy and len(message) > AHEAD_BYTES else None
                if worker.held:
                    break
                worker.outstanding.append(chunk)
                try:
                    worker.connection.send_bytes(message)
                except OSError:
                    break  # it died; the wait below tells
            if worker.ready and not worker.outstanding and worker.undurable and not worker.flushing:
                worker.flushing = True
                with contextlib.suppress(OSError):
                    worker.connection.send_bytes(b"flush")

    def _next_chunk(self, busy: bool) -> tuple[list[int], bytes]:
        """Sources for a worker, and the message that carries them."""
        if self.exhausted and self.queue and self.queue[0] in self.alone:
            # Nothing else may be with a source that has killed a worker: it would be blamed.
            chunk = [] if busy else [self.queue.popleft()]
            return chunk, cloudpickle.dumps([self._encoded(index) for index in chunk])
        size = 1
        if self.seconds_per_source:
            size = max(1, min(MAX_CHUNK, int(CHUNK_SECONDS / self.seconds_per_source)))
        parts: list[tuple[int, bytes]] = []
        total = 0
        while len(parts) < size and total < CHUNK_BYTES:
            if self.queue and self.queue[0] not in self.alone:
                index = self.queue.popleft()
            else:
                # A source under suspicion waits until there are no others: it may cost another worker.
                task = None if self.exhausted else next(self.run.tasks, None)
                if task is None:
                    self.exhausted = True
                    break
                index = self.next_index
                self.source[index] = task
                self.next_index += 1
            parts.append(self._encoded(index))
            total += len(parts[-1][1])
        if not parts and self.queue:
            return self._next_chunk(busy)  # the last of the sources has just been listed
        return [index for index, _ in parts], cloudpickle.dumps(parts)

    def _take_over(self) -> tuple[list[int], bytes]:
        """What waits for a busy worker, for one that has nothing to do."""
        for other in self.workers:
            if other.held:
                held, other.held = other.held, None
                return held
        return [], b""

    def _encoded(self, index: int) -> tuple[int, bytes]:
        task = self.source[index]
        try:
            return index, memoryview(encode_task(task)).tobytes()
        except Exception as error:
            raise UsageError(
                f"source {task.task_id!r} cannot be sent to a worker process: {error}. Give paths or tables, or run "
                "with workers=0"
            ) from error

    def _take(self, worker: _Worker, kind: str, value: Any) -> Iterator[Task[Any]]:
        if kind == "node ready":  # the others load their models beside the first, not after it
            self.node_ready = True
            for other in self.workers:
                if other is not worker:
                    self._set_up(other)
        elif kind == "ready":
            worker.ready = True
        elif kind == "result":
            yield decode_task(value)
        elif kind == "chunk":
            seconds, tally, facts, durable = value
            chunk = worker.outstanding.popleft()
            each = seconds / len(chunk)
            self.seconds_per_source = each if not self.seconds_per_source else (self.seconds_per_source + each) / 2
            if facts is not None:
                self.run.collect(facts)
            new = [index for index in chunk if index not in self.finished]
            self.finished.update(new)
            worker.undurable.update(chunk)
            if durable:
                self._durable(worker)
            self.run.progress(len(new), tally)
        elif kind == "durable":
            worker.flushing = False
            if not worker.outstanding:
                self._durable(worker)
        elif kind == "error":
            _, error = value
            raise error

    def _durable(self, worker: _Worker) -> None:
        for index in worker.undurable:
            self.source.pop(index, None)
        worker.undurable.clear()

    # Deaths ------------------------------------------------------------------------------------------------------

    def _buried(self, worker: _Worker) -> None:
        """A worker is gone: start another, and queue again what it had not finished for good."""
        code = worker.process.wait()
        (current,) = struct.unpack("<q", os.pread(worker.marker, 8, 0))
        worker.connection.close()
        os.close(worker.marker)
        self.workers.remove(worker)
        if self.cards is not None and worker.card is not None:
            self.cards.append(worker.card)
        if not worker.ready:
            raise WorkerDied(
                f"a worker ended while its stages were being set up ({_how(code)}): set-up itself crashes or needs more "
                "memory than there is; run with workers=0 to see where"
            )
        waiting = [index for chunk in worker.outstanding for index in chunk]
        held = worker.held[0] if worker.held else []
        lost = [index for index in (*waiting, *sorted(worker.undurable), *held) if index in self.source]
        if current in self.source and current in waiting:
            self.deaths[current] = self.deaths.get(current, 0) + 1
            self.alone.add(current)
            if self.deaths[current] >= MAX_DEATHS:
                lost.remove(current)
                self._give_up(current, code)
        for index in reversed(lost):
            self.queue.appendleft(index)
        # A source under suspicion waits until the others are through.
        self.queue = deque([i for i in self.queue if i not in self.alone] + [i for i in self.queue if i in self.alone])
        self._start()

    def _give_up(self, index: int, code: int) -> None:
        task = self.source.pop(index)
        reason = (
            f"its worker died {MAX_DEATHS} times while it was at work on it ({_how(code)}): a crash in native code, or "
            "more memory than there is"
        )
        error = WorkerDied(f"source {task.task_id!r}: {reason}")
        context = self.run.context
        if context.on_error == "fail":
            raise error
        if self.sink is None:
            self.sink = context.open_sink()
        stage = self.run.stages[0].name if self.run.stages else ""
        files = ", ".join(getattr(task, "data", None) or []) if isinstance(getattr(task, "data", None), list) else ""
        self.sink.reject(
            RejectRow(
                "quarantine",
                task._source,
                task._generation,
                context.attempt,
                task.task_id,
                stage,
                Reject("WorkerDied", files, f"task {task.task_id}", str(error), None, 0),
            )
        )
        self.sink.event(
            Event(FAILED, task._source, task.task_id, task._generation, context.attempt, 0, stage, str(error))
        )
        self.sink.flush()
        if isinstance(self.sink, MemorySink):
            self.run.collect(self.sink.take())
        self.finished.add(index)
        self.run.progress(1, [])


def _how(code: int) -> str:
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"{name}, as the kernel sends when memory runs out" if code == -signal.SIGKILL else name
    return f"exit code {code}"
