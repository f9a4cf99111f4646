"""Reads a file, compressed or not, as blocks of complete lines in bounded memory."""

from __future__ import annotations

import bz2
import codecs
import io
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa

from curator_core.errors import UsageError

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
# Suffixes of compressed files, which a reader accepts in addition to plain files.
COMPRESSED_SUFFIXES = (".gz", ".zst", ".bz2", ".xz")
_CHUNK = 1 << 20
_RAW_KEPT = 1 << 16
# How many bytes one call returns, and how many are read byte by byte before damage.
_ZSTD_STEP = 1 << 16
_STRIDE = 1 << 20
# From this line length on, searching for each line end is faster than scanning every byte.
_LONG_LINES = 1024


class Truncated(Exception):
    """A compressed stream is truncated or damaged; the part before the damage has been passed on."""


@dataclass(slots=True)
class Block:
    """Complete lines. ``data`` is only valid until the next block is requested, because its memory is reused."""

    data: memoryview
    offset: int  # position of the first byte in the decompressed file
    line: int | None  # the number of the first line, counted from 1; None inside a byte range
    lines: int | None = None  # the number of line ends, after they were counted
    last: bool = False  # whether this is the last block of the file or span

    def line_ends(self) -> np.ndarray[Any, Any]:
        """The positions of the line ends."""
        return line_ends(cast(bytearray, self.data.obj), len(self.data))


@dataclass(slots=True)
class LongLine:
    """A line that exceeds the limit; only its beginning is kept."""

    head: bytes
    offset: int
    line: int | None
    length: int


def compression_of(head: bytes) -> str | None:
    """The compression of a file according to its first bytes, since names can be wrong."""
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def decompressed(raw: BinaryIO) -> BinaryIO:
    """The content of a file, decompressed if it begins like gzip, zstd, bzip2 or xz.

    Several compressed streams in one file count as one. Reading raises `Truncated` if a stream is truncated or damaged.
    """
    head = raw.read(6)
    raw.seek(0)
    kind = compression_of(head)
    if kind is None:
        return raw
    # Do not buffer: a buffer would lose the data before the damage.
    return cast(BinaryIO, _Zstd(raw) if kind == "zstd" else _Decompressing(raw, kind))


def is_compressed(raw: BinaryIO) -> bool:
    """Whether a file is compressed; afterwards, the file is positioned at its start."""
    head = raw.read(6)
    raw.seek(0)
    return compression_of(head) is not None


def as_utf8(file: BinaryIO, encoding: str) -> BinaryIO:
    """A file in any encoding, recoded to UTF-8. Bytes that are invalid in the encoding become invalid UTF-8."""
    return file if encoding == "utf-8" else cast(BinaryIO, _Recoded(file, encoding))


