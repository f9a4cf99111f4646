"""Which processes belong to a Ray that we started, and that they are gone when it has stopped.

Read from /proc and nowhere else: a question to Ray starts a Ray where there is none, which is just the case after a
start that failed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

# A process by its id and its time of birth, since ids are used again.
Process = tuple[int, str]

# How long processes of a Ray that was stopped may take to end by themselves.
_GONE_SECONDS = 5.0


def ray_processes(ray_folder: str) -> set[Process]:
    """The processes below this one that Ray has started: those that run from its package, and all below them."""
    parents, births = {}, {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - paths for hundreds of processes take longer than reading them
        if name.isdigit() and (fields := _fields(name)):
            pid = int(name)
            parents[pid], births[pid] = int(fields[1]), fields[19]
    mark = ray_folder.encode()
    ours = {pid for pid, parent in parents.items() if parent == os.getpid() and mark in _command(pid)}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return {(pid, births[pid]) for pid in ours}


def kill_leftovers(processes: set[Process]) -> None:
    """Wait until processes are gone: workers outlive their raylet by the moment that it takes them to notice."""
    left = wait_for_exit(processes)
    kill(left)
    wait_for_exit(left)


def kill(processes: set[Process]) -> None:
    """End those that are still there at once, without waiting for them."""
    for pid, birth in processes:
        if is_running(pid, birth):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def wait_for_exit(processes: set[Process]) -> set[Process]:
    """Those that are still there after a while; returns at once when none is."""
    deadline = time.monotonic() + _GONE_SECONDS
    while (processes := {process for process in processes if is_running(*process)}) and time.monotonic() < deadline:
        time.sleep(0.02)
    return processes


def is_running(pid: int, birth: str) -> bool:
    """Whether the process is there; one that has ended and that its parent has not waited for is not."""
    fields = _fields(str(pid))
    return bool(fields) and fields[0] != "Z" and fields[19] == birth


def _fields(pid: str) -> list[str]:
    """What the kernel says of a process, from its state on; nothing where it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended since
        return b""
