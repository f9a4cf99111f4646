"""How are files opened, inspected, listed and found?"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from curator_core.storage.errors import explained, no_answer
from curator_core.storage.kernel_files import kernel_files, require_files
from curator_core.storage.names import AnyPath, fixed_base, has_magic, is_local, join, local_path, natural_key
from curator_core.storage.stores import open_remote, protocol_of

# The attributes that show whether a remote file has changed, the most reliable first; stores name them differently.
_VERSION_KEYS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "checksum",
    "generation",
    "LastModified",
    "last_modified",
    "updated",
    "mtime",
    "modified",
    "created",
)

# Reading a file of up to this many bytes takes less time than mapping it and accessing its pages.
_SMALL = 1 << 16


def open_input(path: AnyPath) -> BinaryIO:
    """A seekable file opened for reading bytes."""
    with explained("read", path):
        if is_local(path):
            return Path(local_path(path)).open("rb")
        filesystem, name = open_remote(path)
        return cast(BinaryIO, filesystem.open(name, "rb"))


def open_arrow(path: AnyPath, *, mapped: bool = True) -> pa.NativeFile:
    """A file for Arrow to read from; a large one on this machine is mapped, so that only the parts that are used are
    read.

    If another program may shorten the file meanwhile, it must not be ``mapped``: the kernel ends a process that reads
    beyond the end. Even so Arrow reads it twice as fast as through a file of Python, which copies each piece.
    """
    with explained("read", path):
        if not is_local(path):
            return pa.PythonFile(open_input(path), mode="r")
        with Path(local_path(path)).open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size <= _SMALL:
                return pa.BufferReader(file.read())
        return pa.memory_map(local_path(path)) if mapped else pa.OSFile(local_path(path))


def read_bytes(path: AnyPath) -> bytes:
    """The whole content of a file."""
    with open_input(path) as file, explained("read", path):
        return file.read()


def exists(path: AnyPath) -> bool:
    """Whether a file or folder with this name exists now."""
    with explained("look at", path):
        if is_local(path):
            return Path(local_path(path)).exists()
        filesystem, name = open_remote(path, fresh=True)
        if protocol_of(path) in ("http", "https"):
            return _is_served(filesystem, name)
        return bool(filesystem.exists(name))


def _is_served(filesystem: Any, name: str) -> bool:
    """Whether a web server has this file; raise if no server answers, which fsspec would report as a missing file."""
    try:
        filesystem.info(name)
    except FileNotFoundError as error:
        if no_answer(error) is not None and not isinstance(getattr(error.__cause__, "status", None), int):
            raise
        return False
    return True


def is_folder(path: AnyPath) -> bool:
    """Whether this is a folder (on an object store: whether there are files under it)."""
    with explained("look at", path):
        if is_local(path):
            return Path(local_path(path)).is_dir()
        if protocol_of(path) in ("http", "https"):
            # fsspec would download the file to check whether it is a page of links.
            return os.fspath(path).endswith("/")
        filesystem, name = open_remote(path, fresh=True)
        return bool(filesystem.isdir(name))


@dataclass(frozen=True, slots=True)
class FileInfo:
    """An existing file: its path as the user would write it, its size, and a value that changes with its content."""

    path: str
    size: int
    fingerprint: str


def info(path: AnyPath) -> FileInfo:
    """Size and fingerprint of one file."""
    with explained("look at", path):
        if is_local(path):
            return _local_info(os.fspath(path), Path(local_path(path)).stat())
        filesystem, name = open_remote(path, fresh=True)
        return _remote_info(os.fspath(path), filesystem.info(name))


def resolved(path: AnyPath) -> str:
    """A local path made absolute, with links resolved as far as it exists; a URL without its trailing slash."""
    text = os.fspath(path)
    return os.path.realpath(local_path(text)) if is_local(text) else text.rstrip("/")


def fingerprint(path: AnyPath) -> str:
    """A value that changes with a file's content: size and modification time, or size and etag on an object store."""
    return info(path).fingerprint


