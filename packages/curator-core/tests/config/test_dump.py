"""A pipeline as text and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_core import (
    AddId,
    DocumentBatch,
    FilePartitioning,
    Pipeline,
    ProcessingStage,
    Resources,
    UsageError,
    Where,
    dump_pipeline,
    load_pipeline,
)
from curator_core.config.dump import inline
from curator_core.config.yaml_file import parse_value

# Texts that YAML may misread, and texts that need quotes.
WORDS = st.sampled_from(
    ["yes", "1e-3", "0o7", "null", "~", "a: b", "- a", "a #b", "{x}", "", " a", "on", "text", "é"]
) | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]))


def round_trip(pipeline: Pipeline, folder: Path) -> Pipeline:
    path = folder / "p.yaml"
    path.write_text(dump_pipeline(pipeline, run_dir=str(folder / "run")))
    return load_pipeline(path).pipeline()


def test_a_pipeline_written_to_a_file_is_read_back_equal(tmp_path: Path) -> None:
    pipeline = Pipeline(
        [
            FilePartitioning(paths=[str(tmp_path / "a b.txt"), "s3://bucket/x"], split_bytes="1MB"),
            AddId(columns=["text"], prefix="no"),
            Where(column="n", op="in", value=["1e-3", "true", "off", "12:30", "0o7"]),
            Where(column="n", op=">=", value=1e-5).with_(
                name="enough", batch_size=4, resources=Resources(cpus=2.0), num_workers=3
            ),
        ],
        name="mine",
    )
    back = round_trip(pipeline, tmp_path)
    assert back.stages == pipeline.stages
    assert back.name == "mine"


def test_a_stage_is_written_by_its_registered_name_and_without_defaults() -> None:
    text = dump_pipeline(Pipeline([AddId(columns=["text"])]))
    assert "- AddId:" in text
    assert "prefix" not in text


@dataclass
class Local(ProcessingStage[DocumentBatch, DocumentBatch]):
    """A stage of a module that is installed nowhere."""

    rule: object = None

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task


def test_values_that_a_file_cannot_hold_are_named() -> None:
    with pytest.raises(UsageError, match=r"Local\.rule is <function .*, which a file cannot hold"):
        dump_pipeline(Pipeline([Local(rule=lambda row: row)]))


def test_a_class_of_a_function_or_script_cannot_be_named_by_a_file() -> None:
    @dataclass
    class Inner(ProcessingStage[DocumentBatch, DocumentBatch]):
        def process(self, task: DocumentBatch) -> DocumentBatch:
            return task

    with pytest.raises(UsageError, match="move Inner to a module beside the file"):
        dump_pipeline(Pipeline([Inner()]))


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
        max_leaves=5,
    )
)
def test_a_value_in_one_line_of_yaml_is_read_back_unchanged(value: object) -> None:
    text = inline(value)
    assert "\n" not in text
    assert parse_value(text) == value
