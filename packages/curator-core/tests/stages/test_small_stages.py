"""Ids, samples, limits and columns: small stages that every pipeline uses."""

from __future__ import annotations

import datetime as dt
import hashlib
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_core import DocumentBatch, LocalExecutor, Pipeline, ProcessingStage, UsageError
from curator_core.arrow.row_hash import row_digests
from curator_core.stages.columns import DropColumns, RenameColumns, SelectColumns, Where
from curator_core.stages.ids import AddId
from curator_core.stages.sampling import Limit, Sample


def batch(task_id: str = "s-1", **columns: Any) -> DocumentBatch:
    return DocumentBatch(data=pa.table(columns), task_id=task_id)


def run(stage: ProcessingStage[Any, Any], task: DocumentBatch) -> dict[str, list[Any]]:
    return stage.process(task).to_pyarrow().to_pydict()


# Hashes and ids


def test_an_id_depends_only_on_the_content() -> None:
    one = run(AddId(), batch("a", text=["x", "y", "x"]))["id"]
    two = run(AddId(), batch("b", text=["y"], other=[1]))["id"]
    assert one[0] == one[2] != one[1]
    assert two == [one[1]]
    assert len(one[0]) == 32


def test_ids_do_not_change_because_other_files_contain_them() -> None:
    table = {"text": ["Zürich", None], "n": [1, 2], "f": [0.5, float("nan")], "b": [b"\0", b""], "l": [[1], []]}
    ids = run(AddId(columns=["text", "n", "f", "b", "l"], prefix="doc-"), batch(**table))["id"]
    rows = [b"t7:Z\xc3\xbcrichn1:1n20:0x1.0000000000000p-1b1:\0j3:[1]", b"0n1:2n3:nanb0:j2:[]"]
    assert ids == [f"doc-{hashlib.blake2b(row, digest_size=16).hexdigest()}" for row in rows]


def test_unique_ids_distinguish_equal_rows_and_are_repeatable() -> None:
    rows = batch("s-1.00000", text=["x"] * 50)
    ids = run(AddId(unique=True), rows)["id"]
    assert len(set(ids)) == 50
    assert run(AddId(unique=True), rows)["id"] == ids
    other = run(AddId(unique=True), batch("s-1.00001", text=["x"] * 50))["id"]
    assert not set(ids) & set(other)


def test_an_existing_id_column_is_not_overwritten_by_accident() -> None:
    with pytest.raises(UsageError, match="'id' already"):
        run(AddId(), batch(text=["x"], id=["mine"]))
    assert run(AddId(overwrite=True), batch(text=["x"], id=["mine"]))["id"] != ["mine"]


def test_ids_can_also_be_overwritten_in_a_run() -> None:
    tasks = [batch(text=["x"], id=["mine"])]
    result = Pipeline([AddId(overwrite=True)]).run(LocalExecutor(workers=0), initial_tasks=tasks)
    assert result.to_arrow().to_pydict() == run(AddId(), batch(text=["x"]))


def test_the_width_and_the_encoding_of_a_column_do_not_matter() -> None:
    def digest(array: pa.Array) -> bytes:
        return row_digests(pa.table({"x": array}), ["x"])[-1]

    assert digest(pa.array(["a"])) == digest(pa.array(["b", "a"], pa.large_string()).slice(1))
    assert digest(pa.array(["a"])) == digest(pa.array(["a"]).dictionary_encode())
    assert digest(pa.array([1], pa.int8())) == digest(pa.array([1], pa.uint64()))
    assert digest(pa.array([0.5], pa.float32())) == digest(pa.array([0.5]))
    assert digest(pa.chunked_array([["b"], [], ["a"]])) == digest(pa.array(["a"]))


def test_null_and_empty_values_and_ones_of_different_types_have_different_hashes() -> None:
    arrays = [
        pa.array([None], pa.string()),
        pa.array([""]),
        pa.array([b""]),
        pa.array(["1"]),
        pa.array([b"1"]),
        pa.array([1]),
        pa.array([[1]]),
        pa.array(["0:"]),
    ]
    digests = [row_digests(pa.table({"x": array}), ["x"])[0] for array in arrays]
    assert len(set(digests)) == len(arrays)


