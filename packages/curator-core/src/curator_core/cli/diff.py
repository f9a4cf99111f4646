"""``curate diff``: how two runs differ."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from curator_core import formatting
from curator_core.cli import DONE, FAILED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from curator_core.data.fates import Fates
    from curator_core.data.sides import Sides
    from curator_core.running.compare import Comparison, RunRecord, SourceCounts

    # The rows of an output, and the fates of those that only one run has.
    Compared = tuple[Sides, Mapping[str, Fates]]

_HEADINGS = ("stage", "rows in", "", "kept", "", "dropped", "", "set aside", "")
_SHOWN_SOURCES = 10
_SHOWN_SCORES = 8


@click.command("diff", short_help="Compare two runs.")
@click.argument("run_a", type=click.Path())
@click.argument("run_b", type=click.Path())
@click.option("--no-rows", is_flag=True, help="Do not read the outputs: compare only configuration and counts.")
@click.option(
    "--id-column", metavar="NAME", help="The column with the ids. [default: id, key or similar, otherwise the text]"
)
@click.option(
    "--examples", type=click.IntRange(min=0), default=3, show_default=True, help="How many rows of each kind to show."
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def diff_command(run_a: str, run_b: str, no_rows: bool, id_column: str | None, examples: int, as_json: bool) -> int:
    """Compare the runs in RUN_A and RUN_B: configuration, counts by stage and source, scores, and rows that only one
    run keeps.

    The exit code is 0 if they are equal, and 1 if anything differs. Executor, versions, time and output folders are
    shown but not compared.
    """
    from curator_core.running.compare import compare, paired  # these import pyarrow

    pairs, lines = paired(run_a, run_b)
    parts = []
    for a, b in pairs:
        found = compare(a, b)
        sides = {} if no_rows else _sides(a, b, found, id_column, examples)
        parts.append((found, sides))
    differs = bool(lines) or any(
        found.differs or any(side.differs for side, _ in sides.values()) for found, sides in parts
    )
    if as_json:
        click.echo(json.dumps(_content(run_a, run_b, parts, lines, differs), indent=1, ensure_ascii=False))
        return FAILED if differs else DONE
    click.echo(f"a: {formatting.printable(run_a)}\nb: {formatting.printable(run_b)}")
    for line in lines:
        click.echo(formatting.printable(line))
    for found, sides in parts:
        _echo(found, sides)
    click.echo("\nthe runs differ" if differs else "\nthe runs are equal")
    return FAILED if differs else DONE


def _sides(a: RunRecord, b: RunRecord, found: Comparison, id_column: str | None, examples: int) -> dict[str, Compared]:
    """The rows of each output that both runs have; an output that cannot be read is noted as unknown."""
    from curator_core import storage
    from curator_core.data.fates import fates_of
    from curator_core.data.sides import compare_rows
    from curator_core.errors import CuratorError

    sides: dict[str, Compared] = {}
    for stage, folder in a.outputs.items():
        other = b.outputs.get(stage)
        if other is None:
            found.unknown.append(f"only a has an output of {stage}")
            continue
        missing = [place for place in (folder, other) if not storage.exists(place)]
        if len(missing) == 2 and folder.startswith(f"{a.root}/") and other.startswith(f"{b.root}/"):
            continue  # intermediate output of a step: both runs removed it when it was no longer needed
        if missing:
            found.unknown.append(f"the rows of {stage}: {missing[0]} no longer exists")
            continue
        rows = max(run.summary.rows_written if run.summary else 0 for run in (a, b))
        try:
            side = compare_rows(folder, other, rows=rows, id_column=id_column, examples=examples)
        except CuratorError as error:
            found.unknown.append(f"the rows of {stage}: {error}")
            continue
        # Rows that only a has were dropped by b, and the other way round.
        sides[stage] = (
            side,
            {
                name: fates_of(side.keys[name], side.by, side.named, run.dropped, run.seen)
                for name, run in (("a", b), ("b", a))
                if name in side.keys and len(side.keys[name])
            },
        )
        for row in side.examples:
            fate = sides[stage][1][row["side"]].of.get(row["key"]) if row["side"] in sides[stage][1] else None
            if fate is not None:
                row["dropped"] = {"stage": fate[0], "reason": fate[1]}
    found.unknown += [f"only b has an output of {stage}" for stage in b.outputs if stage not in a.outputs]
    return sides


def _content(
    run_a: str,
    run_b: str,
    parts: Sequence[tuple[Comparison, dict[str, Compared]]],
    lines: Sequence[str],
    differs: bool,
) -> dict[str, Any]:
    from curator_core.data.values import json_value

    rows, stages, steps = [], [], []
    for found, sides in parts:
        content = found.as_dict()
        stages += [{"step": found.step, **stage} for stage in content.pop("stages")]
        for stage, (side, _) in sides.items():
            rows += [{"step": found.step, "output": stage, **json_value(row)} for row in side.examples]
        steps.append({**content, "outputs": {stage: _outputs_json(*side) for stage, side in sides.items()}})
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


def _outputs_json(side: Sides, fates: Mapping[str, Fates]) -> dict[str, Any]:
    return {**side.as_dict(), "became": {f"only_{name}": fate.as_dict() for name, fate in fates.items()}}


# What it prints -------------------------------------------------------------------------------------------------------


def _echo(found: Comparison, sides: dict[str, Compared]) -> None:
    if found.step:
        click.secho(f"\nstep {formatting.printable(found.step)}", bold=True)
    if found.configuration:
        click.echo("\nconfiguration, from a to b")
        for line in found.configuration:
            click.echo(f"  {formatting.printable(line)}")
    _echo_stages(found)
    _echo_values("source", found.differing_sources, found.sources)
    for column, values in found.by.items():
        _echo_values("folder" if column == "collection" else f"value of {column}", len(values), values)
    _echo_scores(found)
    for stage, (side, fates) in sides.items():
        _echo_side(stage, side, fates)
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


def _echo_values(what: str, number: int, values: Sequence[SourceCounts]) -> None:
    from curator_core.cli.summary import aligned

    if not values:
        return
    of = formatting.count(number, what, f"{what}s" if " " not in what else what.replace("value", "values", 1))
    click.echo(f"\n{of} with different counts" + (", those that differ most:" if number > _SHOWN_SOURCES else ":"))
    table: list[Sequence[str]] = [(what.partition(" of ")[2] or what, "rows in", "", "kept", "")]
    for value in values[:_SHOWN_SOURCES]:
        cells = [_pair(value.a, value.b, key) for key in ("rows_in", "rows_out")]
        table.append((formatting.printable(value.source), *cells[0], *cells[1]))
    for line in aligned(table, left=(0, 2, 4)):
        click.echo(f"  {line}")


def _echo_scores(found: Comparison) -> None:
    # If only the number of rows differs, the counts by stage say so.
    scores = [score for score in found.scores if score.share]
    if not scores:
        return
    moved = sorted(scores, key=lambda score: (-score.share, score.stage, score.score))
    click.echo("\nscores with other distributions, and the share of rows in other bins")
    for score in moved[:_SHOWN_SCORES]:
        before = f"{score.rows_a:,} → " if score.rows_a != score.rows_b else ""
        rows = f"{before}{formatting.count(score.rows_b, 'row')}"
        share = formatting.percent(score.share, 1)
        click.echo(f"  {formatting.printable(score.stage)}  {formatting.printable(score.score)}  {share} of {rows}")
    if len(moved) > _SHOWN_SCORES:
        click.echo(f"  and {len(moved) - _SHOWN_SCORES:,} more, see --json")


def _flat(stage: dict[str, Any] | None) -> dict[str, int] | None:
    if stage is None:
        return None
    aside = sum(stage["rejected"].values()) + stage["quarantined"]
    return {**stage, "dropped": sum(stage["dropped"].values()), "aside": aside}


def _pair(a: dict[str, int] | None, b: dict[str, int] | None, key: str) -> tuple[str, str]:
    """``1,000`` if both are equal; ``1,000 → 900`` in two cells if they differ."""
    was = None if a is None else a[key]
    now = None if b is None else b[key]
    if was == now:
        return (f"{was:,}" if was else "", "")
    return ("none" if was is None else f"{was:,}", f"→ {'none' if now is None else f'{now:,}'}")


def _echo_side(stage: str, side: Sides, fates: Mapping[str, Fates]) -> None:
    by = f"by their {side.by!r}" if side.named else f"by their text, {side.by!r}, since they have no ids"
    click.echo(f"\nrows of {formatting.printable(stage)}, compared {formatting.printable(by)}")
    if not side.differs:
        click.echo(f"  all {side.same:,} are the same")
        return
    for label, columns in (("a", side.columns_a), ("b", side.columns_b)):
        if columns:
            click.echo(f"  only {label} has the columns {formatting.printable(', '.join(columns))}")
    parts = ((side.only_a, "only in a"), (side.only_b, "only in b"), (side.changed, "in both, with different values"))
    click.echo(f"  {', '.join(f'{n:,} {text}' for n, text in parts if n)}; {side.same:,} are the same in both")
    if side.twice:
        click.echo(f"  {formatting.count(side.twice, 'row')} with an id that another row also has")
    for label, text in (("a", "only in a"), ("b", "only in b")):
        shown = [row for row in side.examples if row["side"] == label]
        if shown:
            number = side.only_a if label == "a" else side.only_b
            other = "b" if label == "a" else "a"
            if label in fates:
                click.echo(f"  {text}: {_fate(fates[label], other)}")
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


def _fate(fates: Fates, run: str) -> str:
    """In words, what a run did with rows that are missing in its output."""
    listed = sorted(fates.counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(
        f"{formatting.printable(stage)} ({formatting.printable(why)}) {n:,}" for (stage, why), n in listed[:6]
    )
    more = f", and {len(listed) - 6} other reasons" if len(listed) > 6 else ""
    if fates.written:
        rest = fates.rows - fates.known
        return (
            f"dropped in {run} by {shown}{more}" + (f"; {rest:,} of them were never in that run" if rest > 0 else "")
            if shown
            else (f"{run} never had them")
        )
    if not shown:
        return (
            f"what happened to them in {run} is unknown: it has written no dropped rows (`dropped:`), and none is in its "
            "samples"
        )
    return (
        f"{fates.known:,} of them are in the samples of {run}: dropped by {shown}{more}; for the others it is "
        f"unknown, since {run} has written no dropped rows (`dropped:`)"
    )


def _row_line(row: dict[str, Any], by: str) -> str:
    """The id of a row, its place, and its beginning."""
    columns = row["columns"]
    where = f"{row['source']}:{row['position'].removeprefix('line ').removeprefix('row ')}".strip(":")
    texts = [value for name, value in columns.items() if isinstance(value, str) and name != by]
    begins = max(texts, key=len, default="")
    named = "" if isinstance(columns.get(by), str) and len(columns[by]) > 80 else _short(columns.get(by))
    gone = row.get("dropped")
    more = (
        ""
        if gone is None
        else f"  dropped by {formatting.printable(gone['stage'])} ({formatting.printable(gone['reason'])})"
    )
    return f"{named}  {formatting.printable(where)}{more}  {_short(begins)}"


def _short(value: Any) -> str:
    from curator_core.data.values import text_of

    return formatting.cut(formatting.printable(text_of(value)[:200]), 60)
