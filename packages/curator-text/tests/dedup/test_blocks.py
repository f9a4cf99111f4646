"""Deciding about groups block by block gives the same result as deciding at once."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_text.dedup import blocks
from curator_text.dedup.blocks import decide_in_blocks
from curator_text.dedup.compare import Rule, decide
from curator_text.dedup.texts_in_order import HeldTexts, StoredTexts, TextsInOrder
from curator_text.dedup.words import Words, taken, words_of

WORDS = ["a", "b", "c", "d", "e", "f", "g", "\u5929", "\u6c14"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)


def stored(words: Words, shuffled: random.Random, lot_words: int) -> StoredTexts:
    """The words in a file, written in another order and a few texts at a time."""
    texts = StoredTexts(words.counts, None, lot_words)
    left = list(range(len(words)))
    shuffled.shuffle(left)
    while left:
        some = np.array(left[: shuffled.randint(1, 100)])
        left = left[len(some) :]
        texts.write(some, taken(words, some))
    texts.settle()
    return texts


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans(), TEXTS), max_size=25),
    st.booleans(),
    st.integers(1, 60),
    st.none() | st.randoms(use_true_random=False),
    st.sampled_from(
        [Rule("nothing_new", 0.5, 2, window=5), Rule("containment", 0.6), Rule("jaccard", 0.4), Rule("nothing_new")]
    ),
)
def test_the_size_of_blocks_makes_no_difference(
    rows: list[tuple[int, bool, str]], among_new: bool, block_words: int, shuffled: random.Random | None, rule: Rule
) -> None:
    rows = sorted(rows, key=lambda row: (row[0], not row[1]))  # old ones first in each group
    words = words_of(pa.array([text for *_, text in rows], pa.string()))
    groups = np.array([group for group, *_ in rows], np.uint64)
    old = np.array([is_old for _, is_old, _ in rows], np.bool_)
    texts: TextsInOrder = HeldTexts(words) if shuffled is None else stored(words, shuffled, block_words)
    found = decide_in_blocks(texts, groups, rule, size=3, old=old, among_new=among_new, block_words=block_words)
    expected = decide(words, groups, np.arange(len(rows)), rule, size=3, old=old, among_new=among_new)
    for name in ("witness", "jaccard", "containment", "new_words"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("copies", [2000, 4000])
def test_in_a_large_group_of_near_copies_each_is_compared_once(copies: int) -> None:
    text = " ".join(f"w{number}" for number in range(60))
    words = words_of(pa.array([text.replace("w30 ", f"x{number} ") for number in range(copies)]))
    found = decide_in_blocks(HeldTexts(words), np.zeros(copies, np.uint64), Rule(), size=3, block_words=6000)
    assert (found.witness[1:] == 0).all()
    assert found.compared.max() == 1


@pytest.mark.slow
def test_a_group_of_any_size_needs_the_memory_of_a_block(tmp_path: Path) -> None:
    """All words together take 4.8 MB; comparing 3,000 texts at once takes about fifty bytes per word."""
    copies = 10_000
    words = words_of(pa.array([" ".join(f"w{number}" for number in range(60))]))
    with StoredTexts(np.full(copies, 60), str(tmp_path), 3000) as texts:
        for row in range(0, copies, 100):
            hashes = np.tile(words.hashes, 100)
            hashes[30::60] = np.arange(row, row + 100)
            texts.write(copies - 1 - np.arange(row, row + 100), Words(hashes, np.arange(0, 6001, 60)))
        texts.settle()
        tracemalloc.start()
        found = decide_in_blocks(texts, np.zeros(copies, np.uint64), Rule(), size=3, block_words=3000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (found.witness[1:] == 0).all()
    assert peak < 2_000_000
    assert not list(tmp_path.iterdir())


def test_different_pages_of_one_template_are_not_compared_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """No earlier page has enough of a page's shingles, nor have all pages of an earlier block together."""
    template = " ".join(f"t{number}" for number in range(60))
    pages = [f"{template} {' '.join(f'own{page}x{number}' for number in range(40))}" for page in range(300)]
    compared: list[int] = []
    monkeypatch.setattr(
        blocks, "decide", lambda words, *rest, **more: compared.append(len(words)) or decide(words, *rest, **more)
    )
    words = words_of(pa.array(pages))
    found = decide_in_blocks(HeldTexts(words), np.zeros(300, np.uint64), Rule(), size=3, block_words=6000)
    assert (found.witness == -1).all()
    assert sum(compared) == 300
