"""Turns a block of JSON lines into an Arrow table. It preserves every value exactly and reports every bad line.

Arrow's own JSON parser parses a block, with types fixed beforehand so that it guesses nothing (it would turn texts into
timestamps). It accepts some input that is not one valid object per line, so this module also checks for: text that is
not UTF-8, two objects in a line, one object over two lines, NaN, integers that a double cannot hold. A block that fails
in any way is split into small ones; small blocks that fail are read line by line with Python's parser, which reports
which line is wrong and why, and widens the types of columns for kinds of values that the first lines of the file did
not have (`curator_core.arrow.kinds`).

The JSON form of a value depends only on the value and on the first lines of its file, not on its block, because blocks
depend on `batch_bytes` and the number of ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from curator_core.arrow.arrays import array
from curator_core.arrow.json_column import JSON
from curator_core.arrow.kinds import EXACT, Kinds, aligner, has_floats, marked, one_schema
from curator_core.arrow.widening import keeps_values
from curator_text.json_text import value_text
from curator_text.readers._lines import MOST_LEVELS, BadLine, parse_line
from curator_text.readers._schema import Check
from curator_text.widening import fitted

# A block that is not valid as a whole is parsed in pieces, so that one line does not make Python parse all of them. For
# fewer lines than these, starting Arrow's parser takes longer than parsing them in Python.
_PIECES, _LEAST_LINES = 16, 16
_PYTHON = {pa.string(): str, pa.int64(): int, pa.uint64(): int, pa.float64(): float, pa.bool_(): bool}
_PLAIN = (pa.string(), pa.int64(), pa.float64(), pa.bool_())
# The type of lists whose elements have no known type, because all lists are empty or contain only nulls.
_EMPTY, _TEXTS = pa.list_(pa.null()), pa.list_(pa.string())
_OPENS = np.isin(np.arange(256), [ord("["), ord("{")])


@dataclass(slots=True)
class BadRow:
    """A line that is set aside, with its place in the block."""

    line: int  # counted from 0
    offset: int  # bytes from the start of the block
    raw: bytes
    reason: str
    message: str


@dataclass(slots=True)
class Parsed:
    """The content of a block of lines."""

    table: pa.Table
    rows: int  # lines that are not blank
    lines: int  # line ends
    bad: list[BadRow] = field(default_factory=list)


# Types ---------------------------------------------------------------------------------------------------------------


def infer_types(rows: Iterable[dict[str, Any]]) -> dict[str, pa.DataType]:
    """The type of each key, in order of first appearance: the type of most of its values.

    Whole numbers among fractions are float64; objects, and lists of mixed content, are ``json``. A key that has only
    nulls gets Arrow's null type.
    """
    seen: dict[str, Kinds] = {}
    for row in rows:
        for key, value in row.items():
            seen.setdefault(key, Kinds()).add(value)
    return {key: kinds.holds_most() for key, kinds in seen.items()}


def guessed_types(
    rows: Iterable[dict[str, Any]], declared: Mapping[str, pa.DataType], only: tuple[str, ...] | None
) -> dict[str, pa.DataType] | None:
    """The result of `infer_types` for a block that begins with these rows, provided that the whole block fits; None if
    that is not certain.

    If Arrow parses a block by a schema, the block has no other keys than these and, for plain types, no other kinds of
    values. So all kinds of values except one have a count of 0 (whole numbers count as fractions if there is a
    fraction), and the keys are in the order of the first rows. For other types, this is not true: an empty list fits
    any list type.
    """
    found = infer_types(rows)
    names = found.keys() if only is None else only
    if not found or not declared.keys() | set(names) <= found.keys():
        return None
    types = {name: declared.get(name, found[name]) for name in names}
    return types if all(types[name] in _PLAIN for name in types.keys() - declared.keys()) else None


# Blocks --------------------------------------------------------------------------------------------------------------


@dataclass
class LineParser:
    """Parses blocks of one file.

    ``types`` come from the declared schema and the first lines of the file. ``only`` names the columns to read.
    ``checks`` test whether values fit a declared column. If ``types`` is a guess (see `guessed_types`) that the first
    block does not confirm, ``settle`` returns the types.
    """

    types: dict[str, pa.DataType]
    only: tuple[str, ...] | None = None
    max_line_bytes: int = 1 << 26
    checks: Mapping[str, Check] = field(default_factory=dict)
    settle: Callable[[], dict[str, pa.DataType]] | None = None
    # The types for Arrow's parser, including columns that were widened or added since.
    _tried: dict[str, pa.DataType] = field(init=False)

    def __post_init__(self) -> None:
        self._tried = dict(self.types)

    def parse(self, data: memoryview, ends: np.ndarray[Any, Any]) -> Parsed:
        """The rows of a block of lines, and the lines that are not rows. ``ends`` are the positions of line ends."""
        bytes_ = np.frombuffer(data, np.uint8)
        lines = len(ends)
        if len(data) and (not lines or ends[-1] != len(data) - 1):
            ends = np.append(ends, len(data))
        table = self._at_once(data, bytes_, ends)
        if table is None and self.settle is not None:
            guess, self.types = list(self.types.items()), self.settle()
            self._tried = dict(self.types)
            if list(self.types.items()) != guess:
                table = self._at_once(data, bytes_, ends)
        self.settle = None
        if table is not None:
            return Parsed(table, table.num_rows, lines)
        tables: list[pa.Table] = []
        bad: list[BadRow] = []
        rows = 0
        bounds = np.concatenate(([0], ends + 1))
        step = max(-(-len(ends) // _PIECES), _LEAST_LINES)
        for first in range(0, len(ends), step):
            after = min(first + step, len(ends))
            start, stop = int(bounds[first]), min(int(bounds[after]), len(data))
            if step < len(ends):
                part = self._at_once(data[start:stop], bytes_[start:stop], ends[first:after] - start)
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
        return Parsed(_together([table for table in tables if table.num_rows] or [self._empty()]), rows, lines, bad)

    def _empty(self) -> pa.Table:
        return self._schema(self.types).empty_table()

    def _schema(self, types: Mapping[str, pa.DataType]) -> pa.Schema:
        """The columns with their metadata: first those of the first lines in order, and then others by name."""
        names = [*self.types, *sorted(types.keys() - self.types.keys())]
        return pa.schema([self._field(name, types[name]) for name in names])

    def _field(self, name: str, kind: pa.DataType) -> pa.Field:
        whole = has_floats(kind) and not has_floats(self.types.get(name, pa.null()))
        return marked(name, kind, whole=whole, late=name not in self.types)

    def _at_once(self, data: memoryview, bytes_: np.ndarray[Any, Any], ends: np.ndarray[Any, Any]) -> pa.Table | None:
        """The table of a block, or None unless it is certain that all of its lines are valid."""
        schema = self._schema(self._tried)
        if not len(schema) or not all(map(_parsable, schema.types)):
            return None
        starts = np.empty_like(ends)
        starts[:1], starts[1:] = 0, ends[:-1] + 1
        lasts = ends - 1
        lasts = lasts - (bytes_[lasts] == 13)
        whole = lasts >= starts
        if not whole.all():  # blank lines are not rows
            starts, lasts = starts[whole], lasts[whole]
        # If a line and the next one both begin with { and end with }, the line cannot end inside an object, because }
        # and { are never adjacent inside an object. So each line contains at least one object, and if there are as many
        # rows as lines, each contains exactly one.
        if not len(starts) or (bytes_[starts] != 0x7B).any() or (bytes_[lasts] != 0x7D).any():
            return None
        if len(data) > self.max_line_bytes and int((lasts - starts).max()) + 1 > self.max_line_bytes:
            return None
        if self.only is not None and _may_be_deep(bytes_, starts):  # the depth may be in a column that is not read
            return None
        buffer = pa.py_buffer(data)
        if not _is_utf8(buffer):
            return None
        given = pa.schema([(part.name, _TEXTS if part.type == _EMPTY else part.type) for part in schema])
        try:
            table = pj.read_json(
                pa.BufferReader(buffer),
                read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
                parse_options=pj.ParseOptions(
                    explicit_schema=given,
                    unexpected_field_behavior="error" if self.only is None else "ignore",
                ),
            )
        except pa.ArrowInvalid:
            return None
        if table.num_rows != len(starts) or not all(_exact(column) for column in table.columns):
            return None
        columns = [_emptied(c) if t == _EMPTY else c for c, t in zip(table.columns, schema.types, strict=True)]
        fields = [part.with_type(column.type) for part, column in zip(schema, columns, strict=True)]
        return pa.table(columns, schema=pa.schema(fields))

    # Line by line ----------------------------------------------------------------------------------------------------

    def _line_by_line(self, cut: list[tuple[int, int, bytes]]) -> tuple[pa.Table, int, list[BadRow]]:
        rows: list[dict[str, Any]] = []
        bad: list[BadRow] = []
        count = 0
        for line, offset, raw in cut:
            if not raw or raw.isspace():
                continue
            count += 1
            try:
                if len(raw) > self.max_line_bytes:
                    raise BadLine("line too long", f"{len(raw)} bytes, but max_line_bytes is {self.max_line_bytes}")
                rows.append(self._checked(parse_line(raw)))
            except BadLine as why:
                bad.append(BadRow(line, offset, raw, why.reason, why.message))
        names = dict.fromkeys(self.types)
        if self.only is None:
            names.update(dict.fromkeys(key for row in rows for key in row))
        columns = {name: self._column(name, [row.get(name) for row in rows]) for name in names}
        schema = self._schema({name: column.type for name, column in columns.items()})
        for part in schema:
            self._try(part.name, part.type)
        return pa.table([columns[name] for name in schema.names], schema=schema), count, bad

    def _try(self, name: str, kind: pa.DataType) -> None:
        """Give Arrow's parser the wider type from now on, unless it is JSON, which the parser cannot make and few
        blocks need.
        """
        kinds = Kinds()
        kinds.add_type(self._tried.get(name, pa.null()))
        kinds.add_type(kind)
        wider = kinds.holds_all()
        if wider != JSON:
            self._tried[name] = wider

    def _checked(self, row: dict[str, Any]) -> dict[str, Any]:
        if not self.types and not row:
            # A table without columns has no rows.
            raise BadLine("empty object", "none of the first lines of the file has a key")
        for name, check in self.checks.items():
            if name in row:
                row[name] = check(row[name], name)
        return row

    def _column(self, name: str, values: list[Any]) -> pa.Array:
        """The values of a key as a column of its type, or of a wider type that holds all of them."""
        kind = self.types.get(name, pa.null())
        if name in self.checks:
            return _to_array(values, kind)
        if kind == JSON:
            return _json_array(values)
        there = {type(value) for value in values} - {type(None)}
        if not there:
            return _to_array(values, kind)
        if there == {_PYTHON.get(kind)}:
            try:
                return array(values, kind)
            except (OverflowError, pa.ArrowInvalid):
                pass
        align = aligner(kind)
        if align is not None:
            values = [align(value) for value in values]
        kinds = Kinds()
        kinds.add_type(kind)
        for value in values:
            kinds.add(value)
        holds = kinds.holds_all()
        return _json_array(values) if holds == JSON else _to_array(values, holds)


def _together(tables: list[pa.Table]) -> pa.Table:
    """The tables of the pieces of a block as one table."""
    first = tables[0].schema
    if all(table.schema.equals(first, check_metadata=True) for table in tables):
        return pa.concat_tables(tables)
    schema = one_schema(
        [table.schema for table in tables], lambda number, name, kind: keeps_values(tables[number].column(name), kind)
    )
    return pa.concat_tables([fitted(table, schema) for table in tables])


def _json_array(values: list[Any]) -> pa.Array:
    texts = [None if value is None else value_text(value) for value in values]
    return pa.ExtensionArray.from_storage(JSON, array(texts, pa.string()))


def _to_array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, array(values, kind.storage_type))
    if pa.types.is_float64(kind):
        values = [float(value) if type(value) is int else value for value in values]
    return array(values, kind)


def _parsable(kind: pa.DataType) -> bool:
    """Whether Arrow's parser can make a column of this type. It parses lists of nulls (`_EMPTY`) wrongly, so these are
    parsed as lists of text.
    """
    if pa.types.is_list(kind):
        return bool(kind == _EMPTY) or (not pa.types.is_null(kind.value_type) and _parsable(kind.value_type))
    return bool(kind != JSON)


def _emptied(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert lists of text to lists of nulls if none of them contains a text."""
    if any(len(chunk.flatten()) > chunk.flatten().null_count for chunk in column.chunks):
        return column
    chunks = [
        pa.ListArray.from_arrays(chunk.offsets, pa.nulls(len(chunk.values)), type=_EMPTY, mask=chunk.is_null())
        for chunk in column.chunks
    ]
    return pa.chunked_array(chunks, _EMPTY)


