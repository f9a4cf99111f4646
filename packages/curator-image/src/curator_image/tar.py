"""Tar archives as a stream: members one after the other, hostile and broken ones told apart, memory bounded.

Read are ustar, old v7, GNU long names and pax, also several archives put together, plain or gzipped. Whatever is no
plain file with a safe name comes as a `Problem`, with where it stood; after a damaged header the stream looks for the
next good one. The writer's half makes headers that depend on name and size alone.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

BLOCK = 512
_ZEROS = bytes(BLOCK)
# How much a long name or a pax header may hold, and how long a name may be in the end.
MAX_HEADER_BYTES = 1 << 20
MAX_NAME = 4096
_SKIP_BYTES = 1 << 20

# Reasons, as they stand in rejects.
BAD_HEADER = "bad tar header"
TRUNCATED_TAR = "truncated tar"
UNSAFE_NAME = "unsafe name"
LINK = "link in tar"
DEVICE = "device in tar"
SPARSE = "sparse file in tar"
NESTED = "archive in tar"
MEMBER_TOO_LARGE = "member too large"
UNKNOWN_TYPE = "unknown member type"

_ARCHIVES = (b".tar", b".tgz", b".tar.gz", b".tar.bz2", b".tar.xz", b".tar.zst", b".zip", b".7z", b".rar")
_DRIVE = re.compile(r"[A-Za-z]:")
# What nearly every name is; the rest is looked at more closely.
_ORDINARY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}(?:[./][A-Za-z0-9_-]{1,99}){1,20}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Member:
    """A plain file of an archive. ``header_at`` is where its first header stands, ``data_at`` where its bytes do."""

    name: str
    data: bytes
    header_at: int
    data_at: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in an archive that is not used, and why. ``name`` is as far as it could be read."""

    reason: str
    name: str
    offset: int
    message: str


class _Truncated(Exception):
    pass


class _BadField(ValueError):
    pass


def read_tar(stream: BinaryIO, *, max_member_bytes: int = 256 << 20) -> Iterator[Member | Problem]:
    """The members of an archive in order. ``stream`` need not seek; at most one member is in memory."""
    source = _Source(_plain(stream))
    long_name: bytes | None = None
    pax: dict[str, bytes] = {}
    every: dict[str, bytes] = {}  # a global pax header holds for all members after it
    started: int | None = None  # where the headers that belong to the next member begin
    lost_at: int | None = None  # where a damaged stretch begins
    while True:
        at = source.at
        try:
            block = source.header()
        except (_Truncated, EOFError, OSError, zlib.error) as error:
            yield Problem(TRUNCATED_TAR, "", at, f"the archive ends within a header ({error})")
            return
        if block is None:
            if at == 0:
                yield Problem(TRUNCATED_TAR, "", 0, "the file is empty")
            break
        if block == _ZEROS:  # the end, or the seam of two archives
            started = long_name = None
            pax = {}
            continue
        if not _checksum_holds(block):
            if lost_at is None:
                lost_at = at
            started = long_name = None
            pax = {}
            continue
        if lost_at is not None:
            yield Problem(BAD_HEADER, "", lost_at, f"no header can be read up to byte {at:,}")
            lost_at = None
        if started is None:
            started = at
        kind = block[156:157]
        try:
            size = _size(block)
        except _BadField as error:
            yield Problem(BAD_HEADER, _raw_name(block), at, str(error))
            started = long_name = None
            pax = {}
            continue
        if "size" in pax and kind not in b"xgLK":
            try:
                size = _decimal(pax["size"])
            except _BadField as error:
                yield Problem(BAD_HEADER, _raw_name(block), at, str(error))
                started = long_name = None
                pax = {}
                continue
        shown = ""
        try:
            if kind in (b"x", b"g", b"X", b"L", b"K"):
                if size > MAX_HEADER_BYTES:
                    source.skip(size)
                    yield Problem(BAD_HEADER, _raw_name(block), at, f"an extended header of {size:,} bytes")
                    continue
                body = source.data(size)
                try:
                    if kind == b"L":
                        long_name = body.rstrip(b"\0")
                    elif kind in (b"x", b"X"):
                        pax = _pax(body)
                    elif kind == b"g":
                        every |= _pax(body)
                        every.pop("size", None)
                        started = None
                except _BadField as error:
                    yield Problem(BAD_HEADER, _raw_name(block), at, str(error))
                continue
            raw = (pax.get("path") or long_name or every.get("path") or _name(block)).rstrip(b"\0")
            sparse = kind == b"S" or any(key.startswith("GNU.sparse") for key in pax)
            shown = _shown(raw)
            header_at, started, long_name, pax = started, None, None, {}
            problem = _judge(raw, kind, size, sparse, max_member_bytes)
            if kind in (b"5", b"V", b"D"):  # a folder, a volume label, a dumped folder: no data of anyone's
                source.skip(size)
            elif kind in (b"1", b"2", b"3", b"4", b"6"):
                # No data follows these, whatever their size field says.
                assert problem is not None
                yield Problem(problem[0], shown, header_at, problem[1])
            elif problem is not None:
                source.skip(size)
                yield Problem(problem[0], shown, header_at, problem[1])
            else:
                data_at = source.at
                data = source.data(size)
                yield Member(clean_name(raw.decode("utf-8")), data, header_at, data_at)
        except (_Truncated, EOFError, OSError, zlib.error) as error:
            yield Problem(TRUNCATED_TAR, shown, at, f"the archive ends within a member ({error})")
            return
    if lost_at is not None:
        yield Problem(BAD_HEADER, "", lost_at, f"no header can be read up to the end at byte {source.at:,}")


