"""Arithmetic that does not depend on the machine: it equals exact arithmetic where it promises to, and is close
elsewhere."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from curator_image import exact

NUMBERS = st.floats(-1e3, 1e3, width=32)


def rounded(row: np.ndarray[Any, Any], bits: int) -> list[Fraction]:
    """The numbers of a row to ``bits`` bits relative to the largest, computed differently from the code."""
    top = max(abs(float(value)) for value in row)
    if top == 0:
        return [Fraction(0)] * len(row)
    unit = Fraction(2) ** (math.frexp(top)[1] - bits)
    return [round(Fraction(float(value)) / unit) * unit for value in row]


@pytest.mark.slow
@given(arrays(np.float32, (3, 5), elements=NUMBERS), arrays(np.float32, (2, 5), elements=NUMBERS))
def test_a_product_is_the_exact_product_of_the_rounded_numbers(values: Any, weight: Any) -> None:
    bits = (53 - 3) // 2
    found = exact.Matrix.of(weight).times(values)
    for i in range(3):
        for j in range(2):
            terms = zip(rounded(values[i], bits), rounded(weight[j], bits), strict=True)
            assert Fraction(float(found[i, j])) == sum((a * b for a, b in terms), Fraction(0))


@pytest.mark.parametrize("width", [1, 64, 512, 768, 1024, 4096])
def test_every_partial_sum_of_a_product_is_a_whole_number_that_float64_holds_exactly(width: int) -> None:
    largest = np.full((1, width), np.float32(np.nextafter(np.float32(1), np.float32(0))))
    bits = (53 - width.bit_length()) // 2
    assert width * 2 ** (2 * bits) <= 2**53
    assert exact.Matrix.of(largest).times(largest)[0, 0] == width * float(rounded(largest[0], bits)[0]) ** 2


def test_a_product_is_as_close_to_the_true_one_as_in_float32() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(40, 768)).astype(np.float32)
    weight = random.normal(size=(64, 768)).astype(np.float32)
    true = values.astype(np.float64) @ weight.T.astype(np.float64)
    # Sums in order, as `cumsum` makes them: how far those of BLAS are from the true ones depends on the processor.
    in_order = np.cumsum(values[:, None, :] * weight, axis=2)[:, :, -1]
    assert in_order.dtype == np.float32
    assert abs(exact.Matrix.of(weight).times(values) - true).max() < 2 * abs(in_order - true).max()


def test_rows_of_zeros_tiny_numbers_and_infinities_do_not_affect_other_rows() -> None:
    values = np.array([[0, 0], [1e-45, 3e-45], [np.inf, 1], [np.nan, 1], [2, 3]], np.float32)
    found = exact.Matrix.of(np.array([[1, 1]], np.float32)).times(values)[:, 0]
    assert found[0] == 0
    assert found[1] == float(values[1, 0]) + float(values[1, 1])
    assert np.isnan(found[2:4]).all()
    assert found[4] == 5


@given(st.integers(0, 40), st.integers(0, 3))
def test_sums_of_rows_are_close_to_the_true_ones_for_every_width(width: int, rows: int) -> None:
    values = np.random.default_rng(width).normal(size=(rows, width))
    true = [math.fsum(row) for row in values]
    np.testing.assert_allclose(exact.row_sums(values), true, rtol=1e-13, atol=1e-13)


def test_exponentials_and_logarithms_are_close_to_the_true_values() -> None:
    x = np.concatenate([np.linspace(-110, 110, 20_001), np.random.default_rng(1).uniform(-1, 1, 1000)])
    np.testing.assert_allclose(exact.exp(x), [math.exp(value) for value in x], rtol=4e-16)
    y = np.concatenate([np.arange(1, 17_000), np.exp(x)])
    np.testing.assert_allclose(exact.log2(y), [math.log2(value) for value in y], rtol=1e-15, atol=1e-15)
    assert exact.log2(2.0 ** np.arange(20)).tolist() == list(range(20))


def test_the_logistic_function_does_not_overflow_on_either_side() -> None:
    found = exact.logistic(np.array([-1e9, -200, -1, 0, 1, 200, 1e9, np.nan]))
    assert found.astype(np.float32)[:2].tolist() == [0, 0]
    assert found[3] == 0.5
    assert found[2] + found[4] == pytest.approx(1, abs=1e-16)
    assert found[5:7].tolist() == [1, 1]
    assert np.isnan(found[7])


def test_unit_rows_have_length_one_and_a_row_of_zeros_is_unchanged() -> None:
    rows = np.array([[3, 4], [0, 0], [1e-30, 0], [np.inf, 1]], np.float32)
    found = exact.unit_rows(rows)
    assert found[:2].tolist() == [[np.float32(0.6), np.float32(0.8)], [0, 0]]
    assert np.isnan(found[3, 0])
