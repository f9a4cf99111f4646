"""How is the distribution of a score shown? As an SVG histogram with its limits as handles, and the counts behind them.

It is drawn here in a hundred lines. A chart library in the page would take hundreds of kilobytes, and none has handles
that stop at the edges of bins, where the number of remaining rows is exact.
"""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import accumulate
from typing import Any

from curator_core.formatting import count, percent

WIDTH, HEIGHT = 600, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 12, 12, 26, 24
_BARS = 60
# The highest number of stops of a handle; there are not many more pixels.
_STOPS = 300
# A handle stops at these multiples of its limit, too.
_PARTS = (0.5, 0.75, 0.8, 0.9, 0.95, 1.05, 1.1, 1.2, 1.25, 1.5, 2.0)
# The verbs for one row and for several rows, in a filter and in a stage that only marks rows.
_STAY = ("stays", "stay")
_VERBS = {"annotate": ("passes", "pass")}


def shown(value: float) -> str:
    """A limit or a score as text for people."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}" if abs(value) < 1e6 else f"{value:.4e}"


class Scale:
    """Positions on the axis: linear for scores of about one magnitude, logarithmic if they span more."""

    def __init__(self, low: float, high: float, middle: float, *, integers: bool) -> None:
        self.low, self.high = low, high if high > low else low + 1
        largest = max(abs(self.low), abs(self.high))
        self.unit = max(1.0 if integers else 0.0, abs(middle) / 4, largest / 1e9)
        self.even = largest <= 20 * max(abs(middle), 1e-300) or largest <= 1.5
        self._ends = self._at(self.low), self._at(self.high)

    def _at(self, value: float) -> float:
        return value if self.even else math.asinh(value / self.unit)

    def __call__(self, value: float) -> float:
        first, last = self._ends
        value = self.low if value < self.low else min(value, self.high)
        part = (self._at(value) - first) / (last - first)
        return _LEFT + part * (WIDTH - _LEFT - _RIGHT)

    def ticks(self) -> list[float]:
        """Round numbers along the axis."""
        if self.even:
            step = 10 ** math.floor(math.log10((self.high - self.low) / 4))
            step *= next(times for times in (1, 2, 5, 10) if (self.high - self.low) / (step * times) <= 6)
            first = math.ceil(self.low / step)
            return [place * step for place in range(first, math.floor(self.high / step) + 1)]
        powers = [10.0**power for power in range(-9, 13)]
        every = sorted([-power for power in powers] + [0.0] + powers)
        found: list[float] = []
        for value in every:
            if self.low <= value <= self.high and (not found or self(value) - self(found[-1]) >= 60):
                found.append(value)
        return found


def histogram(score: Mapping[str, Any], key: str, mode: str = "filter") -> str:
    """The chart of a score as HTML, with one handle for each limit; ``key`` names it in the page."""
    invert = mode == "invert"
    edges, counts, kept = score["edges"], score["counts"], score["kept"]
    busy = [place for place, rows in enumerate(counts) if rows]
    if not busy:
        return '<p class="soft">No row had this score.</p>'
    low, high = edges[busy[0]], edges[busy[-1] + 1]
    for limit in score["limits"]:
        low, high = min(low, limit["value"]), max(high, limit["value"])
    if score["limits"]:
        # Leave room to move a limit that all rows satisfy.
        value = max(abs(limit["value"]) for limit in score["limits"])
        high = min(edges[-1], max(high, value * 1.1)) if high > 0 else high
    first = max(0, bisect.bisect_right(edges, low) - 1)
    last = min(len(edges) - 1, bisect.bisect_left(edges, high))
    scale = Scale(edges[first], edges[last], _middle(edges, counts), integers=score["integers"])
    bars = _bars(edges, counts, kept, first, last, scale, [_edge(limit) for limit in score["limits"]])
    most = max((rows / width for _, width, rows, _ in bars), default=1)
    ground = HEIGHT - _BOTTOM
    marks = []
    for x, width, rows, stays in bars:
        tall = max(1.5, (ground - _TOP) * rows / width / most)
        blue = tall * stays / rows
        title = f"<title>{count(rows, 'row')}, {stays:,} kept</title>"
        marks.append(
            f'<g>{title}<rect class="kept" x="{x:.1f}" y="{ground - blue:.1f}" width="{max(width - 0.6, 0.8):.1f}" height="{blue:.1f}"/>'
            f'<rect class="dropped" x="{x:.1f}" y="{ground - tall:.1f}" width="{max(width - 0.6, 0.8):.1f}" height="{tall - blue:.1f}"/></g>'
        )
    ticks = "".join(
        f'<text x="{min(max(scale(value), 18), WIDTH - 18):.1f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(shown(value))}</text>'
        for value in scale.ticks()
    )
    handles, stops, sentences = _handles(score, key, scale, invert, _VERBS.get(mode, _STAY))
    name = escape(str(score["name"]))
    data = escape(json.dumps(stops, separators=(",", ":"), allow_nan=False), quote=True)
    return (
        f'<figure class="histogram" data-score="{data}"><figcaption><b>{name}</b> of {count(score["rows"], "row")}'
        f"{_extremes(score)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="group" aria-label="Histogram of {name}">'
        f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{ground}" y2="{ground}"/>'
        f'<g aria-hidden="true">{"".join(marks)}{ticks}</g>{handles}</svg>'
        f'<p class="stays" role="status" aria-live="polite">{sentences}</p></figure>'
    )


def _middle(edges: Sequence[float], counts: Sequence[int]) -> float:
    """The approximate median of the score."""
    half, seen = sum(counts) / 2, 0
    for place, rows in enumerate(counts):
        seen += rows
        if seen >= half:
            return (edges[place] + edges[place + 1]) / 2
    return edges[-1]


def _edge(limit: Mapping[str, Any], value: float | None = None) -> float:
    value = limit["value"] if value is None else value
    above = limit["inclusive"] == (limit["keeps"] == "at least")
    return float(value) if above else math.nextafter(value, math.inf)


def _bars(
    edges: Sequence[float],
    counts: Sequence[int],
    kept: Sequence[int],
    first: int,
    last: int,
    scale: Scale,
    ends: Sequence[float],
) -> list[tuple[float, float, int, int]]:
    """Bins merged until they are wide enough to be seen; no bar crosses a limit. The area of a bar is a number of rows."""
    found: list[tuple[float, float, int, int]] = []
    least = (WIDTH - _LEFT - _RIGHT) / _BARS
    x, rows, stays = scale(edges[first]), 0, 0
    for place in range(first, last):
        rows, stays = rows + counts[place], stays + kept[place]
        end = scale(edges[place + 1])
        if end - x >= least or place + 1 == last or edges[place + 1] in ends:
            if rows:
                found.append((x, max(end - x, least / 3), rows, stays))
            x, rows, stays = end, 0, 0
    return found


def _extremes(score: Mapping[str, Any]) -> str:
    parts = []
    if score["min"] is not None:
        parts.append(f"{shown(score['min'])} to {shown(score['max'])}")
    if score["nulls"] + score["nans"]:
        parts.append(f"{score['nulls'] + score['nans']:,} without a value")
    return f" <span>{escape(', '.join(parts))}</span>" if parts else ""


def free_below(score: Mapping[str, Any]) -> list[int]:
    """The number of rows below each edge that pass all other tests."""
    return list(accumulate(score["free"], initial=score["free_below"]))


def would_stay(score: Mapping[str, Any], moved: Mapping[str, float]) -> int | None:
    """The number of rows that the filter would keep with these limits moved; None if a limit is inside a bin."""
    below = free_below(score)
    low, high = 0, below[-1] + int(score["free_above"])
    for limit in score["limits"]:
        edge = _edge(limit, moved.get(limit["parameter"]))
        place = bisect.bisect_left(score["edges"], edge)
        if place >= len(score["edges"]) or score["edges"][place] != edge:
            return None
        if limit["keeps"] == "at least":
            low = max(low, below[place])
        else:
            high = min(high, below[place])
    return max(0, high - low)


def _handles(
    score: Mapping[str, Any], key: str, scale: Scale, invert: bool, verbs: tuple[str, str]
) -> tuple[str, dict[str, Any], str]:
    below = free_below(score)
    edges = score["edges"]
    rows = score["rows"]
    parts: list[str] = []
    limits: list[dict[str, Any]] = []
    sentences: list[str] = []
    for number, limit in enumerate(score["limits"]):
        places = _stops(edges, below, scale, _edge(limit))
        here = bisect.bisect_left(edges, _edge(limit))
        if here >= len(edges) or edges[here] != _edge(limit) or here not in places:
            continue
        above = limit["inclusive"] == (limit["keeps"] == "at least")
        values = [edges[place] if above else math.nextafter(edges[place], -math.inf) for place in places]
        stays = would_stay(score, {})
        stays = 0 if stays is None else rows - stays if invert else stays
        name = escape(str(limit["parameter"]))
        said = f"{limit['parameter']} {shown(limit['value'])}: {stays:,} of {count(rows, 'row')} {verbs[stays != 1]}"
        x = scale(limit["value"])
        side, anchor = (18, "start") if x < WIDTH / 2 else (-18, "end")
        parts.append(
            f'<g class="handle" role="slider" tabindex="0" id="{key}-{number}" data-limit="{len(limits)}" aria-label="{name}" '
            f'aria-valuemin="0" aria-valuemax="{len(places) - 1}" aria-valuenow="{places.index(here)}" aria-valuetext="{escape(said)}" '
            f'transform="translate({x:.1f} 0)"><rect class="grip" x="-14" y="0" width="28" height="{HEIGHT - _BOTTOM}"/>'
            f'<line y1="8" y2="{HEIGHT - _BOTTOM}"/><circle cy="11" r="7"/>'
            f'<text x="{side}" y="15" text-anchor="{anchor}">{name} <tspan>{escape(shown(limit["value"]))}</tspan></text></g>'
        )
        limits.append(
            {
                "name": limit["parameter"],
                "least": limit["keeps"] == "at least",
                "at": places.index(here),
                "values": values,
                "texts": [shown(value) for value in values],
                "x": [round(scale(edges[place]), 1) for place in places],
                "below": [below[place] for place in places],
            }
        )
        sentences.append(_around(score, limit, stays, invert))
    lead = ""
    if limits:
        stays = would_stay(score, {})
        stays = 0 if stays is None else rows - stays if invert else stays
        lead = f"<b><output>{stays:,}</output> of {count(rows, 'row')} <span>{verbs[stays != 1]}</span></b>{' after' if verbs == _STAY else ''} this filter ({escape(percent(stays, rows))}). "
    data = {
        "rows": rows,
        "all": [0, below[-1] + score["free_above"]],
        "invert": invert,
        "verbs": verbs,
        "limits": limits,
    }
    return "".join(parts), data, lead + f'<span class="around">{" ".join(sentences)}</span>'


def _stops(edges: Sequence[float], below: Sequence[int], scale: Scale, here: float) -> list[int]:
    """The edges at which a handle stops: those with rows between them and the previous stop, and those around the limit
    itself.
    """
    found: list[int] = []
    around = {place for part in _PARTS for place in _places_near(edges, here * part)}
    for place, edge in enumerate(edges):
        if not scale.low <= edge <= scale.high and edge != here:
            continue
        changes = not found or below[place] != below[found[-1]]
        after = place + 1 < len(edges) and below[place + 1] != below[place]
        if changes or after or edge == here or place in around:
            found.append(place)
    if len(found) > _STOPS:
        step = len(found) / _STOPS
        chosen = {found[int(number * step)] for number in range(_STOPS)}
        found = [place for place in found if place in chosen or edges[place] == here or place in around]
    return found


def _places_near(edges: Sequence[float], value: float) -> list[int]:
    """The places of the edges that equal a value in nine digits."""
    digits, room = f"{value:.9g}", abs(value) * 1e-8
    first, last = bisect.bisect_left(edges, value - room), bisect.bisect_right(edges, value + room)
    return [place for place in range(first, last) if f"{edges[place]:.9g}" == digits]


def _around(score: Mapping[str, Any], limit: Mapping[str, Any], stays: int, invert: bool) -> str:
    """A sentence on what a limit ten per cent lower or higher would keep, if the bins give the exact number."""
    said: list[str] = []
    changed = False
    for part in (0.9, 1.1):
        value = limit["value"] * part
        if score["integers"]:
            value = float(round(value))
        places = _places_near(score["edges"], _edge(limit, value))
        if not places or value == limit["value"]:
            continue
        exact = score["edges"][places[0]]
        above = limit["inclusive"] == (limit["keeps"] == "at least")
        moved = would_stay(score, {limit["parameter"]: exact if above else math.nextafter(exact, -math.inf)})
        if moved is None:
            continue
        moved = score["rows"] - moved if invert else moved
        changed = changed or moved != stays
        change = f"{moved - stays:+,}" if moved != stays else "no change"
        said.append(f"at {shown(value)}: {moved:,} ({change})")
    name = escape(str(limit["parameter"]))
    if said and not changed:
        return f"{name} moved by 10 % either way: no change."
    return f"{name} moved by 10 %: {escape('; '.join(said))}." if said else ""
