"""Input that changes between an interruption and its resume, and everything else that resume promises."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curator_core import FilePartitioning, LocalExecutor, Pipeline, WorkerMetadata, storage
from curator_core.accounts.ledger import open_accounts
from curator_core.accounts.source_list import SourceList
from curator_core.errors import MissingDependency, RunRefused, UsageError
from curator_core.running.directory import RunDirectory
from curator_core.running.result import RunResult
from curator_core.running.verify import verify
from curator_core.testing.faults import NoMultiples, Trial, WriteLines, assert_same, snapshot, write_inputs


class Stop(Exception):
    """Ends a run in the middle, as Ctrl-C would."""


def interrupt(trial: Trial, after: int, **options: Any) -> None:
    def progress(state: Any) -> None:
        if state.finished_sources >= after:
            raise Stop

    with pytest.raises(Stop):
        trial.run(progress=progress, **options)


def here(folder: Path, **options: Any) -> Trial:
    return Trial(folder, config={"workers": 0}, seconds=0.0, **{"files": 9, **options})


def worked_on(trial: Trial) -> int:
    return len(trial.traced())


def inputs(trial: Trial) -> list[Path]:
    return sorted((trial.folder / "in").iterdir())


def truncate(trial: Trial) -> None:
    path = inputs(trial)[1]
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))


def replace(trial: Trial) -> None:
    path = inputs(trial)[1]
    path.write_text(path.read_text().replace('"text ', '"word '))  # as long as it was
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))


def delete(trial: Trial) -> None:
    inputs(trial)[1].unlink()


def add(trial: Trial) -> None:
    write_inputs(trial.folder / "in", [100])


def add_first(trial: Trial) -> None:
    (trial.folder / "in" / "a-part.jsonl").write_text(json.dumps({"id": 5000, "text": "first"}) + "\n")


CHANGES = [truncate, replace, delete, add, add_first]


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("per_partition", [1, 2])
@pytest.mark.parametrize("merge", [False, True], ids=["rows", "merge"])
def test_a_changed_input_is_run_again_and_its_old_rows_are_removed(
    tmp_path: Path, change: Callable[[Trial], None], per_partition: int, merge: bool
) -> None:
    trial = here(tmp_path, files_per_partition=per_partition, merge=merge)
    interrupt(trial, 3)
    before = worked_on(trial)
    assert before >= 3
    change(trial)
    result = trial.run(resume=True)
    found = snapshot(tmp_path / "out")
    # Groups stay as they were, so names may differ from those of a new run, but rows may not.
    assert rows_of(found) == rows_of(trial.expected())
    if per_partition == 1:
        assert_same(found, trial.expected())
    assert verify(str(tmp_path / "run")) == []
    assert not result.summary.warnings
    assert set(result.summary.shares.values()) == {"0", str(result.summary.sources)}
    everything = result.summary.sources
    assert worked_on(trial) - before <= everything - 3 + 2, "only what is needed is run"


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("per_partition", [1, 2])
def test_only_changed_sources_of_a_complete_run_are_run(
    tmp_path: Path, change: Callable[[Trial], None], per_partition: int
) -> None:
    trial = here(tmp_path, files_per_partition=per_partition)
    trial.run()
    before = worked_on(trial)
    change(trial)
    result = trial.run(resume=True)
    assert rows_of(snapshot(tmp_path / "out")) == rows_of(trial.expected())
    assert verify(str(tmp_path / "run")) == []
    again = worked_on(trial) - before
    # Deleting a file dissolves its group: its neighbour is alone from then on, or joins the last one.
    assert again == (0 if change is delete and per_partition == 1 else 1), result.summary.inputs


def test_the_changes_of_the_input_are_distinguished(tmp_path: Path) -> None:
    trial = here(tmp_path)
    trial.run()
    replace(trial)
    inputs(trial)[3].unlink()
    add(trial)
    result = trial.run(resume=True)
    assert result.summary.inputs == {"unchanged": 7, "changed": 1, "new": 1, "removed": 1}


@pytest.mark.slow
def test_a_file_that_returns_unchanged_is_read_again(tmp_path: Path) -> None:
    trial = here(tmp_path)
    trial.run()
    path = inputs(trial)[2]
    path.rename(tmp_path / "aside")
    trial.check(trial.run(resume=True), samples=False)
    (tmp_path / "aside").rename(path)  # with its old size and time
    trial.check(trial.run(resume=True), samples=False)


@pytest.mark.slow
def test_a_change_undone_after_another_interruption_leaves_nothing_behind(tmp_path: Path) -> None:
    trial = here(tmp_path)
    trial.run()
    path = inputs(trial)[0]
    shutil.copy2(path, tmp_path / "aside")
    path.write_text(json.dumps({"id": 1, "text": "other"}) + "\n")
    interrupt(trial, 1, resume=True)
    shutil.copy2(tmp_path / "aside", path)
    trial.check(trial.run(resume=True))


def test_the_output_of_a_removed_source_in_progress_is_also_removed(tmp_path: Path) -> None:
    """Its file is there, but the record of it was lost with the process."""
    trial = here(tmp_path)
    interrupt(trial, 4)
    shutil.rmtree(tmp_path / "run" / "ledger")
    inputs(trial)[0].unlink()
    trial.check(trial.run(resume=True))


# A complete run ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("merge", [False, True], ids=["rows", "merge"])
def test_resuming_a_complete_run_does_nothing_and_gives_the_same_result(tmp_path: Path, merge: bool) -> None:
    trial = here(tmp_path, merge=merge)
    first = trial.run()
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir() if path.name != "_SUCCESS"}
    before = worked_on(trial)
    again = trial.run(resume=True)
    assert worked_on(trial) == before
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert [task.task_id for task in again] == [task.task_id for task in first]
    assert [task.data for task in again] == [task.data for task in first]
    assert again.summary.shares == first.summary.shares
    assert counts(again) == counts(first)
    assert again.summary.sources_skipped == 9
    trial.check(again)


@pytest.mark.slow
def test_law_4_deleted_output_is_written_again(tmp_path: Path) -> None:
    trial = here(tmp_path)
    trial.run()
    before = worked_on(trial)
    deleted = sorted((tmp_path / "out").glob("*.jsonl"))[3]
    deleted.unlink()
    result = trial.run(resume=True)
    assert deleted.exists()
    trial.check(result)
    assert worked_on(trial) - before == 1, "its source is run again, and no other"
    assert result.summary.inputs == {"unchanged": 8, "unfinished": 1}


def test_tables_are_also_returned(tmp_path: Path) -> None:
    trial = here(tmp_path)
    pipeline = Pipeline(trial.stages()[:-1])
    first = pipeline.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"))
    again = pipeline.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"), resume=True)
    assert [task.to_pyarrow() for task in again] == [task.to_pyarrow() for task in first]


@pytest.mark.slow
def test_an_interrupted_run_has_the_same_counts_as_an_undisturbed_one(tmp_path: Path) -> None:
    whole, pieces = here(tmp_path / "whole", merge=True), here(tmp_path / "pieces", merge=True)
    expected = whole.run()
    for after in (2, 3, 2):
        interrupt(pieces, after, resume=True)
    assert counts(pieces.run(resume=True)) == counts(expected)


# The pipeline -----------------------------------------------------------------------------------------------------


def changed_stages(trial: Trial, of: int = 5) -> Pipeline:
    return Pipeline([NoMultiples(of=of) if isinstance(s, NoMultiples) else s for s in trial.stages()])


def test_a_changed_pipeline_is_refused_and_the_change_named(tmp_path: Path) -> None:
    trial = here(tmp_path)
    interrupt(trial, 3)
    with pytest.raises(RunRefused, match=r"'NoMultiples': of was 7, is 5") as caught:
        changed_stages(trial).run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"), resume=True)
    assert "--fresh" in str(caught.value)
    assert "--allow-changed" in str(caught.value)


def test_law_4_a_stage_of_another_version_is_a_changed_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = here(tmp_path)
    interrupt(trial, 3)
    monkeypatch.setattr(NoMultiples, "version", "2")
    with pytest.raises(RunRefused, match=r"'NoMultiples': version was '?1'?, is '?2'?"):
        trial.run(resume=True)
    trial.check(trial.run(resume=True, allow_changed=True))


def test_a_run_is_not_overwritten_without_a_flag(tmp_path: Path) -> None:
    trial = here(tmp_path)
    trial.run()
    with pytest.raises(RunRefused, match="already holds a run"):
        trial.run()


class Watched(LocalExecutor):
    """A local executor that records whether it was opened."""

    opened = False

    def open(self) -> None:
        self.opened = True


@pytest.mark.slow
def test_an_existing_run_is_refused_before_an_executor_opens(tmp_path: Path) -> None:
    trial = here(tmp_path)
    trial.run()
    executor = Watched(workers=0)
    with pytest.raises(RunRefused, match="already holds a run"):
        Pipeline(trial.stages()).run(executor, run_dir=str(tmp_path / "run"))
    assert not executor.opened
    Pipeline(trial.stages()).run(executor, run_dir=str(tmp_path / "run"), resume=True)
    assert executor.opened


def test_a_file_system_without_locks_is_not_mistaken_for_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RunRefused, match=f"cannot lock the folder .*: {os.strerror(errno.ENOLCK)}; or choose another"):
        here(tmp_path).run()


@pytest.mark.slow
@pytest.mark.parametrize("stop_again", [0, 1, 4])
def test_allow_changed_keeps_what_is_complete_and_mixes_nothing(tmp_path: Path, stop_again: int) -> None:
    """Even if it is interrupted too: only the changed pipeline may continue what it began."""
    trial = here(tmp_path)
    interrupt(trial, 3)
    accounts = open_accounts(str(tmp_path / "run"))
    kept = {source for source in accounts.sources() if accounts.is_complete(source)}
    assert 0 < len(kept) < 9
    run = {"run_dir": str(tmp_path / "run"), "resume": True}

    def stop(state: Any) -> None:
        if stop_again and state.finished_sources >= stop_again:
            raise Stop

    if stop_again:
        with pytest.raises(Stop):
            changed_stages(trial).run(LocalExecutor(workers=0), **run, allow_changed=True, progress=stop)  # type: ignore[arg-type]
    changed_stages(trial).run(LocalExecutor(workers=0), **run, allow_changed=True)  # type: ignore[arg-type]
    for path in (tmp_path / "out").glob("*.jsonl"):
        rows = [json.loads(line)["id"] for line in path.read_text().splitlines()]
        of = 7 if path.name.partition(".")[0] in kept else 5
        assert all(row % of for row in rows), path.name


@pytest.mark.slow
def test_fresh_starts_over_and_removes_the_output_of_the_previous_run(tmp_path: Path) -> None:
    trial = here(tmp_path)
    trial.run()
    for path in inputs(trial)[:4]:
        path.unlink()
    result = trial.run(fresh=True)
    assert result.summary.attempt == 1
    assert result.summary.inputs == {"new": 5}
    trial.check(result)


@pytest.mark.slow
def test_an_interrupted_fresh_run_still_knows_the_previous_files(tmp_path: Path) -> None:
    trial = here(tmp_path)
    trial.run()
    for path in inputs(trial)[:4]:
        path.unlink()
    interrupt(trial, 1, fresh=True)
    trial.check(trial.run(resume=True))


@pytest.mark.slow
def test_half_written_files_of_a_killed_finishing_pass_are_removed(tmp_path: Path) -> None:
    trial = here(tmp_path, files=1)
    trial.run()
    for name in ("._inputs.json.tmp-12-3", ".notes.txt.tmp-12-3"):
        (tmp_path / "out" / name).write_text("half")
    trial.run(fresh=True)
    left = {path.name for path in (tmp_path / "out").iterdir() if storage.is_temporary(str(path))}
    assert left == {".notes.txt.tmp-12-3"}  # somebody else may be writing it


def test_other_files_in_the_output_stay_and_are_reported(tmp_path: Path) -> None:
    trial = here(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    result = trial.run()
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    assert "1 file that this run did not write" in result.summary.warnings[0]


def test_a_run_in_progress_has_no_success_file(tmp_path: Path) -> None:
    trial = here(tmp_path)
    trial.run()
    add(trial)
    interrupt(trial, 1, resume=True)
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_verify_reports_what_has_happened_to_the_output(tmp_path: Path) -> None:
    trial = here(tmp_path)
    trial.run()
    first, second, third, *_ = sorted((tmp_path / "out").glob("*.jsonl"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-3] + b"!!\n")
    (tmp_path / "out" / f"{third.name.partition('.')[0]}.00007.jsonl").write_text("{}\n")
    problems = "\n".join(verify(str(tmp_path / "run")))
    assert f"{first.name!r} is missing" in problems
    assert f"{second.name!r} has changed" in problems
    assert "00007.jsonl' exists and was not recorded" in problems
    assert len(problems.splitlines()) == 3


def test_a_run_directory_without_records_of_success_files_is_verified_by_the_files(tmp_path: Path) -> None:
    trial = here(tmp_path)
    trial.run()
    record = tmp_path / "run" / "run.json"
    written = json.loads(record.read_text())
    del written["marks"], written["fingerprint"]  # early runs noted neither
    record.write_text(json.dumps(written))
    assert verify(str(tmp_path / "run")) == []
    next((tmp_path / "out").glob("*.jsonl")).unlink()
    assert len(verify(str(tmp_path / "run"))) == 1


def test_a_refused_run_leaves_no_run_directory(tmp_path: Path) -> None:
    trial = here(tmp_path)
    trial.run()
    (tmp_path / "there").mkdir()
    for place in ("runs/other", "there"):
        with pytest.raises(RunRefused, match="finished output of another run"):
            changed_stages(trial).run(LocalExecutor(workers=0), run_dir=str(tmp_path / place))
    with pytest.raises(RunRefused, match="holds no run to retry"):
        changed_stages(trial).run(LocalExecutor(workers=0), run_dir=str(tmp_path / "runs" / "none"), retry=True)
    assert not (tmp_path / "runs").exists()
    assert list((tmp_path / "there").iterdir()) == []


def test_a_path_that_matches_nothing_does_not_change_the_run(tmp_path: Path) -> None:
    trial = here(tmp_path)
    missing = Pipeline([FilePartitioning(paths=str(tmp_path / "nothing")), *trial.stages()[1:]])
    for options in ({}, {"fresh": True}, {"resume": True}):
        with pytest.raises(UsageError, match="nothing"):
            missing.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"), **options)
        assert not (tmp_path / "run").exists()
    trial.run()
    before = snapshot(tmp_path / "out"), snapshot(tmp_path / "run")
    with pytest.raises(UsageError, match="nothing"):
        missing.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "run"), fresh=True)
    assert (snapshot(tmp_path / "out"), snapshot(tmp_path / "run")) == before


@pytest.mark.slow
def test_a_run_in_which_nothing_was_done_does_not_block_the_next(tmp_path: Path) -> None:
    """As after a missing package: changes since then do not matter either."""

    class Unready(NoMultiples):
        def setup(self, worker: WorkerMetadata) -> None:
            raise MissingDependency("pip install something")

    trial = here(tmp_path)
    first, *_, last = trial.stages()
    for options in ({}, {}, {"resume": True}):
        with pytest.raises(MissingDependency):
            Pipeline([first, *trial.stages()[1:-1], Unready(), last]).run(
                LocalExecutor(workers=0), run_dir=str(tmp_path / "run"), **options
            )
    trial.check(trial.run())


def test_a_lock_whose_folder_was_removed_is_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process has opened the lock file when another, which was refused, removes it together with the folder."""
    first, second = RunDirectory(str(tmp_path / "runs" / "a")), RunDirectory(str(tmp_path / "runs" / "a"))
    first.lock()
    opened = os.open

    def open_and_lose(path: Any, *arguments: Any, **options: Any) -> int:
        found = opened(path, *arguments, **options)
        monkeypatch.undo()
        first.unlock(leave_no_trace=True)
        return found

    monkeypatch.setattr("curator_core.running.locks.os.open", open_and_lose)
    second.lock()
    third = RunDirectory(str(tmp_path / "runs" / "a"))
    with pytest.raises(RunRefused, match="another run is at work"):
        third.lock()
    second.unlock()
    third.lock()
    third.unlock(leave_no_trace=True)
    assert (tmp_path / "runs" / "a").is_dir()  # it was not the third that has made it


