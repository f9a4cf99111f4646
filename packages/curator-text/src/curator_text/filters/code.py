"""Filters of source code: comments, lines, letters, headers of other formats.

Names, parameters, defaults and scores are those of NeMo Curator. Where NeMo Curator uses other packages (for comments
and the text of HTML), these filters use Python's own parsers.
"""

from __future__ import annotations

import ast
import csv
import html
import io
import re
import tokenize
import warnings
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curator_core.arrow.arrays import scalar
from curator_core.errors import UsageError, nearest
from curator_core.formatting import number
from curator_core.model.engine_facts import WorkerMetadata
from curator_text import _unicode
from curator_text.features.batch import TextFeatures
from curator_text.features.block import ENGLISH, LETTER, Block
from curator_text.features.lines import line_counts, lines_of
from curator_text.filters.base import (
    DocumentFilter,
    TextFilter,
    at_least,
    between,
    check_number,
    check_range,
    ratio,
    share,
    spread,
    spread_share,
)

# The score of a document whose comments cannot be found, because a comment does not end or Python cannot parse the
# document.
UNREADABLE = 9999.0


@dataclass
class PythonCommentToCodeFilter(DocumentFilter):
    """Keep Python files if the share of comments and docstrings in their text is in a range.

    A file that Python cannot parse scores 0.
    """

    min_comment_to_code_ratio: float = 0.01
    max_comment_to_code_ratio: float = 0.85

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "min_comment_to_code_ratio", "max_comment_to_code_ratio")

    def score_one(self, source: str) -> float:
        try:
            docstrings = python_docstrings(source)
            comments = python_comments(source)
        except _PYTHON_ERRORS:
            return 0.0
        size = sum(map(len, docstrings)) + max(len(docstrings) - 1, 0) + sum(map(len, comments))
        return size / len(source) if source else 0.0

    def limits(self) -> str:
        return f"Python files with {spread_share(self.min_comment_to_code_ratio, self.max_comment_to_code_ratio)} of their characters in comments and docstrings"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return between(scores, self.min_comment_to_code_ratio, self.max_comment_to_code_ratio)


@dataclass
class GeneralCommentToCodeFilter(DocumentFilter):
    """Keep files if the share of comments in their text, without comment marks, is in a range.

    ``language`` is a media type: text/x-c, text/x-c++, text/x-java, application/javascript, text/x-go, text/x-python,
    text/x-ruby, text/x-shellscript, text/html, text/xml. A file with a comment that does not end scores 9999.
    """

    language: str
    min_comment_to_code_ratio: float = 0.01
    max_comment_to_code_ratio: float = 0.85

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "min_comment_to_code_ratio", "max_comment_to_code_ratio")
        if self.language not in (*_COMMENTS, *_PYTHON_TYPES):
            raise UsageError(
                f"GeneralCommentToCodeFilter.language must be one of "
                f"{', '.join(sorted((*_COMMENTS, *_PYTHON_TYPES)))}, not {self.language!r}"
            )

    def score_one(self, source: str) -> float:
        if not source:
            return 0.0
        if self.language in _PYTHON_TYPES:
            try:
                found = [comment[1:] for comment in python_comments(source)]
            except _PYTHON_ERRORS:
                return UNREADABLE
        else:
            found = []
            for match in _COMMENTS[self.language].finditer(source):
                if match.lastgroup == "open":
                    return UNREADABLE
                if match.lastgroup is not None:
                    found.append(match.group(match.lastgroup))
        return (sum(map(len, found)) + max(len(found) - 1, 0)) / len(source)

    def limits(self) -> str:
        return f"{self.language} files with {spread_share(self.min_comment_to_code_ratio, self.max_comment_to_code_ratio)} of their characters in comments"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return between(scores, self.min_comment_to_code_ratio, self.max_comment_to_code_ratio)


@dataclass
class NumberOfLinesOfCodeFilter(TextFilter):
    """Keep files whose number of lines is in a range."""

    min_lines: int = 10
    max_lines: int = 20000
    score_type: ClassVar[pa.DataType] = pa.int64()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "min_lines", "max_lines")

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        return text.per_row(line_counts)

    def limits(self) -> str:
        return f"files of {spread(self.min_lines, self.max_lines)} lines"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return between(scores, self.min_lines, self.max_lines)


