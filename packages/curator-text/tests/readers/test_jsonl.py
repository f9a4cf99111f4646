from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curator_core.arrow.json_column import JSON
from curator_core.arrow.kinds import one_schema
from curator_core.arrow.widening import keeps_values
from curator_core.errors import UsageError
from curator_text.json_text import json_lines
from curator_text.readers import JsonlReader, _blocks, _bytes, jsonl
from curator_text.readers._bytes import Block, line_blocks
from curator_text.readers.jsonl import JsonlRead
from curator_text.widening import fitted

from .helpers import COMPRESS, read_all, read_files


def put(path: Path, *lines: object) -> str:
    path.write_bytes(
        b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    )
    return str(path)


def test_values_keep_their_types(tmp_path):
    row = {
        "id": "00123",
        "year": "2024",
        "when": "2024-01-01T00:00:00",
        "big": 9007199254740993,
        "share": 0.1,
        "flag": True,
        "tags": ["a", "b"],
        "meta": {"a": 1, "b": [1, "x", None]},
        "nothing": None,
    }
    got = read_files(JsonlRead(), [put(tmp_path / "a.jsonl", row)])
    assert got.table.schema.types == [
        pa.string(),
        pa.string(),
        pa.string(),
        pa.int64(),
        pa.float64(),
        pa.bool_(),
        pa.list_(pa.string()),
        JSON,
        pa.null(),
    ]
    assert [json.loads(line) for line in json_lines(got.table)] == [row]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "b", "n": 2', "broken JSON"),
        (b'{"id": "b", "n": 2} {"id": "c", "n": 3}', "broken JSON"),
        (b'{"id": "b", "n": NaN}', "broken JSON"),
        (b"{'id': 'b', 'n': 2}", "broken JSON"),
        (b'{"id": "b\tc", "n": 2}', "broken JSON"),
        (b'{"id": "b", "n": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"id": "b", "n": ' + b"[" * 800 + b"]" * 800 + b"}", "nested too deeply"),
        (b'{"id": "b", "\\udfff": 2}', "lone surrogate"),
        (b'{"id": "b", "x": [{"\\uD800": 2}]}', "lone surrogate"),
        (b'{"id": "\xff\xfe", "n": 2}', "bad UTF-8"),
        (b'\xef\xbb\xbf{"id": "b", "n": 2}', "byte order mark"),
        (b'{"id": "b", "n": 2, "id": "c"}', "duplicate key"),
        (b'{"id": "b", "n": 1e999}', "number out of range"),
        (b'{"id": "b", "n": ' + b"9" * 5000 + b"}", "number out of range"),
        (b'{"id": "\\ud800", "n": 2}', "lone surrogate"),
        (b'["b", 2]', "not an object"),
        (b'"b"', "not an object"),
        (b'{"id": "b", "n": "2"}', "type conflict"),
        (b'{"id": "b", "n": 2.0}', "type conflict"),
        (b'{"id": "b", "n": true}', "type conflict"),
        (b'{"id": "b", "n": 9223372036854775808}', "type conflict"),
    ],
)
def test_a_line_that_is_no_row_is_reported_with_its_place_and_affects_no_other(tmp_path, line, reason):
    path = put(tmp_path / "a.jsonl", {"id": "a", "n": 1}, {"id": "b", "n": 1}, line, b"", b"  ", {"id": "z", "n": 9})
    got = read_files(JsonlRead(schema={"n": "int64"}), [path])
    assert got.reasons == [(reason, "line 3")]
    assert got.rejects[0].source == path
    assert got.rejects[0].raw == line[: 1 << 16]
    assert [row["id"] for row in got.rows] == ["a", "b", "z"]


def test_a_byte_order_mark_at_the_start_rejects_the_first_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id":"a"}\n{"id":"b"}\n')
    got = read_files(JsonlRead(), [str(path)])
    assert (got.reasons, got.rows) == ([("byte order mark", "line 1")], [{"id": "b"}])


def test_an_object_over_two_lines_and_two_objects_in_a_line_are_detected(tmp_path):
    # There are as many objects as lines, but no line is an object.
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id":"a"}\n{"id":"b"}{"id":"c"}\n{"id":\n"d"}\n{"id":"e"}\n')
    got = read_files(JsonlRead(), [str(path)])
    assert [row["id"] for row in got.rows] == ["a", "e"]
    assert got.reasons == [("broken JSON", "line 2"), ("broken JSON", "line 3"), ("broken JSON", "line 4")]


