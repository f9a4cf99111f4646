"""How do lines of JSON become an Arrow table, with every value exactly as it was, and every bad line told?

A block of lines goes through Arrow's own JSON parser, with the types fixed beforehand so that it guesses nothing (by
itself it makes timestamps of texts). What it does not refuse, and yet is not one valid object per line, is checked
here: text that is no UTF-8, two objects in a line, one object over two lines, NaN, integers that a double cannot hold.
A block that fails in any way is cut into small ones; the small ones that fail are read line by line with Python's
parser, which says what is wrong with which line. Both ways give the same table.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from curator_core.arrow.arrays import array
from curator_core.errors import UsageError, nearest

# Exact JSON text of a value of any kind: for what has no one Arrow type.
JSON = pa.json_(pa.utf8())
_PIECES = 16
_EXACT_INT = 1 << 53
_LIST = re.compile(r"\s*list\s*<(.*)>\s*", re.DOTALL)
_SCALARS = {
    "string": pa.string(),
    "str": pa.string(),
    "text": pa.string(),
    "int": pa.int64(),
    "int64": pa.int64(),
    "uint64": pa.uint64(),
    "float": pa.float64(),
    "float64": pa.float64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "boolean": pa.bool_(),
    "json": JSON,
}
_PYTHON = {pa.string(): str, pa.int64(): int, pa.uint64(): int, pa.float64(): float, pa.bool_(): bool}
_PLAIN = (pa.string(), pa.int64(), pa.float64(), pa.bool_())
_SHORT = {
    pa.string(): "string",
    pa.int64(): "int64",
    pa.uint64(): "uint64",
    pa.float64(): "float64",
    pa.bool_(): "bool",
    pa.null(): "null",
    JSON: "json",
}


class BadLine(Exception):
    """A line that is not a row: ``reason`` for counting, and what exactly is wrong."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message


@dataclass(slots=True)
class BadRow:
    """A line that was set aside, with its place in the block."""

    line: int  # counted from 0
    offset: int  # bytes from the start of the block
    raw: bytes
    reason: str
    message: str


@dataclass(slots=True)
class Parsed:
    """What a block of lines held."""

    table: pa.Table
    rows: int  # lines that are not blank
    lines: int  # line ends
    bad: list[BadRow] = field(default_factory=list)


# Types ---------------------------------------------------------------------------------------------------------------


def parse_type(spelled: Any, where: str) -> pa.DataType:
    """An Arrow type from how users write it: ``string``, ``list<int64>``, ``json``, or a mapping for an object."""
    if isinstance(spelled, pa.DataType):
        return spelled
    if isinstance(spelled, Mapping):
        return pa.struct([(str(key), _inner_type(value, f"{where}.{key}")) for key, value in spelled.items()])
    if isinstance(spelled, str):
        inner = _LIST.fullmatch(spelled)
        if inner:
            return pa.list_(_inner_type(inner[1].strip(), where))
        found = _SCALARS.get(spelled.strip().lower())
        if found is not None:
            return found
    raise UsageError(
        f"{where} has the unknown type {spelled!r}{nearest(str(spelled), _SCALARS) or '.'} "
        f"It can be {', '.join(dict.fromkeys(_SHORT.values()))}, list<…> of these, or a mapping for an object"
    )


def check_schema(schema: Mapping[str, Any] | None, stage: str) -> dict[str, pa.DataType]:
    """Declared types by column, as Arrow types."""
    if schema is None:
        return {}
    if not isinstance(schema, Mapping):
        raise UsageError(f"{stage}.schema must map columns to types, such as {{id: string}}, not {schema!r}")
    return {str(name): parse_type(kind, f"{stage}.schema[{name!r}]") for name, kind in schema.items()}


def _inner_type(spelled: Any, where: str) -> pa.DataType:
    kind = parse_type(spelled, where)
    if kind == JSON:
        raise UsageError(f"{where} has json inside a list or an object: declare the whole column as json")
    return kind


def type_name(kind: pa.DataType) -> str:
    """A type as users write it."""
    if pa.types.is_list(kind):
        return f"list<{type_name(kind.value_type)}>"
    return _SHORT.get(kind, str(kind))


