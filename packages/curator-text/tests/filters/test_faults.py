"""The part at fault is marked in a dropped text, and filters report the limits of their scores."""

from __future__ import annotations

import pyarrow as pa
import pytest

from curator_core import ColumnFilter
from curator_text import GopherQualityFilter, LanguageFilter, WordCountFilter
from curator_text.filters import (
    BadWordsFilter,
    BulletsFilter,
    C4QualityFilter,
    FineWebQualityFilter,
    GopherRepetitionFilter,
    LongWordFilter,
    MeanWordLengthFilter,
    NumbersFilter,
    PunctuationFilter,
    RepeatedLinesFilter,
    RepeatingTopNGramsFilter,
    UrlsFilter,
)


@pytest.mark.parametrize(
    ("stage", "text", "reason", "marked"),
    [
        (NumbersFilter(), "call 555 or 0190", "numbers", ["555", "0190"]),
        (RepeatedLinesFilter(), "menu\nhome\nmenu\n menu ", "repeated_lines", ["menu", " menu "]),
        (BadWordsFilter(words=["darn", "very bad"]), "Darn it, very bad", "bad_words", ["Darn", "very bad"]),
        (UrlsFilter(), "see https://a.example/x and more", "urls", ["https://a.example/x"]),
        (BulletsFilter(), "- one\n- two\nend", "bullets", ["-", "-"]),
        (LongWordFilter(max_word_length=5), "short overlong", "long_word", ["overlong"]),
        (PunctuationFilter(), "An end.\nno end", "punctuation", ["no end"]),
        (RepeatingTopNGramsFilter(n=2), "buy now or buy now", "repeating_top_2grams", ["buy now", "buy now"]),
        (GopherQualityFilter(), "a ### b", "gopher_too_many_hashes", ["###"]),
        (GopherRepetitionFilter(), "x\ny\nx", "dup_line_frac", ["x"]),
        (GopherRepetitionFilter(), "a b c d e a b c d e", "duplicated_5_n_grams", ["a b c d e"]),
        (FineWebQualityFilter(), "long enough to be a line of its own\nok", "short_line_ratio", ["ok"]),
        (C4QualityFilter(), "if (x) { y }", "curly_bracket", ["{"]),
        (WordCountFilter(), "too short", "word_count", []),
    ],
)  # fmt: skip
def test_the_part_at_fault_is_found(stage: ColumnFilter, text: str, reason: str, marked: list[str]) -> None:
    assert [text[start:end] for start, end in stage.at_fault(text, reason)] == marked


@pytest.mark.parametrize(
    ("stage", "limits"),
    [
        (WordCountFilter(), ["word_count min_words at least 50", "word_count max_words at most 100000"]),
        (NumbersFilter(), ["numbers max_number_to_text_ratio at most 0.15"]),
        (
            MeanWordLengthFilter(min_mean_word_length=4, max_mean_word_length=4),
            ["mean_word_length min_mean_word_length at least 4", "mean_word_length max_mean_word_length at most 4"],
        ),
        (LanguageFilter(), ["score min_score at least 0.65"]),
        (FineWebQualityFilter(), [
            "line_punct_ratio line_punct_thr at least 0.12",
            "short_line_ratio short_line_thr at most 0.67",
            "char_dup_ratio char_duplicates_ratio at most 0.01",
            "list_ratio new_line_ratio at most 0.3",
        ]),
    ],
)  # fmt: skip
def test_limits_are_found_by_trying_the_filter(stage: ColumnFilter, limits: list[str]) -> None:
    found = [f"{s.name} {x.parameter} {x.keeps} {x.value:g}" for s in stage.declared_scores() for x in s.limits]
    assert found == limits
    assert all(limit.inclusive for score in stage.declared_scores() for limit in score.limits)


def test_each_limit_of_a_recipe_belongs_to_its_score() -> None:
    found = {
        limit.parameter: score.name for score in GopherRepetitionFilter().declared_scores() for limit in score.limits
    }
    assert found["top_n_grams[3]"] == "top_3_gram"
    assert found["dup_line_frac"] == "dup_line_frac"
    assert len(found) == 13
    empty = GopherQualityFilter().scores_with("words", [49.0, 50.0])
    assert pa.types.is_struct(empty.type)
    assert GopherQualityFilter().tests(empty)["gopher_short_doc"].to_pylist() == [True, False]