def test_integers_that_a_double_cannot_hold_do_not_become_doubles(tmp_path):
    path = put(tmp_path / "a.jsonl", {"x": 1}, {"x": 0.5}, {"x": 9007199254740993}, {"x": -(1 << 60)})
    got = read_files(JsonlRead(schema={"x": "float64"}), [path])
    assert [row["x"] for row in got.rows] == [1.0, 0.5]
    assert got.reasons == [("type conflict", "line 3"), ("type conflict", "line 4")]
    assert "declare {x: json}" in got.rejects[0].message
    kept = read_files(JsonlRead(schema={"x": "json"}), [path])
    assert list(json_lines(kept.table)) == Path(path).read_bytes().replace(b" ", b"").splitlines(keepends=True)


def test_integers_over_64_bits_and_deep_nesting_stay_exact(tmp_path):
    deep: object = "\U0001f600"
    for _ in range(400):
        deep = [deep]
    rows = [{"x": 1 << 64, "l": [[-(1 << 70)]], "d": {"a": deep}}, {"x": (1 << 64) + 1, "l": [[1]], "d": {"a": 1e-7}}]
    got = read_files(JsonlRead(), [put(tmp_path / "a.jsonl", *rows)])
    assert [json.loads(line) for line in json_lines(got.table)] == rows