def _judge(raw: bytes, kind: bytes, size: int, sparse: bool, max_member_bytes: int) -> tuple[str, str] | None:
    """Why a member is not used, or None."""
    if kind in (b"5", b"V", b"D"):
        return None
    if kind in (b"1", b"2"):
        return LINK, "hard links and symbolic links are not followed"
    if kind in (b"3", b"4", b"6"):
        return DEVICE, "devices and pipes are not opened"
    if sparse:
        return SPARSE, "sparse files are not unfolded"
    if kind not in (b"0", b"\0", b"7"):
        return UNKNOWN_TYPE, f"type {kind!r}"
    reason = unsafe_name(raw)
    if reason:
        return UNSAFE_NAME, reason
    if raw.lower().endswith(_ARCHIVES):
        return NESTED, "archives within archives are not opened"
    if size > max_member_bytes:
        return MEMBER_TOO_LARGE, f"{size:,} bytes, more than {max_member_bytes:,}"
    return None


def unsafe_name(raw: bytes | str) -> str | None:
    """What is wrong with a member's name, or None. A name that passes stays inside any folder it is joined to."""
    try:
        name = raw.decode("utf-8") if isinstance(raw, bytes) else raw
        if _ORDINARY.fullmatch(name):
            return None
        name.encode("utf-8")
    except UnicodeError:
        return "the name is not UTF-8"
    if not name or name.endswith("/"):
        return "the name is empty"
    if len(name) > MAX_NAME:
        return f"the name has {len(name):,} characters, more than {MAX_NAME:,}"
    if name.startswith("/") or _DRIVE.match(name):
        return "the name is absolute"
    if "\\" in name or _CONTROL.search(name):
        return "the name has a backslash or a control character"
    if ".." in name.split("/"):
        return "the name leaves its folder"
    return None


def clean_name(name: str) -> str:
    """A safe name without the ``./`` and doubled slashes that some writers put in."""
    if name.startswith("./") or "//" in name or "/./" in name:
        return "/".join(part for part in name.split("/") if part not in ("", "."))
    return name


# Fields --------------------------------------------------------------------------------------------------------------


def _checksum_holds(block: bytes) -> bool:
    try:
        said = _number(block[148:156])
    except _BadField:
        return False
    # The field itself counts as eight spaces. Old writers summed signed bytes.
    outside = block[:148] + block[156:]
    # One and the sum of all bytes, modulo 65521, is half of an Adler-32, and twenty times as fast as `sum`.
    low = zlib.adler32(outside) & 0xFFFF
    if (said - 255 - low) % 65521 == 0 and 0 <= said <= 504 * 255 + 256:
        return True
    total = sum(outside) + 256
    if said == total:
        return True
    high = sum(byte > 127 for byte in block[:148]) + sum(byte > 127 for byte in block[156:])
    return said == total - 256 * high


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # base 256, for what octal digits cannot hold
        if field[0] != 0x80:
            raise _BadField("a negative number")
        return int.from_bytes(field[1:], "big")
    text = field.rstrip(b"\0 ")
    if not text.isdigit():
        text = field.split(b"\0", 1)[0].strip()
    if not text:
        return 0
    if not text.isdigit():
        raise _BadField(f"{field!r} is no octal number")
    try:
        return int(text, 8)
    except ValueError as error:
        raise _BadField(f"{field!r} is no octal number") from error


def _size(block: bytes) -> int:
    size = _number(block[124:136])
    if size >= 1 << 62:
        raise _BadField(f"a size of {size:,} bytes")
    return size


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise _BadField(f"{value[:40]!r} is no size")
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
    """A stream that counts; short reads are put together, and an end in the middle of something is told."""

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
            self._read(padding)  # the last padding of a cut archive may be missing: the member is whole
        return body

    def skip(self, size: int) -> None:
        left = size + -size % BLOCK
        while left:
            part = self._read(min(left, _SKIP_BYTES))
            if not part:
                raise _Truncated(f"{left:,} bytes are missing")
            left -= len(part)

    def _read(self, size: int) -> bytes:
        # Never more at once than a buffer: a header may claim a size that the archive does not have.
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
    """Bytes that were read already, and the rest of their stream."""

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


# Writing -------------------------------------------------------------------------------------------------------------


def tar_header(name: str, size: int) -> bytes:
    """The header, or headers, of a plain file: the same for the same name and size, today and tomorrow."""
    encoded = name.encode("utf-8")
    extra: list[tuple[str, bytes]] = []
    if len(encoded) > 100:
        extra.append(("path", encoded))
    if size >= 8**11:
        extra.append(("size", str(size).encode()))
    before = b""
    if extra:
        body = b"".join(_pax_record(key, value) for key, value in extra)
        before = _header(b"pax/" + encoded[:90], len(body), b"x") + body + bytes(-len(body) % BLOCK)
    return before + _header(encoded[:100], min(size, 8**11 - 1), b"0")


def padding(size: int) -> bytes:
    """What follows ``size`` bytes of data up to the next header."""
    return _ZEROS[: -size % BLOCK]


END = bytes(2 * BLOCK)


def _header(name: bytes, size: int, kind: bytes) -> bytes:
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[108:116] = block[116:124] = b"0000000\0"
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _pax_record(key: str, value: bytes) -> bytes:
    content = b" " + key.encode() + b"=" + value + b"\n"
    length = len(content) + 1
    while len(str(length)) + len(content) != length:
        length = len(str(length)) + len(content)
    return str(length).encode() + content
