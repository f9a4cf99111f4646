"""What does the page of a run contain, and in which order? Everything that comes from data is escaped; nothing is
fetched.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from curator_core import formatting
from curator_core.accounts.seen import name_of_score
from curator_core.running.page.histogram import histogram, shown
from curator_core.running.page.scatter import scatter
from curator_core.running.page.script import SCRIPT
from curator_core.running.page.style import STYLE
from curator_core.running.page.timeline import timeline

# At most this many entries are shown for each side of a filter, and for collections and files; report.json has more.
_NEAR, _FAR = 8, 4
# At most this many pictures are shown on a contact sheet.
_SHEET = 12
_ALT_CHARACTERS = 80
_ROWS = 50
_EXAMPLE_CHARACTERS = 360
_BEFORE = 60
# A character that pages cannot contain.
_CUT = "\0"
_STATES = {
    "done": ("good", "done"),
    "quarantined": ("mixed", "done, with work set aside"),
    "failed": ("bad", "failed"),
    "running": ("mixed", "not finished"),
    "interrupted": ("bad", "interrupted"),
}


def report_page(numbers: Mapping[str, Any]) -> str:
    """The page as text, from the content of ``report.json``."""
    kind, state = _STATES.get(numbers["state"], ("mixed", numbers["state"]))
    sections = [
        ("numbers", "", _cards(numbers)),
        ("written", "", _written(numbers)),
        ("problems", "Problems", _notes("bad", numbers["problems"])),
        ("alarms", "Worth a look", _alarms(numbers["alarms"])),
        ("warnings", "Warnings", _notes("mixed", numbers["warnings"])),
        ("steps", "Step by step", _steps(numbers["steps"])),
        ("funnel", "Stage by stage", _funnel(numbers["stages"])),
        ("reasons", "Why rows left the pipeline", _reasons(numbers["stages"])),
        ("filters", "Filters", _filters(numbers)),
        ("collections", "By collection", _collections(numbers)),
        ("texts", "", _texts(numbers["notes"])),
        ("aside", "Set aside", _rejects(numbers["rejects"])),
        ("duplicates", "Duplicates", _duplicates(numbers)),
        ("repeats", "Repeated parts", _repeats(numbers["repeats"])),
        ("map", "Map of embeddings", scatter(numbers["embeddings"]) if numbers["embeddings"] else ""),
        ("time", "Time", _time(numbers["time"], "the step" if numbers["steps"] else "the run")),
        ("plans", "Rows by plan", _plans(numbers["plans"])),
        ("plan", "The plan", _plan(numbers["plan"])),
        ("run", "The run", _facts(numbers)),
    ]
    body = "".join(
        f'<section id="{name}">{f"<h2>{title}</h2>" if title else ""}{content}</section>'
        for name, title, content in sections
        if content
    )
    links = " ".join(f'<a href="#{name}">{title}</a>' for name, title, content in sections if title and content)
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    name = escape(numbers["name"])
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'">
<meta name="referrer" content="no-referrer">
<title>{name}: {escape(state)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{name} <span class="state {kind}">{escape(state)}</span></h1>
<p>{escape(numbers["verdict"])}{_shares(numbers)}</p>
<p>{_when(numbers)}</p>
<nav aria-label="Sections">{links}</nav>
</header>
<main>
{body}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _shares(numbers: Mapping[str, Any]) -> str:
    shares = numbers["shares"]
    if not numbers["closed"] or not shares:
        return ""
    parts = ", ".join(f"{share} {kind}" for kind, share in shares.items() if share != "0")
    return escape(f" Shares of {formatting.count(numbers['sources']['total'], 'source')}: {parts}.")


def _when(numbers: Mapping[str, Any]) -> str:
    parts = []
    if numbers["started"]:
        ended = f" to {escape(_clock(numbers['ended']))}" if numbers["ended"] else ""
        parts.append(f"{escape(_clock(numbers['started']))}{ended}")
    if numbers["command"]:
        parts.append(f"<code>{escape(numbers['command'])}</code>")
    return " · ".join(parts)


def _clock(text: str) -> str:
    return str(text).replace("T", " ")[:19] + " UTC"


def _texts(notes: Sequence[str]) -> str:
    """The notes of stages, as text."""
    return "".join(f"<pre>{escape(text)}</pre>" for text in notes)


def _cards(numbers: Mapping[str, Any]) -> str:
    rows, sources, size = numbers["rows"], numbers["sources"], numbers["bytes"]
    aside = rows["rejected"] + rows["quarantined"]
    whole = rows["in"]
    complete = "" if sources["complete"] == sources["total"] else f"{sources['complete']:,} complete"
    skipped = f"{sources['skipped']:,} complete before" if sources["skipped"] else complete
    tokens = numbers["tokens"]
    facts = [
        ("source" if sources["total"] == 1 else "sources", formatting.number(sources["total"]), skipped),
        ("rows in", formatting.number(whole), formatting.size(size["in"]) if size["in"] else ""),
        ("rows kept", formatting.number(rows["out"]), formatting.percent(rows["out"], whole)),
        ("rows dropped", formatting.number(rows["dropped"]), formatting.percent(rows["dropped"], whole)),
        ("rows set aside", formatting.number(aside), formatting.percent(aside, whole)),
        (
            "file written" if numbers["files"] == 1 else "files written",
            formatting.number(numbers["files"]),
            formatting.size(size["written"]),
        ),
    ]
    if tokens["in"]:
        estimated = "estimated, " if tokens["counted_by"].startswith("estimated") else ""
        kept = formatting.percent(tokens["out"], tokens["in"])
        facts.insert(3, ("tokens kept", formatting.number(tokens["out"]), f"{estimated}{kept}"))
    if numbers["time"]["wall"] is not None:
        facts.append(("time", formatting.duration(numbers["time"]["wall"]), ""))
    cards = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span><i>{escape(more)}</i></div>'
        for label, value, more in facts
    )
    return f'<div class="cards">{cards}</div>'


def _written(numbers: Mapping[str, Any]) -> str:
    """The folders that the run has filled, with their numbers of files and links to those on this machine."""
    parts = []
    for stage, output in numbers["outputs"].items():
        folder = str(output.get("folder"))
        name = f"<code>{escape(folder)}</code>"
        if folder.startswith("/"):
            name = f'<a href="{escape("file://" + quote(folder))}">{name}</a>'
        files = formatting.count(int(output.get("files", 0)), "file")
        writer, dropped, _ = stage.partition(": dropped rows")
        said = f"The rows that {writer} dropped are in {files} in" if dropped else f"{stage} wrote {files} to"
        parts.append(f"<p>{escape(said)} {name}</p>")
    return "".join(parts)


def _notes(kind: str, notes: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(str(note))}</li>" for note in notes)
    return f'<div class="notes {kind}"><ul>{items}</ul></div>' if items else ""


def _alarms(alarms: Sequence[Mapping[str, Any]]) -> str:
    items = "".join(
        f"<li><b>{escape(alarm['sentence'])}</b><span>{escape(alarm['advice'])}</span></li>" for alarm in alarms
    )
    return f'<div class="alarms"><ul>{items}</ul></div>' if items else ""


def _table(columns: Sequence[tuple[str, str]], rows: Iterable[str]) -> str:
    """A table whose first column names the row. Each column is given by its title and a class."""
    body = "".join(rows)
    if not body:
        return ""
    head = "".join(
        f'<th scope="col">{escape(title)}</th>'
        if not place
        else f'<td class="{kind}">{escape(title)}</td>'
        if kind
        else f"<td>{escape(title)}</td>"
        for place, (title, kind) in enumerate(columns)
    )
    return f'<div class="wide" tabindex="0" role="group" aria-label="Table"><table class="funnel"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(title: str, text: str, kind: str = "") -> str:
    """A number and the title of its column, which is shown beside it on a phone."""
    named = f' data-name="{escape(title)}"' if title and text else ""
    return f"<td{named}{f' class="{kind}"' if kind else ''}>{escape(text)}</td>"


def _steps(steps: Sequence[Mapping[str, Any]]) -> str:
    """A row for each step of a workflow, with a link to its own page."""
    columns = [("step", ""), ("state", "name"), ("sources", ""), ("rows in", ""), ("rows out", ""), ("time", "")]
    return _table(columns, _step_rows(steps, "", ""))


def _step_rows(steps: Sequence[Mapping[str, Any]], above: str, folder: str) -> Iterator[str]:
    for number, step in enumerate(steps, 1):
        state = {"quarantined": "done, with work set aside"}.get(step["state"], step["state"])
        if step["complete_before"]:
            state = "complete before"
        place = f"{folder}{step['folder']}/"
        time = "" if step["complete_before"] or step["seconds"] is None else formatting.duration(step["seconds"])
        link = f'<a href="{escape(quote(place))}report.html">{escape(step["name"])}</a>'
        yield (
            f'<tr><th scope="row">{above}{number} {link}</th>{_cell("", state, "name")}'
            f"{_cell('sources', _known(step['sources']))}{_cell('rows in', _known(step['rows_in']))}"
            f"{_cell('rows out', _known(step['rows_out']))}{_cell('time', time)}</tr>"
        )
        yield from _step_rows(step["steps"], f"{above}{number}.", place)


def _funnel(stages: Sequence[Mapping[str, Any]]) -> str:
    most = max((max(stage["rows_in"], stage["rows_out"]) for stage in stages), default=0)
    slowest = max((stage["seconds"] for stage in stages), default=0.0)
    rows = []
    for number, stage in enumerate(stages):
        dropped, rejected = sum(stage["dropped"].values()), sum(stage["rejected"].values()) + stage["quarantined"]
        bars = "".join(
            f'<span class="{kind}" style="width:{_width(value, most)}" title="{title} {value:,}"></span>'
            for kind, title, value in (
                ("kept", "kept", stage["rows_out"]),
                ("dropped", "dropped", dropped),
                ("aside", "set aside", rejected),
            )
            if value
        )
        clock = f'<span class="clock" style="width:{_width(stage["seconds"], slowest)}"></span>' if slowest else ""
        name = escape(stage["name"])
        if stage["scores"] or stage["samples"]:
            name = f'<a href="#filter-{number}">{name}</a>'
        rows.append(
            f'<tr><th scope="row">{name}</th>{_cell("rows in", f"{stage['rows_in']:,}")}'
            f'<td class="bars"><div>{bars}</div></td>{_cell("kept", f"{stage['rows_out']:,}")}'
            f"{_cell('dropped', _blank(dropped))}{_cell('set aside', _blank(rejected))}"
            f'<td class="time"><div>{clock}</div></td>{_cell("time", formatting.duration(stage["seconds"]))}</tr>'
        )
    key = (
        '<p class="key"><span class="kept"></span>kept <span class="dropped"></span>dropped '
        '<span class="aside"></span>set aside</p>'
    )
    columns = [("stage", ""), ("rows in", ""), ("", ""), ("kept", ""), ("dropped", ""), ("set aside", ""), ("", "")]
    return key + _table([*columns, ("time of all workers", "")], rows) if rows else ""


def _reasons(stages: Sequence[Mapping[str, Any]]) -> str:
    found = [
        (count, stage["name"], reason, kind, stage["rows_in"])
        for stage in stages
        for kind, reasons in (("dropped", stage["dropped"]), ("rejected", stage["rejected"]))
        for reason, count in reasons.items()
    ]
    found.sort(key=lambda item: (-item[0], item[1], item[2]))
    most = found[0][0] if found else 0
    rows = (
        f'<tr><th scope="row">{escape(reason)}</th>{_cell("", stage, "name")}<td class="bars"><div>'
        f'<span class="{"dropped" if kind == "dropped" else "aside"}" style="width:{_width(count, most)}"></span></div>'
        f"</td>{_cell('rows', f'{count:,}')}{_cell('of the stage', formatting.percent(count, rows_in))}</tr>"
        for count, stage, reason, kind, rows_in in found
    )
    return _table([("reason", ""), ("stage", "name"), ("", ""), ("rows", ""), ("of the stage", "")], rows)


# Filters --------------------------------------------------------------------------------------------------------------


def _filters(numbers: Mapping[str, Any]) -> str:
    cards = [
        _filter(number, stage) for number, stage in enumerate(numbers["stages"]) if stage["scores"] or stage["samples"]
    ]
    if not cards:
        return ""
    if not any(stage["scores"] for stage in numbers["stages"]):
        return "".join(cards)
    key = (
        '<p class="key"><span class="kept"></span>kept <span class="dropped"></span>dropped. Every row is counted; the area of a '
        "bar is a number of rows. Drag a handle, or move it with the arrow keys, to see how many rows would stay: it stops where "
        "the number is exact.</p>"
    )
    return key + "".join(cards)


def _filter(number: int, stage: Mapping[str, Any]) -> str:
    dropped = sum(stage["dropped"].values())
    share = formatting.percent(dropped, stage["rows_in"])
    says = escape(_sentence(stage["says"])) if stage["says"] else ""
    charts = "".join(
        histogram(score, f"handle-{number}-{place}", stage["mode"]) for place, score in enumerate(stage["scores"])
    )
    marked = stage["mode"] == "annotate"
    lost = (
        f"marked {formatting.count(stage['rows_in'], 'row')}, dropped none"
        if marked
        else f"dropped {dropped:,} of {formatting.count(stage['rows_in'], 'row')} ({share})"
        if share
        else f"dropped {formatting.count(dropped, 'row')}"
    )
    return (
        f'<article class="filter" id="filter-{number}"><header><h3>{escape(stage["name"])}</h3><p>{escape(lost)}</p></header>'
        f'<p>{says}</p><div class="top"><div>{charts}</div>{_unsure(stage)}</div>{_sides(stage)}{_overlap(stage)}</article>'
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _overlap(stage: Mapping[str, Any]) -> str:
    """How many rows the filter would drop by itself, drops first, and shares with other filters, if the run has
    measured it.
    """
    said = []
    if stage.get("alone") is not None:
        said.append(
            f"On its own it would drop {stage['alone']:,} of the rows that reach the first filter of this "
            f"sequence. It drops {stage['first']:,}; {stage['anyway']:,} of these would have been dropped anyway by a later filter."
        )
    found = stage.get("overlap")
    if found:
        others = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
        said.append(f"Rows that both would drop: {', '.join(f'{rows:,} with {name}' for name, rows in others)}.")
    return f'<p class="soft">{escape(" ".join(said))}</p>' if said else ""


def _limits(stage: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """The value of each limit, and the unit of its score, which is the smallest limit that is not 0."""
    found = {}
    for score in stage["scores"]:
        unit = min((abs(limit["value"]) for limit in score["limits"] if limit["value"]), default=1.0)
        found.update({limit["parameter"]: (limit["value"], unit) for limit in score["limits"]})
    return found


def _unsure(stage: Mapping[str, Any]) -> str:
    """The three rows whose scores are closest to a limit, on either side."""
    limits = _limits(stage)
    found: dict[tuple[str, int], tuple[float, Mapping[str, Any]]] = {}
    for sample in stage["samples"]:
        far, key = _far(sample, limits), (sample["task"], sample["row"])
        if sample["near"] and far < math.inf and (key not in found or far < found[key][0]):
            found[key] = (far, sample)
    if not found:
        return ""
    first = sorted(found.values(), key=lambda pair: (pair[0], pair[1]["task"], pair[1]["row"]))[:3]
    items = "".join(
        f"<li>{_said(stage, sample['side'])}, {escape(_score(sample))}{_where(sample)}</li>" for _, sample in first
    )
    # Rows with equal scores are ordered only by their numbers.
    ordered = sorted(far for far, _ in found.values())
    tied = len(ordered) > len(first) and ordered[len(first)] == first[-1][0]
    more = '<p class="soft">Other rows are equally near.</p>' if tied else ""
    return f'<div class="unsure"><h4>Least sure about</h4><ol>{items}</ol>{more}</div>'


def _far(sample: Mapping[str, Any], limits: Mapping[str, tuple[float, float]]) -> float:
    """The distance between the score of a row and its limit, in a unit that all limits of the score share: 120 words
    are nearer to 50 than 740 are to 100,000.
    """
    value, unit = limits.get(sample["limit"], (None, 1.0))
    score = sample["scores"].get(sample["score_name"], sample["score"])
    if value is None:  # the limit of a stage that is no filter: its rows may have different limits
        return math.inf if sample["distance"] is None else sample["distance"]
    return math.inf if score is None else abs(score - value) / unit


def _sides(stage: Mapping[str, Any]) -> str:
    parts = []
    limits = _limits(stage)
    for side in ("dropped", "kept"):
        mine = [sample for sample in stage["samples"] if sample["side"] == side]
        whole = stage["samples_of"]["kept"] if side == "kept" else sum(stage["samples_of"]["dropped"].values())
        # A stage that only marks rows lets all of them through, whatever the verdict.
        most = whole if stage["mode"] == "annotate" else max(whole, stage["rows_out"])
        if any(sample["picture"] for sample in mine):
            parts.append(_sheet(_said(stage, side), mine, limits, most if side == "kept" else whole))
            continue
        near = _some(mine, limits, near=True, most=_NEAR)
        # A row may be in both samples, in particular if there are few rows.
        shown_rows = {(sample["task"], sample["row"]) for sample in near}
        others = [sample for sample in mine if (sample["task"], sample["row"]) not in shown_rows]
        # If no score says which rows are near a limit, all places go to rows from anywhere.
        far = _some(others, limits, near=False, most=_FAR if near else _NEAR + _FAR)
        whole = most if side == "kept" else whole
        if not near and not far:
            if not whole:
                parts.append(f"<div><h4>{_said(stage, side).capitalize()} <span>no rows</span></h4></div>")
            continue
        shown_first = near[:2] or far[:2]
        rest = [*near[2:], *far] if near else far[2:]
        more = "".join(map(_example, rest))
        title = "nearest to the limit first" if near else "chosen evenly"
        said = f"{len(shown_first) + len(rest):,} of {whole:,}, {title}"
        more = f"<details><summary>{len(rest):,} more{' and from elsewhere' if near and far else ''}</summary>{more}</details>"
        parts.append(
            f"<div><h4>{_said(stage, side).capitalize()} <span>{escape(said)}</span></h4>{''.join(map(_example, shown_first))}"
            f"{more if rest else ''}</div>"
        )
    alone = " alone" if len(parts) == 1 else ""
    return f'<div class="sides{alone}">{"".join(parts)}</div>' if any(parts) else ""


def _said(stage: Mapping[str, Any], side: str) -> str:
    """The verdict on the rows of one side."""
    return {"dropped": "failed", "kept": "passed"}[side] if stage["mode"] == "annotate" else side


def _sheet(
    side: str, samples: Sequence[Mapping[str, Any]], limits: Mapping[str, tuple[float, float]], whole: int
) -> str:
    """The pictures of one side, those nearest to the limit first; each opens to show its place."""
    drawn = [sample for sample in samples if sample["picture"]]
    near = _some(drawn, limits, near=True, most=_SHEET)
    shown_rows = {(sample["task"], sample["row"]) for sample in near}
    others = [sample for sample in drawn if (sample["task"], sample["row"]) not in shown_rows]
    chosen = [*near, *_some(others, limits, near=False, most=_SHEET)][:_SHEET]
    title = "nearest to the limit first" if near else "chosen evenly"
    shots = "".join(map(_shot, chosen))
    return f'<div><h4>{side.capitalize()} <span>{len(chosen):,} of {whole:,}, {title}</span></h4><div class="sheet">{shots}</div></div>'


def _shot(sample: Mapping[str, Any]) -> str:
    name = sample["id"] if sample["id"] is not None else sample["position"] or f"row {sample['row'] + 1}"
    text = sample["text"] or ""
    alt = f"{name}: {text}" if text else str(name)
    value = _score(sample)
    head = escape(value) if value else escape(str(name))
    reason = sample["reason"] if sample["side"] == "dropped" and sample["reason"] not in value else ""
    words = f'<p class="text">{escape(text[:_EXAMPLE_CHARACTERS])}</p>' if text else ""
    reason = f"<p>{escape(reason)}</p>" if reason else ""
    return (
        f'<details class="shot"><summary><img src="{escape(sample["picture"], quote=True)}" alt="{escape(alt[:_ALT_CHARACTERS], quote=True)}">'
        f"{head}</summary>{reason}{words}{_where(sample)}</details>"
    )


def _some(
    samples: Sequence[Mapping[str, Any]], limits: Mapping[str, tuple[float, float]], *, near: bool, most: int
) -> list[Mapping[str, Any]]:
    """Samples of each reason and limit in turn, so that every test of a filter is represented.

    A kept row may be near one limit of a score and far from another, so kept rows are ordered by score alone.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for sample in sorted(samples, key=lambda sample: _far(sample, limits)) if near else samples:
        if sample["near"] == near:
            of = sample["limit"] if sample["side"] == "dropped" else sample["score_name"]
            groups.setdefault((sample["reason"], of), []).append(sample)
    found: list[Mapping[str, Any]] = []
    seen = set()
    for place in range(most):
        for group in groups.values():
            if place < len(group) and len(found) < max(most, len(groups)):
                key = (group[place]["task"], group[place]["row"])
                if key not in seen:
                    seen.add(key)
                    found.append(group[place])
    return found


