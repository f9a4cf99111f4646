"""Scores and decisions on 6,000 documents equal those of NeMo Curator 1.4.0
(benchmarks/peers/nemo_filter_scores.py)."""

from __future__ import annotations

import inspect
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curator_text import filters
from curator_text.features.batch import TextFeatures

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
    """The filter whose scores a recorded column holds: ``WordCountFilter`` or ``SubstringFilter(substring='the',
    …)``."""
    class_name, _, arguments = name.partition("(")
    extra = {"metadata_file": str(DATA / "code_meta.csv")} if class_name == "PerExtensionFilter" else {}
    given = eval(f"dict({arguments.removesuffix(')')})")
    return getattr(filters, class_name)(**given, **extra)


def ours(stage: Any) -> pa.Array:
    return stage.scores_of(features())


def theirs(name: str) -> tuple[np.ndarray, np.ndarray]:
    table = pq.read_table(DATA / "nemo.parquet", columns=[name, f"{name} keep"])
    return table.column(0).to_numpy(), table.column(1).to_numpy()


# The parameters and defaults of a filter of NeMo Curator; None if there is no default.
DEFAULTS: dict[str, dict[str, Any]] = {
    "AlphaFilter": {"min_alpha_ratio": 0.25},
    "BoilerPlateStringFilter": {"remove_if_at_top_or_bottom": True, "max_boilerplate_string_ratio": 0.4},
    "BulletsFilter": {"max_bullet_lines_ratio": 0.9},
    "CommonEnglishWordsFilter": {"min_num_common_words": 2, "stop_at_false": True},
    "EllipsisFilter": {"max_num_lines_ending_with_ellipsis_ratio": 0.3},
    "FastTextLangId": {"model_path": None, "min_langid_score": 0.3},
    "FastTextQualityFilter": {"model_path": None, "label": "__label__hq", "alpha": 3, "seed": 42},
    "GeneralCommentToCodeFilter": {
        "language": None,
        "min_comment_to_code_ratio": 0.01,
        "max_comment_to_code_ratio": 0.85,
    },
    "HTMLBoilerplateFilter": {"min_lang_content_ratio": 0.2, "min_lang_content_num_chars": 100},
    "HistogramFilter": {"lang": "en", "threshold": 0.8, "cache_dir": "", "threshold_char": "]"},
    "LongWordFilter": {"max_word_length": 1000, "lang": "en"},
    "MeanWordLengthFilter": {"min_mean_word_length": 3, "max_mean_word_length": 10, "lang": "en"},
    "NonAlphaNumericFilter": {"max_non_alpha_numeric_to_text_ratio": 0.25},
    "NumberOfLinesOfCodeFilter": {"min_lines": 10, "max_lines": 20000},
    "NumbersFilter": {"max_number_to_text_ratio": 0.15},
    "ParenthesesFilter": {"max_parentheses_ratio": 0.1},
    "PerExtensionFilter": {"lang": None, "extension": None, "metadata_file": "code_meta.csv"},
    "PornographicUrlsFilter": {},
    "PunctuationFilter": {"max_num_sentences_without_endmark_ratio": 0.85},
    "PythonCommentToCodeFilter": {"min_comment_to_code_ratio": 0.01, "max_comment_to_code_ratio": 0.85},
    "RepeatedLinesByCharFilter": {"max_repeated_lines_char_ratio": 0.8},
    "RepeatedLinesFilter": {"max_repeated_line_fraction": 0.7},
    "RepeatedParagraphsByCharFilter": {"max_repeated_paragraphs_char_ratio": 0.8},
    "RepeatedParagraphsFilter": {"max_repeated_paragraphs_ratio": 0.7},
    "RepeatingDuplicateNGramsFilter": {"n": 2, "max_repeating_duplicate_ngram_ratio": 0.2, "lang": "en"},
    "RepeatingTopNGramsFilter": {"n": 2, "max_repeating_ngram_ratio": 0.2, "lang": "en"},
    "SubstringFilter": {"substring": None, "position": None},
    "SymbolsToWordsFilter": {"max_symbol_to_word_ratio": 0.1, "lang": "en"},
    "TokenCountFilter": {"tokenizer": None, "hf_model_name": None, "min_tokens": 0, "max_tokens": float("inf")},
    "TokenizerFertilityFilter": {"path_to_tokenizer": None, "min_char_to_token_ratio": 2.5},
    "UrlsFilter": {"max_url_to_text_ratio": 0.2},
    "WhiteSpaceFilter": {"max_white_space_ratio": 0.25},
    "WordCountFilter": {"min_words": 50, "max_words": 100000, "lang": "en"},
    "WordsWithoutAlphabetsFilter": {"min_words_with_alphabets": 0.8, "lang": "en"},
    "XMLHeaderFilter": {"char_prefix_search_length": 100},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_recipe_can_be_moved_with_its_names_and_defaults(name: str) -> None:
    known = inspect.signature(getattr(filters, name)).parameters.values()
    found = {one.name: None if one.default is one.empty else one.default for one in known}
    assert list(found)[: len(DEFAULTS[name])] == list(DEFAULTS[name])
    assert {key: found[key] for key in DEFAULTS[name]} == DEFAULTS[name]


def test_the_corpus_is_large_and_varied() -> None:
    kinds = Counter(pq.read_table(DATA / "corpus.parquet").column("kind").to_pylist())
    assert sum(kinds.values()) >= 5000
    assert kinds.keys() == {"prose", "code", "c", "html", "table", "script", "junk"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RECORDED if name not in TOP_NGRAMS])
def test_scores_and_decisions_equal_those_of_nemo_curator(name: str) -> None:
    stage = build(name)
    scores, (expected, kept) = ours(stage), theirs(name)
    np.testing.assert_allclose(scores.to_numpy(), expected, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(stage.keep(scores).to_numpy(zero_copy_only=False), kept)


@pytest.mark.slow
@pytest.mark.parametrize("name", TOP_NGRAMS)
def test_of_the_most_frequent_ngrams_the_first_is_taken_and_nemo_curator_takes_any(name: str) -> None:
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


@pytest.mark.slow
@pytest.mark.parametrize("name", TOP_NGRAMS)
def test_if_one_ngram_is_most_frequent_scores_and_decisions_equal_those_of_nemo_curator(name: str) -> None:
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
