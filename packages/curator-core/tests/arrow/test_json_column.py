"""Values of columns whose type depends on the other values of their block."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_core.arrow.json_column import JSON, as_text


@given(st.lists(st.integers(-(2**53), 2**53), min_size=1))
def test_a_whole_number_has_the_same_text_in_columns_of_all_types(values: list[int]) -> None:
    written = [json.dumps(value) if at % 2 else json.dumps(float(value)) for at, value in enumerate(values)]
    columns = [
        pa.array([*values, None], pa.int64()),
        pa.array([*map(float, values), None], pa.float64()),
        pa.ExtensionArray.from_storage(JSON, pa.array([*written, None])),
    ]
    for column in columns:
        assert as_text(column).to_pylist() == [*map(str, values), None]


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_other_numbers_keep_their_fractions(kind: pa.DataType) -> None:
    values = pa.array([0.5, 8.0, float("nan"), float("inf"), None]).cast(kind)
    assert as_text(values).to_pylist() == ["0.5", "8", "nan", "inf", None]


def test_other_values_of_a_json_column_stay_json() -> None:
    values = ['"8.0"', "true", '{"a":8.0}', "[1.0]", "2.50", "1e300", "9007199254740993"]
    column = pa.ExtensionArray.from_storage(JSON, pa.array(values))
    assert as_text(column).to_pylist() == ["8.0", *values[1:]]
