"""``curate report``, ``curate rejects`` and ``curate verify``: the records and the output of a run."""

from __future__ import annotations

import json
from typing import Any

import click

from curator_core.cli import DONE, FAILED
from curator_core.errors import RunRefused, UsageError
from curator_core.formatting import beginning, count, is_binary, of_steps


@click.command("report", short_help="Show and rewrite the report of a run.")
@click.argument("run_dir", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print report.json, all numbers of the page.")
def report_command(run_dir: str, as_json: bool) -> None:
    """Show the summary of the run in RUN_DIR and write its report.html again."""
    from curator_core.cli.summary import headline, so_far_text, summary_text  # these import pyarrow
    from curator_core.running.directory import RunDirectory
    from curator_core.running.log import write_log
    from curator_core.running.report import write_report
    from curator_core.running.so_far import settled, so_far
    from curator_core.running.steps import pipelines_in

    path = write_report(run_dir)
    steps = pipelines_in(run_dir)
    for place in steps.values():
        if RunDirectory(place).exists():
            write_report(place)
            write_log(place)
    write_log(run_dir, steps)  # a run that was killed has no summary
    if as_json:
        click.echo(json.dumps(RunDirectory(run_dir).read_json("report.json"), indent=1))
        return
    record = settled(RunDirectory(run_dir).read_json("run.json"), run_dir)
    if "summary" in record:
        click.echo(summary_text(record["summary"]))
        if record["state"] == "failed":
            click.echo("complete work is kept: continue with --resume")
    else:
        for step, place in (steps or {"": run_dir}).items():
            inner = RunDirectory(place).read_json("run.json") if steps else None
            if inner is not None and "summary" in inner:
                click.echo(f"step {step}: {headline(inner['summary']).partition(': ')[2]}")
            elif RunDirectory(place).exists():
                click.echo(
                    f"step {step}, {so_far_text(so_far(place).as_dict())}"
                    if step
                    else so_far_text(so_far(place).as_dict())
                )
    click.echo(f"report: {path}")


@click.command("rejects", short_help="Show what a run has set aside, and why.")
@click.argument("run_dir", type=click.Path())
@click.option("--examples", type=click.IntRange(min=0), default=3, show_default=True, help="Examples of each reason.")
@click.option("--stage", help="Only rows of this stage.")
@click.option("--reason", help="Only rows with this reason.")
@click.option("--json", "as_json", is_flag=True, help="Print all of these rows, each as a line of JSON.")
def rejects_command(run_dir: str, examples: int, stage: str | None, reason: str | None, as_json: bool) -> None:
    """Show the rows that the run in RUN_DIR could not read, and those on which a stage failed, by reason.

    A row that several steps of a workflow have read and set aside is shown once, with these steps.
    """
    from curator_core.accounts.rejects import (  # imports pyarrow
        group_rejects,
        group_rejects_of_steps,
        rejects_of,
        rejects_of_steps,
    )

    places = runs_in(run_dir)
    workflow = "" not in places
    if as_json:
        for row in rejects_of_steps(places) if workflow else rejects_of(places[""]):
            if stage in (None, row["stage"]) and reason in (None, row["reason"]):
                raw = row.pop("raw")
                row["raw"] = None if raw is None else raw.decode("utf-8", "backslashreplace")
                click.echo(json.dumps(row, ensure_ascii=False))
        return
    groups = group_rejects_of_steps(places, examples) if workflow else group_rejects(places[""], examples)
    groups = [group for group in groups if stage in (None, group.stage) and reason in (None, group.reason)]
    if not groups:
        click.echo("nothing was set aside" if stage is reason is None else "nothing was set aside for that reason")
        return
    for group in groups:
        word = "quarantined" if group.kind == "quarantine" else "rejected"
        click.echo(f"{group.rows:,} {word} by {group.stage}{of_steps(group.steps)}: {group.reason}")
        for example in group.examples:
            click.echo(f"    {example_line(example)}")


@click.command("verify", short_help="Compare the files of a run with their checksums.")
@click.argument("run_dir", type=click.Path())
def verify_command(run_dir: str) -> int:
    """Recompute the size and checksum of every file that the run in RUN_DIR wrote. The exit code is 1 if one differs."""
    from curator_core.running.verify import files_of, verify  # imports pyarrow

    problems = verify(run_dir)
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        return FAILED
    files = files_of(run_dir)
    click.echo(f"{count(files, 'file is', 'files are')} as {'it was' if files == 1 else 'they were'} written")
    return DONE


def example_line(example: dict[str, Any], width: int = 160) -> str:
    """The place of a row, what is wrong with it, and its first bytes, in one line that is safe for a terminal."""
    where = example["source"] or example["task"]
    if example["position"]:
        where += f":{example['position']}"
    parts = [where, *_said(example["message"] or "")]
    if example["raw"]:
        # repr() keeps bytes of the input from controlling the terminal.
        shown = beginning(example["raw"], width)
        parts.append(shown if is_binary(example["raw"]) else repr(shown))
    return "  ".join(printable(part) if part is not parts[-1] or not example["raw"] else part for part in parts if part)


def _said(message: str) -> list[str]:
    """The error at the end of a traceback, or the last line of any other message; --json prints the whole text."""
    lines = message.strip().splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    after = [line for line in lines[frames[-1] :] if not line.startswith(" ")] if frames else []
    return after[:1] or lines[-1:]


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def runs_in(run_dir: str) -> dict[str, str]:
    """The run directory itself under an empty name, or the run directories of a workflow's pipelines by step."""
    from curator_core import storage  # imports pyarrow
    from curator_core.running.steps import pipelines_in

    if not storage.exists(storage.join(run_dir, "run.json")):
        raise UsageError(f"{run_dir!r} holds no run: there is no run.json")
    try:
        return pipelines_in(run_dir) or {"": run_dir}
    except RunRefused:  # the record is damaged; the rejects are in other files
        place = storage.join(run_dir, "steps")
        ledgers = [path for path in storage.list_files(run_dir) if "/rejects/" in path]
        inside = {storage.parent(storage.parent(path)) for path in ledgers}
        return {storage.relative(path, place): path for path in sorted(inside) if path.startswith(f"{place}/")} or {
            "": run_dir
        }
