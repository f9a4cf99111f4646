"""Applying a table of decisions to rows: they are removed, marked, weighted, repeated or shown, and accounted for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curator_core import DocumentBatch, LocalExecutor, Pipeline, RunRefused, UsageError, WorkerMetadata
from curator_core.across.apply import ApplyDecisions
from curator_core.across.decisions import KEPT, REMOVED, decisions_table, finish_decisions, write_decisions
from curator_core.across.roll import Roll
from curator_core.model.task import EmptyTask, FileRecord
from curator_core.testing import stages as s

HERE = LocalExecutor(workers=0)
ROWS = 6
BATCHES = 3


def at(batch: int, row: int) -> int:
    return batch << 32 | row


# Two rows are removed in the first batch, for witnesses in the first and the last, and one in the last; none in the
# second.
DECIDED = {
    "number": [at(0, 1), at(0, 2), at(0, 5), at(2, 0), at(2, 4)],
    "decision": [REMOVED, KEPT, REMOVED, KEPT, REMOVED],
    "id": ["1", "2", "5", "12", "16"],
    "witness_number": [at(2, 0), None, at(2, 0), None, at(0, 2)],
    "witness_id": ["12", None, "12", None, "2"],
    "rule": ["nothing_new", None, "exact", None, "url"],
    "containment": [0.9, None, 1.0, None, 1.0],
    "cluster": [at(2, 0), at(0, 2), at(2, 0), at(2, 0), at(0, 2)],
    "cluster_size": [3, 2, 3, 3, 2],
}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Three files, each a source of one batch of six rows."""
    paths = []
    for file in range(BATCHES):
        rows = [{"id": ROWS * file + row, "text": f"t{file}{row}"} for row in range(ROWS)]
        path = tmp_path / f"in{file}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        paths.append(str(path))
    return paths


@pytest.fixture
def decided(tmp_path: Path, files: list[str]) -> str:
    return write(tmp_path / "decisions", files, DECIDED)


def write(folder: Path, files: list[str], columns: dict[str, Any]) -> str:
    ids = [task.task_id for task in s.ListFiles(paths=files, per_task=1).process(EmptyTask())]
    roll = Roll.of([FileRecord(f"{task_id}.arrow", ROWS) for task_id in ids])
    record = write_decisions(str(folder), "part-0", decisions_table(columns, roll))
    finish_decisions(str(folder), [record], roll)
    return str(folder)


def applied(files: list[str], *stages: Any, workers: int = 0) -> tuple[pa.Table, dict[str, int]]:
    pipeline = Pipeline([s.ListFiles(paths=files, per_task=1), s.ReadRows(), *stages])
    result = pipeline.run(LocalExecutor(workers=workers))
    table = pa.concat_tables([task.to_pyarrow() for task in result])
    return table, dict(result.summary.stages[1].dropped)


def test_removed_rows_are_dropped_with_the_reason_in_the_accounts(files, decided):
    table, dropped = applied(files, ApplyDecisions(path=decided))
    assert table["id"].to_pylist() == [n for n in range(18) if n not in (1, 5, 16)]
    assert table.column_names == ["id", "text"]
    assert dropped == {"near duplicate": 1, "exact duplicate": 1, "url": 1}


def test_a_copy_of_a_removed_document_counts_as_an_exact_duplicate(tmp_path, files):
    columns = {**DECIDED, "copy_of": [at(2, 4), None, None, None, None]}
    _, dropped = applied(files, ApplyDecisions(path=write(tmp_path / "copies", files, columns)))
    assert dropped == {"exact duplicate": 2, "url": 1}


def test_rows_are_marked_and_all_of_them_stay(files, decided):
    table, dropped = applied(files, ApplyDecisions(path=decided, mode="annotate"))
    assert not dropped
    assert table.num_rows == 18
    marked = {row["id"]: row for row in table.to_pylist() if row["cluster"] is not None}
    assert marked[1] == {"id": 1, "text": "t01", "duplicate_of": "12", "cluster": at(2, 0), "cluster_size": 3}
    assert marked[12] == {"id": 12, "text": "t20", "duplicate_of": None, "cluster": at(2, 0), "cluster_size": 3}
    assert marked.keys() == {1, 2, 5, 12, 16}
    assert {row["cluster_size"] for row in table.to_pylist() if row["id"] not in marked} == {1}


def test_marks_can_be_chosen_and_renamed(files, decided):
    columns = ["decision", "rule", "jaccard", "containment", "new_words"]
    table, _ = applied(files, ApplyDecisions(path=decided, mode="annotate", columns=columns, prefix="dup_"))
    assert table.column_names == ["id", "text", *(f"dup_{name}" for name in columns)]
    assert Counter(table["dup_decision"].to_pylist()) == {KEPT: 15, REMOVED: 3}
    assert table["dup_containment"].to_pylist()[:3] == [None, 0.9, None]
    assert table.schema.field("dup_new_words").type == pa.int32()