@pytest.mark.slow
@pytest.mark.parametrize("lines", [150, 200, 5000])
@pytest.mark.parametrize("width", [10, 9000])
def test_a_range_finds_the_types_of_the_whole_file(tmp_path, lines, width):
    # The deciding line is at the edge: line 150 by rows, or the line in which one mebibyte ends.
    rows = [{"t": "x" * width, "n": i} for i in range(lines)]
    rows[-1] = {"t": "x", "n": 0.5}
    rows[115] = {"t": "x", "n": 1, "edge": True}
    path = put(tmp_path / "a.jsonl", *rows)
    size = Path(path).stat().st_size
    (whole,) = [list(json_lines(read_files(JsonlRead(batch_bytes="60MiB"), [path]).table))]
    assert b'"edge":null' in whole[0]
    assert (b'"n":0.0' in whole[0]) == (width == 10 and lines <= 200)
    for start, stop in [(0, 5000), (size - 100, size), (size // 2, size // 2 + 100_000)]:
        got = read_files(JsonlRead(batch_bytes="2KiB"), [path], [(start, min(stop, size))])
        lines_of = [line for batch in got.batches for line in json_lines(batch.to_pyarrow())]
        first = Path(path).read_bytes()[:start].count(b"\n") + (start > 0)
        assert lines_of == whole[first : first + len(lines_of)]


def test_a_value_of_another_type_keeps_its_row_and_its_value(tmp_path):
    rows = [{"id": 5}, *[{"id": f"doc {i}"} for i in range(9)]]
    path = put(tmp_path / "a.jsonl", *rows)
    got = read_files(JsonlRead(), [path])
    assert got.rejects == []
    assert got.table.schema.field("id").type == JSON
    assert written(got) == rows
    # A block without the number has the type text, like most of the first lines.
    got = read_files(JsonlRead(), [path], [(12, 10_000)])
    assert got.table.schema.field("id").type == pa.string()


def test_a_key_that_appears_late_becomes_a_column(tmp_path):
    rows = [{"id": str(i), "late": None} for i in range(3000)]
    rows[2500] = {"id": "x", "late": {"a": 1}, "later": 7}
    got = read_files(JsonlRead(batch_bytes=20_000), [put(tmp_path / "a.jsonl", *rows)])
    assert got.rejects == []
    assert got.rows[2500] == {"id": "x", "late": '{"a":1}', "later": 7}
    assert "later" not in got.batches[0].column_names
    assert "later" in got.batches[-1].column_names


def test_a_column_of_nulls_takes_the_types_of_the_values_that_appear(tmp_path):
    rows = [{"id": str(i), "lang": None} for i in range(2000)]
    rows[900]["lang"], rows[1500]["lang"] = "de", 5
    got = read_files(JsonlRead(batch_bytes=20_000), [put(tmp_path / "a.jsonl", *rows)])
    assert got.rejects == []
    assert written(got) == rows
    types = [batch.to_pyarrow().schema.field("lang").type for batch in got.batches]
    assert list(dict.fromkeys(types)) == [pa.null(), pa.string(), JSON]


# Values that drift like real data, for each row; the first 250 are alike.
DRIFTS = {
    "numbers": lambda i: 0 if i < 250 or i % 2 else 0.5,
    "whole and fraction": lambda i: i if i < 250 else [i, i + 0.5, float(i)][i % 3],
    "ids": lambda i: i if i < 250 else f"doc-{i}",
    "mixed": lambda i: "x" if i < 250 else ["x", 1, None, True, 2.5, {"a": 1.0}, ["y"], []][i % 8],
    "lists": lambda i: ["a"] if i < 250 or i % 3 else [],
    "empty lists first": lambda i: [] if i < 250 or i % 3 else ["a"],
    "lists of lists": lambda i: [[1]] if i < 250 else [[[1]], [[]], [[None, 2.5]], [], None][i % 5],
    "objects": lambda i: "some text" if i < 250 or i % 50 else {"body": "some text", "n": [1, 2.0]},
    "large": lambda i: i if i < 250 or i % 2 else (1 << 63) + i,
    "larger": lambda i: i if i < 250 or i % 2 else (1 << 70) + i,
    "large and fraction": lambda i: i if i < 250 else [0.5, (1 << 53) + 1][i % 2],
}


@pytest.mark.slow
@pytest.mark.parametrize("count", [2500, pytest.param(10_000, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("drift", DRIFTS)
def test_drifting_types_lose_no_row_and_no_value(tmp_path, drift, count):
    rows = [{"id": i, "value": DRIFTS[drift](i)} for i in range(count)]
    path = put(tmp_path / "a.jsonl", *rows)
    got = read_files(JsonlRead(), [path])
    assert (got.rejects, written(got)) == ([], rows)
    lines = [line for batch in got.batches for line in json_lines(batch.to_pyarrow())]
    schema = one_schema([batch.to_pyarrow().schema for batch in got.batches], no_question)
    size = Path(path).stat().st_size
    for batch_bytes, step in ((1000, size), (20_000, size), ("8MiB", size // 9), (3000, size // 3)):
        cut = [
            batch.to_pyarrow()
            for start in range(0, size, step)
            for batch in read_files(
                JsonlRead(batch_bytes=batch_bytes), [path], [(start, min(start + step, size))]
            ).batches
        ]
        assert [line for table in cut for line in json_lines(table)] == lines
        again = schema_of(cut)
        assert again.equals(schema, check_metadata=True)


def schema_of(tables: list[pa.Table]) -> pa.Schema:
    return one_schema([table.schema for table in tables], lambda at, name, kind: keeps_values(tables[at][name], kind))


def no_question(number, name, kind):
    raise AssertionError((number, name, kind))


def written(got) -> list:
    """The rows as a JSON writer writes them."""
    return [json.loads(line) for batch in got.batches for line in json_lines(batch.to_pyarrow())]


def test_the_parameter_columns_selects_columns_and_their_order(tmp_path):
    path = put(tmp_path / "a.jsonl", {"a": 1, "b": "x", "c": {"deep": [1]}}, {"c": 2, "b": "y"})
    got = read_files(JsonlRead(columns=["b", "a"]), [path])
    assert got.table.column_names == ["b", "a"]
    assert got.rows == [{"b": "x", "a": 1}, {"b": "y", "a": None}]


def test_a_file_without_rows_still_has_its_declared_columns(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"\n")
    got = read_files(JsonlRead(schema={"id": "string"}), [str(tmp_path / "a.jsonl")])
    assert (got.rows, got.table.schema) == ([], pa.schema([("id", pa.string())]))
    assert read_files(JsonlRead(), [str(tmp_path / "a.jsonl")]).batches == []


@pytest.mark.parametrize("suffix", COMPRESS)
def test_every_compression_gives_the_same_rows(tmp_path, suffix):
    rows = [{"id": i, "text": "é" * (i % 50)} for i in range(2000)]
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path = tmp_path / f"a.jsonl{suffix}"
    # Two concatenated streams, as `cat` and parallel compressors make them.
    path.write_bytes(COMPRESS[suffix](data[:30_001]) + COMPRESS[suffix](data[30_001:]))
    assert read_files(JsonlRead(batch_bytes=10_000), [str(path)]).rows == rows


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
def test_a_truncated_file_gives_its_complete_rows_and_reports_the_rest(tmp_path, suffix):
    import random

    rng = random.Random(1)
    rows = [{"id": i, "text": rng.randbytes(40).hex()} for i in range(20_000)]
    whole = COMPRESS[suffix]("".join(json.dumps(row) + "\n" for row in rows).encode())
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    # The damage is in the only block, and in one after several others.
    for batch_bytes, blocks in (("1MiB", 1), (100_000, 2)):
        got = read_files(JsonlRead(batch_bytes=batch_bytes), [str(path)])
        assert len(got.batches) >= blocks
        assert 2_500 < len(got.rows) < 15_000
        assert got.rows == rows[: len(got.rows)]
        assert got.reasons == [("truncated file", f"line {len(got.rows) + 1}")]


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
def test_bytes_after_a_compressed_stream_cost_none_of_its_rows(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](b'{"a":1}\n{"a":2}\n') + COMPRESS[suffix](b'{"a":3}\n') + b"no stream")
    got = read_files(JsonlRead(), [str(path)])
    assert (got.rows, got.reasons) == ([{"a": 1}, {"a": 2}, {"a": 3}], [("truncated file", "line 4")])


def test_a_line_over_the_limit_is_reported_and_other_lines_are_read(tmp_path):
    path = put(tmp_path / "a.jsonl", {"t": "a"}, {"t": "x" * 5000}, {"t": "b"}, {"t": "y" * 700}, {"t": "c"})
    for batch_bytes in (64, 256, 1024, 100_000):
        got = read_files(JsonlRead(batch_bytes=batch_bytes, max_line_bytes=1000), [path])
        assert [len(row["t"]) for row in got.rows] == [1, 1, 700, 1], batch_bytes
        assert got.reasons == [("line too long", "line 2")]
        assert got.rejects[0].raw.startswith(b'{"t": "xxx')


def test_mixed_line_ends_and_a_last_line_without_a_line_end_are_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a":1}\r\n\r\n  {"a":2} \n{"a":3}\r\n{"a":4}')
    got = read_files(JsonlRead(), [str(path)])
    assert ([row["a"] for row in got.rows], got.rejects) == ([1, 2, 3, 4], [])


def test_fewer_and_more_good_lines_around_bad_ones_stay_in_order(tmp_path):
    lines: list[object] = [{"n": i} for i in range(1000)]
    lines[10] = lines[500] = lines[999] = b"{broken"
    got = read_files(JsonlRead(), [put(tmp_path / "a.jsonl", *lines)])
    assert [row["n"] for row in got.rows] == [i for i in range(1000) if i not in (10, 500, 999)]
    assert [reject.position for reject in got.rejects] == ["line 11", "line 501", "line 1000"]


@pytest.mark.slow
def test_ranges_of_a_file_give_every_line_once_with_the_same_types(tmp_path):
    rows = [{"id": i, "text": "x" * (i * 7 % 90), "late": 1.5 if i > 60 else None} for i in range(120)]
    path = put(tmp_path / "a.jsonl", *rows)
    size = Path(path).stat().st_size
    for step in (50, 97, 1000, size):
        ranges = [(start, min(start + step, size)) for start in range(0, size, step)]
        got = [row for span in ranges for row in read_files(JsonlRead(), [path], [span]).rows]
        assert got == rows
    got = read_all(JsonlReader(paths=path, split_bytes=1000))
    assert got.rows == rows
    assert len(got.batches) > 5


def test_a_reject_in_a_range_gives_the_byte(tmp_path):
    path = put(tmp_path / "a.jsonl", {"a": 1}, {"a": 2}, b"oops", {"a": 3})
    got = read_files(JsonlRead(), [path], [(5, 40)])
    assert got.reasons == [("broken JSON", "byte 18")]


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=12),
    st.booleans(),
    st.integers(1, 40),
    st.integers(1, 24),
)
def test_spans_of_any_size_give_each_line_exactly_once(lines, closed, step, block_bytes):
    import io

    data = b"\n".join(lines) + (b"\n" if closed and lines else b"")
    got = b""
    for start in range(0, len(data), step):
        span = (start, min(start + step, len(data)))
        for block in line_blocks(io.BytesIO(data), block_bytes=block_bytes, max_line_bytes=1 << 20, span=span):
            assert isinstance(block, Block)
            assert block.offset == len(got)
            got += bytes(block.data)
    assert got == data


@pytest.mark.parametrize(
    ("widths", "expected"),
    [
        ([10] * 10, [99]),  # the last line has no line end
        ([10] * 15, [149]),
        ([10] * 16, [100, 59]),
        ([10] * 35, [100, 100, 149]),
        ([10, 190, 10, 90, 40], [10, 190, 139]),  # a line that is longer than a block
        ([10, 400, 10], [10, 409]),  # the buffer has grown, and holds the rest
    ],
)
def test_a_rest_of_less_than_half_a_block_joins_the_block_before_it(widths, expected):
    import io

    data = b"\n".join(b"x" * (width - 1) for width in widths)
    blocks = line_blocks(io.BytesIO(data), block_bytes=100, max_line_bytes=1 << 20)
    assert [len(block.data) for block in blocks if isinstance(block, Block)] == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 40) | st.integers(2_000, 5_000), max_size=60), st.integers(0, 3))
def test_every_line_end_is_found_in_long_and_in_short_lines(widths, behind):
    data = b"".join(b"x" * width + b"\n" for width in widths) + b"y" * behind
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_bytes, "_STRIDE", 4096)
        found = _bytes.line_ends(bytearray(data + b"\n not looked at \n"), len(data))
    assert found.tolist() == [place for place, byte in enumerate(data) if byte == 10]


