"""How are numbers, sizes, times and texts shown to people?"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence


def number(value: float) -> str:
    """``1,234``; three significant digits for a number that is not whole."""
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.3g}"


def count(value: int, one: str, many: str = "") -> str:
    """``1 file``, ``2 files``."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def size(value: float) -> str:
    """``12.3 MB``, in powers of a thousand."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return (
        f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"
    )


def duration(seconds: float) -> str:
    """``0.21 s``, ``12.3 s``, ``3 min 12 s``, ``2 h 05 min``, ``3 d 4 h``."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def of_steps(names: Sequence[str]) -> str:
    """`` of step 'keys'``, or `` of steps 'keys' and 'apply'``; empty without names."""
    *others, last = map(repr, names or [""])
    if others:
        return f" of steps {', '.join(others)} and {last}"
    return f" of step {last}" if names else ""


def is_binary(raw: bytes) -> bool:
    """Whether bytes are not text, such as an image or an archive."""
    return b"\0" in raw[:512]


def beginning(raw: bytes, width: int) -> str:
    """The first characters of some bytes; if they are not text (an image, an archive), only their size."""
    if is_binary(raw):
        return f"({size(len(raw))} of binary data)"
    text = raw.decode("utf-8", "backslashreplace")
    return text if len(text) <= width else f"{text[:width]}…"


def percent(part: float, whole: float) -> str:
    """``12.3 %``; an empty string if ``whole`` is zero."""
    if not whole:
        return ""
    share = 100 * part / whole
    return f"{share:.1f} %" if 0.05 <= share <= 99.95 or share in (0, 100) else "<0.1 %" if share < 1 else ">99.9 %"


def plain(text: str) -> str:
    """A text that can be encoded: lone surrogates, as in a file name that is not UTF-8, become escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


# Characters that control a terminal or hide parts of a text: control characters, direction marks, tags, lone
# surrogates. Joiners stay, since some scripts need them.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)


def printable(text: str, *, one_line: bool = True) -> str:
    """A text from outside that is safe for a terminal: characters that would control the terminal become escapes.

    With ``one_line``, line breaks and tabs are escaped as well.
    """
    text = _STEERING.sub(lambda found: repr(found[0])[1:-1], text)
    return text.replace("\n", "\\n").replace("\t", "\\t") if one_line else text


def cut(text: str, cells: int) -> str:
    """The beginning of a text that fits in this many cells of a terminal, with an ellipsis if the text is longer."""
    if len(text) * 2 <= cells:
        return text
    taken = 0
    for at, character in enumerate(text):
        taken += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if taken > cells:
            return text[: max(0, at - 1)] + "…"
    return text


def text_html(text: str) -> str:
    """Text for a terminal as HTML that shows it unchanged."""
    return f'<pre style="white-space:pre-wrap">{html.escape(text)}</pre>'