def test_every_kind_of_column_can_be_hashed() -> None:
    values = [True, dt.date(2024, 2, 29), dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.timedelta(1), Decimal("1.5")]
    arrays = [pa.array([value, None]) for value in values]
    arrays += [pa.array([{"b": b"x", "a": [1.5]}, None]), pa.nulls(2), pa.array([b"ab", None], pa.binary(2))]
    for array in arrays:
        first, second = row_digests(pa.table({"x": array}), ["x"])
        assert (first == second) == pa.types.is_null(array.type)


@given(st.lists(st.tuples(st.text() | st.none(), st.binary() | st.none()), max_size=20))
def test_rows_share_a_hash_exactly_if_they_are_equal(rows: list[tuple[str | None, bytes | None]]) -> None:
    table = pa.table(
        {"a": pa.array([row[0] for row in rows], pa.string()), "b": pa.array([row[1] for row in rows], pa.binary())}
    )
    digests = row_digests(table, ["a", "b"])
    assert len(digests) == len(rows)
    assert len(set(digests)) == len(set(rows))


def test_a_missing_column_is_reported_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"no column 'txt'; did you mean 'text'"):
        run(AddId(columns=["txt"]), batch(text=["x"]))


@pytest.mark.parametrize("wrong", [{"columns": "text"}, {"columns": []}, {"id_column": ""}, {"prefix": None}], ids=str)
def test_wrong_parameters_of_ids_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"AddId.{next(iter(wrong))} must be"):
        AddId(**wrong)


# Samples and limits


def test_a_sample_is_always_the_same_and_about_as_large_as_requested() -> None:
    rows = batch(text=[f"row {number}" for number in range(20_000)])
    for stage in (Sample(fraction=0.1, seed=3), Sample(fraction=0.1, seed=3, columns=["text"])):
        kept = run(stage, rows)["text"]
        assert 1800 < len(kept) < 2200
        assert run(stage, rows)["text"] == kept
        assert run(stage.with_(seed=4), rows)["text"] != kept
        wider = set(run(stage.with_(fraction=0.5), rows)["text"])
        assert set(kept) < wider
        assert stage.recorder.dropped == {"not sampled": 2 * (20_000 - len(kept))}


def test_a_sample_by_content_does_not_depend_on_the_place_of_a_row() -> None:
    texts = [f"row {number % 50}" for number in range(1000)]
    kept = run(Sample(fraction=0.3, columns=["text"]), batch("a", text=texts))["text"]
    again = run(Sample(fraction=0.3, columns=["text"]), batch("b", text=texts[::-1]))["text"]
    assert sorted(kept) == sorted(again)
    assert all(kept.count(text) == 20 for text in kept)


def test_a_sample_can_be_empty_or_complete() -> None:
    rows = batch(text=["a", "b"])
    assert run(Sample(fraction=0), rows)["text"] == []
    assert run(Sample(fraction=1), rows)["text"] == ["a", "b"]
    with pytest.raises(UsageError, match="from 0 to 1"):
        Sample(fraction=10)


def test_a_limit_takes_the_first_rows_of_all_tasks_and_counts_the_others() -> None:
    tasks = [batch("a", x=[1, 2]), batch("b", x=pa.array([], pa.int64())), batch("c", x=[3, 4, 5]), batch("d", x=[6])]
    stage = Limit(rows=3)
    assert run(stage, tasks) == {"x": [1, 2, 3]}  # type: ignore[arg-type]
    assert stage.recorder.dropped == {"beyond the limit": 3}
    assert run(Limit(rows=0), tasks) == {"x": []}  # type: ignore[arg-type]
    assert run(Limit(rows=99), tasks) == {"x": [1, 2, 3, 4, 5, 6]}  # type: ignore[arg-type]
    assert Limit(rows=3).process([]) is None


# Columns


def test_columns_are_selected_dropped_and_renamed() -> None:
    rows = batch(a=[1], b=[2], c=[3])
    assert list(run(SelectColumns(["c", "a"]), rows)) == ["c", "a"]
    assert list(run(DropColumns(["b"]), rows)) == ["a", "c"]
    assert run(RenameColumns({"a": "x"}), rows) == {"x": [1], "b": [2], "c": [3]}
    assert run(RenameColumns({"a": "b", "b": "a"}), rows) == {"b": [1], "a": [2], "c": [3]}
    assert rows.column_names == ["a", "b", "c"]


