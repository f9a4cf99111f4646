"""A key of a pipeline file has the same meaning in every stage of every package: `column` is the column that a stage
reads."""

from __future__ import annotations

import inspect
from importlib.metadata import entry_points
from typing import Any

import pytest

from curator_core.model.stage import CompositeStage, ProcessingStage

MARK = "marked"
# Other parameters that stages require.
NEEDED: dict[str, Any] = {
    "columns": {"a": "b"},
    "extension": "py",
    "fraction": 0.5,
    "ids_path": "ids.parquet",
    "lang": "python",
    "language": "text/x-c",
    "length": 8,
    "model": "model",
    "model_path": "model",
    "parts": {"a": 1.0},
    "path": "out",
    "path_to_tokenizer": "tokenizer.json",
    "paths": "in",
    "patterns": ["x"],
    "position": "any",
    "rows": 1,
    "separator": " ",
    "substring": "x",
    "test_sets": {"a": "a.txt"},
    "tokenizer": "tokenizer.json",
    "vocab_size": 100,
    "weights": {"a": 1.0},
    "words": ["x"],
}
# Stages that require one of several parameters.
OWN: dict[str, dict[str, Any]] = {
    "Decontaminate": {"mode": "annotate"},
    "TextClassifier": {"model": "model"},
    "TokenCountFilter": {"tokenizer": "tokenizer.json"},
    "UrlBlocklistFilter": {"words": ["x"]},
    "Where": {"value": 1},
}
OUTPUTS = ("label_column", "output_column", "score_column", "scores_column", "split_column", "count_column")


def stages() -> dict[str, type[ProcessingStage[Any, Any]]]:
    return {entry.name: entry.load() for entry in sorted(entry_points(group="curator.stages"), key=lambda e: e.name)}


def taking(parameter: str) -> list[str]:
    return [name for name, cls in stages().items() if parameter in inspect.signature(cls).parameters]


def made(name: str, parameter: str) -> ProcessingStage[Any, Any]:
    """The stage with a unique name for its column."""
    cls = stages()[name]
    parameters = inspect.signature(cls).parameters
    given = {
        key: NEEDED[key]
        for key, value in parameters.items()
        if value.default is value.empty and value.kind not in (value.VAR_KEYWORD, value.VAR_POSITIONAL)
    }
    return cls(**{**given, **OWN.get(name, {}), parameter: MARK})


def parts(stage: ProcessingStage[Any, Any]) -> list[ProcessingStage[Any, Any]]:
    if isinstance(stage, CompositeStage):
        return [part for piece in stage.decompose() for part in parts(piece)]
    return [stage]


def reads(stage: ProcessingStage[Any, Any]) -> set[str]:
    found = stage.inputs()
    return set(found) if not isinstance(found, dict) else {name for names in found.values() for name in names}


@pytest.mark.parametrize("name", taking("column"))
def test_the_parameter_column_is_the_column_that_a_stage_reads(name: str) -> None:
    assert any(MARK in reads(part) for part in parts(made(name, "column"))), (
        f"{name}.column is not among the inputs of the stage: name a column that is written by what it holds, such as "
        "embedding_column"
    )


@pytest.mark.parametrize(("name", "parameter"), [(name, key) for key in OUTPUTS for name in taking(key)])
def test_the_parameter_for_a_written_column_says_what_it_holds(name: str, parameter: str) -> None:
    written = [part for part in parts(made(name, parameter)) if MARK in part.outputs()]
    assert written, f"{name}.{parameter} is not among the outputs of the stage"


def test_the_tests_cover_enough_stages() -> None:
    assert len(taking("column")) > 70
    assert len(taking("score_column")) > 45
