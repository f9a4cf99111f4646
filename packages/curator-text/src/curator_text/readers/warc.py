"""Reads WARC files: each requested record is a row, and damaged parts are reported and skipped."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import pyarrow as pa

from curator_core.errors import UsageError
from curator_core.model.places import Places, place_rows
from curator_core.model.stage import FanOut
from curator_core.model.task import DocumentBatch, FileGroupTask
from curator_core.stages.partitioned_reader import PartitionedReader
from curator_core.storage import open_input
from curator_text.readers._arguments import bounded_bytes, with_path

SUFFIXES = tuple(base + end for base in (".warc", ".wet", ".wat") for end in ("", ".gz", ".zst", ".lz4"))
RECORD_TYPES = ("warcinfo", "response", "resource", "request", "metadata", "revisit", "conversion", "continuation")
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("date", pa.string()),
        ("record_type", pa.string()),
        ("status", pa.int64()),
        ("content_type", pa.string()),
        ("charset", pa.string()),
        ("content", pa.binary()),
    ]
)
_SCAN = 1 << 20
_GZIP = b"\x1f\x8b\x08"


@dataclass(kw_only=True, eq=False, repr=False)
class WarcParameters:
    """The parameters of both `WarcReader` and `WarcRead`."""

    record_types: Sequence[str] = ("response",)
    max_record_bytes: int | str = "64MiB"
    batch_bytes: int | str = "16MiB"
    path_column: str | None = None


@dataclass(kw_only=True)
class WarcRead(WarcParameters, FanOut[FileGroupTask, DocumentBatch]):
    """Reads the WARC files of a task; see `WarcReader`."""

    def __post_init__(self) -> None:
        if isinstance(self.record_types, str) or not self.record_types:
            raise UsageError(f"record_types must be a list of {', '.join(RECORD_TYPES)}, not {self.record_types!r}")
        for kind in self.record_types:
            if kind not in RECORD_TYPES:
                raise UsageError(f"record_types contains {kind!r}: it can contain {', '.join(RECORD_TYPES)}")
        if self.path_column in _SCHEMA.names:
            raise UsageError(f"path_column {self.path_column!r} is a column of every record: give it another name")
        self._max_record_bytes = bounded_bytes("max_record_bytes", self.max_record_bytes)
        self._batch_bytes = bounded_bytes("batch_bytes", self.batch_bytes)

    def outputs(self) -> list[str]:
        return [*_SCHEMA.names, *([self.path_column] if self.path_column else [])]

    def may_be_empty(self) -> list[str]:
        return ["status", "content_type", "charset"]  # depending on the type of record, and on the server

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        given = False
        for path in task.data:
            rows: list[tuple[Any, ...]] = []
            places: list[int] = []
            held = 0
            with open_input(path) as raw:
                for place, row in self._rows(raw, path):
                    rows.append(row)
                    places.append(place)
                    held += len(row[-1]) + 200
                    if held >= self._batch_bytes:
                        yield place_rows(self._batch(rows, path, task), Places(path, "byte", places))
                        rows, places, held, given = [], [], 0, True
            if rows:
                yield place_rows(self._batch(rows, path, task), Places(path, "byte", places))
                given = True
        # Files without such records still provide the columns, so that output from them has a schema.
        if not given and task.data:
            yield self._batch([], task.data[0], task)

    def _batch(self, rows: list[tuple[Any, ...]], path: str, task: FileGroupTask) -> DocumentBatch:
        columns = zip(*rows, strict=True) if rows else [()] * len(_SCHEMA)
        arrays = [pa.array(values, part.type) for values, part in zip(columns, _SCHEMA, strict=True)]
        table = with_path(pa.table(arrays, schema=_SCHEMA), self.path_column, path)
        return DocumentBatch(data=table, dataset_name=task.dataset_name)

    def _rows(self, raw: BinaryIO, path: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """The requested records, each with the position of its first byte."""
        from fastwarc.warc import ArchiveIterator, WarcRecordType

        wanted = sum(int(getattr(WarcRecordType, kind)) for kind in self.record_types)
        packed = raw.read(2) == b"\x1f\x8b"
        begin: int | None = 0
        while begin is not None:
            raw.seek(begin)
            found = -1
            passed = False
            try:
                # Read all kinds of records, because damage in a skipped record would go unnoticed.
                for record in ArchiveIterator(cast(BinaryIO, _Offset(raw)), parse_http=False, auto_decode="none"):
                    found = begin + record.stream_pos
                    if not int(record.record_type) & wanted:
                        if not record.record_id:
                            self._damaged(path, found, "the record ends in its header")
                        passed = True
                        continue
                    try:
                        row = self._row(record, path, found)
                    except OSError as error:
                        self._damaged(path, found, str(error), read=0)  # the record is already counted as read
                        raise _CutShort from error
                    passed = row is None
                    if row is not None:
                        yield found, row
                if found < 0 and begin:  # the data after the damage only looked like a record
                    raise _CutShort
                if not passed or _is_whole(raw, found):
                    rest = _bytes_behind(raw, max(found, begin))
                    if rest:
                        at_end = "the file ends in a record's first bytes"
                        self._damaged(path, rest, at_end if found >= 0 else "no record begins here")
                        if found < 0:  # the first member of a file may be empty, with records after it
                            raise _CutShort
                    return
                # Because of a wrong length, the rest of the file was taken for the content of the record.
                self._damaged(path, found, "the record is shorter than its Content-Length")
            except _CutShort:
                pass
            except OSError as error:
                self._damaged(path, max(found, begin), str(error))
            begin = _next_record(raw, max(found, begin) + 1, packed)

    def _row(self, record: Any, path: str, position: int) -> tuple[Any, ...] | None:
        self.record_read(1)
        names = record.headers
        if not (names.get("Content-Length") or "").strip().isdecimal():
            self._reject("damaged WARC", path, position, "the record's header has no valid Content-Length")
            raise _CutShort
        length = record.content_length
        if length > self._max_record_bytes:
            record.consume()
            self._reject(
                "record too large", path, position, f"{length} bytes, but max_record_bytes is {self.max_record_bytes}"
            )
            return None
        if record.is_http:
            record.parse_http()
        length = record.content_length
        content = record.reader.read()
        if len(content) < length or not record.record_id:
            self._reject("truncated record", path, position, f"{len(content)} of {length} bytes are present", content)
            raise _CutShort
        status = None
        headers = record.http_headers
        if headers is not None:
            status = headers.status_code
            try:
                content = _decoded(content, headers, self._max_record_bytes)
            except (ValueError, zlib.error) as error:
                self._reject("undecodable content", path, position, str(error), content)
                return None
        return (
            record.record_id,
            names.get("WARC-Target-URI"),
            names.get("WARC-Date"),
            names.get("WARC-Type"),
            status,
            record.http_content_type or names.get("Content-Type"),
            (record.http_charset or "").strip("\"' ") or None,
            content,
        )

    def _damaged(self, path: str, position: int, message: str, *, read: int = 1) -> None:
        self.record_read(read)
        self._reject("damaged WARC", path, position, f"{message}; reading continues at the next complete record")

    def _reject(self, reason: str, path: str, position: int, message: str, raw: bytes | None = None) -> None:
        self.record_rejected(
            reason,
            source=path,
            position=f"byte {position}",
            message=message,
            raw=None if raw is None else raw[: 1 << 16],
        )


@dataclass(kw_only=True)
class WarcReader(WarcParameters, PartitionedReader[DocumentBatch]):
    """Reads WARC and WET files, plain or compressed, with a row for each record of ``record_types``.

    The columns are ``id``, ``url``, ``date``, ``record_type``, ``status``, ``content_type``, ``charset`` and
    ``content``, the payload's bytes without transfer and content encoding. For WET files use
    ``record_types=["conversion"]``. A damaged or truncated record is set aside, and reading continues after it.
    """

    read = WarcRead
    suffixes = SUFFIXES


class _CutShort(Exception):
    """A record is incomplete, or its header has a wrong length."""


class _Offset:
    """A file for FastWARC; positions are relative to the position of the file when it was passed."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._base = raw.tell()

    def read(self, size: int = -1) -> bytes:
        return self._raw.read(size)

    def tell(self) -> int:
        return self._raw.tell() - self._base

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._raw.seek(offset + (self._base if whence == 0 else 0), whence) - self._base


