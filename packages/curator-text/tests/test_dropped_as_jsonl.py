"""Dropped rows are written in the format of the pipeline's writer if it can hold them."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from curator_core import ColumnFilter, DocumentBatch, LocalExecutor, Pipeline
from curator_core.cli import BAD_USAGE, DONE, run_command
from curator_core.cli.drops import drops_command
from curator_core.data.fates import dropped_tables
from curator_core.running.verify import verify
from curator_text import JsonlWriter, WordCountFilter


def run(folder: Path, table: pa.Table, **options: object) -> Path:
    writer = JsonlWriter(path=str(folder / "out"), columns=["text"], **options)  # type: ignore[arg-type]
    Pipeline([WordCountFilter(min_words=3), writer]).run(
        LocalExecutor(workers=0),
        initial_tasks=[DocumentBatch(data=table)],
        run_dir=str(folder / "run"),
        dropped=str(folder / "gone"),
    )
    return folder / "gone" / "WordCountFilter"


def test_dropped_rows_are_json_lines_with_stage_reason_and_score(tmp_path: Path) -> None:
    texts = ["one", "one two three", "one two", "", *[f"word {n}" for n in range(40)]]
    rows = pa.table({"id": [f"r{n}" for n in range(len(texts))], "text": texts, "tags": [["a", None]] * len(texts)})
    gone = run(tmp_path, rows, compression="gzip")
    (file,) = [path for path in gone.iterdir() if path.name != "_SUCCESS"]
    assert file.name.endswith(".jsonl.gz")
    found = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    assert found[:2] == [
        {"id": "r0", "text": "one", "tags": ["a", None], "dropped_for": "word_count", "dropped_score": 1.0,
         "dropped_by": "WordCountFilter"},
        {"id": "r2", "text": "one two", "tags": ["a", None], "dropped_for": "word_count", "dropped_score": 2.0,
         "dropped_by": "WordCountFilter"},
    ]  # fmt: skip
    assert len(found) == len(texts) - 1
    assert verify(str(tmp_path / "run")) == []
    assert sum(table.num_rows for table in dropped_tables(str(gone))) == len(found)
    shown = CliRunner().invoke(drops_command, [str(tmp_path / "run"), "--near", "43", "--json"])
    assert len(json.loads(shown.stdout)["rows"]) == 43, "those that are no samples are read from the files"


def test_a_table_with_bytes_which_json_cannot_hold_is_written_as_parquet(tmp_path: Path) -> None:
    rows = pa.table({"text": ["one", "one two three"], "raw": pa.array([b"\xff", b""], pa.binary())})
    gone = run(tmp_path, rows)
    (file,) = gone.glob("*.parquet")
    assert pq.read_table(file)["raw"].to_pylist() == [b"\xff"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--reason", "word_cont"], "no rows were dropped for 'word_cont'; did you mean 'word_count'?"),
        (
            ["--stage", "WordCountFilter", "--reason", "x"],
            "no rows were dropped by 'WordCountFilter' for 'x'; reasons in",
        ),
        (["--stage", "Words"], "no rows were dropped by 'Words'"),
    ],
)
def test_a_stage_or_reason_without_dropped_rows_is_refused_and_the_others_are_named(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, pa.table({"text": ["one", "one two three"]}))
    assert run_command(["drops", str(tmp_path / "run"), *options]) == BAD_USAGE
    refused = capsys.readouterr().err
    assert said in refused
    assert "word_count" in refused or "WordCountFilter" in refused


@dataclass(kw_only=True)
class AtLeast(ColumnFilter):
    column: str = "score"
    least: float = 0.7

    def score_array(self, values: pa.Array) -> pa.Array:
        return values

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return pc.greater_equal(scores, self.least)


def test_scores_that_json_cannot_represent_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = pa.table({"text": ["one", "two"], "score": [float("nan"), 0.5]})
    stages = [AtLeast(), JsonlWriter(path=str(tmp_path / "out"))]
    Pipeline(stages).run(
        LocalExecutor(workers=0), initial_tasks=[DocumentBatch(data=rows)], run_dir=str(tmp_path / "run")
    )
    assert run_command(["drops", str(tmp_path / "run"), "--json"]) == DONE

    def wrong(name: str) -> None:
        raise AssertionError(name)

    found = json.loads(capsys.readouterr().out, parse_constant=wrong)
    assert len(found["rows"]) == 2


def test_tensors_which_are_made_of_other_columns_are_not_written_with_dropped_rows(tmp_path: Path) -> None:
    pixels = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((2, 8, 8), np.uint8))
    rows = pa.table({"text": ["one", "one two three"], "raw": [b"\xff", b""], "pixels": pixels})
    gone = run(tmp_path, rows)
    (file,) = gone.glob("*.parquet")
    assert set(pq.read_schema(file).names) == {"text", "raw", "dropped_for", "dropped_score", "dropped_by"}
