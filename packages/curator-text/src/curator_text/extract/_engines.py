"""Runs an extraction engine on one page, in the guarded process; see `_guard`."""

from __future__ import annotations

import re
from collections.abc import Callable, Set
from typing import Any

# Text, title, language, and the share of the page's characters that are in links.
type Extracted = tuple[str, str | None, str | None, float | None]
type Engine = Callable[[bytes, str | None], Extracted]

ENGINES = ("resiliparse", "trafilatura", "justext")
DETAILS = ("title", "language", "link_ratio")
_LINK = re.compile(r"<a[\s>][^>]*>([^<]*)", re.IGNORECASE)
_HTML = re.compile(rb"\s*<(?:!doctype\s+)?html[\s>]", re.IGNORECASE)
_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(r"\s+")
# How many characters are used to detect the language; more do not make the result more certain.
_LANGUAGE_CHARS = 2000


class NotHtml(Exception):
    """The content is neither a page nor plain text."""


def make_engine(name: str, main_content: bool, wanted: Set[str]) -> Engine:
    """Import the engine of this name. ``wanted`` names the `DETAILS` that it extracts besides the text."""
    texts = {"resiliparse": _resiliparse, "trafilatura": _trafilatura, "justext": _justext}[name](main_content)

    def extract(content: bytes, charset: str | None) -> Extracted:
        page, tree = _page(content, charset)
        text = page if tree is None else texts(page, tree)
        title = _title(tree) if tree is not None and "title" in wanted else None
        language = _language(text) if "language" in wanted else None
        ratio = None
        if "link_ratio" in wanted:
            ratio = 0.0 if tree is None else _link_ratio(page, tree)
        return text, title, language, ratio

    return extract


def _page(content: bytes, charset: str | None) -> tuple[str, Any]:
    """The page as text, and its tree (None for plain text)."""
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding, detect_mime
    from resiliparse.parse.html import HTMLTree

    mime = "text/html"
    if _HTML.match(content) is None or b"\0" in content[:1024]:
        mime = detect_mime(content)
    # The detector reports pages in 8-bit encodings as octets, but nearly all binary formats have zero bytes near the
    # start.
    octets = mime == "application/octet-stream" and b"\0" not in content[:1024]
    if not (octets or mime.startswith("text/") or mime in ("application/xhtml+xml", "application/xml")):
        raise NotHtml(f"the content is {mime}")
    text = None if charset else _utf8(content)
    if text is None:
        encoding = charset or detect_encoding(content, html5_compatible=True) or "utf-8"
        try:
            text = bytes_to_str(content, encoding, errors="replace")
        except LookupError:  # the charset is unknown
            text = bytes_to_str(content, detect_encoding(content) or "utf-8", errors="replace")
    if mime == "text/plain" and b"<" not in content:
        return text, None
    return text, HTMLTree.parse(text)


def _utf8(content: bytes) -> str | None:
    """The content decoded as UTF-8, or None if it is not valid. Detection would be wrong for one in five pages with few
    non-ASCII characters.
    """
    # UTF-16, ISO-2022 and HZ may also be valid UTF-8. Searching for one byte is many times faster than for two.
    if b"\0" in content or b"\x1b" in content or (b"~" in content and b"~{" in content):
        return None
    try:
        return content.removeprefix(_BOM).decode()
    except UnicodeDecodeError:
        return None


def _resiliparse(main_content: bool) -> Callable[[str, Any], str]:
    from resiliparse.extract.html2text import extract_plain_text

    def text(_page: str, tree: Any) -> str:
        return str(extract_plain_text(tree, main_content=main_content, preserve_formatting=True))

    return text


def _trafilatura(main_content: bool) -> Callable[[str, Any], str]:
    import trafilatura

    def text(page: str, _tree: Any) -> str:
        return trafilatura.extract(page, include_comments=not main_content, favor_recall=not main_content) or ""

    return text


def _justext(main_content: bool) -> Callable[[str, Any], str]:
    import justext

    known = {name.lower(): name for name in justext.get_stoplists()}

    def text(page: str, tree: Any) -> str:
        language = _language((tree.body is not None and tree.body.text) or "")
        stoplist = known.get(_LANGUAGE_NAMES.get(language or "", ""))
        # These engines cannot separate text from boilerplate without a list of the language's common words.
        paragraphs = (
            justext.justext(page, justext.get_stoplist(stoplist))
            if stoplist
            else justext.justext(page, frozenset(), stopwords_low=0.0, stopwords_high=0.0)
        )
        return "\n\n".join(p.text for p in paragraphs if not (main_content and p.is_boilerplate))

    return text


def _title(tree: Any) -> str | None:
    return _SPACE.sub(" ", tree.title or "").strip() or None


def _language(text: str) -> str | None:
    from resiliparse.parse.lang import detect_fast

    head = text[:_LANGUAGE_CHARS]
    if not head.strip():
        return None
    language, _ = detect_fast(head)
    return None if language == "unknown" else str(language)


def _link_ratio(page: str, tree: Any) -> float | None:
    total = len(tree.body.text or "") if tree.body is not None else 0
    if not total:
        return None
    # Find links in the source: reading them from the tree takes quadratic time.
    return min(1.0, len("".join(_LINK.findall(page))) / total)


_LANGUAGE_NAMES = {
    "ar": "arabic",
    "bg": "bulgarian",
    "ca": "catalan",
    "cs": "czech",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "et": "estonian",
    "fa": "persian",
    "fi": "finnish",
    "fr": "french",
    "he": "hebrew",
    "hi": "hindi",
    "hr": "croatian",
    "hu": "hungarian",
    "id": "indonesian",
    "it": "italian",
    "lt": "lithuanian",
    "lv": "latvian",
    "nl": "dutch",
    "no": "norwegian_bokmal",
    "pl": "polish",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sk": "slovak",
    "sl": "slovenian",
    "sv": "swedish",
    "tr": "turkish",
    "uk": "ukrainian",
    "vi": "vietnamese",
}
