"""From members to samples: which belong together, which of them is the image, and what becomes of the others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from curator_image.batch import BYTES, CAPTION, EXT, FORMAT, HEIGHT, KEY, MEMBERS, PICTURES, SHARD, WIDTH
from curator_image.decode.probe import EXTENSIONS, Header, sniff
from curator_image.tar import Member, Problem

# Reasons, as they stand in rejects.
NO_KEY = "missing key"
NO_IMAGE = "no image"
DUPLICATE_KEY = "duplicate key"
DUPLICATE_MEMBER = "duplicate member"
BAD_TEXT = "undecodable text"
BAD_JSON = "broken json"

# Members with these extensions are text columns; all others are columns of bytes.
TEXT = frozenset(
    {"txt", "json", "caption", "cls", "text", "csv", "tsv", "xml", "html", "md", "yaml", "yml", "url", "id"}
)
# Named like pictures, though they are not decoded here: their samples are rejected as what they are.
_PICTURE_NAMES = {*EXTENSIONS, "avif", "heic", "heif", "jp2", "j2k", "jxl", "svg", "ico", "psd"}
FIXED = (KEY, SHARD, EXT, FORMAT, WIDTH, HEIGHT, MEMBERS, BYTES)
_RESERVED = frozenset({*FIXED, *PICTURES, "member", "offset", "length"})
_CAPTION_MEMBER = "txt"


@dataclass(slots=True)
class Sample:
    """The members that share a key, in their order: extension and bytes."""

    key: str
    members: dict[str, bytes] = field(default_factory=dict)
    at: int = 0

    def image(self) -> str | None:
        """The extension of the member that is the image: the first plain one, or else the first that is a picture."""
        for ext in self.members:
            if ext.lower() in _PICTURE_NAMES:
                return ext
        for ext in self.members:
            if ext.lower().rpartition(".")[2] in _PICTURE_NAMES:
                return ext
        for ext, data in self.members.items():
            if sniff(data) is not None:
                return ext
        return None


@dataclass(frozen=True, slots=True)
class Bad:
    """A member or a sample that is set aside."""

    reason: str
    position: str
    message: str
    raw: bytes = b""


def split_name(name: str) -> tuple[str, str]:
    """Key and extension: a member's key is its path up to the first dot of its last part."""
    folder, slash, base = name.rpartition("/")
    stem, _, ext = base.partition(".")
    return (f"{folder}{slash}{stem}" if stem else ""), ext


def group_members(found: Iterable[Member | Problem]) -> Iterator[Sample | Bad]:
    """Samples, from members that stand together; what is wrong comes as it is met."""
    seen: set[int] = set()
    current: Sample | None = None
    for item in found:
        if isinstance(item, Problem):
            yield Bad(item.reason, item.name or f"byte {item.offset}", f"at byte {item.offset}: {item.message}")
            continue
        key, ext = split_name(item.name)
        if not key or not ext:
            missing = "key" if not key else "extension"
            yield Bad(NO_KEY, item.name, f"at byte {item.header_at}: the name has no {missing}", item.data)
            continue
        if current is None or current.key != key:
            if current is not None:
                yield from _once(current, seen)
            current = Sample(key, at=item.header_at)
        if any(ext.lower() == other.lower() for other in current.members):
            yield Bad(
                DUPLICATE_MEMBER, item.name, f"at byte {item.header_at}: the sample has a .{ext} already", item.data
            )
            continue
        current.members[ext] = item.data
    if current is not None:
        yield from _once(current, seen)


def _once(sample: Sample, seen: set[int]) -> Iterator[Sample | Bad]:
    # Eight bytes a key; `hash` differs between processes, and with it which of two keys would collide.
    mark = int.from_bytes(_digest(sample.key), "big")
    if mark in seen:
        yield Bad(
            DUPLICATE_KEY,
            sample.key,
            f"at byte {sample.at}: the key came before; its members here are {', '.join(sample.members)}",
            next(iter(sample.members.values())),
        )
        return
    seen.add(mark)
    yield sample


def _digest(text: str) -> bytes:
    from hashlib import blake2b

    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


# Columns -------------------------------------------------------------------------------------------------------------


