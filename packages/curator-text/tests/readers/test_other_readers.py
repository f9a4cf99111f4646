from __future__ import annotations

import csv
import gzip
import io
import json
import os
import zlib
from pathlib import Path

import brotli
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_core import LocalExecutor, Pipeline
from curator_core.errors import UsageError
from curator_core.model.places import places_of
from curator_core.model.task import DocumentBatch, EmptyTask, FileGroupTask
from curator_text.readers import (
    CsvReader,
    JsonlReader,
    ParquetReader,
    TextFilesReader,
    WarcReader,
)
from curator_text.readers.csv import CsvRead
from curator_text.readers.parquet import ParquetPartitioning, ParquetRead
from curator_text.readers.text_files import TextFilesRead
from curator_text.readers.warc import WarcRead
from curator_text.writers import ParquetWriter

from .helpers import COMPRESS, read_all, read_files

# Parquet -------------------------------------------------------------------------------------------------------------


def parquet(path, rows=1000, group=100):
    table = pa.table(
        {
            "id": pa.array([f"{i:05d}" for i in range(rows)]),
            "n": pa.array(range(rows), pa.int32()),
            "when": pa.array([i * 1_000_001 for i in range(rows)], pa.timestamp("ns", tz="UTC")),
            "vector": pa.array([[float(i)] * 4 for i in range(rows)], pa.list_(pa.float32(), 4)),
            "meta": pa.array([{"a": i, "b": None} for i in range(rows)]),
        }
    )
    pq.write_table(table, path, row_group_size=group)
    return table


def test_parquet_is_read_unchanged_in_row_order(tmp_path):
    table = parquet(tmp_path / "a.parquet")
    got = read_files(ParquetRead(batch_bytes=1000), [tmp_path / "a.parquet"])
    assert got.table.equals(table)
    assert len(got.batches) >= 10


def test_parquet_columns_are_pushed_down_and_a_wrong_name_is_an_error(tmp_path):
    table = parquet(tmp_path / "a.parquet")
    got = read_files(ParquetRead(columns=["n", "id"], path_column="file"), [tmp_path / "a.parquet"])
    assert got.table.drop_columns("file").equals(table.select(["n", "id"]))
    with pytest.raises(UsageError, match="no column 'nn'; did you mean 'n'"):
        read_files(ParquetRead(columns=["nn"]), [tmp_path / "a.parquet"])


def test_a_large_parquet_file_is_shared_by_row_groups(tmp_path):
    table = parquet(tmp_path / "a.parquet")
    tasks = list(ParquetPartitioning(paths=str(tmp_path), split_bytes=3000).process(EmptyTask()))
    assert len(tasks) > 3
    assert len({task.task_id for task in tasks}) == len(tasks)
    assert tasks == list(ParquetPartitioning(paths=str(tmp_path), split_bytes=3000).process(EmptyTask()))
    assert read_all(ParquetReader(paths=str(tmp_path), split_bytes=3000)).table.equals(table)


def test_an_empty_parquet_file_keeps_its_schema(tmp_path):
    table = parquet(tmp_path / "a.parquet", rows=0)
    got = read_files(ParquetRead(), [tmp_path / "a.parquet"])
    assert (got.table.schema, got.rows) == (table.schema, [])


