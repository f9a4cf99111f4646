"""Finds all processes that a command started, adds up their memory, and ends them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

# Every process that a command starts inherits this variable, however it detaches itself.
TAG = "CURATOR_BENCH_RUN"


class Tree:
    """All processes that a command started, including those that now have another parent.

    They are found by the variable in their environment, or by their parent. This works only on Linux; on other systems
    it finds nothing.
    """

    def __init__(self, pid: int, tag: str) -> None:
        self.peak_bytes = 0
        self._root = pid
        self._needle = f"{TAG}={tag}".encode()
        # Processes by pid and start time, since pids are reused. A process that was once found stays here after an
        # exec.
        self._known: dict[tuple[int, int], bool] = {}

    def sample(self) -> None:
        """Add up the current memory; a shared page counts once, split among the processes that share it (PSS)."""
        total = sum(_pss_bytes(pid) for pid in self.members())
        self.peak_bytes = max(self.peak_bytes, total)

    def members(self) -> list[int]:
        """The pids of the processes that run now."""
        alive = dict(_processes())
        belongs: dict[int, bool] = {}
        for pid, (parent, started) in sorted(alive.items(), key=lambda item: item[1][1]):
            key = (pid, started)
            if pid == self._root or belongs.get(parent):
                self._known[key] = True
            elif key not in self._known:
                self._known[key] = self._needle in _environment(pid).split(b"\0")
            belongs[pid] = self._known[key]
        return [pid for pid, ours in belongs.items() if ours]

    def kill(self, except_pid: int | None) -> int:
        """Kill the processes that are still running; returns their number. It checks twice, since a process may be
        about to end.
        """
        found = [pid for pid in self.members() if pid != except_pid]
        if found and except_pid is None:
            time.sleep(0.2)
            found = self.members()
        count = len(found)
        for _ in range(20):
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            found = [pid for pid in self.members() if pid != except_pid]
            if not found:
                break
            time.sleep(0.05)
        return count


def _processes() -> Iterator[tuple[int, tuple[int, int]]]:
    """Pid, parent and start time of each process that is not a zombie."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may contain any character; the numbers follow the last parenthesis.
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if fields and fields[0] != "Z":
            yield int(path.parent.name), (int(fields[1]), int(fields[19]))


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # the process belongs to another user, or has ended
        return b""


def _pss_bytes(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # the process ended after the listing
    return 0
