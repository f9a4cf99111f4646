"""Rows are in the order of their columns, whatever the types, the memory, the files and the workers."""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_core import LocalExecutor, Sort, UsageError
from curator_core.across import order
from curator_core.across.order import sort_keys
from curator_core.config.pipeline_file import load_pipeline

HERE = LocalExecutor(workers=0)
WHOLE = st.integers(-(2**63), 2**63 - 1)
KINDS = {
    pa.int64(): WHOLE,
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.int8(): st.integers(-128, 127),
    pa.float64(): st.floats(allow_nan=False),
    pa.string(): st.text("a\0\x01bü\U0001f600", max_size=4),
    pa.large_binary(): st.binary(max_size=4),
    pa.bool_(): st.booleans(),
    pa.date32(): st.dates(),
    pa.timestamp("us"): st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1)),
}


@given(st.sampled_from(list(KINDS)), st.booleans(), st.data())
def test_keys_compare_like_values_and_null_comes_last(kind: pa.DataType, down: bool, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.none() | KINDS[kind], max_size=8))
    table = pa.table({"a": pa.array(values, kind)})
    keys = sort_keys(table, ["a"], ["a"] if down else [], table.schema)
    for one, key in zip(values, keys, strict=True):
        for other, other_key in zip(values, keys, strict=True):
            if one is None or other is None:
                assert (key < other_key) == (one is not None and other is None)
            else:
                assert (key < other_key) == (one > other if down else one < other)
                assert (key == other_key) == (one == other)


@given(st.lists(st.tuples(st.text("a\0b", max_size=3), st.integers(-3, 3)), max_size=6))
def test_keys_of_several_columns_compare_by_one_after_the_other(rows: list[tuple[str, int]]) -> None:
    table = pa.table(
        {"a": pa.array([a for a, _ in rows], pa.string()), "b": pa.array([b for _, b in rows], pa.int64())}
    )
    keys = sort_keys(table, ["a", "b"], ["b"], table.schema)
    wanted = sorted(range(len(rows)), key=lambda at: (rows[at][0], -rows[at][1]))
    assert sorted(range(len(rows)), key=lambda at: keys[at]) == wanted


def test_nan_comes_after_all_numbers_and_before_null() -> None:
    table = pa.table({"a": pa.array([None, math.nan, math.inf, -0.0, 0.0])})
    keys = sort_keys(table, ["a"], [], table.schema)
    assert keys[3] == keys[4] < keys[2] < keys[1] < keys[0]


def test_a_list_is_not_a_key() -> None:
    table = pa.table({"a": pa.array([[1]])})
    with pytest.raises(UsageError, match=r"Sort.columns names 'a', which holds list<.*sort by text, numbers"):
        sort_keys(table, ["a"], [], table.schema)


def written(folder: Path, files: list[list[dict[str, Any]]]) -> str:
    for number, rows in enumerate(files):
        path = folder / "in" / f"{number:03d}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "in")


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


ROWS = [{"id": n, "group": "abc"[n * 7 % 3], "score": (n * 37) % 11, "text": "x" * (n % 50)} for n in range(600)]


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["group"], -row["score"]))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("curator_text")
    return written(tmp_path_factory.mktemp("sort"), [ROWS[:10], ROWS[10:300], ROWS[300:]])


@pytest.mark.parametrize("cuts", [1 << 14, 4, 0], ids=["many cuts", "few cuts", "no cut"])
@pytest.mark.parametrize("memory", ["128MiB", "8KiB"])
def test_rows_are_in_order_and_equal_rows_stay_in_the_order_of_the_input(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuts: int, memory: str
) -> None:
    monkeypatch.setattr(order, "_OF_ALL", cuts)
    sort = Sort(paths=data, path=str(tmp_path / "out"), columns=["group", "score"], descending=["score"])
    Sort(**{**sort.params(), "partitions": 3, "memory": memory, "batch_bytes": "4KiB"}).run(
        HERE, run_dir=tmp_path / "run"
    )
    assert read(tmp_path / "out") == in_order(ROWS)
    assert not (tmp_path / "run" / "work").exists()


