"""How are rows shown on a self-contained HTML page? Images as small pictures, texts as text, everything escaped."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from curator_core import formatting
from curator_core.data.values import text_of

# The column with the small picture of a row.
THUMBNAIL = "thumbnail"
_MOST_CHARACTERS = 2000


def rows_page(title: str, rows: Sequence[Mapping[str, Any]], facts: Sequence[str] = (), text: str = "") -> str:
    """A page of rows, each a mapping of ``source``, ``position`` and ``columns``; ``facts`` and ``text`` are above
    them.
    """
    pictures = any(row["columns"].get(THUMBNAIL) for row in rows)
    shown = "".join(map(_card if pictures else _article, rows)) or "<p>There are no rows.</p>"
    said = "".join(f"<p>{escape(_clean(fact))}</p>" for fact in facts)
    above = f"<pre>{escape(_clean(text))}</pre>" if text else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="referrer" content="no-referrer">
<title>{escape(_clean(title))}</title>
<style>{_STYLE}</style>
</head>
<body>
<header><h1>{escape(_clean(title))}</h1>{said}</header>
{above}
<main class="{"pictures" if pictures else "texts"}">
{shown}
</main>
</body>
</html>
"""


def _card(row: Mapping[str, Any]) -> str:
    columns = dict(row["columns"])
    raw = columns.pop(THUMBNAIL, None)
    name = _clean(str(columns.get("key") or row["position"] or row["source"]))
    picture = (
        f'<img alt="{escape(name)}" src="data:image/jpeg;base64,{base64.b64encode(raw).decode()}">'
        if raw
        else '<div class="none">cannot be decoded</div>'
    )
    width, height = columns.get("width"), columns.get("height")
    size = f"{width} x {height}" if width and height else ""
    caption = columns.get("caption")
    said = f"<p>{escape(_clean(str(caption)[:_MOST_CHARACTERS]))}</p>" if caption else ""
    left = {"key", "width", "height", "caption", "shard", "bytes", "members"}
    rest = {name: value for name, value in columns.items() if name not in left and value not in (None, "", [])}
    return (
        f"<figure>{picture}<figcaption><b>{escape(name)}</b> <span>{escape(size)}</span>{said}"
        f"{_details(rest, row)}</figcaption></figure>\n"
    )


def _details(values: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    place = _clean(f"{row['source']}:{row['position']}".strip(":"))
    return f"<details><summary>more</summary>{_table(values)}<code>{escape(place)}</code></details>"


def _article(row: Mapping[str, Any]) -> str:
    place = _clean(f"{row['source']}:{row['position']}".strip(":"))
    return f"<article><h2>{escape(place)}</h2>{_table(row['columns'])}</article>\n"


def _table(values: Mapping[str, Any]) -> str:
    cells = []
    for name, value in values.items():
        text = _clean(text_of(value))
        more = f"… ({formatting.count(len(text), 'character')})" if len(text) > _MOST_CHARACTERS else ""
        cells.append(f"<dt>{escape(_clean(name))}</dt><dd>{escape(text[:_MOST_CHARACTERS])}{more}</dd>")
    return f"<dl>{''.join(cells)}</dl>"


def _clean(text: str) -> str:
    return formatting.printable(text, one_line=False)


_STYLE = """
:root{--paper:#fff;--ink:#1c2330;--soft:#5c6679;--line:#e3e7ee;--wash:#f5f7fa}
@media(prefers-color-scheme:dark){:root{--paper:#141821;--ink:#e6e9f0;--soft:#98a3b8;--line:#2b3242;--wash:#1c2230}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1080px;padding:24px 16px 48px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:22px;margin:0;overflow-wrap:anywhere}
header p{margin:4px 0 0;color:var(--soft)}
pre{background:var(--wash);border:1px solid var(--line);border-radius:8px;padding:12px 14px;overflow-x:auto;
font:13px/1.5 ui-monospace,"SF Mono",Menlo,Consolas,monospace}
h2{font:600 14px/1.5 ui-monospace,Menlo,Consolas,monospace;margin:0 0 6px;overflow-wrap:anywhere}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(168px,1fr));gap:12px;margin-top:20px}
figure{margin:0;background:var(--wash);border:1px solid var(--line);border-radius:10px;padding:10px;min-width:0}
img{display:block;max-width:100%;margin:0 auto 8px}
.none{height:96px;display:grid;place-items:center;color:var(--soft);font-size:13px}
figcaption{font-size:13px;overflow-wrap:anywhere}figcaption span{color:var(--soft)}figcaption p{margin:4px 0}
article{border-top:1px solid var(--line);padding:14px 0}
dl{display:grid;grid-template-columns:minmax(80px,max-content) 1fr;gap:2px 14px;margin:0}
dt{color:var(--soft);overflow-wrap:anywhere}dd{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;min-width:0}
figure dl{grid-template-columns:1fr}
summary{cursor:pointer;color:var(--soft)}code{font-size:12px;overflow-wrap:anywhere}
"""
