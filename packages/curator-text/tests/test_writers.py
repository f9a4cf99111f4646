from __future__ import annotations

import bz2
import datetime
import decimal
import gzip
import json
import lzma

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_core.arrow.json_column import JSON
from curator_core.errors import UsageError
from curator_core.model.task import DocumentBatch, EmptyTask, FileGroupTask
from curator_core.pipeline import Pipeline
from curator_text.json_text import json_lines
from curator_text.readers import JsonlReader, ParquetReader
from curator_text.readers.parquet import ParquetRead
from curator_text.writers import JsonlWriter, ParquetWriter


def batch(table, task_id="source-1.00000"):
    return DocumentBatch(data=table if isinstance(table, pa.Table) else pa.table(table), task_id=task_id)


def test_json_lines_represent_every_type():
    day = datetime.date(2024, 2, 29)
    table = pa.table(
        {
            "s": ['quo"te\n\u2028\x00', None],
            "i": pa.array([-(1 << 63), 1], pa.int64()),
            "u": pa.array([(1 << 64) - 1, 2], pa.uint64()),
            "f": [0.1, float("nan")],
            "day": [day, None],
            "ts": pa.array([1_700_000_000_000_000_001, None], pa.timestamp("ns", tz="UTC")),
            "dec": pa.array([decimal.Decimal("12345678901234567890.10"), None], pa.decimal128(30, 2)),
            "dict": pa.array(["a", "a"]).dictionary_encode(),
            "vec": pa.array([[1.5, 2.5], None], pa.list_(pa.float32(), 2)),
            "st": [{"x": [1], "y": None}, None],
            "j": pa.ExtensionArray.from_storage(JSON, pa.array(['{"a":1.0,"b":[]}', None])),
        }
    )
    first, second = json_lines(table)
    assert first.endswith(b"\n")
    assert json.loads(first, parse_float=str) == {
        "s": 'quo"te\n\u2028\x00',
        "i": -(1 << 63),
        "u": (1 << 64) - 1,
        "f": "0.1",
        "day": "2024-02-29",
        "ts": "2023-11-14T22:13:20.000000001Z",
        "dec": "12345678901234567890.10",
        "dict": "a",
        "vec": ["1.5", "2.5"],
        "st": {"x": [1], "y": None},
        "j": {"a": "1.0", "b": []},
    }
    assert {k for k, v in json.loads(second).items() if v is not None} == {"i", "u", "dict"}
    assert json.loads(next(iter(json_lines(table.slice(1), omit_nulls=True)))) == {
        "i": 1,
        "u": 2,
        "f": None,
        "dict": "a",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compression", "suffix", "unpack"),
    [
        (None, "", bytes),
        ("gzip", ".gz", gzip.decompress),
        ("zst", ".zst", lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)),
        ("bz2", ".bz2", bz2.decompress),
        ("xz", ".xz", lzma.decompress),
    ],
)
def test_a_file_is_named_by_its_task_and_the_same_every_time(tmp_path, compression, suffix, unpack):
    table = pa.table({"n": range(20_000), "t": ["words and words"] * 20_000})
    contents = []
    for folder in ("a", "b"):
        stage = JsonlWriter(path=str(tmp_path / folder), compression=compression)
        task = stage.process(batch(table))
        assert isinstance(task, FileGroupTask)
        assert task.data == [str(tmp_path / folder / f"source-1.00000.jsonl{suffix}")]
        assert [record.rows for record in stage.recorder.outputs] == [20_000]
        contents.append((tmp_path / folder / f"source-1.00000.jsonl{suffix}").read_bytes())
    assert contents[0] == contents[1]
    assert unpack(contents[0]) == b"".join(b'{"n":%d,"t":"words and words"}\n' % n for n in range(20_000))


def test_parquet_without_rows_still_has_a_schema(tmp_path):
    table = pa.table({"text": pa.array([], pa.string()), "n": pa.array([], pa.int32())})
    (path,) = ParquetWriter(path=str(tmp_path)).process(batch(table)).data
    assert pq.read_table(path).schema == table.schema


