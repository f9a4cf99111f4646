"""Which CPUs, memory and GPUs does the machine have for a run? They are read without touching a GPU."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    """The CPUs and GPUs that a run may use.

    ``gpu_memory_gb`` is the memory of the GPU that a worker gets, None if unknown: that of the largest card if the
    executor chooses the card, and that of the smallest if a scheduler does. ``gpu_memories`` are those of all cards.
    """

    cpus: float = 1.0
    memory_gb: float = 0.0
    gpus: float = 0.0
    gpu_memory_gb: float | None = None
    name: str = "this machine"
    gpu_memories: tuple[float, ...] = ()

    @property
    def gpu_card(self) -> str:
        """Words for an error that describe the card with ``gpu_memory_gb``."""
        if len(set(self.gpu_memories)) < 2:
            return f"a GPU of {self.name}"
        which = "largest" if self.gpu_memory_gb == max(self.gpu_memories) else "smallest"
        return f"the {which} GPU of {self.name}"


def this_machine() -> Machine:
    """The CPUs, memory and GPUs that this process may use, within container limits."""
    names = visible_gpus()
    memories = _gpu_memories(names)
    return Machine(
        cpus=available_cpus(),
        memory_gb=_memory_gb(),
        gpus=float(len(names)),
        gpu_memory_gb=max(memories, default=None),
        gpu_memories=memories,
    )


def system_name() -> str:
    """The operating system; `platform.platform` would start a process to find the machine's name."""
    return "-".join(filter(None, (platform.system(), platform.release(), platform.machine())))


def available_cpus() -> float:
    """The number of CPUs that this process may use, within a container's quota."""
    cpus = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quota = first_line_of("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit():
        cpus = min(cpus, max(1.0, int(quota[0]) / int(quota[1])))
    return cpus


def _memory_gb() -> float:
    total = 0.0
    for line in lines_of("/proc/meminfo"):
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) / 2**20
    limit = first_line_of("/sys/fs/cgroup/memory.max").strip()
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
    """The names that are numbers; CUDA also takes identifiers such as ``GPU-3f…``."""
    return tuple(int(name) for name in names if name.isdigit())


def _gpu_memories(names: Sequence[str]) -> tuple[float, ...]:
    """The memory in GB of each of these GPUs; empty if it cannot be queried.

    NVML numbers cards by their place on the bus. CUDA numbers the fastest first by default. If cards differ and the
    user names some by number, the numbers mean the same only if CUDA_DEVICE_ORDER is set; otherwise all are assumed to
    have the memory of the smallest. If the user has not chosen cards, Curator sets their order itself, see
    `device_order`.
    """
    if not names:
        return ()
    try:
        import pynvml  # installed with ray or alone; without it the memory stays unknown
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(name)
            for name in names
        ]
        sizes = [round(pynvml.nvmlDeviceGetMemoryInfo(handle).total / 2**30, 2) for handle in handles]
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return ()
    return _as_cuda_counts(names, sizes)


def _as_cuda_counts(names: Sequence[str], sizes: Sequence[float]) -> tuple[float, ...]:
    by_number = any(name.isdigit() for name in names) and "CUDA_VISIBLE_DEVICES" in os.environ
    if by_number and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        return (min(sizes),) * len(sizes)
    return tuple(sizes)


def device_order() -> dict[str, str]:
    """Environment variables for a process that make CUDA number GPUs as NVML does."""
    return {} if "CUDA_VISIBLE_DEVICES" in os.environ else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def lines_of(path: str) -> list[str]:
    """The lines of a system file; none if it does not exist."""
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def first_line_of(path: str) -> str:
    """The first line of a system file, or an empty text."""
    return next(iter(lines_of(path)), "")