def test_a_damaged_row_group_costs_only_its_rows(tmp_path):
    parquet(tmp_path / "a.parquet")
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    chunk = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(3).column(0)
    for at in range(chunk.dictionary_page_offset, chunk.dictionary_page_offset + chunk.total_compressed_size):
        data[at] = 0xFF
    (tmp_path / "a.parquet").write_bytes(data)
    (tmp_path / "b.parquet").write_bytes(bytes(data[: len(data) // 2]))
    got = read_files(ParquetRead(), [tmp_path / "a.parquet", tmp_path / "b.parquet"])
    assert [row["n"] for row in got.rows] == [*range(300), *range(400, 1000)]
    assert [(reject.reason, reject.position, reject.rows) for reject in got.rejects] == [
        ("damaged Parquet", "row group 3, row 0", 100),
        ("damaged Parquet", "footer", 1),
    ]


def test_columns_in_folder_names_are_restored(tmp_path):
    values = ["en", None, "a/b", "..", "ü é", "x=y", "%2F", "en"]
    table = pa.table({"n": list(range(8)), "lang": values, "source": ["web"] * 8})
    writer = ParquetWriter(path=str(tmp_path), partition_by=["lang", "source"])
    writer.process(DocumentBatch(data=table, task_id="t"))
    got = read_all(ParquetReader(paths=str(tmp_path), partition_by=["source", "lang"])).table
    assert got.sort_by("n").select(table.column_names).equals(table)
    with pytest.raises(UsageError, match="not in a folder 'wiki=…'"):
        read_all(ParquetReader(paths=str(tmp_path), partition_by=["wiki"]))
    (tmp_path / "n=1").mkdir()
    pq.write_table(table.select(["n"]), tmp_path / "n=1" / "a.parquet")
    with pytest.raises(UsageError, match="already has a column 'n': leave it out"):
        read_all(ParquetReader(paths=str(tmp_path / "n=1"), partition_by=["n"]))
    for wrong in ({"partition_by": "lang"}, {"partition_by": ["n"], "columns": ["n"]}, {"partition_by": [""]}):
        with pytest.raises(UsageError, match="partition_by"):
            ParquetReader(paths="x", **wrong)


@pytest.mark.slow
def test_equal_values_in_many_rows_do_not_make_a_batch_too_large(tmp_path):
    prompt = "p" * 20_000
    table = pa.table({"prompt": [prompt] * 5_000, "n": list(range(5_000))})
    pq.write_table(table, tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 20
    stage = ParquetRead(batch_bytes="1MiB")
    sizes = [batch.to_pyarrow().nbytes for batch in stage.process(FileGroupTask(data=[str(tmp_path / "a.parquet")]))]
    assert max(sizes) < 2 << 20
    assert stage.recorder.read == 5_000


def test_a_parquet_file_with_damaged_column_names_is_reported(tmp_path):
    parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole.replace(b"vector", b"\xa2ector"))
    got = read_files(ParquetRead(), [tmp_path / "a.parquet"])
    assert (got.rows, got.reasons) == ([], [("damaged Parquet", "footer")])


def test_a_file_with_two_columns_of_one_name_is_set_aside_unless_only_others_are_read(tmp_path):
    pq.write_table(pa.Table.from_arrays([pa.array([1, 2])] * 3, names=["a", "b", "a"]), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("a,b,a\n1,1,1\n2,2,2\n")
    for reader in (ParquetReader, CsvReader):
        got = read_all(reader(paths=str(tmp_path)))
        assert (got.rows, [reject.rows for reject in got.rejects]) == ([], [2])
        assert "has two columns 'a'" in got.rejects[0].message
        assert read_all(reader(paths=str(tmp_path), columns=["b"])).table.column_names == ["b"]
        (reject,) = read_all(reader(paths=str(tmp_path), columns=["a"])).rejects
        assert reject.rows == 2
    (tmp_path / "a.csv").write_text("b,,\n1,1,1\n")
    assert [reject.rows for reject in read_all(CsvReader(paths=str(tmp_path))).rejects] == [1]


def test_the_path_replaces_no_column(tmp_path):
    pq.write_table(pa.table({"path": [1]}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("path\n1\n")
    (tmp_path / "a.jsonl").write_text('{"path": 1}\n')
    for reader in (ParquetReader, CsvReader, JsonlReader):
        with pytest.raises(UsageError, match="already has a column 'path': give path_column another name"):
            read_all(reader(paths=str(tmp_path), path_column="path"))
        assert read_all(reader(paths=str(tmp_path), path_column="file")).table.column_names == ["path", "file"]


def test_files_whose_names_are_not_valid_text_are_read(tmp_path):
    name = os.fsdecode(b"caf\xe9.jsonl")
    (tmp_path / name).write_text('{"a": 1}\n')
    (row,) = read_all(JsonlReader(paths=str(tmp_path), path_column="file")).rows
    assert row == {"a": 1, "file": f"{tmp_path}/caf?.jsonl"}
    (row,) = read_all(TextFilesReader(paths=str(tmp_path))).rows
    assert row == {"text": '{"a": 1}\n', "path": f"{tmp_path}/caf?.jsonl"}


# CSV -----------------------------------------------------------------------------------------------------------------


def test_every_csv_cell_is_unchanged_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('id,text,n\n00123,"two\nlines, ""quoted""",NA\n2024-01-01,,\n', "utf-8")
    assert read_files(CsvRead(), [path]).rows == [
        {"id": "00123", "text": 'two\nlines, "quoted"', "n": "NA"},
        {"id": "2024-01-01", "text": "", "n": ""},
    ]


def test_bad_rows_of_csv_are_reported_with_their_number(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,score\na,1.5\nb\nc,x\n\xff,2\ne,\nf,1,2\n")
    got = read_files(CsvRead(schema={"score": "float64"}), [path])
    assert got.rows == [{"id": "a", "score": 1.5}, {"id": "e", "score": None}]
    assert sorted(got.reasons) == [
        ("bad UTF-8", "row 4"),
        ("type conflict", "row 3"),
        ("wrong number of cells", "row 2"),
        ("wrong number of cells", "row 6"),
    ]


def test_a_bad_row_does_not_divide_its_csv_block_into_several_batches(tmp_path):
    lines = [f"{number},x" for number in range(100)]
    lines[40] = "40"
    (tmp_path / "a.csv").write_text("\n".join(["a,b", *lines]) + "\n")
    got = read_files(CsvRead(), [tmp_path / "a.csv"])
    assert [batch.num_rows for batch in got.batches] == [99]
    assert [row["a"] for row in got.rows] == [str(number) for number in range(100) if number != 40]
    assert got.reasons == [("wrong number of cells", "row 41")]
    places = places_of(got.batches[0])
    assert places.of([39, 40]) == [(str(tmp_path / "a.csv"), "row 40"), (str(tmp_path / "a.csv"), "row 42")]


def test_csv_of_several_blocks_compressed_with_another_delimiter_and_no_header(tmp_path):
    path = tmp_path / "a.tsv.gz"
    rows = [{"a": str(i), "b": "x" * (i % 30)} for i in range(5000)]
    path.write_bytes(gzip.compress("".join(f"{row['a']}\t{row['b']}\n" for row in rows).encode()))
    got = read_all(CsvReader(paths=str(path), delimiter="\t", header=["a", "b"], batch_bytes=4096))
    assert (got.rows, got.rejects) == (rows, [])
    assert len(got.batches) > 5


@pytest.mark.parametrize("suffix", COMPRESS)
def test_csv_in_every_compression_is_read_and_truncation_is_reported(tmp_path, suffix):
    rows = [{"a": f"{number * 7919 % 10007:08d}", "b": "x"} for number in range(3000)]
    whole = COMPRESS[suffix]("".join(["a,b\n", *(f"{row['a']},x\n" for row in rows)]).encode())
    path = tmp_path / f"a.csv{suffix}"
    path.write_bytes(whole)
    got = read_files(CsvRead(), [path])
    assert (got.rows, got.rejects) == (rows, [])
    if not suffix:
        return
    for length in (len(whole) * 2 // 3, 12):  # the second is cut before the end of the names
        path.write_bytes(whole[:length])
        got = read_files(CsvRead(), [path])
        assert got.rows == rows[: len(got.rows)]
        assert [reason for reason, _ in got.reasons] == ["truncated file"]


def test_csv_columns_are_selected_and_an_empty_file_is_read(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "b.csv").write_text("")
    got = read_files(CsvRead(columns=["b"]), [tmp_path / "a.csv", tmp_path / "b.csv"])
    assert (got.rows, got.rejects) == ([{"b": "2"}], [])
    with pytest.raises(UsageError, match=r"'a\.csv' has no column 'c'\. It has: a, b"):
        read_files(CsvRead(columns=["c"]), [tmp_path / "a.csv"])


CELLS = st.lists(st.sampled_from(["a", "0", '"', ",", "\n", "\r\n", " ", "é", "語", "\t", "'"]), max_size=6).map(
    "".join
)


@pytest.mark.parametrize("before", range(118, 128))
def test_a_line_end_in_a_cell_may_be_at_the_end_of_a_block(tmp_path, before):
    cells = ["a" * (before - 6), "b\r\nc", "\r\n"]
    text = "x\n" + "".join(f'"{cell}"\n' for cell in cells)
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert [row["x"] for row in read_files(CsvRead(batch_bytes=128), [tmp_path / "a.csv"]).rows] == cells


@pytest.mark.slow
@settings(max_examples=200)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), max_size=12),
    line_end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    encoding=st.sampled_from(["utf-8", "utf-16"]),
)
def test_any_csv_cell_is_unchanged_whatever_the_blocks(tmp_path_factory, rows, line_end, quoting, encoding):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=line_end, quoting=quoting)
    writer.writerows([("x", "y"), *rows])
    path.write_bytes(text.getvalue().encode(encoding))
    for batch_bytes in (128, 129, "1MiB"):
        got = read_files(CsvRead(encoding=encoding, batch_bytes=batch_bytes), [path])
        assert ([(row["x"], row["y"]) for row in got.rows], got.rejects) == (rows, [])


@pytest.mark.parametrize("head", [b"\n\r\n\n", b"\xef\xbb\xbf", b""], ids=["blank", "mark", "none"])
def test_lines_before_the_csv_header_change_no_value(tmp_path, head):
    (tmp_path / "a.csv").write_bytes(head + b'"a ",b\r\n001,1e3\r\n')
    assert read_files(CsvRead(), [tmp_path / "a.csv"]).rows == [{"a ": "001", "b": "1e3"}]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "shift_jis", "utf-8-sig", "gb18030"])
def test_csv_in_another_encoding_is_read(tmp_path, encoding):
    path = tmp_path / "a.csv"
    text = "".join(f'{i},"語\n{i % 7}"\n' for i in range(3000))
    path.write_bytes(f"番号,b\n{text}".encode(encoding))
    got = read_files(CsvRead(encoding=encoding, batch_bytes=1000), [path])
    assert got.rejects == []
    assert [row["番号"] for row in got.rows] == [str(i) for i in range(3000)]
    assert {row["b"] for row in got.rows} == {f"語\n{i}" for i in range(7)}
    if encoding != "utf-8-sig":
        got = read_files(CsvRead(), [path])
        assert got.rows == []
        assert [reject.position for reject in got.rejects] == ["line 1"]
        assert "give encoding=" in got.rejects[0].message


def test_files_named_tsv_have_tabs_unless_a_delimiter_is_given(tmp_path):
    for name in ("a.tsv", "b.TSV", "c.tsv.gz"):
        content = b"a\tb,c\n1\t2,3\n"
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        assert read_files(CsvRead(), [tmp_path / name]).rows == [{"a": "1", "b,c": "2,3"}]
        assert read_files(CsvRead(delimiter=","), [tmp_path / name]).rows == [{"a\tb": "1\t2", "c": "3"}]


def test_csv_without_a_good_row_still_has_its_columns(tmp_path):
    for content in ("a,b\n", "a,b\n1\n"):
        (tmp_path / "a.csv").write_text(content)
        got = read_files(CsvRead(schema={"b": "int64"}, path_column="file"), [tmp_path / "a.csv"])
        assert got.table.schema == pa.schema([("a", pa.string()), ("b", pa.int64()), ("file", pa.string())])
        assert got.rows == []


def test_a_csv_row_over_the_limit_costs_only_itself(tmp_path):
    for cell in (b'"' + b"x" * 500_000 + b'"', b"x" * 500_000):
        (tmp_path / "a.csv").write_bytes(b"a,b\n1,2\n" + cell + b",3\n4,5\n")
        got = read_files(CsvRead(batch_bytes=1000, max_row_bytes="100kB"), [tmp_path / "a.csv"])
        assert ([row["a"] for row in got.rows], got.reasons) == (["1", "4"], [("row too long", "row 2")])
        assert "max_row_bytes=100000; its first line of 50000" in got.rejects[0].message
        assert len(read_files(CsvRead(batch_bytes=1000), [tmp_path / "a.csv"]).rows) == 3


@pytest.mark.slow
@pytest.mark.parametrize("batch_bytes", [100, 5000, "8MiB"])
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\xff,1,2", "wrong number of cells"),
        (b"\xff\xfe,1", "bad UTF-8"),
        (b'"x,2', "unclosed quote"),
        (b'3,"x', "unclosed quote"),
        (b'"x\xff,2', "unclosed quote"),
        (b'"', "unclosed quote"),
        (b"\x00", "wrong number of cells"),
        (b",,,,", "wrong number of cells"),
    ],
)
@pytest.mark.parametrize("behind", [b"", b'"quoted","cells"\r\n', b'"two\nlines",1\n'])
def test_a_bad_row_of_csv_affects_no_other_row(tmp_path, line, reason, batch_bytes, behind):
    good = b"".join(b"%d,b\n" % number for number in range(1000))
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\n" + good + line + b"\n" + behind + good)
    got = read_files(CsvRead(batch_bytes=batch_bytes), [path])
    assert got.reasons == [(reason, "row 1001")]
    assert got.rejects[0].raw.rstrip() == (line if reason != "bad UTF-8" else b"\xff\xfe")
    rows = list(csv.reader(io.StringIO((good + behind + good).decode(), newline="")))
    assert [[row["a"], row["b"]] for row in got.rows] == rows


