"""Rows by key: a random order, and all rows of a key together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_core.across.by_key import GroupByKey, ShuffleRead, ShuffleReader, ShuffleWriter, _groups
from curator_core.across.shuffle import Partitions, read_manifest
from curator_core.errors import CuratorError, UsageError
from curator_core.executors.local import LocalExecutor
from curator_core.model.task import DocumentBatch, EmptyTask
from curator_core.pipeline import Pipeline
from curator_core.testing.faults import ChaoticExecutor

HERE = LocalExecutor(workers=0)


def written(folder: Path, tables: list[pa.Table], **options: Any) -> str:
    writer = ShuffleWriter(path=str(folder), **options)
    batches = [DocumentBatch(data=table, task_id=f"s-1.{number:05}") for number, table in enumerate(tables)]
    writer.finish([record for batch in batches for record in writer.process(batch).records])
    (folder / "_SUCCESS").touch()
    return str(folder)


def order(folder: str, memory: int = 10**6) -> list[dict[str, Any]]:
    read = ShuffleRead(memory=memory, batch_bytes=300)
    tasks = Partitions(path=folder, empty_too=True).process(EmptyTask())
    return [row for task in tasks for batch in read.process(task) for row in batch.to_pyarrow().to_pylist()]


ROWS = st.lists(st.tuples(st.sampled_from(["a", "b", None, "ü"]), st.integers(0, 3)), max_size=40)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(rows=ROWS, cut=st.integers(0, 40), partitions=st.sampled_from([1, 2, 64]), seed=st.integers(0, 2))
def test_the_order_depends_only_on_keys_and_seed_and_rows_of_a_key_stay_in_order(
    tmp_path_factory, rows, cut, partitions, seed
):
    table = pa.table(
        {"k": pa.array([k for k, _ in rows], pa.string()), "v": [v for _, v in rows], "n": range(len(rows))}
    )
    keys = {"key_column": ["k", "v"], "seed": seed}
    one = order(written(tmp_path_factory.mktemp("a"), [table], partitions=8, **keys))
    cuts = [table.slice(0, cut), table.slice(cut)]
    other = order(written(tmp_path_factory.mktemp("b"), cuts, partitions=partitions, **keys), 400)
    assert one == other
    assert sorted(row["n"] for row in one) == list(range(len(rows)))
    seen = [(row["k"], row["v"]) for row in one]
    for key in set(seen):
        places = [at for at, found in enumerate(seen) if found == key]
        assert places == list(range(places[0], places[-1] + 1))
        numbers = [one[at]["n"] for at in places]
        assert numbers == sorted(numbers)


def test_another_seed_gives_another_order(tmp_path):
    table = pa.table({"id": [str(n) for n in range(100)]})
    one, other = (order(written(tmp_path / str(seed), [table], seed=seed)) for seed in (1, 2))
    assert one != other
    assert sorted(map(str, one)) == sorted(map(str, other))


class Biggest(GroupByKey):
    """Keeps for each key the row with the largest ``n``."""

    def process_group(self, rows: pa.Table) -> pa.Table | None:
        assert len(set(rows["k"].to_pylist())) == 1
        if rows["k"][0].as_py() == "gone":
            return None
        return rows.sort_by("n").slice(rows.num_rows - 1)


def groups(folder: str, **options: Any) -> Pipeline:
    return Pipeline([Partitions(path=folder), Biggest(**options)])


def some_rows() -> list[pa.Table]:
    keys = [str(n * 7 % 30) for n in range(300)] + ["gone"] * 10
    table = pa.table({"k": keys, "n": range(310)})
    return [table.slice(at, 50) for at in range(0, 310, 50)]


@pytest.mark.slow
@pytest.mark.parametrize("executor", [HERE, LocalExecutor(workers=2), ChaoticExecutor({"seed": 2})])
def test_a_group_has_all_rows_of_a_key_and_rows_not_returned_are_counted(tmp_path, executor):
    folder = written(tmp_path, some_rows(), key_column="k", partitions=4)
    result = groups(folder, batch_bytes=200).run(executor)
    found = {row["k"]: row["n"] for task in result.tasks for row in task.to_pyarrow().to_pylist()}
    assert found == {str(n * 7 % 30): n for n in range(300)}
    stage = next(stats for stats in result.summary.stages if stats.name == "Biggest")
    assert (stage.rows_in, stage.rows_out, stage.dropped) == (310, 30, {"grouped": 280})


def test_two_keys_with_the_same_hash_are_two_groups():
    table = pa.table({"k": ["a", "a", "b", "b"], "n": [1, 2, 3, 4]})  # as if "a" and "b" had one hash
    assert [group["n"].to_pylist() for group in _groups(table, ["k"])] == [[1, 2], [3, 4]]


class Counts(Biggest):
    def process_large_group(self, pieces: Iterator[pa.Table]) -> Iterator[pa.Table]:
        last = None
        for piece in pieces:
            last = piece.slice(piece.num_rows - 1)
        assert last is not None
        yield last


def test_a_group_that_does_not_fit_is_refused_or_passed_on_in_pieces(tmp_path):
    rows = [pa.table({"k": ["same"] * 500, "n": range(at, at + 500)}) for at in range(0, 3000, 500)]
    folder = written(tmp_path, rows, key_column="k")
    with pytest.raises(CuratorError, match=r"the rows of one key take more than Biggest\.memory.*'same'"):
        groups(folder, memory=1000).run(HERE)
    result = Pipeline([Partitions(path=folder), Counts(memory=1000)]).run(HERE)
    assert [row for task in result.tasks for row in task.to_pyarrow().to_pylist()] == [{"k": "same", "n": 2999}]


def test_groups_need_a_shuffle_by_key(tmp_path):
    from curator_core.across.shuffle import finish_partitioned, write_partitioned

    record = write_partitioned(
        str(tmp_path / "a.arrow"), pa.table({"n": [1]}), pa.array([1], pa.uint64()).to_numpy(), 1
    )
    finish_partitioned(str(tmp_path), [record])
    (tmp_path / "_SUCCESS").touch()
    with pytest.raises(CuratorError, match="follows Partitions of a ShuffleWriter"):
        groups(str(tmp_path)).run(HERE)


def test_the_manifest_says_what_the_keys_are(tmp_path):
    folder = written(tmp_path, some_rows(), key_column=["k", "n"], seed=3)
    assert read_manifest(folder).facts == {"key_columns": ["k", "n"], "seed": 3}


@pytest.mark.parametrize(
    "wrong",
    [{"path": ""}, {"key_column": []}, {"key_column": ["a", "a"]}, {"key_column": 1}, {"seed": "x"}, {"partitions": 0}],
)
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(UsageError, match=rf"ShuffleWriter\.{next(iter(wrong))}"):
        ShuffleWriter(**{"path": "x", **wrong})
    with pytest.raises(UsageError, match=r"ShuffleReader\.memory"):
        ShuffleReader(path="x", memory="much")
