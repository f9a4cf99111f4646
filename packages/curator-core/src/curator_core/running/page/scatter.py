"""How are the embeddings of a run shown? As an SVG map, with a table of the same rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from curator_core import formatting
from curator_core.running.page.histogram import shown

WIDTH, HEIGHT = 600, 420
_EDGE = 16
# The number of shades of the score, from low to high; each has about the same number of rows.
SHADES = 5


def scatter(found: Mapping[str, Any]) -> str:
    """The map, its key and its table as HTML."""
    points = found["points"]
    limits = _shades([point["score"] for point in points if point["score"] is not None])
    marks, texts = [], []
    for number, point in enumerate(points):
        x = _EDGE + (point["x"] + 1) / 2 * (WIDTH - 2 * _EDGE)
        y = HEIGHT - _EDGE - (point["y"] + 1) / 2 * (HEIGHT - 2 * _EDGE)
        shade = "none" if point["score"] is None else str(sum(point["score"] >= limit for limit in limits))
        said = _said(point, found["score"])
        texts.append(said)
        shape = (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
            if point["side"] == "kept"
            else f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"/>'
        )
        marks.append(f'<g class="shade-{shade} {point["side"]}" data-point="{number}">{shape}</g>')
    sides = {side: sum(point["side"] == side for point in points) for side in ("kept", "dropped")}
    lead = (
        f"{found['rows']:,} of {found['of']:,} rows, by their embeddings of {found['dimensions']:,} numbers. Rows "
        f"that are close together are similar; the two axes show {formatting.percent(sum(found['held']), 1)} of the "
        "differences between rows."
    )
    data = escape(json.dumps(texts, separators=(",", ":"), ensure_ascii=False), quote=True)
    return (
        f'<p class="soft">{escape(lead)}</p>{_key(found["score"], limits, sides)}'
        f'<figure class="map" data-points="{data}"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="slider" tabindex="0" '
        f'aria-label="Map of embeddings: arrow keys go from row to row" aria-valuemin="1" aria-valuemax="{len(points)}" aria-valuenow="1" '
        f'aria-valuetext="{escape(texts[0], quote=True)}"><rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>'
        f'<g aria-hidden="true">{"".join(marks)}</g></svg><p class="stays">{escape(texts[0])}</p></figure>{_table(found)}'
    )


def _shades(scores: Sequence[float]) -> list[float]:
    """The scores that separate the shades."""
    ordered = sorted(scores)
    limits = [ordered[len(ordered) * part // SHADES] for part in range(1, SHADES)] if ordered else []
    return sorted({limit for limit in limits if limit > ordered[0]})


def _key(score: str | None, limits: Sequence[float], sides: Mapping[str, int]) -> str:
    parts = []
    if score is not None and limits:
        bounds = [f"below {shown(limits[0])}", *(f"from {shown(limit)}" for limit in limits)]
        shades = " ".join(
            f'<em><span class="shade-{place}"></span>{escape(text)}</em>' for place, text in enumerate(bounds)
        )
        parts.append(f"{escape(score)}: {shades}")
    if sides["dropped"]:
        parts.append(f"a dot stays ({sides['kept']:,}), a cross is dropped ({sides['dropped']:,})")
    return "".join(f'<p class="key map-key">{part}</p>' for part in parts)


def _said(point: Mapping[str, Any], score: str | None) -> str:
    """A row in one line: its fate, its score, its id and place, and the beginning of its text."""
    parts = ["kept" if point["side"] == "kept" else f"dropped by {point['stage']}: {point['reason']}"]
    if point["score"] is not None:
        parts.append(f"{score} {shown(point['score'])}")
    if point["id"] is not None:
        parts.append(f"id {point['id']}")
    file = point["source"].rpartition("/")[2]
    if file:
        parts.append(f"{file}, {point['position']}" if point["position"] else file)
    if point["text"]:
        parts.append(" ".join(point["text"].split()))
    return " · ".join(parts)


def _table(found: Mapping[str, Any]) -> str:
    score = found["score"]
    rows = "".join(
        f'<tr><th scope="row">{escape(str(point["id"] if point["id"] is not None else point["position"] or place + 1))}</th>'
        f"<td>{point['x']:.3f}</td><td>{point['y']:.3f}</td>"
        f'<td>{"" if point["score"] is None else escape(shown(point["score"]))}</td><td class="name">{escape(point["side"])}</td></tr>'
        for place, point in enumerate(found["points"])
    )
    head = f'<th scope="col">row</th><td>across</td><td>up</td><td>{escape(score or "")}</td><td class="name">side</td>'
    return (
        f'<details><summary>As a table</summary><div class="wide" tabindex="0" role="group" aria-label="Table">'
        f'<table class="funnel plain"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>'
    )