def _score(sample: Mapping[str, Any]) -> str:
    if sample["score"] is None:
        return ", ".join(
            f"{name} {shown(value)}" for name, value in list(sample["scores"].items())[:3] if value is not None
        )
    return f"{name_of_score(sample)} {shown(sample['score'])}"


def _example(sample: Mapping[str, Any]) -> str:
    head = _score(sample)
    reason = sample["reason"] if sample["side"] == "dropped" and sample["reason"] not in head else ""
    head = " · ".join(part for part in (reason, head) if part)
    return f'<div class="example"><p>{escape(head)}</p><p class="text">{_marked(sample)}</p>{_where(sample)}</div>'


def _marked(sample: Mapping[str, Any]) -> str:
    """The text around the first part at fault, with all such parts marked."""
    spans = sample["spans"]
    text = (sample["text"] or "").replace(_CUT, "\ufffd")
    start = max(0, spans[0][0] - _BEFORE) if spans else 0
    end = min(len(text), start + _EXAMPLE_CHARACTERS)
    pieces: list[str] = []
    at = start
    for begin, stop in spans:
        if begin >= end:
            break  # they are in order, and there may be hundreds
        first, last = max(begin, at), min(stop, end)
        if first < last:
            pieces += (text[at:first], text[first:last])
            at = last
    # All pieces are escaped with one call; every second one is marked.
    escaped = escape(_CUT.join([*pieces, text[at:end]])).split(_CUT)
    escaped[1::2] = [f"<mark>{piece}</mark>" for piece in escaped[1::2]]
    before = "… " if start or sample["cut"] else ""
    after = f" … ({sample['length']:,} characters)" if end + sample["cut"] < sample["length"] else ""
    return f"{before}{''.join(escaped)}{after}"


