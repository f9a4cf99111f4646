"""A run as one page: what went in, what came out, and why the rest did not. No scripts, no external files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any
from urllib.parse import quote

from curator_core import formatting, storage
from curator_core.accounts.rejects import RejectGroup, group_rejects
from curator_core.errors import UsageError
from curator_core.running.directory import RunDirectory
from curator_core.running.steps import pipelines_in

_EXAMPLES = 3
_EXAMPLE_CHARACTERS = 300
_STATES = {
    "done": ("good", "done", "Every source is complete and every row is accounted for."),
    "quarantined": ("mixed", "done, with work set aside", "Every row is accounted for; some were set aside."),
    "failed": ("bad", "failed", "What is complete is kept. Fix the cause and continue with --resume."),
    "running": ("mixed", "not finished", "The run is still going on, or was interrupted: continue with --resume."),
}


def write_report(run_dir: str) -> str:
    """Write ``report.html`` into a run directory from what stands there; returns its path."""
    directory = RunDirectory(run_dir)
    record = directory.read_json("run.json")
    if record is None:
        raise UsageError(f"{run_dir!r} holds no run: there is no run.json")
    groups = group_rejects(directory.url, _EXAMPLES)
    for step, place in pipelines_in(directory.url).items():
        groups += [replace(group, stage=f"{group.stage} of step {step!r}") for group in group_rejects(place, _EXAMPLES)]
    page = report_page(record, directory.read_json("plan.json") or {}, groups)
    path = directory.path("report.html")
    # Not durable: it is made of records that are, and `curate report` makes it again.
    storage.write_bytes_atomic(path, page.encode("utf-8", "surrogatepass"), durable=False)
    return path


def report_page(record: Mapping[str, Any], plan: Mapping[str, Any], rejects: Sequence[RejectGroup]) -> str:
    """The page as text, from the contents of ``run.json`` and ``plan.json``; everything in it is escaped."""
    summary = record.get("summary") or {}
    name = str(summary.get("name") or plan.get("name") or "run")
    kind, state, sentence = _STATES.get(str(record.get("state")), ("mixed", str(record.get("state")), ""))
    stages = summary.get("stages") or []
    sections = [
        _cards(summary, stages),
        _notes("Problems", "bad", summary.get("problems")),
        _notes("Warnings", "mixed", summary.get("warnings")),
        _steps(summary),
        _funnel(stages),
        _reasons(stages),
        _texts(summary.get("notes") or []),
        _rejects(rejects),
        _plans(summary),
        _outputs(record.get("outputs") or {}),
        _plan(plan, summary),
        _facts(record, summary),
    ]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="referrer" content="no-referrer">
<title>{escape(name)}: {escape(state)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{escape(name)} <span class="state {kind}">{escape(state)}</span></h1>
<p>{escape(sentence)}</p>
</header>
<main>
{"".join(sections)}
</main>
</body>
</html>
"""


def _texts(notes: Sequence[str]) -> str:
    """What stages have to say, line by line as they say it."""
    return "".join(f"<section><pre>{escape(text)}</pre></section>" for text in notes)


def _cards(summary: Mapping[str, Any], stages: Sequence[Mapping[str, Any]]) -> str:
    if not summary:
        return ""
    rows_in = max((stage["rows_in"] for stage in stages), default=0)
    kept = stages[-1]["rows_out"] if stages else 0
    dropped = sum(sum(stage["dropped"].values()) for stage in stages)
    aside = sum(sum(stage["rejected"].values()) + stage["quarantined"] for stage in stages)
    sources = formatting.number(summary.get("sources", 0))
    skipped = summary.get("sources_skipped")
    facts = [
        ("sources", sources, f"{skipped:,} complete before" if skipped else ""),
        ("rows in", formatting.number(rows_in), ""),
        ("rows kept", formatting.number(kept), formatting.percent(kept, rows_in)),
        ("rows dropped", formatting.number(dropped), formatting.percent(dropped, rows_in)),
        ("rows set aside", formatting.number(aside), formatting.percent(aside, rows_in)),
        ("files written", formatting.number(summary.get("files", 0)), formatting.size(summary.get("bytes", 0))),
        ("time", formatting.duration(summary.get("seconds", 0.0)), ""),
    ]
    cards = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span><i>{escape(more)}</i></div>'
        for label, value, more in facts
    )
    return f'<section class="cards">{cards}</section>'


