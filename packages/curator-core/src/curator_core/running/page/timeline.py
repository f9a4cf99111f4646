"""What did each worker do, and when? A line for each, drawn as SVG, and the same as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from curator_core import formatting

WIDTH = 600
_LINE, _GAP, _TOP, _FOOT = 26, 8, 4, 20
# The number of stages with a shade of their own, those that take the most time; the others share one.
_SHADES = 5


def timeline(found: Mapping[str, Any]) -> str:
    """The lines of the workers; nothing where no worker has recorded its times."""
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
    key = " ".join(
        f'<em><span class="shade-{shade}"></span>{escape(name)}</em>'
        for name, shade in shades.items()
        if shade != "none"
    )
    key += ' <em><span class="shade-none"></span>other stages</em>' if "none" in shades.values() else ""
    shown = (
        f"{len(workers):,} of {found['of']:,} workers, those that worked longest" if found["of"] > len(workers) else ""
    )
    shown = shown or formatting.count(found["of"], "worker")
    return (
        f'<p class="key map-key">{key}</p><figure class="timeline"><figcaption><b>{escape(shown)}</b> <span>in time since the run began; the height is the part of '
        f"the time that a worker was busy</span></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Timeline of {escape(shown)}">{lines}{ticks}</svg></figure>'
        f"{_table(workers)}"
    )


def _shades(workers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The shade of each stage, in the order of the plan."""
    sums: dict[str, float] = {}
    for worker in workers:
        for name, busy in worker["busy"].items():
            sums[name] = sums.get(name, 0.0) + busy
    most = sorted(sums, key=lambda name: (-sums[name], name))[:_SHADES]
    named = [name for name in sums if name in most]
    return {name: str(named.index(name)) if name in named else "none" for name in sums}


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
            if tall >= 0.05:
                low = ground - below[slot]
                marks.append(f"M{slot * width:.0f} {low:.1f}v{-tall:.1f}h{width:.0f}v{tall:.1f}z")
                below[slot] += tall
        if marks:
            title = f"{worker['id']}: {name} {formatting.duration(worker['busy'][name])}"
            paths.append(
                f'<path class="shade-{shades[name]}" d="{"".join(marks)}"><title>{escape(title)}</title></path>'
            )
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
