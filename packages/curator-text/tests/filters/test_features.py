"""Every measure equals its definition in plain Python."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_core import DocumentBatch, UsageError
from curator_text.features import batch as feature_batch
from curator_text.features import grams, urls
from curator_text.features import lines as line_features
from curator_text.features import words as word_features
from curator_text.features.batch import TextFeatures, features_of
from curator_text.features.block import BLANK, DIGIT, ENGLISH, LETTER, Block
from curator_text.features.grams import (
    covered_gram_chars,
    skipped_gram_chars,
    top_gram_counts,
    top_gram_removed,
    top_gram_sizes,
)
from curator_text.features.lines import between_newlines, distinct_sentences, paragraphs_of, printed_lines_of
from curator_text.features.words import distinct_known_words, known_word_counts, word_counts

# Few and awkward characters, so that repetitions, runs and odd white space are common.
ALPHABET = "aab.#-•…é漢😀\0 \n\n\t\r\x0b\x1c\x85\u2028\u3000\u00a0?\"'1{⟨(K"
AWKWARD = st.text(alphabet=ALPHABET, max_size=60)
WORDY = st.lists(
    st.sampled_from(
        [
            "a",
            "b",
            "the",
            "é",
            "longer-than-eight",
            "longer-than-sixteen-bytes",
            "x" * 17,
            "y" * 40,
            "z" * 41,
            "z" * 40 + "y",
        ]
    )
)
TEXTS = st.lists(st.one_of(AWKWARD, st.text(max_size=40), WORDY.map(" ".join), WORDY.map("\n".join)), max_size=12)


def lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def top_gram(text: str, n: int) -> tuple[str, int]:
    words = text.split()
    counts: dict[tuple[str, ...], int] = {}
    for gram in zip(*(words[i:] for i in range(n)), strict=False):
        counts[gram] = counts.get(gram, 0) + 1
    best = max(counts, key=lambda gram: counts[gram], default=())
    return " ".join(best), counts.get(best, 0)


def covered(text: str, n: int) -> int:
    words = text.split()
    seen: set[tuple[str, ...]] = set()
    total = last = 0
    for i in range(len(words) - n + 1):
        gram = tuple(words[i : i + n])
        if gram in seen:
            fresh = words[max(i, last) : i + n]
            total += sum(map(len, fresh)) + (len(fresh) if last > i else n - 1)
            last = i + n
        seen.add(gram)
    return total


def skipped(text: str, n: int) -> int:
    words = text.split()
    seen: set[tuple[str, ...]] = set()
    total = i = 0
    while i < len(words) - n + 1:
        gram = tuple(words[i : i + n])
        if gram in seen:
            total += sum(map(len, gram))
            i += n
        else:
            seen.add(gram)
            i += 1
    return total


ORACLES: dict[str, tuple[Callable[[str], int], tuple[object, ...]]] = {
    "char_counts": (len, ()),
    "byte_counts": (lambda t: len(t.encode()), ()),
    "word_counts": (lambda t: len(t.split()), ()),
    "word_chars": (lambda t: sum(map(len, t.split())), ()),
    "longest_words": (lambda t: max(map(len, t.split()), default=0), ()),
    "line_counts": (lambda t: len(t.split("\n")), ()),
    "sentence_counts": (lambda t: len(lines(t)), ()),
    "sentence_chars": (lambda t: len("".join(lines(t))), ()),
    "distinct_sentences": (lambda t: len(set(lines(t))), ()),
    "distinct_sentence_chars": (lambda t: len("".join(set(lines(t)))), ()),
    "paragraph_counts": (lambda t: len(t.split("\n\n")), ()),
    "paragraph_chars": (lambda t: len("".join(t.split("\n\n"))), ()),
    "distinct_paragraphs": (lambda t: len(set(t.split("\n\n"))), ()),
    "distinct_paragraph_chars": (lambda t: len("".join(set(t.split("\n\n")))), ()),
    "bullet_sentences": (lambda t: sum(x.strip().startswith(tuple(line_features.BULLETS)) for x in lines(t)), ()),
    "endmark_sentences": (lambda t: sum(x.strip().endswith((".", "?", "!", '"', "'")) for x in lines(t)), ()),
    "ellipsis_sentences": (
        lambda t: sum(
            x.strip().lower().endswith((*word_features.ELLIPSES, "read more", "read more..")) for x in lines(t)
        ),
        (),
    ),
    "symbol_words": (
        lambda t: sum(w in word_features.ELLIPSES or len(re.findall("#+", w)) / len(w) > 0.5 for w in t.split()),
        (),
    ),
}


def measure(name: str) -> Any:
    """A measure by its name, whatever its module."""
    homes = (Block, word_features, grams, line_features, urls)
    return next(getattr(home, name) for home in homes if hasattr(home, name))


@pytest.mark.slow
@pytest.mark.parametrize("examples", [40, pytest.param(100, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("name", ORACLES)
def test_a_measure_equals_that_of_plain_python(name: str, examples: int) -> None:
    oracle, args = ORACLES[name]

    @settings(max_examples=examples, deadline=None)
    @given(texts=TEXTS)
    def holds(texts: list[str]) -> None:
        assert TextFeatures.of(texts).per_row(measure(name), *args).tolist() == [oracle(text) for text in texts]

    holds()


@pytest.mark.slow
@settings(deadline=None)
@given(texts=TEXTS)
def test_classes_of_characters_are_counted(texts: list[str]) -> None:
    found = TextFeatures.of(texts)
    for bits, pattern in (
        (ENGLISH, "[a-zA-Z0-9\n?!,.]"),
        (DIGIT, "[0-9]"),
        (BLANK, "[\t\n\r\b ]"),
        (LETTER, "[a-zA-Z]"),
    ):
        assert found.per_row(Block.class_counts, bits).tolist() == [len(re.findall(pattern, text)) for text in texts]


@pytest.mark.slow
@settings(deadline=None)
@given(texts=TEXTS)
def test_known_words_are_counted_both_with_and_without_repetition(texts: list[str]) -> None:
    known = ("a", "the", "é", "longer-than-eight", "longer-than-sixteen-bytes", "longer-t", "")
    found = TextFeatures.of(texts)
    words = [[word for word in text.split() if word in known] for text in texts]
    assert found.per_row(known_word_counts, known).tolist() == [len(some) for some in words]
    assert found.per_row(distinct_known_words, known).tolist() == [len(set(some)) for some in words]


@pytest.mark.slow
@settings(deadline=None)
@given(texts=TEXTS, n=st.integers(1, 4))
def test_ngrams_equal_those_of_plain_python(texts: list[str], n: int) -> None:
    found = TextFeatures.of(texts)
    tops = [top_gram(text, n) for text in texts]
    assert found.per_row(top_gram_counts, n).tolist() == [count for _, count in tops]
    assert found.per_row(top_gram_sizes, n).tolist() == [len(gram) for gram, _ in tops]
    removed = [len(t) - len(t.replace(gram, "")) if gram else 0 for t, (gram, _) in zip(texts, tops, strict=True)]
    assert found.per_row(top_gram_removed, n).tolist() == removed
    assert found.per_row(covered_gram_chars, n).tolist() == [covered(text, n) for text in texts]
    assert found.per_row(skipped_gram_chars, n).tolist() == [skipped(text, n) for text in texts]


def test_words_whose_hashes_collide_are_still_distinguished(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a b a b c d", "a b", "long-word-one x long-word-two x", "p" * 50 + " q " + "r" * 50 + " q"]
    expected = [[top_gram(text, n)[1] for text in texts] for n in (1, 2, 3)]
    # Every hash is zero.
    monkeypatch.setattr(grams, "ODD", np.zeros_like(grams.ODD))
    monkeypatch.setattr(line_features, "ODD", np.zeros_like(line_features.ODD))
    found = TextFeatures.of(texts)
    assert [found.per_row(top_gram_counts, n).tolist() for n in (1, 2, 3)] == expected
    assert found.per_row(distinct_sentences).tolist() == [1] * 4
    # The hash is constant only for long words.
    monkeypatch.undo()
    monkeypatch.setattr(grams.xxhash, "xxh3_64_intdigest", lambda data: 7)
    assert TextFeatures.of(texts).per_row(top_gram_counts, 2).tolist() == expected[1]


@pytest.mark.slow
@settings(deadline=None)
@given(texts=TEXTS)
def test_lines_and_paragraphs_of_the_recipes_equal_those_of_plain_python(texts: list[str]) -> None:
    block = Block([text.encode() for text in texts])

    def pieces(found: line_features.Pieces) -> list[list[str]]:
        grouped: list[list[str]] = [[] for _ in texts]
        for start, end, row in zip(found.starts, found.ends, found.rows, strict=True):
            grouped[row].append(block.raw[start:end].decode())
        return grouped

    assert pieces(printed_lines_of(block)) == [text.splitlines() for text in texts]
    assert pieces(between_newlines(block, 1, strip=False)) == [re.split("\n+", text) for text in texts]
    assert pieces(between_newlines(block, 2, strip=True)) == [re.split("\n{2,}", text.strip()) for text in texts]
    assert pieces(paragraphs_of(block)) == [text.split("\n\n") for text in texts]


@pytest.mark.slow
@settings(deadline=None)
@given(texts=TEXTS, needle=st.text(alphabet=ALPHABET, min_size=1, max_size=3).filter(lambda t: len(t.encode()) > 1))
def test_a_needle_is_found_wherever_it_is(texts: list[str], needle: str) -> None:
    block = Block([text.encode() for text in texts])
    inside = [at for at in block.find(needle.encode()).tolist() if any(a <= at < b for a, b in block.spans)]
    rows = np.bincount(block.rows_of(np.array(inside, np.int64)), minlength=len(texts)).tolist()
    encoded = needle.encode()
    for text, found in zip(texts, rows[: len(texts)], strict=True):
        data = text.encode() + b"\n"  # a needle may end in the newline after its document
        assert found == sum(data.startswith(encoded, at) for at in range(len(text.encode())))


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(texts=TEXTS, data=st.data())
def test_features_stay_correct_after_a_filter_whatever_was_computed_before(
    texts: list[str], data: st.DataObject
) -> None:
    found = TextFeatures.of(texts)
    for _ in range(3):
        if data.draw(st.booleans()):
            found.per_row(word_counts)
            found.per_row(top_gram_removed, 2)
        mask = data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))
        found = found.filter(pa.array(mask, pa.bool_()))
        texts = [text for text, keep in zip(texts, mask, strict=True) if keep]
        fresh = TextFeatures.of(texts)
        assert len(found) == len(texts)
        assert list(found.texts()) == texts
        for measure, args in ((word_counts, ()), (top_gram_removed, (2,)), (distinct_sentences, ())):
            assert found.per_row(measure, *args).tolist() == fresh.per_row(measure, *args).tolist()


def test_documents_are_split_into_blocks_and_stay_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_batch, "BLOCK_BYTES", 64)
    texts = [f"{'word ' * (index % 7)}{index}" for index in range(200)]
    found = TextFeatures.of(texts)
    assert len(found._blocks) > 10
    assert found.per_row(word_counts).tolist() == [len(text.split()) for text in texts]
    kept = found.filter(np.arange(200) % 3 == 0)
    assert list(kept.texts()) == texts[::3]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_any_arrow_type_of_strings_is_read_and_null_counts_as_empty(kind: pa.DataType) -> None:
    values = (
        pa.array(["x", "a b", None, "c"]).cast(kind)
        if pa.types.is_dictionary(kind)
        else pa.array(["x", "a b", None, "c"], kind)
    )
    assert TextFeatures.of(values[1:]).per_row(word_counts).tolist() == [2, 0, 1]
    assert TextFeatures.of(pa.chunked_array([values, values])).per_row(word_counts).tolist() == [1, 2, 0, 1] * 2


def test_a_column_of_nulls_counts_as_empty_texts() -> None:
    assert TextFeatures.of(pa.nulls(2)).per_row(Block.char_counts).tolist() == [0, 0]


def test_a_column_of_numbers_is_refused() -> None:
    with pytest.raises(UsageError, match="column of strings, not of int64"):
        TextFeatures.of(pa.array([1, 2]))


def test_a_batch_keeps_its_features_for_the_next_filter() -> None:
    batch = DocumentBatch(data=pa.table({"text": ["a b", "c"]}))
    first = features_of(batch, "text")
    assert features_of(batch, "text") is first
    assert features_of(batch.append_column("n", pa.array([1, 2])), "text") is first
    narrowed = batch.filter(pa.array([False, True]))
    assert list(features_of(narrowed, "text").texts()) == ["c"]
    changed = batch.append_column("text", pa.array(["x y z", ""]))
    assert list(features_of(changed, "text").texts()) == ["x y z", ""]


def test_a_missing_column_is_named() -> None:
    with pytest.raises(UsageError, match="no column 'body'"):
        features_of(DocumentBatch(data=pa.table({"text": ["a"]})), "body")
