from __future__ import annotations

import gzip
import json
import zlib

import brotli
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curator_core.errors import UsageError
from curator_core.task import EmptyTask
from curator_text.readers import (
    CsvReader,
    ParquetReader,
    TextFilesReader,
    WarcReader,
)
from curator_text.readers.csv import CsvRead
from curator_text.readers.parquet import ParquetPartitioning, ParquetRead
from curator_text.readers.text_files import TextFilesRead
from curator_text.readers.warc import WarcRead

from .helpers import read_all, read_files

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


def test_parquet_comes_as_it_is_in_row_order(tmp_path):
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


def test_a_damaged_row_group_costs_its_rows_and_no_others(tmp_path):
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


# CSV -----------------------------------------------------------------------------------------------------------------


def test_every_cell_of_csv_is_text_as_it_stands(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('id,text,n\n00123,"two\nlines, ""quoted""",NA\n2024-01-01,,\n', "utf-8")
    assert read_files(CsvRead(), [path]).rows == [
        {"id": "00123", "text": 'two\nlines, "quoted"', "n": "NA"},
        {"id": "2024-01-01", "text": "", "n": ""},
    ]


def test_bad_rows_of_csv_are_told_with_their_number(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,score\na,1.5\nb\nc,x\n\xff,2\ne,\nf,1,2\n")
    got = read_files(CsvRead(schema={"score": "float64"}), [path])
    assert got.rows == [{"id": "a", "score": 1.5}, {"id": "e", "score": None}]
    assert sorted(reject.reason for reject in got.rejects) == [
        "bad UTF-8",
        "type conflict",
        "wrong number of cells",
        "wrong number of cells",
    ]


def test_csv_of_several_blocks_compressed_with_another_delimiter_and_no_header(tmp_path):
    path = tmp_path / "a.tsv.gz"
    rows = [{"a": str(i), "b": "x" * (i % 30)} for i in range(5000)]
    path.write_bytes(gzip.compress("".join(f"{row['a']}\t{row['b']}\n" for row in rows).encode()))
    got = read_all(CsvReader(paths=str(path), delimiter="\t", header=["a", "b"], batch_bytes=4096))
    assert (got.rows, got.rejects) == (rows, [])
    assert len(got.batches) > 5


def test_csv_columns_and_the_empty_file(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "b.csv").write_text("")
    got = read_files(CsvRead(columns=["b"]), [tmp_path / "a.csv", tmp_path / "b.csv"])
    assert (got.rows, got.rejects) == ([{"b": "2"}], [])
    with pytest.raises(UsageError, match="first line"):
        read_files(CsvRead(columns=["c"]), [tmp_path / "a.csv"])


# Text files ----------------------------------------------------------------------------------------------------------


def test_each_text_file_is_a_document_and_bad_ones_are_told(tmp_path):
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
def test_a_truncated_warc_gives_the_whole_records_and_tells_the_cut_one(tmp_path, pack, cut):
    path = tmp_path / "a.warc"
    whole = b"".join(pack(record) for record in RECORDS)
    last = len(pack(RECORDS[-1]))
    path.write_bytes(whole[: len(whole) - last + min(cut, last - 30)])
    got = read_files(WarcRead(), [path])
    assert [row["url"] for row in got.rows] == [f"http://e.org/{number}" for number in range(1, 7)]
    assert len(got.rejects) == 1


def test_damage_in_the_middle_costs_only_the_records_it_hits(tmp_path):
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


def test_content_encodings_are_taken_off_and_what_lies_is_told(tmp_path):
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
def test_a_record_whose_length_is_wrong_costs_no_record_behind_it(tmp_path, pack, kind, length):
    liar = warc_record(0, http(page(0)), kind)
    liar = liar.replace(b"Content-Length: %d" % len(http(page(0))), b"Content-Length: " + length)
    path = tmp_path / "a.warc"
    path.write_bytes(b"".join(map(pack, [RECORDS[1], liar, *RECORDS[2:]])))
    got = read_files(WarcRead(max_record_bytes="1MB"), [path])
    assert [row["content"] for row in got.rows] == [page(number) for number in range(1, 8)]
    assert len(got.rejects) == 1
    assert got.rejects[0].position == f"byte {len(pack(RECORDS[1]))}"
    # Also where the limit keeps the record itself from being read.
    got = read_files(WarcRead(max_record_bytes=2000), [path])
    assert len(got.rows) == 7


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


def test_a_warc_without_such_records_still_tells_its_columns(tmp_path):
    path = tmp_path / "a.warc"
    path.write_bytes(RECORDS[0])
    got = read_files(WarcRead(path_column="file"), [path])
    assert (got.rows, got.table.column_names) == ([], [*WarcRead().outputs(), "file"])
    with pytest.raises(UsageError, match="path_column 'url' is a column of every record"):
        WarcReader(paths="x", path_column="url")


def test_a_file_that_is_no_warc_is_told(tmp_path):
    path = tmp_path / "a.warc"
    path.write_text(json.dumps({"not": "warc"}) * 100)
    got = read_files(WarcRead(), [path])
    assert (got.rows, [reject.reason for reject in got.rejects]) == ([], ["damaged WARC"])
    with pytest.raises(UsageError, match="record_types holds 'responses'"):
        WarcReader(paths="x", record_types=["responses"])
