"""A source that loses too many rows to rejects is named, and the exit code says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from curator_core import DocumentBatch, FanOut, FileGroupTask, FilePartitioning, LocalExecutor, Pipeline, UsageError
from curator_core.cli.summary import summary_text
from curator_core.running.result import RunSummary


@dataclass
class Numbers(FanOut[FileGroupTask, DocumentBatch]):
    def outputs(self) -> list[str]:
        return ["n"]

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        for path in task.data:
            lines = Path(path).read_text().splitlines()
            self.record_read(len(lines))
            good = [int(line) for line in lines if line.isdigit()]
            for line in lines:
                if not line.isdigit():
                    self.record_rejected("no number", source=path, raw=line.encode())
            yield DocumentBatch(data=pa.table({"n": pa.array(good, pa.int64())}))


def run(folder: Path, files: Mapping[str, str], run_dir: bool, workers: int = 0, **options: float) -> RunSummary:
    (folder / "in").mkdir()
    for name, text in files.items():
        (folder / "in" / name).write_text(text)
    pipeline = Pipeline([FilePartitioning(paths=str(folder / "in")), Numbers()])
    place = str(folder / "run") if run_dir else None
    return pipeline.run(LocalExecutor(workers=workers), run_dir=place, **options).summary  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("run_dir", [False, True])
def test_a_source_above_the_limit_makes_the_exit_code_3_and_is_named(
    tmp_path: Path, run_dir: bool, workers: int
) -> None:
    files = {"good.txt": "1\n" * 99 + "x\n", "half.txt": "1\nx\n" * 10, "worse.txt": "1\nx\nx\nx\n"}
    summary = run(tmp_path, files, run_dir, workers)
    assert summary.exit_code == 3
    assert summary.sources_rejecting == 2
    assert "2 sources, first of all 'worse-" in summary.warnings[0]
    assert "(3 of 4)" in summary.warnings[0]
    assert "11.3 % of its rows rejected (14 of 124)" in summary_text(summary.as_dict()).splitlines()[0]


def test_below_the_limit_the_exit_code_is_0_and_the_share_is_still_reported(tmp_path: Path) -> None:
    summary = run(tmp_path, {"a.txt": "1\n" * 99 + "x\n"}, True)
    assert summary.exit_code == 0
    assert summary.warnings == []
    assert "1.0 % of its rows rejected (1 of 100)" in summary_text(summary.as_dict()).splitlines()[0]


def test_a_source_with_only_rejects_causes_a_warning_at_the_top_whatever_the_limit(tmp_path: Path) -> None:
    summary = run(tmp_path, {"a.txt": "1\n" * 99, "b.txt": "x\ny\n"}, True, max_reject_fraction=1)
    assert summary.exit_code == 0
    assert "source 'b-" in summary_text(summary.as_dict()).splitlines()[1]
    assert "gave only rejects" in summary_text(summary.as_dict()).splitlines()[1]


def test_a_limit_is_a_share(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="max_reject_fraction must be a number between 0 and 1, not 5"):
        run(tmp_path, {}, False, max_reject_fraction=5)
