"""How does a run write dropped rows, if the user asks for it?

Each stage has a folder, and each task a file, named by its lineage, in the format of the pipeline's writer or as
Parquet. The files are written whole or not at all, and are outputs like those of a writer: a run accounts for them,
resumes them, and removes the leftovers of interrupted attempts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curator_core import storage
from curator_core.arrow.arrays import array, null
from curator_core.errors import check_free
from curator_core.model.recorder import Judged, Recorder, Scored
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch, FileRecord, Task
from curator_core.planning.plan import PlannedStage
from curator_core.stages.column_filter import ColumnFilter

# The columns of the files in addition to those of the rows.
STAGE, REASON, SCORE = "dropped_by", "dropped_for", "dropped_score"


def write_dropped(
    planned: PlannedStage,
    folder: str,
    task: Task[Any],
    recorder: Recorder,
    writer: ProcessingStage[Any, Any] | None = None,
    *,
    whole: str = "",
) -> FileRecord | None:
    """Write the rows of a task that a stage has dropped; with ``whole``, all rows, with this reason.

    ``writer`` is the stage whose format is used, if it can write the table.
    """
    if not isinstance(task, DocumentBatch):
        return None
    judged = recorder.judged
    if judged is not None:
        if getattr(planned.stage, "mode", "") == "annotate":
            return None
        table = _of_judged(planned, judged)
    else:
        which = {whole: [np.arange(task.num_rows)]} if whole else recorder.which
        table = _of_places((task if recorder.of is None else recorder.of).to_pyarrow(), which, recorder.scored)
    if not table.num_rows:
        return None
    # Tensors are made for a later stage from other columns, such as the pixels of an image from its bytes, and are larger.
    table = table.drop_columns([each.name for each in table.schema if isinstance(each.type, pa.FixedShapeTensorType)])
    stage = pa.DictionaryArray.from_arrays(
        array(np.zeros(table.num_rows, np.int32)), array([planned.name], pa.string())
    )
    table = table.append_column(STAGE, stage.cast(pa.string()))
    path = storage.join(folder, task.task_id)
    written = None if writer is None else writer.write_rows(path, table)
    return written or _write(f"{path}.parquet", table)


def _of_judged(planned: PlannedStage, judged: Judged) -> pa.Table:
    lost = pc.invert(judged.kept)
    table = judged.batch.to_pyarrow()
    _check(planned.name, table)
    table = table.filter(lost)
    reasons = judged.reasons
    words = array([reasons] * table.num_rows, pa.string()) if isinstance(reasons, str) else reasons.cast(pa.string())
    assert isinstance(planned.stage, ColumnFilter)
    parts = planned.stage.score_parts(judged.scores)
    # Several scores are in a struct.
    if len(parts) == 1:
        scores: pa.Array = next(iter(parts.values())).filter(lost).cast(pa.float64())
    elif parts:
        scores = pa.StructArray.from_arrays(
            [part.filter(lost).cast(pa.float64()) for part in parts.values()], list(parts)
        )
    else:
        scores = pa.nulls(table.num_rows, pa.float64())
    return table.append_column(REASON, words).append_column(SCORE, scores)


def _of_places(table: pa.Table, which: Mapping[str, Sequence[Any]], scored: Scored | None = None) -> pa.Table:
    _check("", table)
    rows, words = [np.zeros(0, np.int64)], []
    for reason, pieces in which.items():
        found = np.concatenate([np.atleast_1d(np.asarray(piece, np.int64)) for piece in pieces])
        rows.append(found)
        words += [reason] * len(found)
    places = np.concatenate(rows)
    order = np.argsort(places, kind="stable")
    table = table.take(array(places[order]))
    table = table.append_column(REASON, array([words[at] for at in order.tolist()], pa.string()))
    if scored is None:
        return table.append_column(SCORE, pa.nulls(table.num_rows, pa.float64()))
    values = np.asarray(scored.values, float)[places[order]]
    return table.append_column(SCORE, pc.if_else(array(np.isnan(values)), null(pa.float64()), array(values)))


def _check(stage: str, table: pa.Table) -> None:
    check_free(f"the file of dropped rows of {stage}", table.column_names, (STAGE, REASON, SCORE))


def _write(path: str, table: pa.Table) -> FileRecord:
    import pyarrow.parquet as pq  # deferred: it costs 30 ms

    with storage.write_atomic(path) as out, pq.ParquetWriter(out, table.schema, compression="zstd") as writer:
        writer.write_table(table)
    return out.record(rows=table.num_rows)


def dropped_folder(planned: PlannedStage, root: str | None) -> str | None:
    """The folder for the rows that a stage drops: its own, or one below that of the run."""
    if planned.stage.dropped:
        return planned.stage.dropped
    return storage.join(root, planned.name.replace("#", "-")) if root else None


def output_name(stage: str) -> str:
    """The name of these files in the ledger, where they are outputs beside those of the stage itself."""
    return f"{stage}: dropped rows"