def _notes(title: str, kind: str, notes: Iterable[str] | None) -> str:
    items = "".join(f"<li>{escape(str(note))}</li>" for note in notes or ())
    return f'<section class="notes {kind}"><h2>{title}</h2><ul>{items}</ul></section>' if items else ""


def _steps(summary: Mapping[str, Any]) -> str:
    """A row for each step of a workflow, with a link to its own page."""
    rows = "".join(_step_rows(summary.get("steps") or (), "", ""))
    return (
        '<section><h2>Step by step</h2><div class="wide"><table class="funnel"><thead><tr><th>step</th>'
        '<td class="name">state</td><td>sources</td><td>rows in</td><td>rows out</td><td>time</td></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
        if rows
        else ""
    )


def _step_rows(steps: Sequence[Mapping[str, Any]], above: str, folder: str) -> Iterable[str]:
    for number, step in enumerate(steps, 1):
        state = {"quarantined": "done, with work set aside"}.get(step["state"], step["state"])
        if step["complete_before"]:
            state = "complete before"
        place = f"{folder}{step['folder']}/"
        time = "" if step["complete_before"] else formatting.duration(step["seconds"])
        yield (
            f'<tr><th>{above}{number} <a href="{escape(quote(place))}report.html">{escape(step["name"])}</a></th>'
            f'<td class="name">{escape(state)}</td><td>{step["sources"]:,}</td><td>{step["rows_in"]:,}</td>'
            f"<td>{step['rows_out']:,}</td><td>{escape(time)}</td></tr>"
        )
        yield from _step_rows(step["steps"], f"{above}{number}.", place)


def _funnel(stages: Sequence[Mapping[str, Any]]) -> str:
    if not stages:
        return ""
    most = max((max(stage["rows_in"], stage["rows_out"]) for stage in stages), default=0)
    slowest = max((stage["seconds"] for stage in stages), default=0.0)
    rows = []
    for stage in stages:
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
        rows.append(
            f"<tr><th>{escape(stage['name'])}</th><td>{stage['rows_in']:,}</td>"
            f'<td class="bars"><div>{bars}</div></td><td>{stage["rows_out"]:,}</td><td>{_blank(dropped)}</td>'
            f'<td>{_blank(rejected)}</td><td class="time"><div>{clock}</div></td>'
            f"<td>{escape(formatting.duration(stage['seconds']))}</td></tr>"
        )
    return (
        '<section><h2>Stage by stage</h2><p class="key"><span class="kept"></span>kept <span class="dropped"></span>'
        'dropped <span class="aside"></span>set aside</p><div class="wide"><table class="funnel"><thead><tr>'
        "<th>stage</th><td>rows in</td><td></td><td>kept</td><td>dropped</td><td>set aside</td>"
        f'<td colspan="2">time of all workers</td></tr></thead><tbody>{"".join(rows)}</tbody></table></div></section>'
    )


