"""Which process works in a run directory? It holds a kernel lock or, if the kernel has no locks there, a file with a
heartbeat.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from typing import Any

from curator_core import storage
from curator_core.errors import OutputError, RunRefused, UsageError

HEARTBEAT_SECONDS = 15.0
STALE_SECONDS = 60.0
LOCK_FILE = ".lock"


class KernelLock:
    """A lock that the kernel holds for this process on a local disk; it is released as soon as the process is gone."""

    def __init__(self, path: str) -> None:
        self.path = storage.local_path(path)
        self.fd: int | None = None

    def take(self, run_dir: str) -> bool:
        """Take the lock; return False if its owner removed the file before this process got the lock."""
        import fcntl  # not available on Windows, where only remote run directories work

        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise OutputError(f"cannot write in the folder {run_dir!r}: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(fd, 200, 0).decode(errors="replace").strip()
            os.close(fd)
            raise RunRefused(
                f"another run is at work in {run_dir!r} ({owner or 'owner unknown'}): wait for it, end it, or choose "
                "another run directory"
            ) from None
        except OSError as error:  # usually a network file system without locks
            os.close(fd)
            raise OutputError(f"cannot lock the folder {run_dir!r}: {error.strerror}") from error
        if not os.fstat(fd).st_nlink:
            os.close(fd)
            return False
        os.ftruncate(fd, 0)
        os.pwrite(fd, _owner().encode(), 0)
        self.fd = fd
        return True

    def release(self) -> None:
        if self.fd is not None:
            os.ftruncate(self.fd, 0)
            os.close(self.fd)
            self.fd = None


class HeartbeatLock:
    """A file that its owner renews every few seconds, for storage without kernel locks; an old one is taken over."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.owner = _owner()
        self.token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, run_dir: str) -> None:
        held = self._read()
        if held is not None and time.time() - held["beat"] < STALE_SECONDS and not _died_here(held["owner"]):
            raise RunRefused(
                f"another run is at work in {run_dir!r} ({held['owner']}), or died less than {STALE_SECONDS:.0f} s ago: "
                "wait for it, end it, or choose another run directory"
            )
        self._beat()
        # If two runs start together, both write; the one whose file is overwritten notices and gives up.
        time.sleep(0.2)
        held = self._read()
        if held is None or held["token"] != self.token:
            raise RunRefused(f"another run has started in {run_dir!r} at the same moment")
        self._thread = threading.Thread(target=self._keep, daemon=True, name="run-lock")
        self._thread.start()

    def _read(self) -> dict[str, Any] | None:
        if not storage.exists(self.path):
            return None
        try:
            value = json.loads(storage.read_bytes(self.path))
        except UsageError:
            if storage.exists(self.path):
                raise
            return None  # its owner has just released it
        except ValueError:
            return None
        return value if isinstance(value, dict) and value.get("token") else None

    def _beat(self) -> None:
        text = json.dumps({"owner": self.owner, "token": self.token, "beat": time.time()})
        storage.write_bytes_atomic(self.path, text.encode())

    def _keep(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(Exception):  # the next beat makes up for a missed one
                self._beat()

    def release(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        held = self._read()
        if held is not None and held["token"] == self.token:
            storage.remove(self.path)


def owner_at_work(run_dir: str) -> str | None:
    """The process that works in a run directory according to its lock; None if there is none.

    This takes no lock itself, because that could make a run that begins at the same moment fail.
    """
    path = storage.join(run_dir, LOCK_FILE)
    if not storage.exists(path):
        return None
    try:
        text = storage.read_bytes(path).decode(errors="replace").strip()
    except UsageError:
        return None  # its owner has just released it
    beat = None
    if text.startswith("{"):
        try:
            held = json.loads(text)
            text, beat = str(held["owner"]), float(held["beat"])
        except (ValueError, KeyError, TypeError):
            return None
    if not text or _died_here(text) or (beat is not None and time.time() - beat >= STALE_SECONDS):
        return None
    return text


def _owner() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _died_here(owner: str) -> bool:
    """Whether the owner was a process of this machine that no longer exists."""
    process, _, host = owner.partition(" on ")
    number = process.removeprefix("process ")
    if host != socket.gethostname() or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
