"""Files: local paths and any fsspec URL behind one small set of functions, and files that appear whole or not at all.

Local paths never touch fsspec. Credentials and endpoints of a store come from where its own tools look for them
(environment, configuration files) or from fsspec's configuration.

    with write_atomic("out/part.jsonl") as out:
        out.write(b"...")
    record = out.record(rows=1)
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import io
import itertools
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

from curator_core.errors import CuratorError, MissingDependency, OutputError, UsageError, nearest
from curator_core.model.task import FileRecord

type AnyPath = str | os.PathLike[str]

# These show a file when its upload is committed. Every other file system gets a temporary name and a rename.
_OBJECT_STORES = frozenset({"abfs", "abfss", "adl", "az", "gcs", "gs", "oci", "oss", "r2", "s3", "s3a", "tos"})
_BUFFER_BYTES = 1 << 20
_NAME_BYTES = 255
_FOLDER_TRIES = 10
_REMOVE_TRIES = 100
_UNUSUAL = re.compile(r"(?<=/)\.{0,2}(?:/|\Z)")  # a part that is empty, `.` or `..`
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:://|::)")
_TEMPORARY = re.compile(r"\..*\.tmp-\d+-\d+")
_DIGITS = re.compile(r"([0-9]+)")
# What tells that a remote file has changed, in the order of trust; stores name it differently.
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
_WRITING = frozenset({"write", "make the folder", "move", "remove"})
_counter = itertools.count()


# Names ---------------------------------------------------------------------------------------------------------------


def is_local(path: AnyPath) -> bool:
    """Whether a path names something on this machine's file systems: a plain path, or a ``file://`` URL."""
    text = os.fspath(path)
    return not _URL.match(text) or _is_file_url(text)


def local_path(path: AnyPath) -> str:
    """A plain path for a local path or a ``file://`` URL."""
    text = os.fspath(path)
    if _is_file_url(text):
        text = text.partition("://")[2]
    elif _URL.match(text):
        raise UsageError(f"{text!r} is not a local path, and this needs one")
    return text


def absolute(path: AnyPath, base: AnyPath = ".") -> str:
    """A local path made absolute against ``base``; a URL as it is. A local path under a URL base joins it."""
    text = os.fspath(path)
    if not is_local(text):
        return text
    if not is_local(base):
        return text if text.startswith("/") else join(base, text)
    return os.path.abspath(Path(local_path(base), local_path(text)))  # noqa: PTH100 - resolve() would follow links


def join(base: AnyPath, *names: str) -> str:
    """``base/name/name``, for local paths and URLs alike."""
    text = os.fspath(base)
    for name in names:
        text = text + name if text.endswith("/") else f"{text}/{name}" if text else name
    return text


def relative(path: AnyPath, base: AnyPath) -> str:
    """``path`` as seen from the folder ``base``, with forward slashes."""
    text, folder = os.fspath(path), os.fspath(base).rstrip("/") + "/"
    # The usual case, and a run asks for each of its files: names that are written as they would be after `absolute`.
    if text.startswith(folder) and not _UNUSUAL.search(text, len(folder)):
        return text[len(folder) :]
    if is_local(text) and is_local(folder):
        text, folder = absolute(text), absolute(folder).rstrip("/") + "/"
    if not text.startswith(folder):
        raise UsageError(f"{os.fspath(path)!r} is not inside {os.fspath(base)!r}")
    return text[len(folder) :]


def file_name(path: AnyPath) -> str:
    """The last component of a path or URL."""
    return os.fspath(path).rstrip("/").rpartition("/")[2]


def parent(path: AnyPath) -> str:
    """The folder that a file is in; ``.`` for a bare local name."""
    text = os.fspath(path).rstrip("/")
    head, slash, _ = text.rpartition("/")
    if not slash:
        return "."
    return f"{head}/" if head.endswith(":/") else head or "/"


