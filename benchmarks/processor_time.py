"""How much processor time have the processes of a benchmark used?

The workers of LocalExecutor are forks of a process that goes on between runs, so they are not children of the benchmark,
and `os.times` and `getrusage` leave them out.
"""

from __future__ import annotations

import os
from pathlib import Path


def processes() -> dict[int, float]:
    """The processes of this program, each with its processor time and that of its children that have ended."""
    parents: dict[int, list[int]] = {}
    seconds: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
                seconds[int(entry.name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
            except (OSError, IndexError, ValueError):
                continue
    found, todo = {}, [os.getpid()]
    while todo:
        process = todo.pop()
        found[process] = seconds.get(process, 0.0)
        todo += parents.get(process, [])
    return found


def processor_seconds() -> float:
    """The processor time of this program, of its processes, and of all of their children that have ended."""
    return sum(processes().values())
