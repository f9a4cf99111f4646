"""Overlaps of documents with test sets equal those of the definition, at the reported places."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_text.decontaminate.index import TestIndex, _Building
from curator_text.decontaminate.overlaps import Overlap, Rule, overlap_of
from curator_text.decontaminate.test_sets import Item
from curator_text.dedup.places import places_of

from ..dedup import naive

SPELLINGS = {
    "red": ["red", "Red", "RED", "r\u00aded"],
    "straße": ["straße", "STRASSE", "Straße"],
    "café": ["café", "cafe\u0301", "CAFÉ", "\uff43\uff41\uff46é"],
    "fig": ["ﬁg", "fig", "FIG"],
    "12": ["12", "\uff11\uff12", "\u2460\u2461"],
    "中": ["中"],
    "国": ["国", "国\ufe00"],
    "กำ": ["กำ"],
}
GAPS = [" ", "  ", ", ", ".\n", " — ", "「"]
WORD = st.sampled_from(sorted(SPELLINGS))
TEXTS = st.lists(st.tuples(WORD, st.integers(0, 3), st.sampled_from(GAPS)), max_size=14).map(
    lambda parts: "".join(SPELLINGS[word][form % len(SPELLINGS[word])] + gap for word, form, gap in parts)
)
ITEMS = st.lists(st.lists(TEXTS, max_size=3), min_size=1, max_size=6)


def index_of(items: list[list[str]], words: int, min_words: int) -> TestIndex:
    building = _Building(words, min_words)
    for number, texts in enumerate(items):
        building.add(0, Item(f"item {number}", texts))
    return building.index(("test",))


def ngrams(text: str, words: int, min_words: int) -> list[tuple[int, int]]:
    """The first word, and the word after the last, of each n-gram of a text, found by loops."""
    spelt = naive.words(text)
    weights = [3 if alone else 5 for _, alone in spelt]
    found = []
    for first in range(len(spelt)):
        last = next((end for end in range(first, len(spelt) + 1) if sum(weights[first:end]) >= words * 5), None)
        if last is not None:
            found.append((first, last))
    if not found and spelt and sum(weights) >= min_words * 5:
        found = [(0, len(spelt))]
    return found


def expected(
    document: str, items: list[list[str]], words: int, min_words: int, frequent: set[tuple[str, ...]], certain: float
) -> dict[int, tuple[float, set[int]]]:
    """The share of each item found, and the words of the document that belong to it."""
    spelt = [word for word, _ in naive.words(document)]
    found = {}
    for number, texts in enumerate(items):
        shares, places = [], []
        total = 0
        for skip in (frequent, set()):
            covered, total, inside = 0, 0, set()
            for text in texts:
                own = [word for word, _ in naive.words(text)]
                all_words, here = set(), set()
                for first, last in ngrams(text, words, min_words):
                    gram = own[first:last]
                    all_words |= set(range(first, last))
                    at = [i for i in range(len(spelt)) if spelt[i : i + len(gram)] == gram]
                    if at and tuple(gram) not in skip:
                        here |= set(range(first, last))
                        inside |= {i + step for i in at for step in range(len(gram))}
                covered, total = covered + len(here), total + len(all_words)
            shares.append(covered / total if total else 0.0)
            places.append(inside)
        if shares[1] >= certain and total >= 2 * words:
            found[number] = shares[1], places[1]
        elif shares[0]:
            found[number] = shares[0], places[0]
    return found


def words_in(overlap: Overlap, spans: list[tuple[int, int]]) -> set[int]:
    places = overlap.hits.places
    return {i for i in range(len(places)) if any(a <= places.starts[i] and places.ends[i] <= b for a, b in spans)}


def with_others_of_a_character(overlap: Overlap, words: set[int]) -> set[int]:
    """The words, and those joined to them by a single character: Thai ``ำ`` becomes two characters when it is
    folded."""
    places = overlap.hits.places
    inside = {at for i in words for at in range(places.starts[i], places.ends[i])}
    return {i for i in range(len(places)) if inside.issuperset(range(places.starts[i], places.ends[i]))}


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    documents=st.lists(st.one_of(TEXTS, st.lists(TEXTS, max_size=3).map("".join), st.none()), max_size=5),
    items=ITEMS,
    lengths=st.sampled_from([(3, 2), (3, 3), (4, 1), (2, 2), (1, 1)]),
    frequent=st.sets(st.integers(0, 40)),
    certain=st.sampled_from([0.5, 0.8, 1.0]),
    data=st.data(),
)
def test_overlaps_equal_those_of_a_naive_search(documents, items, lengths, frequent, certain, data):
    # Some documents get a part of an item, which would rarely happen by chance.
    texts = [text for texts in items for text in texts]
    if texts:
        documents = [
            *documents,
            "red " + data.draw(st.sampled_from(texts)) + " fig " + data.draw(st.sampled_from(texts)),
        ]
    words, min_words = lengths
    index = index_of(items, words, min_words)
    marked = [gram in frequent for gram in range(len(index))]
    common = set()
    for gram in range(len(index)):
        first = index.occurrences[index.occurs[gram]]
        own = index.folded[index.begins[first] : index.begins[first + index.lengths[gram]]].decode().split("\0")[:-1]
        if marked[gram]:
            common.add(tuple(own))
    rule = Rule(0.0, certain, pa.array(marked, pa.bool_()).to_numpy(zero_copy_only=False) if common else None)
    hits = list(index.find(pa.array(documents, pa.string())))
    found = {overlap.row: overlap for hit in hits if (overlap := overlap_of(hit, index, rule)) is not None}
    for row, document in enumerate(documents):
        wanted = expected(document or "", items, words, min_words, common, certain)
        overlap = found.get(row)
        assert (
            {item.item: item.share for item in overlap.found}
            == pytest.approx({number: share for number, (share, _) in wanted.items()})
            if overlap
            else not wanted
        )
        if overlap is None:
            continue
        assert document is not None
        assert len(overlap.hits.places) == len(naive.words(document))
        for item in overlap.found:
            assert words_in(overlap, item.spans) == with_others_of_a_character(overlap, wanted[item.item][1])
        everywhere = set().union(*(places for _, places in wanted.values()))
        assert words_in(overlap, overlap.spans) == with_others_of_a_character(overlap, everywhere)
        assert [item.share for item in overlap.found] == sorted((item.share for item in overlap.found), reverse=True)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.text(
        st.one_of(
            st.characters(codec="utf-8"),
            st.sampled_from("a é\u0301ﬁß\uff21中\u200dกำ한ᄒ\u1161\u11ab\u0345Σ½\u00ad\u09c7\u09be"),
        )
    )
)
def test_places_equal_those_of_the_words_of_the_definition(text):
    places = places_of(text)
    words = [word for word, _ in naive.words(text)]
    assert places.folded.decode() == "".join(f"{word}\0" for word in words)
    last = 0
    for word, start, end in zip(words, places.starts.tolist(), places.ends.tolist(), strict=True):
        assert 0 <= start < end <= len(text)
        assert word in naive.folded(text[start:end])
        assert start >= last or naive.folded(text[start:end]) != word  # one character can be several words
        last = start
