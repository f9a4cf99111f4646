"""What the machine that a run is planned for has: CPUs, memory, GPUs. Looks, and never touches a GPU."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    """The CPUs and GPUs that a run may use; ``gpu_memory_gb`` is that of the largest GPU, None where unknown."""

    cpus: float = 1.0
    memory_gb: float = 0.0
    gpus: float = 0.0
    gpu_memory_gb: float | None = None
    name: str = "this machine"


def this_machine() -> Machine:
    """What this process may use, container limits included."""
    gpus, gpu_memory = _gpus()
    return Machine(cpus=available_cpus(), memory_gb=_memory_gb(), gpus=gpus, gpu_memory_gb=gpu_memory)


def system_name() -> str:
    """The operating system; `platform.platform` starts a process to find out what is the machine's name too."""
    return "-".join(filter(None, (platform.system(), platform.release(), platform.machine())))


def available_cpus() -> float:
    """CPUs this process may run on; a container's quota counts."""
    cpus = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quota = _first_line("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit():
        cpus = min(cpus, max(1.0, int(quota[0]) / int(quota[1])))
    return cpus


def _memory_gb() -> float:
    total = 0.0
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) / 2**20
    limit = _first_line("/sys/fs/cgroup/memory.max").strip()
    if limit.isdigit():
        total = min(total or float("inf"), int(limit) / 2**30)
    return round(total, 2)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; no CUDA context is made."""
    folder = Path("/proc/driver/nvidia/gpus")
    count = len(list(folder.iterdir())) if folder.is_dir() else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [str(index) for index in range(count)]
    return [part.strip() for part in visible.split(",") if part.strip() and part.strip() != "-1"][:count]


def gpu_numbers(names: Iterable[str]) -> tuple[int, ...]:
    """The names that are numbers; CUDA also takes identities such as ``GPU-3f…``."""
    return tuple(int(name) for name in names if name.isdigit())


def _gpus() -> tuple[float, float | None]:
    count = len(visible_gpus())
    return float(count), None if not count else _gpu_memory_gb()


def _gpu_memory_gb() -> float | None:
    try:
        import pynvml  # comes with ray or by itself; where it is missing the memory stays unknown
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        sizes = [
            pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(index)).total / 2**30
            for index in range(pynvml.nvmlDeviceGetCount())
        ]
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
    return round(max(sizes), 2) if sizes else None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _first_line(path: str) -> str:
    return next(iter(_lines(path)), "")
