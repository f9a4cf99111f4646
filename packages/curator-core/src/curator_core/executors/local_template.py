"""Which process are local workers forked from? One that imports what every worker needs, and does nothing else.

A worker that imports by itself takes half a second of processor time; a fork of a process that has imported everything
takes a few milliseconds. The template is a fresh interpreter, not a fork of the driver: it has no threads, locks or
modules of the user's program. It stays for later runs and ends with the thread that started it; its workers end with it.

The driver sends each request with the descriptors that the worker inherits. The template answers with the process id,
and later with the status of the worker that ended. An ended worker stays a zombie until the driver has closed its
record, so that no signal reaches another process with the same id.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recvfds, sendfds
from typing import Any

from curator_core.executors.parent import die_with_parent

# What a worker imports before its first source, except the modules of its stages.
MODULES = (
    "cloudpickle",
    "pyarrow.compute",
    "curator_core.accounts.ledger",
    "curator_core.executors.blas_threads",
    "curator_core.executors.local_gpu",
    "curator_core.executors.local_protocol",
    "curator_core.executors.local_worker",
    "curator_core.leave",
    "curator_core.worker.group",
    "curator_core.worker.sending",
)
# Variables with these names are read when a process starts or imports these modules; a worker sets all others.
READ_AT_START = (
    *("ARROW_", "GLIBC_", "GOTO_", "LANG", "LC_", "LD_", "MALLOC_", "MKL_", "NPY_", "NUMPY_", "OMP_", "OPENBLAS_"),
    *("PYTHON", "TZ"),
)
END_SECONDS = 1.0
WAIT_SECONDS = 1.0  # a Ctrl-C just before a wait is noticed after it


def template() -> Template | None:
    """The template for workers that the calling thread starts; None if workers are not forked on this system."""
    if sys.platform != "linux":  # libraries of other systems may not be used after a fork
        return None
    for place, other in list(_templates.items()):
        if not other.alive():
            other.end()
            _templates.pop(place, None)  # another thread may have done it
    here = os.getpid(), threading.get_native_id()
    kept = kept_from_start()
    found = _templates.get(here)
    if found is not None and found.made_for != kept:
        found.retire()
        found = None
    if found is None:
        found = _templates[here] = Template(kept)
    return found


_templates: dict[tuple[int, int], Template] = {}


def kept_from_start() -> object:
    """What a process has from its start and a fork cannot change, or should not."""
    import resource

    limits = [resource.getrlimit(kind) for kind in range(resource.RLIMIT_RTTIME + 1)]
    variables = {name: value for name, value in os.environ.items() if name.startswith(READ_AT_START)}
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123 - a constant path
        mask = next((line for line in file if line.startswith("Umask:")), "")
    return sys.executable, variables, limits, mask, os.sched_getaffinity(0), os.getpgrp(), os.nice(0)


class Template:
    """The driver's side: it requests workers, and knows which of them have ended."""

    def __init__(self, made_for: object) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", __name__, str(theirs.fileno()), str(os.getpid())]
        # No threads of numpy, because a fork does not copy them; each worker sets its number of threads.
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
        try:
            self._popen = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
            )
        finally:
            theirs.close()
        self._connection = Connection(ours.detach())
        self._lock = threading.RLock()
        self._workers: dict[int, Forked] = {}  # those that are not closed, by the number of their request
        self._requests = 0
        self._retired = False
        self._answered = False  # until then, it is importing
        self.made_for = made_for
        atexit.register(self.end)

    def alive(self) -> bool:
        """Whether the process lives, and is a child of this one."""
        return self._popen.poll() is None

    def fork(self, descriptors: Sequence[int], environment: dict[str, str]) -> Forked:
        """Request a worker with these descriptors (see `local_worker.serve`) and this environment, and with the streams
        and the working folder of this process.
        """
        with self._lock, open(os.devnull, "wb") as nothing:  # noqa: PTH123 - a constant path
            worker = self._workers[self._requests] = Forked(self, self._requests)
            self._requests += 1
            streams = [stream if _is_open(stream) else nothing.fileno() for stream in (1, 2)]
            inherited = [*streams, *descriptors]
            self._send(
                {
                    "worker": worker.number,
                    "environment": environment,
                    "folder": os.getcwd(),  # noqa: PTH109 - only its text is sent
                    "descriptors": len(inherited),
                },
                inherited,
            )
        return worker

    def retire(self) -> None:
        """End when the last worker has been closed."""
        with self._lock:
            self._retired = True
            if not self._workers:
                self.end()

    def end(self) -> None:
        """End the process, and the workers that are left."""
        atexit.unregister(self.end)
        with contextlib.suppress(OSError):
            self._connection.close()
        if not self._answered:
            self._popen.kill()  # a command that is refused does not wait for imports
        try:
            self._popen.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()

    def hear(self, timeout: float | None) -> None:
        """Take in what the process has reported, and wait for a report at most ``timeout`` seconds."""
        with self._lock:
            try:
                while self._connection.poll(timeout):
                    report = json.loads(self._connection.recv_bytes())
                    self._answered = True
                    worker = self._workers.get(report["worker"])
                    if worker is not None:
                        worker.known_pid = report.get("pid", worker.known_pid)
                        worker.returncode = report.get("code", worker.returncode)
                    timeout = 0.0
            except (EOFError, OSError):  # it has ended, and the kernel has killed its workers
                code = self._popen.wait()
                for worker in self._workers.values():
                    if worker.returncode is None:
                        worker.lost = code <= 0
                        worker.returncode = code if code > 0 else -int(signal.SIGKILL)

    def close(self, worker: Forked) -> None:
        """Forget a worker, which has ended or will end when it finds its connection closed."""
        with self._lock:
            if self._workers.pop(worker.number, None) is not None:
                self._send({"closed": worker.number})
            if self._retired and not self._workers:
                self.end()

    def _send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        with contextlib.suppress(OSError):  # it has ended, which `hear` detects
            self._connection.send_bytes(json.dumps(message).encode())
            if descriptors:
                with socket.socket(fileno=os.dup(self._connection.fileno())) as sender:
                    sendfds(sender, list(descriptors))