def natural_key(path: AnyPath) -> tuple[tuple[tuple[str | int, ...], ...], str]:
    """A sort key that puts ``part-2`` before ``part-10``, folder by folder."""
    text = os.fspath(path)
    return tuple(_component_key(component) for component in text.split("/")), text


def is_temporary(path: AnyPath) -> bool:
    """Whether this is a name that `write_atomic` uses before a file is whole: a leftover, if nothing is running."""
    return _TEMPORARY.fullmatch(file_name(path)) is not None


@lru_cache(maxsize=4096)  # most components are folders, which many files share
def target_name(path: AnyPath) -> str:
    """The name that a temporary file (see `is_temporary`) was to have."""
    return file_name(path).rpartition(".tmp-")[0].removeprefix(".")


def _component_key(text: str) -> tuple[str | int, ...]:
    # Numbers compare by length and then as text, because int() refuses numbers of thousands of digits.
    key: list[str | int] = []
    for index, piece in enumerate(_DIGITS.split(text)):
        if index % 2:
            number = piece.lstrip("0")
            key += [len(number), number]
        else:
            key.append(piece)
    return tuple(key)


def _is_file_url(text: str) -> bool:
    return text.startswith(("file://", "local://"))


# Reading -------------------------------------------------------------------------------------------------------------


def open_input(path: AnyPath) -> BinaryIO:
    """A file opened for reading bytes, seekable."""
    with _explained("read", path):
        if is_local(path):
            return Path(local_path(path)).open("rb")
        filesystem, name = _remote(path)
        return cast(BinaryIO, filesystem.open(name, "rb"))


def read_bytes(path: AnyPath) -> bytes:
    """The whole content of a file."""
    with open_input(path) as file, _explained("read", path):
        return file.read()


def exists(path: AnyPath) -> bool:
    """Whether a file or folder stands under this name now."""
    with _explained("look at", path):
        if is_local(path):
            return Path(local_path(path)).exists()
        filesystem, name = _remote(path, fresh=True)
        return bool(filesystem.exists(name))


def is_folder(path: AnyPath) -> bool:
    """Whether this is a folder (on an object store: whether files stand under it)."""
    with _explained("look at", path):
        if is_local(path):
            return Path(local_path(path)).is_dir()
        if _protocol(path) in ("http", "https"):
            # fsspec would download the file to see whether it is a page of links.
            return os.fspath(path).endswith("/")
        filesystem, name = _remote(path, fresh=True)
        return bool(filesystem.isdir(name))


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file that stands: its path as the user would write it, its size, and what changes when its content does."""

    path: str
    size: int
    fingerprint: str


def info(path: AnyPath) -> FileInfo:
    """Size and fingerprint of one file."""
    with _explained("look at", path):
        if is_local(path):
            return _local_info(os.fspath(path), Path(local_path(path)).stat())
        filesystem, name = _remote(path, fresh=True)
        return _remote_info(os.fspath(path), filesystem.info(name))


def fingerprint(path: AnyPath) -> str:
    """What changes when a file's content does: size and modification time, or size and etag on an object store."""
    return info(path).fingerprint


def scan(folder: AnyPath, *, recursive: bool = True, hidden: bool = False) -> Iterator[FileInfo]:
    """The files in a folder, in the order the file system gives; symbolic links are followed, loops are not.

    ``hidden=False`` leaves out names that begin with a dot, and everything under such folders.
    """
    if is_local(folder):
        yield from _scan_local(os.fspath(folder), recursive=recursive, hidden=hidden, above=frozenset())
        return
    with _explained("list", folder):
        filesystem, name = _remote(folder, fresh=True)
        found = filesystem.find(name, maxdepth=None if recursive else 1, detail=True)
    root = name.rstrip("/") + "/"
    for entry_name, entry in found.items():
        # Some stores answer with the folder's own placeholder object.
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
    with _explained("list", base):
        if is_local(text):
            found = _match_local(text, base, hidden=hidden)
        else:
            filesystem, name = _remote(text, fresh=True)
            root = _remote(base)[1].rstrip("/") + "/"
            entries = filesystem.glob(name, detail=True)
            found = [
                _remote_info(join(base, entry_name.removeprefix(root)), entry)
                for entry_name, entry in entries.items()
                if entry.get("type") != "directory"
                and (hidden or not any(c.startswith(".") for c in entry_name.removeprefix(root).split("/")))
            ]
    return sorted(found, key=lambda item: natural_key(item.path))


