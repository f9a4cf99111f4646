"""The outcome of a run, as a table for a terminal or a log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from curator_core import formatting

_HEADINGS = ("stage", "rows in", "kept", "dropped", "rejected", "quarantined", "time")

_STEP_HEADINGS = ("step", "", "sources", "rows in", "rows out", "time")

_WORTH_TELLING_S = 0.5


def summary_text(summary: Mapping[str, Any]) -> str:
    """The summary (`RunSummary.as_dict`) as text: one headline, one line per stage, and why rows left."""
    lines = [headline(summary)]
    for word in ("problems", "warnings"):
        lines += [f"{word[:-1]}: {text}" for text in summary[word]]
    opened, worked = summary.get("opened_after", 0.0), summary.get("worked_after")
    if opened >= _WORTH_TELLING_S and worked is not None:
        lines.append(
            f"{summary['executor']} was ready after {formatting.duration(opened)}, the first work done after "
            f"{formatting.duration(worked)}"
        )
    if steps := summary.get("steps"):
        lines += ["", *aligned([_STEP_HEADINGS, *_step_rows(steps, "")], left=(0, 1))]
    table = stage_lines(summary["stages"])
    lines += ["", *table] if table else []
    for text in summary.get("notes", ()):
        lines += ["", text]
    return "\n".join(lines)


def stage_lines(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each stage, and one for each reason for which it dropped rows."""
    rows: list[Sequence[str]] = [_HEADINGS]
    for stage in stages:
        dropped, rejected = stage["dropped"], stage["rejected"]
        rows.append(
            (
                stage["name"],
                formatting.number(stage["rows_in"]),
                formatting.number(stage["rows_out"]),
                _or_blank(sum(dropped.values())),
                _or_blank(sum(rejected.values())),
                _or_blank(stage["quarantined"]),
                formatting.duration(stage["seconds"]),
            )
        )
        for column, reasons in ((3, dropped), (4, rejected)):
            for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
                rows.append([f"  {reason}", *("" if index != column else f"{count:,}" for index in range(1, 7))])
    return aligned(rows) if len(rows) > 1 else []


def _step_rows(steps: Sequence[Mapping[str, Any]], above: str) -> list[Sequence[str]]:
    """A row for each step of a workflow; the steps of a step that is itself a workflow are below it."""
    rows: list[Sequence[str]] = []
    for number, step in enumerate(steps, 1):
        state = {"quarantined": "done, with work set aside"}.get(step["state"], step["state"])
        counts = [formatting.number(step[key]) for key in ("sources", "rows_in", "rows_out")]
        before = step["complete_before"]
        time = "" if before else formatting.duration(step["seconds"])
        name = f"{above}{number} {step['name']}"
        rows.append((name, "complete before" if before else state, *counts, time))
        rows += _step_rows(step["steps"], f"{above}{number}.")
    return rows


def so_far_text(found: Mapping[str, Any]) -> str:
    """The progress of a run that has not ended (`SoFar.as_dict`): a headline, and a line for each stage."""
    name, complete, listed = found["name"], found["complete"], found["listed"]
    state = "running"
    if found["state"] != "running":
        state = f"{found['state']}, no process is working on it; continue it with --resume"
    elif found["seconds"] is not None:
        state += f" for {formatting.duration(found['seconds'])} ({found['owner']})"
    failed = f", {found['failed']:,} with work set aside" if found["failed"] else ""
    lines = [
        f"{name}: {state}",
        f"complete so far: {complete:,} of the {formatting.count(listed, 'source')} listed so far{failed}",
    ]
    table = stage_lines(found["stages"])
    return "\n".join([*lines, "", *table] if table else lines)


def headline(summary: Mapping[str, Any]) -> str:
    """The name, state, time and output of a run, in one line."""
    parts = [formatting.count(summary["sources"], "source")]
    if summary["sources_skipped"]:
        parts.append(f"{summary['sources_skipped']:,} of them complete before")
    if summary["sources_failed"]:
        parts.append(f"{summary['sources_failed']:,} of them with work set aside")
    if rejected := sum(sum(stage["rejected"].values()) for stage in summary["stages"]):
        read = max(stage["rows_in"] for stage in summary["stages"])
        parts.append(f"{formatting.percent(rejected, read)} of its rows rejected ({rejected:,} of {read:,})")
    if summary["files"]:
        written = f"{formatting.count(summary['files'], 'file')} written"
        parts.append(
            f"{written} ({formatting.count(summary['rows_written'], 'row')}, {formatting.size(summary['bytes'])})"
        )
    state = {"quarantined": "done, with work set aside,"}.get(summary["state"], summary["state"])
    return f"{summary['name']}: {state} in {formatting.duration(summary['seconds'])}: {', '.join(parts)}"


def _or_blank(value: int) -> str:
    return f"{value:,}" if value else ""


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Rows of text in columns: the first ``left`` columns are aligned on the left, the others on the right; an empty
    column after the third is left out.
    """
    shown = [column for column in range(len(rows[0])) if column < 3 or any(row[column] for row in rows[1:])]
    widths = {column: max(len(row[column]) for row in rows) for column in shown}
    return [
        "  ".join(
            row[column].ljust(widths[column]) if column in left else row[column].rjust(widths[column])
            for column in shown
        ).rstrip()
        for row in rows
    ]
