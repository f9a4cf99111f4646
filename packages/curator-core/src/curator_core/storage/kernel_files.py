"""Is a folder part of a file system in which the kernel shows itself? Such folders hold no data, and listing them does
not end.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from curator_core.errors import UsageError
from curator_core.storage.names import local_path

_KINDS = frozenset(
    {
        *("binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "efivarfs", "fusectl", "mqueue"),
        *("nsfs", "proc", "pstore", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tracefs"),
    }
)
_MOUNTS = Path("/proc/self/mountinfo")


@functools.lru_cache(256)
def kernel_files(device: int) -> str:
    """The kind of the kernel's file system that has this device number (`st_dev`); empty for one that holds files."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = _MOUNTS.read_text(errors="replace").splitlines()
    except OSError:  # a system that has no such list
        return ""
    for line in lines:
        words = line.split()
        if len(words) > 4 and words[2] == wanted and "-" in words:
            kind = words[words.index("-") + 1]
            return kind if kind in _KINDS else ""
    return ""


def kernel_files_at(folder: str) -> str:
    """The same for a folder of this machine; empty where there is none."""
    try:
        return kernel_files(Path(local_path(folder)).stat().st_dev)
    except OSError:
        return ""


def require_files(folder: str, kind: str | None = None) -> None:
    """Raise where a folder of this machine holds what the kernel shows of itself."""
    kind = kernel_files_at(folder) if kind is None else kind
    if kind:
        raise UsageError(
            f"cannot list {folder!r}: it is a virtual file system of the kernel ({kind}), which holds no data; name a "
            "folder of files"
        )
