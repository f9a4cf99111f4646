"""What did each worker do, when, and with how much memory? Each worker writes sums for a bounded number of time slots
to a file of its own.

These are clock times for people to look at: no output depends on them, and a killed worker loses those that it has not
written.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from curator_core import storage

FOLDER = "times"
# A worker's time is divided into at most this many slots: when all are full, neighbours are joined in pairs.
SLOTS = 200
_FIRST_SLOT = 0.05
# The file is rewritten when writing takes a small part of the time since the last write, since not every engine
# announces the end of a worker.
_SHARE = 400
# Only some tables are measured: adding up the buffers of a table takes as long as a light stage takes for a few rows.
_FIRST_TABLES, _ONE_OF_TABLES = 3, 64


class WorkTimes:
    """The times of one worker."""

    def __init__(self) -> None:
        self._zero = time.perf_counter()
        self._begun = time.time()
        self._width = _FIRST_SLOT
        self._busy: dict[str, list[float]] = {}
        # The slot of the last call, and its begin and end: most calls begin and end in the slot of the call before.
        self._slot, self._from, self._until = 0, 0.0, 0.0
        self._tables: dict[str, list[int]] = {}  # by stage: calls, and rows and bytes of those that were measured
        self._last = self._zero
        self._written = float("-inf")
        self._took = 0.0
        self._gpus: Callable[[], tuple[float, ...]] | None = None
        self._gpu_sums: list[float] = []
        self._gpu_looks = 0
        self.worker = ""
        # The worker is about to end, so its times must be written.
        self.ending = False

    def add(self, stage: str, started: float, ended: float) -> None:
        """Record that a stage worked from one reading of `time.perf_counter` to another."""
        self._last = ended
        if started >= self._from and ended < self._until:
            busy = self._busy.get(stage)
            if busy is not None and len(busy) > self._slot:
                busy[self._slot] += ended - started
                return
        first, last = started - self._zero, ended - self._zero
        while last >= SLOTS * self._width:
            self._width *= 2
            for name, busy in self._busy.items():
                busy.append(0.0)
                self._busy[name] = [one + other for one, other in zip(busy[0::2], busy[1::2], strict=False)]
        busy = self._busy.setdefault(stage, [])
        slot, end = max(0, int(first / self._width)), max(0, int(last / self._width))
        if len(busy) <= end:
            busy.extend([0.0] * (end + 1 - len(busy)))
        while slot < end:
            edge = (slot + 1) * self._width
            busy[slot] += edge - first
            first, slot = edge, slot + 1
        busy[end] += last - max(first, 0.0)
        self._slot = end
        self._from = self._zero + end * self._width
        self._until = self._from + self._width

    def measure(self, stage: str, table: pa.Table) -> None:
        """Measure an input table of a stage, or a table that a reader has made: the first few tables, and then a few of
        the others.
        """
        found = self._tables.get(stage)
        if found is None:
            found = self._tables[stage] = [0, 0, 0]
        found[0] += 1
        if found[0] <= _FIRST_TABLES or not found[0] % _ONE_OF_TABLES:
            found[1] += table.num_rows
            found[2] += table.nbytes

    def watch_gpus(self, busy: Callable[[], tuple[float, ...]]) -> None:
        """Call ``busy``, which says how busy the worker's GPUs are, whenever the times are written."""
        self._gpus = busy

    def write(self, run_dir: str, name: str) -> None:
        """Write the file if it is due or the worker is ending."""
        now = time.perf_counter()
        if not self._busy or (not self.ending and now - self._written < _SHARE * self._took):
            return
        if self._gpus is not None and (gpus := self._gpus()):
            self._gpu_sums = [a + b for a, b in zip(self._gpu_sums or [0.0] * len(gpus), gpus, strict=False)]
            self._gpu_looks += 1
        content = {
            "worker": self.worker,
            "begun": self._begun,
            "seconds": self._last - self._zero,
            "width": self._width,
            "busy": {stage: [round(part, 4) for part in busy] for stage, busy in self._busy.items()},
            "measured": {stage: found[1:] for stage, found in self._tables.items()},
            "memory": _memory_peak(),
            "gpus": [total / self._gpu_looks for total in self._gpu_sums],
        }
        path = storage.join(run_dir, FOLDER, f"{name}.json")
        with contextlib.suppress(Exception):  # a run does not fail because of times: nothing depends on them
            storage.write_bytes_atomic(path, json.dumps(content).encode(), durable=False)
        self._written = time.perf_counter()
        self._took = self._written - now


def _memory_peak() -> int | None:
    """The peak memory of this process, in bytes."""
    try:
        import resource
    except ImportError:  # not every system has the module
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def read_times(run_dir: str, attempt: int) -> Iterator[dict[str, Any]]:
    """Read what the workers of an attempt have written; damaged files are skipped."""
    folder = storage.join(run_dir, FOLDER)
    if not storage.exists(folder):
        return
    for path in sorted(storage.list_files(folder)):
        if not storage.file_name(path).startswith(f"{attempt:04d}-") or not path.endswith(".json"):
            continue
        with contextlib.suppress(ValueError):
            found = json.loads(storage.read_bytes(path))
            if isinstance(found, dict) and isinstance(found.get("busy"), dict):
                yield found
