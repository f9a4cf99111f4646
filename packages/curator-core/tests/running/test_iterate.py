"""Results one by one: the same as all at once, bounded, with the same accounts."""

from __future__ import annotations

import weakref
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
    StageError,
    UsageError,
    Where,
)
from curator_core.running.directory import RunDirectory


@dataclass
class Lines(FanOut[FileGroupTask, DocumentBatch]):
    """A batch for each line, with its number."""

    def outputs(self) -> list[str]:
        return ["n"]

    def process(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        for path in task.data:
            for line in Path(path).read_text().splitlines():
                yield DocumentBatch(data=pa.table({"n": [int(line)]}))


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    (tmp_path / "in").mkdir()
    for number in range(4):
        (tmp_path / "in" / f"{number}.txt").write_text("".join(f"{number * 10 + n}\n" for n in range(5)))
    return Pipeline([FilePartitioning(paths=str(tmp_path / "in")), Lines(), Where(column="n", op="!=", value=11)])


def numbers(tasks: Iterator[object]) -> list[int]:
    found = []
    for task in tasks:
        assert isinstance(task, DocumentBatch)
        found += task.to_pyarrow()["n"].to_pylist()
    return sorted(found)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_iterating_gives_the_results_of_a_run_with_the_same_accounts(pipeline: Pipeline, workers: int) -> None:
    ran = pipeline.run(LocalExecutor(workers=workers))
    stream = pipeline.iterate(LocalExecutor(workers=workers))
    with pytest.raises(UsageError, match="when its last task has been taken"):
        _ = stream.summary
    assert numbers(stream) == numbers(iter(ran))
    assert [s.rows_out for s in stream.summary.stages] == [s.rows_out for s in ran.summary.stages]
    assert stream.summary.shares == ran.summary.shares
    assert stream.summary.results == ran.summary.results > 0
    assert stream.summary.rows_in == 20
    assert list(stream) == [], "there are no more"


def test_no_task_is_kept(pipeline: Pipeline) -> None:
    kept: list[weakref.ref[DocumentBatch]] = []
    for task in pipeline.iterate(LocalExecutor(workers=0)):
        assert sum(ref() is not None for ref in kept) <= 2
        assert isinstance(task, DocumentBatch)
        kept.append(weakref.ref(task))
        del task
    assert len(kept) > 10


def test_a_run_abandoned_early_is_resumed_and_gives_the_rest(pipeline: Pipeline, tmp_path: Path) -> None:
    run_dir = str(tmp_path / "run")
    with pipeline.iterate(LocalExecutor(workers=0), run_dir=run_dir) as stream:
        next(stream)
    record = RunDirectory(run_dir).read_json("run.json")
    assert record is not None
    assert record["state"] == "failed"
    resumed = pipeline.iterate(LocalExecutor(workers=0), run_dir=run_dir, resume=True)
    assert numbers(resumed) == [n * 10 + k for n in range(4) for k in range(5) if n * 10 + k != 11]
    again = pipeline.iterate(LocalExecutor(workers=0), run_dir=run_dir, resume=True)
    assert len(numbers(again)) == 19, "what an earlier attempt finished is handed out too"
    assert again.summary.sources_skipped == 4


def test_an_error_comes_in_the_place_of_its_task(pipeline: Pipeline) -> None:
    broken = Pipeline([*pipeline.stages[:2], Where(column="n", op="==", value="text")])
    with pytest.raises(StageError):
        list(broken.iterate(LocalExecutor(workers=0)))


@pytest.mark.slow
def test_executors_can_be_given_by_name(pipeline: Pipeline) -> None:
    assert len(numbers(pipeline.iterate("local"))) == 19
    assert pipeline.run("local").summary.executor == "LocalExecutor"
    with pytest.raises(UsageError, match="there is no executor 'locl'; did you mean 'local'"):
        pipeline.run("locl")
    with pytest.raises(UsageError, match="call it: add parentheses"):
        pipeline.run(LocalExecutor)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"iterate\(\) has no option 'rundir'; did you mean 'run_dir'"):
        pipeline.iterate(rundir="x")


def test_results_can_be_shown_as_tables_and_pages(pipeline: Pipeline, tmp_path: Path) -> None:
    result = pipeline.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    assert sorted(result.to_arrow()["n"].to_pylist()) == sorted(result.to_pandas()["n"])
    assert len(result.to_arrow()) == 19
    assert "Where" in result._repr_html_()
    assert "srcdoc" in result.report()._repr_html_()
    assert "Where" in pipeline._repr_html_()
    without = pipeline.run(LocalExecutor(workers=0))
    with pytest.raises(UsageError, match="run with run_dir"):
        without.report()
    files = Pipeline([FilePartitioning(paths=str(tmp_path / "in"))]).run(LocalExecutor(workers=0))
    with pytest.raises(UsageError, match=r"are files .*not rows: read the written files"):
        files.to_arrow()
