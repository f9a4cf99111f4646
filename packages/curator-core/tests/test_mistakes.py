"""Mistakes that people make in their first hour, and the advice that they get."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from curator_core import (
    ANY_COLUMNS,
    DocumentBatch,
    FanOut,
    FileGroupTask,
    FilePartitioning,
    LocalExecutor,
    Pipeline,
    PlanError,
    ProcessingStage,
    SelectColumns,
    StageError,
    UsageError,
    Where,
)
from curator_core.config.build import load_stage
from curator_core.errors import with_source_lines
from curator_core.storage.errors import explained


@dataclass
class Read(FanOut[FileGroupTask, DocumentBatch]):
    def outputs(self) -> list[str]:
        return [ANY_COLUMNS]

    def process(self, task: FileGroupTask) -> list[DocumentBatch]:
        return []


@dataclass
class Write(ProcessingStage[DocumentBatch, FileGroupTask]):
    path: str = "out"

    def output_folder(self) -> str:
        return self.path

    def process(self, task: DocumentBatch) -> FileGroupTask:
        return FileGroupTask(data=[])


class Misspelt(ProcessingStage[DocumentBatch, DocumentBatch]):
    def proces(self, task: DocumentBatch) -> DocumentBatch:
        return task


def test_a_class_without_process_names_the_probable_method() -> None:
    message = r"Misspelt is not a stage yet: process\(\) is missing; did you mean 'proces'\?"
    with pytest.raises(UsageError, match=message):
        Misspelt()  # type: ignore[abstract]


def test_an_abstract_base_class_is_named_as_such() -> None:
    with pytest.raises(UsageError, match="FanOut is a base class of stages: name one of its subclasses"):
        load_stage("curator_core.FanOut")


def test_a_removed_column_is_reported_as_removed() -> None:
    stages = [
        FilePartitioning(paths="in"),
        Read(),
        SelectColumns(columns=["id"]),
        Where(column="text", op="==", value="a"),
    ]
    with pytest.raises(PlanError, match="reads column 'text', which 'SelectColumns' removed"):
        Pipeline(stages).plan()


def test_two_readers_are_reported_with_the_hint_that_paths_accepts_a_list() -> None:
    stages = [FilePartitioning(paths="a"), Read(), FilePartitioning(paths="b"), Read()]
    with pytest.raises(PlanError, match=r"a pipeline can have only one reader.*`paths` takes a list"):
        Pipeline(stages).plan()


def test_two_writers_are_reported_with_a_way_to_write_twice() -> None:
    stages = [FilePartitioning(paths="a"), Read(), Write(), Write("other")]
    with pytest.raises(PlanError, match=r"'Write' and 'Write#2' are writers.*run a second pipeline that reads 'out'"):
        Pipeline(stages).plan()


def test_a_stage_after_the_writer_is_reported_with_its_right_place() -> None:
    stages = [FilePartitioning(paths="a"), Read(), Write(), SelectColumns(columns=["id"])]
    with pytest.raises(PlanError, match="'Write' is a writer and ends the pipeline; put 'SelectColumns' before it"):
        Pipeline(stages).plan()


@pytest.mark.parametrize("wrong", [pd.DataFrame({"a": [1]}), pa.table({"a": [1]})])
def test_a_frame_or_table_as_a_task_is_reported_with_how_to_wrap_it(wrong: Any) -> None:
    for tasks in (wrong, [wrong]):
        with pytest.raises(UsageError, match=r"wrap it, \[?DocumentBatch\(data=(df|table)\)"):
            Pipeline([SelectColumns(columns=["a"])]).run(initial_tasks=tasks)
    with pytest.raises(UsageError, match=r"write initial_tasks=\[task\]"):
        Pipeline([SelectColumns(columns=["a"])]).run(initial_tasks=DocumentBatch(data=wrong))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"not 'a\.jsonl'"):
        Pipeline([SelectColumns(columns=["a"])]).run(initial_tasks=["a.jsonl"])  # type: ignore[list-item]


def test_missing_credentials_are_reported_with_the_endpoint_and_the_places_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")

    class NoCredentialsError(Exception):
        __module__ = "botocore.exceptions"

    with pytest.raises(UsageError) as caught, explained("read", "s3://bucket/a.jsonl"):
        raise NoCredentialsError("Unable to locate credentials")
    text = str(caught.value)
    assert "cannot read 's3://bucket/a.jsonl'" in text
    assert "http://127.0.0.1:9" in text
    assert "AWS_ACCESS_KEY_ID" in text
    assert "\n" not in text


def test_an_error_from_a_bug_in_local_code_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), explained("read", str(tmp_path)):
        raise ZeroDivisionError


def test_the_values_of_a_list_become_a_column() -> None:
    batch = DocumentBatch(data=pa.table({"text": ["a", "b"]}))
    assert batch.append_column("n", [1, None]).to_pyarrow()["n"].to_pylist() == [1, None]
    with pytest.raises(UsageError, match=r"append_column\('n'\): 3 values for 2 rows"):
        batch.append_column("n", [1, 2, 3])
    with pytest.raises(UsageError, match=r"append_column\('n'\) takes an array or a list, not str"):
        batch.append_column("n", "ab")


@dataclass
class Rule(ProcessingStage[DocumentBatch, DocumentBatch]):
    rule: Any = None

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task


def test_a_changed_lambda_is_a_changed_pipeline() -> None:
    def fingerprint(rule: Any) -> str:
        return Pipeline([Rule(rule)]).plan(initial_tasks=[DocumentBatch(data=pa.table({"a": [1]}))]).fingerprint()

    def at_least(limit: int) -> Any:
        return lambda row: row > limit

    first = fingerprint(lambda row: row > 1)
    assert first != fingerprint(lambda row: row > 2)
    assert fingerprint(at_least(3)) == fingerprint(at_least(3))
    assert fingerprint(at_least(3)) != fingerprint(at_least(4)), "what a lambda takes from around it counts too"


def test_a_traceback_from_a_worker_shows_the_source_of_a_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    import linecache

    name = "<cell 7>"
    monkeypatch.setitem(linecache.cache, name, (20, None, ["def process(self, task):\n", "    return 1 / 0\n"], name))
    worker = f'Traceback (most recent call last):\n  File "{name}", line 2, in process\nZeroDivisionError: division by zero\n'
    assert "line 2, in process\n    return 1 / 0\nZeroDivisionError" in with_source_lines(worker)
    assert with_source_lines(with_source_lines(worker)) == with_source_lines(worker)


def test_a_notebook_shows_a_few_lines_of_an_error() -> None:
    error = StageError("Upper", "ValueError: no", "a.0", details="\n".join(f"line {n}" for n in range(40)))
    shown = error._render_traceback_()
    assert len(shown) <= 15
    assert shown[0].startswith("StageError: stage 'Upper' failed on task 'a.0'")
    assert shown[-1] == "line 39"


def test_an_error_names_the_range_of_the_file_of_its_task(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0123456789" * 10)
    pipeline = Pipeline([FilePartitioning(paths=str(tmp_path), split_bytes=60), Raise()])
    with pytest.raises(StageError) as caught:
        pipeline.run(LocalExecutor(workers=0))
    assert f", made of '{tmp_path}/a.txt', bytes 0 to 60: ValueError: no" in str(caught.value)


@dataclass
class Raise(ProcessingStage[FileGroupTask, FileGroupTask]):
    def process(self, task: FileGroupTask) -> FileGroupTask:
        raise ValueError("no")
