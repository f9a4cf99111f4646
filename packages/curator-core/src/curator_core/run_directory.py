"""A run's folder: what ran, what came of it, and who may write in it.

``run_dir/`` holds ``plan.json``, ``run.json``, ``sources/``, ``ledger/``, ``rejects/``, ``results/``, ``spill/``
and ``report.html``. Any fsspec URL will do; only the lock differs: on a local disk the kernel holds it and frees it
when the process dies, on an object store it is a file with a heartbeat.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from curator_core import storage
from curator_core.errors import OutputError, RunRefused, UsageError

HEARTBEAT_SECONDS = 15.0
STALE_SECONDS = 60.0
_LOCK = ".lock"
# What each record has, since there are records.
_KEYS = {"run.json": ("state",), "plan.json": ("steps",), "command.json": ("file", "settings", "folder", "flags")}


class RunDirectory:
    """The files of one run; `lock` first."""

    def __init__(self, url: str) -> None:
        self.url = storage.absolute(url)
        self._lock: _KernelLock | _HeartbeatLock | None = None
        self._made: list[Path] = []  # the file and the folders that `lock` has made, the deepest first

    def __repr__(self) -> str:
        return f"RunDirectory({self.url!r})"

    def path(self, *names: str) -> str:
        return storage.join(self.url, *names)

    def exists(self) -> bool:
        return storage.exists(self.path("plan.json"))

    def lock(self) -> None:
        """Make the folder and take it for this process; refused where it cannot be made, or another run has it."""
        try:
            self._take()
        except OutputError as error:
            raise RunRefused(f"{error}; or choose another run directory") from error

    def _take(self) -> None:
        if not storage.is_local(self.url):
            storage.make_folder(self.url)
            remote = _HeartbeatLock(self.path(_LOCK))
            remote.take(self.url)
            self._lock = remote
            return
        folder = Path(storage.local_path(self.url))
        while self._lock is None:
            above = [folder, *folder.parents]
            made = [place for place in (folder / _LOCK, *above) if not place.exists()]
            storage.make_folder(self.url)
            lock = _KernelLock(self.path(_LOCK))
            # Not taken where a run that was refused has removed the folder in the meantime.
            if lock.take(self.url):
                self._lock, self._made = lock, made

    def unlock(self, *, leave_no_trace: bool = False) -> None:
        """Let go of the folder; ``leave_no_trace`` takes away again what `lock` has made."""
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        made = self._made if leave_no_trace else []
        if made and isinstance(lock, _KernelLock):
            made.pop(0).unlink(missing_ok=True)  # while it is held: nobody else can have taken it
        lock.release()
        with contextlib.suppress(OSError):  # one that is not empty stays, and so do those above it
            for place in made:
                place.rmdir()

    def read_json(self, name: str) -> Any:
        """The content of a JSON file, or None where there is none."""
        path = self.path(name)
        if not storage.exists(path):
            return None
        try:
            found = json.loads(storage.read_bytes(path))
            lacks = [key for key in _KEYS.get(name, ()) if not isinstance(found, dict) or key not in found]
            if lacks:
                raise ValueError(f"it has no {lacks[0]!r}")
        except ValueError as error:
            raise RunRefused(
                f"{path!r} is damaged ({error}): it is written whole or not at all, so something else changed it; "
                "start over with fresh=True (--fresh)"
            ) from None
        return found

    def write_json(self, name: str, value: Any) -> None:
        text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=False)
        storage.write_bytes_atomic(self.path(name), text.encode("utf-8", "surrogatepass"))

    def sweep(self) -> None:
        """Remove what a killed process had begun to write here."""
        for path in storage.list_files(self.url, hidden=True):
            if storage.is_temporary(path):
                storage.remove(path)

    def clear(self) -> None:
        """Forget what ran here; the lock and the list of sources stay."""
        for folder in ("ledger", "rejects", "results", "spill", "metrics"):
            self.clear_folder(folder)
        for name in ("plan.json", "run.json", "report.html"):
            with contextlib.suppress(OutputError):
                if storage.exists(self.path(name)):
                    storage.remove(self.path(name))

    def is_empty(self, folder: str) -> bool:
        """Whether no file is in a folder of the run, or there is no such folder."""
        place = self.path(folder)
        return not storage.exists(place) or next(iter(storage.scan(place)), None) is None

    def clear_folder(self, folder: str) -> None:
        place = self.path(folder)
        if storage.exists(place):
            for path in storage.list_files(place, hidden=True):
                storage.remove(path)


class _KernelLock:
    def __init__(self, path: str) -> None:
        self.path = storage.local_path(path)
        self.fd: int | None = None

    def take(self, run_dir: str) -> bool:
        """False where the file was removed by its owner before it was ours."""
        import fcntl  # not on Windows, where only remote run directories would do

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
        except OSError as error:  # a network file system without locks, most often
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


class _HeartbeatLock:
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
        # Two that start together both write; whoever is overwritten sees it and steps back.
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
            return None  # who had it has just let go
        except ValueError:
            return None
        return value if isinstance(value, dict) and value.get("token") else None

    def _beat(self) -> None:
        text = json.dumps({"owner": self.owner, "token": self.token, "beat": time.time()})
        storage.write_bytes_atomic(self.path, text.encode())

    def _keep(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(Exception):  # a missed beat is made up by the next
                self._beat()

    def release(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        held = self._read()
        if held is not None and held["token"] == self.token:
            storage.remove(self.path)


def _owner() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _died_here(owner: str) -> bool:
    """Whether the owner was a process of this machine that is no more."""
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
