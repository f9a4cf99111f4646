"""Removals and witnesses equal those of the rule written with sets and loops."""

from __future__ import annotations

import random

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from more_examples import with_more_examples

from curator_core.errors import UsageError
from curator_text.dedup import compare
from curator_text.dedup.compare import Rule, decide
from curator_text.dedup.words import Kind, words_of

from . import naive

LEXICON = ["the", "of", "data", "Words", "model", "naïve", "我", "们", "数", "据", "ที่", "ราบ", "2026"]


@st.composite
def families(draw: st.DrawFn) -> list[str]:
    """Texts; some are edited copies of others, or share a template."""
    made: list[str] = []
    for _ in range(draw(st.integers(1, 8))):
        chance = random.Random(draw(st.integers(0, 10_000)))
        if made and draw(st.booleans()):
            words = chance.choice(made).split()
            for _ in range(draw(st.integers(0, 3))):
                at, length = chance.randrange(len(words) + 1), chance.choice([0, 1, 1, 4, 20])
                words[at : at + chance.choice([0, 1, 1, 4, 20])] = chance.choices(LEXICON, k=length)
        else:
            words = [
                chance.choice(LEXICON[: chance.choice([1, 4, 13])]) for _ in range(chance.choice([0, 1, 2, 5, 20, 60]))
            ]
        made.append(" ".join(words))
    return made


def check(
    texts: list[str],
    group: list[int],
    order: list[int],
    rule: Rule,
    old: list[bool] | None = None,
    among_new: bool = True,
) -> None:
    words, groups, places = (
        words_of(pa.array(texts, pa.string())),
        np.array(group, np.uint64),
        np.array(order, np.int64),
    )
    some_old = None if old is None else np.array(old, np.bool_)
    made = decide(words, groups, places, rule, old=some_old, among_new=among_new)
    limits = rule.kind, rule.threshold, rule.max_new_words, rule.window
    expected = naive.decide(texts, group, order, *limits, old, among_new)
    for row, (witness, found) in enumerate(expected):
        assert made.witness[row] == witness, (row, texts)
        if found is None:
            assert np.isnan([made.jaccard[row], made.containment[row]]).all()
            assert made.new_words[row] == -1
        else:
            assert (made.jaccard[row], made.containment[row], made.new_words[row]) == found


RULES = st.builds(
    Rule,
    kind=st.sampled_from(["nothing_new", "containment", "jaccard"]),
    threshold=st.sampled_from([0.3, 0.5, 0.8, 0.98, 1.0]),
    max_new_words=st.sampled_from([0, 2, 12]),
    window=st.sampled_from([1, 5, 25]),
)


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(texts=families(), rule=RULES, data=st.data())
def test_decisions_equal_those_of_the_rule(texts: list[str], rule: Rule, data: st.DataObject) -> None:
    group = data.draw(st.lists(st.integers(0, 2), min_size=len(texts), max_size=len(texts)))
    order = data.draw(st.lists(st.integers(-5, 5), min_size=len(texts), max_size=len(texts)))
    check(texts, group, order, rule)
    check(texts, [7] * len(texts), list(range(len(texts))), rule)


test_decisions_equal_those_of_the_rule_in_more_examples = with_more_examples(
    test_decisions_equal_those_of_the_rule,
    settings(max_examples=400, deadline=None),
    texts=families(),
    rule=RULES,
    data=st.data(),
)


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(texts=families(), rule=RULES, data=st.data(), large=st.booleans(), among_new=st.booleans())
def test_old_documents_come_first_and_stay(
    texts: list[str], rule: Rule, data: st.DataObject, large: bool, among_new: bool
) -> None:
    old = data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))
    order = data.draw(st.lists(st.integers(-5, 5), min_size=len(texts), max_size=len(texts)))
    with pytest.MonkeyPatch.context() as patch:
        if large:
            patch.setattr(compare, "ROUNDS", 1)
            patch.setattr(compare, "FIRST", 1)
            patch.setattr(compare, "MOST", 2)
        check(texts, [0] * len(texts), order, rule, old, among_new)
        check(texts, [number % 2 for number in range(len(texts))], order, rule, old, among_new)


test_old_documents_come_first_and_stay_in_more_examples = with_more_examples(
    test_old_documents_come_first_and_stay,
    settings(max_examples=300, deadline=None),
    texts=families(),
    rule=RULES,
    data=st.data(),
    large=st.booleans(),
    among_new=st.booleans(),
)


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(texts=families(), rule=RULES, most=st.integers(1, 4))
def test_decisions_of_a_large_group_equal_those_of_the_rule(texts: list[str], rule: Rule, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "ROUNDS", 1)
        patch.setattr(compare, "FIRST", 1)
        patch.setattr(compare, "MOST", most)
        patch.setattr(compare, "_MARKS", 100)
        check(texts, [0] * len(texts), [-number for number in range(len(texts))], rule)


