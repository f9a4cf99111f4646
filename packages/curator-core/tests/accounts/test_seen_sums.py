"""Counts are kept by source, and add up to what they are by task."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_core import ColumnFilter, DocumentBatch, FanOut, LocalExecutor, Pipeline, storage
from curator_core.accounts import ledger, seen_sums
from curator_core.accounts import seen as seen_module
from curator_core.accounts.seen import read_seen
from curator_core.accounts.seen_rows import SEEN_SCHEMA, SeenRows, TaskKey
from curator_core.accounts.seen_sums import WHOLE, summed
from curator_core.accounts.table_files import read_folder
from curator_core.model.scores import Limit, Score, whole_numbers

ROWS_IN_A_PART = 5
SCORE = Score("words", whole_numbers(), integers=True).with_limits([Limit("least", 4.0, "at least")])


@dataclass
class MinWords(ColumnFilter):
    min_words: int = 4

    score_type = pa.int64()

    def score_one(self, text: str | None) -> int:
        return len((text or "").split())

    def keep_array(self, scores: pa.Array) -> pa.Array:
        return pc.greater_equal(scores, self.min_words)


def batches() -> list[DocumentBatch]:
    draw = np.random.default_rng(7)
    return [
        DocumentBatch(
            data=pa.table(
                {
                    "language": draw.choice(["en", "de"], 40).tolist(),
                    "text": ["word " * int(size) for size in draw.integers(0, 9, 40)],
                }
            )
        )
        for _ in range(6)
    ]


class Split(FanOut[DocumentBatch, DocumentBatch]):
    """Parts of a few rows, so that a source has many tasks."""

    name = "Split"

    def process(self, task: DocumentBatch) -> Iterator[DocumentBatch]:
        table = task.to_pyarrow()
        for start in range(0, len(table), ROWS_IN_A_PART):
            yield DocumentBatch(data=table.slice(start, ROWS_IN_A_PART))


def run(folder: Path, workers: int = 0, **options: Any) -> None:
    given = {"by": ["language"]}
    Pipeline([Split(), MinWords()]).run(
        LocalExecutor(workers=workers), initial_tasks=batches(), run_dir=str(folder), seen=given, **options
    )


def plain(folder: Path) -> str:
    return json.dumps(read_seen(str(folder)).to_json(), default=str)


def rows(folder: Path) -> pa.Table:
    return pa.concat_tables([table for _, table in read_folder(str(folder), "seen", SEEN_SCHEMA)])


def by_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an engine, where no worker has all of a source."""
    monkeypatch.setattr(ledger, "sums_of", lambda table, wanted: table)


@pytest.mark.slow
def test_a_worker_that_has_a_whole_source_keeps_only_its_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_sums, "WORTH_SUMMING", 0)
    run(tmp_path / "sums")
    run(tmp_path / "workers", workers=2)
    by_task(monkeypatch)
    run(tmp_path / "tasks")
    many = rows(tmp_path / "tasks")
    kinds = len(set(zip(*(many[name].to_pylist() for name in ("kind", "stage", "name")), strict=True)))
    few = rows(tmp_path / "sums")
    assert len(few) <= 6 * kinds < len(many)
    assert WHOLE in few["path"].to_pylist()
    for folder in ("sums", "workers"):
        assert plain(tmp_path / folder) == plain(tmp_path / "tasks")


@pytest.mark.slow
@pytest.mark.parametrize("interrupted", [False, True])
def test_the_driver_adds_up_the_counts_that_workers_kept_by_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: bool
) -> None:
    by_task(monkeypatch)
    run(tmp_path / "tasks")
    monkeypatch.setattr(ledger, "FLUSH_EVENTS", 7)  # in the middle of sources
    monkeypatch.setattr(seen_module, "SUM_BYTES", 0)
    remove = storage.remove
    if interrupted:  # before the rows by task are removed
        monkeypatch.setattr(storage, "remove", lambda path: None if "/seen/" in str(path) else remove(path))
    run(tmp_path / "sums")
    assert [path.name for path in (tmp_path / "sums" / "seen").glob("*sums*")] == ["0001-sums.parquet"]
    assert plain(tmp_path / "sums") == plain(tmp_path / "tasks")
    monkeypatch.setattr(storage, "remove", remove)
    run(tmp_path / "sums", resume=True)
    if not interrupted:
        assert set(rows(tmp_path / "sums")["path"].to_pylist()) == {WHOLE}
    assert plain(tmp_path / "sums") == plain(tmp_path / "tasks")


@pytest.mark.slow
def test_a_part_written_before_the_source_is_done_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "whole")
    monkeypatch.setattr(ledger, "FLUSH_EVENTS", 7)
    run(tmp_path / "parts")
    assert plain(tmp_path / "parts") == plain(tmp_path / "whole")


@st.composite
def counts(draw: st.DrawFn, tokens: list[int] | None) -> pa.Table:
    """Counts of some tasks as a worker hands them in."""
    found = SeenRows()
    for number in range(draw(st.integers(1, 6))):
        key = TaskKey(draw(st.sampled_from("ab")), "g", 1, f".{number:05d}")
        values = np.array(draw(st.lists(st.integers(0, 9), max_size=5)), float)
        kept = values >= 4
        edges = np.array(SCORE.edges)
        found.score(key, "Filter", "words", SCORE.scale, edges, values, None, kept, np.ones(len(values), bool))
        found.count(key, "", "in", draw(st.sampled_from(["x", "y"])), [""], [len(values)], [7], tokens)
        names = draw(st.lists(st.sampled_from("klm"), unique=True, min_size=1, max_size=3))
        found.count(key, "Filter", "side", "dropped", names, [1] * len(names))
    table = found.counts()
    assert table is not None
    return table


@pytest.mark.slow
@settings(max_examples=30)
@given(st.sampled_from([None, [3]]).flatmap(lambda tokens: st.tuples(counts(tokens), counts(tokens))))
def test_sums_of_sums_are_correct(tables: tuple[pa.Table, pa.Table]) -> None:
    first, second = tables
    whole = summed(pa.concat_tables([first, second]))
    whole.validate(full=True)
    parts = summed(pa.concat_tables([summed(first), summed(second)]))
    assert parts.to_pylist() == whole.to_pylist()
    seen = [seen_module._Sums(), seen_module._Sums()]
    seen[0].add(whole)
    seen[1].add(pa.concat_tables([first, second]))
    assert seen[0].sides == seen[1].sides
    assert seen[0].sizes == seen[1].sizes
    assert seen[0].ends == seen[1].ends
    for key, sums in seen[0].scores.items():
        assert [one.tolist() for one in sums] == [one.tolist() for one in seen[1].scores[key]]