def test_parquet_partitions_stay_inside_the_output_folder(tmp_path):
    names = ["en", "../up", "en", None, "a/b", "..", ""]
    table = pa.table({"lang": names, "n": range(7)})
    task = ParquetWriter(path=str(tmp_path), partition_by=["lang"]).process(batch(table))
    found = {
        path.removeprefix(f"{tmp_path}/").rpartition("/")[0]: pq.ParquetFile(path).read()["n"].to_pylist()
        for path in task.data
    }
    assert found == {
        "lang=en": [0, 2],
        "lang=..%2Fup": [1],
        "lang=__HIVE_DEFAULT_PARTITION__": [3, 6],
        "lang=a%2Fb": [4],
        "lang=%2E%2E": [5],
    }
    assert sum(record.rows for record in task.records) == 7
    read = pq.read_table(tmp_path)
    assert sorted(zip(read["n"].to_pylist(), read["lang"].to_pylist(), strict=True))[1] == (1, "../up")


def test_folder_names_in_other_scripts_are_not_cut(tmp_path):
    values = ["日本語" * 20, "ünïcode", "a\u200bb", "100%", "नमस्ते"]
    table = pa.table({"of": values, "n": range(len(values))})
    task = ParquetWriter(path=str(tmp_path), partition_by=["of"]).process(batch(table))
    folders = [path.removeprefix(f"{tmp_path}/").rpartition("/")[0] for path in task.data]
    assert folders[:2] == [f"of={values[0]}", "of=ünïcode"]
    assert folders[2:4] == ["of=a%E2%80%8Bb", "of=100%25"]
    read = pq.read_table(tmp_path)
    assert dict(zip(read["n"].to_pylist(), read["of"].to_pylist(), strict=True)) == dict(enumerate(values))


def test_rows_with_a_value_that_is_too_long_for_a_folder_are_rejected(tmp_path):
    long, longest = "x" * 300, "é" * 126
    table = pa.table({"of": ["a", long, longest, long + "y", "é" * 127], "n": range(5)})
    for other, kept in ((table, [0, 2]), (table.slice(1, 1), [])):
        stage = ParquetWriter(path=str(tmp_path / str(len(kept))), partition_by=["of"])
        task = stage.process(batch(other))
        assert [n for path in task.data for n in pq.ParquetFile(path).read()["n"].to_pylist()] == kept
        (reject,) = stage.recorder.rejects
        assert (reject.reason, reject.rows) == ("partition value too long", other.num_rows - len(kept))


def test_folders_of_mixed_values_are_named_like_those_of_one_type(tmp_path):
    texts = pa.array(['"en"', "5", "5.0", "true", None, '{"a": 1}'])
    table = pa.table({"of": pa.ExtensionArray.from_storage(JSON, texts), "n": range(6)})
    stage = ParquetWriter(path=str(tmp_path), partition_by=["of"])
    task = stage.process(batch(table))
    found = {path.split("/")[-2]: pq.ParquetFile(path).read()["n"].to_pylist() for path in task.data}
    assert found == {"of=en": [0], "of=5": [1, 2], "of=true": [3], "of=__HIVE_DEFAULT_PARTITION__": [4]}
    assert [reject.reason for reject in stage.recorder.rejects] == ["partition value is not one value"]


def test_the_differences_of_json_lines_are_those_in_the_documentation(tmp_path):
    """The cases in docs/text-io.md under Writers: infinities, maps, times with a zone, fractions."""
    when = pa.array([1_700_000_000_000_000], pa.timestamp("us"))
    pairs = pa.map_(pa.string(), pa.float64())
    table = pa.table(
        {
            "infinite": [float("inf")],
            "nested": [[float("-inf"), float("nan")]],
            "map": pa.array([[("a", 1.0), ("b", None)]], pairs),
            "twice": pa.array([[("a", 1.0), ("a", 2.0)]], pairs),
            "numbers": pa.array([[(1, "x")]], pa.map_(pa.int64(), pa.string())),
            "naive": when,
            "utc": when.cast(pa.timestamp("us", "UTC")),
            "zone": when.cast(pa.timestamp("us", "Europe/Berlin")),
            "single": pa.array([0.1], pa.float32()),
            "double": [0.1 + 0.2],
        }
    )
    (line,) = json_lines(table)
    assert json.loads(line) == {
        "infinite": None,
        "nested": [None, None],
        "map": {"a": 1.0, "b": None},
        "twice": [["a", 1.0], ["a", 2.0]],
        "numbers": [[1, "x"]],
        "naive": "2023-11-14T22:13:20.000000",
        "utc": "2023-11-14T22:13:20.000000Z",
        "zone": "2023-11-14T23:13:20.000000+0100",
        "single": 0.10000000149011612,
        "double": 0.30000000000000004,
    }
    # Parquet keeps all of them.
    (path,) = ParquetWriter(path=str(tmp_path)).process(batch(table)).data
    assert pq.read_table(path).to_pylist()[0]["map"] == [("a", 1.0), ("b", None)]
    assert (
        pq.read_table(path)
        .drop_columns(["map", "twice", "numbers", "nested"])
        .equals(table.drop_columns(["map", "twice", "numbers", "nested"]))
    )


