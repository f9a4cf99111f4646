"""Rows that are dropped are written in the format of the pipeline's writer, where it can hold them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from click.testing import CliRunner

from curator_core import DocumentBatch, LocalExecutor, Pipeline
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


def test_dropped_rows_are_lines_of_json_with_stage_reason_and_score(tmp_path: Path) -> None:
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
