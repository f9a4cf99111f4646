"""A call that takes too long ends its own worker after it is reported; other workers continue."""

from __future__ import annotations

import signal
import subprocess
import sys

import pyarrow as pa
import pytest

from curator_backends.calls import WorkerCalls
from curator_core import DocumentBatch, TaskTimeout

WORKER = """
import threading

import pyarrow as pa

from curator_backends.calls import WorkerCalls
from curator_core import DocumentBatch

calls = WorkerCalls(lambda *_: None, lambda stage, tasks, error: print(stage, tasks, error, flush=True))
batch = [DocumentBatch(data=pa.table({"id": [1]}), task_id=f"t-{number}") for number in range(3)]
for _ in range(100):  # in time, each with a limit of its own
    calls.begin("Quick", batch[:1], 60.0)
    calls.end()
calls.begin("Slow", batch[BEGIN], 0.2)
threading.Event().wait()
"""


def run_worker(begin: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WORKER.replace("BEGIN", begin)], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.slow
def test_a_late_call_is_reported_and_its_process_ends() -> None:
    done = run_worker("1:2")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout == f"Slow ['t-1'] {TaskTimeout('Slow', 't-1', 0.2)}\n"


@pytest.mark.slow
def test_all_tasks_of_a_late_call_are_reported() -> None:
    done = run_worker(":")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout.startswith("Slow ['t-0', 't-1', 't-2'] stage 'Slow' worked on task 't-0 and 2 more'")


def test_calls_are_reported_only_while_a_suspect_runs() -> None:
    reported: list[tuple[str, str, list[str]]] = []
    calls = WorkerCalls(lambda *call: reported.append(call), lambda *_: None)
    task = DocumentBatch(data=pa.table({"id": [1]}), task_id="t-1")
    calls.begin("Map", [task], None)
    calls.end()
    assert reported == []
    calls.suspect = "0:t"
    calls.begin("Map", [task], None)
    calls.end()
    assert reported == [("0:t", "Map", ["t-1"]), ("0:t", "", [])]
