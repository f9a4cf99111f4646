"""The check of stages under threads, batches and processors notices a stage that depends on them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curator_core import ColumnFilter, DocumentBatch, ProcessingStage
from curator_core.arrow.arrays import array
from curator_core.testing.reproducible import (
    PROCESSORS,
    THREADS,
    Case,
    compare,
    differences,
    largest_difference,
    run_cases,
)

TASK = DocumentBatch(data=pa.table({"n": pa.array(np.arange(20) / 7)}))


@dataclass
class Square(ColumnFilter):
    column: str = "n"

    def score_one(self, value: float) -> float:
        return value * value

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return pa.compute.less(scores, 1.0)


@dataclass
class Hasty(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Writes a value that depends on something that output must not depend on."""

    on: str = "batch"

    def process(self, task: DocumentBatch) -> DocumentBatch:
        threads = os.environ["OMP_NUM_THREADS"] if self.on == "threads" else "1"
        off = 1e-9 * (task.num_rows if self.on == "batch" else int(threads))
        values = task.to_pyarrow()["n"].to_numpy() + off
        return task.append_column("m", array(values))


@pytest.mark.slow
def test_a_stage_that_depends_on_nothing_passes(tmp_path: Path) -> None:
    cases = [Case("square", [Square(mode="annotate")], TASK), Case("kept", [Square(), Square(mode="annotate")], TASK)]
    assert differences(cases, tmp_path, {"plain": {}, **PROCESSORS}) == []


@pytest.mark.slow
def test_a_stage_that_depends_on_threads_or_on_its_batch_is_reported_with_column_and_size(tmp_path: Path) -> None:
    cases = [Case(on, [Hasty(on)], TASK) for on in ("batch", "threads")]
    tables = run_cases(cases, tmp_path, THREADS)
    found = compare(tables)
    assert (
        "batch: 1 threads, 1 at a time against 1 threads, 7 at a time: column 'm' differs in 20 of 20 rows" in found[0]
    )
    assert "by 6e-09 at most" in found[0]
    # Two sizes of batches in each of three environments, and two environments against the first.
    assert [line.split(":")[0] for line in found] == ["batch"] * 6 + ["threads"] * 2
    assert "threads: 1 threads, 1 at a time against 4 threads, 1 at a time" in found[-1]
    allowed = compare(tables, {"2 threads": 1e-8, "4 threads": 1e-8})
    assert [line.split(":")[0] for line in allowed] == ["batch"] * 6, "batches are held to the byte"
    one, seven = tables["batch"]["1 threads", 1], tables["batch"]["1 threads", 7]
    assert largest_difference(one, seven) == pytest.approx(6e-9)
    assert largest_difference(one, one) == 0


@pytest.mark.slow
def test_a_check_without_rows_or_with_a_failing_stage_is_no_success(tmp_path: Path) -> None:
    nothing = Case("nothing", [Square()], TASK.filter(pa.array([False] * 20)), batches=(None,))
    assert differences([nothing], tmp_path / "a", {"plain": {}}) == [
        "nothing: no rows came out, so nothing was compared"
    ]
    with pytest.raises(AssertionError, match="failed under plain"):
        run_cases([Case("fails", [Hasty("threads")], TASK)], tmp_path / "b", {"plain": {}})
