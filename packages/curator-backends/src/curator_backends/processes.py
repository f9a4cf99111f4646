"""Finds the processes of a Ray that we started, and sees that they are gone when it has stopped.

It reads /proc only: a question to Ray starts a Ray where none runs, as after a failed start.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

# A process, by its id and its start time, since ids are reused.
Process = tuple[int, str]

# How long the processes of a stopped Ray may take to end.
_GONE_SECONDS = 5.0


def ray_processes(ray_folder: str) -> set[Process]:
    """The descendants of this process that Ray has started: those that run from its package, and their descendants."""
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
    """Wait until processes are gone: workers need a moment to notice that their raylet has ended."""
    left = wait_for_exit(processes)
    kill(left)
    wait_for_exit(left)


def kill(processes: set[Process]) -> None:
    """Kill at once those that are still there, without waiting for them."""
    for pid, birth in processes:
        if is_running(pid, birth):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def wait_for_exit(processes: set[Process]) -> set[Process]:
    """The processes that are still there after a while; returns at once when there are none."""
    deadline = time.monotonic() + _GONE_SECONDS
    while (processes := {process for process in processes if is_running(*process)}) and time.monotonic() < deadline:
        time.sleep(0.02)
    return processes


def is_running(pid: int, birth: str) -> bool:
    """Whether the process is there; a zombie is not."""
    fields = _fields(str(pid))
    return bool(fields) and fields[0] != "Z" and fields[19] == birth


def _fields(pid: str) -> list[str]:
    """The fields of the kernel's status line of a process, from its state on; empty if it has ended."""
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
