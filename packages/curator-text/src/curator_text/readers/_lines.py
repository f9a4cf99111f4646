"""Parses one line of JSON into an object, or reports the error in the line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import orjson

# The limit of nesting: more levels than anyone needs, and far fewer than Python's parser can handle, which depends on
# the depth of the call stack.
MOST_LEVELS = 512
# Strings, complete or truncated: brackets inside them do not count.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
# A regular expression for 19 digits would take fifteen times as long.
_DIGITS = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x20 for byte in range(256))
_LONG_NUMBER = b"0" * 19


class BadLine(Exception):
    """A line that is not a row: a ``reason`` for counting, and a message with details."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message


def parse_line(raw: bytes) -> dict[str, Any]:
    """The exact object in one line; raises `BadLine`."""
    if raw.startswith(b"\xef\xbb\xbf"):
        raise BadLine("byte order mark", "the line begins with a byte order mark (EF BB BF), which is not JSON")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadLine("bad UTF-8", f"byte {error.start} of the line: {error.reason}") from None
    if raw.count(b"[") + raw.count(b"{") > MOST_LEVELS and levels(text) > MOST_LEVELS:
        raise BadLine("nested too deeply", f"more than {MOST_LEVELS} brackets are open at once")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise BadLine(
            "broken JSON", f"{error.msg.removesuffix(' at')} at character {error.pos}{_array_hint(text)}"
        ) from None
    except ValueError as error:  # integers of thousands of digits
        raise BadLine("number out of range", str(error)) from None
    if not isinstance(value, dict):
        shown = text if len(text) <= 60 else f"{text[:57]}..."
        raise BadLine("not an object", f"the line contains {shown}, but a row must be an object{_array_hint(text)}")
    if b"\\ud" in raw or b"\\uD" in raw:
        _check_pairs(value)
    return value


def levels(text: str) -> int:
    """The largest number of brackets that are open at once in a text."""
    deepest = depth = 0
    for character in _STRING.sub("", text):
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def first_lines(data: bytes, limit: int) -> Iterator[dict[str, Any]]:
    """The objects among the first ``limit`` lines, for inferring types; bad lines are reported later, when they are
    read.
    """
    for raw in data.split(b"\n", limit)[:limit]:
        if not raw or raw.isspace():
            continue
        try:
            # orjson turns integers beyond 64 bits into floats.
            row = parse_line(raw) if _LONG_NUMBER in raw.translate(_DIGITS) else orjson.loads(raw)
        except orjson.JSONDecodeError:
            try:
                row = parse_line(raw)
            except BadLine:
                continue
        except BadLine:
            continue
        if isinstance(row, dict):
            yield row


def _array_hint(text: str) -> str:
    if not text.lstrip().startswith("["):
        return ""
    return "; convert a file that is one array to JSON lines with `jq -c '.[]' FILE`"


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BadLine("duplicate key", f"the key {twice!r} occurs twice in one object")
    return result


def _constant(name: str) -> Any:
    raise BadLine("broken JSON", f"{name} is not JSON; write null, or a string")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise BadLine("number out of range", f"{text[:40]} is beyond a 64-bit float")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_finite)


def _check_pairs(row: dict[str, Any]) -> None:
    for key, value in row.items():
        try:
            json.dumps([key, value], ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise BadLine("lone surrogate", f"{key!r} contains a lone surrogate, which is not text") from None
