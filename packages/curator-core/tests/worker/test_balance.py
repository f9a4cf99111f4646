"""The balance of a call: rows in equal rows out plus rows that left with a reason, for every kind of stage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_core.worker.balance import Amount, Balance, balance

FILES = "files"
numbers = st.integers(0, 50)


@pytest.mark.parametrize(
    ("amount", "made", "how", "expected"),
    [
        # A map over rows: its own claims are not trusted.
        (Amount(5), [Amount(3)], {"gone": 2}, Balance(5, 3)),
        (Amount(5), [Amount(3)], {"gone": 1}, Balance(5, 3, created=-1)),
        (Amount(5), [Amount(6)], {}, Balance(5, 6, created=1)),
        (Amount(5), [Amount(2), Amount(3)], {}, Balance(5, 5)),
        (Amount(5), [Amount(4)], {"quarantined": 1}, Balance(5, 4)),
        # A dropped task takes its rows along; so does an empty list, if nothing was recorded.
        (Amount(5), None, {}, Balance(5, 0, dropped=5)),
        (Amount(5), None, {"gone": 2}, Balance(5, 0, dropped=3)),
        (Amount(5), [], {}, Balance(5, 0, dropped=5)),
        (Amount(5), [], {"gone": 2}, Balance(5, 0, created=-3)),
        (Amount(5), None, {"gone": 6}, Balance(5, 0, created=1)),
        # A reader: the rows that it reports, or else those that it returns.
        (Amount(1, FILES), [Amount(7)], {"gone": 2, "read": 9}, Balance(9, 7)),
        (Amount(1, FILES), [Amount(7)], {"gone": 1, "read": 9}, Balance(9, 7, created=-1)),
        (Amount(1, FILES), [Amount(7)], {"gone": 2}, Balance(9, 7)),
        (Amount(1, FILES), [], {"gone": 2, "read": 2}, Balance(2, 0)),
        (Amount(1, FILES), None, {"read": 4}, Balance(4, 0, created=-4)),
        # A writer: rows go into files.
        (Amount(5), [Amount(1, FILES, 5)], {}, Balance(5, 5)),
        (Amount(5), [Amount(1, FILES, 4)], {}, Balance(5, 4, created=-1)),
        (Amount(5), [Amount(1, FILES, 2), Amount(1, FILES, 3)], {}, Balance(5, 5)),
        (Amount(5), [Amount(1, FILES)], {"gone": 2}, Balance(5, 3)),
        # Values that are not rows are balanced in a map; a fan-out groups and splits them freely.
        (Amount(3, FILES), [Amount(2, FILES)], {}, Balance(3, 2, created=-1)),
        (Amount(3, FILES), [Amount(2, FILES)], {"fans_out": True}, Balance(2, 2)),
    ],
)
def test_input_rows_equal_output_rows_plus_rows_that_left(
    amount: Amount, made: list[Amount] | None, how: dict[str, int], expected: Balance
) -> None:
    assert balance(amount, made, **how) == expected


@given(numbers, st.none() | st.lists(numbers, max_size=4), numbers, numbers)
def test_the_missing_rows_of_the_sum_are_reported(
    items: int, made: list[int] | None, gone: int, quarantined: int
) -> None:
    sums = balance(
        Amount(items), None if made is None else [Amount(n) for n in made], gone=gone, quarantined=quarantined
    )
    assert sums.rows_in == items
    assert sums.rows_out == sum(made or [])
    assert sums.created == sums.rows_out + gone + quarantined + sums.dropped - sums.rows_in
    assert sums.dropped >= 0


@given(st.lists(numbers, min_size=1, max_size=5), numbers, numbers)
def test_children_that_stream_are_balanced_like_a_list_of_them(made: list[int], items: int, gone: int) -> None:
    total = Amount(made[0])
    for number in made[1:]:
        total = total.plus(Amount(number))
    assert balance(Amount(items), [total], gone=gone) == balance(Amount(items), [Amount(n) for n in made], gone=gone)