def _where(sample: Mapping[str, Any]) -> str:
    source, position, name = sample["source"], sample["position"], sample["id"]
    parts = [f"id {name}"] if name is not None else []
    file = source.rpartition("/")[2] or source
    parts.append(f"{file}, {position}" if position else file or f"task {sample['task']}, row {sample['row'] + 1}")
    command = ""
    if source and position:
        command = _show_place(source, position)
    elif source and name is not None:
        command = shlex.join(["curate", "show", source, name])
    copy = f"<br>{_to_copy(command)}" if command else ""
    return f'<div class="where">{escape(", ".join(part for part in parts if part))}{copy}</div>'


def _show_place(source: str, position: str) -> str:
    return shlex.join(["curate", "show", f"{source}:{position.removeprefix('line ').removeprefix('row ')}"])


def _to_copy(command: str) -> str:
    return f'<code>{escape(command)}</code><button class="copy" type="button">copy</button>'


# Sources, rejects, duplicates -----------------------------------------------------------------------------------------


def _collections(numbers: Mapping[str, Any]) -> str:
    parts: list[str] = []
    tables = {"collection": numbers["collections"], **numbers["by"]}
    for column, entries in tables.items():
        if not entries or (column == "collection" and len(entries) == 1 and len(tables) > 1):
            continue
        title = {"collection": "collection", "source": "file"}.get(column, column)
        # For files in one folder, the page shows only the parts of their names that differ.
        root = _common_folder([entry["value"] for entry in entries]) if column == "source" else ""
        named = [{**entry, "value": entry["value"].removeprefix(root)} for entry in entries]
        ordered = sorted(named, key=lambda entry: (-_lost(entry), -entry["rows_in"], entry["value"]))
        body = _table(
            [
                (title, ""),
                ("rows in", ""),
                ("", ""),
                ("kept", ""),
                ("lost", ""),
                ("most of it to", "name"),
                ("bytes kept", ""),
            ],
            map(_counted, ordered[:_ROWS]),
        )
        first = ordered[0]
        lost = first["rows_in"] - first["rows_out"]
        said = f"{title.capitalize()} {first['value']} lost the most: {formatting.percent(lost, first['rows_in'])} of {first['rows_in']:,} rows."
        more = (
            f" The {_ROWS} of {len(entries):,} that lost the most; report.json has the others."
            if len(entries) > _ROWS
            else ""
        )
        said = said if lost and len(entries) > 1 else ""
        more += f" Files are in {root}" if root else ""
        lead = f'<p class="soft">{escape(said + more)}</p>' if said + more else ""
        inner = lead + body
        if parts:
            inner = f"<details><summary>By {escape(title)}: {len(entries):,}</summary>{inner}</details>"
        parts.append(inner)
    return "".join(parts)