def test_values_that_cannot_name_a_folder_are_refused(tmp_path):
    table = pa.table({"of": [["a"]], "n": [1]})
    with pytest.raises(UsageError, match="'of', which is list<"):
        ParquetWriter(path=str(tmp_path), partition_by=["of"]).process(batch(table))


def test_values_inside_lists_and_objects_are_written_like_those_of_columns():
    when = datetime.datetime(2024, 2, 3, 4, 5, 6)
    inner = {"price": decimal.Decimal("1.10"), "on": when.date(), "at": when}
    table = pa.table(
        {"all": [inner], "list": [[decimal.Decimal("2.50"), None]], **{name: [inner[name]] for name in inner}}
    )
    (line,) = json_lines(table)
    assert b'"list":[2.50,null],"price":1.10,' in line
    row = json.loads(line, parse_float=decimal.Decimal)
    assert row["all"] | {"at": row["at"]} == {name: row[name] for name in inner}
    assert row["all"]["at"] == when.isoformat()
    assert row["at"].startswith(when.isoformat())


def test_two_columns_of_one_name_are_refused():
    with pytest.raises(UsageError, match="two columns 'a'"):
        list(json_lines(pa.table([[1], [2]], names=["a", "a"])))


def test_row_groups_stay_below_the_limit(tmp_path):
    table = pa.table({"t": ["x" * 1000] * 1000})
    (path,) = ParquetWriter(path=str(tmp_path), row_group_bytes=100_000).process(batch(table)).data
    assert pq.ParquetFile(path).num_row_groups >= 10


VALUES = {
    "s": (pa.string(), st.text(st.characters(exclude_categories=["Cs"]))),
    "b": (pa.binary(), st.binary()),
    "i": (pa.int32(), st.integers(-(1 << 31), (1 << 31) - 1)),
    "f": (pa.float64(), st.floats(allow_nan=False)),
    "l": (pa.list_(pa.int64()), st.lists(st.none() | st.integers(0, 9))),
    "o": (pa.struct([("x", pa.string())]), st.fixed_dictionaries({"x": st.none() | st.just("y")})),
    "t": (pa.timestamp("us"), st.datetimes()),
}


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.fixed_dictionaries({name: st.none() | values for name, (_, values) in VALUES.items()})))
def test_any_parquet_row_is_unchanged(tmp_path_factory, rows):
    folder = str(tmp_path_factory.mktemp("p"))
    table = pa.Table.from_pylist(rows, schema=pa.schema([(name, kind) for name, (kind, _) in VALUES.items()]))
    task = ParquetWriter(path=folder).process(batch(table))
    got = pa.concat_tables([read.to_pyarrow() for read in ParquetRead().process(task)])
    assert got.equals(table)
    assert got.schema == table.schema


def test_a_value_that_json_cannot_hold_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(UsageError, match=r"'raw' is binary.*leave it out"):
        JsonlWriter(path=str(tmp_path)).process(batch({"raw": [b"\xff"]}))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="no column 'txt' to write; did you mean 'text'"):
        JsonlWriter(path=str(tmp_path), columns=["txt"]).process(batch({"text": ["a"]}))


@pytest.mark.parametrize(
    "make",
    [
        lambda: JsonlWriter(path=""),
        lambda: JsonlWriter(path="out", compression="rar"),
        lambda: JsonlWriter(path="out", nulls="drop"),
        lambda: ParquetWriter(path="out", compression="zip"),
        lambda: ParquetWriter(path="out", partition_by="lang"),
        lambda: ParquetWriter(path="out", columns=["a", "a"]),
        lambda: ParquetWriter(path="out", partition_by=["a", "a"]),
    ],
)
def test_wrong_parameters_are_refused_when_the_writer_is_made(make):
    with pytest.raises(UsageError):
        make()


