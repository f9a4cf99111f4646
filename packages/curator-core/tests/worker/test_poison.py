"""The search for bad rows finds all rows that fail alone, with few calls."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from curator_core.worker.poison import find_poison


@given(st.integers(1, 64), st.sets(st.integers(0, 63)))
def test_every_row_that_fails_alone_is_found_with_its_own_error(rows: int, bad: set[int]) -> None:
    bad = {row for row in bad if row < rows} or {0}
    asked: list[tuple[int, int]] = []

    def attempt(start: int, stop: int) -> Exception | None:
        asked.append((start, stop))
        found = sorted(bad & set(range(start, stop)))
        return ValueError(found[0]) if found else None

    whole = attempt(0, rows)
    assert whole is not None
    poison = find_poison(attempt, rows, whole)
    assert list(poison) == sorted(bad)
    assert [error.args for error in poison.values()] == [(row,) for row in sorted(bad)]
    assert len(asked) <= 1 + 2 * len(bad) * max(1, (rows - 1).bit_length())


@given(st.integers(2, 40), st.integers(0, 39), st.integers(0, 39))
def test_if_rows_fail_only_together_none_is_blamed(rows: int, one: int, other: int) -> None:
    pair = {one % rows, other % rows}

    def attempt(start: int, stop: int) -> Exception | None:
        return ValueError() if len(pair & set(range(start, stop))) == 2 else None

    if len(pair) == 2:
        assert find_poison(attempt, rows, ValueError()) == {}