def _common_folder(files: Sequence[str]) -> str:
    """The common folder of several files, with a slash at its end; empty if there is none."""
    named = [file for file in files if "/" in file]
    if len(named) < 2:
        return ""
    first, last = min(named), max(named)
    shared = next(
        (place for place, both in enumerate(zip(first, last, strict=False)) if both[0] != both[1]), len(first)
    )
    return first[: first.rfind("/", 0, shared) + 1]


def _lost(entry: Mapping[str, Any]) -> float:
    return (entry["rows_in"] - entry["rows_out"]) / entry["rows_in"] if entry["rows_in"] else 0.0


def _counted(entry: Mapping[str, Any]) -> str:
    rows_in, rows_out = entry["rows_in"], entry["rows_out"]
    lost = max(0, rows_in - rows_out)
    blame = max(entry["dropped"], key=lambda stage: (entry["dropped"][stage], stage), default="")
    bars = "".join(
        f'<span class="{kind}" style="width:{_width(value, max(rows_in, rows_out))}"></span>'
        for kind, value in (("kept", rows_out), ("dropped", lost))
        if value
    )
    blamed = f"{blame} ({entry['dropped'][blame]:,})" if blame else ""
    size = formatting.size(entry["bytes_out"]) if entry["bytes_in"] else ""
    return (
        f'<tr><th scope="row">{escape(entry["value"])}</th>{_cell("rows in", f"{rows_in:,}")}<td class="bars"><div>{bars}</div></td>'
        f"{_cell('kept', f'{rows_out:,}')}{_cell('lost', formatting.percent(lost, rows_in))}{_cell('', blamed, 'name')}"
        f"{_cell('bytes kept', size)}</tr>"
    )