@dataclass
class AlphaFilter(TextFilter):
    """Keep files in which enough of the characters are letters; other files are often tables or printed tensors."""

    min_alpha_ratio: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "min_alpha_ratio")

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        return ratio(text.per_row(_letters, _unicode.ALPHABETIC), text.per_row(Block.char_counts), empty=0.0)

    def limits(self) -> str:
        return f"files with at least {share(self.min_alpha_ratio)} letters among their characters"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_least(scores, self.min_alpha_ratio)


@dataclass
class XMLHeaderFilter(TextFilter):
    """Drop XML files, whatever their extension: files with an XML declaration in their first characters."""

    char_prefix_search_length: int = 100
    score_type: ClassVar[pa.DataType] = pa.int64()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "char_prefix_search_length", low=0)

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        return text.per_row(_has_xml_header, self.char_prefix_search_length)

    def limits(self) -> str:
        return f"files without an XML declaration in their first {number(self.char_prefix_search_length)} characters"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return pc.not_equal(scores, scalar(1))


@dataclass
class HTMLBoilerplateFilter(DocumentFilter):
    """Keep HTML files whose visible text is long enough and is a large enough share of the source."""

    min_lang_content_ratio: float = 0.2
    min_lang_content_num_chars: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "min_lang_content_ratio")
        check_number(self, "min_lang_content_num_chars")

    def score_one(self, source: str) -> float:
        size = visible_chars(source)
        return size / len(source) if source and size >= self.min_lang_content_num_chars else 0.0

    def limits(self) -> str:
        return f"HTML files with at least {number(self.min_lang_content_num_chars)} visible characters that are at least {share(self.min_lang_content_ratio)} of the source"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return at_least(scores, self.min_lang_content_ratio)


@dataclass
class PerExtensionFilter(TextFilter):
    """Keep files that are within the limits for their language and extension in a table; the score is 1 or 0.

    ``metadata_file`` is a CSV with the columns ``language``, ``extension``, ``Include`` (1 or 0),
    ``Long_line_threshold`` (which also requires a mean line length of at most 100 characters), ``Alphanum_threshold``
    and ``Alpha filter``; an empty field sets no limit. If the table contains the language but not the extension, the
    file is dropped.
    """

    lang: str
    extension: str
    metadata_file: str = "code_meta.csv"
    score_type: ClassVar[pa.DataType] = pa.int64()

    def setup(self, worker: WorkerMetadata) -> None:
        self._limits()

    def measure(self, text: TextFeatures) -> npt.NDArray[Any]:
        limits = self._limits()
        if limits is None:
            return np.zeros(len(text), np.int64)
        longest, alphanumeric, alphabetic = limits
        keep = np.ones(len(text), np.bool_)
        chars = text.per_row(Block.char_counts)
        if longest:
            lines = text.per_row(line_counts)
            keep &= (text.per_row(_longest_lines) <= longest) & ((chars + 1) / lines - 1 <= 100)
        if alphanumeric:
            keep &= ~(ratio(text.per_row(Block.class_counts, ENGLISH), chars, empty=0.0) < alphanumeric)
        if alphabetic:
            keep &= ~(text.per_row(_letters, _unicode.LETTER) < alphabetic * chars)
        return keep.astype(np.int64)

    def limits(self) -> str:
        return f"{self.lang} files within the limits of {self.metadata_file!r} for .{self.extension}"

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return pc.equal(scores, scalar(1))

    def _limits(self) -> tuple[int, float, float] | None:
        known = self.loaded(self._read)
        language = {"C#": "c-sharp", "F#": "f-sharp"}.get(self.lang, self.lang.lower().replace(" ", "-"))
        languages = {one for one, _ in known}
        if language not in languages:
            raise UsageError(
                f"PerExtensionFilter.lang={self.lang!r}: {self.metadata_file!r} has no such language"
                f"{nearest(language, languages) or '.'}"
            )
        return known.get((language, self.extension or ""))

    def _read(self) -> dict[tuple[str, str], tuple[int, float, float] | None]:
        try:
            with Path(self.metadata_file).open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file))
        except OSError as error:
            raise UsageError(
                f"PerExtensionFilter.metadata_file={self.metadata_file!r} cannot be read: {error.strerror}"
            ) from error
        try:
            return {
                (row["language"], row["extension"]): (
                    int(_number(row["Long_line_threshold"])),
                    _number(row["Alphanum_threshold"]),
                    _number(row["Alpha filter"]),
                )
                if row["Include"] == "1"
                else None
                for row in rows
            }
        except KeyError as error:
            raise UsageError(f"PerExtensionFilter: {self.metadata_file!r} has no column {error}") from None