def test_quotes_in_the_middle_of_a_cell_are_part_of_the_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,b\n1,2\nx"y,3"\n"x"y,""""\n"6"",""7",8\n')
    got = read_files(CsvRead(), [path])
    assert got.rejects == []
    rows = list(csv.reader(io.StringIO(path.read_text(), newline="")))[1:]
    assert [[row["a"], row["b"]] for row in got.rows] == rows


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([b"a", b'"', b",", b"\n", b"\r\n", b"\r", b"\xff", b"\x00", b'""', b'","']), max_size=40)
)
def test_any_bytes_of_csv_become_rows_or_rejects_whatever_the_blocks(tmp_path_factory, pieces):
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    path.write_bytes(b"x,y\n" + b"".join(pieces))

    def read(batch_bytes):
        got = read_files(CsvRead(batch_bytes=batch_bytes), [path])
        return got.rows, got.reasons, [reject.raw for reject in got.rejects]

    assert read(64) == read(70) == read("1MiB")


def test_names_that_cannot_be_used_are_accounted_for_with_all_rows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "1,2\n" * 1000)
    stage = CsvRead(columns=["c"])
    with pytest.raises(UsageError, match="has no column 'c'"):
        list(stage.process(FileGroupTask(data=[str(path)])))
    (reject,) = stage.recorder.rejects
    assert (stage.recorder.read, reject.rows, reject.source) == (1000, 1000, str(path))


def test_columns_of_parquet_that_cannot_be_read_are_accounted_for_with_all_rows(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": range(1000)}), path)
    stage = ParquetRead(columns=["b"])
    with pytest.raises(UsageError, match="no column 'b'"):
        list(stage.process(FileGroupTask(data=[str(path)])))
    (reject,) = stage.recorder.rejects
    assert (stage.recorder.read, reject.rows, reject.reason) == (1000, 1000, "unusable columns")


@pytest.mark.parametrize(
    ("encoding", "seems"),
    [("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"), ("utf-16-be", "utf-16-be"), ("latin-1", "cp1252")],
)
def test_files_in_another_encoding_are_rejected_with_its_name_and_read_with_it(tmp_path, encoding, seems):
    table = [{"text": "naïve café", "n": str(number)} for number in range(50)]
    (tmp_path / "a.csv").write_bytes(("text,n\n" + "".join(f"{r['text']},{r['n']}\n" for r in table)).encode(encoding))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table)
    (tmp_path / "a.jsonl").write_bytes(lines.encode(encoding))
    for reader, end in ((CsvReader, "csv"), (JsonlReader, "jsonl")):
        paths = str(tmp_path / f"a.{end}")
        got = read_all(reader(paths=paths))
        assert got.rows == []
        assert f"the file looks like {seems}: give encoding={seems!r}" in got.rejects[0].message
        got = read_all(reader(paths=paths, encoding=seems))
        assert (got.rows, got.rejects) == (table, [])


def test_a_byte_that_is_invalid_in_its_encoding_costs_its_row(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"x\r\n\x8d\r\n\xe9\r\n")
    got = read_files(CsvRead(encoding="cp1252"), [tmp_path / "a.csv"])
    assert (got.rows, got.reasons) == ([{"x": "é"}], [("bad cp1252", "row 1")])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"delimiter": ";;"}, "one ASCII character"),
        ({"delimiter": '"'}, "other than a quote"),
        ({"delimiter": "\n"}, "one ASCII character"),
        ({"header": False}, "header must be true, or, for a file without a header"),
        ({"header": []}, "header must be true, or, for a file without a header"),
        ({"header": ["a", "a"]}, "header must be true, or, for a file without a header"),
        ({"header": "a"}, "header must be true, or, for a file without a header"),
        ({"encoding": "base64"}, "such as 'utf-8' or 'cp1252', not 'base64'"),
        ({"schema": {"a": "json"}}, "a CSV cell cannot contain such a value"),
    ],
    ids=str,
)
def test_wrong_parameters_of_csv_are_refused(params, message):
    with pytest.raises(UsageError, match=message):
        CsvReader(paths="x", **params)


def test_a_declared_column_that_csv_does_not_have_is_an_error(tmp_path):
    (tmp_path / "a.csv").write_text("score\n1\n")
    with pytest.raises(UsageError, match="no column 'scores'; did you mean 'score'"):
        read_files(CsvRead(schema={"scores": "float"}), [tmp_path / "a.csv"])


# Text files ----------------------------------------------------------------------------------------------------------


def test_each_text_file_is_a_document_and_bad_ones_are_reported(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\n")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress("drei - ü".encode()))
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(b"cut" * 100)[:-9])
    (tmp_path / "e.txt").write_bytes(b"x" * 5000)
    (tmp_path / "f.txt").write_bytes(b"")
    paths = sorted(str(path) for path in tmp_path.iterdir())
    got = read_files(TextFilesRead(max_file_bytes=4000), paths)
    assert [row["text"] for row in got.rows] == ["one\r\ntwo\n", "drei - ü", ""]
    assert [(reject.reason, reject.source) for reject in got.rejects] == [
        ("bad UTF-8", paths[1]),
        ("truncated file", paths[3]),
        ("file too large", paths[4]),
    ]
    assert len(read_all(TextFilesReader(paths=str(tmp_path), encoding="latin-1")).rows) == 5
    (tmp_path / "g.txt").write_bytes(b"+2AA-")
    got = read_files(TextFilesRead(encoding="utf-7"), [tmp_path / "g.txt"])
    assert (got.table.column_names, got.rows, len(got.rejects)) == (["path", "text"], [], 1)
    for encoding in ("base64", "utf8x", None):
        with pytest.raises(UsageError, match="an encoding of text"):
            TextFilesReader(paths="x", encoding=encoding)


# WARC ----------------------------------------------------------------------------------------------------------------


def warc_record(number, body, kind="response", content_type="application/http; msgtype=response"):
    head = (
        f"WARC/1.1\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://e.org/{number}\r\nWARC-Date: 2024-05-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:{number:08d}-0000-0000-0000-000000000000>\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def http(body, *headers, status=200):
    lines = ["HTTP/1.1 " + str(status) + " OK", "Content-Type: text/html; charset=utf-8", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def page(number):
    return f"<p>page {number}</p>".encode() * 50


RECORDS = [warc_record(0, b"software: x\r\n", "warcinfo", "application/warc-fields")] + [
    warc_record(number, http(page(number))) for number in range(1, 8)
]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
def test_warc_records_are_rows(tmp_path, pack):
    path = tmp_path / "a.warc"
    path.write_bytes(b"".join(pack(record) for record in RECORDS))
    got = read_files(WarcRead(), [path])
    assert [row["content"] for row in got.rows] == [page(number) for number in range(1, 8)]
    assert got.rows[0] == {
        "id": "<urn:uuid:00000001-0000-0000-0000-000000000000>",
        "url": "http://e.org/1",
        "date": "2024-05-01T00:00:00Z",
        "record_type": "response",
        "status": 200,
        "content_type": "text/html",
        "charset": "utf-8",
        "content": page(1),
    }
    assert len(read_files(WarcRead(batch_bytes=2000), [path]).batches) > 2
    assert [row["record_type"] for row in read_files(WarcRead(record_types=["warcinfo"]), [path]).rows] == ["warcinfo"]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
@pytest.mark.parametrize("cut", [10, 60, 300])
def test_a_truncated_warc_gives_complete_records_and_reports_the_incomplete_one(tmp_path, pack, cut):
    path = tmp_path / "a.warc"
    whole = b"".join(pack(record) for record in RECORDS)
    last = len(pack(RECORDS[-1]))
    path.write_bytes(whole[: len(whole) - last + min(cut, last - 30)])
    got = read_files(WarcRead(), [path])
    assert [row["url"] for row in got.rows] == [f"http://e.org/{number}" for number in range(1, 7)]
    assert len(got.rejects) == 1


def test_damage_in_the_middle_costs_only_the_damaged_records(tmp_path):
    packed = [gzip.compress(record) for record in RECORDS]
    packed[3] = packed[3][:60] + bytes(byte ^ 0xFF for byte in packed[3][60:90]) + packed[3][90:]
    path = tmp_path / "a.warc.gz"
    path.write_bytes(b"".join(packed[:5]) + b"garbage" * 100 + b"".join(packed[5:]))
    got = read_files(WarcRead(), [path])
    assert [row["url"][-1] for row in got.rows] == ["1", "2", "4", "5", "6", "7"]
    assert {reject.reason for reject in got.rejects} == {"damaged WARC"}
    plain = [record.replace(b"WARC/1.1", b"XXXX/1.1") if i == 4 else record for i, record in enumerate(RECORDS)]
    path.write_bytes(b"".join(plain))
    got = read_files(WarcRead(), [path])
    assert [row["url"][-1] for row in got.rows] == ["1", "2", "3", "5", "6", "7"]


def test_a_record_that_includes_content_of_a_damaged_one_counts_once(tmp_path):
    packed = [gzip.compress(record) for record in RECORDS]
    packed[3] = gzip.compress(RECORDS[3].replace(b"Content-Length: ", b"Content-Length: 1", 1))
    packed[4] = packed[4][:17] + b"\xff" + packed[4][18:]
    path = tmp_path / "a.warc.gz"
    path.write_bytes(b"".join(packed))
    got = read_files(WarcRead(), [path])  # which adds up what was read
    assert [row["url"][-1] for row in got.rows] == ["1", "2", "5", "6", "7"]
    assert {reject.reason for reject in got.rejects} == {"damaged WARC"}


@pytest.mark.parametrize(
    "text", [b"WARC/1.0\r\n", b"WARC/1.1\r\nWARC-Type: response\r\n", b"\x1f\x8b\x08\0\0\0\0\0\0\3"]
)
def test_text_like_a_record_inside_a_damaged_one_hides_no_other_record(tmp_path, text):
    packed = [gzip.compress(warc_record(number, http(page(number)))) for number in range(100)]
    packed[3] = packed[3][:60] + text + packed[3][60 + len(text) :]
    (tmp_path / "a.warc.gz").write_bytes(b"".join(packed))
    got = read_files(WarcRead(), [tmp_path / "a.warc.gz"])
    assert [row["content"] for row in got.rows] == [page(number) for number in range(100) if number != 3]
    assert [reject.reason for reject in got.rejects] == ["damaged WARC"]


def test_content_encodings_are_removed_and_false_ones_are_reported(tmp_path):
    body = b"<p>" + b"hello " * 100
    squeezed = zlib.compressobj(wbits=-15)
    payloads = [
        http(gzip.compress(body), "Content-Encoding: gzip"),
        http(zlib.compress(body), "Content-Encoding: deflate"),
        http(squeezed.compress(body) + squeezed.flush(), "Content-Encoding: deflate"),
        http(brotli.compress(body), "Content-Encoding: br"),
        http(b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
        http(body, "Transfer-Encoding: chunked"),
        http(body, "Content-Encoding: gzip"),
        http(gzip.compress(body)[:-4], "Content-Encoding: gzip"),
        http(gzip.compress(b"\0" * 10_000_000), "Content-Encoding: gzip"),
        http(body, "Content-Encoding: pack200"),
        http(body * 2000),
    ]
    path = tmp_path / "a.warc.gz"
    path.write_bytes(b"".join(gzip.compress(warc_record(i, payload)) for i, payload in enumerate(payloads)))
    got = read_all(WarcReader(paths=str(path), max_record_bytes="1MB"))
    assert [row["content"] for row in got.rows] == [body] * 6
    assert [reject.reason for reject in got.rejects] == ["undecodable content"] * 4 + ["record too large"]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
@pytest.mark.parametrize("kind", ["response", "request"])
@pytest.mark.parametrize("length", [b"9999", b"12x", b""])
def test_a_record_with_a_wrong_length_costs_no_later_record(tmp_path, pack, kind, length):
    liar = warc_record(0, http(page(0)), kind)
    liar = liar.replace(b"Content-Length: %d" % len(http(page(0))), b"Content-Length: " + length)
    path = tmp_path / "a.warc"
    path.write_bytes(b"".join(map(pack, [RECORDS[1], liar, *RECORDS[2:]])))
    got = read_files(WarcRead(max_record_bytes="1MB"), [path])
    assert [row["content"] for row in got.rows] == [page(number) for number in range(1, 8)]
    assert len(got.rejects) == 1
    assert got.rejects[0].position == f"byte {len(pack(RECORDS[1]))}"
    # This holds even if the limit prevents reading the record itself.
    got = read_files(WarcRead(max_record_bytes=2000), [path])
    assert len(got.rows) == 7


@pytest.mark.slow
def test_a_record_that_ends_in_its_header_is_no_row(tmp_path):
    path = tmp_path / "a.warc"
    for cut in range(1, RECORDS[2].index(b"\r\n\r\n")):
        path.write_bytes(RECORDS[1] + RECORDS[2][:cut])
        assert [row["url"] for row in read_files(WarcRead(), [path]).rows] == ["http://e.org/1"]


def test_every_member_of_a_gzip_encoding_counts_and_a_charset_has_no_quotes(tmp_path):
    path = tmp_path / "a.warc"
    body = gzip.compress(b"one ") + gzip.compress(b"two") + b"\0\0"
    answer = http(body, "Content-Encoding: gzip").replace(b"charset=utf-8", b'charset="ISO-8859-1"')
    path.write_bytes(warc_record(1, answer))
    (row,) = read_files(WarcRead(), [path]).rows
    assert (row["content"], row["charset"]) == (b"one two", "iso-8859-1")


def test_a_warc_without_records_of_the_chosen_type_still_has_its_columns(tmp_path):
    path = tmp_path / "a.warc"
    path.write_bytes(RECORDS[0])
    got = read_files(WarcRead(path_column="file"), [path])
    assert (got.rows, got.table.column_names) == ([], [*WarcRead().outputs(), "file"])
    with pytest.raises(UsageError, match="path_column 'url' is a column of every record"):
        WarcReader(paths="x", path_column="url")


def test_a_file_that_is_not_warc_is_reported(tmp_path):
    path = tmp_path / "a.warc"
    path.write_text(json.dumps({"not": "warc"}) * 100)
    got = read_files(WarcRead(), [path])
    assert (got.rows, [reject.reason for reject in got.rejects]) == ([], ["damaged WARC"])
    with pytest.raises(UsageError, match="record_types contains 'responses'"):
        WarcReader(paths="x", record_types=["responses"])


def test_a_parquet_file_with_string_views_can_be_filtered(tmp_path):
    texts = pa.array(["a short one", "another that is kept", None])
    table = pa.table({"text": texts.cast(pa.string_view()), "raw": texts.cast(pa.binary()).cast(pa.binary_view())})
    pq.write_table(table, tmp_path / "views.parquet")
    assert pa.types.is_string_view(pq.read_schema(tmp_path / "views.parquet").field("text").type)
    (batch,) = ParquetRead().process(FileGroupTask(data=[str(tmp_path / "views.parquet")]))
    kept = batch.filter(pa.array([False, True, True])).to_pyarrow()
    assert kept.to_pydict() == {"text": ["another that is kept", None], "raw": [b"another that is kept", None]}


@pytest.mark.parametrize("dictionary", [True, False])
def test_parquet_text_that_is_not_utf8_costs_its_row(tmp_path: Path, dictionary: bool) -> None:
    """Arrow reads invalid text without a check, and every later stage would fail on it."""
    path = tmp_path / "a.parquet"
    texts = ["good", "Zzzzzz", "fine", "good"]
    pq.write_table(pa.table({"id": [1, 2, 3, 4], "text": texts}), path, compression="none", use_dictionary=dictionary)
    path.write_bytes(path.read_bytes().replace(b"Zzzzzz", b"Zz\x82zzz"))
    result = Pipeline([ParquetReader(paths=str(path))]).run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    rows = [row for task in result.tasks for row in task.to_pyarrow().to_pylist()]
    assert [row["id"] for row in rows] == [1, 3, 4]
    (stage,) = result.summary.stages
    assert (stage.rows_in, stage.rejected) == (4, {"damaged Parquet": 1})


def test_records_after_an_empty_first_member_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.warc.gz"
    records = [gzip.compress(warc_record(number, http(page(number))), mtime=0) for number in (1, 2)]
    path.write_bytes(b"".join([gzip.compress(b"", mtime=0), *records]))
    got = read_files(WarcRead(), [str(path)])
    assert len(got.rows) == 2
    assert [reason for reason, *_ in got.reasons] == ["damaged WARC"]
