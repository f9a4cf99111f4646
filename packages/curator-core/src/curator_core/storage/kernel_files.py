"""Is a folder part of a virtual file system of the kernel? These folders contain no data, and listing them may never
end.
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
    """The kind of the virtual file system with this device number (`st_dev`); empty for a file system that stores
    files.
    """
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = _MOUNTS.read_text(errors="replace").splitlines()
    except OSError:  # the system has no such list
        return ""
    for line in lines:
        words = line.split()
        if len(words) > 4 and words[2] == wanted and "-" in words:
            kind = words[words.index("-") + 1]
            return kind if kind in _KINDS else ""
    return ""


def kernel_files_at(folder: str) -> str:
    """The kind of the virtual file system that a local folder is on; empty if there is none."""
    try:
        return kernel_files(Path(local_path(folder)).stat().st_dev)
    except OSError:
        return ""


def require_files(folder: str, kind: str | None = None) -> None:
    """Raise if a local folder is on a virtual file system of the kernel."""
    kind = kernel_files_at(folder) if kind is None else kind
    if kind:
        raise UsageError(
            f"cannot list {folder!r}: it is a virtual file system of the kernel ({kind}), which holds no data; name a "
            "folder of files"
        )
