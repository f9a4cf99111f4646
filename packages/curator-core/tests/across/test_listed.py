"""Lists of ids become decisions, and decisions lists of ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curator_core import LocalExecutor, Pipeline, UsageError
from curator_core.across import batch_decisions
from curator_core.across.apply import ApplyDecisions
from curator_core.across.decisions import Decisions, write_removed
from curator_core.across.listed import DecisionsFromList
from curator_core.running.verify import verify
from curator_core.testing import stages as s

HERE = LocalExecutor(workers=0)


def read_rows(tmp_path: Path, files: int = 5, rows: int = 4) -> list[Any]:
    paths = []
    for file in range(files):
        path = tmp_path / f"in{file}.jsonl"
        lines = [json.dumps({"id": file * rows + row, "text": "x"}) for row in range(rows)]
        path.write_text("".join(f"{line}\n" for line in lines))
        paths.append(str(path))
    return [s.ListFiles(paths=paths, per_task=1), s.ReadRows()]


@pytest.mark.parametrize("per_part", [1, 1 << 20])
def test_a_list_of_ids_becomes_a_table_that_removes_the_rows(tmp_path, monkeypatch, per_part):
    monkeypatch.setattr(batch_decisions, "_DOCUMENTS_PER_PART", per_part)
    reader = read_rows(tmp_path)
    (tmp_path / "ids.jsonl").write_text("".join(f'{{"doc": {n}}}\n' for n in (3, 17, 4, 99, 3)))
    folder = str(tmp_path / "decisions")
    decide = DecisionsFromList(ids=str(tmp_path / "ids.jsonl"), list_column="doc", path=folder)
    result = Pipeline([*reader, decide]).run(HERE, run_dir=str(tmp_path / "run"))
    assert not result.summary.warnings
    assert not list(verify(str(tmp_path / "run")))
    decisions = Decisions.open(folder)
    assert (decisions.removed, decisions.settings) == (3, {"rule": "list"})
    assert len(decisions.parts()) == (3 if per_part == 1 else 1)
    table = pa.concat_tables(decisions.tables())
    assert table["id"].to_pylist() == ["3", "4", "17"]
    assert table["row"].to_pylist() == [3, 0, 1]

    applied = Pipeline([*reader, ApplyDecisions(path=folder)]).run(HERE)
    assert [n for task in applied for n in task.to_pyarrow()["id"].to_pylist()] == [
        n for n in range(20) if n not in (3, 4, 17)
    ]
    assert applied.summary.stages[1].dropped == {"listed": 3}
    write_removed(folder, str(tmp_path / "out.txt"))
    assert (tmp_path / "out.txt").read_text() == "3\n4\n17\n"
    # The ids of the list that was written are text, and those of the rows numbers.
    again = DecisionsFromList(ids=str(tmp_path / "out.txt"), path=str(tmp_path / "again"))
    Pipeline([*reader, again]).run(HERE)
    assert Decisions.open(str(tmp_path / "again")).removed == 3


def test_a_resumed_run_with_more_files_has_a_table_of_all_files(tmp_path):
    (tmp_path / "ids.jsonl").write_text('{"id": 1}\n{"id": 9}\n')
    folder = str(tmp_path / "decisions")
    decide = DecisionsFromList(ids=str(tmp_path / "ids.jsonl"), path=folder)
    some = [s.ListFiles(paths=read_rows(tmp_path)[0].paths[1:3], per_task=1), s.ReadRows()]
    Pipeline([*some, decide]).run(HERE, run_dir=str(tmp_path / "run"))
    assert Decisions.open(folder).of_batch(1)["id"].to_pylist() == ["9"]
    Pipeline([*read_rows(tmp_path), decide]).run(HERE, run_dir=str(tmp_path / "run"), resume=True, allow_changed=True)
    assert Decisions.open(folder).of_batch(1)["id"].to_pylist() == []
    assert Decisions.open(folder).of_batch(2)["id"].to_pylist() == ["9"]
    assert Decisions.open(folder).of_batch(0)["id"].to_pylist() == ["1"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ids": ""}, "ids must hold paths"),
        ({"path": ""}, "path must be a folder"),
        ({"id_column": None}, "id_column must be the name of a column, not None"),
        ({"list_column": ""}, "list_column must be"),
        ({"memory": 0}, "memory must be"),
    ],
)
def test_a_wrong_parameter_is_refused_when_the_stage_is_made(wrong, message):
    with pytest.raises(UsageError, match=message):
        DecisionsFromList(**{"ids": "ids.txt", "path": "out", **wrong})