@pytest.mark.parametrize("make", [SelectColumns, DropColumns, lambda names: RenameColumns({names[0]: "new"})])
def test_a_misspelled_column_is_an_error_that_names_the_nearest(make: Any) -> None:
    with pytest.raises(UsageError, match=r"no column 'txt'; did you mean 'text'"):
        make(["txt"]).process(batch(text=["x"]))


def test_wrong_lists_of_columns_are_refused() -> None:
    for wrong in ("text", [], ["a", "a"], [1]):
        with pytest.raises(UsageError, match=r"SelectColumns\.columns"):
            SelectColumns(wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="twice"):
        RenameColumns({"a": "x", "b": "x"})
    with pytest.raises(UsageError, match="'b' already"):
        RenameColumns({"a": "b"}).process(batch(a=[1], b=[2]))


@pytest.mark.parametrize(
    ("column", "op", "value", "kept"),
    [
        ("n", "==", 2, [2]),
        ("n", "!=", 2, [1, 3]),
        ("n", "<", 2.5, [1, 2]),
        ("n", "<=", 2, [1, 2]),
        ("n", ">", 1, [2, 3]),
        ("n", ">=", 3, [3]),
        ("n", "in", [1, 3], [1, 3]),
        ("n", "not in", [1], [2, 3]),
        ("n", "is null", None, [None]),
        ("n", "is not null", None, [1, 2, 3]),
        ("text", "contains", "hann", [2]),
        ("text", "starts with", "a", [1]),
        ("text", "matches", "^.n", [1]),
        ("text", "in", ["anna", "otto"], [1, 3]),
        ("day", ">", "2024-01-15", [2, 3]),
    ],
)
def test_where_keeps_the_rows_that_meet_the_comparison(column: str, op: Any, value: Any, kept: list[Any]) -> None:
    rows = batch(
        n=[1, 2, 3, None],
        text=["anna", "hanna", "otto", None],
        day=pa.array([dt.date(2024, month, 1) for month in (1, 2, 3)] + [None]),
    )
    stage = Where(column=column, op=op, value=value)
    assert run(stage, rows)["n"] == kept
    shown = "" if value is None else f" {value!r}"
    assert stage.recorder.dropped == {f"not {column} {op}{shown}": 4 - len(kept)}


def test_where_can_annotate_and_invert() -> None:
    rows = batch(n=[1, 2])
    assert run(Where(column="n", value=1, mode="annotate"), rows) == {
        "n": [1, 2],
        "where": [1, 2],
        "where_keep": [True, False],
    }
    assert run(Where(column="n", value=1, mode="invert"), rows) == {"n": [2]}


@pytest.mark.slow
@given(st.lists(st.integers(-3, 3) | st.none()), st.integers(-3, 3))
def test_where_and_its_opposite_keep_all_rows_that_are_not_null(values: list[int | None], value: int) -> None:
    rows = batch(n=pa.array(values, pa.int64()))
    for op, other in (("==", "!="), ("<", ">="), (">", "<="), ("in", "not in")):
        wanted: Any = [value] if "in" in op else value
        left = run(Where(column="n", op=op, value=wanted), rows)["n"]
        right = run(Where(column="n", op=other, value=wanted), rows)["n"]
        assert len(left) + len(right) == len(values) - values.count(None)
        assert sorted(left + right) == sorted(pc.drop_null(rows.to_pyarrow()["n"]).to_pylist())


@pytest.mark.parametrize(
    "params",
    [
        {"op": "="},
        {"op": "=="},
        {"op": "in", "value": "abc"},
        {"op": "is null", "value": 1},
        {"op": "contains", "value": 1},
    ],
)
def test_a_meaningless_comparison_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="Where"):
        Where(column="n", **params)


def test_a_comparison_that_is_impossible_for_a_column_names_its_type() -> None:
    with pytest.raises(UsageError, match=r"n > 'x': the column holds int64"):
        run(Where(column="n", op=">", value="x"), batch(n=[1]))
    with pytest.raises(UsageError, match=r"the column holds string"):
        run(Where(column="t", op=">", value=1), batch(t=["x"]))
