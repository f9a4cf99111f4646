"""Reads the types that the user declares for columns, and checks JSON values against them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from curator_core.arrow.json_column import JSON
from curator_core.arrow.kinds import EXACT
from curator_core.errors import UsageError, nearest
from curator_text.json_text import value_text
from curator_text.readers._lines import BadLine

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
_SHORT = {
    pa.string(): "string",
    pa.int64(): "int64",
    pa.uint64(): "uint64",
    pa.float64(): "float64",
    pa.bool_(): "bool",
    pa.null(): "null",
    JSON: "json",
}

# A function that converts a JSON value of the named column to the type of the column, or raises `BadLine`.
type Check = Callable[[Any, str], Any]


def parse_type(spelled: Any, where: str) -> pa.DataType:
    """The Arrow type for a spelling: ``string``, ``list<int64>``, ``json``, or a mapping for an object."""
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
    """The spelling of a type for users."""
    if pa.types.is_list(kind):
        return f"list<{type_name(kind.value_type)}>"
    return _SHORT.get(kind, str(kind))


# Values --------------------------------------------------------------------------------------------------------------


def checks(types: Mapping[str, pa.DataType]) -> dict[str, Check]:
    """A check for each declared column; raises for types that JSON cannot represent exactly."""
    return {name: _check(kind) for name, kind in types.items()}


def _check(kind: pa.DataType) -> Check:
    make = next((make for test, make in _CHECKS if test(kind)), None)
    if make is None:
        raise UsageError(f"JSON has no values of the type {kind}: declare one of {', '.join(_SHORT.values())}")
    check = make(kind)
    return lambda value, name: None if value is None else check(value, name)


def _as_json(_kind: pa.DataType) -> Check:
    return lambda value, _name: value_text(value)


def _as_text(kind: pa.DataType) -> Check:
    return lambda value, name: value if isinstance(value, str) else _conflict(value, kind, name)


def _as_truth(kind: pa.DataType) -> Check:
    return lambda value, name: value if isinstance(value, bool) else _conflict(value, kind, name)


def _as_whole(kind: pa.DataType) -> Check:
    bits = kind.bit_width
    low, high = (-(1 << bits - 1), 1 << bits - 1) if pa.types.is_signed_integer(kind) else (0, 1 << bits)
    return lambda value, name: value if type(value) is int and low <= value < high else _conflict(value, kind, name)


def _as_float(kind: pa.DataType) -> Check:
    def check(value: Any, name: str) -> Any:
        if type(value) is int and -EXACT <= value <= EXACT:
            return float(value)
        return value if type(value) is float else _conflict(value, kind, name)

    return check


def _as_list(kind: pa.DataType) -> Check:
    each = _check(kind.value_type)
    return lambda value, name: (
        [each(item, name) for item in value] if isinstance(value, list) else _conflict(value, kind, name)
    )


def _as_object(kind: pa.DataType) -> Check:
    parts = {part.name: _check(part.type) for part in kind}

    def check(value: Any, name: str) -> Any:
        if not isinstance(value, dict) or not value.keys() <= parts.keys():
            return _conflict(value, kind, name)
        return {key: part(value.get(key), f"{name}.{key}") for key, part in parts.items()}

    return check


def _as_null(kind: pa.DataType) -> Check:
    return lambda value, name: _conflict(value, kind, name)


_CHECKS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType], Check]], ...] = (
    (lambda kind: bool(kind == JSON), _as_json),
    (pa.types.is_string, _as_text),
    (pa.types.is_boolean, _as_truth),
    (pa.types.is_integer, _as_whole),
    (pa.types.is_float64, _as_float),
    (pa.types.is_list, _as_list),
    (pa.types.is_struct, _as_object),
    (pa.types.is_null, _as_null),
)


def _conflict(value: Any, kind: pa.DataType, name: str) -> Any:
    column = name.partition(".")[0]
    text = json.dumps(value)
    raise BadLine(
        "type conflict",
        f"{name!r} is {type_name(kind)} by the declared schema, but here it is "
        f"{text if len(text) <= 60 else f'{text[:57]}...'}; to keep all kinds of values as they are, leave the "
        "column out "
        f"of the schema, or declare {{{column}: json}}",
    )
