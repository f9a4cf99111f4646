"""What did each worker do, and when? The answer is a line for each worker in an SVG, and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from curator_core import formatting

WIDTH = 600
_LINE, _GAP, _TOP, _FOOT = 26, 8, 4, 20
_SHADES = 5
# With more than five stages, shades are repeated with patterns, given by the angle of their stripes in degrees and
# their width. The stages that take the most time have plain shades; those beyond the last pattern share one grey.
_PATTERNS = ((45, 1.3), (-45, 1.3), (0, 2.0), (90, 2.0), (45, 2.6))
_PERIOD = 4
_OTHERS = 'class="shade-none"'
# Shorter marks than this are not drawn.
_LEAST = 0.05


def timeline(found: Mapping[str, Any], of: str = "the run") -> str:
    """The lines of the workers since the start of the run, or of the part that ``of`` names; empty if no worker has
    recorded its times.
    """
    workers, begins = found["workers"], found["begins"]
    seconds = found["ends"] - begins
    if not workers or seconds <= 0:
        return ""
    shades = _shades(workers)
    height = _TOP + len(workers) * (_LINE + _GAP) + _FOOT
    lines = "".join(_line(worker, place, (begins, seconds), shades) for place, worker in enumerate(workers))
    ticks = "".join(
        f'<text x="{x:.0f}" y="{height - 5}" text-anchor="{anchor}">{escape(formatting.duration(begins + seconds * x / WIDTH))}</text>'
        for x, anchor in ((0, "start"), (WIDTH / 2, "middle"), (WIDTH, "end"))
    )
    key = " ".join(f"<em>{_swatch(fill)}{escape(name)}</em>" for name, fill in shades.items() if fill != _OTHERS)
    key += f" <em>{_swatch(_OTHERS)}other stages</em>" if _OTHERS in shades.values() else ""
    shown = (
        f"{len(workers):,} of {found['of']:,} workers, those that worked longest" if found["of"] > len(workers) else ""
    )
    shown = shown or formatting.count(found["of"], "worker")
    return (
        f'<p class="key map-key">{key}</p><figure class="timeline"><figcaption><b>{escape(shown)}</b> <span>by time '
        f"since {of} began; the height is the share of the time that a worker was busy</span></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Timeline of {escape(shown)}">{_patterns(shades)}{lines}{ticks}</svg>'
        f"</figure>"
        f"{_table(workers)}"
    )


def _shades(workers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The fill of each stage that has marks, in the order of the plan."""
    sums: dict[str, float] = {}
    for worker in workers:
        for name, parts in worker["slots"].items():
            if any(part * _LINE >= _LEAST for part in parts):
                sums[name] = sums.get(name, 0.0) + worker["busy"][name]
    ordered = sorted(sums, key=lambda name: (-sums[name], name))
    found: dict[str, str] = {}
    for turn in range(len(_PATTERNS) + 1):
        group = ordered[turn * _SHADES : (turn + 1) * _SHADES]
        mine = [name for name in sums if name in group]
        found |= {name: f"{shade}-{turn}" if turn else f"{shade}" for shade, name in enumerate(mine)}
    return {name: _filled(found[name]) if name in found else _OTHERS for name in sums}


def _filled(name: str) -> str:
    return f'fill="url(#stripes-{name})"' if "-" in name else f'class="shade-{name}"'


def _patterns(shades: Mapping[str, str]) -> str:
    """The definitions of the patterns in use."""
    made = [
        f'<pattern id="stripes-{shade}-{turn}" width="{_PERIOD}" height="{_PERIOD}" patternUnits="userSpaceOnUse" '
        f'patternTransform="rotate({degrees})"><rect class="shade-{shade}" width="{_PERIOD}" height="{_PERIOD}"/>'
        f'<rect class="gap" width="{wide}" height="{_PERIOD}"/></pattern>'
        for turn, (degrees, wide) in enumerate(_PATTERNS, 1)
        for shade in range(_SHADES)
        if _filled(f"{shade}-{turn}") in shades.values()
    ]
    return f"<defs>{''.join(made)}</defs>" if made else ""


def _swatch(fill: str) -> str:
    return f'<svg class="swatch" viewBox="0 0 14 14" aria-hidden="true"><rect width="14" height="14" {fill}/></svg>'


def _line(worker: Mapping[str, Any], place: int, axis: tuple[float, float], shades: Mapping[str, str]) -> str:
    ground = _TOP + place * (_LINE + _GAP) + _LINE
    slots = max((len(parts) for parts in worker["slots"].values()), default=0)
    width = WIDTH / max(slots, 1)
    below = [0.0] * slots
    paths = []
    for name, parts in worker["slots"].items():
        marks = []
        for slot, part in enumerate(parts):
            tall = part * _LINE
            if tall >= _LEAST:
                low = ground - below[slot]
                marks.append(f"M{slot * width:.0f} {low:.1f}v{-tall:.1f}h{width:.0f}v{tall:.1f}z")
                below[slot] += tall
        if marks:
            title = f"{worker['id']}: {name} {formatting.duration(worker['busy'][name])}"
            paths.append(f'<path {shades[name]} d="{"".join(marks)}"><title>{escape(title)}</title></path>')
    begins, seconds = axis
    start = (worker["begun"] - begins) / seconds * WIDTH
    end = start + worker["seconds"] / seconds * WIDTH
    return f'<line class="axis" x1="{start:.1f}" x2="{end:.1f}" y1="{ground}" y2="{ground}"/>{"".join(paths)}'


def _table(workers: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(worker["id"] or "worker")}</th><td>{escape(formatting.duration(worker["begun"]))}</td>'
        f"<td>{escape(formatting.duration(sum(worker['busy'].values())))}</td><td>{escape(formatting.duration(worker['waited']))}</td>"
        f"<td>{'' if worker['memory'] is None else escape(formatting.size(worker['memory']))}</td></tr>"
        for worker in workers
    )
    head = '<th scope="col">worker</th><td>began after</td><td>worked</td><td>waited</td><td>peak memory</td>'
    return (
        '<details><summary>Workers as a table</summary><div class="wide" tabindex="0" role="group" aria-label="Table">'
        f'<table class="funnel plain"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>'
    )
