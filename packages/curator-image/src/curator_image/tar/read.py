"""Reads the members of a tar one after the other, reports hostile and broken ones, and limits the memory.

It reads ustar, old v7, GNU long names and pax, also concatenated archives, plain or gzipped. Any member that is not a
plain file with a safe name becomes a `Problem` with its position; after a damaged header, the reader searches for the
next good one.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from curator_image.tar.names import MAX_NAME, clean_name, unsafe_name

BLOCK = 512
_ZEROS = bytes(BLOCK)
# The largest size of a long name or a pax header.
MAX_HEADER_BYTES = 1 << 20
_SKIP_BYTES = 1 << 20

# The reasons in rejects.
BAD_HEADER = "bad tar header"
TRUNCATED_TAR = "truncated tar"
UNSAFE_NAME = "unsafe name"
LINK = "link in tar"
DEVICE = "device in tar"
SPARSE = "sparse file in tar"
NESTED = "archive in tar"
MEMBER_TOO_LARGE = "member too large"
UNKNOWN_TYPE = "unknown member type"

ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".zip", ".7z", ".rar")
_ARCHIVES = tuple(ending.encode() for ending in ARCHIVES)
# Kinds of members, by the letter in their header.
_EXTENDED = (b"x", b"g", b"X", b"L", b"K")  # their content describes the members that follow
_FOLDERS = (b"5", b"V", b"D")  # folders and volume labels: they have no content
_LINKS = (b"1", b"2")
_DEVICES = (b"3", b"4", b"6")
_FILES = (b"0", b"\0", b"7")


@dataclass(frozen=True, slots=True)
class Member:
    """A plain file of an archive. ``header_at`` is the position of its first header, ``data_at`` that of its bytes."""

    name: str
    data: bytes
    header_at: int
    data_at: int


@dataclass(frozen=True, slots=True)
class Problem:
    """A part of an archive that is not used, and why. ``name`` is the readable part of its name."""

    reason: str
    name: str
    offset: int
    message: str


class _Truncated(Exception):
    pass


class _BadField(ValueError):
    pass


def read_tar(
    stream: BinaryIO, *, max_member_bytes: int = 256 << 20, wanted: Callable[[str], bool] | None = None
) -> Iterator[Member | Problem]:
    """The members of an archive in order. ``stream`` need not seek; at most one member is in memory.

    With ``wanted``, members with other names have no data; a stream that can seek does not read them.
    """
    source = _Source(_plain(stream))
    pending = _Pending()
    while True:
        try:
            block = yield from _next_header(source, pending)
            if block is None:
                return
            size = _size(block, pending)
            if block[156:157] in _EXTENDED:
                yield from _extended(source, block, size, pending)
            else:
                yield from _member(source, block, size, pending, max_member_bytes, wanted)
        except _BadField as error:
            yield Problem(BAD_HEADER, _raw_name(block or b""), pending.at, str(error))
            pending.reset()
        except (_Truncated, EOFError, OSError, zlib.error) as error:
            where = "a member" if pending.within_member else "a header"
            yield Problem(TRUNCATED_TAR, pending.name, pending.at, f"the archive ends within {where} ({error})")
            return


@dataclass(slots=True)
class _Pending:
    """The information about the next member from the headers so far.

    ``at`` is the position of the newest header, ``started`` that of the first header of the next member. A global pax
    header (``every``) applies to all members after it, so `reset` keeps it.
    """

    at: int = 0
    started: int | None = None
    long_name: bytes | None = None
    pax: dict[str, bytes] = field(default_factory=dict)
    every: dict[str, bytes] = field(default_factory=dict)
    within_member: bool = False
    name: str = ""

    def reset(self) -> None:
        self.started = self.long_name = None
        self.pax = {}


def _next_header(source: _Source, pending: _Pending) -> Generator[Problem, None, bytes | None]:
    """The next readable header, or None at the end; a damaged region before it is one problem."""
    lost_at: int | None = None
    while True:
        pending.at, pending.within_member, pending.name = source.at, False, ""
        block = source.header()
        if block is None:
            if source.at == 0:
                yield Problem(TRUNCATED_TAR, "", 0, "the file is empty")
            if lost_at is not None:
                yield Problem(
                    BAD_HEADER, "", lost_at, f"there is no readable header up to the end at byte {source.at:,}"
                )
            return None
        if block == _ZEROS:  # the end, or the seam of two archives
            pending.reset()
        elif not _checksum_holds(block):
            lost_at = pending.at if lost_at is None else lost_at
            pending.reset()
        else:
            if lost_at is not None:
                yield Problem(BAD_HEADER, "", lost_at, f"there is no readable header up to byte {pending.at:,}")
            if pending.started is None:
                pending.started = pending.at
            pending.within_member = True
            return block


def _extended(source: _Source, block: bytes, size: int, pending: _Pending) -> Iterator[Problem]:
    """Store the information of an extended header about the next member or about all members."""
    if size > MAX_HEADER_BYTES:
        source.skip(size)
        yield Problem(BAD_HEADER, _raw_name(block), pending.at, f"an extended header of {size:,} bytes")
        return
    body = source.data(size)
    kind = block[156:157]
    try:
        if kind == b"L":
            pending.long_name = body.rstrip(b"\0")
        elif kind in (b"x", b"X"):
            pending.pax = _pax(body)
        elif kind == b"g":
            pending.every |= _pax(body)
            pending.every.pop("size", None)
            pending.started = None
    except _BadField as error:
        # Earlier headers of the same member remain valid.
        yield Problem(BAD_HEADER, _raw_name(block), pending.at, str(error))


def _member(
    source: _Source,
    block: bytes,
    size: int,
    pending: _Pending,
    max_member_bytes: int,
    wanted: Callable[[str], bool] | None,
) -> Iterator[Member | Problem]:
    """The member after a header, if it can be used."""
    raw = (pending.pax.get("path") or pending.long_name or pending.every.get("path") or _name(block)).rstrip(b"\0")
    kind = block[156:157]
    sparse = kind == b"S" or any(key.startswith("GNU.sparse") for key in pending.pax)
    header_at = pending.at if pending.started is None else pending.started
    pending.name = _shown(raw)
    pending.reset()
    if kind in _FOLDERS:
        source.skip(size)
        return
    problem = _unusable(raw, kind, size, sparse, max_member_bytes)
    if problem is None:
        data_at = source.at
        name = clean_name(raw.decode("utf-8"))
        if wanted is None or wanted(name):
            data = source.data(size)
        else:
            source.pass_over(size)
            data = b""
        yield Member(name, data, header_at, data_at)
        return
    if kind not in (*_LINKS, *_DEVICES):  # these have no data, whatever their size field says
        source.skip(size)
    yield Problem(problem[0], pending.name, header_at, problem[1])


def _unusable(raw: bytes, kind: bytes, size: int, sparse: bool, max_member_bytes: int) -> tuple[str, str] | None:
    """Why a member is not used: a reason and a message, or None."""
    if kind in _LINKS:
        return LINK, "hard links and symbolic links are not followed"
    if kind in _DEVICES:
        return DEVICE, "devices and pipes are not opened"
    if sparse:
        return SPARSE, "sparse files are not expanded"
    if kind not in _FILES:
        return UNKNOWN_TYPE, f"type {kind!r}"
    reason = unsafe_name(raw)
    if reason:
        return UNSAFE_NAME, reason
    if raw.lower().endswith(_ARCHIVES):
        return NESTED, "archives within archives are not opened"
    if size > max_member_bytes:
        return MEMBER_TOO_LARGE, f"{size:,} bytes, more than {max_member_bytes:,}"
    return None


def looks_like_tar(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a tar, or is gzipped and may be one."""
    return head[:2] == b"\x1f\x8b" or (len(head) >= BLOCK and any(head[:100]) and _checksum_holds(head[:BLOCK]))