SCALARS = {
    "s": st.text(st.characters(exclude_categories=["Cs"])),
    "i": st.integers(-(1 << 63), (1 << 63) - 1),
    "u": st.integers(0, (1 << 64) - 1),
    "f": st.floats(allow_nan=False, allow_infinity=False),
    "b": st.booleans(),
}
TYPES = {"s": "string", "i": "int64", "u": "uint64", "f": "float64", "b": "bool"}
ANY_JSON = st.recursive(
    st.none() | st.integers() | SCALARS["s"] | SCALARS["f"] | SCALARS["b"],
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS["s"], inner, max_size=3),
    max_leaves=8,
)
FIELDS = {
    **{name: st.none() | values for name, values in SCALARS.items()},
    **{f"l{name}": st.none() | st.lists(st.none() | values, max_size=3) for name, values in SCALARS.items()},
    "o": st.none() | st.fixed_dictionaries({"x": st.none() | SCALARS["i"], "y": st.none() | SCALARS["s"]}),
    "j": ANY_JSON,
}
SCHEMA = {
    **TYPES,
    **{f"l{name}": f"list<{kind}>" for name, kind in TYPES.items()},
    "o": {"x": "int64", "y": "string"},
    "j": "json",
}


KINDS = [
    SCALARS["s"],
    st.integers(-9, 9),
    st.sampled_from([1.5, 0.0, -1e17, 9007199254740993.0]),
    st.sampled_from([1.5, 2, -0.0]),
    st.integers(-9, 9) | st.just((1 << 63) + 1) | st.just(1 << 70),
    st.booleans(),
    st.sampled_from([[], ["x"], [None]]),
    st.just({"x": 1}),
]


