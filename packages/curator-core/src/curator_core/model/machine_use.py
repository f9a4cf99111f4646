"""How much of this machine is in use? Memory, within container limits, and the load of its GPUs."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import Any

from curator_core.model import machine as limits

# The values are read again at most this often, since a display asks at every redraw.
READ_SECONDS = 2.0


@dataclass(frozen=True)
class Use:
    """What is in use. ``gpus`` are the loads, from 0 to 1, of the GPUs that this process may use; empty if unknown."""

    memory_used_gb: float = 0.0
    memory_gb: float = 0.0
    gpus: tuple[float, ...] = ()


class MachineUse:
    """Reads what is in use, now and then. It asks the driver and does not touch a GPU."""

    def __init__(self) -> None:
        self._read_at = float("-inf")
        self._use = Use()
        self._lock = threading.Lock()
        self._nvml: Any = None
        self._handles: list[Any] = []
        self._asked = False

    def now(self) -> Use:
        """What is in use, no older than `READ_SECONDS`."""
        with self._lock:
            now = time.monotonic()
            if now - self._read_at >= READ_SECONDS:
                self._read_at = now
                self._use = Use(*_memory(), self._gpus())
            return self._use

    def _gpus(self) -> tuple[float, ...]:
        if not self._asked:
            self._asked = True
            self._nvml, self._handles = _handles()
        busy = []
        for handle in self._handles:
            try:
                busy.append(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
            except self._nvml.NVMLError:  # some virtual cards do not report it
                return ()
        return tuple(busy)

    def close(self) -> None:
        """Release the driver's library."""
        with self._lock:
            nvml, self._nvml, self._handles = self._nvml, None, []
        if nvml is not None:
            with contextlib.suppress(nvml.NVMLError):
                nvml.nvmlShutdown()


def _memory() -> tuple[float, float]:
    sizes = {}
    for line in limits.lines_of("/proc/meminfo"):
        name, _, rest = line.partition(":")
        if name in ("MemTotal", "MemAvailable"):
            sizes[name] = int(rest.split()[0]) / 2**20
    total = sizes.get("MemTotal", 0.0)
    used = total - sizes.get("MemAvailable", total)
    limit = limits.first_line_of("/sys/fs/cgroup/memory.max").strip()
    current = limits.first_line_of("/sys/fs/cgroup/memory.current").strip()
    if limit.isdigit() and current.isdigit() and int(limit) / 2**30 < (total or float("inf")):
        # As in MemAvailable, pages of files that could be freed do not count.
        cache = next(
            (
                int(line.split()[1])
                for line in limits.lines_of("/sys/fs/cgroup/memory.stat")
                if line.startswith("inactive_file ")
            ),
            0,
        )
        return max(0, int(current) - cache) / 2**30, int(limit) / 2**30
    return used, total


def _handles() -> tuple[Any, list[Any]]:
    names = limits.visible_gpus()
    if not names:
        return None, []
    try:
        import pynvml  # installed with ray or alone
    except ImportError:
        return None, []
    try:
        pynvml.nvmlInit()
        return pynvml, [
            pynvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(name)
            for name in names
        ]
    except pynvml.NVMLError:
        return None, []