def scan(folder: AnyPath, *, recursive: bool = True, hidden: bool = False) -> Iterator[FileInfo]:
    """The files in a folder, in the order of the file system. Symbolic links are followed, except loops.

    Devices, pipes and sockets are skipped. The virtual file systems of the kernel (``/proc``, ``/sys``) contain no
    files: if ``folder`` is on one, an error is raised, and folders inside ``folder`` that are on one are skipped.
    ``hidden=False`` skips names that begin with a dot, and everything in folders with these names.
    """
    if is_local(folder):
        yield from _scan_local(os.fspath(folder), recursive=recursive, hidden=hidden, above=frozenset())
        return
    with explained("list", folder):
        filesystem, name = open_remote(folder, fresh=True)
        found = filesystem.find(name, maxdepth=None if recursive else 1, detail=True)
        if not found and protocol_of(folder) in ("http", "https"):
            _is_served(filesystem, name)
    root = name.rstrip("/") + "/"
    for entry_name, entry in found.items():
        # Some stores list the folder's own placeholder object.
        if not entry_name.startswith(root) or entry_name.endswith("/"):
            continue
        inside = entry_name[len(root) :]
        if hidden or not any(component.startswith(".") for component in inside.split("/")):
            yield _remote_info(join(folder, inside), entry)


def list_files(folder: AnyPath, recursive: bool = True, *, hidden: bool = False) -> list[str]:
    """The paths of all files in a folder, in natural order; see `scan`."""
    return sorted((found.path for found in scan(folder, recursive=recursive, hidden=hidden)), key=natural_key)


def match_files(pattern: AnyPath, *, hidden: bool = False) -> list[FileInfo]:
    """The files that a pattern matches (``*``, ``?``, ``[…]``, and ``**`` for any depth), in natural order."""
    text = os.fspath(pattern)
    base = fixed_base(text)
    with explained("list", base):
        if is_local(text):
            found = _match_local(text, base, hidden=hidden)
        else:
            filesystem, name = open_remote(text, fresh=True)
            root = open_remote(base)[1].rstrip("/") + "/"
            entries = filesystem.glob(name, detail=True)
            if not entries and protocol_of(text) in ("http", "https"):
                _is_served(filesystem, name)
            found = [
                _remote_info(join(base, entry_name.removeprefix(root)), entry)
                for entry_name, entry in entries.items()
                if entry.get("type") != "directory"
                and (hidden or not any(c.startswith(".") for c in entry_name.removeprefix(root).split("/")))
            ]
    return sorted(found, key=lambda item: natural_key(item.path))


def _scan_local(folder: str, *, recursive: bool, hidden: bool, above: frozenset[tuple[int, int]]) -> Iterator[FileInfo]:
    with explained("list", folder):
        try:
            place = Path(local_path(folder)).stat()
            kind = kernel_files(place.st_dev)
            if kind and above:
                return
            require_files(folder, kind)
            entries = list(os.scandir(local_path(folder)))
        except FileNotFoundError:
            if above:  # removed after its folder was read
                return
            raise
    here = above | {(place.st_dev, place.st_ino)}
    for entry in entries:
        if entry.name.startswith(".") and not hidden:
            continue
        path = join(folder, entry.name)
        try:
            inside, inner = entry.is_dir(), entry.stat()
        except FileNotFoundError:  # removed since the folder was read, or a broken link
            continue
        except OSError:
            with explained("look at", path):
                raise
        if not inside:
            if stat.S_ISREG(inner.st_mode):
                yield _local_info(path, inner)
            continue
        if recursive and (inner.st_dev, inner.st_ino) not in here:
            yield from _scan_local(path, recursive=True, hidden=hidden, above=here)


def _match_local(pattern: str, base: str, *, hidden: bool) -> list[FileInfo]:
    if has_magic(pattern):
        require_files(base)
    bare = base == "." and not pattern.startswith("./")
    inside = pattern if bare else pattern.removeprefix(base).lstrip("/")
    found = []
    # Path.glob is not used: it cannot skip hidden names, and lists only folders for a final **.
    names = glob.iglob(inside, root_dir=local_path(base), recursive=True, include_hidden=hidden)  # noqa: PTH207
    for name in names:
        path = name if bare else join(base, name)
        try:
            status = Path(local_path(path)).stat()
        except FileNotFoundError:  # removed since the folder was read, or a broken link
            continue
        # A file that is named explicitly may be a pipe.
        if stat.S_ISREG(status.st_mode) or (name == inside and not stat.S_ISDIR(status.st_mode)):
            found.append(_local_info(path, status))
    return found


def _local_info(path: str, status: os.stat_result) -> FileInfo:
    return FileInfo(path, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")


def _remote_info(path: str, entry: dict[str, Any]) -> FileInfo:
    size = int(entry.get("size") or 0)
    version = next((entry[key] for key in _VERSION_KEYS if entry.get(key)), "")
    return FileInfo(path, size, f"{size}-{str(version).strip(chr(34))}")
