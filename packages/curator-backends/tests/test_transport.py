"""Tasks as rows of a binary column."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_backends.transport import ITEM, PACK_BYTES, decode, encode, encode_stream, pack, unpack
from curator_core.model.codec import encode_task
from curator_core.model.task import DocumentBatch, FileGroupTask, StagePerfStats, Task


@dataclass(kw_only=True)
class Numbers(Task[list[int]]):
    data: list[int]

    @property
    def num_items(self) -> int:
        return len(self.data)

    def validate(self) -> bool:
        return True


def batch(rows: int, width: int = 10) -> DocumentBatch:
    return DocumentBatch(data=pa.table({"text": ["x" * width] * rows, "id": range(rows)}), task_id=f"t-{rows}")


@given(st.lists(st.integers(0, 40), max_size=8))
def test_tasks_are_unchanged_after_transport_whatever_their_number_and_size(sizes: list[int]) -> None:
    tasks = [batch(rows) for rows in sizes]
    back = decode(encode(tasks))
    assert [task.task_id for task in back] == [task.task_id for task in tasks]
    assert all(a.to_pyarrow().equals(b.to_pyarrow()) for a, b in zip(back, tasks, strict=True))  # type: ignore[attr-defined]


def test_a_task_of_any_kind_is_sent_with_its_account() -> None:
    perf = StagePerfStats("Read", 0.5, 1, 3, 2, {"short": 1})
    files = FileGroupTask(
        data=["a", "b"], ranges=[None, (5, 9)], task_id="s", _source="s", _generation="g", _stage_perf=[perf]
    )
    numbers = Numbers(data=[1, 2], task_id="n", _metadata={"pair": (1, 2)})
    assert decode(encode([files, numbers])) == [files, numbers]
    assert decode(encode([files]))[0]._stage_perf == [perf]


def test_columns_of_a_decoded_task_point_into_the_block() -> None:
    table = encode([batch(50, width=1000), batch(50, width=1000)])
    memory = table.column(ITEM).chunk(0).buffers()[2]
    for task in decode(table):
        values = task.data["text"].chunk(0).buffers()[2]
        assert memory.address <= values.address < memory.address + memory.size


def test_values_in_a_block_are_aligned() -> None:
    table = encode([batch(n) for n in (1, 7, 30)])
    base = table.column(ITEM).chunk(0).buffers()[2].address
    assert all((value.address - base) % 64 == 0 for value in unpack(table))


def test_a_single_task_is_not_copied_into_its_block() -> None:
    buffer = encode_task(batch(10_000))
    assert next(unpack(pack([buffer]))).address == buffer.address


def test_small_tasks_are_sent_together_and_large_ones_alone() -> None:
    small, large = batch(1), batch(2, width=PACK_BYTES)
    rows = [table.num_rows for table in encode_stream([small, small, large, small])]
    assert rows == [2, 1, 1]


def test_a_stream_passes_on_a_large_task_before_the_next_is_made() -> None:
    made = []

    def tasks() -> Any:
        for number in range(3):
            made.append(number)
            yield batch(1, width=PACK_BYTES)

    stream = encode_stream(tasks())
    next(stream)
    assert made == [0]


def test_a_table_is_never_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> bytes:
        raise AssertionError("pickled")

    monkeypatch.setattr(pickle, "dumps", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    assert decode(encode([batch(3)]))[0].num_items == 3


def test_a_frame_arrives_with_the_same_rows() -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "n": [1, 2]})
    back = decode(encode([DocumentBatch(data=frame)]))[0]
    assert isinstance(back, DocumentBatch)
    pd.testing.assert_frame_equal(back.to_pandas(), frame)
