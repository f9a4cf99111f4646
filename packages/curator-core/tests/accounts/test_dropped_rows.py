"""Dropped rows are an output: every one of them, with its reason, even after a run that was cut off."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from curator_core import ColumnFilter, DocumentBatch, LocalExecutor, Pipeline, ProcessingStage
from curator_core.cli.drops import drops_command
from curator_core.errors import CuratorError, PlanError


@dataclass
class MinLength(ColumnFilter):
    min_length: int = 3

    score_type = pa.int64()

    def score_one(self, text: str | None) -> int:
        return len(text or "")

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return pc.greater_equal(scores, self.min_length)

    def at_fault(self, text: str, reason: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


@dataclass
class NoVowelAtTheEnd(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Drops rows itself and reports which; a task of one row is dropped whole."""

    fails_at: str = ""

    def inputs(self) -> list[str]:
        return ["text"]

    def process(self, task: DocumentBatch) -> DocumentBatch | None:
        texts = task.to_pyarrow()["text"].to_pylist()
        if self.fails_at in texts:
            raise RuntimeError("the power is gone")
        if len(texts) == 1:
            return None
        gone = [row for row, text in enumerate(texts) if text[-1] in "aeiou"]
        self.record_dropped("ends with a vowel", len(gone), which=gone)
        return task.filter(pa.array([row not in gone for row in range(len(texts))]))


TEXTS = [["ab", "house", "tree", "cat"], ["a", "sun", "moon", "sea"], ["alone"]]


def batches() -> list[DocumentBatch]:
    return [
        DocumentBatch(
            data=pa.table({"id": [f"{number}.{row}" for row in range(len(texts))], "text": texts}), task_id=f"t{number}"
        )
        for number, texts in enumerate(TEXTS)
    ]


def rows_in(folder: Path) -> list[tuple[str, str, str, str]]:
    names = ["text", "dropped_by", "dropped_for", "id"]
    rows = [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path, columns=names).to_pylist()]
    return [tuple(row[name] for name in names) for row in rows]  # type: ignore[misc]


def test_every_dropped_row_is_written_with_its_stage_and_reason_and_accounted_for(tmp_path: Path) -> None:
    pipeline = Pipeline([MinLength(), NoVowelAtTheEnd()])
    result = pipeline.run(
        LocalExecutor(workers=0), initial_tasks=batches(), run_dir=str(tmp_path / "run"), dropped=str(tmp_path / "gone")
    )
    short, vowels = rows_in(tmp_path / "gone" / "MinLength"), rows_in(tmp_path / "gone" / "NoVowelAtTheEnd")
    assert short == [("ab", "MinLength", "min_length", "0.0"), ("a", "MinLength", "min_length", "1.0")]
    assert [row[0] for row in vowels] == ["house", "tree", "sea", "alone"]
    assert vowels[-1][2] == "dropped by the stage"
    assert len(short) + len(vowels) == result.summary.rows_dropped
    assert pq.read_table(tmp_path / "gone" / "MinLength")["dropped_score"].to_pylist() == [2.0, 1.0]
    assert (tmp_path / "gone" / "MinLength" / "_SUCCESS").exists()
    assert result.summary.files == 0  # they are beside what the writers have written


def test_an_interrupted_and_resumed_run_leaves_each_dropped_row_once(tmp_path: Path) -> None:
    run, gone = str(tmp_path / "run"), tmp_path / "gone"
    with pytest.raises(CuratorError, match="the power is gone"):
        Pipeline([MinLength(), NoVowelAtTheEnd(fails_at="sea")]).run(
            LocalExecutor(workers=0), initial_tasks=batches(), run_dir=run, dropped=str(gone)
        )
    (gone / "MinLength" / "t1-000000000000.parquet").write_bytes(b"left by somebody else")
    Pipeline([MinLength(), NoVowelAtTheEnd()]).run(
        LocalExecutor(workers=0),
        initial_tasks=batches(),
        run_dir=run,
        dropped=str(gone),
        resume=True,
        allow_changed=True,
    )
    (gone / "MinLength" / "t1-000000000000.parquet").unlink()
    assert sorted(row[3] for row in [*rows_in(gone / "MinLength"), *rows_in(gone / "NoVowelAtTheEnd")]) == [
        "0.0", "0.1", "0.2", "1.0", "1.3", "2.0",
    ]  # fmt: skip


def test_a_stage_can_have_its_own_folder_for_dropped_rows(tmp_path: Path) -> None:
    own = MinLength().with_(dropped=str(tmp_path / "short"))
    assert (
        f"writes the rows that it drops to {tmp_path / 'short'}"
        in Pipeline([own]).plan(initial_tasks=batches()).describe()
    )
    Pipeline([own, NoVowelAtTheEnd()]).run(LocalExecutor(workers=0), initial_tasks=batches())
    assert [row[0] for row in rows_in(tmp_path / "short")] == ["ab", "a"]
    with pytest.raises(PlanError, match="give each its own"):
        Pipeline([own, MinLength(min_length=4).with_(dropped=str(tmp_path / "short"))]).run(initial_tasks=batches())


def test_the_command_prints_dropped_rows_with_the_parts_at_fault_marked(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    Pipeline([MinLength(), NoVowelAtTheEnd()]).run(LocalExecutor(workers=0), initial_tasks=batches(), run_dir=run)
    shown = CliRunner().invoke(drops_command, [run, "--stage", "MinLength"]).output
    assert "MinLength, min_length: 2 of 2 rows; these are samples" in shown
    assert ">>ab<<" in shown
    assert shown.index("ab") < shown.index(">>a<<")  # the nearer to the limit first
    rows = CliRunner().invoke(drops_command, [run, "--reason", "ends with a vowel", "--near", "2", "--json"]).output
    assert '"dropped": {\n    "ends with a vowel": 3\n   }' in rows
    assert rows.count('"side": "dropped"') == 2
