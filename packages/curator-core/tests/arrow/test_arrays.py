"""Arrow arrays of Python values without pandas equal those that pyarrow makes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_core.arrow.arrays import array, distinct, grouped, ranges_within, scalar, to_numpy

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.string(): st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    pa.large_string(): st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    pa.binary(): st.binary(max_size=20),
    pa.large_binary(): st.binary(max_size=20) | st.binary(max_size=20).map(memoryview),
    pa.int64(): INT64,
    pa.int32(): st.integers(-(1 << 31), (1 << 31) - 1),
    pa.uint64(): st.integers(0, (1 << 64) - 1),
    pa.float64(): st.floats(allow_nan=False),
    pa.float32(): st.floats(allow_nan=False),
    pa.bool_(): st.booleans(),
    pa.list_(pa.string()): st.lists(st.text("aü", max_size=3), max_size=4),
    pa.list_(pa.int64()): st.none() | st.lists(INT64, max_size=4),
    pa.dictionary(pa.int32(), pa.string()): st.text("ab", max_size=1),
    pa.struct([("a", pa.int64())]): st.fixed_dictionaries({"a": INT64}),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", VALUES, ids=str)
@given(data=st.data())
def test_a_list_is_converted_as_by_pyarrow(kind: pa.DataType, data: st.DataObject) -> None:
    values = data.draw(st.lists(VALUES[kind] | st.none(), max_size=12))
    made = array(values, kind)
    made.validate(full=True)
    assert made.type == kind
    assert made.equals(pa.array(values, kind))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1.5], pa.int64()),
        (["1"], pa.int64()),
        ([1 << 63], pa.int64()),
        ([-1], pa.uint64()),
        ([1 << 40], pa.int32()),
        ([(1 << 60) + 1], pa.float64()),
        ([1], pa.string()),
        ([True], pa.int64()),
        ([1], pa.bool_()),
        (["\ud800"], pa.string()),
        ([b"a", 1], pa.binary()),
        ([["a"], "b"], pa.list_(pa.string())),
    ],
)
def test_values_unlike_their_type_are_left_to_pyarrow(values: list[Any], kind: pa.DataType) -> None:
    assert _outcome(array, values, kind) == _outcome(pa.array, values, kind)


def _outcome(make: Callable[[list[Any], pa.DataType], pa.Array], values: list[Any], kind: pa.DataType) -> Any:
    try:
        return make(values, kind).to_pylist()
    except (pa.ArrowException, TypeError, OverflowError, UnicodeEncodeError) as error:
        return type(error), str(error)


def test_values_that_pyarrow_converts_are_converted() -> None:
    assert array([1, 2.5], pa.float64()).to_pylist() == [1.0, 2.5]
    assert array([bytearray(b"ab")], pa.binary()).to_pylist() == [b"ab"]
    assert array(range(3), pa.int64()).to_pylist() == [0, 1, 2]
    assert array(np.array([1, 2], np.int16), pa.int64()).type == pa.int64()
    assert array(np.array(["a", None], object), pa.string()).to_pylist() == ["a", None]


def test_long_texts_also_become_an_array() -> None:
    texts = ["ä" * (1 << 20), None, "b" * (1 << 20)]
    assert array(texts, pa.string()).to_pylist() == texts


NUMPY = [np.arange(20, dtype=kind) for kind in ("i1", "i4", "i8", "u8", "f4", "f8")] + [np.arange(20) % 3 == 0]


@pytest.mark.parametrize("values", NUMPY, ids=lambda values: values.dtype.str)
def test_numbers_are_converted_there_and_back(values: np.ndarray[Any, Any]) -> None:
    made = array(values)
    assert made.equals(pa.array(values))
    assert array(values[::2]).equals(pa.array(values[::2]))
    for part in (made, made.slice(3, 9), made.slice(9, 1), made.slice(8, 0), pa.chunked_array([made, made.slice(5)])):
        found = to_numpy(part)
        assert found.dtype == values.dtype
        assert found.tolist() == part.to_pylist()
    none = to_numpy(pa.chunked_array([], made.type))
    assert (none.dtype, len(none)) == (values.dtype, 0)


def test_numbers_with_nulls_are_converted_as_by_pyarrow() -> None:
    assert np.array_equal(to_numpy(pa.array([1, None])), [1.0, np.nan], equal_nan=True)
    assert to_numpy(pa.array([True, None])).tolist() == [True, None]


@pytest.mark.parametrize("value", [1, -1.5, True, "ü"])
def test_a_value_is_converted_to_the_scalar_of_pyarrow(value: float | str) -> None:
    assert scalar(value).equals(pa.scalar(value))


@pytest.mark.slow
def test_pandas_is_not_imported() -> None:
    pytest.importorskip("pandas")
    code = (
        "import sys, numpy as np, pyarrow as pa, pyarrow.compute as pc\n"
        "from curator_core.arrow.arrays import array, scalar, to_numpy\n"
        "ages = array([1, None, 3], pa.int64())\n"
        "array(['a', None], pa.string()), array([b'a'], pa.binary()), array(['a'], pa.large_string()), array([[1], None], pa.list_(pa.int64()))\n"
        "array(['a'], pa.dictionary(pa.int32(), pa.string()))\n"
        "to_numpy(array(np.arange(3))), to_numpy(pc.fill_null(pc.greater(ages, scalar(2)), scalar(False)))\n"
        "assert 'pandas' not in sys.modules\n"
        "pa.array([1])\n"
        "assert 'pandas' in sys.modules, 'pyarrow has mended it: curator_core.arrow.arrays can go'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5), max_size=40))
def test_distinct_numbers_equal_those_of_numpy(numbers: list[int]) -> None:
    values = np.array(numbers, np.uint64)
    np.testing.assert_array_equal(distinct(values), np.unique(values))


@given(st.lists(st.integers(-5, 5)))
def test_grouped_numbers_equal_those_of_numpy(numbers: list[int]) -> None:
    values = np.array(numbers, np.int64)
    for mine, theirs in zip(grouped(values), np.unique(values, return_index=True, return_inverse=True), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@given(st.lists(st.integers(0, 9)), st.integers(1, 20))
def test_ranges_are_as_long_as_the_most_allows_and_hold_at_least_one_thing(sizes: list[int], most: int) -> None:
    found = list(ranges_within(np.array(sizes, np.int64), most))
    assert [at for first, last in found for at in range(first, last)] == list(range(len(sizes)))
    for first, last in found:
        assert last == first + 1 or sum(sizes[first:last]) <= most
        assert last == len(sizes) or sum(sizes[first : last + 1]) > most, "the next one would fit"