@st.composite
def nearly_uniform_rows(draw):
    """Rows with one kind of value for each key, and some rows that differ."""
    fields = draw(st.dictionaries(st.sampled_from("abcd"), st.sampled_from(KINDS), min_size=1))
    rows = draw(st.lists(st.fixed_dictionaries(fields) | st.fixed_dictionaries({}, optional=fields), max_size=6))
    odd = st.dictionaries(st.sampled_from("abcde"), st.none() | st.one_of(KINDS), max_size=3)
    for row in draw(st.lists(odd, max_size=2)):
        rows.insert(draw(st.integers(0, len(rows))), row)
    return rows


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(
    nearly_uniform_rows(),
    st.dictionaries(st.sampled_from("abc"), st.sampled_from(["string", "int64", "float64", "json"]), max_size=2),
    st.none() | st.lists(st.sampled_from("abcd"), min_size=1, unique=True),
    st.integers(1, 3),
)
@example([{"a": ["x"]}, {"a": []}], {}, None, 1)
@example([{"a": (1 << 63) + 1}, {"a": 1}], {}, None, 1)
@example([{"a": 1.5}, {"a": 1}, {"a": 2}], {}, None, 1)
@example([{"a": 1}, {"a": 1.5}], {}, None, 1)
@example([{"a": None, "b": 1}, {"a": "x"}], {}, None, 1)
@example([{"a": 1}, {"c": "x"}, {"b": "x"}], {"b": "string", "c": "string"}, None, 1)
def test_types_guessed_from_a_few_lines_equal_those_of_two_hundred(tmp_path_factory, rows, schema, columns, lines):
    path = put(tmp_path_factory.mktemp("r") / "a.jsonl", *rows)

    def read(count: int) -> tuple[object, ...]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jsonl, "_GUESS_LINES", count)
            got = read_files(JsonlRead(schema=schema, columns=columns), [path])
        # As text, because 1 == 1.0 == True.
        return [(str(batch.to_pyarrow().schema), repr(batch.to_pyarrow().to_pylist())) for batch in got.batches], [
            (reject.position, reject.reason, reject.message) for reject in got.rejects
        ]

    assert read(lines) == read(0)


