"""A recipe that annotates drops nothing, and says for each document which of its filters would have kept it."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from curator_core import DocumentBatch, LocalExecutor, Pipeline, UsageError
from curator_text.presets import C4, FineWeb, Gopher, Recipe, WebEnglish

TEXTS = [
    "{ curly",
    "too short",
    "The cat sat on the mat, and it was happy to be there with you. " * 12,
    "a\nb\na\nb\n" * 9,
]


def rows(recipe: Recipe) -> pa.Table:
    batch = DocumentBatch(data=pa.table({"text": TEXTS, "url": ["a"] * 4}))
    results = list(Pipeline([recipe]).run(LocalExecutor(workers=0), initial_tasks=[batch]))
    return pa.concat_tables([task.to_pyarrow() for task in results])


@pytest.mark.parametrize(
    "recipe", [Gopher(), C4(), FineWeb(language=None), WebEnglish()], ids=lambda r: type(r).__name__
)
def test_every_row_stays_and_has_a_verdict_of_each_filter(recipe: Recipe) -> None:
    annotated = rows(recipe.with_(mode="annotate"))
    assert annotated["text"].to_pylist() == TEXTS
    assert len([name for name in annotated.column_names if name.endswith("_keep")]) == len(recipe.decompose())


def test_the_verdicts_equal_those_of_the_filtering_recipe() -> None:
    draw = random.Random(3)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(3, 8))) for _ in range(120)]
    texts = [" ".join(["the", *words, "and", "of", "with"]), *TEXTS]
    batch = DocumentBatch(data=pa.table({"text": texts}))
    annotated, kept = (
        [
            text
            for task in Pipeline([recipe]).run(LocalExecutor(workers=0), initial_tasks=[batch])
            for text in task.to_pyarrow().to_pylist()
        ]
        for recipe in (Gopher(mode="annotate"), Gopher())
    )
    passed = [row["text"] for row in annotated if all(row[name] for name in row if name.endswith("_keep"))]
    assert passed == [row["text"] for row in kept]
    assert passed


def test_a_mode_that_a_recipe_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match=r"Gopher\.mode must be 'filter' or 'annotate', not 'invert'"):
        Gopher(mode="invert")  # type: ignore[arg-type]