def test_sorting_in_a_file_of_steps_does_not_depend_on_workers_and_files(tmp_path: Path) -> None:
    pytest.importorskip("curator_text")
    written(tmp_path, [ROWS[at : at + 50] for at in range(0, 600, 50)])
    file = tmp_path / "sort.yaml"
    file.write_text(
        "workflow:\n  Sort: {paths: in/, path: out/, columns: [group, score], descending: [score], partitions: 4}\n"
    )
    summary = load_pipeline(str(file)).workflow.run(LocalExecutor(workers=2), run_dir=tmp_path / "run").summary
    assert read(tmp_path / "out") == in_order(ROWS)
    assert (summary.rows_in, summary.rows_out) == (600, 600)
    assert 1 < len(list((tmp_path / "out").glob("*.jsonl"))) <= 4


def test_whole_numbers_and_floats_of_different_files_have_one_order(tmp_path: Path) -> None:
    pytest.importorskip("curator_text")
    data = written(tmp_path, [[{"a": 2}, {"a": 1}], [{"a": 1.5}, {"a": None}], [{"a": None}]])
    Sort(paths=data, path=str(tmp_path / "out"), columns=["a"]).run(HERE, run_dir=tmp_path / "run")
    assert [row["a"] for row in read(tmp_path / "out")] == [1, 1.5, 2, None, None]


def test_text_and_numbers_together_have_no_order(tmp_path: Path) -> None:
    pytest.importorskip("curator_text")
    data = written(tmp_path, [[{"a": 2}], [{"a": "x"}]])
    with pytest.raises(
        UsageError, match=r"Sort.columns names 'a', which holds int64 and string: give it one type before"
    ):
        Sort(paths=data, path=str(tmp_path / "out"), columns=["a"]).run(HERE, run_dir=tmp_path / "run")


def test_an_empty_input_is_no_error(tmp_path: Path) -> None:
    pytest.importorskip("curator_text")
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "in" / "none.parquet")
    Sort(paths=str(tmp_path / "in"), path=str(tmp_path / "out"), columns=["a"]).run(HERE, run_dir=tmp_path / "run")
    (made,) = (tmp_path / "out").glob("*.parquet")
    assert pq.read_table(made).column_names == ["a"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"columns": []}, r"Sort.columns must name columns, each once, not \[\]"),
        ({"columns": "a"}, r"Sort.columns must name columns, each once, not 'a'"),
        ({"columns": ["a"], "descending": ["b"]}, r"Sort.descending names 'b', which is not among the columns"),
        ({"columns": ["a"], "memory": "lots"}, r"Sort.memory"),
        ({"columns": ["a"], "partitions": 0}, r"Sort.partitions"),
        ({"columns": ["a"], "path": None}, r"Sort needs a path to write to"),
    ],
)
def test_the_error_says_what_is_wrong(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Sort(**{"paths": "in", "path": "out", **wrong})


def test_a_disk_that_is_clearly_too_small_is_detected_before_anything_is_written(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from curator_core.workflows import ends

    monkeypatch.setattr(ends, "free_bytes", lambda _: 1000)
    sort = {"paths": data, "path": str(tmp_path / "out"), "columns": ["id"]}
    with pytest.raises(
        UsageError, match=r"Sort needs about .* but only 1 kB are free at .*--run-dir.*check_disk: false"
    ):
        Sort(**sort).run(HERE, run_dir=tmp_path / "run")
    assert not (tmp_path / "out").exists()
    Sort(**sort, check_disk=False).run(HERE, run_dir=tmp_path / "run")
    assert len(read(tmp_path / "out")) == 600


def test_very_many_files_are_gathered_before_they_are_read(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from curator_core.workflows import ends

    monkeypatch.setattr(ends, "MANY_PIECES", 5)
    sort = Sort(paths=data, path=str(tmp_path / "out"), columns=["group", "score"], descending=["score"], partitions=2)
    summary = sort.run(HERE, run_dir=tmp_path / "run").summary
    assert [step.name for step in summary.steps] == ["sample", "lay out", "gather rows", "sort"]
    assert read(tmp_path / "out") == in_order(ROWS)
    again = sort.run(HERE, run_dir=tmp_path / "run", resume=True).summary
    assert all(step.complete_before for step in again.steps)