def has_magic(path: str) -> bool:
    """Whether a path is a pattern."""
    return any(character in path for character in "*?[")


def fixed_base(pattern: str) -> str:
    """The folder above the first component that is a pattern: what a match is relative to."""
    scheme = pattern[: max(pattern.rfind("://") + 3, pattern.rfind("::") + 2, 2)] if _URL.match(pattern) else ""
    components = pattern[len(scheme) :].split("/")[:-1]
    base = "/".join(itertools.takewhile(lambda component: not has_magic(component), components))
    return scheme + base or ("/" if pattern.startswith("/") else ".")


def _scan_local(folder: str, *, recursive: bool, hidden: bool, above: frozenset[tuple[int, int]]) -> Iterator[FileInfo]:
    with _explained("list", folder):
        try:
            place = Path(local_path(folder)).stat()
            entries = list(os.scandir(local_path(folder)))
        except FileNotFoundError:
            if above:  # removed since the folder that it was in was read
                return
            raise
    here = above | {(place.st_dev, place.st_ino)}
    for entry in entries:
        if entry.name.startswith(".") and not hidden:
            continue
        path = join(folder, entry.name)
        try:
            if not entry.is_dir():
                yield _local_info(path, entry.stat())
                continue
            inner = entry.stat()
        except FileNotFoundError:  # removed since the folder was read, or a link to nothing
            continue
        if recursive and (inner.st_dev, inner.st_ino) not in here:
            yield from _scan_local(path, recursive=True, hidden=hidden, above=here)


def _match_local(pattern: str, base: str, *, hidden: bool) -> list[FileInfo]:
    bare = base == "." and not pattern.startswith("./")
    inside = pattern if bare else pattern.removeprefix(base).lstrip("/")
    found = []
    # Not Path.glob, which cannot leave out hidden names and lists folders alone for a final **.
    names = glob.iglob(inside, root_dir=local_path(base), recursive=True, include_hidden=hidden)  # noqa: PTH207
    for name in names:
        path = name if bare else join(base, name)
        try:
            status = Path(local_path(path)).stat()
        except FileNotFoundError:  # removed since the folder was read, or a link to nothing
            continue
        if not stat.S_ISDIR(status.st_mode):
            found.append(_local_info(path, status))
    return found


def _local_info(path: str, status: os.stat_result) -> FileInfo:
    return FileInfo(path, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")


def _remote_info(path: str, entry: dict[str, Any]) -> FileInfo:
    size = int(entry.get("size") or 0)
    version = next((entry[key] for key in _VERSION_KEYS if entry.get(key)), "")
    return FileInfo(path, size, f"{size}-{str(version).strip(chr(34))}")


# Writing -------------------------------------------------------------------------------------------------------------


def write_atomic(path: AnyPath, *, durable: bool = True) -> AtomicFile:
    """A file that appears under its name whole, when the ``with`` block ends, or not at all, when it raises.

    Missing folders are made. An existing file is replaced at the end. ``durable`` waits until a local file and its
    name are on disk. Afterwards ``out.record(rows=…)`` says what was written, with its SHA-256.
    """
    sink = _LocalSink(os.fspath(path), durable) if is_local(path) else _RemoteSink(os.fspath(path))
    return AtomicFile(os.fspath(path), sink)


def write_bytes_atomic(path: AnyPath, data: bytes, *, durable: bool = True) -> FileRecord:
    """Put ``data`` under a name, whole or not at all."""
    with write_atomic(path, durable=durable) as out:
        out.write(data)
    return out.record()


def remove(path: AnyPath) -> None:
    """Remove a file, or a folder with everything in it; one that is not there is fine."""
    with _explained("remove", path):
        if is_local(path):
            _remove_local(Path(local_path(path)))
            return
        filesystem, name = _remote(path, fresh=True)
        with contextlib.suppress(FileNotFoundError):
            filesystem.rm(name, recursive=True)


def _remove_local(target: Path) -> None:
    def unless_gone(_: object, __: str, error: BaseException) -> None:
        if not isinstance(error, FileNotFoundError):  # others may remove it at the same time
            raise error

    for attempt in range(1, _REMOVE_TRIES + 1):
        try:
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target, onexc=unless_gone)
            else:
                target.unlink(missing_ok=True)
        except OSError as error:
            # Another has made this folder meanwhile, or put a file into it. Python has no number for a folder that is
            # not the one that it was a moment ago.
            if error.errno not in (errno.ENOTEMPTY, errno.EISDIR, None) or attempt == _REMOVE_TRIES:
                raise
        else:
            return


