"""How are files written so that they appear whole or not at all? Under a hidden name, and then moved. Also removes and
moves files.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import os
import shutil
import time
from pathlib import Path
from typing import Any, Self, cast

from curator_core.errors import UsageError
from curator_core.model.task import FileRecord
from curator_core.storage.errors import explained
from curator_core.storage.names import AnyPath, is_local, local_path, parent
from curator_core.storage.stores import is_object_store, open_remote

_BUFFER_BYTES = 1 << 20
_NAME_BYTES = 255
_FOLDER_TRIES = 10
_REMOVE_SECONDS = 20.0
_REMOVE_PAUSE = 0.02

_counter = itertools.count()


# Writing -------------------------------------------------------------------------------------------------------------


def write_atomic(path: AnyPath, *, durable: bool = True) -> AtomicFile:
    """A file that appears whole under its name when the ``with`` block ends, or not at all if it raises.

    Missing folders are made. An existing file is replaced at the end. ``durable`` waits until a local file and its name
    are on disk. Afterwards ``out.record(rows=…)`` returns the record of the file, with its SHA-256.
    """
    sink = _LocalSink(os.fspath(path), durable) if is_local(path) else _RemoteSink(os.fspath(path))
    return AtomicFile(os.fspath(path), sink)


def write_bytes_atomic(path: AnyPath, data: bytes, *, durable: bool = True) -> FileRecord:
    """Write ``data`` to a file, whole or not at all."""
    with write_atomic(path, durable=durable) as out:
        out.write(data)
    return out.record()


def remove(path: AnyPath) -> None:
    """Remove a file, or a folder with everything in it; do nothing if it does not exist."""
    with explained("remove", path):
        if is_local(path):
            _remove_local(Path(local_path(path)))
            return
        filesystem, name = open_remote(path, fresh=True)
        with contextlib.suppress(FileNotFoundError):
            filesystem.rm(name, recursive=True)


def _remove_local(target: Path) -> None:
    def unless_gone(_: object, __: str, error: BaseException) -> None:
        if not isinstance(error, FileNotFoundError):  # others may remove it at the same time
            raise error

    until = time.monotonic() + _REMOVE_SECONDS
    for attempt in itertools.count():
        try:
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target, onexc=unless_gone)
            else:
                target.unlink(missing_ok=True)
        except OSError as error:
            # Another process has made this folder meanwhile, or written a file to it. Python's error has no number if
            # the folder was just replaced. If the other process is faster, only a pause lets it finish: any number of
            # immediate retries may fail.
            if error.errno not in (errno.ENOTEMPTY, errno.EISDIR, None) or time.monotonic() > until:
                raise
            time.sleep(min(_REMOVE_PAUSE, attempt / 1000))
        else:
            return


def make_folder(path: AnyPath) -> None:
    """Make a folder and those above it; object stores have no folders, so this does nothing there."""
    with explained("make the folder", path):
        if is_local(path):
            Path(local_path(path)).mkdir(parents=True, exist_ok=True)
        elif not is_object_store(path):
            filesystem, name = open_remote(path)
            filesystem.makedirs(name, exist_ok=True)


def move(source: AnyPath, target: AnyPath) -> None:
    """Rename a file in the same store, replacing an existing one; atomic on local disks."""
    with explained("move", source):
        if is_local(source) and is_local(target):
            make_folder(parent(target))
            Path(local_path(source)).replace(local_path(target))
            return
        filesystem, name = open_remote(source)
        other, target_name = open_remote(target)
        if filesystem is not other:
            raise UsageError(
                f"cannot move {os.fspath(source)!r} to {os.fspath(target)!r}: they are in different stores"
            )
        filesystem.mv(name, target_name)


class AtomicFile(io.BufferedWriter):
    """The file that `write_atomic` returns: a binary file that hashes and counts its bytes, and is committed by its
    ``with`` block.
    """

    def __init__(self, path: str, sink: _LocalSink | _RemoteSink) -> None:
        self.path = path
        self._sink = sink
        self._finished = False
        super().__init__(cast(io.RawIOBase, sink), _BUFFER_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # when the interpreter exits, modules may be gone
            self.discard()

    def close(self) -> None:
        """Only flush. Libraries close the files that they get, but only the ``with`` block decides whether the file is
        kept.
        """
        if not self._finished:
            self.flush()

    def commit(self) -> None:
        """Let the file appear under its name; called at the end of a ``with`` block without an error."""
        if self._finished:
            return
        try:
            self.flush()
            self._sink.commit()
        except BaseException:
            self.discard()
            raise
        self._finished = True
        self._sink.close()

    def discard(self) -> None:
        """Discard the bytes written; called at the end of a ``with`` block with an error."""
        if self._finished:
            return
        self._finished = True
        self._sink.discard()
        self._sink.close()

    @property
    def bytes(self) -> int:
        """The number of bytes written so far, without those still in the buffer."""
        return self._sink.count

    @property
    def sha256(self) -> str:
        """The digest of those bytes, in hexadecimal."""
        return self._sink.digest.hexdigest()

    def record(self, rows: int = 0) -> FileRecord:
        """The record of the file under its name; only after the ``with`` block."""
        if not self._finished:
            raise UsageError(f"{self.path!r} is not committed yet: call record() after the with block")
        return FileRecord(self.path, rows, self.bytes, self.sha256)


class _Sink(io.RawIOBase):
    def __init__(self, path: str) -> None:
        self.path = path
        self.count = 0
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.count

    def write(self, data: Any) -> int:
        with explained("write", self.path), memoryview(data).cast("B") as view:
            self._put(view)
            self.digest.update(view)
            self.count += len(view)
            return len(view)

    def _put(self, view: memoryview) -> None:
        raise NotImplementedError


class _LocalSink(_Sink):
    def __init__(self, path: str, durable: bool) -> None:
        super().__init__(path)
        self._durable = durable
        self._target = Path(local_path(path))
        self._descriptor = -1
        with explained("write", path):
            if self._target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        folders = 0
        while self._descriptor < 0:
            self._temporary = self._target.with_name(_temporary_name(self._target.name))
            try:
                self._descriptor = os.open(self._temporary, flags, 0o666)
            except FileExistsError:
                # The name exists: a killed process had the same number, here or on another machine of a shared file
                # system.
                continue
            except FileNotFoundError:
                # Other processes may make or remove this folder at the same time, so it does not help to check whether
                # it exists.
                folders += 1
                if folders > _FOLDER_TRIES:
                    raise
                with contextlib.suppress(FileNotFoundError):
                    _make_durable_folder(self._target.parent)

    def _put(self, view: memoryview) -> None:
        done = 0
        while done < len(view):
            done += os.write(self._descriptor, view[done:])

    def commit(self) -> None:
        with explained("write", self.path):
            if self._durable:
                os.fsync(self._descriptor)
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
            self._temporary.replace(self._target)
            if self._durable:
                _sync_folder(self._target.parent)

    def discard(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
        # If even removing fails (a lost disk, a file system now read-only), the first error is shown.
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)


class _RemoteSink(_Sink):
    def __init__(self, path: str) -> None:
        super().__init__(path)
        with explained("write", path):
            self._filesystem, self._name = open_remote(path)
            self._temporary = self._name
            if not is_object_store(path):
                folder, slash, name = self._name.rpartition("/")
                self._temporary = f"{folder}{slash}{_temporary_name(name)}"
                if folder:
                    self._filesystem.makedirs(folder, exist_ok=True)
            self._file = self._filesystem.open(self._temporary, "wb")

    def _put(self, view: memoryview) -> None:
        # The bytes are copied, because asynchronous stores may still use them when the buffer is written again.
        self._file.write(bytes(view))

    def commit(self) -> None:
        with explained("write", self.path):
            self._file.close()
            if self._temporary != self._name:
                self._filesystem.mv(self._temporary, self._name)

    def discard(self) -> None:
        with contextlib.suppress(Exception):  # the store may have failed; show the first error
            self._file.discard()
        # Otherwise the file would commit its content when it is garbage collected.
        with contextlib.suppress(Exception):
            self._file.closed = True
        if self._temporary != self._name:
            with contextlib.suppress(Exception):
                self._filesystem.rm(self._temporary)


def _temporary_name(name: str) -> str:
    suffix = f".tmp-{os.getpid()}-{next(_counter)}"
    room = _NAME_BYTES - len(suffix) - 1
    return f".{name.encode('utf-8', 'surrogateescape')[:room].decode('utf-8', 'ignore')}{suffix}"


def _make_durable_folder(folder: Path) -> None:
    missing = [folder, *itertools.takewhile(lambda above: not above.exists(), folder.parents)]
    folder.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        _sync_folder(made.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder; they make names durable themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
