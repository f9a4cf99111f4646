"""The worker processes on this machine, each with its own socket: hand out work, take it back, and replace dead
workers.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import send_handle
from typing import Any

from curator_core.accounts.ledger import LedgerWriter, MemorySink
from curator_core.errors import CuratorError, TaskTimeout, UsageError, WorkerDied
from curator_core.executors import local_protocol as protocol
from curator_core.executors.base import SegmentRun
from curator_core.executors.local_gpu import share_of_memory
from curator_core.executors.local_template import Forked, template
from curator_core.model.codec import decode_task, encode_task
from curator_core.model.machine import available_cpus, device_order
from curator_core.model.stage import overrides
from curator_core.model.task import Task
from curator_core.worker.calls import NO_CARE, Care
from curator_core.worker.group import GroupRunner
from curator_core.worker.sending import packed_stages, unpacked_error

MAX_DEATHS = 3
CHUNK_SECONDS = 0.05  # the work that one message should contain
MAX_CHUNK = 512
CHUNK_BYTES = 4 << 20  # and its bytes, so that many small tasks are sent together and large ones alone
STOP_SECONDS = 5.0
# A Ctrl-C just before a wait is noticed only after the wait, so no wait is long.
WAKE_SECONDS = 1.0


@dataclass(eq=False)
class _Process:
    """A worker's process and its connection. ``made_for`` are the surroundings that it was started in."""

    popen: subprocess.Popen[bytes] | Forked
    connection: Connection
    call_file: int  # the worker records its current call there
    made_for: object

    @classmethod
    def start(cls, card: str | None, owner: socket.socket | None = None) -> _Process:
        """``card`` names the GPUs that the process may use. ``owner`` is its end of a socket to the process that owns a
        GPU.
        """
        ours, theirs = socket.socketpair()
        call_file = protocol.new_call_file()
        environment = dict(os.environ)
        made_for = surroundings()
        if card is not None:
            environment |= {"CUDA_VISIBLE_DEVICES": card, **device_order()}
        descriptors = [theirs.fileno(), call_file, *([owner.fileno()] if owner is not None else [])]
        try:
            source = template()
            popen = _interpreter(descriptors, environment) if source is None else source.fork(descriptors, environment)
        finally:
            theirs.close()
        process = cls(popen, Connection(ours.detach()), call_file, made_for)
        with contextlib.suppress(OSError):  # the worker died, which the next wait detects
            process.connection.send_bytes(json.dumps({"path": sys.path, "card": card}).encode())
        return process

    def close(self) -> None:
        """Close the descriptors of a process that has ended."""
        self.connection.close()
        if isinstance(self.popen, Forked):
            self.popen.close()
        with contextlib.suppress(OSError):
            os.close(self.call_file)


