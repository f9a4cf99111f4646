"""A removed document beside the one that stays for it, as a page: texts with their differences marked, images as they
are. Or a document with repeated parts beside the documents in which these begin.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from curator_core.workflows.pairs import RemovedPair, RepeatedParts

_KINDS = {b"\xff\xd8\xff": "jpeg", b"\x89PNG": "png", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}
_LONGEST_VALUE = 2000
# Characters of a witness that are shown before and after the beginning of a part.
_AROUND = 300


def pair_page(pair: RemovedPair, figures: str, marked: Sequence[str] | None = None) -> str:
    """The page. ``marked`` are both texts as HTML, where texts were compared."""
    columns = []
    for number, (title, place, document) in enumerate(
        (("removed", pair.place, pair.document), ("stays", pair.witness_place, pair.witness))
    ):
        body = f"<pre>{marked[number]}</pre>" if marked is not None else _values(document)
        columns.append(f"<section><h2>{title}</h2><p>{escape(str(place))}</p>{body}</section>")
    return _page("removed document and witness", figures, "".join(columns))


def parts_page(found: RepeatedParts, heading: str) -> str:
    """The page of a document with repeated parts: its text with the parts marked, and beside it the text around the place
    where each of them begins in another document.
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
    return _page("repeated parts", heading, f"{left}<section><h2>stays</h2>{''.join(others)}</section>")


def _beginning_in(text: str, part: str) -> tuple[int, int] | None:
    """Where a text has the longest beginning of a part that is found by halving it: words are compared without case and
    punctuation.
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
<body><h1>{escape(heading)}</h1><main>{body}</main></body></html>
"""


def marked_text(text: str, spans: Sequence[tuple[int, int, bool]]) -> str:
    """A text as HTML, with what the other one lacks marked."""
    pieces = (
        escape(text[start:end]) if shared else f"<mark>{escape(text[start:end])}</mark>" for start, end, shared in spans
    )
    return "".join(pieces)


def _values(document: Mapping[str, Any] | None) -> str:
    if document is None:
        return "<p>an index holds no document</p>"
    images, rows = [], []
    for name, value in document.items():
        kind = (
            next((kind for start, kind in _KINDS.items() if value.startswith(start)), "")
            if isinstance(value, bytes)
            else ""
        )
        if kind:
            data = base64.b64encode(value).decode()
            images.append(f'<img alt="{escape(name, quote=True)}" src="data:image/{kind};base64,{data}">')
        elif value is not None:
            text = value if isinstance(value, str) else repr(value)
            rows.append(f"<tr><th>{escape(name)}</th><td>{escape(text[:_LONGEST_VALUE])}</td></tr>")
    return f"{''.join(images)}<table>{''.join(rows)}</table>"


_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:1200px;padding:24px}
h1{font-size:18px}h2{font-size:16px;margin:0}h3{font-size:14px;margin:12px 0 0}p{color:GrayText;margin:2px 0 12px;overflow-wrap:anywhere}
main{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:24px}
section{min-width:0}img{max-width:100%;border:1px solid GrayText}
pre{white-space:pre-wrap;overflow-wrap:anywhere}mark{background:#f5c542;color:#111}
th{text-align:left;vertical-align:top;padding-right:12px;font-weight:600}td{overflow-wrap:anywhere}
"""
