"""Progress of a run: as lines, on a terminal, in a cell; the numbers are the same on every executor."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from curator_core import DocumentBatch, LocalExecutor, Pipeline, ProcessingStage
from curator_core.accounts.tally import StageTotals, Tally
from curator_core.cli.progress import ProgressDisplay, _Screen
from curator_core.executors.base import BaseExecutor, SegmentRun
from curator_core.model import machine as limits
from curator_core.model.machine_use import MachineUse, Use
from curator_core.model.task import Task
from curator_core.running import notebook
from curator_core.running.notebook import progress_html
from curator_core.running.progress import RunProgress, line, machine_text, time_left


def progress(**changes: Any) -> RunProgress:
    tally = Tally()
    tally.stages["Read"] = StageTotals("Read", 1, 1200, 1190, rejected={"broken": 10})
    tally.stages["Words"] = StageTotals("Words", 1, 1000, 800, dropped={"short": 200})
    state = {
        "total_sources": 10,
        "finished_sources": 3,
        "skipped_sources": 2,
        "taken_sources": 5,
        "seconds": 6.0,
        "tally": tally,
        "stages": ("Read", "Words", "Write"),
        **changes,
    }
    return RunProgress("clean", **state)


LINE = (
    "clean: 5 of 10 sources, 2 in flight, 1,200 rows (200/s), 200 dropped, 10 set aside, 6.00 s; "
    "about 10.0 s left, estimated from 3 sources"
)


def test_without_a_terminal_a_line_is_printed_early_and_then_regularly() -> None:
    now = [0.0]
    out = io.StringIO()
    display = ProgressDisplay(stream=out, first_seconds=3, line_seconds=30, clock=lambda: now[0])
    for now[0] in (1.0, 4.0, 9.0, 33.0, 35.0, 63.0, 66.0):
        display(progress())
    assert out.getvalue().splitlines() == [LINE] * 3


def test_a_line_is_printed_even_if_nothing_changes() -> None:
    now = [0.0]
    out = io.StringIO()
    display = ProgressDisplay(stream=out, first_seconds=3, line_seconds=30, clock=lambda: now[0])
    display(progress())
    now[0] = 4.0
    display.look()
    assert out.getvalue().splitlines() == [LINE]


def test_the_display_says_at_once_what_a_run_waits_for() -> None:
    out = io.StringIO()
    with ProgressDisplay(stream=out) as display:
        display(RunProgress("clean", state="starting", waiting_for="Ray is starting"))
    assert out.getvalue() == "clean: Ray is starting, 0.00 s\n"
    shown = progress_html(RunProgress("a<b", state="starting", waiting_for="Ray is starting"))
    assert "a&lt;b" in shown
    assert "Ray is starting" in shown


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"total_sources": None}, "time left unknown: the number of sources is not known"),
        ({"finished_sources": 0}, "time left unknown until a source is done"),
        ({"segments": 3}, "about 10.0 s left in this part, estimated from 3 sources"),
        ({"segments": 3, "segment": 1}, "time left unknown: merges cannot be counted in advance"),
        ({"step": 1}, "about 10.0 s left in this step, estimated from 3 sources"),
        ({"finished_sources": 8}, ""),
        ({"state": "done"}, ""),
    ],
)
def test_the_time_left_is_shown_with_its_basis_or_the_reason_why_it_is_unknown(
    changes: dict[str, Any], said: str
) -> None:
    assert time_left(progress(**changes)) == said


def test_the_start_of_the_executor_does_not_affect_the_remaining_time() -> None:
    now = time.monotonic()
    left = time_left(progress(begun=now - 100, working_since=now - 6))
    assert left == "about 10.0 s left, estimated from 3 sources"


def test_progress_of_a_workflow_gives_the_step_and_their_number_if_known() -> None:
    assert line(progress(step=2, steps=3, step_name="groups/round-1")).startswith(
        "step 2 of 3: groups/round-1: 5 of 10"
    )
    assert line(progress(step=2, step_name="groups")).startswith("step 2: groups: 5 of 10 sources")
    assert "part 2 of 3" in line(progress(segment=1, segments=3))


def screen(width: int, height: int, **changes: Any) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, height=height).print(_Screen(lambda: progress(**changes)))
    return out.getvalue().splitlines()


def test_a_terminal_has_a_row_for_each_stage_with_the_rows_waiting_for_it() -> None:
    lines = screen(100, 30)
    rows = {words[0]: words[1:] for found in lines if (words := found.split())}
    assert rows["stage"] == ["in", "kept", "dropped", "failed", "waiting", "rows/s"]
    assert rows["Read"] == ["1,200", "1,190", "·", "10", "·", "200"]
    assert rows["Words"] == ["1,000", "800", "200", "·", "190", "167"]
    assert rows["Write"] == ["·", "·", "·", "·", "800", "·"]
    assert lines[-2].startswith("about 10.0 s left, estimated from 3 sources")


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_the_display_is_never_wider_or_higher_than_the_terminal(width: int) -> None:
    lines = screen(width, 12, stages=("Read", *(f"AStageWithALongName{number}" for number in range(40))))
    assert max(map(len, lines)) <= width
    assert len(lines) <= 11
    assert width < 40 or any("more stages" in found for found in lines)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_left_clean() -> None:
    out = Terminal()
    with ProgressDisplay(stream=out) as display:
        display(progress())
    assert "clean" in out.getvalue()
    assert out.getvalue().count("\x1b[?25l") == out.getvalue().count("\x1b[?25h") == 1


def test_quiet_prints_nothing() -> None:
    out = io.StringIO()
    with ProgressDisplay(stream=out, quiet=True, first_seconds=0, line_seconds=0) as display:
        display(progress())
    assert out.getvalue() == ""


# Real runs -----------------------------------------------------------------------------------------------------------


class Half(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Keeps the first half."""

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task.append_column("y", [1] * task.num_rows)