def infer_types(rows: Iterable[dict[str, Any]]) -> dict[str, pa.DataType]:
    """The type of each key, in order of first appearance: what most of its values are.

    Whole numbers among fractions are float64; objects, and lists of mixed or unknown content, are ``json``. A key with
    nothing but nulls has Arrow's null type, until a value appears.
    """
    seen: dict[str, dict[pa.DataType, int]] = {}
    for row in rows:
        for key, value in row.items():
            kinds = seen.setdefault(key, {})
            kind = _kind(value)
            if kind is not None:
                kinds[kind] = kinds.get(kind, 0) + 1
    return {key: _settle(kinds) for key, kinds in seen.items()}


def guessed_types(
    rows: Iterable[dict[str, Any]], declared: Mapping[str, pa.DataType], only: tuple[str, ...] | None
) -> dict[str, pa.DataType] | None:
    """What `infer_types` will say of the rows of a block that begins with these, if all of it fits; None if unsure.

    A block that Arrow parses by a schema has no other keys than these and, for these types, no other kinds of values.
    So every kind of value but one has a count of 0 (whole numbers count as fractions where there is a fraction), and
    the keys are in the order of the first rows. It is not so for other types: an empty list is ``json`` by itself.
    """
    found = infer_types(rows)
    names = found.keys() if only is None else only
    if not found or not declared.keys() | set(names) <= found.keys():
        return None
    types = {name: declared.get(name, found[name]) for name in names}
    return types if all(types[name] in _PLAIN for name in types.keys() - declared.keys()) else None


def _kind(value: Any) -> pa.DataType | None:
    if value is None:
        return None
    if isinstance(value, str):
        return pa.string()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        if -(1 << 63) <= value < 1 << 63:
            return pa.int64()
        return pa.uint64() if 0 <= value < 1 << 64 else JSON
    if isinstance(value, float):
        return pa.float64()
    if isinstance(value, list) and value:
        kinds = {kind for kind in map(_kind, value) if kind is not None}
        if len(kinds) == 1 and JSON not in kinds:
            return pa.list_(kinds.pop())
    return JSON


def _settle(kinds: dict[pa.DataType, int]) -> pa.DataType:
    if not kinds:
        return pa.null()
    if JSON in kinds and all(kind == JSON or pa.types.is_nested(kind) for kind in kinds):
        return JSON
    if set(kinds) == {pa.int64(), pa.uint64()}:
        return JSON
    if pa.float64() in kinds and pa.int64() in kinds:
        kinds[pa.float64()] += kinds.pop(pa.int64())
    return max(kinds, key=lambda kind: kinds[kind])  # the first of equals


# The whole block at once ---------------------------------------------------------------------------------------------