# Fields --------------------------------------------------------------------------------------------------------------


def _checksum_holds(block: bytes) -> bool:
    try:
        said = _number(block[148:156])
    except _BadField:
        return False
    # The checksum field itself counts as eight spaces. Old writers added signed bytes.
    outside = block[:148] + block[156:]
    # The low half of an Adler-32 is one plus the sum of all bytes, modulo 65521; this is twenty times as fast as `sum`.
    low = zlib.adler32(outside) & 0xFFFF
    if (said - 255 - low) % 65521 == 0 and 0 <= said <= 504 * 255 + 256:
        return True
    total = sum(outside) + 256
    if said == total:
        return True
    high = sum(byte > 127 for byte in block[:148]) + sum(byte > 127 for byte in block[156:])
    return said == total - 256 * high


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # base 256, for numbers that are too large for octal digits
        if field[0] != 0x80:
            raise _BadField("a negative number")
        return int.from_bytes(field[1:], "big")
    text = field.rstrip(b"\0 ")
    if not text.isdigit():
        text = field.split(b"\0", 1)[0].strip()
    if not text:
        return 0
    if not text.isdigit():
        raise _BadField(f"{field!r} is not an octal number")
    try:
        return int(text, 8)
    except ValueError as error:
        raise _BadField(f"{field!r} is not an octal number") from error


