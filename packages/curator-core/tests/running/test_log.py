"""Output and log messages of stages are in log.txt of the run directory, with stage and worker."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from curator_core import (
    DocumentBatch,
    FanOut,
    FileGroupTask,
    FilePartitioning,
    LocalExecutor,
    Pipeline,
    ProcessingStage,
    StageError,
    UsageError,
    WorkerMetadata,
)
from curator_core.running.log import write_log
from curator_core.worker import stage_log
from curator_core.worker.stage_log import AT_WORK, StageLog


@dataclass
class Read(FanOut[FileGroupTask, DocumentBatch]):
    def outputs(self) -> list[str]:
        return ["n"]

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        for path in task.data:
            yield DocumentBatch(data=pa.table({"n": [int(Path(path).read_text())]}))


@dataclass
class Talk(ProcessingStage[DocumentBatch, DocumentBatch]):
    fails: bool = False

    def setup(self, worker: WorkerMetadata) -> None:
        print("setting up")

    def process(self, task: DocumentBatch) -> DocumentBatch:
        number = task.to_pyarrow()["n"][0].as_py()
        print("number", number, end="")
        print(" of many")
        logging.getLogger("mine").info("info %s", number)
        logging.getLogger("mine").warning("beware of %s", number)
        sys.stderr.write("to stderr\n")
        if self.fails:
            raise ValueError("no")
        return task


def inputs(folder: Path) -> str:
    (folder / "in").mkdir()
    for number in range(3):
        (folder / "in" / f"{number}.txt").write_text(str(number))
    return str(folder / "in")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_output_and_log_messages_of_a_stage_are_kept(
    tmp_path: Path, workers: int, capfd: pytest.CaptureFixture[str]
) -> None:
    stages = [FilePartitioning(paths=inputs(tmp_path)), Read(), Talk()]
    Pipeline(stages).run(LocalExecutor(workers=workers), run_dir=str(tmp_path / "run"))
    lines = (tmp_path / "run" / "log.txt").read_text().splitlines()
    said = [line.split(" ", 4)[1:] for line in lines]
    assert {stage for _, stage, *_ in said} == {"Talk"}
    assert all(worker.startswith("local-") for worker, *_ in said)
    texts = [(level, text) for _, _, level, text in said]
    for number in range(3):
        assert ("print", f"number {number} of many") in texts
        assert ("warning", f"mine: beware of {number}") in texts
    assert ("print", "setting up") in texts
    assert ("stderr", "to stderr") in texts
    assert not any(level == "info" for level, _ in texts), "below the level that was asked for"
    # Two workers share a terminal, so their output may mix.
    assert capfd.readouterr().out.count("of many") == 3, "what is printed is still printed"
    assert lines == sorted(lines, key=lambda line: line.split(" ")[0])


def test_the_level_is_an_option(tmp_path: Path) -> None:
    stages = [FilePartitioning(paths=inputs(tmp_path)), Read(), Talk()]
    before = logging.getLogger().level
    Pipeline(stages).run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"), log_level="info")
    assert "info mine: info 2" in (tmp_path / "run" / "log.txt").read_text()
    assert logging.getLogger().level == before
    with pytest.raises(UsageError, match="log_level must be one of debug, info, warning, error, not 'loud'"):
        Pipeline(stages).run(run_dir=str(tmp_path / "other"), log_level="loud")  # type: ignore[arg-type]


def test_a_failed_run_also_has_a_log(tmp_path: Path) -> None:
    stages = [FilePartitioning(paths=inputs(tmp_path)), Read(), Talk(fails=True)]
    with pytest.raises(StageError):
        Pipeline(stages).run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    assert "number 0 of many" in (tmp_path / "run" / "log.txt").read_text()
    assert not isinstance(sys.stdout, stage_log._Tee)


def test_a_stage_that_says_nothing_leaves_no_log(tmp_path: Path) -> None:
    stages = [FilePartitioning(paths=inputs(tmp_path)), Read()]
    Pipeline(stages).run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    assert not (tmp_path / "run" / "log.txt").exists()
    assert not (tmp_path / "run" / "log").exists()


def test_a_damaged_log_is_no_reason_to_fail(tmp_path: Path) -> None:
    stages = [FilePartitioning(paths=inputs(tmp_path)), Read(), Talk()]
    Pipeline(stages).run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    good = (tmp_path / "run" / "log.txt").read_text()
    (tmp_path / "run" / "log" / "other.jsonl").write_text('{"time": 1, "worker"\n3\n')
    write_log(str(tmp_path / "run"))
    assert (tmp_path / "run" / "log.txt").read_text() == good + "2 damaged lines in log/ are left out\n"


def test_a_worker_keeps_a_limited_number_of_lines_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_log, "MOST_LINES", 5)
    log = StageLog(str(tmp_path), "local-0", "warning")
    log.open()
    AT_WORK.stage = "Talk"
    for number in range(8):
        print("line", number)
    AT_WORK.stage = ""
    print("not a stage's")
    log.close()
    text = "".join(path.read_text() for path in sorted((tmp_path / "log").iterdir()))
    assert text.count('"text": "line ') == 5
    assert "3 more lines were not kept" in text
    assert "not a stage's" not in text


def test_a_stage_may_print_after_the_reader_of_the_output_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w", buffering=1)
    monkeypatch.setattr(sys, "stdout", stream)
    result = Pipeline([FilePartitioning(paths=inputs(tmp_path)), Read(), Talk()]).run(
        LocalExecutor(workers=0), run_dir=str(tmp_path / "run"), on_error="quarantine"
    )
    monkeypatch.undo()
    with contextlib.suppress(BrokenPipeError):
        stream.close()
    assert (result.summary.state, result.summary.rows_in) == ("done", 3)
    assert (tmp_path / "run" / "log.txt").read_text().count("of many") == 3