@dataclass
class LineParser:
    """Parses blocks of one file. ``types`` grows when a key appears that the first rows did not have.

    ``only``: the columns to read, and no others. ``settle`` gives the types where those at hand are a guess (see
    `guessed_types`) and the first block does not prove it.
    """

    types: dict[str, pa.DataType]
    only: tuple[str, ...] | None = None
    max_line_bytes: int = 1 << 26
    settle: Callable[[], dict[str, pa.DataType]] | None = None

    def parse(self, data: memoryview, ends: np.ndarray[Any, Any]) -> Parsed:
        """The rows of a block of lines, and the lines that are none; ``ends``: where its line ends are."""
        bytes_ = np.frombuffer(data, np.uint8)
        lines = len(ends)
        if len(data) and (not lines or ends[-1] != len(data) - 1):
            ends = np.append(ends, len(data))
        table = self._at_once(data, bytes_, ends)
        if table is None and self.settle is not None:
            guess, self.types = list(self.types.items()), self.settle()
            if list(self.types.items()) != guess:
                table = self._at_once(data, bytes_, ends)
        self.settle = None
        if table is not None:
            return Parsed(table, table.num_rows, lines)
        tables: list[pa.Table] = []
        bad: list[BadRow] = []
        rows = 0
        bounds = np.concatenate(([0], ends + 1))
        step = -(-len(ends) // _PIECES)
        for first in range(0, len(ends), step):
            after = min(first + step, len(ends))
            start, stop = int(bounds[first]), min(int(bounds[after]), len(data))
            part = self._at_once(data[start:stop], bytes_[start:stop], ends[first:after] - start) if step > 1 else None
            if part is not None:
                tables.append(part)
                rows += part.num_rows
                continue
            cut = [
                (index, int(bounds[index]), bytes(data[int(bounds[index]) : int(ends[index])]))
                for index in range(first, after)
            ]
            part, count, wrong = self._line_by_line(cut)
            tables.append(part)
            rows += count
            bad += wrong
        filled = [table for table in tables if table.num_rows]
        schema = self.schema()
        table = pa.concat_tables([_fit(table, schema) for table in filled]) if filled else schema.empty_table()
        return Parsed(table, rows, lines, bad)

    def schema(self) -> pa.Schema:
        """The columns as they are now."""
        names = self.types if self.only is None else [name for name in self.only if name in self.types]
        return pa.schema([(name, self.types[name]) for name in names])

    def _at_once(self, data: memoryview, bytes_: np.ndarray[Any, Any], ends: np.ndarray[Any, Any]) -> pa.Table | None:
        """The table of a block, or None where it cannot be proven that nothing is wrong with it."""
        schema = self.schema()
        if not len(schema) or JSON in schema.types:
            return None
        starts = np.empty_like(ends)
        starts[:1], starts[1:] = 0, ends[:-1] + 1
        lasts = ends - 1
        lasts = lasts - (bytes_[lasts] == 13)
        whole = lasts >= starts
        if not whole.all():  # blank lines are no rows
            starts, lasts = starts[whole], lasts[whole]
        # A line that begins with { and ends with } and is followed by such a line cannot end inside an object, because
        # } { never follow one another in one. So each holds one object or more, and as many rows as lines, exactly one.
        if not len(starts) or (bytes_[starts] != 0x7B).any() or (bytes_[lasts] != 0x7D).any():
            return None
        if len(data) > self.max_line_bytes and int((lasts - starts).max()) + 1 > self.max_line_bytes:
            return None
        buffer = pa.py_buffer(data)
        if not _is_utf8(buffer):
            return None
        try:
            table = pj.read_json(
                pa.BufferReader(buffer),
                read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
                parse_options=pj.ParseOptions(
                    explicit_schema=schema,
                    unexpected_field_behavior="error" if self.only is None else "ignore",
                ),
            )
        except pa.ArrowInvalid:
            return None
        if table.num_rows != len(starts) or not all(_exact(column) for column in table.columns):
            return None
        return table

    # Line by line ----------------------------------------------------------------------------------------------------

    def _line_by_line(self, cut: list[tuple[int, int, bytes]]) -> tuple[pa.Table, int, list[BadRow]]:
        rows: list[dict[str, Any]] = []
        places: list[tuple[int, int, bytes]] = []
        bad: list[BadRow] = []
        count = 0
        for line, offset, raw in cut:
            if not raw or raw.isspace():
                continue
            count += 1
            try:
                if len(raw) > self.max_line_bytes:
                    raise BadLine("line too long", f"{len(raw)} bytes, and max_line_bytes is {self.max_line_bytes}")
                rows.append(parse_line(raw))
            except BadLine as why:
                bad.append(BadRow(line, offset, raw, why.reason, why.message))
                continue
            places.append((line, offset, raw))
        self._learn(rows)
        arrays = [_column(rows, part.name, part.type) for part in self.schema()]
        if arrays and all(part is not None for part in arrays):
            return pa.table(arrays, schema=self.schema()), count, bad
        checks = [(field.name, _checker(field.type)) for field in self.schema()]
        columns: list[list[Any]] = [[] for _ in checks]
        for row, (line, offset, raw) in zip(rows, places, strict=True):
            try:
                values = [check(row.get(name), name) for name, check in checks]
            except BadLine as why:
                bad.append(BadRow(line, offset, raw, why.reason, why.message))
                continue
            for column, value in zip(columns, values, strict=True):
                column.append(value)
        bad.sort(key=lambda row: row.line)
        schema = self.schema()
        if not len(schema):
            # A table without columns has no rows either.
            bad += [BadRow(*place, "empty object", "no line so far has a key") for place in places]
            return schema.empty_table(), count, sorted(bad, key=lambda row: row.line)
        arrays = [_to_array(column, field.type) for column, field in zip(columns, schema, strict=True)]
        return pa.table(arrays, schema=schema), count, bad

    def _learn(self, rows: list[dict[str, Any]]) -> None:
        """Take up keys that are new, and types of keys that had only nulls so far."""
        wanted = None if self.only is None else set(self.only)
        unknown = {
            key
            for row in rows
            for key, value in row.items()
            if (key not in self.types or (value is not None and self.types[key] == pa.null()))
            and (wanted is None or key in wanted)
        }
        if unknown:
            self.types.update(infer_types({k: v for k, v in row.items() if k in unknown} for row in rows))


def parse_line(raw: bytes) -> dict[str, Any]:
    """The object in one line, exactly; raises `BadLine`."""
    if raw.startswith(b"\xef\xbb\xbf"):
        raise BadLine("byte order mark", "the line begins with a byte order mark (EF BB BF), which is not JSON")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadLine("bad UTF-8", f"byte {error.start} of the line: {error.reason}") from None
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise BadLine("broken JSON", f"{error.msg} at character {error.pos}{_array_hint(text)}") from None
    except RecursionError:
        raise BadLine("broken JSON", "nested too deeply") from None
    except ValueError as error:  # integers of thousands of digits
        raise BadLine("number out of range", str(error)) from None
    if not isinstance(value, dict):
        raise BadLine("not an object", f"the line holds {_shown(value)}, and a row is an object{_array_hint(text)}")
    return value


def _array_hint(text: str) -> str:
    if not text.lstrip().startswith("["):
        return ""
    return "; a file that is one array becomes JSON lines with `jq -c '.[]' FILE`"


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BadLine("duplicate key", f"the key {twice!r} stands twice in one object")
    return result


def _constant(name: str) -> Any:
    raise BadLine("broken JSON", f"{name} is not JSON; write null, or a string")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise BadLine("number out of range", f"{text[:40]} is beyond a 64-bit float")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_finite)