def batches(count: int) -> list[DocumentBatch]:
    return [DocumentBatch(task_id=f"t{number}", data=pa.table({"x": [1, 2, 3, 4]})) for number in range(count)]


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_reports_its_stages_its_workers_and_the_sources_in_progress(workers: int) -> None:
    seen: list[tuple[tuple[str, ...], int, int, int | None]] = []

    def note(state: RunProgress) -> None:
        seen.append((state.stages, state.in_flight, state.done, state.workers))

    Pipeline([Half()]).run(LocalExecutor(workers=workers), initial_tasks=batches(3), progress=note)
    assert {stages for stages, *_ in seen} == {("Half",)}
    assert max(flight for _, flight, *_ in seen) >= workers
    assert seen[-1] == (("Half",), 0, 3, workers or None)


class Slow(BaseExecutor):
    """Takes time to open, and says so."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.fails = fails

    @property
    def opening(self) -> str:
        return "the engine is starting"

    def run_segment(self, run: SegmentRun) -> Iterator[Task[Any]]:
        if self.fails:
            raise KeyboardInterrupt
        return LocalExecutor(workers=0).run_segment(run)


def test_a_run_says_what_it_waits_for_before_its_executor_is_there(tmp_path: Path) -> None:
    states: list[tuple[str, str]] = []
    Pipeline([Half()], name="p").run(
        Slow(), initial_tasks=batches(1), progress=lambda state: states.append((state.state, state.waiting_for))
    )
    assert states[0] == ("starting", "the engine is starting")
    assert states[1] == ("running", "")
    assert states[-1] == ("done", "")


def test_an_interrupted_run_reports_that_it_has_ended() -> None:
    states: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        Pipeline([Half()]).run(
            Slow(fails=True), initial_tasks=batches(1), progress=lambda state: states.append(state.state)
        )
    assert states[-1] == "failed"


PIPELINE = """
name: slow
stages:
  - stage_that_waits:Source: {go: GO}
"""
STAGE = """
import os, time
from curator_core import DocumentBatch, EmptyTask, ProcessingStage
import pyarrow as pa

