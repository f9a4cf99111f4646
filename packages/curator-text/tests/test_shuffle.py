"""The shuffle of all rows: one order for given data and seed, in bounded memory, resumed where it stopped."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_core.across.shuffle import Partitions
from curator_core.config.pipeline_file import load_pipeline
from curator_core.errors import StageError, UsageError
from curator_core.executors.local import LocalExecutor
from curator_core.model.task import DocumentBatch, EmptyTask
from curator_core.pipeline import Pipeline
from curator_core.running.verify import verify
from curator_text.readers import JsonlReader
from curator_text.shuffle import GlobalShuffle, ShuffleRead, ShuffleReader, ShuffleWriter
from curator_text.writers import JsonlWriter

HERE = LocalExecutor(workers=0)


def expected(keys: list[str], seed: int = 0) -> list[int]:
    """The places of the rows in the order of a shuffle, by plain Python."""
    return sorted(range(len(keys)), key=lambda at: (xxhash.xxh3_64_intdigest(keys[at].encode(), seed), at))


def shuffled(folder: Path, tables: list[pa.Table], memory: int | str = "1MB", **options: object) -> list[pa.Table]:
    writer = ShuffleWriter(path=str(folder), **options)
    batches = [DocumentBatch(data=table, task_id=f"s-1.{number:05}") for number, table in enumerate(tables)]
    writer.finish([record for batch in batches for record in writer.process(batch).records])
    (folder / "_SUCCESS").touch()
    read = ShuffleRead(memory=memory, batch_bytes=500)
    found = []
    for task in Partitions(path=str(folder), empty_too=True).process(EmptyTask()):
        found += [batch.to_pyarrow() for batch in read.process(task)]
    assert (read.recorder.read or 0) == sum(table.num_rows for table in tables)
    return found


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    keys=st.lists(st.sampled_from("abcdefgh") | st.text(st.characters(codec="utf-8"), max_size=3), max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=4),
    partitions=st.sampled_from([1, 2, 3, 64, 1000]),
    memory=st.sampled_from([1, 100, 300, 10**6]),
    seed=st.integers(0, 3),
)
def test_rows_are_in_the_order_of_the_keys_hashes_whatever_the_files_and_the_memory(
    tmp_path_factory, keys, cuts, partitions, memory, seed
):
    rows = pa.table({"id": pa.array(keys, pa.string()), "n": range(len(keys))})
    edges = [0, *sorted(min(cut, len(keys)) for cut in cuts), len(keys)]
    tables = [rows.slice(start, stop - start) for start, stop in itertools.pairwise(edges)]
    found = shuffled(tmp_path_factory.mktemp("s"), tables, memory, partitions=partitions, seed=seed)
    together = pa.concat_tables(found)
    assert together.schema == rows.schema
    assert together.equals(rows.take(pa.array(expected(keys, seed), pa.int64())))


def test_every_column_is_unchanged_even_if_a_batch_lacks_it(tmp_path):
    first = pa.table(
        {
            "id": ["a", "b"],
            "kind": pa.array(["x", "y"]).dictionary_encode(),
            "meta": pa.ExtensionArray.from_storage(pa.json_(pa.utf8()), pa.array(['{"a": 1}', None])),
            "vector": pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)),
            "late": pa.nulls(2),
        }
    ).replace_schema_metadata({"made": "by hand"})
    second = pa.table({"id": ["c", "d"], "kind": pa.array(["z", "x"]).dictionary_encode(), "late": [1.5, 2.5]})
    found = pa.concat_tables(shuffled(tmp_path, [first, second], partitions=2))
    assert found.schema.field("meta").type == pa.json_(pa.utf8())
    assert found.schema.field("late").type == pa.float64()
    assert sorted(found.to_pylist(), key=lambda row: row["id"]) == [
        {"id": "a", "kind": "x", "meta": '{"a": 1}', "vector": [1.0, 2.0], "late": None},
        {"id": "b", "kind": "y", "meta": None, "vector": None, "late": None},
        {"id": "c", "kind": "z", "meta": None, "vector": None, "late": 1.5},
        {"id": "d", "kind": "x", "meta": None, "vector": None, "late": 2.5},
    ]


def test_rows_of_one_key_that_exceed_the_memory_stay_in_their_order(tmp_path):
    table = pa.table({"id": ["same"] * 3000, "n": range(3000), "t": ["x" * 100] * 3000})
    found = pa.concat_tables(shuffled(tmp_path, [table.slice(at, 500) for at in range(0, 3000, 500)], 50_000))
    assert found["n"].to_pylist() == list(range(3000))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path):
    rows = 40_000
    table = pa.table({"id": [str(n) for n in range(rows)], "t": ["x" * 1000] * rows})
    writer = ShuffleWriter(path=str(tmp_path), partitions=2)
    records = []
    for at in range(0, rows, 1000):
        part = DocumentBatch(data=table.slice(at, 1000), task_id=f"s-1.{at:05}")
        records += writer.process(part).records
    writer.finish(records)
    (tmp_path / "_SUCCESS").touch()
    del table, part
    limit = 2_000_000
    before, most, seen = pa.total_allocated_bytes(), 0, 0
    read = ShuffleRead(memory=limit, batch_bytes=100_000)
    for task in Partitions(path=str(tmp_path), empty_too=True).process(EmptyTask()):
        for batch in read.process(task):
            seen += batch.num_rows
            most = max(most, pa.total_allocated_bytes() - before)
    assert seen == rows
    assert most < 3 * limit  # the data is 40 MB


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(4):
        rows = [{"id": f"{number}-{i}", "text": f"row {i}"} for i in range(300)]
        (folder / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


IDS = [f"{number}-{i}" for number in range(4) for i in range(300)]
SHUFFLED = [IDS[at] for at in expected(IDS, 7)]


def lines(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.jsonl"))}


def ids(folder: Path) -> list[str]:
    return [json.loads(line)["id"] for content in lines(folder).values() for line in content.splitlines()]


def flow(data: Path, out: Path, **options: object) -> GlobalShuffle:
    return GlobalShuffle(paths=str(data), path=str(out), seed=7, **options)


@pytest.mark.slow
def test_files_are_shuffled_to_the_same_files_by_any_number_of_workers(tmp_path, data):
    found = []
    for workers in (0, 2):
        out = tmp_path / f"out{workers}"
        result = flow(data, out, partitions=5).run(
            LocalExecutor(workers=workers), run_dir=str(tmp_path / f"run{workers}")
        )
        assert verify(result.run_dir) == []
        assert result.summary.rows_written == 1200
        found.append(lines(out))
    assert found[0] == found[1]
    assert len(found[0]) == 5
    assert ids(tmp_path / "out0") == SHUFFLED
    moved = sum(abs(at - place) for place, at in enumerate(expected(IDS, 7))) / len(IDS)
    assert moved == pytest.approx(len(IDS) / 3, rel=0.1)  # the value expected by chance


@pytest.mark.slow
def test_a_shuffle_that_failed_half_way_is_continued(tmp_path, data, monkeypatch):
    flow(data, tmp_path / "whole", partitions=6).run(HERE, run_dir=str(tmp_path / "r1"))
    real, calls = ShuffleRead.process, []

    def fails_once(self, task):
        calls.append(task._metadata["partition"])
        if len(calls) == 4:
            raise OSError("the disk is gone")
        yield from real(self, task)

    monkeypatch.setattr(ShuffleRead, "process", fails_once)
    work = flow(data, tmp_path / "out", partitions=6)
    with pytest.raises(StageError, match="the disk is gone"):
        work.run(HERE, run_dir=str(tmp_path / "r2"))
    work.run(HERE, run_dir=str(tmp_path / "r2"), resume=True)
    assert calls == [0, 1, 2, 3, 3, 4, 5]
    assert lines(tmp_path / "out") == lines(tmp_path / "whole")


@pytest.mark.slow
def test_a_pipeline_file_can_name_the_workflow(tmp_path, data):
    (tmp_path / "shuffle.yaml").write_text(
        "workflow:\n  GlobalShuffle: {paths: in/, path: out/, seed: 7, target_size: 1MB, compression: none}\n"
    )
    file = load_pipeline(tmp_path / "shuffle.yaml")
    file.workflow.run(HERE, run_dir=str(tmp_path / "run"))
    assert list(lines(tmp_path / "out")) == ["00000.jsonl"]
    assert ids(tmp_path / "out") == SHUFFLED


@pytest.mark.slow
def test_parquet_is_also_shuffled_and_empty_data_keep_their_columns(tmp_path):
    table = pa.table({"key": pa.array(np.arange(100), pa.int32())})
    for name, rows in (("some", 100), ("none", 0)):
        pq.write_table(table.slice(0, rows), tmp_path / f"{name}.parquet")
        GlobalShuffle(
            paths=str(tmp_path / f"{name}.parquet"), path=str(tmp_path / name), format="parquet", key_column="key"
        ).run(HERE, run_dir=str(tmp_path / f"run-{name}"))
        found = pq.read_table(tmp_path / name)
        assert found.schema == table.schema
        assert sorted(found["key"].to_pylist()) == list(range(rows))


def test_an_incomplete_shuffle_is_refused(tmp_path):
    (tmp_path / "parts").mkdir()
    with pytest.raises(UsageError, match="holds no complete shuffle"):
        Pipeline([ShuffleReader(path=str(tmp_path / "parts")), JsonlWriter(path=str(tmp_path / "out"))]).run(HERE)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ShuffleWriter(path="x", partitions=0),
        lambda: ShuffleReader(path="x", memory="much"),
        lambda: GlobalShuffle(paths="a", path="b", format="csv"),
        lambda: GlobalShuffle(paths="a", path="b", partitions=0),
        lambda: GlobalShuffle(paths="a", path="b", target_size="x"),
        lambda: ShuffleWriter(path="x").process(DocumentBatch(data=pa.table({"id": [1], "__shuffle_hash__": [1]}))),
    ],
)
def test_wrong_parameters_are_refused(make):
    with pytest.raises(UsageError):
        make()


def test_filters_can_come_before_and_after_a_shuffle(tmp_path, data):
    from curator_text.filters import SubstringFilter

    scatter = [
        JsonlReader(paths=str(data)),
        SubstringFilter("row 1", "prefix"),
        ShuffleWriter(path=str(tmp_path / "parts"), seed=7, partitions=3),
    ]
    Pipeline(scatter).run(HERE, run_dir=str(tmp_path / "r1"))
    gather = [ShuffleReader(path=str(tmp_path / "parts")), JsonlWriter(path=str(tmp_path / "out"))]
    Pipeline(gather).run(HERE, run_dir=str(tmp_path / "r2"))
    assert ids(tmp_path / "out") == [key for key in SHUFFLED if key.partition("-")[2].startswith("1")]
