"""Killed workers, killed drivers, full disks, lost permissions: the output equals that of an undisturbed run."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from curator_core import LocalExecutor, Pipeline
from curator_core.accounts import ledger
from curator_core.accounts.rejects import group_rejects, rejects_of
from curator_core.errors import OutputError, RunRefused, WorkerDied
from curator_core.stages.files import FilePartitioning
from curator_core.testing.faults import (
    ReadLines,
    Trial,
    WriteLines,
    assert_same,
    once,
    snapshot,
    write_inputs,
)
from curator_core.testing.stages import KillWorker, traces
from curator_core.testing.waiting import wait_for

pytestmark = pytest.mark.slow  # all of it together


@pytest.mark.timeout(500)
@pytest.mark.thorough
def test_twenty_killed_workers_change_nothing(tmp_path: Path) -> None:
    trial = Trial(tmp_path, config={"workers": 2}, files=60, seconds=0.01)
    killed = trial.kill_workers(seed=20, kills=20)
    resumed = trial.run(resume=True)
    assert resumed.summary.sources_skipped == 60
    trial.check(resumed)
    assert killed >= 15


@pytest.mark.timeout(500)
@pytest.mark.parametrize(("kills", "files"), [(6, 30), pytest.param(20, 80, marks=pytest.mark.thorough)])
def test_many_killed_drivers_change_nothing(tmp_path: Path, kills: int, files: int) -> None:
    trial = Trial(tmp_path, config={"workers": 2}, files=files, seconds=0.02)
    report = trial.kill_driver(seed=7, kills=kills)
    assert report.kills == kills
    assert report.repeated <= sum(report.in_flight)


@pytest.mark.timeout(500)
def test_killed_drivers_and_a_merge_change_nothing(tmp_path: Path) -> None:
    trial = Trial(tmp_path, config={"workers": 0}, files=12, seconds=0.02, merge=True, files_per_partition=2)
    assert trial.kill_driver(seed=3, kills=6).kills == 6


# A source that kills its worker -----------------------------------------------------------------------------------


def deadly(folder: Path, times: int = 99) -> Pipeline:
    return Pipeline(
        [
            FilePartitioning(paths=str(folder / "in")),
            ReadLines(),
            KillWorker(bad=9, times=times, folder=str(folder / "kills")),
            WriteLines(path=str(folder / "out")),
        ]
    )


def test_a_source_that_kills_three_workers_is_set_aside_and_may_be_retried(tmp_path: Path) -> None:
    write_inputs(tmp_path / "in", range(6), rows=4)
    run = {"run_dir": str(tmp_path / "run"), "on_error": "quarantine"}
    result = deadly(tmp_path).run(LocalExecutor(workers=2), **run)  # type: ignore[arg-type]
    assert len(traces(tmp_path / "kills", "kill")) == 3
    assert result.exit_code == 3
    assert result.summary.sources_failed == 1
    assert result.summary.shares == {"done": "5", "dropped": "0", "failed": "1"}
    (row,) = rejects_of(str(tmp_path / "run"))
    assert (row["kind"], row["reason"]) == ("quarantine", "WorkerDied")
    assert row["source"].endswith("part-0002.jsonl")
    assert row["message"].startswith("3 workers died while stage 'KillWorker' worked on task 'part-0002-")
    assert len(snapshot(tmp_path / "out")) == 5 + 1
    # The cause is mended: here, the stage has killed often enough by its own count.
    for number in range(100):
        (tmp_path / "kills" / f"kill-{number}").touch()
    mended = deadly(tmp_path).run(LocalExecutor(workers=2), **run, retry=True)  # type: ignore[arg-type]
    assert mended.exit_code == 0
    assert mended.summary.sources_skipped == 5
    assert mended.summary.shares == {"done": "6", "dropped": "0", "failed": "0"}
    assert list(rejects_of(str(tmp_path / "run"))) == []


def test_a_source_that_kills_three_workers_fails_a_run_after_all_other_sources(tmp_path: Path) -> None:
    write_inputs(tmp_path / "in", range(6), rows=4)
    with pytest.raises(WorkerDied, match=r"3 workers died while .*part-0002"):
        deadly(tmp_path).run(LocalExecutor(workers=2), run_dir=str(tmp_path / "run"))
    assert len(traces(tmp_path / "kills", "kill")) == 3
    assert len(snapshot(tmp_path / "out")) == 5, "sources that are sound do not wait for the one that is not"


# Nowhere to write -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Callable[..., None]]:
    """A file system of its own for ``folder``; yields a function that remounts it with other options."""
    folder.mkdir(parents=True)
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("only root may mount a small disk")
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("place", ["out", "run"])
def test_a_full_disk_stops_the_run_with_one_clear_message_and_resume_completes_it(
    tmp_path: Path, place: str, workers: int
) -> None:
    trial = Trial(tmp_path, config={"workers": workers}, files=20, seconds=0.003)
    with small_disk(tmp_path / place, 800):
        filler = tmp_path / place / "filler"

        def fill() -> None:
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))

        with pytest.raises(OutputError, match="no space is left") as caught:
            trial.run(progress=once(lambda done: done >= 6, fill))
        assert str(caught.value).count("cannot write") == 1
        assert str(tmp_path / place) in str(caught.value)
        filler.unlink()
        result = trial.run(resume=True)
        trial.check(result)


def test_a_disk_that_becomes_read_only_stops_the_run_and_resume_completes_it(tmp_path: Path) -> None:
    trial = Trial(tmp_path, config={"workers": 0}, files=12, seconds=0.001)
    with small_disk(tmp_path / "out", 2000) as remount:
        with pytest.raises(OutputError, match="read-only"):
            trial.run(progress=once(lambda done: done >= 4, lambda: remount("ro")))
        remount("rw")
        trial.check(trial.run(resume=True))


@pytest.mark.usefixtures("as_anyone")
@pytest.mark.parametrize("place", ["out", "run"])
def test_a_lost_permission_stops_the_run_and_resume_completes_it(tmp_path: Path, place: str) -> None:
    trial = Trial(tmp_path, config={"workers": 0}, files=12, seconds=0.001)
    folder = tmp_path / place
    try:
        with pytest.raises(OutputError, match="no permission"):
            trial.run(progress=once(lambda done: done >= 4, lambda: folder.chmod(0o500)))
    finally:
        folder.chmod(0o700)
    trial.check(trial.run(resume=True))


def test_files_that_may_not_grow_stop_the_run_and_resume_completes_it(tmp_path: Path) -> None:
    trial = Trial(tmp_path, config={"workers": 0}, files=12, seconds=0.001)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))

    try:
        with pytest.raises(OutputError, match="cannot write"):
            trial.run(progress=once(lambda done: done >= 4, limit))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    trial.check(trial.run(resume=True))


@pytest.mark.parametrize(
    ("folder", "after"), [("rejects", False), ("seen", False), ("seen", True), ("samples", False), ("ledger", False)]
)
def test_an_interrupted_flush_is_completed_by_the_next(
    tmp_path: Path, folder: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is ended by a signal, or finds the disk full for a moment, flushes once more at its end."""
    trial = Trial(tmp_path, config={"workers": 0}, files=3, seconds=0)
    for path in (tmp_path / "in").iterdir():
        with path.open("a") as file:
            file.write("{broken\n")
    interrupted: list[str] = []

    def interrupting(write: Callable[[str, Any], None]) -> Callable[[str, Any], None]:
        def interrupted_once(path: str, tables: Any) -> None:
            interrupts = f"/{folder}/" in path and not interrupted
            if interrupts:
                interrupted.append(path)
            if after or not interrupts:
                write(path, tables)
            if interrupts:
                raise KeyboardInterrupt

        return interrupted_once

    monkeypatch.setattr(ledger, "FLUSH_SECONDS", 0)  # after each source
    monkeypatch.setattr(ledger, "write_parquet", interrupting(ledger.write_parquet))
    monkeypatch.setattr(ledger, "write_stream", interrupting(ledger.write_stream))
    with pytest.raises(KeyboardInterrupt):
        trial.run()
    result = trial.run(resume=True)
    assert result.summary.sources_skipped == 1, "the source before the signal is done for good"
    trial.check(result)
    (group,) = group_rejects(str(tmp_path / "run"))
    assert group.rows == 3