_PYTHON_TYPES = ("text/x-python", "text/x-script.python")
_PYTHON_ERRORS = (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError)


# Python's tokenizer takes a minute for a line of 200,000 characters, such as a table of numbers, because its time grows
# with the square of a line's length. In files with lines longer than this limit, a regular expression finds the
# comments.
_LONG_LINE = 4000


def python_comments(source: str) -> list[str]:
    """The comments of Python source, each with its ``#``."""
    if len(source) > _LONG_LINE and max(map(len, source.splitlines())) > _LONG_LINE:
        return _comments_among_long_lines(source)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]


def _comments_among_long_lines(source: str) -> list[str]:
    found = []
    for match in _PYTHON.finditer(source):
        if match.lastgroup == "line":
            found.append(match[0])
        elif match.lastgroup is not None:
            raise ValueError("a string does not end")
    return found


def python_docstrings(source: str) -> list[str]:
    """The docstrings of a module, its classes and functions, without their indentation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ignore warnings about invalid escapes in the source
        tree = ast.parse(source)
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef))
    return [found for node in nodes if (found := ast.get_docstring(node))]


_STRING = r"""{quote}(?:\\.?|[^{quote}\\])*+{quote}?"""
_SLASHES = r"/(?:/(?P<line>[^\n]*)|\*(?P<block>.*?)\*/|(?P<open>\*)|[^/*])"
_DOUBLE, _SINGLE, _BACK = (_STRING.format(quote=quote) for quote in "\"'`")
_C = re.compile(r'"[^"\n]*"|//(?P<line>[^\n]*)|/\*(?P<block>.*?)\*/|(?P<open>/\*)', re.DOTALL)
_JAVASCRIPT = re.compile(f"{_SLASHES}|{_DOUBLE}|{_SINGLE}", re.DOTALL)
_GO = re.compile(f"{_SLASHES}|{_DOUBLE}|{_SINGLE}|{_BACK}", re.DOTALL)
_SHELL = re.compile(rf"\\.|{_DOUBLE}|{_SINGLE}|#(?P<line>[^\n]*)", re.DOTALL)
_RUBY = re.compile(r"""(["'])(?:\\\1|(?!\1)[^\n])*\1|\#(?P<line>[^\n]*)""")
_HTML = re.compile(r'"[^"\n]*"|<!--(?P<block>.*?)-->|(?P<open><!--)', re.DOTALL)
_PYTHON = re.compile(
    r"""(?P<line>\#[^\r\n]*)|\"{3}(?:[^"\\]|\\.|"(?!""))*+\"{3}|'{3}(?:[^'\\]|\\.|'(?!''))*+'{3}"""
    r"""|(?P<block>\"{3}|'{3})|"(?:[^"\\\n]|\\.)*+"|'(?:[^'\\\n]|\\.)*+'|(?P<open>["'])""",
    re.DOTALL,
)
_COMMENTS = {
    "application/javascript": _JAVASCRIPT,
    "text/html": _HTML,
    "text/x-c": _C,
    "text/x-c++": _C,
    "text/x-go": _GO,
    "text/x-java": _C,
    "text/x-java-source": _C,
    "text/x-javascript": _JAVASCRIPT,
    "text/x-ruby": _RUBY,
    "text/x-shellscript": _SHELL,
    "text/xml": _HTML,
}


def visible_chars(source: str) -> int:
    """How many characters of text HTML has outside of scripts and styles; white space alone between two tags counts as
    one.
    """
    reader = _VisibleText()
    try:
        reader.feed(source)
        reader.close()
    except AssertionError:  # html.parser failed on a declaration: only the text before it counts
        reader.flush()
    except _EndlessError as error:  # the rest is text
        reader.handle_data(source[len(source) - error.left :])
        reader.flush()
    return reader.size


# How many characters may be searched in vain for the ends of tags and comments; this takes a fraction of a second.
_MOST_IN_VAIN = 5_000_000


class _EndlessError(Exception):
    def __init__(self, left: int) -> None:
        super().__init__(left)
        self.left = left


class _VisibleText(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.size = 0
        self._in_vain = 0
        self._run: list[str] = []
        self._hidden: str | None = None
        self._exact = 0  # the number of open elements that preserve white space

    def flush(self) -> None:
        run = "".join(self._run)
        self._run.clear()
        if run and self._hidden is None:
            blank = not run.strip("\n\t\f\r ") and not self._exact
            self.size += 1 if blank else len(run)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.flush()
        if tag in ("script", "style"):
            self._hidden = tag
        elif tag in ("pre", "textarea"):
            self._exact += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.flush()

    def handle_endtag(self, tag: str) -> None:
        self.flush()
        if tag == self._hidden:
            self._hidden = None
        elif tag in ("pre", "textarea"):
            self._exact = max(self._exact - 1, 0)

    def handle_data(self, data: str) -> None:
        self._run.append(data)

    def handle_entityref(self, name: str) -> None:
        known = html.unescape(f"&{name};")
        self._run.append(known if not known.startswith(f"&{name}") else f"&{name}")

    def handle_charref(self, name: str) -> None:
        # Count one character whatever the number is, even if the standard forbids it or Python cannot convert such a
        # long number.
        digits, base = (name[1:], 16) if name[:1] in "xX" else (name, 10)
        number = int(digits, base) if len(digits) < 100 else 0x110000
        self._run.append(chr(number) if number < 0x110000 else "\ufffd")

    def handle_comment(self, data: str) -> None:
        self.flush()

    def handle_decl(self, decl: str) -> None:
        self.flush()

    def handle_pi(self, data: str) -> None:
        self.flush()

    def unknown_decl(self, data: str) -> None:
        self.flush()
        if data.upper().startswith("CDATA["):
            self.size += len(data) - len("CDATA[")

    def close(self) -> None:
        super().close()
        self.flush()

    def parse_starttag(self, i: int) -> int:
        return self._found(i, super().parse_starttag(i))

    def parse_endtag(self, i: int) -> int:
        return self._found(i, super().parse_endtag(i))

    def parse_comment(self, i: int, report: bool = True) -> int:
        return self._found(i, super().parse_comment(i, report))

    def parse_pi(self, i: int) -> int:
        return self._found(i, super().parse_pi(i))

    def parse_html_declaration(self, i: int) -> int:
        return self._found(i, super().parse_html_declaration(i))

    def _found(self, start: int, end: int) -> int:
        # If a tag or comment does not end, html.parser searches the rest again from every `<`, which takes hours for a
        # megabyte.
        if end < 0:
            left = len(self.rawdata) - start
            self._in_vain += left
            if self._in_vain > _MOST_IN_VAIN:
                raise _EndlessError(left)
        return end


def _letters(block: Block, wide: int) -> npt.NDArray[np.int64]:
    counts = block.class_counts(LETTER)
    return counts if block.is_ascii else counts + block.count_at(block.wide_positions(wide))


def _longest_lines(block: Block) -> npt.NDArray[np.int64]:
    lines = lines_of(block)
    longest = np.zeros(block.rows, np.int64)
    np.maximum.at(longest, lines.rows, block.lengths(lines.starts, lines.ends))
    return longest


_XML = b"<?xml version="


def _has_xml_header(block: Block, chars: int) -> npt.NDArray[np.int64]:
    found = np.zeros(block.rows, np.int64)
    at = block.find(_XML)
    rows = block.rows_of(at)
    before = block.lengths(block.starts[rows], at)
    found[rows[before + len(_XML) <= chars]] = 1
    return found


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0
