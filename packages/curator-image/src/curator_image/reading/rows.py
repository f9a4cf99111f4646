"""Turns a sample into a row, with columns for the picture's facts, for each sidecar, and for chosen JSON fields."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from curator_core.arrow.arrays import array
from curator_image.batch import BYTES, CAPTION, EXT, FORMAT, HEIGHT, KEY, MEMBERS, ODD, PICTURES, SHARD, WIDTH
from curator_image.decode.probe import WRONG_EXTENSION, Header, misnamed

# Oddities of a sample, which is still read. These words appear in the column `odd`, or in rejects.
NOT_UTF8 = "text not UTF-8"
BYTE_ORDER_MARK = "byte order mark"
BROKEN_JSON = "broken json"
ODDITIES = (WRONG_EXTENSION, NOT_UTF8, BYTE_ORDER_MARK, BROKEN_JSON)

# Members with these extensions are text columns; all others are columns of bytes.
TEXT = frozenset(
    {"txt", "json", "caption", "cls", "text", "csv", "tsv", "xml", "html", "md", "yaml", "yml", "url", "id"}
)
FIXED = (KEY, SHARD, EXT, FORMAT, WIDTH, HEIGHT, MEMBERS, BYTES)
RESERVED = frozenset({*FIXED, *PICTURES, ODD, "member", "offset", "length"})
_CAPTION_MEMBER = "txt"
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


class Odd(Exception):
    """A sample has an oddity that the user wants to reject; ``reason`` is one of `ODDITIES`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message


def column_of(ext: str, taken: Iterable[str] = ()) -> str:
    """The column for a sidecar: ``txt`` becomes the caption; others keep their name unless it is ``taken``."""
    name = ext.lower()
    if name == _CAPTION_MEMBER:
        return CAPTION
    return f"member_{name}" if name in RESERVED or name == CAPTION or name in taken else name


@functools.lru_cache(maxsize=4096)
def is_text(ext: str) -> bool:
    return ext.lower().rpartition(".")[2] in TEXT


@functools.lru_cache(maxsize=4096)
def is_json(ext: str) -> bool:
    return ext.lower().rpartition(".")[2] == "json"


def decoded(data: bytes) -> tuple[str, str | None]:
    """The decoded text, and the oddities of its encoding.

    Text that is not UTF-8 nearly always comes from Windows, whose code page includes Latin-1; the few bytes that it
    leaves undefined are read as Latin-1.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            try:
                return data[len(mark) :].decode(encoding), BYTE_ORDER_MARK
            except UnicodeDecodeError:
                break
    try:
        return data.decode("utf-8"), None
    except UnicodeDecodeError:
        return "".join(bytes([byte]).decode("latin-1") if byte in _OPEN else _WINDOWS[byte] for byte in data), NOT_UTF8


_OPEN = frozenset((0x81, 0x8D, 0x8F, 0x90, 0x9D))
_WINDOWS = {byte: bytes([byte]).decode("cp1252") for byte in range(256) if byte not in _OPEN}


def parsed(text: str) -> tuple[Any, str | None]:
    """The value of a JSON text, and the problem if the text is not JSON."""
    try:
        return json.loads(text), None
    except (ValueError, RecursionError) as error:
        return None, str(error)


JSON_TYPES: Mapping[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
}


def lift(value: Any, kind: str) -> Any:
    """A JSON value as one of `JSON_TYPES`, or null if it has another type."""
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
    """Collects the rows of a batch and makes their table."""

    def __init__(
        self,
        json_fields: Mapping[str, str],
        always: Iterable[str] = (CAPTION, "json"),
        reject_odd: Iterable[str] = (),
    ) -> None:
        self._json_fields = json_fields
        self._always = tuple(always)
        self._reject_odd = frozenset(reject_odd)
        self.clear()

    def clear(self) -> None:
        self._fixed: dict[str, list[Any]] = {name: [] for name in (*FIXED, ODD)}
        self._extra: dict[str, dict[int, Any]] = {}
        self._text: dict[str, bool] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._fixed[KEY])

    @property
    def columns(self) -> int:
        """How many columns the sidecars and JSON fields have so far."""
        return len(self._extra)

    def add(
        self, key: str, shard: str, ext: str, header: Header, members: Mapping[str, bytes], odd: Iterable[str] = ()
    ) -> None:
        """Add one sample, whose image is the member ``ext``. If the user rejects one of its oddities, raise `Odd` and
        add nothing.

        ``odd`` contains the oddities that were found before.
        """
        noted: dict[str, None] = {}
        for what in odd:
            self._note(noted, what, "a column of its row")
        if misnamed(ext, header.format):
            self._note(noted, WRONG_EXTENSION, f"named .{ext}, but the bytes are {header.format}")
        values: dict[str, str | bytes] = {}
        facts: Any = None
        for other, body in members.items():
            if other == ext:
                continue
            if not is_text(other):
                values[other] = body
                continue
            values[other], strange = decoded(body)
            self._note(noted, strange, f"the member .{other}")
            if is_json(other):
                value, wrong = parsed(str(values[other]))
                self._note(noted, BROKEN_JSON if wrong else None, f".{other}: {wrong}")
                facts = value if other.lower() == "json" else facts
        row = len(self)
        fixed = (key, shard, ext, header.format, header.width, header.height, list(members), members[ext])
        for name, value in zip(FIXED, fixed, strict=True):
            self._fixed[name].append(value)
        self._fixed[ODD].append(", ".join(noted) or None)
        for other, value in values.items():
            name = column_of(other, self._json_fields)
            self._extra.setdefault(name, {})[row] = value
            self._text[name] = isinstance(value, str)
        for name, value in lifted(facts, self._json_fields).items():
            self._extra.setdefault(name, {})[row] = value
        self.bytes += sum(map(len, members.values()))

    def _note(self, odd: dict[str, None], what: str | None, message: str) -> None:
        if what in self._reject_odd:
            raise Odd(str(what), message)
        if what is not None:
            odd[what] = None

    def table(self) -> pa.Table:
        rows = len(self)
        columns = {name: array(self._fixed[name], kind) for name, kind in _KINDS.items() if name != BYTES}
        columns[BYTES] = _binary(self._fixed[BYTES])
        known = {**dict.fromkeys(self._always), **dict.fromkeys(self._json_fields)}
        for name in [*known, *sorted(set(self._extra) - set(known))]:
            values = self._extra.get(name, {})
            columns[name] = array([values.get(row) for row in range(rows)], self._kind(name))
        return pa.table(columns)

    def _kind(self, name: str) -> pa.DataType:
        if name in self._json_fields:
            return JSON_TYPES[self._json_fields[name]]
        return pa.string() if self._text.get(name, True) else pa.binary()


def lifted(facts: Any, fields: Mapping[str, str]) -> dict[str, Any]:
    """The requested fields of a JSON value; nulls if it is not an object."""
    source = facts if isinstance(facts, dict) else {}
    return {name: lift(source.get(name), kind) for name, kind in fields.items()}


def _binary(values: list[bytes]) -> pa.Array:
    """A column of bytes in one allocation of the right size, because Arrow's own builder grows by doubling and copies
    again.
    """
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
    ODD: pa.string(),
}