def make_folder(path: AnyPath) -> None:
    """Make a folder and those above it; object stores have none, so nothing happens there."""
    with _explained("make the folder", path):
        if is_local(path):
            Path(local_path(path)).mkdir(parents=True, exist_ok=True)
        elif not _is_object_store(path):
            filesystem, name = _remote(path)
            filesystem.makedirs(name, exist_ok=True)


def move(source: AnyPath, target: AnyPath) -> None:
    """Give a file another name in the same store, replacing what is there; atomic on local disks."""
    with _explained("move", source):
        if is_local(source) and is_local(target):
            make_folder(parent(target))
            Path(local_path(source)).replace(local_path(target))
            return
        filesystem, name = _remote(source)
        other, target_name = _remote(target)
        if filesystem is not other:
            raise UsageError(
                f"cannot move {os.fspath(source)!r} to {os.fspath(target)!r}: they are in different stores"
            )
        filesystem.mv(name, target_name)


class AtomicFile(io.BufferedWriter):
    """What `write_atomic` gives: a binary file that hashes and counts, and is committed by its ``with`` block."""

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
        with contextlib.suppress(Exception):  # at the end of the interpreter modules may be gone
            self.discard()

    def close(self) -> None:
        """Flush. Libraries close what they are given; only the ``with`` block decides what becomes of the file."""
        if not self._finished:
            self.flush()

    def commit(self) -> None:
        """Let the file appear under its name; what a ``with`` block without an error does."""
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
        """Forget what was written; what a ``with`` block with an error does."""
        if self._finished:
            return
        self._finished = True
        self._sink.discard()
        self._sink.close()

    @property
    def bytes(self) -> int:
        """Bytes written so far, without those still in the buffer."""
        return self._sink.count

    @property
    def sha256(self) -> str:
        """The digest of those bytes, in hexadecimal."""
        return self._sink.digest.hexdigest()

    def record(self, rows: int = 0) -> FileRecord:
        """What stands under the name now; only after the ``with`` block."""
        if not self._finished:
            raise UsageError(f"{self.path!r} is not committed yet: take record() after the with block")
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
        with _explained("write", self.path), memoryview(data).cast("B") as view:
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
        with _explained("write", path):
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
                # A killed process had the same number, here or on another machine of a shared file system.
                continue
            except FileNotFoundError:
                # Others may make this folder, or remove it, at the same time, so whether it exists now says nothing.
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
        with _explained("write", self.path):
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
        # Where even removing fails (a disk gone, a file system now read-only), the first error is the one to show.
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)


class _RemoteSink(_Sink):
    def __init__(self, path: str) -> None:
        super().__init__(path)
        with _explained("write", path):
            self._filesystem, self._name = _remote(path)
            self._temporary = self._name
            if not _is_object_store(path):
                folder, slash, name = self._name.rpartition("/")
                self._temporary = f"{folder}{slash}{_temporary_name(name)}"
                if folder:
                    self._filesystem.makedirs(folder, exist_ok=True)
            self._file = self._filesystem.open(self._temporary, "wb")

    def _put(self, view: memoryview) -> None:
        # A copy, because asynchronous stores may still hold it when the buffer is used again.
        self._file.write(bytes(view))

    def commit(self) -> None:
        with _explained("write", self.path):
            self._file.close()
            if self._temporary != self._name:
                self._filesystem.mv(self._temporary, self._name)

    def discard(self) -> None:
        with contextlib.suppress(Exception):  # the store may be what failed; the first error is the one to show
            self._file.discard()
        # Otherwise the file would commit what it has when it is collected.
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
        # Some network file systems cannot sync a folder; they order names themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


