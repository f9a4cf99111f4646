"""A run directory: the records of a run, and the lock of the process that may write to it.

``run_dir/`` holds ``plan.json``, ``plans/`` (each plan that has events, by its first attempt), ``run.json``,
``sources/``, ``ledger/``, ``rejects/``, ``results/``, ``spill/`` and ``report.html``. Any fsspec URL works; only the
lock differs: on a local disk the kernel holds it and releases it when the process dies; on an object store it is a file
with a heartbeat.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from curator_core import storage
from curator_core.errors import OutputError, RunRefused
from curator_core.planning.plan import fingerprint
from curator_core.running.locks import LOCK_FILE, HeartbeatLock, KernelLock
from curator_core.running.shape import COMMAND, PLAN, RUN, WORKFLOW_PLAN, misfit

_SHAPES = {"run.json": RUN, "plan.json": PLAN, "command.json": COMMAND}
# Records with a fingerprint of their whole content. Those of earlier versions have none, so only their shape is
# checked.
_WHOLE = ("run.json", "command.json")


class RunDirectory:
    """The files of one run; call `lock` first."""

    def __init__(self, url: str) -> None:
        self.url = storage.absolute(url)
        self._lock: KernelLock | HeartbeatLock | None = None
        self._made: list[Path] = []  # the file and the folders that `lock` has made, the deepest first

    def __repr__(self) -> str:
        return f"RunDirectory({self.url!r})"

    def path(self, *names: str) -> str:
        return storage.join(self.url, *names)

    def exists(self) -> bool:
        return storage.exists(self.path("plan.json"))

    def lock(self) -> None:
        """Make the folder and lock it for this process; raise if it cannot be made or another run has the lock."""
        try:
            self._take()
        except OutputError as error:
            raise RunRefused(f"{error}; or choose another run directory") from error

    def _take(self) -> None:
        if not storage.is_local(self.url):
            storage.make_folder(self.url)
            remote = HeartbeatLock(self.path(LOCK_FILE))
            remote.take(self.url)
            self._lock = remote
            return
        folder = Path(storage.local_path(self.url))
        while self._lock is None:
            above = [folder, *folder.parents]
            made = [place for place in (folder / LOCK_FILE, *above) if not place.exists()]
            storage.make_folder(self.url)
            lock = KernelLock(self.path(LOCK_FILE))
            # The lock is not taken if a run that was refused has removed the folder in the meantime.
            if lock.take(self.url):
                self._lock, self._made = lock, made

    def unlock(self, *, leave_no_trace: bool = False) -> None:
        """Release the folder; ``leave_no_trace`` removes what `lock` has made."""
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        made = self._made if leave_no_trace else []
        if made and isinstance(lock, KernelLock):
            made.pop(0).unlink(missing_ok=True)  # the lock is still held, so no other process can have taken it
        lock.release()
        with contextlib.suppress(OSError):  # a folder that is not empty stays, and so do those above it
            for place in made:
                place.rmdir()

    def read_json(self, name: str) -> Any:
        """The content of a JSON file, or None if it does not exist."""
        path = self.path(name)
        if not storage.exists(path):
            return None
        kind = "plan.json" if name.startswith("plans/") else name  # stored plans have the form of plan.json
        try:
            found = json.loads(storage.read_bytes(path))
            if not _is_as_written(kind, found):
                raise ValueError(f"its fingerprint does not match its {'steps' if kind == 'plan.json' else 'content'}")
            shape = _SHAPES.get(kind, object)
            if kind == "plan.json" and isinstance(found, dict) and "kind" in found:
                shape = WORKFLOW_PLAN
            if wrong := misfit(found, shape):
                raise ValueError(wrong)
        except ValueError as error:
            raise RunRefused(
                f"{path!r} is damaged ({error}): it is written whole or not at all, so something else changed it. The "
                "output and the rejects are in other files, which are intact (`curate rejects` reads them); to "
                "continue, start over with fresh=True (--fresh)"
            ) from None
        return found

    def write_json(self, name: str, value: Any) -> None:
        if name in _WHOLE:
            value = {**value, "fingerprint": _of_the_rest(value)}
        text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=False)
        storage.write_bytes_atomic(self.path(name), text.encode("utf-8", "surrogatepass"))

    def sweep(self, *, recursive: bool = True) -> None:
        """Remove the partial files of killed processes."""
        for path in storage.list_files(self.url, recursive, hidden=True):
            if storage.is_temporary(path):
                storage.remove(path)

    def clear(self, *, keep: str = "") -> None:
        """Remove the records of earlier attempts; the lock, the list of sources and the file ``keep`` stay."""
        for folder in (
            "ledger",
            "rejects",
            "results",
            "spill",
            "metrics",
            "plans",
            "log",
            "seen",
            "samples",
            "declared",
            "times",
        ):
            self.clear_folder(folder)
        for name in ("plan.json", "run.json", "report.html", "report.json", "log.txt"):
            with contextlib.suppress(OutputError):
                if name != keep and storage.exists(self.path(name)):
                    storage.remove(self.path(name))

    def is_empty(self, folder: str) -> bool:
        """Whether a folder of the run contains no files or does not exist."""
        place = self.path(folder)
        return not storage.exists(place) or next(iter(storage.scan(place)), None) is None

    def clear_folder(self, folder: str) -> None:
        place = self.path(folder)
        if storage.exists(place):
            for path in storage.list_files(place, hidden=True):
                storage.remove(path)


def _is_as_written(kind: str, found: Any) -> bool:
    """Whether the fingerprint in a record, if there must be one, matches its content."""
    if not isinstance(found, dict):
        return True
    if kind == "plan.json" and "steps" in found:
        return bool(found.get("fingerprint") == fingerprint(found["steps"]))
    return kind not in _WHOLE or "fingerprint" not in found or found["fingerprint"] == _of_the_rest(found)


def _of_the_rest(record: dict[str, Any]) -> str:
    """The fingerprint of a record without its own ``fingerprint``; it is the same before writing and after reading."""
    rest = {key: value for key, value in record.items() if key != "fingerprint"}
    return fingerprint([json.loads(json.dumps(rest))])  # as after reading: no tuples, and every key a string