def seems_to_be(head: bytes) -> str | None:
    """The likely encoding of a file whose first bytes are not UTF-8, as a name for ``encoding=``."""
    for mark, name in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if head.startswith(mark):
            return name
    head = head[: len(head) // 2 * 2]
    for name, zeros, others in (("utf-16-le", head[1::2], head[::2]), ("utf-16-be", head[::2], head[1::2])):
        if zeros.count(0) * 2 > len(zeros) and not others.count(0):
            return name
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # An error near the end may only be a truncated character.
        if error.start < len(head) - 3 and 0 not in head and b"\x81" not in head:
            return "cp1252"
    return None


class _Recoded(io.RawIOBase):
    def __init__(self, raw: BinaryIO, encoding: str) -> None:
        self._raw = raw
        self._decoder: Any = codecs.getincrementaldecoder(encoding)("curator.invalid")
        self._left = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        view = memoryview(target).cast("B")
        while not self._left and not self._ended:
            data = self._raw.read(_CHUNK)
            self._ended = not data
            self._left = self._decoder.decode(data, final=self._ended).encode("utf-8", "surrogatepass")
        count = min(len(view), len(self._left))
        view[:count], self._left = self._left[:count], self._left[count:]
        return count


# Replace an invalid byte by a lone surrogate, which is always invalid UTF-8, so that only its own row is rejected.
codecs.register_error("curator.invalid", lambda error: ("\udc80", cast(UnicodeDecodeError, error).end))


class _Decompressing(io.RawIOBase):
    """Decompresses one member after the other, at most the requested number of bytes at a time, so that a decompression
    bomb cannot fill memory.
    """

    def __init__(self, raw: BinaryIO, kind: str) -> None:
        self._raw = raw
        self._kind = kind
        self._pending = b""
        self._member: Any = None

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        view = memoryview(target).cast("B")
        while True:
            if self._member is None and not self._next_member():
                return 0
            data = self._step(len(view))
            if data:
                view[: len(data)] = data
                return len(data)
            if self._member is not None and not self._pending and self._member.needs_input:
                self._pending = self._raw.read(_CHUNK)
                if not self._pending:
                    raise Truncated(f"the {self._kind} stream is cut off")

    def _next_member(self) -> bool:
        while not self._pending:
            chunk = self._raw.read(_CHUNK)
            if not chunk:
                return False
            self._pending = chunk.lstrip(b"\0")  # some tools add zero bytes after the last member
        makers = {"gzip": _Gzip, "bzip2": bz2.BZ2Decompressor, "xz": lzma.LZMADecompressor}
        self._member = makers[self._kind]()
        return True

    def _step(self, limit: int) -> bytes:
        # A decompressor keeps unused input, so it is called without input until it needs more.
        given, self._pending = self._pending, b""
        try:
            data = self._member.decompress(given, limit)
        except (zlib.error, OSError, lzma.LZMAError, EOFError) as error:
            raise Truncated(f"the {self._kind} stream is damaged: {error}") from error
        if self._member.eof:
            self._pending = self._member.unused_data.lstrip(b"\0")
            self._member = None
        return cast(bytes, data)


class _Gzip:
    """zlib's decompressor with the interface of those of bz2 and lzma."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, limit: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, limit)


class _Lent:
    """A file that ignores close(), because Arrow closes a file when it releases it."""

    closed = False

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw

    def read(self, size: int = -1) -> bytes:
        return self._raw.read(size)

    def close(self) -> None:
        pass


class _Zstd(io.RawIOBase):
    """Arrow's zstd decompressor, which, unlike others, reports truncated frames.

    If a read finds damage, all data that it has decompressed is lost. So the file is read again, byte by byte from the
    start of that read.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._given = 0
        self._step = _ZSTD_STEP
        self._inner = self._opened()

    def _opened(self) -> pa.CompressedInputStream:
        self._raw.seek(0)
        return pa.CompressedInputStream(pa.PythonFile(_Lent(self._raw), mode="r"), "zstd")

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        view = memoryview(target).cast("B")
        try:
            data = self._inner.read(min(len(view), self._step))
        except OSError as error:
            if self._step == 1:
                raise Truncated(f"the zstd stream is damaged: {error}") from error
            self._go_slowly()
            return self.readinto(target)
        view[: len(data)] = data
        self._given += len(data)
        return len(data)

    def _go_slowly(self) -> None:
        self._step = 1
        self._inner = self._opened()
        left = self._given
        while left and (data := self._inner.read(min(left, _ZSTD_STEP))):
            left -= len(data)


def line_ends(buffer: bytes | bytearray, size: int) -> np.ndarray[Any, Any]:
    """The positions of the line ends in the first ``size`` bytes."""
    bytes_ = np.frombuffer(buffer, np.uint8, size)
    # Search in strides that fit into the cache, because fresh memory costs more than the search.
    mask = np.empty(min(size, _STRIDE), np.bool_)
    found: list[np.ndarray[Any, Any]] = [np.empty(0, np.int64)]
    long = False
    for start in range(0, size, _STRIDE):
        stop = min(start + _STRIDE, size)
        if long:
            places = []
            at = buffer.find(10, start, stop)
            while at >= 0:
                places.append(at)
                at = buffer.find(10, at + 1, stop)
            found.append(np.array(places, np.int64))
        else:
            found.append(np.flatnonzero(np.equal(bytes_[start:stop], 10, out=mask[: stop - start])) + start)
        long = len(found[-1]) * _LONG_LINES < stop - start
    return np.concatenate(found)


def line_start(file: BinaryIO, number: int) -> int | None:
    """The position of line ``number``, counted from 1, or None if there are fewer lines."""
    passed = 1
    offset = 0
    while passed < number:
        chunk = file.read(_CHUNK)
        if not chunk:
            return None
        count = chunk.count(b"\n")
        if passed + count < number:
            passed, offset = passed + count, offset + len(chunk)
            continue
        return offset + int(line_ends(bytearray(chunk), len(chunk))[number - passed - 1]) + 1
    return 0


def line_blocks(
    file: BinaryIO,
    *,
    block_bytes: int,
    max_line_bytes: int,
    span: tuple[int, int] | None = None,
) -> Iterator[Block | LongLine | Truncated]:
    """Yield blocks of complete lines of about ``block_bytes``; the last line of a file may lack its line end. A rest of
    less than half a block joins the block before it, since every block becomes a task.

    A line belongs to the ``span`` of bytes that contains its first byte, so the spans of a file together yield each
    line exactly once. A line of more than ``max_line_bytes`` is yielded as a `LongLine`. For a damaged stream, the last
    item is a `Truncated`, after all lines before the damage.
    """
    start, end = span if span is not None else (0, None)
    if end is not None and end <= start:
        return
    counting = start == 0
    if start:
        file.seek(start - 1)
        start += _to_next_line(file) - 1
        if end is not None and start >= end:
            return
        file.seek(start)
    # If there is a span, its last line is the one that contains byte end - 1.
    last = None if end is None else end - 1
    buffer = _Buffer(file, bytearray(block_bytes + block_bytes // 2), start, last)
    line = 1
    while True:
        buffer.fill()
        if cut := buffer.complete(block_bytes):
            number = line if counting else None
            block = Block(memoryview(buffer.data)[:cut], buffer.offset, number, last=buffer.finished)
            yield block
            if counting:
                line += block.lines if block.lines is not None else buffer.data.count(b"\n", 0, cut)
            block.data.release()
            buffer.drop(cut)
        if buffer.damage is not None:
            yield Truncated(str(buffer.damage.args[0]), buffer.head(), buffer.offset, line if counting else None)
        if buffer.finished:
            return
        if buffer.is_full() and not buffer.grow(max_line_bytes):
            yield buffer.long_line(line if counting else None)
            line += 1


class _Buffer:
    """A buffer that is filled from a file, and from which lines are taken at the front."""

    def __init__(self, file: BinaryIO, data: bytearray, offset: int, last: int | None) -> None:
        """``last`` is the position in the file of a byte in the last line that is needed."""
        self.data = data
        self.offset = offset  # position of the first byte in the file
        self.finished = False  # whether the buffer contains the last wanted line
        self.damage: Truncated | None = None
        self._file = file
        self._filled = 0
        self._last = last
        self._ended = False

    def fill(self) -> None:
        """Read until the buffer is full, or nothing more is needed or available."""
        if self._ended or self.finished:
            return
        begun = self._filled
        try:
            self._filled += _fill(self._file, memoryview(self.data), begun)
        except Truncated as error:
            self.damage = error
            self._filled += error.args[1]
        self._ended = self._filled < len(self.data) or self.damage is not None
        if self._last is not None and self._last < self.offset + self._filled:
            close = self.data.find(b"\n", max(self._last - self.offset, begun, 0), self._filled)
            if close >= 0:
                self._filled, self.finished = close + 1, True

    def complete(self, most: int) -> int:
        """How many bytes at the front are complete lines: all that are left if nothing follows them, otherwise up to
        ``most``, or a single longer line. The last line of a file needs no line end, but a line that damage has truncated
        is reported with the damage and not parsed.
        """
        if self._ended:
            self.finished = True
            if self.damage is None:
                return self._filled
        if self.finished:
            return self.data.rfind(b"\n", 0, self._filled) + 1
        most = min(most, self._filled)
        return (self.data.rfind(b"\n", 0, most) + 1) or (self.data.find(b"\n", most, self._filled) + 1)

    def head(self) -> bytes:
        return bytes(self.data[: min(self._filled, _RAW_KEPT)])

    def is_full(self) -> bool:
        return self._filled == len(self.data)

    def drop(self, count: int) -> None:
        """Drop this many bytes from the front."""
        self.data[: self._filled - count] = self.data[count : self._filled]
        self.offset += count
        self._filled -= count

    def grow(self, limit: int) -> bool:
        """Enlarge the buffer, up to ``limit`` bytes; returns False if it already has that size."""
        if len(self.data) >= limit:
            return False
        grown = bytearray(min(2 * len(self.data), limit))
        grown[: self._filled] = self.data[: self._filled]
        self.data = grown
        return True

    def long_line(self, line: int | None) -> LongLine:
        """Remove the line at the front, which does not fit into the buffer, however long it is."""
        long = LongLine(self.head(), self.offset, line, self._filled)
        self.drop(self._filled)
        while True:
            self.fill()
            close = self.data.find(b"\n", 0, self._filled)
            taken = self._filled if close < 0 else close + 1
            long.length += taken
            self.drop(taken)
            if close >= 0 or self._ended:
                return long


def check_span(file: BinaryIO, path: str, span: tuple[int, int] | None) -> None:
    """Raise if a part of a compressed file is requested, since lines cannot be found in it."""
    if span is not None and is_compressed(file):
        raise UsageError(f"{path!r} is compressed and cannot be split into ranges: leave split_bytes out for it")


def _fill(file: BinaryIO, view: memoryview, filled: int) -> int:
    """Read until the buffer is full or the file ends; returns the number of bytes."""
    began = filled
    try:
        while filled < len(view):
            count = file.readinto(view[filled:])  # type: ignore[attr-defined]
            if not count:
                break
            filled += count
    except Truncated as error:
        raise Truncated(error.args[0], filled - began) from error
    return filled - began


def _to_next_line(file: BinaryIO) -> int:
    """The number of bytes up to and including the next line end, or up to the end of the file."""
    passed = 0
    while chunk := file.read(_CHUNK):
        close = chunk.find(b"\n")
        if close >= 0:
            return passed + close + 1
        passed += len(chunk)
    return passed + 1