def test_a_run_that_writes_into_its_input_folder_warns(tmp_path: Path) -> None:
    trial = here(tmp_path, files=3)
    assert trial.run().summary.warnings == []
    _, *stages, _ = trial.stages()
    files = FilePartitioning(paths=[str(path) for path in inputs(trial)])
    result = Pipeline([files, *stages, WriteLines(path=str(tmp_path / "in"))]).run(LocalExecutor(workers=0))
    warning = result.summary.warnings[0]
    assert "is read from the folder that WriteLines writes to" in warning
    assert len([text for text in result.summary.warnings if "is read from" in text]) == 1


def test_the_success_file_lists_each_file_in_a_line(tmp_path: Path) -> None:
    trial = here(tmp_path, files=3)
    result = trial.run()
    text = (tmp_path / "out" / "_SUCCESS").read_text()
    mark = json.loads(text)
    assert (mark["stage"], mark["rows"], mark["bytes"]) == (
        "WriteLines",
        result.summary.rows_written,
        sum(path.stat().st_size for path in (tmp_path / "out").glob("*.jsonl")),
    )
    assert [json.loads(line.rstrip(",")) for line in text.splitlines()[1:-1]] == mark["files"]
    assert {entry["path"] for entry in mark["files"]} == {path.name for path in (tmp_path / "out").glob("*.jsonl")}


