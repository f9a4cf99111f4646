"""Writers with a `target_size`: full files in the order of the input, whichever worker wrote first and however often."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from curator_core.arrow.json_column import JSON
from curator_core.config.pipeline_file import load_pipeline
from curator_core.errors import CuratorError, UsageError
from curator_core.executors.local import LocalExecutor
from curator_core.model.task import DocumentBatch
from curator_core.pipeline import Pipeline
from curator_core.running.verify import verify
from curator_text.filters import WordCountFilter
from curator_text.readers import JsonlReader, ParquetReader
from curator_text.writers import JsonlWriter, ParquetWriter

HERE = LocalExecutor(workers=0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(5):
        rows = [{"id": f"{number}-{i:03}", "lang": ["en", "de"][i % 2], "text": f"row {i} " * 9} for i in range(200)]
        (folder / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


IDS = [f"{number}-{i:03}" for number in range(5) for i in range(200)]


def files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read(data: Path) -> JsonlReader:
    return JsonlReader(paths=str(data), split_bytes=4000, batch_bytes=2000)


def ids_of(folder: Path, reader: type = JsonlReader) -> list[str]:
    result = Pipeline([reader(paths=str(folder))]).run(HERE)
    return [row for task in result for row in task.to_pyarrow()["id"].to_pylist()]


@pytest.mark.slow
@pytest.mark.parametrize("compression", [None, "gzip", "zstd", "xz"])
def test_lines_are_packed_in_the_order_of_the_input_by_any_number_of_workers(tmp_path, data, compression):
    limit = 20_000 if compression is None else 3000
    found = []
    for workers in (0, 2):
        out = tmp_path / f"out{workers}"
        stages = [read(data), JsonlWriter(path=str(out), compression=compression, target_size=limit)]
        result = Pipeline(stages).run(LocalExecutor(workers=workers), run_dir=str(tmp_path / f"run{workers}"))
        assert verify(result.run_dir) == []
        found.append(files(out))
    assert {name: digest for name, digest in found[0].items() if name != "_SUCCESS"} == {
        name: digest for name, digest in found[1].items() if name != "_SUCCESS"
    }
    names = [path for path in (tmp_path / "out0").iterdir() if path.name[0] not in "._"]
    assert 3 < len(names) < 40
    assert all(path.stat().st_size <= limit for path in names)
    if compression != "zstd":  # which becomes smaller when parts become one frame
        assert sorted(names)[0].stat().st_size > limit / 2
    assert ids_of(tmp_path / "out0") == IDS


@pytest.mark.slow
def test_packed_zstd_is_one_frame(tmp_path, data):
    stages = [read(data), JsonlWriter(path=str(tmp_path / "out"), compression="zstd", target_size="1GB")]
    Pipeline(stages).run(HERE, run_dir=str(tmp_path / "run"))
    # This reader stops where the first frame ends.
    with zstandard.open(tmp_path / "out" / "00000.jsonl.zst", "rb") as stream:
        assert [json.loads(line)["id"] for line in stream.read().splitlines()] == IDS


@pytest.mark.slow
def test_parquet_is_packed_in_each_folder_separately(tmp_path, data):
    writer = ParquetWriter(path=str(tmp_path / "out"), partition_by=["lang"], target_size=6000)
    result = Pipeline([read(data), writer]).run(HERE, run_dir=str(tmp_path / "run"))
    assert verify(result.run_dir) == []
    for lang, first in (("en", 0), ("de", 1)):
        paths = sorted((tmp_path / "out" / f"lang={lang}").iterdir())
        assert [path.name for path in paths] == [f"{n:05}.parquet" for n in range(len(paths))]
        assert len(paths) > 1
        ids = [row for path in paths for row in pq.ParquetFile(path).read()["id"].to_pylist()]
        assert ids == IDS[first::2]
    assert sorted(name.split("/")[0] for name in files(tmp_path / "out") if "/" not in name) == [
        ".packed.json",
        "_SUCCESS",
    ]


@pytest.mark.slow
def test_row_groups_of_small_batches_are_joined(tmp_path, data):
    stages = [read(data), ParquetWriter(path=str(tmp_path / "out"), target_size="1GB", row_group_bytes=20_000)]
    Pipeline(stages).run(HERE, run_dir=str(tmp_path / "run"))
    (path,) = (tmp_path / "out").glob("*.parquet")
    file = pq.ParquetFile(path)
    sizes = [file.read_row_group(number).nbytes for number in range(file.num_row_groups)]
    assert max(sizes) <= 20_000
    assert min(sizes[:-1]) > 10_000
    assert ids_of(tmp_path / "out", ParquetReader) == IDS


@pytest.mark.slow
def test_if_every_row_is_dropped_one_file_has_the_columns(tmp_path, data):
    drop = WordCountFilter(min_words=1000)
    lines, columns = tmp_path / "lines", tmp_path / "columns"
    Pipeline([read(data), drop, ParquetWriter(path=str(columns), target_size="1MB")]).run(
        HERE, run_dir=str(tmp_path / "r1")
    )
    (path,) = columns.glob("*.parquet")
    assert (pq.read_table(path).num_rows, pq.ParquetFile(path).num_row_groups) == (0, 0)
    assert pq.read_schema(path).names == ["id", "lang", "text"]
    Pipeline([read(data), drop, JsonlWriter(path=str(lines), target_size="1MB")]).run(
        HERE, run_dir=str(tmp_path / "r2")
    )
    assert [path.read_bytes() for path in lines.glob("*.jsonl")] == [b""]


def test_columns_that_only_some_batches_have_are_in_every_file(tmp_path):
    writer = ParquetWriter(path=str(tmp_path), target_size=1)
    tables = [
        pa.table({"a": pa.array([1, 2], pa.int32()), "b": pa.nulls(2)}),
        pa.table({"a": pa.array([3], pa.int64()), "b": ["x"], "c": [0.5]}),
    ]
    records = [
        record
        for number, table in enumerate(tables)
        for record in writer.process(DocumentBatch(data=table, task_id=f"s-1.0000{number}")).records
    ]
    standing = writer.finish(records)
    schema = pa.schema([("a", pa.int64()), ("b", pa.string()), ("c", pa.float64())])
    assert [pq.read_schema(record.path) for record in standing] == [schema, schema]
    assert pq.read_table(standing[0].path).to_pylist() == [
        {"a": 1, "b": None, "c": None},
        {"a": 2, "b": None, "c": None},
    ]


@pytest.mark.slow
def test_a_packing_pass_interrupted_anywhere_is_repeated_with_the_same_result(tmp_path, monkeypatch):
    from curator_core import storage

    def made(folder: Path) -> tuple[JsonlWriter, list]:
        writer = JsonlWriter(path=str(folder), target_size=300)
        batches = [
            DocumentBatch(data=pa.table({"id": [f"{n}-{i}" for i in range(9)]}), task_id=f"s-1.{n:05}")
            for n in range(8)
        ]
        return writer, [record for batch in batches for record in writer.process(batch).records]

    writer, records = made(tmp_path / "whole")
    expected = [(record.rows, record.bytes, record.sha256) for record in writer.finish(records)]
    whole = files(tmp_path / "whole")
    assert len(expected) == 4
    real = {"commit": storage.AtomicFile.commit, "remove": storage.remove}
    for stop in range(7):
        writer, records = made(tmp_path / f"cut{stop}")
        left = [stop]

        def counted(name: str, left: list[int] = left):
            def call(*args):
                if left[0] == 0:
                    raise KeyboardInterrupt
                left[0] -= 1
                return real[name](*args)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(storage.AtomicFile, "commit", counted("commit"))
            patch.setattr(storage, "remove", counted("remove"))
            if stop < 6:
                with pytest.raises(KeyboardInterrupt):
                    writer.finish(records)
            else:
                writer.finish(records)
        again = writer.finish(records)
        assert [(record.rows, record.bytes, record.sha256) for record in again] == expected
        assert files(tmp_path / f"cut{stop}") == whole


@pytest.mark.slow
def test_new_sources_of_a_resumed_run_come_after_the_existing_files(tmp_path, data):
    def run(**options):
        stages = [read(data), JsonlWriter(path=str(tmp_path / "out"), target_size="1MB")]
        return Pipeline(stages).run(HERE, run_dir=str(tmp_path / "run"), **options)

    run()
    (data / "5.jsonl").write_text('{"id": "5-000", "lang": "en", "text": "new"}\n')
    result = run(resume=True)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jsonl")) == ["00000.jsonl", "00001.jsonl"]
    assert ids_of(tmp_path / "out") == [*IDS, "5-000"]
    assert verify(result.run_dir) == []
    (data / "0.jsonl").write_text('{"id": "0-000", "lang": "en", "text": "changed"}\n')
    with pytest.raises(CuratorError, match=r"are gone.*fresh=True"):
        run(resume=True)
    run(fresh=True)
    assert ids_of(tmp_path / "out") == ["0-000", *IDS[200:], "5-000"]


@pytest.mark.slow
def test_another_size_for_the_same_folder_leaves_no_old_files(tmp_path, data):
    for number, limit in enumerate((20_000, "1MB")):
        stages = [read(data), JsonlWriter(path=str(tmp_path / "out"), target_size=limit)]
        Pipeline(stages).run(HERE, run_dir=str(tmp_path / f"run{number}"), fresh=True)
    assert [path.name for path in (tmp_path / "out").glob("*.jsonl")] == ["00000.jsonl"]
    assert ids_of(tmp_path / "out") == IDS


@pytest.mark.slow
def test_without_packing_a_missing_file_is_written_again(tmp_path, data):
    def run(**options):
        stages = [read(data), JsonlWriter(path=str(tmp_path / "out"))]
        return Pipeline(stages).run(HERE, run_dir=str(tmp_path / "run"), **options)

    run()
    before = files(tmp_path / "out")
    next((tmp_path / "out").glob("*.jsonl")).unlink()
    run(resume=True)
    assert files(tmp_path / "out") == before


def test_a_pipeline_file_can_set_the_size(tmp_path, data):
    (tmp_path / "p.yaml").write_text(
        "stages:\n  - JsonlReader: {paths: in/}\n  - JsonlWriter: {path: out/, target_size: 1MB}\n"
    )
    load_pipeline(tmp_path / "p.yaml").pipeline().run(HERE, run_dir=str(tmp_path / "run"))
    assert [path.name for path in (tmp_path / "out").glob("*.jsonl")] == ["00000.jsonl"]


def pack_parquet(folder: Path, *tables: pa.Table) -> pa.Table:
    (folder / "types").mkdir()
    for number, table in enumerate(tables):
        pq.write_table(table, folder / "types" / f"{number}.parquet")
    stages = [ParquetReader(paths=str(folder / "types")), ParquetWriter(path=str(folder / "out"), target_size="1MB")]
    Pipeline(stages).run(HERE, run_dir=str(folder / "run"))
    return pq.read_table(folder / "out" / "00000.parquet")


def test_a_column_that_only_some_files_encode_as_a_dictionary_is_written_as_text(tmp_path):
    words = pa.array(["x", None, "x"])
    packed = pack_parquet(tmp_path, pa.table({"a": words.dictionary_encode()}), pa.table({"a": words}))
    assert packed.schema.field("a").type == pa.string()
    assert packed["a"].to_pylist() == ["x", None, "x"] * 2


def test_a_non_nullable_column_may_be_missing_in_other_files(tmp_path):
    never = pa.schema([pa.field("a", pa.int64(), nullable=False)])
    packed = pack_parquet(tmp_path, pa.table({"a": [1]}, schema=never), pa.table({"b": [2]}))
    assert packed.to_pylist() == [{"a": 1, "b": None}, {"a": None, "b": 2}]


@pytest.mark.parametrize(
    ("columns", "kind", "values"),
    [
        (([1], [1.5]), pa.float64(), [1.0, 1.5]),
        (([2**53 + 1], [1.5]), JSON, ["9007199254740993", "1.5"]),
        (([5], pa.array([2**63 + 1], pa.uint64())), pa.uint64(), [5, 2**63 + 1]),
        (([-5], pa.array([2**63 + 1], pa.uint64())), JSON, ["-5", "9223372036854775809"]),
        (([[2**53 + 1]], [[1.5]]), JSON, ["[9007199254740993]", "[1.5]"]),
        (([[]], [["x"]]), pa.list_(pa.field("element", pa.string())), [[], ["x"]]),
        ((["x"], [1]), JSON, ['"x"', "1"]),
        (([True], [{"a": None}], [["é"]]), JSON, ["true", '{"a":null}', '["é"]']),
        (([None], ["x"]), pa.string(), [None, "x"]),
    ],
    ids=lambda value: re.sub(r" at 0x[0-9a-f]+", "", str(value)),  # the same in every process
)
@pytest.mark.parametrize("target_size", [None, "1MB"])
def test_files_of_several_types_get_the_type_that_changes_no_value(tmp_path, columns, kind, values, target_size):
    (tmp_path / "in").mkdir()
    for number, column in enumerate(columns):
        pq.write_table(pa.table({"a": column}), tmp_path / "in" / f"{number}.parquet")
    stages = [
        ParquetReader(paths=str(tmp_path / "in")),
        ParquetWriter(path=str(tmp_path / "out"), target_size=target_size),
    ]
    result = Pipeline(stages).run(HERE, run_dir=str(tmp_path / "run"))
    assert verify(result.run_dir) == []
    tables = [pq.read_table(path) for path in sorted((tmp_path / "out").glob("*.parquet"))]
    assert {table.schema.field("a").type for table in tables} == {kind}
    assert [value for table in tables for value in table["a"].to_pylist()] == values


def test_later_sources_may_have_other_types(tmp_path):
    def run(**options):
        stages = [JsonlReader(paths=str(tmp_path / "in")), ParquetWriter(path=str(tmp_path / "out"), target_size="1MB")]
        return Pipeline(stages).run(HERE, run_dir=str(tmp_path / "run"), **options)

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.jsonl").write_text('{"id": 1}\n')
    run()
    (tmp_path / "in" / "1.jsonl").write_text('{"id": "two", "new": true}\n')
    result = run(resume=True)
    assert verify(result.run_dir) == []
    tables = [pq.read_table(path) for path in sorted((tmp_path / "out").glob("*.parquet"))]
    assert [table.to_pylist() for table in tables] == [[{"id": "1", "new": None}], [{"id": '"two"', "new": True}]]


@pytest.mark.parametrize("writer", [JsonlWriter, ParquetWriter])
def test_an_invalid_size_is_refused(writer):
    with pytest.raises(UsageError, match=f"{writer.__name__}.target_size must be a number of bytes"):
        writer(path="out", target_size="many")