class BadSidecar(Exception):
    """A sidecar that cannot be read; ``reason`` and a message."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message


def column_of(ext: str) -> str:
    """The column that a sidecar stands in: ``txt`` is the caption, others go by their name."""
    name = ext.lower()
    if name == _CAPTION_MEMBER:
        return CAPTION
    return f"member_{name}" if name in _RESERVED or name == CAPTION else name


def is_text(ext: str) -> bool:
    return ext.lower().rpartition(".")[2] in TEXT


def sidecar(ext: str, data: bytes) -> str | bytes:
    """A sidecar's value: text or bytes; `BadSidecar` if it is not what its name says."""
    if not is_text(ext):
        return data
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadSidecar(BAD_TEXT, f".{ext} is not UTF-8: {error}") from error
    if ext.lower().rpartition(".")[2] == "json":
        parse_json(text, ext)
    return text


def parse_json(text: str, ext: str = "json") -> Any:
    """The value of a JSON text; `BadSidecar` if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadSidecar(BAD_JSON, f".{ext}: {error}") from error


JSON_TYPES: Mapping[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
}


def lift(value: Any, kind: str) -> Any:
    """A JSON value as one of `JSON_TYPES`; null where it is something else."""
    if value is None:
        return None
    if kind == "string":
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
        return text.encode("utf-8", "replace").decode()  # JSON can escape half a surrogate pair
    if kind == "bool":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool):
        return None
    if kind == "float":
        try:
            return float(value) if isinstance(value, int | float) else None
        except OverflowError:
            return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and -(2**63) <= value < 2**63 else None


class Rows:
    """Rows of a batch as they come in, and the table that they make."""

    def __init__(self, json_fields: Mapping[str, str], always: Iterable[str] = (CAPTION, "json")) -> None:
        self._json_fields = json_fields
        self._always = tuple(always)
        self.clear()

    def clear(self) -> None:
        self._fixed: dict[str, list[Any]] = {name: [] for name in FIXED}
        self._extra: dict[str, dict[int, Any]] = {}
        self._text: dict[str, bool] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._fixed[KEY])

    def add(self, key: str, shard: str, ext: str, header: Header, members: Mapping[str, bytes]) -> None:
        """One sample, whose image is the member ``ext``; `BadSidecar` if another is broken, and nothing is added."""
        values = {other: sidecar(other, body) for other, body in members.items() if other != ext}
        lifted: dict[str, Any] = {}
        if self._json_fields:
            text = next((value for other, value in values.items() if other.lower() == "json"), None)
            parsed = parse_json(str(text)) if text is not None else None
            source = parsed if isinstance(parsed, dict) else {}
            lifted = {name: lift(source.get(name), kind) for name, kind in self._json_fields.items()}
        row = len(self)
        fixed = (key, shard, ext, header.format, header.width, header.height, list(members), members[ext])
        for name, value in zip(FIXED, fixed, strict=True):
            self._fixed[name].append(value)
        for other, value in values.items():
            name = column_of(other)
            self._extra.setdefault(name, {})[row] = value
            self._text[name] = isinstance(value, str)
        for name, value in lifted.items():
            self._extra.setdefault(name, {})[row] = value
        self.bytes += sum(map(len, members.values()))

    def table(self) -> pa.Table:
        rows = len(self)
        columns = {name: pa.array(self._fixed[name], kind) for name, kind in _KINDS.items() if name != BYTES}
        columns[BYTES] = _binary(self._fixed[BYTES])
        known = {**dict.fromkeys(self._always), **dict.fromkeys(self._json_fields)}
        for name in [*known, *sorted(set(self._extra) - set(known))]:
            values = self._extra.get(name, {})
            columns[name] = pa.array([values.get(row) for row in range(rows)], self._kind(name))
        return pa.table(columns)

    def _kind(self, name: str) -> pa.DataType:
        if name in self._json_fields:
            return JSON_TYPES[self._json_fields[name]]
        return pa.string() if self._text.get(name, True) else pa.binary()


def _binary(values: list[bytes]) -> pa.Array:
    """A column of bytes in one allocation of the right size: Arrow's own builder grows by doubling, and copies again."""
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(values))]
    return pa.Array.from_buffers(pa.binary(), len(values), buffers)


_KINDS: Mapping[str, pa.DataType] = {
    KEY: pa.string(),
    SHARD: pa.string(),
    EXT: pa.string(),
    FORMAT: pa.string(),
    WIDTH: pa.int32(),
    HEIGHT: pa.int32(),
    MEMBERS: pa.list_(pa.string()),
    BYTES: pa.binary(),
}
