"""Tables as frames of pandas and back: values that pandas cannot express survive."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_core import DocumentBatch
from curator_core.arrow.json_column import JSON, values_of
from curator_core.arrow.kinds import is_late, is_whole, marked

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 60), 1 << 60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def batch_of(values: list[object], *more: str) -> DocumentBatch:
    texts = pa.array([None if value is None else json.dumps(value) for value in values], JSON.storage_type)
    columns = {
        "n": pa.array([float(row) for row in range(len(values))]),
        "any": pa.ExtensionArray.from_storage(JSON, texts),
    }
    fields = [marked("n", pa.float64(), whole=True), marked("any", JSON, late=True)]
    chosen = [at for at, field in enumerate(fields) if not more or field.name in more]
    table = pa.table([list(columns.values())[at] for at in chosen], schema=pa.schema([fields[at] for at in chosen]))
    return DocumentBatch(data=table, task_id="a")


@pytest.mark.slow
@given(st.lists(VALUES, max_size=6), st.sampled_from([(), ("any",), ("n",)]))
def test_a_batch_is_unchanged_after_a_conversion_to_pandas_and_back(
    values: list[object], columns: tuple[str, ...]
) -> None:
    batch = batch_of(values, *columns)
    frame = batch.to_pandas()
    again = batch.with_data(frame.copy()).to_pyarrow()
    assert again.schema.equals(batch.to_pyarrow().schema, check_metadata=False)
    for before, after in zip(batch.to_pyarrow().schema, again.schema, strict=True):
        assert (is_whole(after), is_late(after)) == (is_whole(before), is_late(before))
    for name in again.column_names:
        assert values_of(again.column(name)) == values_of(batch.to_pyarrow().column(name))


def test_a_json_column_has_python_values_in_a_frame_and_can_be_changed_there() -> None:
    frame = batch_of(["a", 1, None, [True], {"b": 2.5}]).to_pandas()
    assert frame["any"].tolist() == ["a", 1, None, [True], {"b": 2.5}]
    frame = frame[frame["n"] > 0].assign(size=4)
    frame.loc[1, "any"] = "two"
    table = DocumentBatch(data=frame, task_id="a").to_pyarrow()
    assert table.schema.field("any").type == JSON
    assert table.to_pydict() == {"n": [1, 2, 3, 4], "any": ['"two"', None, "[true]", '{"b":2.5}'], "size": [4] * 4}
    assert not any(b"curator.fields" in value for value in (table.schema.metadata or {}).values())


def test_a_new_frame_is_accepted_as_it_is() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": ["x", None]})
    assert DocumentBatch(data=frame, task_id="a").to_pyarrow().schema.field("a").type in (
        pa.string(),
        pa.large_string(),
    )