def _column(rows: list[dict[str, Any]], name: str, kind: pa.DataType) -> pa.Array | None:
    """The values of a key as a column; None where one of them may not fit, or its kind needs a closer look."""
    values = [row.get(name) for row in rows]
    try:
        if kind == JSON:
            return _to_array([_as_json(value, name) for value in values], kind)
        if not set(map(type, values)) <= {_PYTHON.get(kind), type(None)}:
            return None
        return array(values, kind)
    except (BadLine, UnicodeEncodeError, OverflowError, pa.ArrowInvalid):
        return None


# Values --------------------------------------------------------------------------------------------------------------


def _checker(kind: pa.DataType) -> Callable[[Any, str], Any]:
    """A function that gives a value of a JSON line for a column of this type, or raises `BadLine`."""
    if kind == JSON:
        return _as_json
    if pa.types.is_string(kind):
        return _as_text
    if pa.types.is_boolean(kind):
        return lambda value, name: value if value is None or isinstance(value, bool) else _conflict(value, kind, name)
    if pa.types.is_integer(kind):
        low, high = (-(1 << 63), 1 << 63) if pa.types.is_signed_integer(kind) else (0, 1 << 64)

        def integer(value: Any, name: str) -> Any:
            if value is None or (isinstance(value, int) and not isinstance(value, bool) and low <= value < high):
                return value
            return _conflict(value, kind, name)

        return integer
    if pa.types.is_floating(kind):

        def number(value: Any, name: str) -> Any:
            if value is None or isinstance(value, float):
                return value
            if isinstance(value, int) and not isinstance(value, bool) and -_EXACT_INT < value < _EXACT_INT:
                return float(value)
            return _conflict(value, kind, name)

        return number
    if pa.types.is_list(kind):
        each = _checker(kind.value_type)
        return lambda value, name: (
            None
            if value is None
            else [each(item, name) for item in value]
            if isinstance(value, list)
            else _conflict(value, kind, name)
        )
    if pa.types.is_struct(kind):
        parts = {part.name: _checker(part.type) for part in kind}

        def record(value: Any, name: str) -> Any:
            if value is None:
                return None
            if not isinstance(value, dict) or not value.keys() <= parts.keys():
                return _conflict(value, kind, name)
            return {key: check(value.get(key), f"{name}.{key}") for key, check in parts.items()}

        return record
    if pa.types.is_null(kind):
        return lambda value, name: None if value is None else _conflict(value, kind, name)
    raise UsageError(f"JSON has no values of the type {kind}: declare one of {', '.join(_SHORT.values())}")


