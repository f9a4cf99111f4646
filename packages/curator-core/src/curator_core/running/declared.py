"""What do the stages of a run declare: a description, their settings, and their scores with limits?

The declarations are written beside the counts when a run begins, so that the counts can be read without the code of the
stages. An attempt with a changed pipeline writes a file of its own: binned counts of an earlier attempt are read with
the file of that attempt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from curator_core import storage
from curator_core.model.scores import Score, packed_edges
from curator_core.model.seen_options import SeenOptions
from curator_core.planning.plan import Plan
from curator_core.stages.column_filter import ColumnFilter


def declared_scores(plan: Plan) -> dict[str, list[Score]]:
    """The scores that the filters of a plan declare, by the name of the stage."""
    return {
        planned.name: planned.stage.declared_scores()
        for planned in plan.stages
        if isinstance(planned.stage, ColumnFilter)
    }


def write_declared(
    run_dir: str, plan: Plan, scores: Mapping[str, Sequence[Score]], options: SeenOptions | None, attempt: int
) -> None:
    """Write what the stages of a plan declare; do nothing if the run keeps nothing for views of its data."""
    if options is None:
        return
    stages: list[dict[str, Any]] = []
    for planned in plan.stages:
        stage = planned.stage
        entry: dict[str, Any] = {"name": planned.name, "describe": stage.describe(), "settings": stage.params()}
        if often := list(stage.may_be_empty()):
            entry["may_be_empty"] = often
        if isinstance(stage, ColumnFilter):
            entry["mode"] = stage.mode
            entry["column"] = stage.column
            entry["scores"] = [
                {
                    "name": score.name,
                    "scale": score.scale,
                    "integers": score.integers,
                    "edges": packed_edges(score.edges),
                    "limits": [limit.as_dict() for limit in score.limits],
                }
                for score in scores[planned.name]
            ]
        stages.append(entry)
    content = {"attempt": attempt, "options": options.as_dict(), "stages": stages}
    text = json.dumps(content, ensure_ascii=False, default=repr)
    path = storage.join(run_dir, "declared", f"{attempt:04d}.json")
    storage.write_bytes_atomic(path, text.encode("utf-8", "backslashreplace"))