@pytest.mark.slow
def test_finished_output_of_another_run_is_not_overwritten(tmp_path: Path) -> None:
    trial = here(tmp_path)
    trial.run()
    before = snapshot(tmp_path / "out")
    with pytest.raises(RunRefused, match=r"finished output of another run.*--fresh"):
        changed_stages(trial).run(LocalExecutor(workers=0), run_dir=str(tmp_path / "other"))
    assert snapshot(tmp_path / "out") == before
    trial.check(trial.run(resume=True))

    changed_stages(trial).run(LocalExecutor(workers=0), run_dir=str(tmp_path / "other"), fresh=True)
    assert verify(str(tmp_path / "other")) == []
    (problem,) = verify(str(tmp_path / "run"))
    assert "another run has replaced the output" in problem
    # The files have this run's names, but another run's rows.
    with pytest.raises(RunRefused, match="finished output of another run"):
        trial.run(resume=True)
    trial.check(trial.run(fresh=True))


@pytest.mark.slow
def test_two_runs_that_fill_one_folder_at_the_same_time_do_not_both_succeed(tmp_path: Path) -> None:
    trial = here(tmp_path)
    other = changed_stages(trial)
    begun: list[int] = []

    def meanwhile(state: Any) -> None:
        if not begun:
            begun.append(state.finished_sources)
            other.run(LocalExecutor(workers=0), run_dir=str(tmp_path / "other"))

    with pytest.raises(RunRefused, match="while this one ran"):
        trial.run(progress=meanwhile)
    with pytest.raises(RunRefused, match="finished output of another run"):
        trial.run(resume=True)
    trial.check(trial.run(fresh=True))


