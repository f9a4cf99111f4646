"""Modifiers that repair, normalize and cut text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curator_core.errors import UsageError
from curator_text.modifiers.base import Modifier

# Phrases by which C4 recognises lines that belong to the site and not to the text.
BOILERPLATE = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
    "lorem ipsum",
    "javascript",
    "all rights reserved",
)
_URL = re.compile(r"https?://[^\s<>\"'`]+|www\.[^\s<>\"'`]+\.[^\s<>\"'`]+", re.IGNORECASE)
_URL_END = ".,;:!?)]}'\""
_LINE_ENDS = r"\r\n|[\r\u0085\u2028\u2029]"
_MANY_BREAKS = re.compile(r"\n{3,}")
_ODD_BREAKS = re.compile(_LINE_ENDS)


@dataclass(kw_only=True)
class UnicodeRepair(Modifier):
    """Uses ftfy to repair text that was decoded with the wrong encoding (``schÃ¶n``), if there are signs of that.

    Quotation marks, ligatures, entities and character width are not changed unless ``everything`` is set.
    """

    everything: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._fix: Callable[[str], str] | None = None
        self._is_bad: Callable[[str], bool] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fix": None, "_is_bad": None}

    def may_change(self, values: pa.Array) -> Any:
        # ASCII without control characters or entities needs no repair, and most text is of this kind.
        sign = r"[^\x09\x0a\x20-\x7e]|&" if self.everything else r"[^\x00-\x7f]"
        return pc.match_substring_regex(values, sign)

    def modify(self, text: str) -> str:
        if self._fix is None or self._is_bad is None:
            self._load()
        assert self._fix is not None
        assert self._is_bad is not None
        # Detecting signs of damage is quick; finding the repair is not.
        return self._fix(text) if self.everything or self._is_bad(text) else text

    def _load(self) -> None:
        import ftfy
        import ftfy.badness

        self._is_bad = lambda text: "\ufffd" in text or bool(ftfy.badness.is_bad(text))
        if self.everything:
            self._fix = ftfy.fix_text
        else:
            self._fix = ftfy.fix_encoding


@dataclass(kw_only=True)
class NewlineNormalizer(Modifier):
    r"""Turns every line end into ``\n`` and keeps at most one blank line between paragraphs."""

    def may_change(self, values: pa.Array) -> Any:
        return pc.match_substring_regex(values, r"\n\n\n|\r|\x{85}|\x{2028}|\x{2029}")

    def modify(self, text: str) -> str:
        return _MANY_BREAKS.sub("\n\n", _ODD_BREAKS.sub("\n", text))


@dataclass(kw_only=True)
class WhitespaceNormalizer(Modifier):
    """Turns runs of spaces and tabs into one space, and strips them from the ends of lines and of the text."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._runs = re.compile(r"[^\S\n]+")
        self._ends = re.compile(r" ?\n ?")

    def modify(self, text: str) -> str:
        return self._ends.sub("\n", self._runs.sub(" ", text)).strip()


@dataclass(kw_only=True)
class BoilerplateLineRemover(Modifier):
    """Removes lines that contain one of ``phrases`` (in lower case; by default those of C4), in upper or lower case."""

    phrases: Sequence[str] = BOILERPLATE

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_texts(self, "phrases", "phrases")
        if "" in self.phrases:
            raise UsageError(
                "BoilerplateLineRemover.phrases must not contain an empty text, because every line contains it"
            )
        self._pattern = re.compile("|".join(re.escape(phrase.lower()) for phrase in self.phrases))
        # Search the lines both unchanged and in lower case, because a dotted capital I becomes two characters.
        forms = dict.fromkeys(form for phrase in self.phrases for form in (phrase, phrase.lower()))
        self._sign = "(?i)" + "|".join(map(re.escape, forms))

    def may_change(self, values: pa.Array) -> Any:
        return pc.match_substring_regex(values, self._sign)

    def modify(self, text: str) -> str:
        return "\n".join(line for line in text.split("\n") if not self._pattern.search(line.lower()))


