"""Deciding about groups block by block gives the same result as deciding at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_text.dedup.blocks import decide_in_blocks
from curator_text.dedup.compare import Rule, decide
from curator_text.dedup.words import words_of

WORDS = ["a", "b", "c", "d", "e", "f", "g"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans(), TEXTS), max_size=25),
    st.booleans(),
    st.integers(1, 60),
    st.sampled_from(
        [Rule("nothing_new", 0.5, 2, window=5), Rule("containment", 0.6), Rule("jaccard", 0.4), Rule("nothing_new")]
    ),
)
def test_the_size_of_blocks_makes_no_difference(
    rows: list[tuple[int, bool, str]], among_new: bool, block_words: int, rule: Rule
) -> None:
    rows = sorted(rows, key=lambda row: (row[0], not row[1]))  # old ones first in each group
    words = words_of(pa.array([text for *_, text in rows], pa.string()))
    groups = np.array([group for group, *_ in rows], np.uint64)
    old = np.array([is_old for _, is_old, _ in rows], np.bool_)
    found = decide_in_blocks(words, groups, rule, size=3, old=old, among_new=among_new, block_words=block_words)
    expected = decide(words, groups, np.arange(len(rows)), rule, size=3, old=old, among_new=among_new)
    for name in ("witness", "jaccard", "containment", "new_words"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("copies", [2000, 4000])
def test_a_large_group_of_near_copies_is_compared_once_each(copies: int) -> None:
    text = " ".join(f"w{number}" for number in range(60))
    words = words_of(pa.array([text.replace("w30 ", f"x{number} ") for number in range(copies)]))
    found = decide_in_blocks(words, np.zeros(copies, np.uint64), Rule(), size=3, block_words=6000)
    assert (found.witness[1:] == 0).all()
    assert found.compared.max() == 1
