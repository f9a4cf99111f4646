"""Scores and decisions on 6,000 documents are those of NeMo Curator 1.4.0 (benchmarks/peers/nemo_filter_scores.py)."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curator_text import filters
from curator_text.features import TextFeatures

DATA = Path(__file__).parent / "data"
RECORDED = [name for name in pq.read_schema(DATA / "nemo.parquet").names if not name.endswith(" keep")]
TOP_NGRAMS = [name for name in RECORDED if name.startswith("RepeatingTopNGrams")]


@cache
def corpus() -> pa.ChunkedArray:
    return pq.read_table(DATA / "corpus.parquet").column("text")


@cache
def features() -> TextFeatures:
    return TextFeatures.of(corpus())


def build(name: str) -> Any:
    """The filter that a recorded column is about: ``WordCountFilter`` or ``SubstringFilter(substring='the', …)``."""
    class_name, _, arguments = name.partition("(")
    extra = {"metadata_file": str(DATA / "code_meta.csv")} if class_name == "PerExtensionFilter" else {}
    given = eval(f"dict({arguments.removesuffix(')')})")
    return getattr(filters, class_name)(**given, **extra)


def ours(stage: Any) -> pa.Array:
    return stage.scores_of(features())


def theirs(name: str) -> tuple[np.ndarray, np.ndarray]:
    table = pq.read_table(DATA / "nemo.parquet", columns=[name, f"{name} keep"])
    return table.column(0).to_numpy(), table.column(1).to_numpy()


def test_the_corpus_is_large_and_varied() -> None:
    kinds = Counter(pq.read_table(DATA / "corpus.parquet").column("kind").to_pylist())
    assert sum(kinds.values()) >= 5000
    assert kinds.keys() == {"prose", "code", "c", "html", "table", "script", "junk"}


@pytest.mark.parametrize("name", [name for name in RECORDED if name not in TOP_NGRAMS])
def test_scores_and_decisions_are_those_of_nemo_curator(name: str) -> None:
    stage = build(name)
    scores, (expected, kept) = ours(stage), theirs(name)
    np.testing.assert_allclose(scores.to_numpy(), expected, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(stage.keep(scores).to_numpy(zero_copy_only=False), kept)


@pytest.mark.parametrize("name", TOP_NGRAMS)
def test_the_most_frequent_ngram_is_the_first_of_those_from_which_nemo_curator_picks_any(name: str) -> None:
    stage = build(name)
    scores, (expected, _) = ours(stage).to_numpy(), theirs(name)
    texts = corpus().to_pylist()
    same = np.abs(scores - expected) <= 1e-9
    assert same.mean() > 0.4
    for index in np.flatnonzero(~same):
        possible = scores_of_all_top_ngrams(texts[index], stage.n)
        assert len(possible) > 1, texts[index]
        assert scores[index] == pytest.approx(possible[0], abs=1e-9)
        assert np.abs(np.array(possible) - expected[index]).min() <= 1e-9


@pytest.mark.parametrize("name", TOP_NGRAMS)
def test_where_one_ngram_is_most_frequent_scores_and_decisions_are_those_of_nemo_curator(name: str) -> None:
    stage = build(name)
    scores = ours(stage)
    expected, kept = theirs(name)
    sole = [len(scores_of_all_top_ngrams(text, stage.n)) < 2 for text in corpus().to_pylist()]
    assert sum(sole) > 500
    np.testing.assert_allclose(scores.to_numpy()[sole], expected[sole], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(stage.keep(scores).to_numpy(zero_copy_only=False)[sole], kept[sole])


def scores_of_all_top_ngrams(text: str, n: int) -> list[float]:
    """The score for each of the most frequent n-grams, in order of first occurrence."""
    words = text.split()
    grams = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    most = max(grams.values(), default=0)
    tops = [" ".join(gram) for gram, count in grams.items() if count == most]
    return [(len(text) - len(text.replace(top, ""))) / len(text) for top in tops]
