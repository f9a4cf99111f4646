"""Which process are the workers of a local Ray forked from? One that has imported Ray, its engine and pyarrow.

Ray runs a script for each worker, and each imports Ray, Ray Data or Xenna, pandas and pyarrow: almost two seconds of
processor time, again and again, since an actor's process ends with the actor. In a Ray that we start, a small script
runs in its place (`curator_backends.worker_stub`). It has the worker forked by the template and stands in for it, as
far as the raylet watches the process that it has started.

The template imports when the first worker is requested, in the environment of that worker, since Ray reads its settings
when it is imported. It loads no module of a stage: those may start threads, or hold what a fork must not share.
Attributes of Ray are replaced by name; a Ray version with other names runs its own script.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import json
import os
import runpy
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

from curator_backends.preload import NAME, WORKER_MODULES
from curator_backends.worker_stub import FORKED, LENGTH_BYTES, SCRIPT, SOCKET
from curator_core.executors.blas_threads import obey_environment
from curator_core.executors.parent import die_with_parent
from curator_core.lazy import without_collection

# Of the modules that workers import first, the template imports those of these packages.
PACKAGES = ("ray", "cosmos_xenna", "pyarrow", "curator_backends")


@contextlib.contextmanager
def worker_template(ray: Any, wanted: bool) -> Iterator[AbstractContextManager[None]]:
    """A template for the length of a ``with`` block. Inside the one that it yields, the workers of a Ray that is started
    are to be forked.
    """
    if not wanted or sys.platform != "linux" or sys.flags.no_site or sys.flags.no_user_site:
        yield contextlib.nullcontext()
        return
    script = str(Path(ray.__file__).parent / "_private" / "workers" / "default_worker.py")
    # An abstract socket leaves no file behind. Only its user may connect (see `_Template`).
    name = f"curator-{os.getpid()}-{secrets.token_hex(16)}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("\0" + name)
        listening.listen(128)
        # The path of the script also shows that the process belongs to Ray (see `processes.ray_processes`).
        command = [sys.executable, "-m", __name__, str(listening.fileno()), str(os.getpid()), script]
        template = subprocess.Popen(
            command, pass_fds=[listening.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
    try:
        yield _forking(script, name)
    finally:
        template.kill()
        template.wait()


@contextlib.contextmanager
def _forking(script: str, name: str) -> Iterator[None]:
    """Let Ray start with the stub in place of its own script."""
    from ray._private import services

    from curator_backends.environment import environment
    from curator_backends.minimal import replaced

    stub = str(Path(__file__).with_name("worker_stub.py"))
    start = getattr(services, "start_raylet", None)

    def start_raylet(*arguments: Any, **named: Any) -> Any:
        assert start is not None  # otherwise it would not have been replaced
        if script not in (*arguments, *named.values()):
            return start(*arguments, **named)
        arguments = tuple(stub if value == script else value for value in arguments)
        named = {key: stub if value == script else value for key, value in named.items()}
        with replaced((services, "_site_flags", lambda: ["-S"])):
            return start(*arguments, **named)

    with environment({SOCKET: name, SCRIPT: script}), replaced((services, "start_raylet", start_raylet)):
        yield


# In the template -----------------------------------------------------------------------------------------------------


def main() -> None:
    listening = socket.socket(fileno=int(sys.argv[1]))
    die_with_parent()
    if os.getppid() != int(sys.argv[2]):
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel removes workers that have ended
    ready = False
    while True:
        stub, _ = listening.accept()
        with stub:
            received = _request(stub)
            if received is None:
                continue
            request, streams = received
            if not ready:
                _import(request["environment"])
                ready = True
            with warnings.catch_warnings():
                # Python warns of other threads. The only one is that of an allocator in pyarrow, which handles forks.
                warnings.simplefilter("ignore", DeprecationWarning)
                try:
                    pid = os.fork()
                except OSError:  # too many processes, or too little memory: the stub tries by itself
                    pid = -1
            if not pid:
                listening.close()
                _work(request, streams, stub, sys.argv[3])
            for stream in streams:
                os.close(stream)


def _request(stub: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The request and the streams of a stub; None if it is gone, or belongs to another user."""
    credentials = stub.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    if struct.unpack("3i", credentials)[1] != os.getuid():
        return None
    streams = array.array("i")
    text = b""
    try:
        head, ancillary, _, _ = stub.recvmsg(LENGTH_BYTES, socket.CMSG_SPACE(3 * streams.itemsize))
        for _, _, content in ancillary:
            streams.frombytes(content)
        length = int.from_bytes(head, "big")
        while len(text) < length and (more := stub.recv(length - len(text))):
            text += more
    except OSError:
        text = b""
    if not text or len(text) < length or len(streams) != 3:
        for stream in streams:
            os.close(stream)
        return None
    return json.loads(text), list(streams)


def _import(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # threads of numpy would not be in a fork; workers set their number
    with without_collection():
        for module in ("ray", *WORKER_MODULES, *environment.get(NAME, "").split(",")):
            if module.partition(".")[0] in PACKAGES:
                with contextlib.suppress(Exception):  # reported when a worker needs it
                    importlib.import_module(module)
    # A collection of garbage in a worker does not touch these objects, so their memory stays shared.
    gc.collect()
    gc.freeze()


def _work(request: dict[str, Any], streams: list[int], stub: socket.socket, script: str) -> NoReturn:
    """Make this fork a process as if the raylet had started it, and run Ray's script."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if request["interrupted"]:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
    try:
        os.setpgid(0, request["group"])
    except OSError:  # a group of another session
        os.setpgid(0, 0)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    obey_environment()
    if random := sys.modules.get("numpy.random"):
        random.seed()  # otherwise all forks would draw the same numbers
    importlib.invalidate_caches()
    sys.argv = [script, *request["arguments"]]
    # As Python does when it starts: the template was started before the paths of the driver were known.
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [str(Path(script).parent), *paths, *(path for path in sys.path[1:] if path not in paths)]
    stub.send(FORKED)
    threading.Thread(target=_end_with, args=[stub], name="curator-stub", daemon=True).start()
    code = 1
    try:
        runpy.run_path(script, run_name="__main__")
        code = 0
    finally:
        from curator_core.leave import leave

        leave(code)


def _end_with(stub: socket.socket) -> None:
    """End this process when the raylet has ended the one that stands in for it."""
    with contextlib.suppress(OSError):
        stub.recv(1)
    os._exit(1)


if __name__ == "__main__":
    main()
