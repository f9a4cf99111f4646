"""Reads the files of test sets: items with ids, and the texts of each.

The files of a test set are JSON lines, Parquet, or text with an item in each line. A file that cannot be used is an
error and is never skipped, because overlaps with its items would go unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa

from curator_core import storage
from curator_core.errors import UsageError, nearest
from curator_core.model.task import EmptyTask
from curator_core.stages.files import FilePartitioning, checked_paths
from curator_text.readers._bytes import Truncated, decompressed

# A test set as users write it: its files, or a mapping of its files and fields.
TestSetGiven = str | Sequence[str] | Mapping[str, Any]

_KEYS = ("paths", "fields", "id")
_JSON = (".jsonl", ".ndjson", ".json")
_TEXT = (".txt", ".text")
_COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
_ROWS = 4096
_SHOWN_FIELDS = 100


@dataclass(frozen=True, slots=True)
class TestSet:
    """The files of a test set, and the fields whose texts are searched for."""

    __test__ = False  # pytest must not collect this class

    name: str
    paths: tuple[str, ...]
    fields: tuple[str, ...] | None = None  # None means the field `text`
    id: str | None = None  # None means the field `id`, or the place in the file if there is no such field


@dataclass(frozen=True, slots=True)
class Item:
    """One question, passage or problem of a test set."""

    id: str
    texts: list[str]


def checked_test_sets(owner: str, given: Mapping[str, TestSetGiven]) -> list[TestSet]:
    """Parse the test sets that a user names, without opening files; an error says what is wrong."""
    what = f"{owner}.test_sets"
    if not isinstance(given, Mapping) or not given:
        raise UsageError(
            f"{what} must be a mapping from the name of each test set to its files, such as "
            f"{{gsm8k: {{paths: gsm8k.jsonl, fields: [question]}}}}, not {given!r}"
        )
    return [_checked(f"{what}[{name!r}]", name, value) for name, value in given.items()]


def _checked(what: str, name: Any, value: Any) -> TestSet:
    if not isinstance(name, str) or not name.strip() or "\n" in name:
        raise UsageError(f"{what}: the name of a test set is a line of text, not {name!r}")
    if not isinstance(value, Mapping):
        return TestSet(name, tuple(checked_paths(what, value)))
    unknown = next((key for key in value if key not in _KEYS), None)
    if unknown is not None:
        raise UsageError(f"{what} takes {', '.join(_KEYS)}, not {unknown!r}{nearest(str(unknown), _KEYS)}")
    if "paths" not in value:
        raise UsageError(f"{what} needs paths: the files of the test set")
    fields, field = value.get("fields"), value.get("id")
    if fields is not None:
        fields = [fields] if isinstance(fields, str) else fields
        if not isinstance(fields, list | tuple) or not fields or not all(isinstance(f, str) and f for f in fields):
            raise UsageError(f"{what}.fields must be a list of names, such as ['question'], not {value['fields']!r}")
        fields = tuple(dict.fromkeys(fields))
    if field is not None and (not isinstance(field, str) or not field):
        raise UsageError(f"{what}.id must be the name of a field, not {field!r}")
    return TestSet(name, tuple(checked_paths(f"{what}.paths", value["paths"])), fields, field)


def items_of(test_set: TestSet) -> Iterator[Item]:
    """The items of a test set, in the order of its files; raises if a field has no text in any row."""
    fields = _Fields(test_set)
    some = False
    for path in files_of(test_set):
        name = path.lower()
        for end in _COMPRESSED:
            name = name.removesuffix(end)
        if name.endswith((".parquet", *_JSON)):
            rows = _parquet_rows(test_set, path) if name.endswith(".parquet") else _json_rows(test_set, path)
            items: Iterator[Item] = (Item(_id(test_set, row, place), fields.texts_in(row)) for place, row in rows)
        else:
            items = _lines(test_set, path)
        for item in items:
            some = True
            yield item
    if not some:
        raise UsageError(f"test set {test_set.name!r}: its files hold no item: {', '.join(map(repr, test_set.paths))}")
    fields.check()


def files_of(test_set: TestSet) -> list[str]:
    """The files of a test set; raises if there are none, or if one has an unsupported format."""
    try:
        tasks = list(FilePartitioning(paths=test_set.paths).process(EmptyTask()))
        found = [path for task in tasks for path in task.data]
    except (UsageError, OSError) as error:
        raise UsageError(f"test set {test_set.name!r}: {error}") from error
    kinds = (".parquet", *(base + end for base in (*_JSON, *_TEXT) for end in ("", *_COMPRESSED)))
    for path in found:
        if not path.lower().endswith(kinds):
            raise UsageError(
                f"test set {test_set.name!r}: {path!r} is not a file that test sets can be read from. They are JSON lines "
                f"(.jsonl, .json), .parquet, or text with an item in each line (.txt); compressed with {', '.join(_COMPRESSED)} too"
            )
    return found


class _Fields:
    """The fields of a test set, and a record of those that were missing or had no text."""

    def __init__(self, test_set: TestSet) -> None:
        self.test_set = test_set
        self.names = test_set.fields or ("text",)
        self.missing = set(self.names)
        self.without_text = set(self.names)
        self.seen: dict[str, None] = {}
        self.rows = False

    def texts_in(self, row: Mapping[str, Any]) -> list[str]:
        self.rows = True
        if len(self.seen) < _SHOWN_FIELDS:
            self.seen |= dict.fromkeys(row)
        texts: list[str] = []
        for name in self.names:
            there, value = _value(row, name)
            if there:
                self.missing.discard(name)
            found = list(_texts(value))
            if found:
                self.without_text.discard(name)
            texts += found
        return texts

    def check(self) -> None:
        what = f"test set {self.test_set.name!r}"
        for name in self.names if self.rows else ():
            if name in self.missing:
                raise UsageError(
                    f"{what} has no field {name!r}{nearest(name, self.seen) or '.'} It has {', '.join(self.seen)}: "
                    "name the fields to use in fields: […]"
                )
            if name in self.without_text:
                raise UsageError(
                    f"{what}: the field {name!r} contains no text in any row of {', '.join(self.test_set.paths)}"
                )


def _id(test_set: TestSet, row: Mapping[str, Any], place: str) -> str:
    there, value = _value(row, test_set.id or "id")
    if not there and test_set.id is not None:
        raise UsageError(
            f"test set {test_set.name!r}: {place} has no field {test_set.id!r}, which is declared as the id"
        )
    return str(value) if there and value is not None else place


def _value(row: Mapping[str, Any], field: str) -> tuple[bool, Any]:
    """Whether a row has a field, and its value. If no field has the whole name, a dot separates the names of an object
    and its field.
    """
    if field in row:
        return True, row[field]
    head, dot, rest = field.partition(".")
    if dot and isinstance(row.get(head), Mapping):
        return _value(row[head], rest)
    return bool(dot) and head in row and row[head] is None, None


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value: the value itself, or the texts in a list or an object."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _content(test_set: TestSet, path: str) -> bytes:
    try:
        with storage.open_input(path) as raw:
            file = decompressed(raw)
            pieces = []
            while piece := file.read(1 << 20):
                pieces.append(piece)
    except (Truncated, OSError) as error:
        raise UsageError(f"test set {test_set.name!r}: {path!r} cannot be read: {error}") from error
    return b"".join(pieces).removeprefix(b"\xef\xbb\xbf")


def _numbered_lines(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield f"{name}:{number}", line


def _json_rows(test_set: TestSet, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of JSON lines, or of a list of objects."""
    content = _content(test_set, path)
    name = storage.file_name(path)
    if content.lstrip()[:1] == b"[":
        for number, row in enumerate(_json(test_set, name, content), 1):
            yield f"{name}:{number}", _object(test_set, f"{name}, item {number},", row)
        return
    for place, line in _numbered_lines(name, content):
        yield place, _object(test_set, place, _json(test_set, place, line))


