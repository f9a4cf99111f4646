"""How is YAML read with line numbers? As plain values with the position of each, so that an error can point at it.

Scalars follow YAML 1.2: ``no`` and ``on`` are text, ``1e-3`` is a number, dates stay text. Duplicate keys are errors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from curator_core.errors import UsageError

type Where = tuple[str | int, ...]
# A file written by hand has fewer values; aliases of aliases can make billions of nodes from a few lines.
_MOST_VALUES = 100_000
_MERGE = "tag:yaml.org,2002:merge"


class FileError(UsageError):
    """A file is wrong; the message names the file and the line, and shows the line."""


@dataclass(frozen=True)
class YamlFile:
    """The value of a YAML document, and the position of each part, by its path of keys and indexes."""

    path: str
    text: str
    value: Any
    keys: dict[Where, tuple[int, int]] = field(default_factory=dict)
    values: dict[Where, tuple[int, int]] = field(default_factory=dict)

    def error(self, message: str, where: Where = (), *, at_value: bool = False) -> FileError:
        """An error at the key (or the value) of ``where``, or at the nearest part above with a known position."""
        for length in range(len(where), -1, -1):
            for table in (self.values, self.keys) if at_value else (self.keys, self.values):
                if where[:length] in table:
                    return _error(self.path, self.text, message, table[where[:length]])
        return _error(self.path, self.text, message, None)


def read_yaml(text: str, path: str) -> YamlFile:
    """Parse one document; raise `FileError` if it is not YAML or not safe."""
    try:
        loader = _Loader(text)  # this already reads the first characters
    except yaml.reader.ReaderError as error:
        raise _unprintable(path, text, error) from None
    try:
        node = loader.get_single_node()
        found = YamlFile(path, text, None)
        value = None if node is None else _Reader(loader, found).value(node, ())
    except yaml.MarkedYAMLError as error:
        message, mark = _plain_words(error, text)
        place = (mark.line, mark.column) if mark else None
        raise _error(path, text, message, place) from None
    except yaml.reader.ReaderError as error:
        raise _unprintable(path, text, error) from None
    except yaml.YAMLError as error:
        raise FileError(f"{path}: this is not YAML: {error}") from None
    except RecursionError:
        raise FileError(f"{path}: brackets or lists are nested too deep") from None
    finally:
        loader.dispose()
    return YamlFile(path, text, value, found.keys, found.values)


def parse_value(text: str) -> Any:
    """Parse one value as in a file, for ``--set stage.param=value``."""
    return read_yaml(text, "value").value


_WORD_AND_BRACE = re.compile(r"\s*(?:- +)?([A-Za-z_][\w.]*) *\{")


class _Loader(yaml.SafeLoader):
    """Accepts safe tags only, with the scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own table


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first))
_Loader.yaml_implicit_resolvers.setdefault("", []).extend(_Loader.yaml_implicit_resolvers.pop("\0"))


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10)


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


class _Reader:
    """Converts nodes to values and records their positions."""

    def __init__(self, loader: _Loader, file: YamlFile) -> None:
        self.loader = loader
        self.file = file
        self.open: set[int] = set()
        self.count = 0

    def value(self, node: yaml.Node, where: Where) -> Any:
        self.count += 1
        if self.count > _MOST_VALUES:
            raise yaml.constructor.ConstructorError(None, None, "too many values", node.start_mark)
        self.file.values[where] = (node.start_mark.line, node.start_mark.column)
        if isinstance(node, yaml.ScalarNode):
            return self.loader.construct_object(node)
        if node.tag not in ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"):
            raise yaml.constructor.ConstructorError(None, None, _tag_text(node.tag), node.start_mark)
        if id(node) in self.open:
            raise yaml.constructor.ConstructorError(None, None, "this contains itself", node.start_mark)
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*where, number)) for number, item in enumerate(node.value)]
            assert isinstance(node, yaml.MappingNode)
            return self.mapping(node, where)
        finally:
            self.open.discard(id(node))

    def mapping(self, node: yaml.MappingNode, where: Where) -> dict[str, Any]:
        self.check_keys(node)
        merged = any(key.tag == _MERGE for key, _ in node.value)
        self.loader.flatten_mapping(node)
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.loader.construct_object(key_node)
            # With `<<`, the keys of the mapping itself come last and take precedence.
            if key in result and not merged:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is here twice", key_node.start_mark)
            result[key] = self.value(value_node, (*where, key))
            self.file.keys[*where, key] = (key_node.start_mark.line, key_node.start_mark.column)
        return result

    def check_keys(self, node: yaml.MappingNode) -> None:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be one word", key_node.start_mark)
            key = self.loader.construct_object(key_node)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is here twice", key_node.start_mark)
            seen.add(key)


