"""``curate whatif``: what other limits would have kept, computed from the scores that a run has recorded."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from curator_core import formatting
from curator_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from curator_core.running.compare import RunRecord
    from curator_core.running.whatif import Span, WhatIf


@click.command("whatif", short_help="Compute what other limits of a filter would have kept.")
@click.argument("run_dir", type=click.Path())
@click.option(
    "--set",
    "settings",
    multiple=True,
    required=True,
    metavar="STAGE.PARAM=VALUE",
    help="The new value of a limit, such as WordCountFilter.min_words=80.",
)
@click.option("--step", metavar="NAME", help="For a workflow, the step of the stage.")
@click.option("--examples", type=click.IntRange(min=0), default=5, show_default=True, help="How many rows to show.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def whatif_command(run_dir: str, settings: tuple[str, ...], step: str | None, examples: int, as_json: bool) -> None:
    """Recompute the funnel of the run in RUN_DIR with other limits, from the histograms of scores that it has stored.

    No data are read and nothing is run. The number of rows that the filter itself would keep is exact if the limit is
    on the edge of a bin, and otherwise given as a range. Later stages would get different rows, so their numbers are
    given as bounds with an estimate. The output says what cannot be computed.
    """
    from curator_core.accounts.seen import read_seen  # these import pyarrow
    from curator_core.config.build import build_stage
    from curator_core.config.yaml_file import parse_value
    from curator_core.running.compare import records_of
    from curator_core.running.so_far import so_far
    from curator_core.running.whatif import set_changes, what_if

    changes = set_changes(settings, parse_value)
    run = _chosen(records_of(run_dir), changes, step, run_dir)
    _find_modules(run)
    stages = so_far(run.folder).stages if run.summary is None else run.summary.stages
    counts = {
        stage.name: {
            "rows_in": stage.rows_in,
            "rows_out": stage.rows_out,
            "dropped": stage.dropped,
            "rejected": stage.rejected,
            "quarantined": stage.quarantined,
        }
        for stage in stages
    }
    seen = read_seen(run.folder).to_json()["stages"]
    found = what_if(run.plan.get("steps") or (), counts, seen, changes, build_stage)
    if run.summary is None:
        found.unknown.insert(
            0, f"the run has not ended (its state is {run.record.get('state')!r}): these are its rows so far"
        )
    if run.step:
        found.unknown.append("later steps of the workflow would see other rows; they are not recomputed")
    if as_json:
        click.echo(_json(run_dir, run, found))
        return
    _echo(found, examples)


def _chosen(runs: Mapping[str, RunRecord], changes: Mapping[str, Any], step: str | None, run_dir: str) -> RunRecord:
    """The pipeline that contains all of the changed stages."""
    from curator_core.errors import nearest

    if step is not None:
        if step not in runs:
            raise UsageError(
                f"{run_dir!r} has no step {step!r}{nearest(step, runs) or '.'} Its steps are: {', '.join(filter(None, runs))}"
            )
        return runs[step]
    if len(runs) == 1:
        return next(iter(runs.values()))
    having = [run for run in runs.values() if {part["name"] for part in run.plan.get("steps") or ()} >= set(changes)]
    if len(having) != 1:
        which = ", ".join(run.step for run in having) or "none"
        raise UsageError(
            f"the stages {', '.join(changes)} are in {'several steps' if having else 'no one step'} of the workflow ({which}): name "
            f"one with --step; its steps are {', '.join(runs)}"
        )
    return having[0]


def _find_modules(run: RunRecord) -> None:
    """The pipeline file can name modules beside it, so they are looked up there."""
    from curator_core.running.directory import RunDirectory

    command = RunDirectory(run.folder).read_json("command.json") or {}
    folder = command.get("folder")
    if folder and folder not in sys.path:
        sys.path.insert(0, folder)


def _json(run_dir: str, run: RunRecord, found: WhatIf) -> str:
    from curator_core.data.values import json_value

    content = {
        "run": run_dir,
        "step": run.step,
        "stages": [stage.as_dict() for stage in found.stages],
        "rows": found.rows,
        "unknown": found.unknown,
    }
    return json.dumps(json_value(content), indent=1, ensure_ascii=False)


def _echo(found: WhatIf, examples: int) -> None:
    from curator_core.cli.summary import aligned

    for stage in found.stages:
        for parameter, (was, then) in stage.changed.items():
            click.echo(f"{formatting.printable(stage.name)}.{parameter}={then!r} in place of {was!r}")
    table: list[Sequence[str]] = [("stage", "rows in", "", "kept", "")]
    for stage in found.stages:
        cells = (*_cells(stage.was_in, stage.rows_in), *_cells(stage.was_out, stage.rows_out))
        table.append((formatting.printable(stage.name), *cells))
    click.echo("")
    for line in aligned(table, left=(0, 2, 4)):
        click.echo(line)
    if found.stages and all(stage.same for stage in found.stages):
        click.echo("\nevery stage would keep as many rows as it did")
    _echo_rows(found, examples)
    if found.unknown:
        click.echo("\nnot known")
        for line in dict.fromkeys(found.unknown):
            click.echo(f"  {formatting.printable(line)}")


def _cells(was: int, then: Span | None) -> tuple[str, str]:
    if then is None:
        return f"{was:,}", "→ not known"
    if then.exact:
        return f"{was:,}", "" if then.low == was else f"→ {then.low:,}"
    return f"{was:,}", f"→ {then.low:,} to {then.high:,}, about {then.about:,}"


def _echo_rows(found: WhatIf, examples: int) -> None:
    from curator_core.accounts.seen import name_of_score  # imports pyarrow

    if not found.rows or not examples:
        return
    click.echo(
        f"\nof the samples that the run has stored, {formatting.count(len(found.rows), 'row')} would change side:"
    )
    for row in found.rows[:examples]:
        place = f"{row['source']}:{row['position'].removeprefix('line ').removeprefix('row ')}".strip(":")
        score = "" if row.get("score") is None else f"{name_of_score(row)} {formatting.number(row['score'])}"
        named = "  ".join(formatting.printable(str(text)) for text in (row.get("id"), place, score) if text)
        click.echo(f"  {row['was']} → {row['then']} by {formatting.printable(row['stage'])}: {named}")
        text = formatting.printable((row.get("text") or "")[:200])
        if text:
            click.echo(f"      {formatting.cut(text, 110)}")
    if len(found.rows) > examples:
        click.echo(f"  … {len(found.rows) - examples:,} more with --examples {len(found.rows)}, or --json")