def test_a_run_killed_just_before_its_end_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = here(tmp_path)

    def killed(*_: object) -> None:
        raise Stop

    monkeypatch.setattr("curator_core.running.run.ordered_results", killed)  # what comes after the success file
    monkeypatch.setattr("curator_core.running.run._Run._record_failure", lambda *_: None)
    with pytest.raises(Stop):
        trial.run()
    monkeypatch.undo()
    assert (tmp_path / "out" / "_SUCCESS").exists()
    trial.check(trial.run(resume=True))


@pytest.mark.parametrize("kept", [True, False], ids=["of a run with a directory", "of a run without one"])
def test_a_run_without_a_directory_does_not_overwrite_finished_output(tmp_path: Path, kept: bool) -> None:
    trial = here(tmp_path)
    trial.run() if kept else Pipeline(trial.stages()).run(LocalExecutor(workers=0))
    before = snapshot(tmp_path / "out")
    with pytest.raises(RunRefused, match=r"holds finished output: choose another folder, .*fresh=True, .*run_dir"):
        changed_stages(trial).run(LocalExecutor(workers=0))
    assert snapshot(tmp_path / "out") == before

    changed_stages(trial).run(LocalExecutor(workers=0), fresh=True)
    assert snapshot(tmp_path / "out") != before


