"""``curate runs``: the runs below a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from curator_core import formatting

if TYPE_CHECKING:
    from curator_core.running.listing import ListedRun

_HEADINGS = ("run", "state", "started (UTC)", "time", "sources", "rows in", "kept", "folder")
_STATES = ("running", "interrupted", "done", "quarantined", "failed", "damaged")


@click.command("runs", short_help="List the runs below a folder.")
@click.argument("folder", default=".", type=click.Path())
@click.option("--state", type=click.Choice(_STATES), help="Only runs in this state.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def runs_command(folder: str, state: str | None, as_json: bool) -> None:
    """List the runs in FOLDER and in the folders inside it: how each ended, when it began, and how many rows it kept.

    The steps of a workflow are listed below it. An `interrupted` run was killed, and `--resume` continues it. A
    `damaged` run has a record that cannot be read; the list says why.
    """
    from curator_core import storage
    from curator_core.running.listing import runs_below  # these import pyarrow

    runs = [run for run in runs_below(folder) if state in (None, run.state)]
    if as_json:
        click.echo(json.dumps({"folder": folder, "rows": [run.as_dict() for run in runs]}, indent=1))
        return
    if not runs:
        of = f" that is {state}" if state else ""
        click.echo(f"there is no run{of} below {formatting.printable(folder)}")
        return
    from curator_core.cli.summary import aligned

    base = storage.absolute(folder)
    rows = [row for run in runs for row in _rows(run, base, "")]
    for line in aligned([_HEADINGS, *rows], left=(0, 1, 2, 7)):
        click.echo(line.rstrip())
    for run in runs:
        if run.problem:
            click.echo(f"damaged: {formatting.printable(run.problem)}")


def _rows(run: ListedRun, base: str, indent: str) -> list[Sequence[str]]:
    from curator_core import storage

    folder = run.folder
    if f"{storage.absolute(folder)}/".startswith(f"{base.rstrip('/')}/"):
        folder = storage.absolute(folder)[len(base.rstrip("/")) + 1 :] or "."
    rows: list[Sequence[str]] = [
        (
            f"{indent}{formatting.printable(run.name)}",
            {"quarantined": "done, with work set aside"}.get(run.state, run.state),
            (run.started or "")[:16].replace("T", " "),
            "" if run.seconds is None else formatting.duration(run.seconds),
            *("" if value is None else f"{value:,}" for value in (run.sources, run.rows_in, run.rows_out)),
            formatting.printable(folder),
        )
    ]
    return rows + [row for step in run.steps for row in _rows(step, base, f"{indent}  ")]
