"""Rejects: as many as a file has lines, in bounded memory, each recorded once, whatever the file's name."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_core import DocumentBatch, FanOut, FileGroupTask, FilePartitioning, LocalExecutor, Pipeline
from curator_core.accounts.events import DONE, FORK, Event
from curator_core.accounts.ledger import LedgerWriter
from curator_core.accounts.reject_rows import RejectRow
from curator_core.accounts.rejects import group_rejects, rejects_of
from curator_core.accounts.source_list import Listed, SourceList
from curator_core.errors import OutputError
from curator_core.model import spool
from curator_core.model.recorder import Reject, Rejects

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
REJECT = st.builds(Reject, TEXT, TEXT, TEXT, TEXT, st.none() | st.binary(max_size=9), st.integers(0, 1 << 62))


@pytest.mark.slow
@given(st.lists(REJECT, max_size=30), st.integers(1, 8), st.integers(1, 40))
def test_spooled_rejects_are_read_in_order(given_: list[Reject], kept: int, kept_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "KEPT", kept)
        patch.setattr(spool, "KEPT_BYTES", kept_bytes)
        rejects = Rejects()
        for number, reject in enumerate(given_):
            rejects.append(reject)
            assert len(rejects) == number + 1
            assert rejects[number] == reject
        assert list(rejects) == list(rejects) == given_
        assert rejects == given_
        assert bool(rejects) == bool(given_)
        assert len(rejects._recent) < kept
        assert sum(table.num_rows for table in rejects.tables()) == len(given_)
        rejects.clear()
        assert (list(rejects), len(rejects)) == ([], 0)


@pytest.mark.slow
def test_a_file_with_only_bad_rows_does_not_fill_memory(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("x")
    (tmp_path / "run.py").write_text(
        "import resource, sys\n"
        "from collections.abc import Iterator\n"
        "from dataclasses import dataclass\n"
        "from curator_core import DocumentBatch, FanOut, FilePartitioning, FileGroupTask, LocalExecutor, Pipeline\n"
        "@dataclass\n"
        "class Bad(FanOut[FileGroupTask, DocumentBatch]):\n"
        "    rows: int = 0\n"
        "    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:\n"
        "        for row in range(self.rows):\n"
        "            self.record_read(1)\n"
        "            self.record_rejected('bad', position=row, raw=row.to_bytes(4) * 1024)\n"
        "        return iter(())\n"
        "def run(rows: int) -> int:\n"
        "    stages = [FilePartitioning(paths='in.txt'), Bad(rows=rows)]\n"
        "    Pipeline(stages, name='bad').run(LocalExecutor(workers=0), run_dir=f'run-{rows}')\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10\n"
        "few = run(5_000)\n"
        "print(few, run(35_000))\n"
    )
    done = subprocess.run(
        [sys.executable, "run.py"], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    few, many = map(int, done.stdout.split())
    assert many - few < 40  # MiB; the rows alone are 137
    (group,) = group_rejects(str(tmp_path / "run-35000"), examples=2)
    assert (group.reason, group.rows, [row["position"] for row in group.examples]) == ("bad", 35_000, ["0", "1"])


def test_if_rejects_cannot_be_spooled_the_run_stops_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.txt").write_text("x")
    monkeypatch.setattr(spool, "KEPT", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    pipeline = Pipeline([FilePartitioning(paths=str(tmp_path / "in.txt")), Lines()])
    with pytest.raises(OutputError, match=r"rejects cannot wait in a temporary file: No such file.*set TMPDIR"):
        pipeline.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"), on_error="quarantine")


def test_rejects_that_two_workers_recorded_are_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker died in the middle, another did all of the work, and a third had another task; files have many
    pieces."""
    monkeypatch.setattr(spool, "KEPT", 3)
    run_dir = str(tmp_path)
    SourceList(run_dir).note([Listed("a", "1"), Listed("b", "1")])

    def tell(source: str, stage: str, rows: int, ended: bool) -> None:
        writer = LedgerWriter(run_dir)
        for row in range(rows):
            reject = Reject(f"reason {row % 2}", "file", f"line {row}", "", b"raw", 1 + row % 3)
            writer.reject(RejectRow("reject", source, "1", 1, source, stage, reject))
        if ended:
            writer.event(Event(FORK if source == "a" else DONE, source, source, "1"))
        writer.flush()

    tell("a", "Read", 7, ended=False)
    tell("a", "Read", 11, ended=True)
    tell("b", "Read", 5, ended=True)
    tell("b", "Clean", 1, ended=True)
    found = list(rejects_of(run_dir))
    assert Counter((row["task"], row["stage"]) for row in found) == {
        ("a", "Read"): 11,
        ("b", "Read"): 5,
        ("b", "Clean"): 1,
    }
    assert [row["position"] for row in found if row["task"] == "a"] == [f"line {row}" for row in range(11)]
    sums: Counter[tuple[str, str]] = Counter()
    for row in found:
        sums[row["stage"], row["reason"]] += row["rows"]
    groups = group_rejects(run_dir, examples=4)
    assert {(group.stage, group.reason): group.rows for group in groups} == sums
    for group in groups:
        alike = [row for row in found if (row["stage"], row["reason"]) == (group.stage, group.reason)]
        assert len(group.examples) == min(4, len(alike))
        assert all(example.items() <= row.items() for example, row in zip(group.examples, alike, strict=False))


@dataclass
class Lines(FanOut[FileGroupTask, DocumentBatch]):
    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        self.record_read(1)
        self.record_rejected("bad", source=task.data[0], position="1", message=f"in {task.data[0]}")
        yield from ()


@dataclass
class Fails(FanOut[FileGroupTask, DocumentBatch]):
    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        raise ValueError(f"cannot read {task.data[0]}")
        yield


@pytest.mark.slow
@pytest.mark.parametrize("stage", [Lines(), Fails()], ids=lambda stage: type(stage).__name__)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_whose_name_is_not_valid_text_is_reported_with_its_name(
    tmp_path: Path, stage: Any, workers: int
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff.txt")).write_text("x")
    except OSError:
        pytest.skip("this file system takes no such names")
    run_dir = str(tmp_path / "run")
    pipeline = Pipeline([FilePartitioning(paths=str(folder)), stage])
    pipeline.run(LocalExecutor(workers=workers), run_dir=run_dir, on_error="quarantine")
    (row,) = rejects_of(run_dir)
    assert row["source"].endswith("/in/\\udcff.txt")
    assert "\\udcff.txt" in row["message"]