@dataclass(kw_only=True)
class LineRemover(Modifier):
    """Removes lines that are equal to one of ``patterns``; with ``regex``, lines that one of these expressions matches
    entirely.
    """

    patterns: Sequence[str]
    regex: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_texts(self, "patterns", "lines")
        try:
            sources = [f"(?:{p})" if self.regex else re.escape(p) for p in self.patterns]
            self._pattern = re.compile("|".join(sources))
        except re.error as error:
            raise UsageError(f"LineRemover.patterns contains an invalid expression: {error}") from error

    def modify(self, text: str) -> str:
        return "\n".join(line for line in text.split("\n") if not self._pattern.fullmatch(line))


@dataclass(kw_only=True)
class UrlRemover(Modifier):
    """Removes web addresses, or puts ``replacement`` in their place; a full stop or bracket after an address stays."""

    replacement: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.replacement, str):
            raise UsageError(f"UrlRemover.replacement must be text, not {self.replacement!r}")

    def may_change(self, values: pa.Array) -> Any:
        return pc.match_substring_regex(values, r"(?i)https?://|www\.")

    def modify(self, text: str) -> str:
        return _URL.sub(self._replace, text)

    def _replace(self, match: re.Match[str]) -> str:
        return self.replacement + match[0][len(match[0].rstrip(_URL_END)) :]


@dataclass(kw_only=True)
class MarkdownRemover(Modifier):
    """Removes the markup of Markdown and keeps its words; links and images become their text.

    Code keeps every character, and a word such as ``snake_case_name`` is not emphasis.
    """

    def may_change(self, values: pa.Array) -> Any:
        return pc.match_substring_regex(values, r"[*_#`~>\[\]|+-]|\d[.)]")

    def modify(self, text: str) -> str:
        # No fence can open after the last line that closes one. Without this check, each search would run to the end of
        # the text in vain.
        closed = max((match.end() for match in _FENCE_END.finditer(text)), default=0)
        parts, rest = _CODE.split(text[:closed]), _TICKS.split(text[closed:])
        parts[-1] += rest[0]
        parts += rest[1:]
        # Every third part is code; its text is the second group, without the fence or the backticks.
        out = []
        for index in range(0, len(parts), 3):
            out.append(_without_marks(parts[index]))
            if index + 2 < len(parts):
                out.append(parts[index + 1] if parts[index + 1] is not None else parts[index + 2])
        return "".join(out)


@dataclass(kw_only=True)
class QuotationRemover(Modifier):
    """Removes a pair of straight or curly quotation marks that encloses a whole text."""

    def modify(self, text: str) -> str:
        inner = text[1:-1]
        for opening, closing in ('""', "\u201c\u201d"):
            if (
                len(text) > 2
                and text[0] == opening
                and text[-1] == closing
                and not (opening in inner or closing in inner)
            ):
                return inner
        return text


@dataclass(kw_only=True)
class Slicer(Modifier):
    """Keeps the part of each text from ``left`` to ``right``, which are positions (negative ones count from the end) or
    strings to search for.

    ``include_left`` and ``include_right`` keep the strings themselves. If a string is not in the text, nothing is left.
    ``strip`` removes white space at the ends.
    """

    left: int | str = 0
    right: int | str | None = None
    include_left: bool = True
    include_right: bool = True
    strip: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("left", self.left), ("right", self.right)):
            if isinstance(value, bool) or not isinstance(value, int | str | None) or value == "":
                raise UsageError(f"Slicer.{name} must be a position or a text to search for, not {value!r}")

    def modify(self, text: str) -> str:
        start: int | None
        stop: int | None
        if isinstance(self.left, str):
            at = text.find(self.left)
            if at < 0:
                return ""
            start = at if self.include_left else at + len(self.left)
        else:
            start = self.left
        if isinstance(self.right, str):
            at = text.rfind(self.right)
            if at < 0:
                return ""
            stop = at + len(self.right) if self.include_right else at
        else:
            stop = self.right
        cut = text[start:stop]
        return cut.strip() if self.strip else cut


