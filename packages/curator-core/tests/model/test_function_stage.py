"""Stages made from functions: their parameters, and what they record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from curator_core import DocumentBatch, LocalExecutor, Pipeline, ProcessingStage, UsageError, stage


def batch(*texts: str) -> DocumentBatch:
    return DocumentBatch(data=pa.table({"text": list(texts)}))


@stage(inputs=["text"])
def LongTexts(  # noqa: N802 - named as a stage
    task: DocumentBatch, stage: ProcessingStage[Any, Any], chars: int = 3
) -> DocumentBatch:
    long = pc.greater_equal(pc.utf8_length(task.to_pyarrow()["text"]), chars)
    kept = task.filter(long)
    stage.record_dropped("too short", task.num_rows - kept.num_rows)
    return kept


@stage(inputs=["text"])
def Halves(task: DocumentBatch, stage) -> Iterator[DocumentBatch]:  # type: ignore[no-untyped-def]  # noqa: N802
    for place in range(task.num_rows):
        row = task.with_data(task.to_pyarrow().slice(place, 1))
        if row.to_pyarrow()["text"][0].as_py() == "bad":
            stage.record_rejected("bad text", position=place)
        else:
            yield row


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_function_records_what_it_drops(workers: int) -> None:
    result = Pipeline([LongTexts(chars=4)]).run(
        LocalExecutor(workers=workers), initial_tasks=[batch("one", "three", "x")]
    )
    assert result[0].to_pyarrow()["text"].to_pylist() == ["three"]
    assert result.summary.stages[0].dropped == {"too short": 2}


def test_a_generator_function_records_what_it_rejects() -> None:
    result = Pipeline([Halves()]).run(LocalExecutor(workers=0), initial_tasks=[batch("one", "bad", "two")])
    assert [task.to_pyarrow()["text"].to_pylist() for task in result] == [["one"], ["two"]]
    assert result.summary.stages[0].rejected == {"bad text": 1}


def test_the_argument_for_the_stage_is_not_a_parameter() -> None:
    assert LongTexts().params() == {"chars": 3}  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="LongTexts has no parameter 'stage'"):
        LongTexts(stage=1)  # type: ignore[call-arg]