def test_a_stopped_run_without_a_directory_is_simply_run_again(tmp_path: Path) -> None:
    trial = here(tmp_path)

    def stop(_: Any) -> None:
        raise Stop

    with pytest.raises(Stop):
        Pipeline(trial.stages()).run(LocalExecutor(workers=0), progress=stop)
    Pipeline(trial.stages()).run(LocalExecutor(workers=0))
    assert_same(snapshot(tmp_path / "out"), trial.expected())


@pytest.mark.parametrize("folder", ["ledger", "sources"])
def test_a_damaged_file_of_the_run_directory_is_named_and_can_be_removed(tmp_path: Path, folder: str) -> None:
    trial = here(tmp_path)
    trial.run()
    path = next((tmp_path / "run" / folder).iterdir())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunRefused, match=rf"{path.name}' is damaged.*remove it and continue"):
        trial.run(resume=True)
    path.unlink()
    trial.check(trial.run(resume=True))


@pytest.mark.parametrize("name", ["plan.json", "run.json"])
def test_a_damaged_record_does_not_prevent_starting_over(tmp_path: Path, name: str) -> None:
    trial = here(tmp_path)
    trial.run()
    for text in ('{"sta', "[]", "{}", "null"):
        (tmp_path / "run" / name).write_text(text)
        with pytest.raises(RunRefused, match=r"is damaged.*--fresh"):
            trial.run(resume=True)
    trial.check(trial.run(fresh=True))


@pytest.mark.slow
def test_a_limit_works_like_any_listing(tmp_path: Path) -> None:
    trial = here(tmp_path)
    assert trial.run(limit=4).summary.sources == 4
    result = trial.run(resume=True)
    assert result.summary.inputs == {"unchanged": 4, "new": 5}
    trial.check(result)
    assert trial.run(resume=True, limit=2).summary.inputs == {"unchanged": 2, "removed": 7}
    assert len(SourceList(str(tmp_path / "run")).rows) == 9


def rows_of(files: dict[str, bytes]) -> list[bytes]:
    return sorted(line for name, data in files.items() if name != "_SUCCESS" for line in data.splitlines())


def counts(result: RunResult) -> list[Any]:
    return [
        (s.name, s.calls, s.rows_in, s.rows_out, s.dropped, s.rejected, s.quarantined) for s in result.summary.stages
    ]