def _json(test_set: TestSet, place: str, content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise UsageError(
            f"test set {test_set.name!r}: {place} is not JSON: {error}. It begins {content[:60]!r}; a file of JSON has an "
            "object in each line, or is one list of objects"
        ) from None


def _object(test_set: TestSet, place: str, row: Any) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise UsageError(f"test set {test_set.name!r}: {place} must be an object with fields, not {repr(row)[:60]}")
    return row


def _parquet_rows(test_set: TestSet, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow.parquet as pq  # imported late, because it takes 30 ms

    number = 0
    try:
        with storage.open_input(path) as stream:
            file = pq.ParquetFile(stream)
            for batch in file.iter_batches(_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{storage.file_name(path)}:{number}", row
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"test set {test_set.name!r}: {path!r} cannot be read as Parquet: {error}") from error


def _lines(test_set: TestSet, path: str) -> Iterator[Item]:
    if test_set.fields is not None or test_set.id is not None:
        raise UsageError(f"test set {test_set.name!r}: {path!r} is text and has no fields: leave out fields and id")
    for place, line in _numbered_lines(storage.file_name(path), _content(test_set, path)):
        try:
            yield Item(place, [line.decode("utf-8").strip()])
        except UnicodeDecodeError as error:
            raise UsageError(f"test set {test_set.name!r}: {place} is not UTF-8: {error}") from None