# Two at once ------------------------------------------------------------------------------------------------------


def test_a_second_run_in_one_directory_is_refused_while_the_first_is_at_work(tmp_path: Path) -> None:
    trial = Trial(tmp_path, config={"workers": 0}, files=4, seconds=0.001)
    refused: list[str] = []

    def second() -> None:
        with pytest.raises(RunRefused, match="another run is at work") as caught:
            trial.run(resume=True)
        refused.append(str(caught.value))

    first = trial.run(progress=once(lambda done: done >= 2, second))
    assert f"process {os.getpid()}" in refused[0]
    trial.check(first)


def test_a_lock_ends_with_the_process_that_held_it(tmp_path: Path) -> None:
    trial = Trial(tmp_path, config={"workers": 2}, files=12, seconds=0.05)
    driver = trial.start_driver()
    wait_for(lambda: trial.begun() >= 3 or driver.poll() is not None, "no task was worked on")
    assert driver.poll() is None
    driver.kill()
    driver.communicate()
    trial.check(trial.run(resume=True))


def test_two_undisturbed_runs_have_the_same_bytes(tmp_path: Path) -> None:
    trial = Trial(tmp_path, config={"workers": 2}, files=10, seconds=0.001, merge=True)
    trial.run()
    first = snapshot(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    shutil.rmtree(tmp_path / "run")
    Pipeline(trial.stages()).run(LocalExecutor(workers=0))
    assert_same(snapshot(tmp_path / "out"), first)


def test_rejects_of_killed_workers_are_reported_once(tmp_path: Path) -> None:
    trial = Trial(tmp_path, config={"workers": 2}, files=40, seconds=0.01)
    for number in range(0, 40, 3):
        with (tmp_path / "in" / f"part-{number:04d}.jsonl").open("a") as file:
            file.write("{broken\n")
    trial.kill_workers(seed=4, kills=5)
    (group,) = group_rejects(str(tmp_path / "run"))
    assert (group.kind, group.reason, group.rows) == ("reject", "bad line", 14)
