"""Which one type holds values of several kinds without changing any of them?

Numbers stay numbers as long as a 64-bit float holds each of them exactly, lists take the type that holds all of their
items, and a null or an empty list fits any type. Any other mixture becomes JSON: Arrow's ``json`` type, a column of
text in which each value is written as JSON. The answer depends on the values alone and not on their order, so it is the
same whether a file is read in one piece or by many workers. Decision 0060 gives the reasons.

A float column whose whole numbers had no fraction in the source (``1``, not ``1.0``) is marked in its field, as is a
column that first appeared late in its file and is absent from the rows in which it is null.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curator_core.arrow.json_column import JSON

# Not every larger whole number is a 64-bit float.
EXACT = 1 << 53
# The number of levels of nested lists; deeper ones are JSON.
MOST_NESTED = 4

_WHOLE = (b"curator.whole_numbers", b"without fraction")
_LATE = (b"curator.null", b"absent")
_NUMBER, _TEXT, _TRUTH, _LIST, _OTHER = "number", "text", "truth", "list", "other"


@dataclass(slots=True)
class Kinds:
    """The kinds of values that a column has had so far: enough to determine the type that holds them all."""

    counts: dict[str, int] = field(default_factory=dict)
    low: int = 0
    high: int = 0
    fractions: bool = False
    items: Kinds | None = None

    def add(self, value: Any, depth: int = 0) -> None:
        """Add a JSON value."""
        if value is None:
            return
        kind = type(value)
        if kind is str:
            name = _TEXT
        elif kind is bool:
            name = _TRUTH
        elif kind is int:
            name = _NUMBER
            self.low, self.high = min(self.low, value), max(self.high, value)
        elif kind is float:
            name = _NUMBER
            self.fractions = True
        elif kind is list and depth < MOST_NESTED:
            name = _LIST
            self.items = self.items or Kinds()
            for item in value:
                self.items.add(item, depth + 1)
        else:
            name = _OTHER
        self.counts[name] = self.counts.get(name, 0) + 1

    def add_type(self, kind: pa.DataType) -> None:
        """Add a type of another column, any of whose values may occur."""
        if pa.types.is_null(kind):
            return
        if pa.types.is_list(kind):
            self.items = self.items or Kinds()
            self.items.add_type(kind.value_type)
        self.fractions = self.fractions or bool(pa.types.is_floating(kind))
        name = next((name for test, name in _TYPE_NAMES if test(kind)), _OTHER)
        self.counts[name] = self.counts.get(name, 0) + 1

    def holds_all(self) -> pa.DataType:
        """The type that holds every value."""
        if not self.counts:
            return pa.null()
        return self._of(next(iter(self.counts))) if len(self.counts) == 1 else JSON

    def holds_most(self) -> pa.DataType:
        """The type that holds the values of the most frequent kind, or of the first one if several are equally
        frequent.
        """
        if not self.counts:
            return pa.null()
        if set(self.counts) == {_LIST, _OTHER}:
            return JSON
        return self._of(max(self.counts, key=lambda name: self.counts[name]))

    def _of(self, name: str) -> pa.DataType:
        if name == _TEXT:
            return pa.string()
        if name == _TRUTH:
            return pa.bool_()
        if name == _NUMBER:
            if self.fractions:
                return pa.float64() if self.low >= -EXACT and self.high <= EXACT else JSON
            if self.low >= -(1 << 63) and self.high < 1 << 63:
                return pa.int64()
            return pa.uint64() if self.low >= 0 and self.high < 1 << 64 else JSON
        if name == _LIST and self.items is not None:
            inner = self.items.holds_all()
            return JSON if inner == JSON else pa.list_(inner)
        return JSON


_TYPE_NAMES: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pa.types.is_string, _TEXT),
    (pa.types.is_boolean, _TRUTH),
    (pa.types.is_integer, _NUMBER),
    (pa.types.is_floating, _NUMBER),
    (pa.types.is_list, _LIST),
)


# Numbers -------------------------------------------------------------------------------------------------------------


def aligner(kind: pa.DataType) -> Callable[[Any], Any] | None:
    """A function that adapts numbers to a column of this type: whole numbers become floats in a column of floats, and
    lose their ``.0`` in one of integers or without a type. None if values need no change.
    """
    return _aligner(kind, 0)


def _aligner(kind: pa.DataType, depth: int) -> Callable[[Any], Any] | None:
    if pa.types.is_floating(kind):
        return _as_float
    if pa.types.is_integer(kind):
        return _as_whole
    if pa.types.is_null(kind):
        return lambda value: _all_whole(value, depth)
    if pa.types.is_list(kind) and depth < MOST_NESTED:
        inner = _aligner(kind.value_type, depth + 1)
        if inner is not None:
            return lambda value: [inner(item) for item in value] if type(value) is list else value
    return None


def _as_float(value: Any) -> Any:
    return float(value) if type(value) is int and -EXACT <= value <= EXACT else value


def _as_whole(value: Any) -> Any:
    if type(value) is float and -EXACT <= value <= EXACT and value.is_integer():
        return int(value) if value or math.copysign(1, value) > 0 else value
    return value


def _all_whole(value: Any, depth: int) -> Any:
    if type(value) is list and depth < MOST_NESTED:
        return [_all_whole(item, depth + 1) for item in value]
    return _as_whole(value)


as_whole = aligner(pa.null())


def has_floats(kind: pa.DataType) -> bool:
    """Whether a type is a float type, or a list of floats."""
    return has_floats(kind.value_type) if pa.types.is_list(kind) else bool(pa.types.is_floating(kind))


# Marks of fields -----------------------------------------------------------------------------------------------------


def marked(name: str, kind: pa.DataType, *, whole: bool = False, late: bool = False) -> pa.Field:
    """A field with its marks: ``whole`` numbers without a fraction, ``late`` in its file and absent from rows in which
    it is null.
    """
    return pa.field(
        name, kind, metadata=dict(mark for mark, there in ((_WHOLE, whole), (_LATE, late)) if there) or None
    )


def is_whole(part: pa.Field) -> bool:
    """Whether the whole numbers in a column of floats were written without a fraction."""
    return _has(part, _WHOLE)


def is_late(part: pa.Field) -> bool:
    """Whether a column is absent from the rows in which it is null."""
    return _has(part, _LATE)


def _has(part: pa.Field, mark: tuple[bytes, bytes]) -> bool:
    found: Mapping[bytes, bytes] = part.metadata or {}
    return found.get(mark[0]) == mark[1]


# Types of several columns --------------------------------------------------------------------------------------------


def one_schema(schemas: Sequence[pa.Schema], fits: Callable[[int, str, pa.DataType], bool]) -> pa.Schema:
    """The schema that holds the rows of all of these schemas.

    ``fits(number, name, kind)`` says whether the values of a column are unchanged in that type; it is called if the
    types alone do not decide it. Columns are in the order of their first occurrence, followed by those that appeared
    late, by name; a column that a schema lacks is nullable. A column that is a dictionary in some schemas and plain in
    others becomes plain.
    """
    places: dict[str, list[int]] = {}
    for number, schema in enumerate(schemas):
        for part in schema:
            places.setdefault(part.name, []).append(number)
    first: dict[str, int] = {}
    for schema in schemas:
        for part in schema:
            if not is_late(part):
                first.setdefault(part.name, len(first))
    names = [*first, *sorted(places.keys() - first.keys())]
    fields = []
    for name in names:
        parts = [schemas[number].field(name) for number in places[name]]
        missing = len(places[name]) < len(schemas)
        fields.append(_one_field(parts, places[name], missing, fits))
    return pa.schema(fields, next((s.metadata for s in schemas if s.metadata), None))


def _one_field(
    parts: list[pa.Field], places: list[int], missing: bool, fits: Callable[[int, str, pa.DataType], bool]
) -> pa.Field:
    first = parts[0]
    if all(part.equals(first, check_metadata=True) for part in parts):
        return first.with_nullable(first.nullable or missing)
    name = first.name
    kind = next(
        kind
        for kind in _candidates(list(dict.fromkeys(part.type for part in parts)))
        if kind == JSON
        or all(
            part.type == kind or pa.types.is_null(part.type) or fits(number, name, kind)
            for part, number in zip(parts, places, strict=True)
        )
    )
    floats = [part for part in parts if has_floats(part.type)]
    other = next((part.metadata for part in parts if part.metadata and not (is_whole(part) or is_late(part))), None)
    whole = has_floats(kind) and bool(floats) and all(map(is_whole, floats))
    found = marked(name, kind, whole=whole, late=all(map(is_late, parts)))
    if other and not found.metadata:
        found = found.with_metadata(other)
    return found.with_nullable(missing or any(part.nullable for part in parts))


def _candidates(kinds: list[pa.DataType]) -> Iterable[pa.DataType]:
    """Types that may hold values of all of these, the closest first; the last one is JSON, for all values that JSON can
    express.
    """
    if len(kinds) > 1 and any(map(pa.types.is_dictionary, kinds)):
        kinds = list(dict.fromkeys(k.value_type if pa.types.is_dictionary(k) else k for k in kinds))
    try:
        schemas = [pa.schema([("", kind)]) for kind in kinds]
        yield pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        pass
    if pa.uint64() in kinds and all(pa.types.is_integer(kind) or pa.types.is_null(kind) for kind in kinds):
        yield pa.uint64()
    yield JSON
