"""Decision 0024 holds for every registered stage of every package: a column that a stage adds never replaces another
column."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from curator_core import CompositeStage, DocumentBatch, LocalExecutor, Pipeline, ProcessingStage, StageError
from curator_core.accounts.ledger import MemorySink
from curator_core.config.build import load_stage
from curator_core.model.stage import ANY_COLUMNS, needed_columns
from curator_core.planning.plan import PlannedStage
from curator_core.registry import STAGES, entries
from curator_core.stages.column_filter import ColumnFilter
from curator_core.worker.adapter import BaseStageAdapter
from curator_core.worker.context import RunContext

# Parameters for stages that require some. No file is opened, since the stages are not set up.
PARAMETERS: dict[str, dict[str, Any]] = {
    "ApplyDecisions": {"mode": "annotate", "path": "decisions"},
    "BadWordsFilter": {"words": ["bad"]},
    "Blend": {"weights": {"a": 1.0}},
    "Cast": {"columns": {"text": "string"}},
    "CountTestNgrams": {"path": "out", "test_sets": {"a": "a.txt"}},
    "Decontaminate": {"mode": "annotate", "test_sets": {"a": "a.txt"}},
    "DecisionsFromList": {"ids": "ids.txt", "path": "out"},
    "DropColumns": {"columns": ["text"]},
    "FastTextLangId": {"model_path": "model.bin"},
    "FastTextQualityFilter": {"model_path": "model.bin"},
    "GeneralCommentToCodeFilter": {"language": "text/x-python"},
    "ImageDuplicateRemoval": {"ids_path": "ids"},
    "ImageFetch": {"path": "out"},
    "ImageWriter": {"path": "out"},
    "JsonlWriter": {"path": "out"},
    "KenLMPerplexityFilter": {"model_path": "model.bin"},
    "Limit": {"rows": 1},
    "LineRemover": {"patterns": ["a"]},
    "Lookup": {"table": "side.parquet", "on": "id"},
    "MegatronWriter": {"path": "out", "vocab_size": 9},
    "PackTokens": {"length": 8},
    "ParquetWriter": {"path": "out"},
    "PerExtensionFilter": {"lang": "python", "extension": "py"},
    "RenameColumns": {"columns": {"text": "body"}},
    "Sample": {"fraction": 0.5},
    "SelectColumns": {"columns": ["text"]},
    "ShuffleWriter": {"path": "out"},
    "SplitByHash": {"parts": {"train": 1.0}},
    "SubstringFilter": {"substring": "a", "position": "any"},
    "TextClassifier": {"model": "a/b"},
    "TokenCountFilter": {"hf_model_name": "a/b"},
    "Tokenize": {"tokenizer": "a/b"},
    "TokenizerFertilityFilter": {"path_to_tokenizer": "a/b"},
    "UrlBlocklistFilter": {"domains": ["a.example"]},
    "Where": {"column": "text", "op": "is null"},
}
# Stages that may overwrite the columns that they declare, and the reasons.
MAY_REPLACE = {"ImageDecode": "pixels are made again at another size"}


def leaves(stage: ProcessingStage[Any, Any]) -> Iterator[ProcessingStage[Any, Any]]:
    """The stages of a composite."""
    if isinstance(stage, CompositeStage):
        for part in stage.decompose():
            yield from leaves(part)
    else:
        yield stage


@functools.cache
def stages() -> dict[str, ProcessingStage[Any, Any]]:
    """Every registered stage that works on rows, by name."""
    found = {}
    for name in entries(STAGES):
        kind = load_stage(name)
        if not issubclass(kind.task_in, DocumentBatch):
            continue
        parameters = dict(PARAMETERS.get(name, {}))
        if issubclass(kind, ColumnFilter):
            parameters["score_column"] = "score of mine"
        found[name] = kind(**parameters)  # a TypeError: add the stage to PARAMETERS
    return found


def added(stage: ProcessingStage[Any, Any]) -> list[str]:
    """The columns that a stage adds to those that it reads."""
    return [name for name in stage.outputs() if name != ANY_COLUMNS and name not in needed_columns(stage)]


CASES = [
    pytest.param(leaf, column, id=f"{name}-{column}")
    for name, stage in sorted(stages().items())
    for leaf in leaves(stage)
    for column in added(leaf)
]


def test_the_test_covers_stages_of_every_package_that_adds_columns() -> None:
    packages = {type(case.values[0]).__module__.partition(".")[0] for case in CASES}  # type: ignore[union-attr]
    assert packages == {"curator_core", "curator_text", "curator_image"}
    assert len(CASES) >= 80, "every filter adds its score, others more"


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "column"), CASES)
def test_a_column_of_the_data_is_not_overwritten(stage: ProcessingStage[Any, Any], column: str) -> None:
    if column in stage.replaces():
        assert type(stage).__name__ in MAY_REPLACE
        return
    names = [*needed_columns(stage), column]
    batch_type = type(stage).task_in
    table = pa.table({name: pa.array(["mine"]) for name in names})
    batch = (
        batch_type(data=table, task_id="a")
        if batch_type is not DocumentBatch
        else DocumentBatch(data=table, task_id="a")
    )
    adapter = BaseStageAdapter(PlannedStage(stage, stage.name), RunContext(), MemorySink())
    with pytest.raises(StageError, match=f"adds a column '{column}', and there is one already"):
        list(adapter.stream(iter([batch])))


def test_under_quarantine_the_rows_are_set_aside_and_keep_their_values() -> None:
    from curator_core.testing.stages import AddLength

    tasks = [DocumentBatch(data=pa.table({"text": ["a"], **more})) for more in ({}, {"length": ["mine"]})]
    result = Pipeline([AddLength()]).run(LocalExecutor(workers=0), initial_tasks=tasks, on_error="quarantine")
    assert [task.to_pyarrow().to_pylist() for task in result] == [[{"text": "a", "length": 1}]]
    assert result.summary.rows_quarantined == 1
