"""Finds the processes of a Ray that we started, and makes sure that they are gone after it has stopped.

It reads only /proc: asking Ray would start a new Ray if none is running, for example after a failed start.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

# A process, identified by its id and its start time, since ids are reused.
Process = tuple[int, str]

# How long the processes of a stopped Ray may take to end.
_GONE_SECONDS = 5.0


def ray_processes(ray_folder: str) -> set[Process]:
    """The descendants of this process that Ray has started: those that run from its package, and their descendants."""
    parents, births = {}, {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - hundreds of paths would cost time
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
    """Kill the processes that are still running, without waiting for them to end."""
    for pid, birth in processes:
        if is_running(pid, birth):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def wait_for_exit(processes: set[Process]) -> set[Process]:
    """The processes that are still running after a while; returns at once when there are none."""
    deadline = time.monotonic() + _GONE_SECONDS
    while (processes := {process for process in processes if is_running(*process)}) and time.monotonic() < deadline:
        time.sleep(0.02)
    return processes


def is_running(pid: int, birth: str) -> bool:
    """Whether the process is running; a zombie is not."""
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
    except OSError:  # the process has ended
        return b""
