"""The map of embeddings shows their main axes, and is the same on every machine."""

from __future__ import annotations

import numpy as np
import pytest

from curator_core.accounts.seen import MapRow
from curator_core.running.embedding_map import main_axes, map_of
from curator_core.running.page.scatter import scatter


def vectors(rows: int, size: int) -> np.ndarray:
    draw = np.random.default_rng(5)
    spread = 3.0 * 0.7 ** np.arange(size)
    return draw.normal(size=(rows, size)) * spread + draw.normal(size=size)


@pytest.mark.parametrize(("rows", "size"), [(60, 8), (40, 300), (3, 2)])
def test_the_axes_show_as_much_variance_as_those_of_a_library(rows: int, size: int) -> None:
    given = vectors(rows, size)
    places, held = main_axes(given)
    unit = given / np.linalg.norm(given, axis=1)[:, None]
    found = np.linalg.svd(unit - unit.mean(axis=0), compute_uv=False) ** 2
    assert held == pytest.approx(tuple(found[:2] / found.sum()), abs=2e-3)
    assert np.abs(places).max() == pytest.approx(1)
    for axis in range(2):
        assert places[np.argmax(np.round(np.abs(places[:, axis]), 6)), axis] > 0


def test_the_order_in_which_numbers_are_added_up_changes_nothing() -> None:
    given = vectors(50, 64)
    places, held = main_axes(given)
    # Another order of the dimensions changes the order of every sum of products.
    again, held_again = main_axes(np.ascontiguousarray(given[:, ::-1]))
    assert held == pytest.approx(held_again, abs=1e-12)
    assert np.abs(places - again).max() < 1e-6


def test_rows_that_are_all_equal_are_in_the_middle() -> None:
    places, held = main_axes(np.ones((5, 4)))
    assert not places.any()
    assert held == (0.0, 0.0)


def test_a_map_gives_its_number_of_rows_and_is_coloured_by_the_most_frequent_score() -> None:
    given = vectors(30, 4).astype("<f2")
    rows = [
        MapRow("Filter" if n % 3 else "Write", "dropped" if n % 3 else "kept", "low", f"<b>{n}", "a.jsonl", f"line {n}", "t",
               {"sharp": float(n)} if n else {"other": 1.0}, given[n].tobytes())
        for n in range(30)
    ]  # fmt: skip
    stages = [
        {"name": "Filter", "rows_out": 40, "dropped": {"low": 60}},
        {"name": "Write", "rows_out": 40, "dropped": {}},
    ]
    found = map_of(rows, stages)
    assert (found["rows"], found["of"], found["dimensions"], found["score"]) == (30, 100, 4, "sharp")
    page = scatter(found)
    assert page.count("data-point=") == 30
    assert "30 of 100 rows" in page
    assert "<b>" not in page.replace("<b>30", "")
    assert map_of(rows[:2], stages) == {}
