"""Decisions and reasons on 6,000 documents equal those of datatrove 0.10.1
(benchmarks/peers/datatrove_filter_scores.py).

Each rule is also compared alone, with a limit that affects the corpus.
"""

from __future__ import annotations

import ast
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from curator_text import filters
from curator_text.features.batch import TextFeatures
from curator_text.filters.recipes import LineStage, RecipeFilter

DATA = Path(__file__).parent / "data"
RECORDED = [name for name in pq.read_schema(DATA / "datatrove.parquet").names if not name.endswith(" crc32")]

# datatrove compares n-grams by their words without spaces, so "#define a b" and "#definea b" are equal. One of 6,000
# documents has a pair like this; see docs/text-filters.md.
RUN_TOGETHER = {("GopherRepetitionFilter", 5): [2511]}


@cache
def texts() -> list[str]:
    found: list[str] = pq.read_table(DATA / "corpus.parquet").column("text").to_pylist()
    return found


@cache
def features() -> TextFeatures:
    return TextFeatures.of(texts())


def reasons(stage: Any) -> list[str]:
    if isinstance(stage, RecipeFilter):
        return [reason or "" for reason in stage.reasons(stage.scores_of(features())).to_pylist()]
    if isinstance(stage, LineStage):
        return stage_reasons(stage)
    kept = stage.keep(stage.scores_of(features())).to_pylist()
    return ["" if keep else "< 3 paragraphs" for keep in kept]


def stage_reasons(stage: Any) -> list[str]:
    return [stage.edit_one(text)[1] for text in texts()]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDED)
def test_decisions_and_reasons_equal_those_of_datatrove(name: str) -> None:
    class_name, _, arguments = name.partition(" ")
    given = ast.literal_eval(arguments)
    expected = pq.read_table(DATA / "datatrove.parquet", columns=[name]).column(0).to_pylist()
    found = reasons(getattr(filters, class_name)(**given))
    different = [index for index, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b]
    assert different == RUN_TOGETHER.get((class_name, next((n for n, _ in given.get("dup_n_grams", ())), 0)), [])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RECORDED if name.startswith("C4QualityFilter")])
def test_c4_leaves_the_same_text_of_a_document_as_datatrove(name: str) -> None:
    stage = filters.C4QualityFilter(**ast.literal_eval(name.partition(" ")[2]))
    expected = pq.read_table(DATA / "datatrove.parquet", columns=[f"{name} crc32"]).column(0).to_numpy()
    left = [stage.edit_one(text)[0] for text in texts()]
    np.testing.assert_array_equal([0 if text is None else zlib.crc32(text.encode()) for text in left], expected)
