"""Do the bins of scores have the edges that they should have?"""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from curator_core.model.scores import magnitudes, merged, packed_edges, unpacked_edges

NUMBERS = st.lists(st.floats(allow_nan=True, allow_infinity=True) | st.integers(-3, 3).map(float), max_size=12)


@given(NUMBERS, NUMBERS)
def test_merged_edges_are_all_finite_ones_in_order_and_once(edges: list[float], more: list[float]) -> None:
    expected = sorted({number + 0.0 for number in (*edges, *more) if math.isfinite(number)})
    found = merged(edges, more)
    assert list(found) == expected
    assert not any(number == 0 and math.copysign(1, number) < 0 for number in found)


def test_an_edge_that_is_there_is_not_added_again() -> None:
    assert merged(magnitudes(), (*magnitudes()[::7], -0.0, math.nan)) == magnitudes()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_edges_are_the_same_after_packing_and_a_list_of_earlier_versions_is_read(edges: list[float]) -> None:
    assert unpacked_edges(packed_edges(edges)) == edges
    assert unpacked_edges(edges) == edges
