"""Results of models on a CPU do not depend on threads or on the batch, and only slightly on the processor."""

from __future__ import annotations

import random
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curator_core import DocumentBatch
from curator_core.testing.reproducible import THREADS, TORCH_PROCESSORS, Case, Environment, compare, run_cases
from curator_text.models import TextEmbedding
from curator_text.models.base import TextModel

# The documented differences between processors, whose kernels add in different orders (docs/text-io.md): for
# probabilities and normalized embeddings, and for other numbers.
TOLERANCE, LARGER_TOLERANCE = 1e-5, 1e-4
WORDS = [f"word{number}" for number in range(200)]


LENGTHS = (20, 1, 120, 8, 50, 3)


def documents(count: int = 12) -> DocumentBatch:
    random_ = random.Random(3)
    texts = [" ".join(random_.choices(WORDS, k=LENGTHS[number % len(LENGTHS)])) for number in range(count - 2)]
    return DocumentBatch(data=pa.table({"text": ["", None, *texts]}))


def threads_of(numbers: tuple[int, ...]) -> dict[str, Environment]:
    return {f"{number} threads": THREADS[f"{number} threads"] for number in numbers}


@pytest.mark.slow
@pytest.mark.models
# A process for each number takes eight seconds, most of them to import torch and transformers.
@pytest.mark.parametrize(("count", "threads"), [(12, (1, 4)), pytest.param(22, (1, 2, 4), marks=pytest.mark.thorough)])
def test_no_model_stage_depends_on_threads_or_batches(
    tmp_path: Path, save_model: Any, count: int, threads: tuple[int, ...]
) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    encoder = save_model(tmp_path / "encoder", None)
    classes = save_model(tmp_path / "classes", ["bad", "fine", "good"])
    headed = save_model(tmp_path / "headed", ["Games", "News"], headed=True)
    level = save_model(tmp_path / "level", ["LABEL_0"])
    given: dict[str, dict[str, Any]] = {
        "TextEmbedding": {"model": encoder},
        "TextClassifier": {"model": classes, "scores_column": "scores"},
        "DomainClassifier": {"model": headed, "scores_column": "scores"},
        "QualityClassifier": {"model": headed, "scores_column": "scores"},
        "ContentTypeClassifier": {"model": headed, "scores_column": "scores"},
        "FineWebEduClassifier": {"model": level},
    }
    models = {
        entry.name: cls
        for entry in entry_points(group="curator.stages")
        if entry.value.startswith("curator_text") and issubclass(cls := entry.load(), TextModel)
    }
    assert given.keys() == models.keys(), "a model stage that is registered is run here"
    # Three are the same class under other names, so only one of them is run with every batch size.
    short = {"QualityClassifier", "ContentTypeClassifier"}
    texts = documents(count)
    cases = [
        Case(name, [cls(**given[name])], texts, (7, None) if name in short else (1, 7, None))
        for name, cls in models.items()
    ]
    cases += [
        Case(f"pooled by {how}", [TextEmbedding(model=encoder, pooling=how, normalize=False)], texts, (7, None))
        for how in ("mean", "cls", "last", "max")
    ]
    found = run_cases(cases, tmp_path / "runs", {**threads_of(threads), **TORCH_PROCESSORS})
    assert compare(found, dict.fromkeys(TORCH_PROCESSORS, LARGER_TOLERANCE)) == []
    small = {name: tables for name, tables in found.items() if "pooled" not in name and name != "FineWebEduClassifier"}
    assert len(small) == 5
    assert compare(small, dict.fromkeys(TORCH_PROCESSORS, TOLERANCE)) == []


@pytest.mark.models
def test_the_number_of_threads_of_the_process_is_restored(tmp_path: Path, save_model: Any) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    stage = TextEmbedding(model=save_model(tmp_path / "encoder", None))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        stage.process(documents())
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