DRIFTING = (
    st.one_of(KINDS) | st.none() | st.sampled_from([0, 1.0, -0.0, (1 << 53) + 1, [[]], [1, 2.0], [1.0], ["x", 1]])
)


@pytest.mark.slow
@pytest.mark.parametrize("examples", [120, pytest.param(300, marks=pytest.mark.thorough)])
def test_the_rows_are_the_same_however_a_file_is_divided(tmp_path_factory, examples):
    @settings(max_examples=examples, deadline=None)
    @given(st.lists(st.dictionaries(st.sampled_from("abc"), DRIFTING, max_size=3), max_size=14), st.data())
    @example([{"a": []}, {"a": [1.0]}, {"a": [1]}, {"b": 1, "a": [0.5]}], None)
    def holds(rows, data):
        rows = [{"id": number, **row} for number, row in enumerate([{}, *rows])]
        path = put(tmp_path_factory.mktemp("r") / "a.jsonl", *rows)
        size = Path(path).stat().st_size
        whole = divided(path, 1 << 20, size, 16)
        assert [without_nulls(json.loads(line)) for line in whole[0]] == [without_nulls(row) for row in rows]
        if data is None:
            assert all(divided(path, 64, step, 1) == whole for step in range(5, size))
        else:
            cut = (st.integers(64, 200), st.integers(5, size + 5), st.integers(1, 4))
            assert divided(path, *map(data.draw, cut)) == whole

    holds()


def divided(path: str, batch_bytes: int, step: int, least: int) -> tuple[list[bytes], str, bytes]:
    """The lines of a file that is read in ranges of ``step`` bytes, their common schema, and the lines in its types."""
    size = Path(path).stat().st_size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "_FIRST_LINES", 2)
        patch.setattr(jsonl, "_GUESS_LINES", 1)
        patch.setattr(_blocks, "_LEAST_LINES", least)  # a block that is not uniform is read in pieces of so many
        spans = [(start, min(start + step, size)) for start in range(0, size, step)]
        parts = [read_files(JsonlRead(batch_bytes=batch_bytes), [path], [span]) for span in spans]
    tables = [batch.to_pyarrow() for part in parts for batch in part.batches]
    lines = [line for table in tables for line in json_lines(table)]
    schema = schema_of([table for table in tables if table.num_rows]) if lines else None
    packed = b"".join(json_lines(pa.concat_tables(fitted(t, schema) for t in tables if t.num_rows))) if lines else b""
    return lines, str(schema), packed