def _is_whole(raw: BinaryIO, position: int) -> bool:
    """Whether the content of the record at ``position`` is complete."""
    from fastwarc.warc import ArchiveIterator

    raw.seek(position)
    for record in ArchiveIterator(cast(BinaryIO, _Offset(raw)), parse_http=False, auto_decode="none"):
        left = record.content_length
        while left and (piece := record.reader.read(min(left, _SCAN))):
            left -= len(piece)
        return not left
    return True


def _bytes_behind(raw: BinaryIO, position: int) -> int:
    """The position of data after the compressed record at ``position``, or 0. FastWARC skips data that is too short for
    a record.
    """
    raw.seek(position)
    chunk = raw.read(_SCAN)
    if not chunk.startswith(b"\x1f\x8b"):
        return 0
    member = zlib.decompressobj(wbits=31)
    while chunk:
        position += len(chunk)
        while chunk and not member.eof:
            member.decompress(chunk, _SCAN)
            chunk = member.unconsumed_tail
        if member.eof:
            position -= len(member.unused_data)
            return position if member.unused_data.strip(b"\0") else 0
        chunk = raw.read(_SCAN)
    return 0


def _next_record(raw: BinaryIO, position: int, packed: bool) -> int | None:
    """The position of the next record whose first line is readable, or None. In a file of compressed records, only a
    compressed record counts, because the rest of a damaged record may contain data that looks like a record.
    """
    marks = (_GZIP,) if packed else (_GZIP, b"WARC/1.")
    raw.seek(position)
    window, base = b"", position
    while True:
        chunk = raw.read(_SCAN)
        window += chunk
        at = 0
        while True:
            places = [place for mark in marks if (place := window.find(mark, at)) >= 0]
            # Make sure that enough bytes follow to examine it, unless the file ends there.
            if not places or (chunk and min(places) > len(window) - 1024):
                break
            at = min(places)
            if _begins_record(window[at : at + 1024]):
                return base + at
            at += 1
        if not chunk:
            return None
        keep = min(places) if places else max(len(window) - 8, 0)
        base, window = base + keep, window[keep:]