def _interpreter(descriptors: Sequence[int], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A worker that is not forked."""
    numbers = map(str, [os.getpid(), *descriptors])
    command = [sys.executable, "-m", "curator_core.executors.local_worker", *numbers]
    return subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL, env=environment)


def surroundings() -> object:
    """What a worker inherits when it starts: the module path, the working folder, the environment, and the thread that
    started it; the kernel ends the worker when this thread ends.
    """
    return threading.get_ident(), list(sys.path), os.getcwd(), dict(os.environ)  # noqa: PTH109 - only compared


class Spares:
    """Workers that wait for a segment: they have finished another one, or were started ahead of the first."""

    def __init__(self) -> None:
        self._processes: list[_Process] = []
        self._unused: set[_Process] = set()  # those that have not been used yet

    def start(self, number: int) -> None:
        """Start processes until there are this many: they import the modules of every worker while the driver makes a
        plan.
        """
        for _ in range(number - len(self._processes)):
            self._processes.append(process := _Process.start(None))
            self._unused.add(process)

    def add(self, processes: list[_Process]) -> None:
        self._processes += processes

    def take(self) -> _Process | None:
        """A live worker whose surroundings are the current ones; None if there is none."""
        while self._processes:
            process = self._processes.pop(0)
            self._unused.discard(process)
            if process.popen.poll() is None and process.made_for == surroundings():
                return process
            kill_all([process])
        return None

    def close(self) -> None:
        """End all of them."""
        processes, self._processes = self._processes, []
        # Unused processes are killed: they may still be importing, and have nothing to tear down.
        stop_all([process for process in processes if process not in self._unused])
        kill_all(processes)


def stop_all(processes: list[_Process]) -> None:
    """Ask idle workers to end, and wait for a short time."""
    for process in processes:
        with contextlib.suppress(OSError):
            protocol.send(process.connection, protocol.Stop())
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.popen.wait(STOP_SECONDS)


def kill_all(processes: list[_Process]) -> None:
    """End workers, whatever they are doing."""
    for process in processes:
        if process.popen.poll() is None:
            process.popen.terminate()  # the worker removes its partial files
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        try:
            process.popen.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.popen.kill()
            process.popen.wait()
        process.close()


@dataclass(eq=False)
class _Worker:
    number: int
    process: _Process
    card: str | None = None  # the GPUs that it may use, if stages need one
    ready: bool = False
    outstanding: dict[int, None] = field(default_factory=dict)  # sources that were sent but are not finished, in order
    undurable: set[int] = field(default_factory=set)
    flushing: bool = False
    asked: bool = False  # whether it was asked to give sources back; nothing is sent before it answers
    spent: bool = False  # whether it had nothing to give back, and has not finished a source since
    late: protocol.CurrentCall | None = None  # the call that exceeded its time, for which it was ended
    spare: bool = False  # whether it has run another segment before
    setting_up: bool = False
    owner: _Owner | None = None  # the process that runs the stages that use a GPU
    lost_owner: bool = False  # it is ended because its owner died, so its current call is not to blame

    @property
    def connection(self) -> Connection:
        return self.process.connection


@dataclass(eq=False)
class _Owner:
    """The process that owns a GPU, or several."""

    number: int
    process: _Process
    card: str
    ready: bool = False
    late: protocol.CurrentCall | None = None  # the call that exceeded its time, for which it was ended


@dataclass
class _Suspect:
    """The record of a source on which a worker has died or run out of time."""

    # The deaths by stage and task; those outside of any stage have an empty stage.
    deaths: dict[tuple[str, str], int] = field(default_factory=dict)
    care: Care = NO_CARE


class Pool:
    """Worker processes for one segment, and the record of which source each has.

    Workers that an earlier segment has left in ``spares`` are taken first, and workers are put back there at the end.
    """

    def __init__(
        self,
        run: SegmentRun,
        size: int,
        cards: list[str] | None = None,
        spares: Spares | None = None,
        owned: Sequence[int] = (),
        memory_gb: float = 0.0,
    ) -> None:
        """``cards`` are the GPUs of each worker or, if some groups are ``owned``, of each process that runs these
        groups.

        Requests to these processes take only a part of ``memory_gb``.
        """
        self.ahead_bytes = share_of_memory(memory_gb, size) if owned else 0
        self.run = run
        self.size = size
        self.owners: list[_Owner] = []
        self.owners_started = 0
        self.owner_deaths = 0  # consecutive deaths that happened outside of any call
        self.lost_processes = 0  # those that ended with the process that they were forked from
        self.owned_groups = [run.groups[index] for index in owned]
        self.owned = _places(run, owned)
        self.owner_cards = (cards or []) if owned else []
        if owned:
            cards = spares = None
        self.cards = cards[:size] if cards else None  # GPUs that no worker has
        self.spares = None if cards else spares  # a worker cannot change its GPUs
        self.workers: list[_Worker] = []
        self.source: dict[int, Task[Any]] = {}  # sources that are not durably finished
        self.queue: deque[int] = deque()
        self.suspects: dict[int, _Suspect] = {}  # sources to send last and one by one
        self.finished: set[int] = set()
        self.next_index = 0
        self.exhausted = False
        self.started = 0
        self.seconds_per_source = 0.0
        # Workers wait for the first one only if a setup runs once per machine.
        here = [p for number, group in enumerate(run.groups) if number not in owned for p in group.stages]
        self.node_ready = not any(overrides(planned.stage, "setup_on_node") for planned in here)
        there = [planned for group in self.owned_groups for planned in group.stages]
        self.owners_ready = not any(overrides(planned.stage, "setup_on_node") for planned in there)
        self.packed_owned = packed_stages(there, (self.owned_groups, run.context)) if owned else b""
        self.limits = {p.name: p.stage.task_timeout_s for p in run.stages if p.stage.task_timeout_s is not None}
        self.packed = packed_stages(run.stages, (run.stages, run.context, run.ending, run.folder))
        self.sink: LedgerWriter | MemorySink | None = None

    def __enter__(self) -> Pool:
        try:
            for card in self.owner_cards:
                self._start_owner(card)
            for _ in range(self.size):
                self._start()
        except BaseException:
            self._kill_all()
            raise
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                self._rest_all()
        finally:
            self._kill_all()
            if self.sink is not None:
                self.sink.flush()

    # Processes ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        card = self.cards.pop(0) if self.cards else None
        spare = self.spares.take() if self.spares is not None else None
        owner = self._least_used_owner()
        process = spare or (_Process.start(card) if owner is None else self._start_client(owner))
        self.workers.append(worker := _Worker(self.started, process, card, spare=spare is not None, owner=owner))
        self.started += 1
        if self.node_ready or not any(other.setting_up for other in self.workers):
            self._set_up(worker)

    def _set_up(self, worker: _Worker) -> None:
        worker.setting_up = True
        first = not self.node_ready  # the others are started when it is ready
        share = max(1, int(available_cpus()) // self.size)
        order = protocol.SetUp(self.packed, first, f"local-{worker.number}", share, self.owned, self.ahead_bytes)
        self._send(worker, order)

    def _start_owner(self, card: str) -> None:
        self.owners.append(owner := _Owner(self.owners_started, _Process.start(card), card))
        self.owners_started += 1
        if self.owners_ready or len(self.owners) == 1:
            self._set_up_owner(owner)

    def _set_up_owner(self, owner: _Owner) -> None:
        first = not self.owners_ready  # the others are started when it is ready
        share = max(1, int(available_cpus()) // self.size)
        order = protocol.SetUpOwner(self.packed_owned, first, f"local-gpu-{owner.number}", share)
        with contextlib.suppress(OSError):  # the worker died, which the next wait detects
            protocol.send(owner.process.connection, order)

    def _least_used_owner(self) -> _Owner | None:
        return min(self.owners, key=lambda owner: sum(w.owner is owner for w in self.workers), default=None)

    def _start_client(self, owner: _Owner) -> _Process:
        """Start a worker with a socket between it and the owner."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            with contextlib.suppress(OSError):  # the owner died, which the next wait detects
                protocol.send(owner.process.connection, protocol.Client())
                send_handle(owner.process.connection, theirs.fileno(), owner.process.popen.pid)
            return _Process.start(None, ours)

    def _send(self, worker: _Worker, message: Any) -> None:
        with contextlib.suppress(OSError):  # the worker died, which the next wait detects
            protocol.send(worker.connection, message)

    def _rest_all(self) -> None:
        """Let all workers tear their stages down and become spare."""
        for worker in self.workers:
            self._send(worker, protocol.Rest())
        failure: BaseException | None = None
        rested: list[_Worker] = []
        large: list[_Worker] = []
        for worker in self.workers:
            with contextlib.suppress(EOFError, OSError):
                while not isinstance(message := protocol.receive(worker.connection), protocol.Resting):
                    if isinstance(message, protocol.Failed):
                        failure = failure or unpacked_error(message.error)
                (large if message.large or self.spares is None else rested).append(worker)
        if failure is None:
            failure = self._rest_owners()
        if failure is not None:
            raise failure
        if self.spares is not None:
            self.spares.add([worker.process for worker in rested])
            self.workers = [worker for worker in self.workers if worker not in rested]
        stop_all([worker.process for worker in large])

    def _rest_owners(self) -> BaseException | None:
        """Let the owners tear their stages down, now that no worker needs them; return the first error."""
        failure: BaseException | None = None
        for owner in self.owners:
            with contextlib.suppress(OSError):
                protocol.send(owner.process.connection, protocol.Rest())
        for owner in self.owners:
            with contextlib.suppress(EOFError, OSError):
                while not isinstance(message := protocol.receive(owner.process.connection), protocol.Resting):
                    if isinstance(message, protocol.Failed):
                        failure = failure or unpacked_error(message.error)
                    elif isinstance(message, protocol.Done):
                        self.run.progress(0, message.counts)
        stop_all([owner.process for owner in self.owners])
        return failure

    def _kill_all(self) -> None:
        kill_all([worker.process for worker in self.workers] + [owner.process for owner in self.owners])
        self.workers, self.owners = [], []

    # Sources -----------------------------------------------------------------------------------------------------

    def results(self) -> Iterator[Task[Any]]:
        wake = min([WAKE_SECONDS, *(max(0.01, limit / 8) for limit in self.limits.values())])
        while True:
            self._feed()
            if self.exhausted and not self.queue and not self.source:
                return
            connections = [worker.connection for worker in self.workers]
            for ready in wait([*connections, *(owner.process.connection for owner in self.owners)], wake):
                owner = next((o for o in self.owners if o.process.connection is ready), None)
                if owner is not None:
                    self._listen_to(owner)
                    continue
                worker = next((w for w in self.workers if w.connection is ready), None)
                if worker is None:  # the worker was ended with its owner
                    continue
                try:
                    message = protocol.receive(worker.connection)
                except (EOFError, OSError):
                    self._replace_dead_worker(worker)
                    continue
                yield from self._take(worker, message)
            if self.limits:
                self._end_late_workers()

    def _feed(self) -> None:
        """Give every worker a source before any gets more; an idle worker gets sources that others have not begun."""
        ready = [worker for worker in self.workers if worker.ready and not worker.asked and worker.late is None]
        idle = [worker for worker in ready if not worker.outstanding and not self._hand_out(worker)]
        if idle:
            self._take_back(ready, len(idle))
        elif all(worker.outstanding for worker in self.workers):
            # Workers get a little more than their current source, so that none waits for the driver. No source is sent
            # beside a suspect, which may kill the worker.
            for worker in ready:
                if (
                    len(worker.outstanding) <= self._chunk_size()
                    and not worker.outstanding.keys() & self.suspects.keys()
                ):
                    self._hand_out(worker)
        for worker in idle:
            if worker.undurable and not worker.flushing:
                worker.flushing = True
                self._send(worker, protocol.Flush())

    def _hand_out(self, worker: _Worker) -> bool:
        """Send a worker its next sources; return False if there are none for it."""
        sources = self._next_sources(idle=not worker.outstanding)
        if sources:
            worker.spent = False
            worker.outstanding.update(dict.fromkeys(source.index for source in sources))
            self._send(worker, protocol.Work(sources))
        return bool(sources)

    def _take_back(self, ready: list[_Worker], idle: int) -> None:
        """Ask the worker with the most sources for some that it has not begun."""
        busy = [worker for worker in ready if len(worker.outstanding) > 1 and not worker.spent]
        if busy:
            worker = max(busy, key=lambda worker: len(worker.outstanding))
            worker.asked = True
            self._send(worker, protocol.TakeBack(idle + 1))

    def _chunk_size(self) -> int:
        """The number of sources to send in one message."""
        if not self.seconds_per_source:
            return 1
        return max(1, min(MAX_CHUNK, int(CHUNK_SECONDS / self.seconds_per_source)))

    def _next_sources(self, idle: bool) -> list[protocol.Source]:
        size, total = self._chunk_size(), 0
        sources: list[protocol.Source] = []
        while len(sources) < size and total < CHUNK_BYTES:
            if self.queue and self.queue[0] not in self.suspects:
                index = self.queue.popleft()
            else:
                # A suspect waits until there are no other sources, because it may kill another worker.
                task = None if self.exhausted else next(self.run.tasks, None)
                if task is None:
                    self.exhausted = True
                    break
                index = self.next_index
                self.source[index] = task
                self.next_index += 1
            sources.append(self._encoded(index))
            total += len(sources[-1].data)
        if not sources and idle and self.queue:
            return [self._encoded(self.queue.popleft())]
        return sources

    def _encoded(self, index: int) -> protocol.Source:
        task = self.source[index]
        suspect = self.suspects.get(index)
        try:
            return protocol.Source(index, memoryview(encode_task(task)).tobytes(), suspect.care if suspect else None)
        except Exception as error:
            raise UsageError(
                f"source {task.task_id!r} cannot be sent to a worker process: {error}. Give paths or tables, or run "
                "with workers=0"
            ) from error

    def _take(self, worker: _Worker, message: Any) -> Iterator[Task[Any]]:
        match message:
            case protocol.Result(data):
                yield decode_task(data)
            case protocol.Done():
                self._sources_done(worker, message)
            case protocol.GivenBack(indices):
                worker.asked, worker.spent = False, not indices
                for index in reversed(indices):
                    del worker.outstanding[index]
                    self.queue.appendleft(index)
            case protocol.Durable():
                worker.flushing = False
                if not worker.outstanding:
                    self._durable(worker)
            case protocol.NodeReady():  # the others load their models while the first one does
                self.node_ready = True
                for other in self.workers:
                    if other is not worker:
                        self._set_up(other)
            case protocol.Ready():
                worker.ready = True
            case protocol.OwnerLost():
                # Even if the owner is still alive, the worker can no longer use it, so it is killed; the next wait
                # detects that.
                if worker.owner in self.owners and worker.owner is not None:
                    worker.owner.process.popen.kill()
            case protocol.Failed(error):
                raise unpacked_error(error)

    def _listen_to(self, owner: _Owner) -> None:
        try:
            message = protocol.receive(owner.process.connection)
        except (EOFError, OSError):
            self._replace_dead_owner(owner)
            return
        match message:
            case protocol.NodeReady():
                self.owners_ready = True
                for other in self.owners:
                    if other is not owner:
                        self._set_up_owner(other)
            case protocol.Ready():
                owner.ready = True
            case protocol.Done():
                self.owner_deaths = 0
                self.run.progress(0, message.counts)
            case protocol.Failed(error):
                raise unpacked_error(error)

    def _sources_done(self, worker: _Worker, done: protocol.Done) -> None:
        if done.indices:
            each = done.seconds / len(done.indices)
            self.seconds_per_source = each if not self.seconds_per_source else (self.seconds_per_source + each) / 2
        for index in done.indices:
            del worker.outstanding[index]
        worker.spent = False
        if done.events:
            self.run.collect(done.events)
        new = [index for index in done.indices if index not in self.finished]
        self.finished.update(new)
        worker.undurable.update(done.indices)
        if done.durable:
            self._durable(worker)
        self.run.progress(len(new), done.counts)

    def _durable(self, worker: _Worker) -> None:
        for index in worker.undurable:
            self.source.pop(index, None)
        worker.undurable.clear()

    # Deaths ------------------------------------------------------------------------------------------------------

    def _end_late_workers(self) -> None:
        for worker in self.workers:
            if worker.outstanding and worker.late is None:
                call = protocol.read_call(worker.process.call_file)
                if call.deadline and time.monotonic() > call.deadline:
                    worker.late = call
                    worker.process.popen.kill()
        for owner in self.owners:
            call = protocol.read_call(owner.process.call_file)
            if owner.late is None and call.deadline and time.monotonic() > call.deadline:
                owner.late = call
                owner.process.popen.kill()

    def _replace_dead_owner(self, owner: _Owner) -> None:
        """Start another owner, and restart all workers that have sent tasks to the old one; these tasks are run again."""
        code = owner.process.popen.wait()
        call = owner.late or protocol.read_call(owner.process.call_file)
        owner.process.close()
        self.owners.remove(owner)
        if not owner.ready and not self._lost_template(owner.process):
            raise _dead_at_set_up(code)
        if call.index in self.source:
            self.owner_deaths = 0
            self._blame(call, code, late=owner.late is not None)
        else:
            self.owner_deaths += 1
            if self.owner_deaths >= MAX_DEATHS:
                raise WorkerDied(
                    f"the process that owns the GPU has died {self.owner_deaths} times while it was not working on a task "
                    f"({_how(code)})"
                )
        lost = [worker for worker in self.workers if worker.owner is owner]
        self._start_owner(owner.card)
        for worker in lost:
            worker.lost_owner = True
            worker.process.popen.kill()
            self._replace_dead_worker(worker)

    def _replace_dead_worker(self, worker: _Worker) -> None:
        """Start a replacement and requeue the sources that were not durable; pass a source that killed too many workers
        to the error policy.
        """
        code = worker.process.popen.wait()
        call = worker.late or protocol.read_call(worker.process.call_file)
        worker.process.close()
        self.workers.remove(worker)
        if self.cards is not None and worker.card is not None:
            self.cards.append(worker.card)
        innocent = worker.lost_owner or self._lost_template(worker.process)
        # A spare worker may have died while it had nothing to do.
        if not worker.ready and not worker.spare and not innocent:
            raise _dead_at_set_up(code)
        if not innocent and call.index in worker.outstanding and call.index in self.source:
            self._blame(call, code, late=worker.late is not None)
        lost = [index for index in (*worker.outstanding, *sorted(worker.undurable)) if index in self.source]
        for index in reversed(lost):
            self.queue.appendleft(index)
        self.queue = deque(sorted(self.queue, key=lambda index: index in self.suspects))
        self._start()

    def _lost_template(self, process: _Process) -> bool:
        """Whether the process ended with the one that it was forked from. If this happens again and again, it counts as its
        own death.
        """
        lost = isinstance(process.popen, Forked) and process.popen.lost
        self.lost_processes += lost
        return lost and self.lost_processes <= MAX_DEATHS * self.size

    def _blame(self, call: protocol.CurrentCall, code: int, late: bool) -> None:
        """Record the call that a worker died or was ended in; a call that is finally blamed goes to the error policy."""
        suspect = self.suspects.setdefault(call.index, _Suspect())
        source = self.source[call.index].task_id
        if call.tasks > 1:
            # Any of the tasks may be to blame, so next time each gets a call of its own.
            suspect.care = Care(suspect.care.alone | {call.stage}, suspect.care.aside)
            if late and self.run.context.on_error == "fail":
                raise TaskTimeout(call.stage, f"{call.task} and {call.tasks - 1} more", self.limits[call.stage])
            return
        key = (call.stage, call.task)
        error: CuratorError
        if late:
            error = TaskTimeout(call.stage, call.task, self.limits[call.stage])
        else:
            suspect.deaths[key] = deaths = suspect.deaths.get(key, 0) + 1
            if deaths < MAX_DEATHS:
                return
            # How the worker ended is only shown on the terminal: records must not depend on what an executor learns
            # about a death.
            how = _how(code) if self.run.context.on_error == "fail" else ""
            error = WorkerDied.of_task(call.task or source, deaths, call.stage, how)
        if self.run.context.on_error == "fail":
            raise error
        if call.stage and key not in suspect.care.aside:
            # The next worker that runs the source sets this task aside.
            suspect.care = Care(suspect.care.alone, {**suspect.care.aside, key: error})
        else:
            self._quarantine_source(call.index, error)

    def _quarantine_source(self, index: int, error: CuratorError) -> None:
        """Set a source aside in the driver: one that kills workers outside of any stage cannot be given to a worker."""
        task = self.source.pop(index)
        if self.sink is None:
            self.sink = self.run.context.open_sink()
        GroupRunner(self.run.stages, self.run.context, sink=self.sink).set_aside(task, error)
        counts = self.sink.take_counts() if isinstance(self.sink, LedgerWriter) else []
        self.sink.flush()
        if isinstance(self.sink, MemorySink):
            events = self.sink.take()
            counts = [count for event in events for count in event.counts]
            self.run.collect(events)
        self.finished.add(index)
        self.run.progress(1, counts)


def _places(run: SegmentRun, owned: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The range of each of these groups among all stages of the segment."""
    ends = list(itertools.accumulate(len(group.stages) for group in run.groups))
    return tuple((ends[index] - len(run.groups[index].stages), ends[index]) for index in owned)


def _dead_at_set_up(code: int) -> WorkerDied:
    return WorkerDied(
        f"a worker ended while its stages were being set up ({_how(code)}): the set-up crashes or needs more memory "
        "than the machine has; run with workers=0 to see where"
    )


def _how(code: int) -> str:
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"{name}, as the kernel sends when memory runs out" if code == -signal.SIGKILL else name
    return f"exit code {code}"