def test_if_rows_have_no_ids_the_witness_is_named_by_its_place(tmp_path, files):
    without = {name: values for name, values in DECIDED.items() if name not in ("id", "witness_id")}
    table, _ = applied(files, ApplyDecisions(path=write(tmp_path / "other", files, without), mode="annotate"))
    places = [place for place in table["duplicate_of"].to_pylist() if place]
    assert [place.partition("-")[0] for place in places] == ["in2", "in2", "in0"]
    assert [place.partition("#")[2] for place in places] == ["0", "0", "2"]


@pytest.mark.parametrize("mode", ["annotate", "rehydrate", "removed"])
def test_a_column_of_the_data_is_not_overwritten(decided, mode):
    stage = ApplyDecisions(path=decided, mode=mode)
    stage.setup(WorkerMetadata())
    rows = pa.table({"text": ["x"] * ROWS, stage.outputs()[0]: range(ROWS)})
    with pytest.raises(UsageError, match="there is one already"):
        stage.process(DocumentBatch(data=rows, task_id="any"))


def test_removed_rows_can_be_written_with_the_reason(files, decided):
    columns = ["rule", "duplicate_of", "containment"]
    table, dropped = applied(files, ApplyDecisions(path=decided, mode="removed", columns=columns))
    assert [row["id"] for row in table.to_pylist()] == [1, 5, 16]
    assert table["rule"].to_pylist() == ["nothing_new", "exact", "url"]
    assert table["duplicate_of"].to_pylist() == ["12", "12", "2"]
    assert dropped == {"kept": 15}


@pytest.mark.parametrize(
    ("how", "weights"),
    [
        ({}, {2: 2.0, 12: 3.0}),
        ({"max_weight": 2.5}, {2: 2.0, 12: 2.5}),
        ({"weight": "sqrt"}, {2: 2**0.5, 12: 3**0.5}),
        ({"weight": "log"}, {2: 2.0, 12: 2.584962501}),
    ],
)
def test_a_remaining_row_has_the_weight_of_its_cluster(files, decided, how, weights):
    table, dropped = applied(files, ApplyDecisions(path=decided, mode="rehydrate", **how))
    assert sum(dropped.values()) == 3
    found = dict(zip(table["id"].to_pylist(), table["weight"].to_pylist(), strict=True))
    assert found == {n: weights.get(n, 1.0) for n in range(18) if n not in (1, 5, 16)}


def test_a_remaining_row_is_repeated_as_often_as_its_cluster_is_large(files, decided):
    table, _ = applied(files, ApplyDecisions(path=decided, mode="rehydrate", repeat=True))
    once = [n for n in range(18) if n not in (1, 5, 16)]
    assert table["id"].to_pylist() == sorted([*once, 2, 12, 12])
    assert table.column_names == ["id", "text"]


@pytest.mark.slow
def test_the_fraction_of_a_weight_is_a_chance_that_depends_only_on_seed_and_place(tmp_path, files):
    columns = {
        "number": [at(batch, row) for batch in range(BATCHES) for row in range(ROWS)],
        "decision": [KEPT] * 18,
        "cluster_size": [2] * 18,
    }
    folder = write(tmp_path / "all", files, columns)

    def repeats(seed: int, workers: int = 0) -> list[int]:
        stage = ApplyDecisions(path=folder, mode="rehydrate", repeat=True, max_weight=1.5, seed=seed)
        return applied(files, stage, workers=workers)[0]["id"].to_pylist()

    found = [repeats(seed) for seed in range(30)]
    assert all(set(Counter(one).values()) <= {1, 2} and set(one) == set(range(18)) for one in found)
    assert len({tuple(one) for one in found}) > 20
    assert 30 * 18 * 1.4 < sum(map(len, found)) < 30 * 18 * 1.6
    assert repeats(7, workers=2) == found[7]


def test_the_input_must_be_the_one_that_the_decisions_were_made_from(tmp_path, files, decided):
    Path(files[1]).write_text('{"id": 6, "text": "t"}\n')
    with pytest.raises(RunRefused, match="has 1 row, and had 6"):
        applied(files, ApplyDecisions(path=decided))
    with pytest.raises(RunRefused, match="was not there when the batches of the input were numbered"):
        applied([str(Path(files[0]).rename(tmp_path / "new.jsonl"))], ApplyDecisions(path=decided))


def test_a_folder_without_decisions_is_refused_before_any_row_is_read(tmp_path, files):
    with pytest.raises(UsageError, match="no complete table of decisions"):
        applied(files, ApplyDecisions(path=str(tmp_path)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"path": ""}, "path must be the folder"),
        ({"mode": "drop"}, "mode must be one of remove, annotate, rehydrate, removed, not 'drop'"),
        ({"weight": "cube"}, "weight must be one of size, sqrt, log, not 'cube'"),
        ({"max_weight": 0.5}, "max_weight must be a number of 1 or more, not 0.5"),
        ({"max_weight": True}, "max_weight must be"),
        ({"columns": "rule"}, r"must be a list such as \['rule'\]"),
        ({"columns": ["jacard"]}, "not 'jacard'; did you mean 'jaccard'"),
        ({"weight_column": ""}, "weight_column must be the name"),
        ({"seed": -1}, "seed must be a whole number"),
    ],
)
def test_a_wrong_parameter_is_refused_when_the_stage_is_made(wrong, message):
    with pytest.raises(UsageError, match=message):
        ApplyDecisions(**{"path": "d", **wrong})