@pytest.mark.slow
def test_a_pipeline_reads_and_writes_every_row_except_broken_ones(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(3):
        lines = [json.dumps({"id": f"{number}-{i}", "meta": {"n": i}}) for i in range(500)]
        lines[7] = '{"id": '
        (tmp_path / "in" / f"{number}.jsonl").write_text("\n".join(lines))
    pipeline = Pipeline(
        [
            JsonlReader(paths=str(tmp_path / "in"), split_bytes=3000, batch_bytes=1000),
            ParquetWriter(path=str(tmp_path / "out")),
        ]
    )
    pipeline.run(run_dir=str(tmp_path / "run"))
    assert (tmp_path / "out" / "_SUCCESS").exists()
    again = Pipeline(
        [ParquetReader(paths=str(tmp_path / "out")), JsonlWriter(path=str(tmp_path / "back"), compression="zstd")]
    )
    again.run(run_dir=str(tmp_path / "run2"))
    rows = []
    for path in (tmp_path / "back").glob("*.jsonl.zst"):
        data = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())
        rows += [json.loads(line) for line in data.splitlines()]
    expected = [{"id": f"{k}-{i}", "meta": {"n": i}} for k in range(3) for i in range(500) if i != 7]
    assert sorted(rows, key=lambda row: row["id"]) == sorted(expected, key=lambda row: row["id"])


@pytest.mark.slow
def test_files_are_written_to_and_read_from_an_s3_store(monkeypatch):
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server")
    import fsspec

    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    try:
        host, port = moto.get_host_and_port()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("text-writers")
        table = pa.table({"id": ["a", "b"], "n": [1, 2]})
        JsonlWriter(path="s3://text-writers/j", compression="gzip").process(batch(table))
        ParquetWriter(path="s3://text-writers/p").process(batch(table))
        for reader in (JsonlReader(paths="s3://text-writers/j/"), ParquetReader(paths="s3://text-writers/p/*.parquet")):
            source, stage = reader.decompose()
            (task,) = source.process(EmptyTask())
            (got,) = stage.process(task)
            assert got.to_pyarrow().equals(table)
    finally:
        moto.stop()


def test_only_vectors_are_written_without_a_dictionary(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    batch = DocumentBatch(
        task_id="a", data=pa.table({"lang": ["en"] * 50, "tags": [["x"]] * 50, "embedding": list(vectors)})
    )
    for target_size in (None, "1MB"):
        writer = ParquetWriter(path=str(tmp_path / str(target_size)), target_size=target_size)
        standing = writer.finish(writer.process(batch).records)
        (path,) = [record.path for record in standing or ()] or list((tmp_path / "None").glob("*.parquet"))
        group = pq.ParquetFile(path).metadata.row_group(0)
        names = [group.column(number).path_in_schema.partition(".")[0] for number in range(3)]
        assert names == ["lang", "tags", "embedding"]
        assert [group.column(number).has_dictionary_page for number in range(3)] == [True, True, False]
        assert [group.column(number).is_stats_set for number in range(3)] == [True, True, False]
        assert [group.column(number).compression for number in range(3)] == ["ZSTD", "ZSTD", "UNCOMPRESSED"]
        assert pq.read_table(path)["embedding"].to_pylist() == vectors.tolist()


def test_vectors_that_get_smaller_are_compressed(tmp_path):
    vectors = np.zeros((50, 40), np.float32)
    vectors[:, 3] = np.random.default_rng(0).normal(size=50)
    for name, compression in (("ZSTD", "zstd"), ("UNCOMPRESSED", "none")):
        writer = ParquetWriter(path=str(tmp_path / name), compression=compression)
        (record,) = writer.process(DocumentBatch(task_id="a", data=pa.table({"embedding": list(vectors)}))).records
        assert pq.ParquetFile(record.path).metadata.row_group(0).column(0).compression == name


def test_a_path_may_be_given_as_a_pathlib_path(tmp_path):
    writer = JsonlWriter(path=tmp_path / "out")
    assert writer.params()["path"] == writer.path == str(tmp_path / "out")
    writer.process(batch({"text": ["a"]}))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["source-1.00000.jsonl"]