def check_types(types: Mapping[str, pa.DataType]) -> None:
    """Refuse declared types that JSON has no exact values for."""
    for kind in types.values():
        _checker(kind)


def _as_text(value: Any, name: str) -> Any:
    if value is None:
        return None
    if not isinstance(value, str):
        return _conflict(value, pa.string(), name)
    if not value.isascii():
        _encodable(value, name)
    return value


def _as_json(value: Any, name: str) -> Any:
    if value is None:
        return None
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # integers over 64 bits, deep nesting, half of a surrogate pair
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if not text.isascii():
            _encodable(text, name)
        return text


def _encodable(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadLine("lone surrogate", f"{name!r} holds half of a surrogate pair, which is no text") from None


def _conflict(value: Any, kind: pa.DataType, name: str) -> Any:
    column = name.partition(".")[0]
    raise BadLine(
        "type conflict",
        f"{name!r} is {type_name(kind)} by the declared schema or the first rows, and here it is {_shown(value)}; "
        f"to keep all kinds of values as they are, declare schema: {{{column}: json}}",
    )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _to_array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, array(values, kind.storage_type))
    return array(values, kind)


def _fit(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with the columns of ``schema``, null where it has none."""
    if table.schema == schema:
        return table
    columns = []
    for part in schema:
        column = table[part.name] if part.name in table.column_names else None
        if column is None or column.type != part.type:  # not there, or nothing but nulls so far
            column = _to_array([None] * table.num_rows, part.type)
        columns.append(column)
    return pa.table(columns, schema=schema)


def _is_utf8(buffer: pa.Buffer) -> bool:
    # Not pa.array of a list: the first of these in a process imports pandas, which takes a second.
    offsets = pa.py_buffer(np.array([0, buffer.size], np.int32))
    try:
        pa.Array.from_buffers(pa.binary(), 1, [None, offsets, buffer]).cast(pa.string())
    except pa.ArrowInvalid:
        return False
    return True


def _exact(values: pa.ChunkedArray | pa.Array) -> bool:
    """Whether no number may have lost something on its way into a double."""
    kind = values.type
    if pa.types.is_floating(kind):
        ends = pc.min_max(values).as_py()
        # min_max passes over nulls; NaN it passes over too, so that is asked for on its own.
        low, high = ends["min"], ends["max"]
        if low is None:
            return True
        return low > -_EXACT_INT and high < _EXACT_INT and not pc.any(pc.is_nan(values)).as_py()
    if pa.types.is_list(kind):
        return _exact(pc.list_flatten(values))
    if pa.types.is_struct(kind):
        return all(_exact(pc.struct_field(values, [index])) for index in range(kind.num_fields))
    return True


def first_lines(data: bytes, limit: int) -> Iterator[dict[str, Any]]:
    """The objects among the first ``limit`` lines, for `infer_types`; bad lines are told later, when they are read."""
    for raw in data.split(b"\n", limit)[:limit]:
        if not raw or raw.isspace():
            continue
        try:
            row = orjson.loads(raw)
            if not isinstance(row, dict) or any(map(_beyond_64_bits, row.values())):
                row = parse_line(raw)
        except orjson.JSONDecodeError:
            try:
                row = parse_line(raw)
            except BadLine:
                continue
        except BadLine:
            continue
        yield row


def _beyond_64_bits(value: Any) -> bool:
    """Whether this may have been an integer that orjson has made a float of."""
    if isinstance(value, float):
        return not -(2.0**63) < value < 2.0**63
    return isinstance(value, list) and any(map(_beyond_64_bits, value))
