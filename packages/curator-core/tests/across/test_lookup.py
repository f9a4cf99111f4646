"""A join with a side table: the columns added, the rows that stay, the input that is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_core import DocumentBatch, LocalExecutor, Pipeline, UsageError, WorkerMetadata
from curator_core.across import side_table
from curator_core.across.lookup import Lookup
from curator_core.across.side_table import KeyIndex


def looked_up(rows: pa.Table, **how: Any) -> tuple[pa.Table, dict[str, int], dict[str, float]]:
    stage = Lookup(**how)
    stage.setup(WorkerMetadata())
    made = stage.process(DocumentBatch(data=rows, task_id="s-1")).to_pyarrow()
    return made, stage.recorder.dropped, stage.recorder.metrics


def side(folder: Path, table: pa.Table, name: str = "side.parquet") -> str:
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(table, path)
    else:
        text = "".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return str(path)


KEYS = st.none() | st.sampled_from(["a", "b", "c", "d", "", "é"])


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(KEYS, max_size=12),
    entries=st.dictionaries(KEYS, st.integers(0, 9) | st.none(), max_size=5),
    how=st.sampled_from(["left", "inner", "anti"]),
    name=st.sampled_from(["side.parquet", "side.jsonl", "side.jsonl.gz"]),
)
def test_the_join_equals_that_of_pandas_with_the_rows_in_order(tmp_path_factory, rows, entries, how, name):
    folder = tmp_path_factory.mktemp("side")
    table = pa.table({"key": pa.array(entries, pa.string()), "score": pa.array(entries.values(), pa.int64())})
    data = pa.table({"key": pa.array(rows, pa.string()), "n": pa.array(range(len(rows)), pa.int64())})
    found, dropped, metrics = looked_up(
        data, table=side(folder, table, name), on="key", how=how, columns=None if how == "anti" else ["score"]
    )
    # To pandas a null is a key like others.
    right = table.to_pandas().dropna(subset=["key"])
    left = data.to_pandas()
    if how == "anti":
        expected = left[~left["key"].isin(right["key"])]
    else:
        expected = left.merge(right, on="key", how=how).sort_values("n")
    assert found["n"].to_pylist() == expected["n"].tolist()
    there = left["key"].isin(right["key"])
    if how == "anti":
        assert found.column_names == ["key", "n"]
        assert dropped == ({"listed": int(there.sum())} if there.any() else {})
        return
    assert found["score"].to_pylist() == [None if pd.isna(score) else int(score) for score in expected["score"]]
    missing = int((~there).sum())
    assert dropped == ({"no match": missing} if missing and how == "inner" else {})
    assert metrics == ({"no match": missing} if missing and how == "left" else {})


def test_columns_are_chosen_and_named_with_a_prefix(tmp_path: Path):
    path = side(tmp_path, pa.table({"address": ["x", "y"], "rank": [1, 2], "kind": ["a", "b"]}))
    rows = pa.table({"url": ["y", "z"], "rank": [0, 0]})
    found, _, _ = looked_up(rows, table=path, on="url", table_on="address", columns=["rank"], prefix="site_")
    assert found.to_pydict() == {"url": ["y", "z"], "rank": [0, 0], "site_rank": [2, None]}
    everything, _, _ = looked_up(rows, table=path, on="url", table_on="address", prefix="s_")
    assert everything.column_names == ["url", "rank", "s_rank", "s_kind"]


def test_several_columns_form_a_key_and_numbers_are_equal_whatever_their_type(tmp_path: Path):
    path = side(
        tmp_path, pa.table({"host": ["a", "a", "b"], "year": pa.array([1, 2, 1], pa.int16()), "w": [10, 20, 30]})
    )
    rows = pa.table({"host": ["a", "b", "b", "a"], "year": [2.0, 1.0, 2.0, None]})
    found, _, _ = looked_up(rows, table=path, on=["host", "year"])
    assert found["w"].to_pylist() == [20, 30, None, None]
    text, _, _ = looked_up(pa.table({"year": ["1"], "host": ["a"]}), table=path, on=["host", "year"])
    assert text["w"].to_pylist() == [None]


def test_keys_that_share_half_of_their_digest_are_distinguished(monkeypatch):
    monkeypatch.setattr(
        side_table, "row_digests", lambda table, keys: [b"\7" * 8 + bytes([n] * 8) for n in table["k"].to_pylist()]
    )
    index = KeyIndex.of(pa.table({"k": [5, 3, 9]}), ["k"])
    assert index.find(pa.table({"k": [9, 4, 3, 5, 10]}), ["k"]).tolist() == [2, -1, 1, 0, -1]
    assert index.twice() is None
    assert KeyIndex.of(pa.table({"k": [5, 3, 5]}), ["k"]).twice() == (0, 2)


def test_a_key_in_two_rows_is_refused_and_the_rows_are_named(tmp_path: Path):
    path = side(tmp_path, pa.table({"url": ["a", "b", None, None, "b"], "n": range(5)}))
    with pytest.raises(UsageError, match=r"rows 2 and 5 of .*side\.parquet' have the same key, url='b'"):
        looked_up(pa.table({"url": ["b"]}), table=path, on="url")
    assert looked_up(pa.table({"url": ["b", "x"]}), table=path, on="url", how="anti")[0]["url"].to_pylist() == ["x"]
    found, dropped, _ = looked_up(pa.table({"url": ["b", "x"]}), table=path, on="url", how="inner", columns=[])
    assert found.to_pydict() == {"url": ["b"]}
    assert dropped == {"no match": 1}


def test_a_table_too_large_for_the_memory_is_refused_with_a_remedy(tmp_path: Path):
    path = side(tmp_path, pa.table({"url": ["x" * 1000] * 1000, "n": range(1000)}))
    with pytest.raises(UsageError, match=r"more than memory=.* in each worker.*ShuffleWriter.*GroupByKey"):
        looked_up(pa.table({"url": ["b"]}), table=path, on="url", memory="100KiB")


def test_a_text_file_is_a_list_of_keys(tmp_path: Path):
    (tmp_path / "ids.txt").write_bytes("a\r\nZürich\n\nlast".encode())
    rows = pa.table({"id": ["Zürich", "b", "", "last"]})
    assert looked_up(rows, table=f"{tmp_path}/*.txt", on="id", how="anti")[0]["id"].to_pylist() == ["b", ""]


def test_numbers_are_found_in_a_text_file_although_it_has_no_types(tmp_path: Path):
    (tmp_path / "ids.txt").write_text("3\n7\n")
    for kind in (pa.int64(), pa.float64(), pa.string()):
        rows = pa.table({"id": pa.array([1, 3, 7]).cast(kind)})
        assert looked_up(rows, table=f"{tmp_path}/ids.txt", on="id", how="anti")[0].num_rows == 1
    with pytest.raises(UsageError, match="the column 'id' is list"):
        looked_up(pa.table({"id": [[3]]}), table=f"{tmp_path}/ids.txt", on="id", how="anti")


def test_a_folder_of_files_is_one_table_and_an_empty_one_has_no_match(tmp_path: Path):
    side(tmp_path, pa.table({"id": [1], "a": [1.5]}), "1.jsonl")
    side(tmp_path, pa.table({"id": [2], "b": ["x"]}), "2.jsonl")
    found, _, _ = looked_up(pa.table({"id": [2, 1]}), table=str(tmp_path), on="id")
    assert found.to_pydict() == {"id": [2, 1], "a": [None, 1.5], "b": ["x", None]}
    (tmp_path / "empty.jsonl").write_text("")
    one = looked_up(pa.table({"id": [2]}), table=str(tmp_path / "empty.jsonl"), on="id", columns=["b"])[0]
    assert one.to_pydict() == {"id": [2], "b": [None]}
    assert looked_up(pa.table({"id": [2]}), table=str(tmp_path / "empty.jsonl"), on="id", how="inner")[0].num_rows == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id": 1}\n{"id":\n', r"line 2 of '.*x\.jsonl' is not JSON"),
        ("[1]\n", "line 1 of .* is not an object"),
        ('{"id": 1}\n{"id": "a"}\n', "values of different kinds"),
        ('{"ident": 1}\n', r"has no column 'id'; did you mean 'ident'"),
    ],
)
def test_a_bad_side_table_is_named_with_the_place(tmp_path: Path, content: str, message: str):
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(UsageError, match=message):
        looked_up(pa.table({"id": [1]}), table=str(tmp_path / "x.jsonl"), on="id")


def test_other_side_tables_and_damaged_ones_are_refused(tmp_path: Path):
    (tmp_path / "x.csv").write_text("id\n1\n")
    (tmp_path / "x.parquet").write_text("no parquet")
    with pytest.raises(UsageError, match=r"ends in \.parquet, .*x\.csv' does not"):
        looked_up(pa.table({"id": [1]}), table=str(tmp_path / "x.csv"), on="id")
    with pytest.raises(UsageError, match=r"x\.parquet' is not Parquet"):
        looked_up(pa.table({"id": [1]}), table=str(tmp_path / "x.parquet"), on="id")
    path = side(tmp_path, pa.table({"id": [1], "score": [2]}))
    with pytest.raises(UsageError, match=r"has no column 'scor'; did you mean 'score'"):
        looked_up(pa.table({"id": [1]}), table=path, on="id", columns=["scor"])


def test_a_column_of_the_data_is_not_overwritten(tmp_path: Path):
    path = side(tmp_path, pa.table({"id": [1], "text": ["mine"]}))
    with pytest.raises(UsageError, match="adds a column 'text', and there is one already"):
        looked_up(pa.table({"id": [1], "text": ["x"]}), table=path, on="id")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"table": []}, "Lookup.table must be a path"),
        ({"on": ""}, "Lookup.on must be the name of a column"),
        ({"on": ["a", "a"]}, "list of different ones"),
        ({"table_on": ["a", "b"]}, "as many columns"),
        ({"how": "outer"}, "one of left, inner, anti, not 'outer'"),
        ({"columns": "score"}, r"a list such as \['score'\]"),
        ({"how": "anti", "columns": ["score"]}, "adds no columns"),
        ({"memory": "much"}, "Lookup.memory must be a number of bytes"),
    ],
)
def test_a_wrong_parameter_is_refused_when_the_stage_is_made(wrong, message):
    with pytest.raises(UsageError, match=message):
        Lookup(**{"table": "t.parquet", "on": "id", **wrong})


def test_in_a_pipeline_rows_without_a_match_are_accounted_for(tmp_path: Path):
    path = side(tmp_path, pa.table({"id": [1, 3], "score": [0.5, 0.7]}))
    rows = DocumentBatch(data=pa.table({"id": [1, 2, 3, 4]}))
    stages = [Lookup(table=path, on="id", how="inner"), Lookup(table=path, on="id", prefix="again_")]
    result = Pipeline(stages).run(LocalExecutor(workers=0), initial_tasks=[rows])
    assert result[0].to_pyarrow().to_pydict() == {"id": [1, 3], "score": [0.5, 0.7], "again_score": [0.5, 0.7]}
    assert result.summary.stages[0].dropped == {"no match": 2}