# Fenced blocks and code in backticks.
_CODE = re.compile(r"(?ms)^[ ]{0,3}(?:```|~~~)[^\n`]*\n(.*?)^[ ]{0,3}(?:```|~~~)[ \t]*$|(?<!`)`([^`\n]+)`(?!`)")
_FENCE_END = re.compile(r"(?m)^[ ]{0,3}(?:```|~~~)[ \t]*$")
_TICKS = re.compile(r"(?!)()|(?<!`)`([^`\n]+)`(?!`)")
# Repeats are bounded, or end at the character that begins them, so that no text makes a match take forever.
_LINK_TEXT = r"\[([^\[\]\n]{0,500})\]"
_TARGET = r"\((?:[^()\s]|\([^()\s]{0,200}\)){0,2000}(?:\s{1,8}\"[^\"\n]{0,300}\")?\)"
_MARKS: tuple[tuple[re.Pattern[str], Any], ...] = (
    (re.compile(rf"!{_LINK_TEXT}{_TARGET}"), r"\1"),
    (re.compile(rf"{_LINK_TEXT}{_TARGET}"), r"\1"),
    (re.compile(rf"!?{_LINK_TEXT}\[[^\[\]\n]{{0,200}}\]"), r"\1"),
    (re.compile(r"(?m)^[ ]{0,3}\[[^\[\]\n]{1,200}\]:[ ]+\S.*$\n?"), ""),
    (re.compile(r"<(https?://[^<>\s]{1,2000})>"), r"\1"),
    (re.compile(r"(?m)^[ ]{0,3}#{1,6}[ \t]+(.*)$"), lambda match: _heading(match[1])),
    (re.compile(r"(?m)^[ ]{0,3}(?:([-*_])[ \t]*)(?:\1[ \t]*){2,}$\n?"), ""),
    (re.compile(r"(?m)^[ ]{0,3}(?:=+|-{2,})[ \t]*$\n?"), ""),
    (re.compile(r"(?m)^[ ]{0,3}(?:>[ ]?)+"), ""),
    (re.compile(r"(?m)^([ \t]*)[-*+][ \t]+(?:\[[ xX]\][ \t]+)?"), r"\1"),
    (re.compile(r"(?<![\w*])\*\*\*(?=\S)([^*\n]{1,500}?)(?<=\S)\*\*\*(?![\w*])"), r"\1"),
    (re.compile(r"\*\*(?=\S)((?:[^*\n]|\*(?!\*)){1,500}?)(?<=\S)\*\*"), r"\1"),
    (re.compile(r"(?<!\w)__(?=\S)([^\n]{1,500}?)(?<=\S)__(?!\w)"), r"\1"),
    (re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]{1,500}?)(?<=[^\s*])\*(?![\w*])"), r"\1"),
    (re.compile(r"(?<!\w)_(?=[^\s_])([^_\n]{1,500}?)(?<=[^\s_])_(?!\w)"), r"\1"),
    (re.compile(r"~~(?=\S)([^~\n]{1,500}?)(?<=\S)~~"), r"\1"),
)


def _check_texts(stage: object, name: str, what: str) -> None:
    given = getattr(stage, name)
    if (
        isinstance(given, str)
        or not isinstance(given, Iterable)
        or not given
        or not all(isinstance(x, str) for x in given)
    ):
        raise UsageError(f"{type(stage).__name__}.{name} must be a list of {what}, not {given!r}")


def _heading(text: str) -> str:
    text = text.rstrip(" \t")
    bare = text.rstrip("#")
    return bare.rstrip(" \t") if bare != text and bare.endswith((" ", "\t")) else text


def _without_marks(text: str) -> str:
    for pattern, replacement in _MARKS:
        text = pattern.sub(replacement, text)
    return text
