"""``curate drops``: the rows that a run has dropped, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from curator_core.cli.runs import printable, runs_in
from curator_core.errors import UsageError, nearest
from curator_core.formatting import count

if TYPE_CHECKING:
    from curator_core.accounts.drops import Drops

_SHOWN = 300  # the number of characters shown of a text


@click.command("drops", short_help="Show rows that a run has dropped, and why.")
@click.argument("run_dir", type=click.Path())
@click.option("--stage", help="Only rows that this stage dropped.")
@click.option("--reason", help="Only rows with this reason.")
@click.option(
    "--near",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="The number of rows for each stage and reason, those nearest to the limit first.",
)
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON, with all of the stored text.")
def drops_command(run_dir: str, stage: str | None, reason: str | None, near: int, as_json: bool) -> None:
    """Show rows that the stages of the run in RUN_DIR have dropped, with the parts at fault between >> and <<.

    They are samples that the run keeps for each stage and reason, near the limits and elsewhere. If the run wrote its
    dropped rows (--dropped), the output names the folder that has all of them.
    """
    from curator_core.accounts.drops import drops_of, written_drops  # these import pyarrow
    from curator_core.accounts.seen import read_seen
    from curator_core.data.fates import dropped_tables
    from curator_core.data.values import json_value
    from curator_core.running.directory import RunDirectory
    from curator_core.worker.dropped_rows import output_name

    found: list[tuple[str, Drops, str]] = []
    stages: dict[str, None] = {}
    reasons: dict[str, None] = {}
    for step, place in runs_in(run_dir).items():
        outputs = (RunDirectory(place).read_json("run.json") or {}).get("outputs") or {}
        for drops in drops_of(place, near=near):
            stages[drops.stage] = None
            if stage in (None, drops.stage):
                reasons[drops.reason] = None
            folder = (outputs.get(output_name(drops.stage)) or {}).get("folder", "")
            if stage in (None, drops.stage) and reason in (None, drops.reason):
                if folder and near > len(drops.rows) and len(drops.rows) < drops.of:
                    entry = read_seen(place).stages[drops.stage]
                    drops.rows += _beyond(
                        list(written_drops(dropped_tables(folder), entry, drops.reason, near)), drops, near
                    )
                found.append((step, drops, folder))
    if stage is not None and not found and stage not in stages and stages:
        raise UsageError(
            f"no rows were dropped by {stage!r}{nearest(stage, stages)}; stages that dropped some: {', '.join(stages)}"
        )
    if reason is not None and not found and reasons:
        by = f" by {stage!r}" if stage is not None else ""
        raise UsageError(
            f"no rows were dropped{by} for {reason!r}{nearest(reason, reasons)}; reasons in this run: {', '.join(reasons)}"
        )
    if as_json:
        click.echo(json.dumps(json_value(_values(found)), ensure_ascii=False, indent=1))
        return
    if not found:
        click.echo("no dropped rows were kept for viewing")
    for step, drops, folder in found:
        for line in _lines(step, drops, folder):
            click.echo(line)


def _beyond(rows: Sequence[dict[str, Any]], drops: Drops, near: int) -> list[Any]:
    """Rows from the files of dropped rows that are not among the samples, in the form of samples."""
    from curator_core.accounts.seen import Sample

    known = {(sample.id, (sample.text or "")[:200]) for sample in drops.rows}
    made: list[Any] = []
    for row in rows:
        identity = row.get("id", row.get("key"))
        text = next(
            (row[name] for name in ("text", "caption", "content", "url") if isinstance(row.get(name), str)), None
        )
        name = None if identity is None else str(identity)
        if (name, (text or "")[:200]) in known or len(drops.rows) + len(made) >= near:
            continue
        score = row["dropped_score"]
        scores = score if isinstance(score, dict) else {} if score is None else {"score": score}
        value = score if isinstance(score, float) else None
        made.append(Sample(
            side="dropped", reason=drops.reason, near=False, limit="", score_name="", score=value, scores=scores, id=name,
            source="", position="", task="", row=0, text=text, cut=0, length=len(text or ""), spans=[], columns={},
        ))  # fmt: skip
    return made


def _values(found: Sequence[tuple[str, Drops, str]]) -> dict[str, Any]:
    from curator_core.accounts.seen import data_uri

    rows: list[dict[str, Any]] = []
    stages: dict[tuple[str, str], dict[str, Any]] = {}
    for step, drops, folder in found:
        entry = stages.setdefault(
            (step, drops.stage),
            {"name": drops.stage, "says": drops.describe, "dropped": {}, "written_to": folder or None},
        )
        if step:
            entry["step"] = step
        entry["dropped"][drops.reason] = drops.of
        for sample in drops.rows:
            row = {"stage": drops.stage, **asdict(sample), "marked": sample.marked, "picture": data_uri(sample.picture)}
            rows.append({"step": step, **row} if step else row)
    return {"stages": list(stages.values()), "rows": rows}


def _lines(step: str, drops: Drops, folder: str) -> list[str]:
    of = f" of step {step!r}" if step else ""
    shown = f"{len(drops.rows):,} of {count(drops.of, 'row')}" if drops.rows else count(drops.of, "row")
    where = (
        f"; all are in {folder}" if folder else "; these are samples, --dropped DIR of `curate run` writes all of them"
    )
    lines = [printable(f"{drops.stage}{of}, {drops.reason}: {shown}{where if drops.rows else ''}")]
    if drops.describe:
        lines.append(printable(f"    {drops.describe}"))
    for sample in drops.rows:
        place = sample.source + (f":{sample.position}" if sample.position else "")
        scores = "" if sample.score is None else f"{sample.score:.6g}"
        parts = [scores, place or sample.task, f"id {sample.id}" if sample.id is not None else ""]
        lines.append("    " + "  ".join(printable(part) for part in parts if part))
        if sample.text:
            lines.append(f"        {_marked(sample.text, sample.spans)}")
    return lines


def _marked(text: str, spans: Sequence[Sequence[int]]) -> str:
    """The text around the parts at fault, which are between marks, in one line that is safe for a terminal."""
    start = max(0, spans[0][0] - _SHOWN // 3) if spans else 0
    stop = start + _SHOWN
    out, at = ["…" if start else ""], start
    for begin, end in spans:
        if begin >= stop:
            break
        if begin < at:
            continue
        out += [printable(text[at:begin]), ">>", printable(text[begin : min(end, stop)]), "<<"]
        at = min(end, stop)
    out += [printable(text[at:stop]), "…" if stop < len(text) else ""]
    return "".join(out)
