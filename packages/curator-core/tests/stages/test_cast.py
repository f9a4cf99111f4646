"""Cast: columns get other types, and a value that cannot be cast costs its row."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from curator_core.arrow.json_column import JSON
from curator_core.arrow.row_hash import row_digests
from curator_core.errors import UsageError
from curator_core.model.task import DocumentBatch
from curator_core.stages.cast import Cast
from curator_core.stages.columns import Where


def json_column(*values: object) -> pa.Array:
    texts = [None if value is None else json.dumps(value) for value in values]
    return pa.ExtensionArray.from_storage(JSON, pa.array(texts, pa.string()))


def cast(column: pa.Array, kind: str) -> tuple[list[object], list[str]]:
    stage = Cast(columns={"a": kind})
    got = stage.process(DocumentBatch(data=pa.table({"a": column})))
    return got.to_pyarrow()["a"].to_pylist(), [reject.message for reject in stage.recorder.rejects]


def test_values_of_any_kind_become_text_as_in_json():
    values = ["x", 5, 5.0, 0.5, True, None, {"a": [1.0]}, ["é"]]
    texts = ["x", "5", "5", "0.5", "true", None, '{"a":[1]}', '["é"]']
    assert cast(json_column(*values), "string") == (texts, [])
    # In a column of one type they are the same texts.
    for column in (pa.array([5, None]), pa.array([0.5, 5.0]), pa.array([True]), pa.array([["é"]])):
        alone = cast(json_column(*column.to_pylist()), "string")
        assert cast(column, "string") == alone


@pytest.mark.parametrize(
    ("column", "kind", "values", "rejected"),
    [
        (["1", "x", None, "2.5"], "int64", [1, None], ["holds 'x', which is not int64", "holds '2.5'"]),
        ([1.0, 1.5], "int", [1], ["holds 1.5"]),
        ([1, (1 << 53) + 1], "float64", [1.0], ["holds 9007199254740993"]),
        (
            json_column(1, "2", 0.5, {}, 1 << 70),
            "float64",
            [1.0, 2.0, 0.5],
            ["holds {}", "holds 1180591620717411303424"],
        ),
    ],
)
def test_a_value_that_would_change_is_rejected_with_its_row(column, kind, values, rejected):
    got, messages = cast(column if isinstance(column, pa.Array) else pa.array(column), kind)
    assert got == values
    assert len(messages) == len(rejected)
    assert all(part in message for part, message in zip(rejected, messages, strict=True))


def test_a_wrong_type_is_refused_when_the_stage_is_made():
    with pytest.raises(UsageError, match=r"columns\['a'\] is the unknown type 'strin'; did you mean 'string'"):
        Cast(columns={"a": "strin"})


@pytest.mark.parametrize(
    ("op", "value", "kept"),
    [
        ("==", "x", ["x"]),
        ("!=", "x", [1, 2.5, True, {"a": 1}]),
        (">", 1, [2.5]),
        ("<=", 1, [1]),
        ("in", [1, "x", True], ["x", 1, True]),
        ("not in", [1, "x"], [2.5, True, {"a": 1}]),
        ("contains", "x", ["x"]),
        ("matches", "^x$", ["x"]),
        ("is null", None, [None]),
    ],
)
def test_values_of_several_kinds_are_compared_within_their_kind(op, value, kept):
    table = pa.table({"a": json_column("x", 1, 2.5, True, {"a": 1}, None)})
    got = Where(column="a", op=op, value=value).process(DocumentBatch(data=table)).to_pyarrow()
    assert [None if text is None else json.loads(text) for text in got["a"].to_pylist()] == kept


def test_a_value_has_the_same_digest_in_any_type_of_column():
    columns = [pa.array(["x", "5"]), pa.array([1, 5]), pa.array([1.0, 0.5]), pa.array([True]), pa.array([[1.0], [2.5]])]
    for column in columns:
        alone = row_digests(pa.table({"a": column}), ["a"])
        assert row_digests(pa.table({"a": json_column(*column.to_pylist())}), ["a"]) == alone
    assert row_digests(pa.table({"a": [1]}), ["a"]) == row_digests(pa.table({"a": [1.0]}), ["a"])
    assert row_digests(pa.table({"a": json_column("1")}), ["a"]) != row_digests(pa.table({"a": [1]}), ["a"])
