"""Types change within files as in real data: no row is lost, no value changes, and the division of files has no
effect."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curator_core.arrow.json_column import JSON
from curator_core.errors import StageError
from curator_core.executors.local import LocalExecutor
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch
from curator_core.pipeline import Pipeline
from curator_core.stages.columns import Where
from curator_core.stages.ids import AddId
from curator_text.blend import SplitByHash
from curator_text.filters import WordCountFilter
from curator_text.modifiers import NewlineNormalizer
from curator_text.readers import JsonlReader
from curator_text.writers import JsonlWriter, ParquetWriter

# Values of a row, by its number and the number of rows.
DRIFTS = {
    "score": lambda i, count: 0 if i < 250 or i % 2 else 0.5,
    "id": lambda i, count: i if i < count / 2 else f"doc-{i}",
    "mixed": lambda i, count: "x" if i < 300 else ["x", 1, None, True, 2.5, {"a": 1.0}, ["y"], []][i % 8],
    "tags": lambda i, count: ["a"] if i % 7 else [],
    "text": lambda i, count: f"text of row {i}" if i < 300 or i % 50 else {"body": f"text of row {i}"},
    "late": lambda i, count: {"n": i} if i > count * 0.9 else None,
}


@dataclass
class Data:
    """Two files, and the rows that are in them."""

    folder: str
    rows: list[dict[str, Any]]


@pytest.fixture(scope="module", params=[2000, pytest.param(10_000, marks=pytest.mark.thorough)])
def data(request, tmp_path_factory) -> Data:
    folder, count = tmp_path_factory.mktemp("in"), request.param
    rows = [
        {name: value for name, drift in DRIFTS.items() if (value := drift(i, count)) is not None or name == "mixed"}
        for i in range(count)
    ]
    for number, half in enumerate((rows[: count // 2], rows[count // 2 :])):
        (folder / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in half))
    return Data(str(folder), rows)


def run(out: Path, reader: JsonlReader, *stages: object, workers: int = 0):
    return Pipeline([reader, *stages]).run(
        LocalExecutor(workers=workers), run_dir=str(out.with_name(f"{out.name}-run"))
    )


def reasons(result) -> dict[str, dict[str, int]]:
    return {
        totals.name.rpartition("/")[2]: dict(totals.rejected) for totals in result.summary.stages if totals.rejected
    }


class ThroughPandas(ProcessingStage[DocumentBatch, DocumentBatch]):
    def process(self, task: DocumentBatch) -> DocumentBatch:
        frame = task.to_pandas()
        return task.with_data(frame[frame["score"] >= 0])


@pytest.mark.slow
def test_a_stage_that_uses_pandas_returns_drifting_rows_unchanged(tmp_path, data):
    result = run(
        tmp_path / "pandas", JsonlReader(paths=data.folder), ThroughPandas(), JsonlWriter(path=str(tmp_path / "pandas"))
    )
    run(tmp_path / "plain", JsonlReader(paths=data.folder), JsonlWriter(path=str(tmp_path / "plain")))
    assert result.summary.rows_written == len(data.rows)
    for path in (tmp_path / "plain").glob("*.jsonl"):
        assert [json.loads(line) for line in (tmp_path / "pandas" / path.name).open()] == [
            json.loads(line) for line in path.open()
        ]


@pytest.mark.slow
def test_rows_of_drifting_types_are_written_unchanged(tmp_path, data):
    packed = []
    for number, cut in enumerate(({}, {"split_bytes": 40_000, "batch_bytes": 5000})):
        out = tmp_path / f"out{number}"
        run(
            out,
            JsonlReader(paths=data.folder, **cut),
            JsonlWriter(path=str(out), target_size="100MB"),
            workers=number * 2,
        )
        (path,) = out.glob("*.jsonl")
        packed.append(path.read_bytes())
    assert packed[0] == packed[1]
    assert [json.loads(line) for line in packed[0].splitlines()] == data.rows


@pytest.mark.slow
@pytest.mark.parametrize("target_size", [None, "100MB"])
def test_parquet_of_drifting_types_has_one_schema_and_loses_no_value(tmp_path, data, target_size):
    found = []
    for number, cut in enumerate(({}, {"split_bytes": 40_000, "batch_bytes": 5000})):
        out = tmp_path / f"out{number}"
        run(out, JsonlReader(paths=data.folder, **cut), ParquetWriter(path=str(out), target_size=target_size))
        tables = [pq.read_table(path) for path in sorted(out.glob("*.parquet"))]
        assert len({str(table.schema) for table in tables}) == 1
        found.append(pa.concat_tables(tables))
    whole, cut_up = found
    assert whole.schema.equals(cut_up.schema, check_metadata=True)
    assert whole.schema.field("score").type == pa.float64()
    assert [whole.schema.field(name).type for name in ("id", "mixed", "text", "late")] == [JSON] * 4
    assert pa.types.is_list(whole.schema.field("tags").type)
    values = {
        name: [json.loads(v) if v is not None and part.type == JSON else v for v in whole[name].to_pylist()]
        for name, part in zip(whole.schema.names, whole.schema, strict=True)
    }
    assert values == {name: [row.get(name) for row in data.rows] for name in DRIFTS}
    if target_size:
        assert cut_up.to_pydict() == whole.to_pydict()


@pytest.mark.slow
def test_only_a_stage_that_needs_text_rejects_other_values_and_says_so(tmp_path, data):
    objects = sum(isinstance(row["text"], dict) for row in data.rows)
    for number, cut in enumerate(({}, {"split_bytes": 40_000, "batch_bytes": 5000})):
        out = tmp_path / f"out{number}"
        stages = [WordCountFilter(min_words=4), NewlineNormalizer(), JsonlWriter(path=str(out), target_size="100MB")]
        result = run(out, JsonlReader(paths=data.folder, **cut), *stages)
        rows = [json.loads(line) for path in out.glob("*.jsonl") for line in path.read_text().splitlines()]
        assert rows == [row for row in data.rows if isinstance(row["text"], str)]
        assert reasons(result) == {"WordCountFilter": {"not text": objects}}


@pytest.mark.slow
def test_the_results_of_stages_for_a_value_do_not_depend_on_other_rows(tmp_path, data):
    found = []
    for number, cut in enumerate(({}, {"split_bytes": 40_000, "batch_bytes": 5000})):
        out = tmp_path / f"out{number}"
        stages = [
            Where(column="score", op="<", value=0.3),
            SplitByHash(parts={"a": 0.5, "b": 0.5}, key_column="id"),
            AddId(columns=["id", "mixed", "score", "tags"], id_column="hash"),
            JsonlWriter(path=str(out), target_size="100MB"),
        ]
        run(out, JsonlReader(paths=data.folder, **cut), *stages)
        (path,) = out.glob("*.jsonl")
        found.append(path.read_bytes())
    assert found[0] == found[1]
    assert found[0].count(b"\n") == sum(row["score"] < 0.3 for row in data.rows)


def test_a_declared_type_still_rejects_values_that_do_not_fit(tmp_path, data):
    out = tmp_path / "out"
    reader = JsonlReader(paths=data.folder, schema={"text": "string"}, columns=["text"])
    result = run(out, reader, JsonlWriter(path=str(out)))
    assert reasons(result) == {"JsonlRead": {"type conflict": sum(isinstance(row["text"], dict) for row in data.rows)}}


def test_a_text_column_with_only_numbers_is_an_error_with_two_remedies(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": 5}\n')
    out = tmp_path / "out"
    with pytest.raises(StageError, match=r"'text' is int64: put Cast\(columns=.*schema: \{text: string\}"):
        run(out, JsonlReader(paths=str(tmp_path / "a.jsonl")), WordCountFilter(), JsonlWriter(path=str(out)))
