"""Column filters define a score and a predicate; modes, columns and accounting come from the base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_core import ColumnFilter, DocumentBatch, LocalExecutor, Pipeline, RunResult, StageError, UsageError


@dataclass
class LengthFilter(ColumnFilter):
    min_chars: int = 2
    max_chars: int = 4

    score_type = pa.int64()

    def score_one(self, value: str | None) -> int | None:
        return None if value is None else len(value)

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return pc.and_(pc.greater_equal(scores, self.min_chars), pc.less_equal(scores, self.max_chars))

    def reasons(self, scores: pa.Array) -> pa.Array:
        return pc.if_else(pc.less(scores, self.min_chars), "too short", "too long")


@dataclass
class OneForAll(ColumnFilter):
    def score_array(self, values: pa.Array) -> pa.Array:
        return pa.array([1.0])

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return pc.greater(scores, 0)


TEXTS = ["a", "bb", None, "dddd", "eeeee", ""]


def run(stage: ColumnFilter, texts: list[Any] = TEXTS, **options: Any) -> RunResult:
    task = DocumentBatch(data=pa.table({"text": pa.array(texts, pa.string())}))
    return Pipeline([stage]).run(LocalExecutor(workers=0), initial_tasks=[task], **options)


def columns(result: RunResult) -> dict[str, list[Any]]:
    values: dict[str, list[Any]] = result[0].to_pyarrow().to_pydict()
    return values


def test_filter_keeps_passing_rows_and_counts_the_others_by_reason() -> None:
    result = run(LengthFilter())
    assert columns(result) == {"text": ["bb", "dddd"]}
    stats = result.summary.stages[0]
    assert stats.dropped == {"too short": 2, "too long": 1, "length": 1}
    assert (stats.rows_in, stats.rows_out) == (6, 2)


def test_invert_keeps_the_others() -> None:
    result = run(LengthFilter(mode="invert"))
    assert columns(result) == {"text": ["a", None, "eeeee", ""]}
    assert result.summary.stages[0].dropped == {"not length": 2}


def test_annotate_keeps_all_and_adds_score_and_verdict() -> None:
    result = run(LengthFilter(mode="annotate"))
    assert columns(result) == {
        "text": TEXTS,
        "length": [1, 2, None, 4, 5, 0],
        "length_keep": [False, True, False, True, False, False],
    }
    assert result.summary.rows_dropped == 0


def test_the_score_is_kept_in_every_mode_if_a_column_is_named() -> None:
    assert columns(run(LengthFilter(score_column="n"))) == {"text": ["bb", "dddd"], "n": [2, 4]}
    assert LengthFilter(score_column="n").outputs() == ["n"]
    assert LengthFilter(mode="annotate", score_column="n").outputs() == ["n", "n_keep"]
    assert LengthFilter().outputs() == []


def test_an_empty_batch_is_filtered_like_any_other() -> None:
    assert columns(run(LengthFilter(), [])) == {"text": []}
    assert columns(run(LengthFilter(mode="annotate"), [])) == {"text": [], "length": [], "length_keep": []}


def test_a_filter_can_be_tried_by_hand() -> None:
    scores = LengthFilter().score(["a", "bb"])
    assert scores.to_pylist() == [1, 2]
    assert LengthFilter().keep(scores).to_pylist() == [False, True]
    assert LengthFilter().keep([]).to_pylist() == []


def test_a_score_of_another_length_is_an_error_that_names_both() -> None:
    with pytest.raises(StageError, match=r"OneForAll.score_array gave 1 value for 6 rows"):
        run(OneForAll())


@pytest.mark.parametrize(("params", "message"), [({"mode": "keep"}, "annotate"), ({"column": ""}, "name of a column")])
def test_parameters_are_checked(params: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LengthFilter(**params)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=6)), max_size=30), st.sampled_from(["filter", "invert"]))
def test_input_rows_are_kept_or_dropped(texts: list[str | None], mode: Any) -> None:
    stats = run(LengthFilter(mode=mode), texts).summary.stages[0]
    assert stats.rows_in == len(texts) == stats.rows_out + sum(stats.dropped.values())
    kept = columns(run(LengthFilter(mode=mode), texts))["text"]
    passes = [text is not None and 2 <= len(text) <= 4 for text in texts]
    assert kept == [text for text, good in zip(texts, passes, strict=True) if good == (mode == "filter")]


def test_a_filter_without_a_description_shows_its_parameters() -> None:
    @dataclass
    class Longer(ColumnFilter):
        chars: int = 3

    assert Longer().describe() == "keeps rows by chars=3"
    assert Longer(4, mode="invert").describe() == "drops rows by chars=4"
    assert Longer(mode="annotate", score_column="size").describe() == "drops nothing; marks rows by chars=3"