def _may_be_deep(bytes_: np.ndarray[Any, Any], starts: np.ndarray[Any, Any]) -> bool:
    """Whether a line has so many brackets that `parse_line` might reject it."""
    opens = _OPENS[bytes_]
    return int(opens.sum()) - len(starts) >= MOST_LEVELS and bool((np.add.reduceat(opens, starts) > MOST_LEVELS).any())


def _is_utf8(buffer: pa.Buffer) -> bool:
    # Do not use pa.array with a list: the first call in a process imports pandas, which takes a second.
    offsets = pa.py_buffer(np.array([0, buffer.size], np.int32))
    try:
        pa.Array.from_buffers(pa.binary(), 1, [None, offsets, buffer]).cast(pa.string())
    except pa.ArrowInvalid:
        return False
    return True


def _exact(values: pa.ChunkedArray | pa.Array) -> bool:
    """Whether a double represents every number exactly."""
    kind = values.type
    if pa.types.is_floating(kind):
        ends = pc.min_max(values).as_py()
        # min_max ignores nulls and NaN, so test for NaN separately.
        low, high = ends["min"], ends["max"]
        if low is None:
            return True
        if low <= 0 <= high and _has_negative_zero(values):  # -0 is an integer, but -0.0 is not
            return False
        return low > -EXACT and high < EXACT and not pc.any(pc.is_nan(values)).as_py()
    if pa.types.is_list(kind):
        return _exact(pc.list_flatten(values))
    if pa.types.is_struct(kind):
        return all(_exact(pc.struct_field(values, [index])) for index in range(kind.num_fields))
    return True


def _has_negative_zero(values: pa.ChunkedArray | pa.Array) -> bool:
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    sign = -(1 << 63)
    return any(
        bool((np.frombuffer(chunk.buffers()[1], np.int64)[chunk.offset : chunk.offset + len(chunk)] == sign).any())
        for chunk in chunks
        if len(chunk)
    )