# Stores --------------------------------------------------------------------------------------------------------------


def _protocol(path: AnyPath) -> str:
    return re.split("://|::", os.fspath(path), maxsplit=1)[0].lower()


def _is_object_store(path: AnyPath) -> bool:
    return _protocol(path) in _OBJECT_STORES


def _remote(path: AnyPath, *, fresh: bool = False) -> tuple[Any, str]:
    """The fsspec file system of a URL and the name in it; ``fresh`` forgets listings that it may have kept."""
    from fsspec.core import url_to_fs  # local paths, the common case, do without it

    text = os.fspath(path)
    try:
        filesystem, name = url_to_fs(text)
    except ImportError as error:
        raise MissingDependency(f"{text!r} needs another package for {_protocol(text)}://: {error}") from error
    except ValueError as error:
        if "rotocol" not in str(error):
            raise UsageError(f"{text!r} is not a URL that can be used: {error}") from error
        from fsspec import available_protocols  # see above

        hint = nearest(_protocol(text), available_protocols())
        raise UsageError(f"{text!r} begins with an unknown protocol {_protocol(text)!r}{hint}") from error
    if fresh:
        filesystem.invalidate_cache()
    return filesystem, name


# Errors --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _explained(verb: str, path: AnyPath) -> Iterator[None]:
    try:
        yield
    except CuratorError:
        raise
    except OSError as error:
        explained = _translated(error, verb, os.fspath(path))
        if verb in _WRITING:
            explained = OutputError(str(explained))
        raise explained from error


def _translated(error: OSError, verb: str, path: str) -> CuratorError:
    what = f"cannot {verb} {path!r}: "
    code = error.errno
    if isinstance(error, FileNotFoundError):
        return UsageError(f"{what}there is no such file or folder{_neighbour(path)}")
    if code in (errno.ENOSPC, errno.EDQUOT):
        return CuratorError(
            f"{what}no space is left there. Nothing half-written stays; free some space, or choose another place, "
            "and start the run again with resume"
        )
    if code == errno.EROFS:
        return UsageError(f"{what}the file system is read-only: choose a folder that can be written")
    if isinstance(error, PermissionError):
        return UsageError(f"{what}no permission ({error}): check its owner and mode, or the store's credentials")
    if isinstance(error, IsADirectoryError):
        return UsageError(f"{what}it is a folder, and a file is needed")
    if isinstance(error, NotADirectoryError | FileExistsError):
        return UsageError(f"{what}a part of the path is a file, and a folder is needed")
    if code == errno.ENAMETOOLONG:
        return UsageError(f"{what}the name is longer than the file system allows")
    if code == errno.EMFILE:
        return CuratorError(f"{what}too many files are open: raise the limit with `ulimit -n`, or use fewer workers")
    return CuratorError(f"{what}{error}")


def _neighbour(path: str) -> str:
    """A hint at the nearest name in the deepest folder of ``path`` that exists."""
    if not is_local(path):
        return ""
    target = Path(os.path.abspath(local_path(path)))  # noqa: PTH100 - resolve() would follow links
    child = target
    for folder in target.parents:
        if folder.is_dir():
            try:
                names: Iterable[str] = [entry.name for entry in itertools.islice(os.scandir(folder), 1000)]
            except OSError:
                return ""
            where = "" if folder == target.parent else f"; {str(folder)!r} exists, {child.name!r} in it does not"
            return f"{where}{nearest(child.name, names)}"
        child = folder
    return ""
