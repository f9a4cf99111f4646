"""``curate plan``."""

from __future__ import annotations

import json
from typing import Any

import click


@click.command("plan", short_help="Show what a pipeline file would do, and why so.")
@click.argument("file", type=click.Path())
@click.option("--executor", metavar="NAME", help="Plan for another executor than the file's.")
@click.option("--set", "settings", multiple=True, metavar="STAGE.PARAM=VALUE", help="Another value for a parameter.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan_command(file: str, executor: str | None, settings: tuple[str, ...], as_json: bool) -> None:
    """Check FILE and show what would run: stages, columns, groups, resources, and each decision. Nothing is run."""
    from curator_core import storage  # these import pyarrow
    from curator_core.config.pipeline_file import load_pipeline
    from curator_core.pipeline import Pipeline

    loaded = load_pipeline(file, settings)
    engine = loaded.make_executor(executor)
    pipelines = [Pipeline(loaded.stages, name=loaded.name)]
    if loaded.workflow is not None:
        run_dir = storage.absolute(loaded.run_dir or f"runs/{loaded.name}")
        pipelines = list(loaded.workflow.pipelines(storage.join(run_dir, "work")))
    plans = [pipeline.plan(engine) for pipeline in pipelines]
    if as_json:
        told: list[dict[str, Any]] = [
            {
                "name": plan.name,
                "fingerprint": plan.fingerprint(),
                "stages": plan.steps(),
                "columns": plan.columns,
                "decisions": plan.decisions,
                "warnings": plan.warnings,
            }
            for plan in plans
        ]
        click.echo(json.dumps(told[0] if loaded.workflow is None else told, indent=1))
        return
    click.echo("\n\n".join(plan.describe() for plan in plans))
