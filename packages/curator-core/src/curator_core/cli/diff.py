"""``curate diff``: in what two runs differ."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from curator_core import formatting
from curator_core.cli import DONE, FAILED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from curator_core.data.sides import Sides
    from curator_core.running.compare import Comparison, RunRecord

_HEADINGS = ("stage", "rows in", "", "kept", "", "dropped", "", "set aside", "")
_SHOWN_SOURCES = 10


@click.command("diff", short_help="Compare two runs.")
@click.argument("run_a", type=click.Path())
@click.argument("run_b", type=click.Path())
@click.option("--no-rows", is_flag=True, help="Do not read the outputs: compare configuration and counts alone.")
@click.option(
    "--id-column", metavar="NAME", help="The column with the ids; left out: id, key and the like, or the text."
)
@click.option(
    "--examples", type=click.IntRange(min=0), default=3, show_default=True, help="How many rows of each kind to show."
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def diff_command(run_a: str, run_b: str, no_rows: bool, id_column: str | None, examples: int, as_json: bool) -> int:
    """Compare the runs in RUN_A and RUN_B: configuration, counts by stage and source, scores, and rows that changed side.

    Exit code 0 where they are equal, 1 where something differs. How they ran (executor, versions, time) and where they wrote
    is shown, and makes no difference.
    """
    from curator_core.running.compare import compare, paired  # these import pyarrow

    pairs, lines = paired(run_a, run_b)
    parts = []
    for a, b in pairs:
        found = compare(a, b)
        sides = {} if no_rows else _sides(a, b, found, id_column, examples)
        parts.append((a, b, found, sides))
    differs = bool(lines) or any(
        found.differs or any(s.differs for s in sides.values()) for _, _, found, sides in parts
    )
    if as_json:
        click.echo(json.dumps(_content(run_a, run_b, parts, lines, differs), indent=1, ensure_ascii=False))
        return FAILED if differs else DONE
    click.echo(f"a: {formatting.printable(run_a)}\nb: {formatting.printable(run_b)}")
    for line in lines:
        click.echo(formatting.printable(line))
    for _, _, found, sides in parts:
        _echo(found, sides)
    click.echo("\nthe runs differ" if differs else "\nthe runs are equal")
    return FAILED if differs else DONE


def _sides(a: RunRecord, b: RunRecord, found: Comparison, id_column: str | None, examples: int) -> dict[str, Sides]:
    """The rows of each output that both runs have; what cannot be read is noted as unknown."""
    from curator_core import storage
    from curator_core.data.sides import compare_rows
    from curator_core.errors import CuratorError

    sides = {}
    for stage, folder in a.outputs.items():
        other = b.outputs.get(stage)
        if other is None:
            found.unknown.append(f"only a has an output of {stage}")
            continue
        missing = [place for place in (folder, other) if not storage.exists(place)]
        if missing:
            found.unknown.append(f"the rows of {stage}: {missing[0]} is not there any more")
            continue
        rows = max(run.summary.rows_written if run.summary else 0 for run in (a, b))
        try:
            sides[stage] = compare_rows(folder, other, rows=rows, id_column=id_column, examples=examples)
        except CuratorError as error:
            found.unknown.append(f"the rows of {stage}: {error}")
    found.unknown += [f"only b has an output of {stage}" for stage in b.outputs if stage not in a.outputs]
    return sides


def _content(
    run_a: str,
    run_b: str,
    parts: Sequence[tuple[RunRecord, RunRecord, Comparison, dict[str, Sides]]],
    lines: Sequence[str],
    differs: bool,
) -> dict[str, Any]:
    from curator_core.data.values import json_value

    rows, stages, steps = [], [], []
    for _, _, found, sides in parts:
        content = found.as_dict()
        stages += [{"step": found.step, **stage} for stage in content.pop("stages")]
        for stage, side in sides.items():
            rows += [{"step": found.step, "output": stage, **json_value(row)} for row in side.examples]
        steps.append({**content, "outputs": {stage: side.as_dict() for stage, side in sides.items()}})
    for row in rows:
        row.pop("key", None)
    return {
        "a": run_a,
        "b": run_b,
        "differs": differs,
        "only": list(lines),
        "steps": steps,
        "stages": stages,
        "rows": rows,
    }


# What it prints -------------------------------------------------------------------------------------------------------


def _echo(found: Comparison, sides: dict[str, Sides]) -> None:
    if found.step:
        click.secho(f"\nstep {formatting.printable(found.step)}", bold=True)
    if found.configuration:
        click.echo("\nconfiguration, from a to b")
        for line in found.configuration:
            click.echo(f"  {formatting.printable(line)}")
    _echo_stages(found)
    if found.sources:
        from curator_core.cli.summary import aligned

        of = formatting.count(found.differing_sources, "source")
        click.echo(f"\n{of} with other counts" + (", those that differ most:" if len(found.sources) > 1 else ":"))
        table: list[Sequence[str]] = [("source", "rows in", "", "kept", "")]
        for source in found.sources[:_SHOWN_SOURCES]:
            cells = [_pair(source.a, source.b, key) for key in ("rows_in", "rows_out")]
            table.append((formatting.printable(source.source), *cells[0], *cells[1]))
        for line in aligned(table, left=(0, 2, 4)):
            click.echo(f"  {line}")
    for stage, side in sides.items():
        _echo_side(stage, side)
    if found.manner:
        click.echo("\nhow they ran, which makes no difference")
        for line in found.manner:
            click.echo(f"  {formatting.printable(line)}")
    if found.unknown:
        click.echo("\nnot known")
        for line in found.unknown:
            click.echo(f"  {formatting.printable(line)}")


def _echo_stages(found: Comparison) -> None:
    from curator_core.cli.summary import aligned
    from curator_core.running.compare import differing_stages

    stages = differing_stages(found)
    if not stages:
        return
    same = len(found.stages) - len(stages)
    click.echo("\nstages" + (f", {same} more with the same counts" if same else ""))
    table: list[Sequence[str]] = [_HEADINGS]
    for stage in stages:
        was, now = _flat(stage["a"]), _flat(stage["b"])
        cells = [_pair(was, now, key) for key in ("rows_in", "rows_out", "dropped", "aside")]
        table.append((formatting.printable(stage["name"]), *(text for cell in cells for text in cell)))
        for column, kind in ((5, "dropped"), (7, "rejected")):
            ours, theirs = (stage["a"] or {}).get(kind, {}), (stage["b"] or {}).get(kind, {})
            for reason in sorted({*ours, *theirs}):
                if ours.get(reason, 0) != theirs.get(reason, 0):
                    row = [f"  {formatting.printable(reason)}", *[""] * 8]
                    row[column : column + 2] = _pair({"n": ours.get(reason, 0)}, {"n": theirs.get(reason, 0)}, "n")
                    table.append(row)
    for line in aligned(table, left=(0, 2, 4, 6, 8)):
        click.echo(f"  {line}")


def _flat(stage: dict[str, Any] | None) -> dict[str, int] | None:
    if stage is None:
        return None
    aside = sum(stage["rejected"].values()) + stage["quarantined"]
    return {**stage, "dropped": sum(stage["dropped"].values()), "aside": aside}


def _pair(a: dict[str, int] | None, b: dict[str, int] | None, key: str) -> tuple[str, str]:
    """``1,000`` where both have it, ``1,000 → 900`` in two cells where they differ."""
    was = None if a is None else a[key]
    now = None if b is None else b[key]
    if was == now:
        return (f"{was:,}" if was else "", "")
    return ("none" if was is None else f"{was:,}", f"→ {'none' if now is None else f'{now:,}'}")


def _echo_side(stage: str, side: Sides) -> None:
    by = f"by their {side.by!r}" if side.named else f"by their text, {side.by!r}, as they have no ids"
    click.echo(f"\nrows of {formatting.printable(stage)}, compared {formatting.printable(by)}")
    if not side.differs:
        click.echo(f"  all {side.same:,} are the same")
        return
    for label, columns in (("a", side.columns_a), ("b", side.columns_b)):
        if columns:
            click.echo(f"  only {label} has the columns {formatting.printable(', '.join(columns))}")
    parts = ((side.only_a, "only in a"), (side.only_b, "only in b"), (side.changed, "in both, with other values"))
    click.echo(f"  {', '.join(f'{n:,} {text}' for n, text in parts if n)}; {side.same:,} are the same in both")
    if side.twice:
        click.echo(f"  {formatting.count(side.twice, 'row')} with an id that another row has too")
    for label, text in (("a", "only in a"), ("b", "only in b")):
        shown = [row for row in side.examples if row["side"] == label]
        if shown:
            number = side.only_a if label == "a" else side.only_b
            click.echo(f"  {text}, {len(shown):,} of {number:,}:")
        for row in shown:
            click.echo(f"    {_row_line(row, side.by)}")
    before = {row["key"]: row for row in side.examples if row["side"] == "before"}
    after = {row["key"]: row for row in side.examples if row["side"] == "after"}
    both = [key for key in before if key in after]
    if both:
        click.echo(f"  in both, {len(both):,} of {side.changed:,}:")
    for key in both:
        click.echo(f"    {_row_line(after[key], side.by)}")
        was, now = before[key]["columns"], after[key]["columns"]
        for name in was:
            if name in now and was[name] != now[name]:
                click.echo(f"      {formatting.printable(name)}: {_short(was[name])} → {_short(now[name])}")


def _row_line(row: dict[str, Any], by: str) -> str:
    """The id of a row, where it stands, and the beginning of it."""
    columns = row["columns"]
    where = f"{row['source']}:{row['position'].removeprefix('line ').removeprefix('row ')}".strip(":")
    texts = [value for name, value in columns.items() if isinstance(value, str) and name != by]
    begins = max(texts, key=len, default="")
    named = "" if isinstance(columns.get(by), str) and len(columns[by]) > 80 else _short(columns.get(by))
    more = f"  dropped by {formatting.printable(row['fate'])}" if row.get("fate") else ""
    return f"{named}  {formatting.printable(where)}{more}  {_short(begins)}"


def _short(value: Any) -> str:
    from curator_core.data.values import text_of

    return formatting.cut(formatting.printable(text_of(value)[:200]), 60)