def without_nulls(row: dict) -> dict:
    return {key: value for key, value in row.items() if value is not None}


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(st.fixed_dictionaries(FIELDS), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_any_object_of_the_declared_types_is_unchanged(tmp_path_factory, rows, ascii_only, with_json):
    schema = dict(SCHEMA)
    if not with_json:  # then the whole block goes through Arrow's parser
        del schema["j"]
        rows = [{k: v for k, v in row.items() if k != "j"} for row in rows]
    path = tmp_path_factory.mktemp("r") / "a.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows), "utf-8")
    got = read_files(JsonlRead(schema=schema), [str(path)])
    assert got.rejects == []
    again = [json.loads(line) for line in json_lines(got.table)]
    # Compared as text, because 1 == 1.0 == True.
    assert [json.dumps(row, sort_keys=True) for row in again] == [json.dumps(row, sort_keys=True) for row in rows]


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abcd"), ANY_JSON, max_size=4), min_size=1, max_size=6))
def test_no_value_changes_whatever_the_first_rows_are(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("r") / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    got = read_files(JsonlRead(), [str(path)])
    rejected = {int(reject.position.split()[1]) - 1 for reject in got.rejects}
    assert {reject.reason for reject in got.rejects} <= {"empty object"}
    assert not got.rejects or not any(rows)
    kept = [row for index, row in enumerate(rows) if index not in rejected]
    for line, row in zip(json_lines(got.table) if got.batches else (), kept, strict=True):
        again = {key: value for key, value in json.loads(line).items() if value is not None}
        assert again == {key: value for key, value in row.items() if value is not None}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"schema": {"a": "strin"}}, "did you mean 'string'"),
        ({"schema": {"a": "list<json>"}}, "declare the whole column as json"),
        ({"schema": ["a"]}, "must map columns to types"),
        ({"columns": "text"}, r"columns must be a list of names"),
        ({"columns": []}, "columns is empty"),
        ({"batch_bytes": "2GiB"}, "between 64 bytes and 1 GiB"),
        ({"paths": []}, "paths must be"),
        ({"split_bytes": "big"}, "split_bytes"),
    ],
)
def test_wrong_parameters_are_refused_when_the_reader_is_made(params, message):
    with pytest.raises(UsageError, match=message):
        JsonlReader(**{"paths": "in", **params})


def test_a_compressed_file_is_not_divided_into_ranges(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(gzip.compress(b'{"a":1}\n'))
    with pytest.raises(UsageError, match="cannot be split"):
        read_files(JsonlRead(), [str(path)], [(0, 5)])


def test_files_in_an_object_store_are_read_like_local_ones():
    import fsspec

    with fsspec.open("memory://jsonl/a.jsonl.gz", "wb") as out:
        out.write(gzip.compress(b'{"a":1}\n{"a":2}\n'))
    assert read_all(JsonlReader(paths="memory://jsonl/*.jsonl.gz", path_column="from")).rows == [
        {"a": 1, "from": "memory://jsonl/a.jsonl.gz"},
        {"a": 2, "from": "memory://jsonl/a.jsonl.gz"},
    ]


MEMORY = """
import resource, sys
from curator_core.model.task import FileGroupTask
from curator_text.readers import JsonlRead
stage = JsonlRead()
stage.process(FileGroupTask(data=[sys.argv[1]])).__next__()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = sum(batch.num_rows for batch in stage.process(FileGroupTask(data=[sys.argv[1]])))
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    row = json.dumps({"id": "x", "text": "word " * 2000}).encode() + b"\n"
    # A gzip stream of 300 MB that takes 1 MB on disk.
    with gzip.open(path, "wb", compresslevel=1) as out:
        for _ in range(300):
            out.write(row * 100)
    done = subprocess.run([sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True)
    rows, grown_mb = done.stdout.split()
    assert int(rows) == 30_000
    assert float(grown_mb) < 100


@pytest.mark.parametrize("path_column", [None, "file"])
def test_a_file_with_only_bad_lines_gives_rejects_and_no_batch(tmp_path, path_column):
    (tmp_path / "a.jsonl").write_text("[1]\nbroken\n")
    got = read_all(JsonlReader(paths=str(tmp_path), path_column=path_column))
    assert got.batches == []
    assert [reject.reason for reject in got.rejects] == ["not an object", "broken JSON"]
    got = read_all(JsonlReader(paths=str(tmp_path), path_column=path_column, schema={"text": "string"}))
    assert [batch.column_names for batch in got.batches] == [["text", *([path_column] if path_column else [])]]
    assert [batch.num_rows for batch in got.batches] == [0]
