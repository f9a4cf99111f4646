"""How are paths and URLs joined, made relative, sorted and split as text? Nothing is opened."""

from __future__ import annotations

import itertools
import os
import re
from functools import lru_cache

from curator_core.errors import UsageError

type AnyPath = str | os.PathLike[str]

_UNUSUAL = re.compile(r"(?<=/)\.{0,2}(?:/|\Z)")  # matches a part that is empty, `.` or `..`
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:://|::)")
_TEMPORARY = re.compile(r"\..*\.tmp-\d+-\d+")
_DIGITS = re.compile(r"([0-9]+)")


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
        raise UsageError(f"{text!r} is not a local path, but a local path is needed here")
    return text


def absolute(path: AnyPath, base: AnyPath = ".") -> str:
    """A local path made absolute, relative to ``base``; a URL is returned unchanged. If ``base`` is a URL, a local path
    is joined to it.
    """
    text = os.fspath(path)
    if not is_local(text):
        return text
    if not is_local(base):
        return text if text.startswith("/") else join(base, text)
    # resolve() would follow links, and a Path takes five times as long.
    return os.path.abspath(os.path.join(local_path(base), local_path(text)))  # noqa: PTH100, PTH118


def join(base: AnyPath, *names: str) -> str:
    """``base/name/name``, for both local paths and URLs."""
    text = os.fspath(base)
    for name in names:
        text = text + name if text.endswith("/") else f"{text}/{name}" if text else name
    return text


def relative(path: AnyPath, base: AnyPath) -> str:
    """``path`` relative to the folder ``base``, with forward slashes."""
    text, folder = os.fspath(path), os.fspath(base).rstrip("/") + "/"
    # This is the usual case, which occurs for each file of a run: names that `absolute` would not change.
    if text.startswith(folder) and not _UNUSUAL.search(text, len(folder) - 1):
        return text[len(folder) :]
    if is_local(text) and is_local(folder):
        text, folder = absolute(text), absolute(folder).rstrip("/") + "/"
    if not text.startswith(folder):
        raise UsageError(f"{os.fspath(path)!r} is not inside {os.fspath(base)!r}")
    return text[len(folder) :].lstrip("/") if is_local(text) else text[len(folder) :]


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
    """A sort key for paths, folder by folder, that puts ``part-2`` before ``part-10``."""
    text = os.fspath(path)
    return tuple(_component_key(component) for component in text.split("/")), text


def is_temporary(path: AnyPath) -> bool:
    """Whether `write_atomic` uses this name for an incomplete file; if nothing is running, the file is a leftover."""
    return _TEMPORARY.fullmatch(file_name(path)) is not None


@lru_cache(maxsize=4096)  # most components are folders that many files share
def target_name(path: AnyPath) -> str:
    """The final name of a temporary file (see `is_temporary`)."""
    return file_name(path).rpartition(".tmp-")[0].removeprefix(".")


def _component_key(text: str) -> tuple[str | int, ...]:
    # Numbers are compared by length and then as text, because int() rejects numbers with thousands of digits.
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


def has_magic(path: str) -> bool:
    """Whether a path is a pattern."""
    return any(character in path for character in "*?[")


def fixed_base(pattern: str) -> str:
    """The folder above the first component that is a pattern; matches are relative to it."""
    scheme = pattern[: max(pattern.rfind("://") + 3, pattern.rfind("::") + 2, 2)] if _URL.match(pattern) else ""
    components = pattern[len(scheme) :].split("/")[:-1]
    base = "/".join(itertools.takewhile(lambda component: not has_magic(component), components))
    return scheme + base or ("/" if pattern.startswith("/") else ".")
