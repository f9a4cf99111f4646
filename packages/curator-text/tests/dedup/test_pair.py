"""Two texts shown side by side have the figures of the rule, and their pieces make up the whole text."""

from __future__ import annotations

import itertools
import math

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings

from curator_text.dedup.compare import Rule, decide
from curator_text.dedup.pair import Span, compare_pair
from curator_text.dedup.places import places_of
from curator_text.dedup.words import Kind, words_of

from . import naive

TEXTS = st.one_of(
    st.text(max_size=40),
    st.text("ab \u0301é\u0323ﬁ½™İß.\u00ad\u200d", max_size=30),
    st.text("我们数据 a\u3099かｶﾞ가\u1100\u1161\u11a8ที่ำ", max_size=30),
)


@pytest.mark.slow
@settings(max_examples=400)
@given(text=TEXTS, kind=st.sampled_from(["words", "characters"]))
@example(text="ｶﾞ\u3099x", kind="words")
def test_every_word_is_found_at_its_place(text: str, kind: str) -> None:
    found = places_of(text, kind=kind)  # type: ignore[arg-type]
    places = list(zip(found.starts.tolist(), found.ends.tolist(), strict=True))
    words = [word for word, _ in naive.words(text, kind)]
    assert len(places) == len(words)
    assert all(start < end for start, end in places)
    assert [start for start, _ in places] == sorted(start for start, _ in places)
    for (start, end), word in zip(places, words, strict=True):
        # The text at a place is the word; if a character becomes several words, it is one of them.
        assert word in [found for found, _ in naive.words(text[start:end], kind)]


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    text=TEXTS,
    other=TEXTS,
    same=st.booleans(),
    kind=st.sampled_from(["nothing_new", "containment", "jaccard"]),
    letters=st.sampled_from([0, 1, 4]),
)
def test_figures_equal_those_of_the_decision(text: str, other: str, same: bool, kind: str, letters: int) -> None:
    other = text + other if same else other
    rule = Rule(kind, 0.3, 3, 5)  # type: ignore[arg-type]
    unit: Kind = "characters" if letters else "words"
    pair = compare_pair(text, other, rule, kind=unit, size=letters or 3)
    words = words_of(pa.array([other, text]), kind=unit)
    made = decide(words, np.zeros(2, np.uint64), np.arange(2), rule, size=letters or 3)
    assert pair.meets == (made.witness[1] == 0)
    if pair.meets:
        assert (pair.jaccard, pair.containment, pair.new_words) == (
            made.jaccard[1],
            made.containment[1],
            made.new_words[1],
        )
    if naive.words(text) and naive.words(other):
        assert (pair.jaccard, pair.containment, pair.new_words) == naive.figures(text, other, 5, letters)
    else:
        assert math.isnan(pair.jaccard)
    for whole, spans in ((text, pair.text), (other, pair.witness)):
        assert "".join(whole[span.start : span.end] for span in spans) == whole
        assert all(one.shared != next_one.shared for one, next_one in itertools.pairwise(spans))


def test_new_words_are_shown() -> None:
    kept = "The committee met on Monday and agreed to publish the report."
    pair = compare_pair("The Committee met on Friday, and agreed to publish the report!", kept, Rule(threshold=0.5))
    assert [
        ("The Committee met on Friday, and agreed to publish the report!"[s.start : s.end], s.shared) for s in pair.text
    ] == [
        ("The Committee met on ", True),
        ("Friday, ", False),
        ("and agreed to publish the report!", True),
    ]
    assert (pair.new_words, pair.words, pair.witness_words, pair.meets) == (1, 11, 11, True)
    assert [kept[s.start : s.end] for s in pair.witness if not s.shared] == ["Monday "]


@pytest.mark.parametrize(("text", "spans"), [("", []), ("…", [Span(0, 1, False)])])
def test_a_text_without_words_shares_nothing(text: str, spans: list[Span]) -> None:
    pair = compare_pair(text, "a text")
    assert pair.text == spans
    assert (pair.meets, pair.new_words) == (False, -1)