def _reasons(stages: Sequence[Mapping[str, Any]]) -> str:
    found = [
        (count, stage["name"], reason, kind, stage["rows_in"])
        for stage in stages
        for kind, reasons in (("dropped", stage["dropped"]), ("rejected", stage["rejected"]))
        for reason, count in reasons.items()
    ]
    if not found:
        return ""
    found.sort(key=lambda item: (-item[0], item[1], item[2]))
    most = found[0][0]
    rows = "".join(
        f'<tr><th>{escape(reason)}</th><td class="name">{escape(stage)}</td><td class="bars"><div>'
        f'<span class="{"dropped" if kind == "dropped" else "aside"}" style="width:{_width(count, most)}"></span></div>'
        f"</td><td>{count:,}</td><td>{escape(formatting.percent(count, rows_in))}</td></tr>"
        for count, stage, reason, kind, rows_in in found
    )
    return (
        '<section><h2>Why rows left</h2><div class="wide"><table class="funnel"><thead><tr><th>reason</th>'
        '<td class="name">stage</td><td></td><td>rows</td><td>of the stage</td></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _rejects(groups: Sequence[RejectGroup]) -> str:
    if not groups:
        return ""
    parts = []
    for group in groups:
        word = "quarantined" if group.kind == "quarantine" else "rejected"
        examples = "".join(f"<li>{_example(example)}</li>" for example in group.examples)
        parts.append(
            f"<details><summary><b>{group.rows:,}</b> {word} by {escape(group.stage)}: {escape(group.reason)}</summary>"
            f"<ul>{examples}</ul></details>"
        )
    return f"<section><h2>Set aside</h2>{''.join(parts)}</section>"


def _example(example: Mapping[str, Any]) -> str:
    where = str(example.get("source") or example.get("task") or "")
    if example.get("position"):
        where += f":{example['position']}"
    raw = example.get("raw")
    text = formatting.beginning(raw, _EXAMPLE_CHARACTERS) if raw else ""
    shown = f"<pre>{escape(text)}</pre>" if text else ""
    message = escape(str(example.get("message") or "").strip())
    if "\n" in message:  # a traceback
        message = f"<pre>{message}</pre>"
    return f"<code>{escape(where)}</code> {message}{shown}"


def _plans(summary: Mapping[str, Any]) -> str:
    """Which rows were made under which plan, where more than the present one was used."""
    plans = summary.get("plans") or []
    if not plans:
        return ""
    rows = "".join(
        f"<tr><td>{escape('; '.join(share['changes']) or 'the present plan')}</td><td>{share['since']:,}</td>"
        f"<td>{share['sources']:,}</td><td>{share['rows_in']:,}</td><td>{share['rows_out']:,}</td></tr>"
        for share in plans
    )
    return (
        '<section><h2>Rows by plan</h2><div class="wide"><table class="funnel"><thead><tr>'
        "<th>how the plan differs from the present one</th><th>since attempt</th><th>sources</th><th>rows in</th>"
        f"<th>rows kept</th></tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _outputs(outputs: Mapping[str, Mapping[str, Any]]) -> str:
    """The folders that the run has filled, with their numbers of files."""
    if not outputs:
        return ""
    rows = "".join(
        f"<tr><th>{escape(stage)}</th><td><code>{escape(str(output.get('folder')))}</code></td>"
        f"<td>{formatting.count(int(output.get('files', 0)), 'file')}</td></tr>"
        for stage, output in outputs.items()
    )
    return f'<section><h2>What was written</h2><table class="facts"><tbody>{rows}</tbody></table></section>'


def _plan(plan: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    text = str(plan.get("text") or "\n".join(summary.get("decisions") or ()))
    return f"<section><h2>The plan</h2><pre>{escape(text)}</pre></section>" if text else ""


def _facts(record: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    machine = record.get("machine") or {}
    facts: dict[str, Any] = {
        "started": record.get("started"),
        "ended": record.get("ended"),
        "command": record.get("command"),
        "host": record.get("host"),
        "executor": record.get("executor"),
        "attempt": record.get("attempt"),
        "inputs": ", ".join(f"{count:,} {kind}" for kind, count in (summary.get("inputs") or {}).items()),
        "shares of the sources": ", ".join(f"{kind} {share}" for kind, share in (summary.get("shares") or {}).items()),
        "machine": f"{machine.get('cpus', 0):g} CPUs, {machine.get('gpus', 0):g} GPUs, {machine.get('system', '')}",
        "executor was ready after": f"{summary.get('opened_after', 0.0):.1f} s",
        "first work was done after": _seconds(summary.get("worked_after")),
        "python": record.get("python"),
        **(record.get("versions") or {}),
        **{key: value for key, value in (record.get("options") or {}).items() if value is not None},
    }
    rows = "".join(
        f"<tr><th>{escape(str(key))}</th><td>{escape(str(value))}</td></tr>"
        for key, value in facts.items()
        if value not in (None, "")
    )
    return f'<section><h2>The run</h2><table class="facts"><tbody>{rows}</tbody></table></section>'


def _seconds(value: Any) -> str:
    return "" if value is None else f"{value:.1f} s"


def _width(part: float, whole: float) -> str:
    # Never nothing: a single row of a million should still be seen.
    return f"{max(100 * part / whole, 0.4):.2f}%" if whole and part else "0"


def _blank(value: int) -> str:
    return f"{value:,}" if value else ""


_STYLE = """
:root{--paper:#fff;--ink:#1c2330;--soft:#657085;--line:#e3e7ee;--wash:#f5f7fa;--kept:#2f6fde;--dropped:#f0a43a;
--aside:#d8432f;--clock:#9aa7bd;--good:#1d7f46;--mixed:#9a6400;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--paper:#141821;--ink:#e6e9f0;--soft:#98a3b8;--line:#2b3242;--wash:#1c2230;
--kept:#5b93f5;--dropped:#d99333;--aside:#ec6a58;--clock:#5d6a82;--good:#58c287;--mixed:#dfae52;--bad:#f08076}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1080px;padding:32px 24px 64px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:26px;margin:0;overflow-wrap:anywhere}
h2{font-size:17px;margin:36px 0 10px}
header p{margin:4px 0 0;color:var(--soft)}
.state{font-size:13px;font-weight:600;vertical-align:4px;padding:2px 10px;border-radius:99px;border:1px solid}
.good{color:var(--good)}.mixed{color:var(--mixed)}.bad{color:var(--bad)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(128px,1fr));gap:10px;margin-top:24px}
.card{background:var(--wash);border:1px solid var(--line);border-radius:10px;padding:12px}
.card b{display:block;font-size:19px;white-space:nowrap;font-variant-numeric:tabular-nums}
.card span{color:var(--soft);font-size:13px}
.card i{display:block;min-height:1.5em;font-style:normal;font-size:13px;color:var(--soft)}
.notes ul{margin:0;padding-left:20px}.notes li{white-space:pre-wrap;overflow-wrap:anywhere;color:var(--ink)}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
.funnel td{text-align:right;white-space:nowrap}
th{text-align:left;font-weight:500;overflow-wrap:anywhere}
.funnel th{min-width:14em}
th,td{padding:7px 10px;border-bottom:1px solid var(--line)}
thead th,thead td{color:var(--soft);font-size:13px;font-weight:400}
td.name{text-align:left;color:var(--soft)}
td.bars{width:34%;min-width:140px}td.time{width:9%;min-width:60px}
.bars div,.time div{display:flex;height:14px;background:var(--wash);border-radius:3px;overflow:hidden}
.kept{background:var(--kept)}.dropped{background:var(--dropped)}.aside{background:var(--aside)}
.clock{background:var(--clock)}
.key{color:var(--soft);font-size:13px;margin:0 0 6px}
.key span{display:inline-block;width:11px;height:11px;border-radius:2px;margin:0 6px 0 12px}
.key span:first-child{margin-left:0}
details{border-bottom:1px solid var(--line);padding:7px 0}summary{cursor:pointer;overflow-wrap:anywhere}
details ul{margin:8px 0;padding-left:20px;color:var(--soft)}
pre{background:var(--wash);border:1px solid var(--line);border-radius:8px;padding:12px 14px;margin:6px 0;
white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.5 ui-monospace,"SF Mono",Menlo,Consolas,monospace}
code{font:13px ui-monospace,Menlo,Consolas,monospace;overflow-wrap:anywhere}
.facts th{width:12em;color:var(--soft)}.facts td{overflow-wrap:anywhere}
"""
