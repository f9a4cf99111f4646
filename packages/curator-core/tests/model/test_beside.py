"""Columns beside the table stay in place for stages that can use them there, and are ordinary columns for all
others."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from curator_core import ColumnFilter, DocumentBatch, LocalExecutor, Pipeline, ProcessingStage
from curator_core.model.codec import decode_task, encode_task

LANDED: list[int] = []


class Numbers:
    """Values that stand for data on a device; it counts how often they are copied into a table."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self.values = values

    def filter(self, mask: pa.BooleanArray) -> Numbers:
        return Numbers(self.values[mask.to_numpy(zero_copy_only=False)])

    def landed(self) -> tuple[pa.Field, pa.Array]:
        LANDED.append(len(self.values))
        return pa.field("", pa.int64(), metadata={b"made": b"here"}), pa.array(self.values)


@dataclass
class Make(ProcessingStage[DocumentBatch, DocumentBatch]):
    give: bool = False

    def outputs(self) -> list[str]:
        return ["y"]

    def gives_beside(self, columns: Any) -> Make:
        return self.with_(give=True)

    def process(self, task: DocumentBatch) -> DocumentBatch:
        values = task.to_pyarrow()["x"].to_numpy() * 10
        return task.with_beside("y", Numbers(values)) if self.give else task.append_column("y", values)


@dataclass
class Keep(ColumnFilter):
    column: str = "x"
    most: int = 3

    def score_array(self, values: pa.Array) -> pa.Array:
        return values.cast(pa.float64())

    def keep_array(self, scores: pa.Array) -> Any:
        return pc.less_equal(scores, self.most)


@dataclass
class Take(ProcessingStage[DocumentBatch, DocumentBatch]):
    def inputs(self) -> list[str]:
        return ["y"]

    def outputs(self) -> list[str]:
        return ["z"]

    def takes_beside(self) -> Sequence[str]:
        return ["y"]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        column = task.beside("y")
        values = task.to_pyarrow()["y"].to_numpy() if column is None else column.values  # type: ignore[attr-defined]
        return task.append_column("z", values + 1)


class Look(ProcessingStage[DocumentBatch, DocumentBatch]):
    """A stage that knows nothing of columns beside the table."""

    def inputs(self) -> list[str]:
        return ["y"]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        assert task._beside == {}
        table = task.to_pyarrow()
        assert table.schema.field("y").metadata == {b"made": b"here"}
        return task.with_data(table.filter(pc.field("y") >= 0))


def batch() -> DocumentBatch:
    return DocumentBatch(data=pa.table({"x": [1, 2, 3, 4, 5]}))


def run(*stages: Any) -> tuple[list[dict[str, Any]], list[int]]:
    LANDED.clear()
    result = Pipeline(list(stages)).run(LocalExecutor(workers=0), initial_tasks=[batch()])
    return [row for task in result for row in task.to_pyarrow().to_pylist()], list(LANDED)


def test_a_column_stays_beside_the_table_until_a_stage_takes_it() -> None:
    expected = [{"x": x, "y": 10 * x, "z": 10 * x + 1} for x in (1, 2, 3)]
    rows, landed = run(Make(), Keep(), Take())
    assert (rows, landed) == (expected, [3])  # once, at the end, without the rows that the filter has dropped
    assert run(Make(), Keep(), Take(), Look()) == (expected, [3])
    # Where a stage that takes nothing beside the table comes first there is nothing to gain.
    plan = Pipeline([Make(), Keep(), Take()]).plan(initial_tasks=[batch()])
    assert "column y of Make stays where it is made, beside the table, until Take takes it" in plan.decisions
    assert not any("beside" in text for text in Pipeline([Make(), Keep()]).plan(initial_tasks=[batch()]).decisions)


def test_for_other_stages_the_column_is_in_the_table() -> None:
    rows, landed = run(Make(give=True), Look())
    assert [row["y"] for row in rows] == [10, 20, 30, 40, 50]
    assert landed == [5]


def test_the_column_follows_its_rows_and_is_dropped_with_new_data() -> None:
    task = batch().with_beside("y", Numbers(np.arange(5)))
    assert task.column_names == ["x", "y"]
    kept = task.filter(pa.array([True, False, True, False, True])).append_column("z", ["a", "b", "c"])
    assert kept.landed().to_pyarrow().to_pydict() == {"x": [1, 3, 5], "z": ["a", "b", "c"], "y": [0, 2, 4]}
    assert task.with_data(task.to_pyarrow()).column_names == ["x"]
    assert task.drop_columns(["y"]).column_names == ["x"]
    assert task.append_column("y", [0, 0, 0, 0, 0]).beside("y") is None
    assert batch().append_column("y", [1] * 5).with_beside("y", Numbers(np.arange(5))).data.column_names == ["x"]
    assert task.landed(stay=["y"]) is task


def test_checking_for_frames_works_while_another_thread_imports_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", types.ModuleType("pandas"))
    assert batch().with_beside("y", Numbers(np.arange(5))).column_names == ["x", "y"]


def test_a_task_that_leaves_the_process_has_the_column_in_the_table() -> None:
    task = batch().with_beside("y", Numbers(np.arange(5)))
    for there in (decode_task(encode_task(task)), pickle.loads(pickle.dumps(task))):
        assert isinstance(there, DocumentBatch)
        assert there._beside == {}
        assert there.to_pyarrow()["y"].to_pylist() == [0, 1, 2, 3, 4]