def _rejects(groups: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for group in groups:
        word = "quarantined" if group["kind"] == "quarantine" else "rejected"
        examples = "".join(f"<li>{_reject(example)}</li>" for example in group["examples"])
        said = f"{len(group['examples']):,} of {group['rows']:,}"
        parts.append(
            f"<details><summary><b>{group['rows']:,}</b> {word} by {escape(group['stage'] + formatting.of_steps(group['steps']))}: "
            f"{escape(group['reason'])}</summary>"
            f'<p class="soft">{said}</p><ul>{examples}</ul></details>'
        )
    return "".join(parts)


def _reject(example: Mapping[str, Any]) -> str:
    source, position = str(example.get("source") or ""), str(example.get("position") or "")
    where = source or str(example.get("task") or "")
    if position:
        where += f":{position}"
    raw = example.get("raw")
    text = formatting.beginning(raw.encode("utf-8", "surrogatepass"), _EXAMPLE_CHARACTERS) if raw else ""
    shown_raw = f"<pre>{escape(text)}</pre>" if text else ""
    message = escape(str(example.get("message") or "").strip())
    if "\n" in message:  # a traceback
        message = f"<pre>{message}</pre>"
    # A quarantined task has no place of its own in a file.
    named = source and position and not position.startswith("task ")
    command = f"<br>{_to_copy(_show_place(source, position))}" if named else ""
    return f"<code>{escape(where)}</code> {message}{command}{shown_raw}"


def _duplicates(numbers: Mapping[str, Any]) -> str:
    found = numbers["duplicates"]
    if not found:
        return ""
    if not found["removed"]:
        return "<p>No document is removed.</p>"
    shown = [*found["least_alike"], *(member for entry in found["largest"] for member in entry["removed"])]
    one = "picture" if any("picture" in entry for entry in shown) else "document"
    rules = ", ".join(f"{rows:,} by the rule {rule}" for rule, rows in found["rules"].items())
    lead = f"<p>{formatting.count(found['removed'], f'{one} is', f'{one}s are')} removed ({escape(rules)}), each because of a {one} that stays and was compared with it.</p>"
    most = max(found["sizes"].values(), default=0)
    sizes = _table(
        [(f"{one}s in the cluster", ""), ("", ""), ("clusters", "")],
        (
            f'<tr><th scope="row">{escape(size)}</th><td class="bars"><div><span class="kept" style="width:{_width(rows, most)}">'
            f"</span></div></td>{_cell('clusters', f'{rows:,}')}</tr>"
            for size, rows in list(found["sizes"].items())[:20]
        ),
    )
    run = found["run_dir"]
    largest = "".join(
        f"<details><summary><b>{entry['cluster_size']:,}</b> {one}s: {escape(_document(entry))} stays</summary>"
        f'<p class="soft">{len(entry["removed"]):,} of the {entry["cluster_size"] - 1:,} that are removed for it</p>'
        f"<ul>{''.join(f'<li>{_removed(member, run)}</li>' for member in entry['removed'])}</ul></details>"
        for entry in found["largest"]
    )
    least = "".join(f"<li>{_removed(entry, run)}</li>" for entry in found["least_alike"])
    title = "Some of the copies" if set(found["rules"]) == {"exact"} else "Least similar removals"
    least = f"<h3>{title}</h3><ul>{least}</ul>" if least else ""
    return f"{lead}{sizes}<h3>Largest clusters</h3>{largest}{least}"


def _repeats(found: Mapping[str, Any]) -> str:
    if not found:
        return ""
    lead = (
        f"<p>{formatting.count(found['spans'], 'part')} of {formatting.count(found['documents'], 'document')}, {found['characters']:,} characters in "
        "all, occur in another document that stays as it is, or earlier in the same document.</p>"
    )
    most = _table(
        [("times", ""), ("begins with", "")],
        (
            f'<tr><th scope="row">{entry["times"]:,}</th>{_cell("begins with", entry["text"][:_EXAMPLE_CHARACTERS])}</tr>'
            for entry in found["most"]
        ),
    )
    longest = "".join(
        f"<li>{escape(_document(entry))}, {entry['end'] - entry['start']:,} characters from {entry['start']:,} on, as in "
        f'{escape(_document(entry, "witness_"))}<p class="text">{escape(entry["text"][:_EXAMPLE_CHARACTERS])}</p></li>'
        for entry in found["longest"]
    )
    return f"{lead}<h3>The most common</h3>{most}<h3>The longest</h3><ul>{longest}</ul>"


def _document(entry: Mapping[str, Any], of: str = "") -> str:
    name = entry[f"{of}id"]
    return str(name) if name is not None else f"{entry[f'{of}source']}:{(entry[f'{of}row'] or 0) + 1}"


def _removed(entry: Mapping[str, Any], run_dir: str) -> str:
    name = _document(entry)
    command = shlex.join(["curate", "dedup", "show", run_dir, name])
    figures = [
        said
        for key, said in (
            ("containment", f"{(entry['containment'] or 0):.1%} of its shingles are in the other"),
            ("similarity", f"a similarity of {(entry['similarity'] or 0):.4f}"),
            ("new_words", f"at most {entry['new_words']} new words in 25"),
        )
        if entry[key] is not None and entry["rule"] != "exact"  # for an exact copy all figures are 1
    ]
    witness = _document(entry, "witness_")
    said = f"{name} for {witness}: {entry['rule']}{', ' if figures else ''}{', '.join(figures)}"
    texts = "".join(
        f'<div class="example"><h4>{title}</h4><p class="text">{_alone(entry[f"{end}text"], entry[f"{end}only"])}</p></div>'
        for end, title in (("", "Removed"), ("witness_", "Stays"))
        if f"{end}text" in entry
    )
    pictures = "".join(
        f'<div><h4>{title}</h4><img class="pair" src="{escape(entry[f"{end}picture"], quote=True)}" '
        f'alt="{escape(_document(entry, end)[:_ALT_CHARACTERS], quote=True)}"></div>'
        for end, title in (("", "Removed"), ("witness_", "Stays"))
        if entry.get(f"{end}picture")
    )
    texts = f'<div class="sides">{texts}</div>' if texts else ""
    texts += f'<div class="sides pictures">{pictures}</div>' if pictures else ""
    return f"{escape(said)}<br>{_to_copy(command)}{texts}"


def _alone(text: str, only: Sequence[Sequence[int]]) -> str:
    """The beginning of a text, with the words marked that the other text lacks."""
    parts, at, end = [], 0, min(len(text), 2 * _EXAMPLE_CHARACTERS)
    for span in only:
        first, last = max(span[0], at), min(span[1], end)
        if first < last:
            parts += [escape(text[at:first]), f"<mark>{escape(text[first:last])}</mark>"]
            at = last
    return "".join([*parts, escape(text[at:end]), " …" if end < len(text) else ""])


# Time, plan, facts ----------------------------------------------------------------------------------------------------


def _time(time: Mapping[str, Any], of: str) -> str:
    if not time["stages"]:
        return ""
    lead = f"<p>{escape(time['bottleneck'])}</p>" if time["bottleneck"] else ""
    most = max(stage["seconds"] for stage in time["stages"])
    columns: list[tuple[str, str, Callable[[Mapping[str, Any]], str]]] = [
        ("time of all workers", "time", lambda stage: formatting.duration(stage["seconds"])),
        ("share", "share", lambda stage: formatting.percent(stage["share"], 1)),
        ("waited", "waited", lambda stage: formatting.duration(stage["waited"]) if stage["waited"] else ""),
        ("rows a second", "rows a second", lambda stage: _rate(stage["rows_a_second"])),
        ("MB a second", "MB a second", lambda stage: _if_any(stage["bytes_a_second"], lambda size: _few(size / 1e6))),
        ("peak memory", "peak memory", lambda stage: _if_any(stage["memory"], formatting.size)),
        ("GPU busy", "GPU busy", lambda stage: _if_any(stage["gpu_busy"], lambda busy: formatting.percent(busy, 1))),
        ("calls", "calls", lambda stage: f"{stage['calls']:,}"),
    ]
    # If nothing was left to run, there are no times of workers; most machines have no GPU.
    columns = [column for column in columns if any(map(column[2], time["stages"]))]
    rows = (
        f'<tr><th scope="row">{escape(stage["name"])}</th><td class="bars"><div><span class="clock" style="width:'
        f'{_width(stage["seconds"], most)}"></span></div></td>'
        f"{''.join(_cell(name, said(stage)) for _, name, said in columns)}</tr>"
        for stage in time["stages"]
    )
    titles = [("stage", ""), ("", ""), *((title, "") for title, _, _ in columns)]
    return lead + timeline(time["timeline"], of) + _table(titles, rows)


def _if_any(value: Any, said: Callable[[Any], str]) -> str:
    return "" if value is None else said(value)


def _few(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _plans(plans: Sequence[Mapping[str, Any]]) -> str:
    """The number of rows made under each plan, if there were earlier plans."""
    rows = (
        f'<tr><th scope="row">{escape("; ".join(share["changes"]) or "the current plan")}</th>{_cell("since attempt", f"{share['since']:,}")}'
        f"{_cell('sources', f'{share["sources"]:,}')}{_cell('rows in', f'{share["rows_in"]:,}')}{_cell('kept', f'{share["rows_out"]:,}')}</tr>"
        for share in plans
    )
    columns = [
        ("differences from the current plan", ""),
        ("since attempt", ""),
        ("sources", ""),
        ("rows in", ""),
    ]
    return _table([*columns, ("rows kept", "")], rows)


def _plan(plan: Mapping[str, Any]) -> str:
    boxes = "".join(
        f"<li><div><small>{escape(group['title'])}</small>{''.join(f'<b>{escape(name)}</b>' for name in group['stages'])}</div></li>"
        for group in plan["groups"]
        if group["stages"]
    )
    picture = f'<ol class="flow">{boxes}</ol>' if boxes else ""
    text = f"<pre>{escape(plan['text'])}</pre>" if plan["text"] else ""
    if picture and text:
        text = f"<details><summary>In words</summary>{text}</details>"
    return picture + text


def _facts(numbers: Mapping[str, Any]) -> str:
    machine, time = numbers["machine"], numbers["time"]
    facts: dict[str, Any] = {
        "started": numbers["started"],
        "ended": numbers["ended"],
        "command": numbers["command"],
        "pipeline file": numbers["configuration"]["file"],
        "run directory": numbers["run_dir"],
        "host": numbers["host"],
        "executor": numbers["executor"],
        "attempt": numbers["attempt"],
        "machine": f"{machine.get('cpus') or 0:g} CPUs, {machine.get('gpus') or 0:g} GPUs, {machine.get('system', '')}",
        "executor was ready after": _seconds(time["opened_after"]),
        "first work was done after": _seconds(time["worked_after"]),
        "tokens": numbers["tokens"]["counted_by"],
        "python": numbers["python"],
        **numbers["versions"],
        **{key: value for key, value in numbers["options"].items() if value is not None},
        **{f"model of {model['stage']}": _pairs(model) for model in numbers["models"]},
    }
    rows = "".join(
        f'<tr><th scope="row">{escape(str(key))}</th><td>{escape(str(value))}</td></tr>'
        for key, value in facts.items()
        if value not in (None, "")
    )
    configured = [
        step for step in numbers["configuration"]["steps"] if isinstance(step, Mapping) and step.get("params")
    ]
    settings = "".join(
        f"<pre>{escape(f'{step["step"]}: ' if step.get('step') else '')}{escape(str(step.get('name')))}: {escape(json.dumps(step['params'], ensure_ascii=False))}</pre>"
        for step in configured
    )
    if settings:
        settings = f"<details><summary>Parameters of {formatting.count(len(configured), 'stage')}</summary>{settings}</details>"
    return f'<table class="facts"><tbody>{rows}</tbody></table>{settings}'


def _pairs(model: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in model.items() if key != "stage")


def _seconds(value: Any) -> str:
    return "" if value is None else f"{value:.1f} s"


def _width(part: float, whole: float) -> str:
    # The width is never zero: a single row of a million should still be visible.
    return f"{max(100 * part / whole, 0.4):.2f}%" if whole and part else "0"


def _known(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _blank(value: int) -> str:
    return f"{value:,}" if value else ""