class Source(ProcessingStage[EmptyTask, DocumentBatch]):
    def __init__(self, go: str) -> None:
        self.go = go

    def process(self, task: EmptyTask) -> DocumentBatch:
        while not os.path.exists(self.go):
            time.sleep(0.01)
        return DocumentBatch(data=pa.table({"x": [1]}))
"""


@pytest.mark.slow
def test_ctrl_c_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "stage_that_waits.py").write_text(STAGE)
    (tmp_path / "slow.yaml").write_text(PIPELINE.replace("GO", str(tmp_path / "never")))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "curator_core.cli", "run", "slow.yaml", "--workers", "0"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from curator_core.cli import main; main()", *command[3:]],
        cwd=tmp_path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
    )
    os.close(theirs)
    shown = read_until(ours, rb"time left unknown")
    process.send_signal(signal.SIGINT)
    shown += read_until(ours, None)
    assert process.wait(30) == 130
    os.close(ours)
    assert shown.count(b"\x1b[?25l") == shown.count(b"\x1b[?25h") == 1, "the cursor is shown again"
    last = shown.decode().rpartition("\x1b[?25h")[2]
    # The drawing is removed line by line, and the rest is a complete sentence.
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", last).replace("\r", "").strip()
    assert plain == "interrupted; resume with: curate run slow.yaml --run-dir runs/slow --resume"
    assert b"Traceback" not in shown


def read_until(terminal: int, pattern: bytes | None) -> bytes:
    """The output on a terminal until it contains this, or to its end."""
    found, end = b"", time.monotonic() + 60
    while pattern is None or not re.search(pattern, found):
        assert time.monotonic() < end, found
        if not select.select([terminal], [], [], 1.0)[0]:
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the other side is closed
            data = b""
        if not data:
            assert pattern is None, found
            break
        found += data
    return found


# The machine ---------------------------------------------------------------------------------------------------------


def test_the_memory_in_use_is_that_of_the_container_if_it_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/meminfo": ["MemTotal: 16777216 kB", "MemFree: 1 kB", "MemAvailable: 12582912 kB"],
        "/sys/fs/cgroup/memory.max": ["max"],
    }
    monkeypatch.setattr(limits, "lines_of", lambda path: files.get(path, []))
    monkeypatch.setattr(limits, "visible_gpus", list)
    assert MachineUse().now() == Use(4.0, 16.0)
    files["/sys/fs/cgroup/memory.max"] = [str(2**33)]
    files["/sys/fs/cgroup/memory.current"] = [str(3 * 2**30)]
    files["/sys/fs/cgroup/memory.stat"] = ["anon 5", f"inactive_file {2**30}"]
    assert MachineUse().now() == Use(2.0, 8.0)


def test_the_load_of_gpus_is_shown_if_the_driver_reports_it() -> None:
    assert machine_text(Use(5.2, 16.0, (0.97, 0.0))) == "this machine: memory 5.2 of 16.0 GiB, GPU 97 %, 0 % busy"
    assert machine_text(Use()) == ""


def test_a_cell_is_redrawn_at_once_on_a_change_of_state_and_otherwise_regularly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pages: list[str] = []
    handle = SimpleNamespace(update=pages.append)

    def display(page: str, display_id: bool) -> Any:
        pages.append(page)
        return handle

    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=SimpleNamespace(HTML=str, display=display)))
    cell = notebook.CellProgress(clock=lambda: 0.0)
    cell(RunProgress("p", state="starting", waiting_for="Ray is starting"))
    cell(progress(step=1, steps=2, step_name="first"))
    cell(progress(step=1, steps=2, step_name="first", finished_sources=4))
    cell(progress(step=2, steps=2, step_name="second"))
    cell(progress(state="done", step=2, steps=2, step_name="second"))
    assert len(pages) == 4
    assert "Ray is starting" in pages[0]
    assert (
        "<td style='text-align:left'>Words</td><td>1,000</td><td>800</td><td>200</td><td>0</td><td>190</td>" in pages[1]
    )
    assert "step 2 of 2: second</b> done" in pages[3]
