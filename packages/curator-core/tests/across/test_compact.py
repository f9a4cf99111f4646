"""A shuffle of many files becomes one of few, and its reader finds the same."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from more_examples import with_more_examples

from curator_core import storage
from curator_core.across import compact as module
from curator_core.across.compact import compact
from curator_core.across.shuffle import (
    Partitions,
    finish_partitioned,
    partition_pieces,
    partition_sorted,
    read_manifest,
    write_partitioned,
)
from curator_core.errors import UsageError
from curator_core.executors.local import LocalExecutor
from curator_core.model.task import EmptyTask

HERE = LocalExecutor(workers=0)


def shuffled(folder: Path, batches: list[list[int]], partitions: int) -> str:
    records = [
        write_partitioned(
            str(folder / f"s-1.{number:05}.arrow"),
            pa.table({"file": [number] * len(places), "text": [f"row {at}" for at in range(len(places))]}),
            np.array(places, np.uint64),
            partitions,
        )
        for number, places in enumerate(batches)
    ]
    finish_partitioned(str(folder), records, facts={"of": "a test"})
    (folder / "_SUCCESS").touch()
    return str(folder)


def seen(folder: str, *memories: int) -> list[Any]:
    found: list[Any] = []
    for task in Partitions(path=folder).process(EmptyTask()):
        found.append(task._metadata["partition"])
        found.append([(number, table.to_pylist()) for number, table in partition_pieces(task)])
        for memory in memories or (10**6,):
            found.append([row for table in partition_sorted(task, memory) for row in table.to_pylist()])
    return found


PLACES = st.sampled_from([0, 1, 2**63 - 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)


SHUFFLES = {
    "batches": st.lists(st.lists(PLACES, max_size=20), min_size=1, max_size=6),
    "partitions": st.sampled_from([1, 3, 64]),
    "size": st.sampled_from([1, 5000, 10**6]),
}


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(**SHUFFLES)
def test_the_reader_finds_the_same_rows_in_the_same_order_with_the_same_numbers(
    tmp_path_factory, batches, partitions, size
):
    folder = tmp_path_factory.mktemp("c")
    before = shuffled(folder / "many", batches, partitions)
    compact(before, str(folder / "few"), size=size).run(HERE)
    assert seen(str(folder / "few"), 1, 300) == seen(before, 1, 300)
    one, other = read_manifest(before), read_manifest(str(folder / "few"))
    assert (other.rows == one.rows).all()
    assert (other.names, other.facts) == (one.names, one.facts)
    assert len(other.files) == (len(batches) if size == 1 else 1 if size == 10**6 else len(other.files))
    compact(str(folder / "few"), str(folder / "fewer"), size=10**6, name="again").run(HERE)
    assert seen(str(folder / "fewer")) == seen(before)


test_the_reader_finds_the_same_in_more_examples = with_more_examples(
    test_the_reader_finds_the_same_rows_in_the_same_order_with_the_same_numbers,
    settings(max_examples=30, deadline=None),
    **SHUFFLES,
)


def test_a_file_of_large_partitions_records_where_each_row_comes_from(tmp_path, monkeypatch):
    from curator_core.across import shuffle

    monkeypatch.setattr(shuffle, "_LEAST_BATCH_BYTES", 200)
    monkeypatch.setattr(shuffle, "_MOST_BATCH_BYTES", 500)
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 2**64, 200, dtype=np.uint64).tolist() for _ in range(3)]
    before = shuffled(tmp_path / "many", batches, 3)
    compact(before, str(tmp_path / "few")).run(HERE)
    assert seen(str(tmp_path / "few"), 5000, 10**6) == seen(before, 5000, 10**6)


@pytest.mark.slow
def test_files_are_opened_once_for_each_partition_and_portion(tmp_path, monkeypatch):
    files, partitions = 300, 8
    rng = np.random.default_rng(0)
    before = shuffled(
        tmp_path / "many", [rng.integers(0, 2**64, 50, dtype=np.uint64).tolist() for _ in range(files)], partitions
    )
    size = sum(file.bytes for file in read_manifest(before).files) // 5
    compact(before, str(tmp_path / "few"), size=size).run(HERE)
    opened: Counter[str] = Counter()
    open_arrow = storage.open_arrow
    monkeypatch.setattr(storage, "open_arrow", lambda path: opened.update([str(path)]) or open_arrow(path))

    def opens(folder: str) -> int:
        opened.clear()
        for task in Partitions(path=folder).process(EmptyTask()):
            assert sum(table.num_rows for _, table in partition_pieces(task)) > 0
        return sum(opened.values())

    assert opens(before) == files * partitions  # more than may stay open
    lots = len(read_manifest(str(tmp_path / "few")).files)
    assert lots in (5, 6)
    assert opens(str(tmp_path / "few")) == lots  # few enough to stay open


def test_at_full_size_few_files_are_written_and_opened():
    # 10,000 sources of 5,000 documents with 26 rows of 12 bytes each, and 4,000 partitions.
    files = [module.ShuffleFile(str(number), 130_000, 130_000 * 12, "", number, 1) for number in range(10_000)]
    lots = module._lots(files, 256 << 20)
    assert len(lots) == 59
    assert [file for lot in lots for file in lot] == files
    assert max(sum(file.bytes for file in lot) for lot in lots) <= 256 << 20
    assert len(files) * 4000 == 40_000_000
    assert len(lots) * 4000 == 236_000


@pytest.mark.slow
def test_the_bytes_are_the_same_for_any_number_of_workers(tmp_path):
    rng = np.random.default_rng(0)
    before = shuffled(tmp_path / "many", [rng.integers(0, 2**64, 50, dtype=np.uint64).tolist() for _ in range(20)], 8)
    found = []
    for workers in (0, 2):
        folder = tmp_path / str(workers)
        compact(before, str(folder), size=20_000).run(LocalExecutor(workers=workers))
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert len(found[0]) > 4
    assert all(one == other for one, other in itertools.pairwise(found))


def test_an_incomplete_shuffle_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no complete shuffle"):
        compact(str(tmp_path), str(tmp_path / "few")).run(HERE)
    for wrong in ({"path": ""}, {"path": "a", "size": "much"}):
        with pytest.raises(UsageError, match="FileLots"):
            module.FileLots(**wrong)
    with pytest.raises(UsageError, match=r"CompactFiles\.into"):
        module.CompactFiles(path="a", into="")