def _size(block: bytes, pending: _Pending) -> int:
    """How many bytes follow a header; a pax header before it overrides the size."""
    size = _number(block[124:136])
    if "size" in pending.pax and block[156:157] not in _EXTENDED:
        size = _decimal(pending.pax["size"])
    if size >= 1 << 62:
        raise _BadField(f"a size of {size:,} bytes")
    return size


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise _BadField(f"{value[:40]!r} is not a size")
    return int(value)


def _name(block: bytes) -> bytes:
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0":
        prefix = block[345:500].split(b"\0", 1)[0]
        if prefix:
            return prefix + b"/" + name
    return name


def _raw_name(block: bytes) -> str:
    return _shown(_name(block))


def _shown(raw: bytes) -> str:
    return raw[:MAX_NAME].decode("utf-8", "backslashreplace")


def _pax(body: bytes) -> dict[str, bytes]:
    """``length key=value`` records."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(body) and body[at : at + 1] != b"\0":
        space = body.find(b" ", at, at + 20)
        if space < 0:
            raise _BadField("a pax record without a length")
        length = _decimal(body[at:space])
        record = body[space + 1 : at + length]
        if length <= space + 1 - at or at + length > len(body) or not record.endswith(b"\n"):
            raise _BadField("a pax record with a wrong length")
        key, equals, value = record[:-1].partition(b"=")
        if not equals:
            raise _BadField("a pax record without a value")
        found[key.decode("utf-8", "backslashreplace")] = value
        at += length
    return found


# The stream ----------------------------------------------------------------------------------------------------------


class _Source:
    """A stream that counts its bytes; it joins short reads, and raises if the stream ends within a header or a member."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.at = 0

    def header(self) -> bytes | None:
        block = self._read(BLOCK)
        if not block:
            return None
        if len(block) < BLOCK:
            raise _Truncated(f"{len(block)} of {BLOCK} bytes")
        return block

    def data(self, size: int) -> bytes:
        body = self._read(size)
        if len(body) < size:
            raise _Truncated(f"{len(body):,} of {size:,} bytes")
        padding = -size % BLOCK
        if padding:
            self._read(padding)  # the last padding of a truncated archive may be missing: the member is complete
        return body

    def skip(self, size: int) -> None:
        left = size + -size % BLOCK
        while left:
            part = self._read(min(left, _SKIP_BYTES))
            if not part:
                raise _Truncated(f"{left:,} bytes are missing")
            left -= len(part)

    def pass_over(self, size: int) -> None:
        """Like `skip`, but without reading if the stream can seek; the end of a truncated archive is not noticed then."""
        left = size + -size % BLOCK
        if isinstance(self._stream, _Joined) and self._stream.pass_over(left):
            self.at += left
        else:
            self.skip(size)

    def _read(self, size: int) -> bytes:
        # Never read more than a buffer at once: a header may claim a size that is larger than the archive.
        if size <= _SKIP_BYTES:
            body = self._stream.read(size)
            self.at += len(body)
            if len(body) == size or not body:
                return body
            parts = [body]
        else:
            parts = []
        have = sum(map(len, parts))
        while have < size:
            body = self._stream.read(min(size - have, _SKIP_BYTES))
            if not body:
                break
            parts.append(body)
            have += len(body)
            self.at += len(body)
        return b"".join(parts)


def _plain(stream: BinaryIO) -> BinaryIO:
    """The stream, unzipped if it is gzipped."""
    head = stream.read(2)
    joined = cast(BinaryIO, _Joined(head, stream))
    return cast(BinaryIO, gzip.GzipFile(fileobj=joined)) if head == b"\x1f\x8b" else joined


class _Joined:
    """Bytes that were already read, followed by the rest of their stream."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        if not self._head:
            return self._rest.read(size)
        if size < 0:
            size = len(self._head) + (1 << 62)
        part, self._head = self._head[:size], self._head[size:]
        if len(part) == size:
            return part
        return part + self._rest.read(size - len(part) if size < 1 << 62 else -1)

    def pass_over(self, size: int) -> bool:
        """Move on without reading; return False if the stream cannot seek."""
        if self._head or not self._rest.seekable():
            return False
        self._rest.seek(size, 1)
        return True
