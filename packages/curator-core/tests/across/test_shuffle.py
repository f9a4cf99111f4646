"""Rows in partitions: the order is that of the places, whatever the files, the partitions and the memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from more_examples import with_more_examples

from curator_core.across.shuffle import (
    Partitions,
    finish_partitioned,
    first_place,
    partition_pieces,
    partition_sorted,
    range_tables,
    read_manifest,
    sorted_order,
    write_partitioned,
)
from curator_core.errors import CuratorError, UsageError
from curator_core.model.task import EmptyTask, FileGroupTask


def written(folder: Path, batches: list[tuple[pa.Table, Any]], partitions: int, **options: Any) -> list[FileGroupTask]:
    records = [
        write_partitioned(
            str(folder / f"s-1.{number:05}.arrow"), table, np.array(places, np.uint64), partitions, **options
        )
        for number, (table, places) in enumerate(batches)
    ]
    finish_partitioned(str(folder), records)
    (folder / "_SUCCESS").touch()
    return list(Partitions(path=str(folder)).process(EmptyTask()))


PLACES = st.sampled_from([0, 1, 2, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1]) | st.integers(0, 2**64 - 1)
BATCHES = st.lists(st.lists(PLACES, max_size=30), max_size=4)


SHUFFLES = {
    "batches": BATCHES,
    "partitions": st.sampled_from([1, 2, 3, 64, 1000]),
    "memory": st.sampled_from([1, 200, 10**6]),
}


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(**SHUFFLES)
def test_rows_are_read_in_the_order_of_place_file_and_row(tmp_path_factory, batches, partitions, memory):
    folder = tmp_path_factory.mktemp("s")
    tables = [
        (pa.table({"file": [number] * len(places), "text": [f"row {at}" for at in range(len(places))]}), places)
        for number, places in enumerate(batches)
    ]
    tasks = written(folder, tables, partitions)
    found = [
        (row["place"], row["file"], row["text"])
        for task in tasks
        for table in partition_sorted(task, memory)
        for row in table.to_pylist()
    ]
    rows = [(place, number, f"row {at}") for number, places in enumerate(batches) for at, place in enumerate(places)]
    assert found == sorted(rows, key=lambda row: row[:2])
    counts = read_manifest(str(folder)).rows
    assert counts.sum() == len(rows)
    for task in tasks:
        pieces = list(partition_pieces(task))
        number = task._metadata["partition"]
        assert sum(table.num_rows for _, table in pieces) == counts[number] > 0
        assert [at for at, _ in pieces] == sorted({at for at, _ in pieces})
        for at, table in pieces:
            places = table["place"].to_pylist()
            assert set(table["file"].to_pylist()) == {at}
            assert places == sorted(places)
            assert first_place(number, partitions) <= places[0] <= places[-1] < first_place(number + 1, partitions)
    manifest = read_manifest(str(folder))
    for first in (0, manifest.partitions // 2):
        ranged = [
            (int(number), row["place"], row["text"])
            for numbers, table in range_tables(manifest, first, manifest.partitions)
            for number, row in zip(numbers, table.to_pylist(), strict=True)
        ]
        low = first_place(first, manifest.partitions)
        in_order = sorted(rows, key=lambda row: (row[1], row[0]))
        assert ranged == [(number, place, text) for place, number, text in in_order if place >= low]


test_rows_are_read_in_order_in_more_examples = with_more_examples(
    test_rows_are_read_in_the_order_of_place_file_and_row, settings(max_examples=100, deadline=None), **SHUFFLES
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 10) | st.integers(0, 2**64 - 1), max_size=200))
def test_the_fast_sort_gives_the_stable_order(values):
    numbers = np.array(values, np.uint64)
    assert sorted_order(numbers).tolist() == np.argsort(numbers, kind="stable").tolist()


def test_a_large_partition_is_read_in_pieces_and_stays_in_order(tmp_path):
    rng = np.random.default_rng(1)
    places = rng.integers(0, 1 << 62, 300_000, dtype=np.uint64)  # all in the first of two
    table = pa.table({"n": np.arange(300_000)})
    (task,) = written(
        tmp_path, [(table.slice(at, 100_000), places[at : at + 100_000]) for at in range(0, 300_000, 100_000)], 2
    )
    tables = list(partition_sorted(task, 1 << 20))
    assert max(table.nbytes for table in tables) <= 1 << 20
    assert len(tables) > 4
    assert np.array_equal(pa.concat_tables(tables)["n"].to_numpy(), np.argsort(places, kind="stable"))


def test_an_existing_column_of_places_is_not_stored_twice(tmp_path):
    places = np.array([3, 1, 2], np.uint64)
    (task,) = written(tmp_path, [(pa.table({"place": places, "n": [3, 1, 2]}), places)], 1)
    (table,) = partition_sorted(task, 1000)
    assert table.to_pydict() == {"n": [1, 2, 3], "place": [1, 2, 3]}
    with pytest.raises(UsageError, match="a column is called 'place'"):
        write_partitioned(str(tmp_path / "x"), pa.table({"place": ["a", "b", "c"]}), places, 1)


def test_files_with_other_columns_get_one_schema_or_a_clear_error(tmp_path):
    one = np.zeros(1, np.uint64)
    first, second = pa.table({"n": pa.array([1], pa.int32()), "a": ["x"]}), pa.table({"n": [0.5]})
    (task,) = written(tmp_path / "fine", [(first, one), (second, one)], 1)
    (table,) = partition_sorted(task, 1000)
    assert table.to_pydict() == {"n": [1.0, 0.5], "a": ["x", None], "place": [0, 0]}
    with pytest.raises(UsageError, match=r"column 'n' is int32 in .* and string in .*Cast"):
        written(tmp_path / "bad", [(first, one), (pa.table({"n": ["b"]}), one)], 1)


def test_a_file_that_has_changed_is_named(tmp_path):
    (task,) = written(tmp_path, [(pa.table({"n": range(5)}), range(5))], 1)
    path = tmp_path / "s-1.00000.arrow"
    whole = path.read_bytes()
    for damaged in (whole[:-8], bytes(len(whole)), b""):
        path.write_bytes(damaged)
        with pytest.raises(CuratorError, match=r"s-1\.00000\.arrow.*run the step that writes it again"):
            list(partition_sorted(task, 1000))


def test_a_folder_without_a_complete_shuffle_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no complete shuffle"):
        list(Partitions(path=str(tmp_path)).process(EmptyTask()))
