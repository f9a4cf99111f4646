"""How does a page show a removed document beside the one that stays for it? Differences between texts are marked;
images are shown side by side. It also shows a document with repeated parts beside the documents that these come from.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from curator_core.formatting import size
from curator_core.workflows.pairs import RemovedPair, RepeatedParts

_KINDS = {b"\xff\xd8\xff": "jpeg", b"\x89PNG": "png", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}
_LONGEST_VALUE = 2000
# Characters of a witness that are shown before and after the beginning of a part.
_AROUND = 300


def pair_page(pair: RemovedPair, figures: str, marked: Sequence[str] | None = None) -> str:
    """The page as HTML. ``marked`` are both texts as HTML, if texts were compared."""
    ends = (("removed", pair.place), ("stays", pair.witness_place))
    if marked is None:
        body = _side_by_side(pair)
    else:
        body = "".join(
            f"<section><h2>{title}</h2><p>{escape(str(place))}</p><pre>{text}</pre></section>"
            for (title, place), text in zip(ends, marked, strict=True)
        )
        body = f"<main>{body}</main>"
    return _page("removed document and witness", figures, body)


def parts_page(found: RepeatedParts, heading: str) -> str:
    """The page of a document with repeated parts: its text with the parts marked, and beside it the text around the
    first occurrence of each part in another document.
    """
    spans, done = [], 0
    for part in found.parts:
        spans += [(done, part["start"], True), (part["start"], part["end"], False)]
        done = part["end"]
    text = marked_text(found.text, [*spans, (done, len(found.text), True)])
    others = []
    for number, part in enumerate(found.parts, 1):
        place, witness = found.witnesses[part["witness_source"], part["witness_row"]]
        begins = _beginning_in(witness, found.text[part["start"] : part["end"]])
        if begins is None:
            body = "<p>the text of this document does not have it any more</p>"
        else:
            start, end = begins
            low, high = max(0, start - _AROUND), min(len(witness), end + _AROUND)
            around = [(low, start, True), (start, end, False), (end, high, True)]
            before, after = "… " if low else "", " …" if high < len(witness) else ""
            body = f"<pre>{before}{marked_text(witness, around)}{after}</pre>"
        title = f"part {number}, characters {part['start']:,} to {part['end']:,}, begins in"
        others.append(f"<h3>{title}</h3><p>{escape(str(place))}</p>{body}")
    left = f"<section><h2>repeats</h2><p>{escape(str(found.place))}</p><pre>{text}</pre></section>"
    body = f"<main>{left}<section><h2>stays</h2>{''.join(others)}</section></main>"
    return _page("repeated parts", heading, body)


def _beginning_in(text: str, part: str) -> tuple[int, int] | None:
    """The place in a text that matches the longest beginning of a part, which is found by halving; words are compared
    without case and punctuation.
    """
    words = re.findall(r"[^\W_]+", part)
    while words:
        found = re.search(r"[\W_]+".join(map(re.escape, words)), text, re.IGNORECASE)
        if found is not None:
            return found.span()
        words = words[: len(words) // 2]
    letters = part.strip()  # in scripts without spaces a part is one word
    while letters:
        at = text.find(letters)
        if at >= 0:
            return at, at + len(letters)
        letters = letters[: len(letters) // 2]
    return None


def _page(title: str, heading: str, body: str) -> str:
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{escape(title)}</title><style>{_STYLE}</style></head>
<body><h1>{escape(heading)}</h1>{body}</body></html>
"""


def marked_text(text: str, spans: Sequence[tuple[int, int, bool]]) -> str:
    """A text as HTML, with the words marked that the other text lacks."""
    pieces = (
        escape(text[start:end]) if shared else f"<mark>{escape(text[start:end])}</mark>" for start, end, shared in spans
    )
    return "".join(pieces)


def _side_by_side(pair: RemovedPair) -> str:
    """The pictures of both, and a table of their values with the different ones marked."""
    documents = (pair.document, pair.witness or {})
    pictures = [_picture(document, small) for document, small in zip(documents, pair.thumbnails, strict=True)]
    rows = []
    if any(pictures):
        cells = "".join(f"<td>{picture}</td>" for picture in pictures)
        rows.append(f'<tr class="pictures"><th aria-label="picture"></th>{cells}</tr>')
    rows.append(_row("place", [str(pair.place), str(pair.witness_place)]))
    for name in dict.fromkeys(name for document in documents for name in document):
        values = [_text(document.get(name)) for document in documents]
        if any(values):
            rows.append(_row(name, values))
    without = (
        "" if pair.witness is not None else "<p>The document that stays is in an index, which keeps its name alone.</p>"
    )
    head = "<tr><th></th><th>removed</th><th>stays</th></tr>"
    return f"{without}<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def _row(name: str, values: Sequence[str]) -> str:
    differ = name != "place" and len(set(values)) > 1 and all(values)  # no two places are the same
    cells = "".join(f"<td>{f'<mark>{escape(value)}</mark>' if differ else escape(value)}</td>" for value in values)
    return f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return size(len(value))
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = ", ".join(value)
    return (value if isinstance(value, str) else repr(value))[:_LONGEST_VALUE]


def _picture(document: Mapping[str, Any], thumbnail: bytes | None) -> str:
    """The pictures among the values of a document; its thumbnail if browsers show none of them."""
    found: list[str] = []
    for name, value in [*document.items(), ("thumbnail", thumbnail)]:
        kind = isinstance(value, bytes) and next(
            (kind for start, kind in _KINDS.items() if value.startswith(start)), ""
        )
        if kind and not (name == "thumbnail" and found):
            data = base64.b64encode(value).decode()
            found.append(f'<img alt="{escape(name, quote=True)}" src="data:image/{kind};base64,{data}">')
    return "".join(found)


_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:1200px;padding:24px}
h1{font-size:18px}h2{font-size:16px;margin:0}h3{font-size:14px;margin:12px 0 0}p{color:GrayText;margin:2px 0 12px;overflow-wrap:anywhere}
main{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:24px}
section{min-width:0}img{display:block;max-width:100%;margin:0 0 8px;border:1px solid GrayText;box-sizing:border-box}
pre{white-space:pre-wrap;overflow-wrap:anywhere}mark{background:#f5c542;color:#111;padding:0 2px}
table{border-collapse:collapse;table-layout:fixed;width:100%}
th,td{text-align:left;vertical-align:top;padding:3px 12px 3px 0;overflow-wrap:anywhere}
td mark{background:none;color:inherit;font-weight:700;padding:0}
th:first-child{width:96px;font-weight:400;color:GrayText}
@media(max-width:600px){body{padding:16px;font-size:13px}th:first-child{width:66px}th,td{padding-right:8px}}
"""