test_decisions_of_a_large_group_equal_those_of_the_rule_in_more_examples = with_more_examples(
    test_decisions_of_a_large_group_equal_those_of_the_rule,
    settings(max_examples=400, deadline=None),
    texts=families(),
    rule=RULES,
    most=st.integers(1, 4),
)


def texts_of_a_template(chance: random.Random, count: int) -> list[str]:
    lexicon = [f"w{number}" for number in range(3000)]
    template = chance.choices(lexicon, k=120)
    made = []
    for _ in range(count):
        own, share = chance.randrange(20, 80), chance.uniform(0.6, 0.9)
        part = template[: min(120, round(own * share / (1 - share)))]
        cut = chance.randrange(len(part) + 1)
        made.append(" ".join([*part[:cut], *chance.choices(lexicon, k=own), *part[cut:]]))
    return made


def test_pages_of_one_template_are_compared_with_almost_nothing() -> None:
    texts = texts_of_a_template(random.Random(5), 2000)
    made = decide(words_of(pa.array(texts)), np.zeros(2000, np.uint64), np.arange(2000))
    assert (made.witness == -1).all()
    assert made.compared.sum() < 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "unit"),
    [("nothing_new", "words"), ("nothing_new", "characters"), ("containment", "words"), ("jaccard", "words")],
)
def test_a_large_group_is_decided_with_the_same_result_as_in_rounds(kind: str, unit: Kind) -> None:
    chance = random.Random(6)
    texts = texts_of_a_template(chance, 300)
    for _ in range(600):
        words = chance.choice(texts).split()
        for _ in range(chance.randrange(12)):
            words[chance.randrange(len(words))] = "edited"
        texts.append(" ".join(words))
    words, group = words_of(pa.array(texts), kind=unit), np.zeros(900, np.uint64)
    order = np.array(chance.sample(range(900), 900))
    rule = Rule(kind)  # type: ignore[arg-type]
    size = 3 if unit == "words" else 13
    one = decide(words, group, order, rule, size=size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "ROUNDS", 1000)
        other = decide(words, group, order, rule, size=size)
    assert 200 < (one.witness >= 0).sum() < 800
    for name in ("witness", "jaccard", "containment", "new_words"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.compared.sum() < other.compared.sum() / 10


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(texts=families(), data=st.data())
def test_decisions_do_not_depend_on_other_groups(texts: list[str], data: st.DataObject) -> None:
    group = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(texts), max_size=len(texts))), np.uint64)
    words, order = words_of(pa.array(texts, pa.string())), np.arange(len(texts))
    together = decide(words, group, order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "CHUNK", 1)
        alone = decide(words, group, order)
    for one, other in zip(
        (together.witness, together.jaccard, together.new_words, together.compared),
        (alone.witness, alone.jaccard, alone.new_words, alone.compared),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_empty_input_and_texts_without_words_are_handled() -> None:
    assert len(decide(words_of(pa.array([], pa.string())), np.zeros(0, np.uint64), np.zeros(0, np.int64)).witness) == 0
    made = decide(words_of(pa.array(["", None, "…", "…"])), np.zeros(4, np.uint64), np.arange(4))
    assert made.witness.tolist() == [-1] * 4
    assert made.compared.tolist() == [0] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "near"}, "rule 'near' does not exist"),
        ({"threshold": 0}, "threshold must be a share above 0 and at most 1, not 0"),
        ({"threshold": float("nan")}, "threshold must be .* not nan"),
        ({"window": 0}, "window"),
        ({"max_new_words": -1}, "max_new_words"),
    ],
)
def test_an_impossible_rule_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Rule(**arguments)


def test_there_must_be_as_many_groups_as_texts() -> None:
    with pytest.raises(UsageError, match="2 texts come with 1 groups and 2 places"):
        decide(words_of(pa.array(["a", "b"])), np.zeros(1, np.uint64), np.zeros(2, np.int64))


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.98, 1.0, 1 / 3, 0.07])
def test_the_smallest_number_that_meets_the_threshold_is_exact(threshold: float) -> None:
    totals = np.arange(1, 3000)
    for total, least in zip(totals.tolist(), compare._least(totals, threshold).tolist(), strict=True):
        assert least / total >= threshold
        assert (least - 1) / total < threshold


def test_shingles_that_differ_only_in_their_lowest_bits_are_different() -> None:
    hashes = np.array([7, 6, 7, 6, 2**63, 2**63 + 1, 7, 6], np.uint64)
    ids, fresh, distinct = compare._numbered(hashes, np.array([0, 0, 0, 1, 1, 1, 1, 2]), 3)
    assert ids.tolist() == [1, 0, 1, 0, 2, 3, 1, 0]
    assert fresh.tolist() == [True, True, False, True, True, True, True, True]
    assert distinct.tolist() == [2, 4, 1]
