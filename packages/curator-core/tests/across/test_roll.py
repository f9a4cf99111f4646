"""The numbers of documents: by batch and row, found again by the id of a task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_core import DocumentBatch, FileRecord, RunRefused
from curator_core.across.roll import Roll, batches_of, first_number, rows_of

SIZES = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=5), max_size=5)


def roll_of(sizes: list[list[int]]) -> Roll:
    return Roll.of(
        [
            FileRecord(f"work/keys/s{source}-ab.{child:05}.arrow", rows)
            for source, children in enumerate(sizes)
            for child, rows in enumerate(children)
        ]
    )


@pytest.mark.slow
@given(sizes=SIZES)
def test_a_number_gives_the_place_of_the_document_also_from_a_stored_roll(tmp_path_factory, sizes):
    path = str(tmp_path_factory.mktemp("roll") / "roll.arrow")
    made = roll_of(sizes)
    record = made.write(path)
    roll = Roll.read(path)
    assert record.rows == len(roll) == sum(map(len, sizes))
    expected = []
    numbers = []
    batch = 0
    for source, children in enumerate(sizes):
        row = 0
        for child, rows in enumerate(children):
            task = DocumentBatch(data=pa.table({"x": range(rows)}), task_id=f"s{source}-ab.{child:05}")
            assert roll.number_of(task.task_id) == batch
            found = roll.numbers_of(task)
            assert found.tolist() == [batch << 32 | n for n in range(rows)]
            assert (batches_of(found) == batch).all()
            assert rows_of(found).tolist() == list(range(rows))
            assert first_number(batch) == batch << 32
            numbers += found.tolist()
            expected += [(f"s{source}-ab", row + n) for n in range(rows)]
            row += rows
            batch += 1
    sources, rows_there = roll.places(np.array(numbers, np.uint64))
    assert list(zip(sources.to_pylist(), rows_there.tolist(), strict=True)) == expected
    assert roll.documents == len(expected)


@given(sizes=SIZES, parts=st.integers(1, 40))
def test_ranges_cover_every_batch_once_and_hold_about_equally_many_documents(sizes, parts):
    roll = roll_of(sizes)
    ranges = roll.ranges(parts)
    assert [batch for first, stop in ranges for batch in range(first, stop)] == list(range(len(roll)))
    assert len(ranges) <= parts
    assert all(first < stop for first, stop in ranges)
    weights = np.maximum(roll.rows, 1)
    largest = max((int(weights[first:stop].sum()) for first, stop in ranges), default=0)
    assert largest <= weights.sum() / parts + weights.max(initial=0)


def test_the_numbers_of_the_last_batches_are_correct_beyond_signed_integers():
    numbers = np.array([(1 << 64) - 2, 1 << 63], np.uint64)
    assert batches_of(numbers).tolist() == [(1 << 32) - 1, 1 << 31]
    assert rows_of(numbers).tolist() == [(1 << 32) - 2, 0]


def test_a_batch_with_another_number_of_rows_is_refused_with_both_counts():
    roll = roll_of([[3, 4]])
    task = DocumentBatch(data=pa.table({"x": [1, 2]}), task_id="s0-ab.00001")
    with pytest.raises(RunRefused, match=r"'s0-ab.00001' has 2 rows, and had 4.*input has changed.*fresh=True"):
        roll.numbers_of(task)


def test_a_batch_that_is_not_in_the_roll_is_refused_by_name(tmp_path: Path):
    roll_of([[3, 4]]).write(str(tmp_path / "roll.arrow"))
    roll = Roll.read(str(tmp_path / "roll.arrow"))
    for unknown in ("s0-ab.00002", "", "a", "z"):
        with pytest.raises(RunRefused, match=rf"the batch '{unknown}' was not there.*roll\.arrow"):
            roll.number_of(unknown)


def test_an_invalid_roll_is_refused():
    with pytest.raises(ValueError, match=r"'a\.parquet' is not called after a task"):
        Roll.of([FileRecord("a.parquet", 1)])
    with pytest.raises(ValueError, match=r"two batches are called 'a\.00001'"):
        Roll.of([FileRecord("x/a.00001.arrow", 1), FileRecord("y/a.00001.arrow", 1)])
    with pytest.raises(ValueError, match="are not together"):
        Roll.of([FileRecord("a.0.arrow", 1), FileRecord("b.0.arrow", 1), FileRecord("a.1.arrow", 1)])
    with pytest.raises(ValueError, match="no document has the number 4294967299"):
        roll_of([[1, 2]]).places(np.array([0, 1 << 32 | 3], np.uint64))