class Forked:
    """The process of a worker, with the methods of `subprocess.Popen` that are used."""

    def __init__(self, template: Template, number: int) -> None:
        self._template = template
        self.number = number
        self.known_pid: int | None = None
        self.returncode: int | None = None
        self.lost = False  # whether it ended because the template was killed

    @property
    def pid(self) -> int:
        """The process id, as soon as the template has told it; 0 if there is no process any more."""
        while self.known_pid is None and self.returncode is None:
            self._template.hear(WAIT_SECONDS)
        return self.known_pid or 0

    def poll(self) -> int | None:
        """How it ended; None if it has not."""
        if self.returncode is None:
            self._template.hear(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            left = WAIT_SECONDS if end is None else min(WAIT_SECONDS, end - time.monotonic())
            if left <= 0:
                assert timeout is not None
                raise subprocess.TimeoutExpired("a worker", timeout)
            self._template.hear(left)
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """Give the process id back to the system once the process has ended."""
        self._template.close(self)

    def _signal(self, number: signal.Signals) -> None:
        if self.poll() is not None:
            return
        if self.known_pid is None:
            # The template has not forked it yet, which may take as long as importing. It will find its connection closed.
            self.returncode = -int(number)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.known_pid, number)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


# In the template ---------------------------------------------------------------------------------------------------


def main() -> None:
    connection = Connection(int(sys.argv[1]))
    die_with_parent()
    if os.getppid() != int(sys.argv[2]):
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the driver decides
    for module in MODULES:
        importlib.import_module(module)
    # It occupies no folder of the user, and no stream whose end somebody may wait for.
    os.chdir("/")
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123 - a constant path
        os.dup2(nothing.fileno(), 2)
    # A collection of garbage in a worker does not touch these objects, so their memory stays shared.
    gc.collect()
    gc.freeze()
    ended, wake = socket.socketpair()
    for end in (ended, wake):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    serve = _Server(connection).run(ended)
    if serve is None:  # the driver is gone
        os._exit(0)
    for end in (ended, wake):
        end.close()
    serve()


class _Server:
    """The process that forks: it answers requests, and reports the workers that end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._alive: dict[int, int] = {}  # process ids, by number
        self._ended: dict[int, int] = {}  # those of zombies
        self._closed: set[int] = set()  # numbers of live processes that the driver has forgotten

    def run(self, ended: socket.socket) -> Callable[[], None] | None:
        """Answer requests until the driver is gone; in a new worker, return what it has to call."""
        while True:
            for ready in wait([self._connection, ended]):
                if ready is ended:
                    with contextlib.suppress(BlockingIOError):
                        ended.recv(4096)
                    self._report_ended()
                    continue
                try:
                    request = json.loads(self._connection.recv_bytes())
                    if "closed" in request:
                        self._close(request["closed"])
                        continue
                    serve = self._fork(request)
                except (EOFError, OSError):
                    return None
                if serve is not None:
                    return serve

    def _fork(self, request: dict[str, Any]) -> Callable[[], None] | None:
        with socket.socket(fileno=os.dup(self._connection.fileno())) as receiver:
            descriptors = recvfds(receiver, request["descriptors"])
        number, template_id = request["worker"], os.getpid()
        try:
            with warnings.catch_warnings():
                # Python warns of other threads. The only one is that of an allocator in pyarrow, which handles forks.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
        except OSError:  # too many processes, or too little memory
            self._answer({"worker": number, "code": 1})
            pid = -1
        if pid == 0:
            self._connection.close()
            return _prepared(request, descriptors, template_id)
        for descriptor in descriptors:
            os.close(descriptor)
        if pid > 0:
            self._alive[number] = pid
            self._answer({"worker": number, "pid": pid})
        return None

    def _report_ended(self) -> None:
        for number, pid in list(self._alive.items()):
            # WNOWAIT leaves it a zombie.
            found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                continue
            del self._alive[number]
            self._ended[number] = pid
            if number in self._closed:
                self._close(number)
            else:
                code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
                self._answer({"worker": number, "code": code})

    def _close(self, number: int) -> None:
        if number in self._alive:
            self._closed.add(number)
        elif number in self._ended:
            self._closed.discard(number)
            os.waitpid(self._ended.pop(number), 0)

    def _answer(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the driver is gone, which the next request shows
            self._connection.send_bytes(json.dumps(message).encode())


def _prepared(request: dict[str, Any], descriptors: Sequence[int], parent: int) -> Callable[[], None]:
    """Make this fork of ``parent`` a process as if the driver had started it, and return what the worker does."""
    from curator_core.executors.blas_threads import obey_environment
    from curator_core.executors.local_worker import serve

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for stream, descriptor in enumerate(descriptors[:2], start=1):
        os.dup2(descriptor, stream)
        os.close(descriptor)
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())  # type: ignore[union-attr]
    if dict(os.environ) != request["environment"]:
        os.environ.clear()
        os.environ.update(request["environment"])
    obey_environment()
    os.chdir(request["folder"])
    importlib.invalidate_caches()  # modules may have been written since
    return lambda: serve(parent, *descriptors[2:])


if __name__ == "__main__":
    main()
