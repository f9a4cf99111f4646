"""A run's summary as HTML, for a notebook."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any


def table_html(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table: the first column is text, the others are numbers."""
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="text-align:{"left" if n == 0 else "right"}">{html.escape(_shown(value))}</td>'
            for n, value in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def summary_html(summary: Mapping[str, Any], headline: str) -> str:
    """A run's summary: the headline, a row for each stage, problems and warnings."""
    rows = [
        (
            stage["name"],
            stage["rows_in"],
            stage["rows_out"],
            sum(stage["dropped"].values()) or "",
            sum(stage["rejected"].values()) or "",
            stage["quarantined"] or "",
        )
        for stage in summary["stages"]
    ]
    notes = "".join(
        f"<p><b>{word[:-1]}:</b> {html.escape(text)}</p>" for word in ("problems", "warnings") for text in summary[word]
    )
    steps = [
        (step["name"], step["sources"], step["rows_in"], step["rows_out"], step["state"])
        for step in summary.get("steps", ())
    ]
    if steps:
        notes += table_html(("step", "sources", "rows in", "rows out", "state"), steps)
    table = table_html(("stage", "rows in", "kept", "dropped", "rejected", "quarantined"), rows) if rows else ""
    return f"<p>{html.escape(headline)}</p>{notes}{table}"


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
