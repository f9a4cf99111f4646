"""Tasks: Arrow and pandas both ways without copies, files and their parts, values that are left unchanged."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from curator_core import DocumentBatch, EmptyTask, FileGroupTask, StagePerfStats, UsageError


class Mirror:
    """What a stage derived from a column: here, the column itself."""

    def __init__(self, values: pa.Array) -> None:
        self.values = values

    def filter(self, mask: pa.BooleanArray) -> Mirror | None:
        return Mirror(self.values.filter(mask))


def batch(**columns: object) -> DocumentBatch:
    return DocumentBatch(data=pa.table(columns), task_id="s-1")


@dataclass(kw_only=True, slots=True)
class Numbered(DocumentBatch):
    """A task with an attribute outside of its dictionary."""

    number: int = 0


def test_a_copy_has_all_attributes_even_those_in_slots() -> None:
    task = Numbered(data=pa.table({"x": [1]}), number=7)
    assert [twin.number for twin in (copy.copy(task), task.with_data(task.data))] == [7, 7]


def test_an_arrow_table_is_returned_as_it_is() -> None:
    task = batch(x=[1, 2])
    assert task.to_pyarrow() is task.data


def test_pandas_sees_the_memory_of_arrow() -> None:
    task = batch(x=np.arange(1000), y=np.arange(1000, dtype="float32"))
    frame = task.to_pandas()
    for name in ("x", "y"):
        address = task.data[name].chunk(0).buffers()[1].address
        assert frame[name].to_numpy().__array_interface__["data"][0] == address


def test_arrow_sees_the_memory_of_pandas() -> None:
    pd = pytest.importorskip("pandas")
    values = np.arange(1000)
    task = DocumentBatch(data=pd.DataFrame({"x": values}, copy=False))
    column = task.to_pyarrow()["x"].chunk(0)
    assert column.buffers()[1].address == task.data["x"].to_numpy().__array_interface__["data"][0]
    assert task.to_pandas() is task.data


def test_a_table_converted_there_and_back_is_the_same() -> None:
    table = pa.table(
        {"text": ["a", "ü", None], "n": [1, 2, 3], "f": [0.5, float("nan"), 1.0], "b": [True, False, True]}
    )
    back = DocumentBatch(data=DocumentBatch(data=table).to_pandas()).to_pyarrow()
    assert back["text"].to_pylist() == ["a", "ü", None]
    assert back["n"].equals(table["n"])
    assert back["b"].equals(table["b"])


def test_a_record_batch_becomes_a_table_without_a_copy() -> None:
    record = pa.record_batch({"x": pa.array([1, 2, 3])})
    task = DocumentBatch(data=record)
    assert isinstance(task.data, pa.Table)
    assert task.data["x"].chunk(0).buffers()[1].address == record["x"].buffers()[1].address


def test_data_that_are_no_table_are_refused_with_advice() -> None:
    with pytest.raises(UsageError, match="from_pylist"):
        DocumentBatch(data=[{"text": "a"}])  # type: ignore[arg-type]


def test_methods_that_return_a_task_do_not_change_the_input() -> None:
    task = batch(x=[1, 2, 3])
    task._metadata["language"] = "de"
    kept = task.filter(pa.array([True, False, True]))
    more = task.append_column("y", pa.array([4, 5, 6]))
    other = task.with_data(pa.table({"z": [1]}))
    other._metadata["language"] = "fr"
    assert task.to_pyarrow().to_pydict() == {"x": [1, 2, 3]}
    assert task._metadata == {"language": "de"}
    assert (kept.num_items, more.column_names, other.column_names) == (2, ["x", "y"], ["z"])
    assert kept.task_id == more.task_id == other.task_id == "s-1"


def test_a_column_of_the_same_name_is_replaced_in_place() -> None:
    task = batch(x=[1], y=[2]).append_column("x", pa.array([9]))
    assert task.to_pyarrow().to_pydict() == {"x": [9], "y": [2]}


def test_derived_values_follow_a_filter_and_are_dropped_with_their_data() -> None:
    task = batch(text=["a", "b", "c"])
    task._derived["mirror"] = Mirror(task.data["text"].chunk(0))
    mask = pc.not_equal(task.data["text"], "b")
    followed = task.filter(mask)._derived["mirror"]
    assert isinstance(followed, Mirror)
    assert followed.values.to_pylist() == ["a", "c"]
    assert "mirror" in task.append_column("n", pa.array([1, 2, 3]))._derived
    assert not task.append_column("text", pa.array(["x", "y", "z"]))._derived
    assert not task.with_data(task.data)._derived
    assert not pickle.loads(pickle.dumps(task))._derived


def test_a_table_with_a_column_twice_is_not_valid() -> None:
    assert batch(x=[1]).validate()
    assert not DocumentBatch(data=pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])).validate()


def test_files_have_their_ranges() -> None:
    task = FileGroupTask(data=["a", "b"], ranges=[None, (0, 10)])
    assert task.parts == [("a", None), ("b", (0, 10))]
    assert task.num_items == 2
    assert FileGroupTask(data=["a"]).parts == [("a", None)]
    assert not FileGroupTask(data=["a"], ranges=[None, None]).validate()
    assert not FileGroupTask(data=[""]).validate()
    assert EmptyTask().validate()


def test_statistics_add_up_their_reasons() -> None:
    perf = StagePerfStats("s", rows_in=10, dropped={"a": 2, "b": 1}, rejected={"c": 3})
    assert (perf.num_items_processed, perf.rows_dropped, perf.rows_rejected) == (10, 3, 3)
