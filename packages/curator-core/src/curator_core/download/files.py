"""How is a file downloaded completely? An interrupted download is continued, and no two writers share a file."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curator_core.download.client import Client, Head, Outcome, Sink
from curator_core.download.rules import Failed, Reason, Refused


class FileSink(Sink):
    """Writes an answer to the file ``part``. If the server still has the same file, it continues after the bytes in
    ``part``; otherwise it starts again.
    """

    # 416: ``part`` is not the beginning of the server's file.
    statuses = frozenset({200, 206, 416})

    def __init__(self, part: Path, limit: int | None = None) -> None:
        self.part = part
        self.limit = limit
        self._have = 0
        self._total: int | None = None
        self._out: Any = None

    def request_headers(self) -> dict[str, str]:
        self._have = self.part.stat().st_size
        tag = _read_tag(self.part)
        if not self._have or not tag:
            return {}
        # The tag ensures that it is still the same file; otherwise the server sends the whole new file.
        return {"Range": f"bytes={self._have}-", "If-Range": tag}

    def begin(self, head: Head) -> None:
        asked = head.headers.get("Content-Range", "")
        resumed = head.status == 206 and asked.startswith(f"bytes {self._have}-")
        if head.status == 416 or (head.status == 206 and not resumed):
            os.truncate(self.part, 0)
            raise Failed(Reason.WRONG_RANGE, f"requested from byte {self._have:,}: {asked or 'no such range'}")
        if not resumed:
            self._have = 0
            _write_tag(self.part, head.headers.get("ETag") or head.headers.get("Last-Modified"))
        self._total = None if head.length is None else self._have + head.length
        self._check_size(self._total)
        self._out = self.part.open("ab" if resumed else "wb")

    def write(self, chunk: bytes) -> None:
        self._out.write(chunk)
        self._have += len(chunk)
        self._check_size(self._have)

    def end(self) -> bytes:
        self._out.close()
        if self._total is not None and self._have != self._total:
            raise Failed(Reason.CUT_OFF, f"{self._have:,} of {self._total:,} bytes arrived")
        return b""

    def undo(self) -> None:
        if self._out is not None:
            self._out.close()

    def _check_size(self, size: int | None) -> None:
        if self.limit is not None and size is not None and size > self.limit:
            raise Refused(Reason.TOO_LARGE, f"{size:,} bytes, and {self.limit:,} are allowed")


def fetch_file(client: Client, url: str, target: Path) -> Outcome | None:
    """Fetch an address into a local file; return None if the file exists already.

    The file appears whole or not at all. Until then the bytes received are in a file beside it, and the next call
    continues from there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return None
    part = target.with_name(f".{target.name}.part")
    with _locked(part):
        if target.exists():  # another run has fetched it while this one waited
            return None
        outcome = client.wait(client.fetch(url, FileSink(part, client.rules.max_bytes)))
        if outcome.ok:
            _tag_file(part).unlink(missing_ok=True)
            part.replace(target)
    return outcome


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[None]:
    """The partial file, created if missing and locked against other writers; an empty one is removed."""
    while True:
        held = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(held, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                    raise  # some network file systems have no locks: there the user must run only one at a time
            if _is_at(held, part):  # otherwise the previous writer has renamed the file to its final name
                break
        except BaseException:
            os.close(held)
            raise
        os.close(held)
    try:
        yield
    finally:
        if _is_at(held, part) and not os.fstat(held).st_size:
            part.unlink()
            _tag_file(part).unlink(missing_ok=True)
        os.close(held)


def _is_at(held: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(held), path.stat())
    except FileNotFoundError:
        return False


def _tag_file(part: Path) -> Path:
    return part.with_suffix(".tag")


def _write_tag(part: Path, tag: str | None) -> None:
    # A weak tag does not guarantee the same bytes.
    if tag and not tag.startswith("W/"):
        _tag_file(part).write_text(json.dumps(tag), "utf-8")
    else:
        _tag_file(part).unlink(missing_ok=True)


def _read_tag(part: Path) -> str | None:
    try:
        tag = json.loads(_tag_file(part).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return tag if isinstance(tag, str) else None