def _error(path: str, text: str, message: str, place: tuple[int, int] | None) -> FileError:
    if place is None:
        return FileError(f"{path}: {message}")
    line, column = place
    lines = text.splitlines()
    shown = ""
    if line < len(lines):
        number = f"{line + 1:>5} | "
        shown = f"\n{number}{lines[line].rstrip()}\n{' ' * (len(number) + column)}^"
    return FileError(f"{path}:{line + 1}: {message}{shown}")


def _tag_text(tag: str) -> str:
    return f"the tag {tag!r} is not allowed: a file holds plain values"


def _plain_words(error: yaml.MarkedYAMLError, text: str) -> tuple[str, yaml.Mark | None]:
    """The error in terms of the file, and its place: the parser notices some errors only lines later."""
    mark = error.problem_mark or error.context_mark
    problem = error.problem or "this is not YAML"
    if "could not determine a constructor for the tag" in problem:
        tag = problem.partition("'")[2].partition("'")[0]
        return _tag_text(tag), mark
    if "found character '\\t'" in problem:
        return "a tab cannot indent YAML: use spaces", mark
    if "could not find expected ':'" in problem and error.context_mark is not None:
        word = text.splitlines()[error.context_mark.line].strip()
        return f"the colon is missing: write `{word}:` for a key, or `{word}: value`", error.context_mark
    if mark is not None and (name := _word_before_brace(text, mark.line)):
        return colon_missing(name), mark
    if "mapping values are not allowed here" in problem:
        return _unexpected_colon(text, mark), mark
    context = f" ({error.context})" if error.context else ""
    return f"{problem}{context}", mark


def colon_missing(word: str) -> str:
    """The message for ``Name {key: value}``."""
    return f"the colon after {word!r} is missing: write `{word}: {{key: value}}`"


def _word_before_brace(text: str, line: int) -> str | None:
    """The word of ``- Word {`` in this line, or in a line above whose brace is still open."""
    lines = text.splitlines()[: line + 1]
    for above, content in enumerate(reversed(lines)):
        found = _WORD_AND_BRACE.match(content)
        if found and (not above or "}" not in content):
            return found[1]
        if above and "}" in content:
            break
    return None


def _unexpected_colon(text: str, mark: yaml.Mark | None) -> str:
    message = "a key is not allowed here: a text with `: ` in it needs quotes"
    if mark is None or not mark.line:
        return message
    above = text.splitlines()[mark.line - 1].rstrip()
    if above and not above.endswith(":") and ": " not in above:
        return f"{message}; or the line above, {above.strip()!r}, is missing its colon"
    return message


def _unprintable(path: str, text: str, error: yaml.reader.ReaderError) -> FileError:
    """The error for a control character, which YAML does not allow; the parser knows only its place in the whole text."""
    character = chr(error.character) if isinstance(error.character, int) else str(error.character)
    place = text.find(character)
    if place < 0:
        return FileError(f"{path}: this is not YAML: {error.reason}")
    before = text[:place]
    message = (
        f"the character {character!r} is not allowed in YAML: remove it, or write it as an escape in double quotes"
    )
    return _error(path, text, message, (before.count("\n"), len(before) - (before.rfind("\n") + 1)))
