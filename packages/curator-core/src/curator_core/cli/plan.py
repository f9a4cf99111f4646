"""``curate plan``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from curator_core.cli import BAD_USAGE, DONE

if TYPE_CHECKING:
    from curator_core.planning.plan import Plan
    from curator_core.running.preview import Preview
    from curator_core.running.workflow_plan import WorkflowPlan


@click.command("plan", short_help="Show what a pipeline file would do, and why.")
@click.argument("file", type=click.Path())
@click.option("--executor", metavar="NAME", help="Plan for this executor instead of the one in the file.")
@click.option("--set", "settings", multiple=True, metavar="STAGE.PARAM=VALUE", help="Another value for a parameter.")
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Try the stages on about this many rows.",
)
@click.option("--no-data", is_flag=True, help="Do not read the input.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan_command(
    file: str, executor: str | None, settings: tuple[str, ...], rows: int, no_data: bool, as_json: bool
) -> int:
    """Check FILE and show what would run: stages, columns, groups, resources, and each decision.

    The input is opened: sources are counted, the first rows are read, and the stages are tried on them up to the first
    that writes, downloads or loads a model. Nothing is written. Exit code 2 means that a run would fail; the last line
    says why.
    """
    from curator_core import storage  # these import pyarrow
    from curator_core.config.pipeline_file import load_pipeline
    from curator_core.running.preview import make_preview

    loaded = load_pipeline(file, settings)
    engine = loaded.make_executor(executor)
    plan: Plan | WorkflowPlan
    if loaded.workflow is not None:
        plan = loaded.workflow.plan(engine, run_dir=storage.absolute(loaded.run_dir or f"runs/{loaded.name}"))
        plans = [inner for _, inner in plan.pipelines()]
    else:
        plan = loaded.pipeline().plan(engine)
        plans = [plan]
    # The first pipeline of a workflow makes the input of the later ones.
    preview = None if no_data else make_preview(plans[0], rows)
    code = BAD_USAGE if preview is not None and preview.problem else DONE
    if as_json:
        click.echo(json.dumps(_values(plan, preview), indent=1))
        return code
    click.echo(plan.describe())
    if preview is not None:
        if loaded.workflow is not None:
            click.echo("")
        click.echo(preview.describe())
    return code


def _values(plan: Plan | WorkflowPlan, preview: Preview | None) -> dict[str, Any]:
    from curator_core.planning.plan import Plan  # imports pyarrow

    if isinstance(plan, Plan):
        return _entry(plan, preview)
    steps = []
    for number, step in enumerate(plan.steps):
        more = {"takes": [list(item) for item in step.takes], "frees": list(step.frees), "counts": step.counts}
        # The first step makes the input of the later ones.
        steps.append({**_values(step.plan, None if number else preview), "name": step.name, **more})
    later = {"later": plan.later} if plan.later else {}
    return {"name": plan.name, "workflow": plan.call, "fingerprint": plan.fingerprint(), "steps": steps, **later}


def _entry(plan: Plan, preview: Preview | None) -> dict[str, Any]:
    return {
        "name": plan.name,
        "fingerprint": plan.fingerprint(),
        "stages": plan.steps(),
        "columns": plan.columns,
        "decisions": plan.decisions,
        "warnings": plan.warnings,
        **({} if preview is None else {"preview": preview.as_dict()}),
    }
