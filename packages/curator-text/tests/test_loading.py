"""Our output is readable by Hugging Face datasets, DuckDB, polars and pandas."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curator_core.executors.local import LocalExecutor
from curator_core.pipeline import Pipeline
from curator_core.stages.columns import Where
from curator_text.readers import JsonlReader
from curator_text.writers import JsonlWriter, ParquetWriter

datasets = pytest.importorskip("datasets")
duckdb = pytest.importorskip("duckdb")
polars = pytest.importorskip("polars")
pandas = pytest.importorskip("pandas")

ROWS = [
    {
        "id": number,
        "text": f"text {number}",
        "tags": ["a"] if number % 3 else [],
        "mixed": [1, "x", {"a": 1}][number % 3],
    }
    for number in range(60)
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("in")
    for file in range(3):
        lines = [json.dumps(row) + "\n" for row in ROWS[file * 20 : file * 20 + 20]]
        (folder / f"{file}.jsonl").write_text("".join(lines))
    return folder


WRITERS = {
    "jsonl": lambda path: JsonlWriter(path=path),
    "jsonl packed": lambda path: JsonlWriter(path=path, target_size="1kB"),
    "jsonl packed gzip": lambda path: JsonlWriter(path=path, target_size="1MB", compression="gzip"),
    "jsonl packed zstd": lambda path: JsonlWriter(path=path, target_size="1MB", compression="zstd"),
    "parquet": lambda path: ParquetWriter(path=path),
    "parquet packed": lambda path: ParquetWriter(path=path, target_size="1kB"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRITERS)
def test_other_libraries_load_our_folder_unchanged(tmp_path, data, kind):
    out = tmp_path / "out"
    # The first file has no rows left.
    keep = Where(column="id", op=">=", value=20)
    stages = [JsonlReader(paths=str(data), batch_bytes=500), keep, WRITERS[kind](str(out))]
    Pipeline(stages).run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    names = [path.name for path in out.iterdir() if not path.name.startswith(".") and path.name != "_SUCCESS"]
    assert all(name.split(".", 1)[-1].startswith(("jsonl", "0", "parquet")) for name in names)
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))["train"].to_list()
    assert sorted(loaded, key=lambda row: row["id"]) == ROWS[20:]

    ending = "parquet" if "parquet" in kind else "jsonl*"
    reader = "read_parquet" if "parquet" in kind else "read_json"
    found = duckdb.sql(f"select id, text, tags, mixed from {reader}('{out}/*.{ending}') order by id").fetchall()
    # DuckDB reads a value of mixed kinds as JSON, and shows it as text.
    assert [(*row[:3], json.loads(row[3])) for row in found] == [tuple(row.values()) for row in ROWS[20:]]

    paths = sorted(path for path in out.rglob("*") if path.is_file() and path.name[0] not in "._")
    if "parquet" in kind:
        frames = [polars.read_parquet(path) for path in paths]
        frame = polars.concat(frames).sort("id")
        assert frame["text"].to_list() == [row["text"] for row in ROWS[20:]]
        table = pandas.concat([pandas.read_parquet(path) for path in paths]).sort_values("id")
        assert [json.loads(value) for value in table["mixed"]] == [row["mixed"] for row in ROWS[20:]]
    else:
        table = pandas.concat([pandas.read_json(path, lines=True) for path in paths if _holds_rows(path)])
        assert sorted(table["id"]) == [row["id"] for row in ROWS[20:]]
        assert list(table.sort_values("id")["mixed"]) == [row["mixed"] for row in ROWS[20:]]
        if "gz" not in kind and "zst" not in kind:
            lines = [polars.read_ndjson(path).select("id", "text") for path in paths if _holds_rows(path)]
            assert polars.concat(lines).sort("id")["text"].to_list() == [row["text"] for row in ROWS[20:]]


@pytest.mark.slow
def test_a_folder_of_partitions_is_loaded_with_its_column(tmp_path, data):
    out = tmp_path / "out"
    writer = ParquetWriter(path=str(out), partition_by=["text"], columns=["id"])
    Pipeline([JsonlReader(paths=str(data)), writer]).run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    assert duckdb.sql(f"select count(distinct text), sum(id) from '{out}/*/*.parquet'").fetchall() == [(60, 1770)]
    assert len(datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))["train"]) == 60
    assert polars.read_parquet(f"{out}/**/*.parquet", hive_partitioning=True).shape == (60, 2)
    assert pandas.read_parquet(out).shape == (60, 2)


def _holds_rows(path: Path) -> bool:
    return path.stat().st_size > 100