def _begins_record(head: bytes) -> bool:
    if head.startswith(b"WARC/1."):
        return head[7:10] in (b"0\r\n", b"1\r\n")
    try:
        return zlib.decompressobj(wbits=31).decompress(head, 16).startswith(b"WARC/1.")
    except zlib.error:
        return False


def _decoded(content: bytes, headers: Any, limit: int) -> bytes:
    """The payload without HTTP encodings; raises ValueError or zlib.error."""
    if "chunked" in (headers.get("Transfer-Encoding") or "").lower():
        content = _unchunked(content)
    for encoding in reversed([part.strip().lower() for part in (headers.get("Content-Encoding") or "").split(",")]):
        if encoding in ("gzip", "x-gzip"):
            content = _gunzipped(content, limit)
        elif encoding == "deflate":
            # The standard requires zlib, but many servers send a bare deflate stream.
            try:
                content, _ = _inflated(content, 15, limit)
            except zlib.error:
                content, _ = _inflated(content, -15, limit)
        elif encoding == "br":
            content = _unbrotli(content, limit)
        elif encoding not in ("", "identity"):
            raise ValueError(f"the content encoding {encoding!r} is unknown")
    return content


def _gunzipped(content: bytes, limit: int) -> bytes:
    """The content of all members; data after the last one is ignored, as in browsers."""
    result, content = _inflated(content, 31, limit)
    pieces = [result]
    while content.startswith(b"\x1f\x8b\x08"):
        limit -= len(result)
        result, content = _inflated(content, 31, limit)
        pieces.append(result)
    return b"".join(pieces)


def _inflated(content: bytes, wbits: int, limit: int) -> tuple[bytes, bytes]:
    """The decompressed content, and the data after it."""
    inflater = zlib.decompressobj(wbits=wbits)
    result = inflater.decompress(content, max(limit, 1))
    if inflater.unconsumed_tail:
        raise ValueError(f"more than {limit} bytes when decompressed")
    if not inflater.eof:
        raise ValueError("the compressed content is truncated")
    return result, inflater.unused_data


def _unbrotli(content: bytes, limit: int) -> bytes:
    import brotli  # type: ignore[import-untyped]

    decompressor = brotli.Decompressor()
    pieces, size = [], 0
    try:
        for start in range(0, len(content), 4096):
            piece = decompressor.process(content[start : start + 4096])
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise ValueError(f"more than {limit} bytes when decompressed")
    except brotli.error as error:
        raise ValueError(f"brotli: {error}") from error
    return b"".join(pieces)


def _unchunked(content: bytes) -> bytes:
    pieces: list[bytes] = []
    at = 0
    while True:
        end = content.find(b"\r\n", at)
        try:
            size = int(content[at:end].partition(b";")[0], 16) if end >= 0 else -1
        except ValueError:
            size = -1
        if size < 0:
            # Many archives keep the header of an encoding that was already removed.
            if not pieces and at == 0:
                return content
            raise ValueError("a chunk has no valid length")
        if size == 0:
            return b"".join(pieces)
        pieces.append(content[end + 2 : end + 2 + size])
        if len(pieces[-1]) < size:
            raise ValueError("the last chunk is truncated")
        at = end + 2 + size + 2
