"""What does a filter say about one row: its scores, whether it would keep the row, and which parts are at fault?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curator_core.config.build import build_stage
from curator_core.errors import CuratorError, UsageError, nearest
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.stage import needed_columns
from curator_core.model.task import DocumentBatch
from curator_core.stages.column_filter import ColumnFilter


@dataclass
class Judgement:
    """The verdict of a filter on a row. If the filter can tell, ``spans`` mark the parts of ``column`` that it would
    drop the row for.
    """

    stage: str
    says: str
    keeps: bool
    reason: str
    scores: dict[str, float | None]
    column: str
    spans: list[tuple[int, int]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def judge(name: str, params: Mapping[str, Any], row: DocumentBatch) -> Judgement:
    """The verdict of the filter with this name and these parameters on a batch of one row."""
    stage = build_stage(name, params)
    if not isinstance(stage, ColumnFilter):
        raise UsageError(
            f"{name} is not a filter of a column, so it cannot judge a single row; `curate stages` lists filters"
        )
    there = row.column_names
    missing = [column for column in needed_columns(stage, type(row)) if column not in there]
    if missing:
        hint = f" Name the column to read: --set {name}.column=NAME" if stage.column in missing else ""
        raise UsageError(
            f"{name} reads the column {missing[0]!r}, which the row lacks{nearest(missing[0], there) or '.'} "
            f"It has {', '.join(there)}.{hint}"
        )
    stage.setup(WorkerMetadata())
    try:
        scores = stage.score_batch(row)
        passed = bool(stage.keep(scores)[0].as_py())
        kept = passed != (stage.mode == "invert")
        reason = ""
        if not kept:
            reason = _reason(stage, scores)
        parts = {part: values[0].as_py() for part, values in stage.score_parts(scores).items()}
        text = row.to_pyarrow().column(stage.column)[0].as_py()
        spans = sorted(stage.at_fault(text, reason)) if not kept and isinstance(text, str) else []
    except CuratorError:
        raise
    except Exception as error:
        raise UsageError(f"{name} failed on this row: {type(error).__name__}: {error}") from error
    finally:
        stage.teardown()
    return Judgement(name, stage.describe(), kept, reason, parts, stage.column, spans)


def _reason(stage: ColumnFilter, scores: Any) -> str:
    if stage.mode == "invert":
        return f"not {stage.short_name()}"
    found = stage.reasons(scores)
    if isinstance(found, str):
        return found
    if isinstance(found, pa.ChunkedArray | pa.Array) and pa.types.is_dictionary(found.type):
        found = pc.cast(found, pa.string())
    return str(found[0].as_py() or stage.short_name())
