"""Workers are forked from a process that has imported what they need, and are as if the driver had started them."""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from curator_core import DocumentBatch, LocalExecutor, Pipeline, ProcessingStage
from curator_core.executors import local_pool, local_template
from curator_core.executors.blas_threads import _MODULES, _NAMES, _SETTINGS
from curator_core.executors.local_template import MODULES, Template, kept_from_start, template
from curator_core.testing import stages as s
from curator_core.testing.conformance import batches
from curator_core.testing.processes import is_running
from curator_core.testing.stages import leave_trace, traces
from curator_core.testing.waiting import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")


@dataclass
class Describe(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Leaves a description of the worker's process in ``folder``."""

    folder: str
    says: str = ""

    def setup(self, worker: Any) -> None:
        self._modules = sorted(sys.modules)

    def process(self, task: DocumentBatch) -> DocumentBatch:
        if self.says:
            os.write(1, f"{self.says} to stdout\n".encode())
            print(f"{self.says} to stderr", file=sys.stderr, flush=True)
        about = {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "variables": dict(os.environ),
            "folder": str(Path.cwd()),
            "modules": self._modules,
            "threads": blas_threads(),
            "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        }
        leave_trace(self.folder, "about", json.dumps(about))
        return task


def blas_threads() -> int:
    """The number of threads that numpy uses for products of matrices; 0 if it has another library than OpenBLAS."""
    path = next(sys.modules[name].__file__ for name in _MODULES if name in sys.modules)
    library = ctypes.CDLL(path)
    names = [name.replace("_set_", "_get_") for name in _NAMES]
    return next((int(getattr(library, name)()) for name in names if hasattr(library, name)), 0)


def described(folder: Path, stage: Describe | None = None) -> dict[str, Any]:
    """Run one worker and return what it is."""
    folder.mkdir()
    describe = stage or Describe(str(folder))
    describe.folder = str(folder)
    Pipeline([describe]).run(LocalExecutor(workers=1), initial_tasks=batches(1))
    (text,) = traces(folder, "about")
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.slow
def test_runs_of_one_thread_fork_their_workers_from_one_process(tmp_path: Path) -> None:
    first, second = (described(tmp_path / name) for name in ("first", "second"))
    assert first["pid"] != second["pid"]
    assert first["parent"] == second["parent"] not in (os.getpid(), 1)
    assert is_running(first["parent"])
    wait_for(lambda: not _children(first["parent"]), "an ended worker is left as a zombie")
    kept = template()
    assert kept is not None
    assert not kept._workers, "the driver keeps records of workers that have ended"


@pytest.mark.slow
def test_a_worker_is_as_if_the_driver_had_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = described(tmp_path / "before")
    monkeypatch.setenv("SOMETHING", "else")
    monkeypatch.delenv("HOME", raising=False)
    place = tmp_path / "working folder"
    place.mkdir()
    monkeypatch.chdir(place)
    after = described(tmp_path / "after", Describe("", says="heard"))
    assert before["parent"] == after["parent"], "these need no other process to fork from"
    assert after["folder"] == str(place)
    for found, expected in ((before, {"SOMETHING": None}), (after, {"SOMETHING": "else", "HOME": None})):
        assert {name: found["variables"].get(name) for name in expected} == expected
    assert after["variables"] == dict(os.environ)
    out, err = capfd.readouterr()
    assert "heard to stdout" in out
    assert "heard to stderr" in err


@pytest.mark.slow
def test_what_a_process_keeps_from_its_start_is_that_of_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = described(tmp_path / "before")
    monkeypatch.setenv("PYTHONOPTIMIZE", "")
    other = described(tmp_path / "variable")
    assert other["parent"] != before["parent"]
    wait_for(lambda: not is_running(before["parent"]), "the process is kept although it no longer fits")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        limited = described(tmp_path / "limit")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (before["files"], limited["files"]) == (soft, soft - 1)


IMPORTED = """
import importlib, json, sys
from curator_core.executors.local_template import MODULES
for module in MODULES:
    importlib.import_module(module)
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.slow
def test_the_template_imports_what_workers_need_and_nothing_that_forks_must_not_share(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stdout))
    # Forks would share the state of numpy's random numbers. pandas takes long to load.
    assert not modules & {"numpy.random", "pandas", "torch", "ray", "curator_text", "curator_image"}
    assert modules.issuperset(MODULES)
    assert set(described(tmp_path / "run")["modules"]).issuperset(MODULES)


@dataclass
class Draw(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Draws random numbers in each worker, from all that a worker has imported, and from what it imports now."""

    folder: str

    def setup(self, worker: Any) -> None:
        drawn = {
            "python": random.random(),
            "numpy": np.random.random(),
            "generator": np.random.default_rng().random(),
            "pyarrow": pc.random(1)[0].as_py(),
            "uuid": uuid.uuid4().hex,
            "file": next(tempfile._get_candidate_names()),  # type: ignore[attr-defined]
        }
        leave_trace(self.folder, "drawn", json.dumps(drawn))

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task


@pytest.mark.slow
def test_each_worker_draws_random_numbers_of_its_own(tmp_path: Path) -> None:
    for _ in range(2):
        Pipeline([Draw(str(tmp_path))]).run(LocalExecutor(workers=2), initial_tasks=batches(8))
    found = [json.loads(text) for text in traces(tmp_path, "drawn")]
    for name in found[0]:
        assert len({drawn[name] for drawn in found}) == len(found) == 4, name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"])
def test_the_environment_decides_how_many_threads_numpy_uses(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not blas_threads():
        pytest.skip("numpy multiplies with another library than OpenBLAS")
    for other in _SETTINGS:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "3")
    assert described(tmp_path / "run")["threads"] == 3


@pytest.mark.slow
def test_a_template_that_was_killed_is_replaced(tmp_path: Path) -> None:
    first = described(tmp_path / "first")
    os.kill(first["parent"], signal.SIGKILL)
    second = described(tmp_path / "second")
    assert second["parent"] != first["parent"]


@pytest.mark.slow
def test_a_template_that_is_killed_during_a_run_costs_nothing_but_time(tmp_path: Path) -> None:
    @dataclass
    class KillParent(ProcessingStage[DocumentBatch, DocumentBatch]):
        folder: str

        def process(self, task: DocumentBatch) -> DocumentBatch:
            if task.task_id == "batch-003" and not traces(Path(self.folder), "killed"):
                leave_trace(self.folder, "killed")
                os.kill(os.getppid(), signal.SIGKILL)
                signal.pause()
            return task

    run_dir = str(tmp_path / "run")
    result = Pipeline([KillParent(str(tmp_path))]).run(
        LocalExecutor(workers=2), initial_tasks=batches(8), run_dir=run_dir
    )
    assert [task.task_id for task in result.tasks] == [task.task_id for task in batches(8)]
    assert result.summary.shares == {"done": "8", "dropped": "0", "failed": "0"}
    assert len(traces(tmp_path, "killed")) == 1


@pytest.mark.slow
def test_a_template_ends_with_the_thread_that_started_it(tmp_path: Path) -> None:
    found: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: found.append(described(tmp_path / "thread")))
    thread.start()
    thread.join()
    here = described(tmp_path / "here")
    assert found[0]["parent"] != here["parent"]
    wait_for(lambda: not is_running(found[0]["parent"]), "the process is left after its thread has ended")


@pytest.mark.slow
def test_a_worker_that_is_not_needed_any_more_does_not_wait_for_imports() -> None:
    made = Template(kept_from_start())
    try:
        worker = made.fork([], dict(os.environ))
        worker.terminate()
        assert worker.wait(0.0) == -signal.SIGTERM
        worker.close()
    finally:
        made.end()
    assert not made.alive()
    assert made._popen.returncode == -signal.SIGKILL, "it was ended, and did not first import what it would need"


@pytest.mark.slow
def test_the_exit_code_of_a_template_that_cannot_start_is_that_of_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    made = Template(kept_from_start())
    try:
        worker = made.fork([], dict(os.environ))
        assert worker.wait(60.0) == 1
        assert worker.pid == 0
    finally:
        made.end()


@pytest.mark.slow
def test_without_forks_workers_are_interpreters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on other systems than Linux."""
    monkeypatch.setattr(local_pool, "template", lambda: None)
    found = described(tmp_path / "run")
    assert found["parent"] == os.getpid()
    monkeypatch.setattr(local_template.sys, "platform", "darwin")
    assert template() is None


@pytest.mark.slow
def test_two_workers_without_forks_do_the_same_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(workers: int) -> list[dict[str, Any]]:
        result = Pipeline([s.Same(), s.SplitRows()]).run(LocalExecutor(workers=workers), initial_tasks=batches(4))
        return pa.concat_tables([task.to_pyarrow() for task in result.tasks]).to_pylist()

    forked = rows(2)
    monkeypatch.setattr(local_pool, "template", lambda: None)
    assert rows(2) == forked == rows(0)


def _children(pid: int) -> list[int]:
    """The processes that this one has started, with those that have ended and are still known."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
