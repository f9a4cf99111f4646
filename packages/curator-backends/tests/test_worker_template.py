"""Workers of a local Ray are forked from a process that has imported Ray, and are as if the raylet had started them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from curator_backends import worker_stub, worker_template
from curator_backends.worker_stub import SCRIPT, SOCKET
from curator_core import DocumentBatch, Pipeline, ProcessingStage, WorkerMetadata
from curator_core.testing.conformance import batches
from curator_core.testing.stages import leave_trace, traces
from curator_core.testing.waiting import wait_for

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only"),
    pytest.mark.slow,
]

# Stands in for the script of Ray that a worker runs.
WORKER = """
import json, os, random, signal, sys, time
about = {"arguments": sys.argv, "pid": os.getpid(), "parent": os.getppid(), "folder": os.getcwd(), "path": sys.path[0]}
about |= {"variables": dict(os.environ), "group": os.getpgrp(), "name": __name__}
about["blocked"] = sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))
print(json.dumps(about), flush=True)
if "--wait" in sys.argv:
    time.sleep(600)
"""

type Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts the stub as a raylet does; its workers run `WORKER`."""
    script = tmp_path / "_private" / "workers" / "default_worker.py"
    script.parent.mkdir(parents=True)
    script.write_text(WORKER)
    names: list[str] = []
    started: list[subprocess.Popen[str]] = []

    @contextlib.contextmanager
    def forking(script: str, name: str) -> Iterator[None]:
        names.append(name)
        yield

    monkeypatch.setattr(worker_template, "_forking", forking)

    def stub(*arguments: str, **how: Any) -> subprocess.Popen[str]:
        environment = os.environ | {SOCKET: names[0], SCRIPT: str(script)} | how.pop("env", {})
        command = [sys.executable, "-S", worker_stub.__file__, *arguments]
        started.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, process_group=0, **how)
        )
        return started[-1]

    with worker_template.worker_template(SimpleNamespace(__file__=str(tmp_path / "__init__.py")), wanted=True) as block:
        with block:
            yield stub
        for process in started:
            process.kill()
            process.communicate()


def said(stub: subprocess.Popen[str]) -> dict[str, Any]:
    assert stub.stdout is not None
    found: dict[str, Any] = json.loads(stub.stdout.readline())
    return found


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_forked_worker_is_as_if_the_raylet_had_started_it(start: Start, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    first = start("--runtime-env-hash=0", "--more=1", cwd=place, env={"OF_THE_FIRST": "1"})
    about = said(first)
    assert first.wait(60) == 0
    assert about["arguments"][1:] == ["--runtime-env-hash=0", "--more=1"]
    assert Path(about["arguments"][0]).parent == Path(about["path"]) == tmp_path / "_private" / "workers"
    assert (about["name"], about["folder"], about["group"]) == ("__main__", str(place), first.pid)
    assert about["pid"] != first.pid
    assert about["variables"]["OF_THE_FIRST"] == "1"
    assert "OPENBLAS_NUM_THREADS" not in about["variables"].keys() - os.environ.keys()
    second = said(start("--runtime-env-hash=0", env={"OF_THE_SECOND": "2"}))
    assert second["parent"] == about["parent"]
    assert "OF_THE_FIRST" not in second["variables"]
    assert second["variables"]["OF_THE_SECOND"] == "2"


def test_a_worker_with_an_environment_of_its_own_is_not_forked(start: Start) -> None:
    stub = start("--runtime-env-hash=17")
    about = said(stub)
    assert about["pid"] == stub.pid
    assert about["arguments"][1:] == ["--runtime-env-hash=17"]


def test_a_worker_ends_with_the_process_that_the_raylet_has_started(start: Start) -> None:
    stub = start("--runtime-env-hash=0", "--wait")
    worker = said(stub)["pid"]
    assert running(worker)
    stub.kill()
    wait_for(lambda: not running(worker), "the worker is left")
    stub = start("--runtime-env-hash=0", "--wait")
    os.kill(said(stub)["pid"], signal.SIGKILL)
    assert stub.wait(60) == 0


def test_without_a_template_the_stub_becomes_the_worker(start: Start) -> None:
    parent = said(start("--runtime-env-hash=0"))["parent"]
    os.kill(parent, signal.SIGKILL)
    wait_for(lambda: not running(parent), "the template is left")
    stub = start("--runtime-env-hash=0")
    assert said(stub)["pid"] == stub.pid


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_another_user_cannot_have_a_worker_forked(start: Start) -> None:
    name = said(start("--runtime-env-hash=0"))["variables"][SOCKET]
    script = f"""
import os, socket
os.setuid(65534)
template = socket.socket(socket.AF_UNIX)
template.connect("\\0{name}")
print(template.recv(1))
"""
    done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "b''", "the connection is closed without an answer"
    assert said(start("--runtime-env-hash=0"))["variables"][SOCKET] == name, "others are still served"


def test_a_request_that_breaks_off_is_passed_over(start: Start) -> None:
    name = said(start("--runtime-env-hash=0"))["variables"][SOCKET]
    for text in (b"", b"\0\0\0\0\0\0\0\5", b"\0\0\0\0\0\0\0\5{}"):
        with socket.socket(socket.AF_UNIX) as broken:
            broken.connect("\0" + name)
            broken.sendall(text)
    stub = start("--runtime-env-hash=0")
    assert said(stub)["pid"] != stub.pid


@dataclass
class Describe(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Leaves a description of each worker in ``folder``."""

    folder: str

    def setup(self, worker: WorkerMetadata) -> None:
        import numpy as np

        about = {
            "random": np.random.random(),  # from the state that all users of numpy share
            "command": Path(f"/proc/{os.getppid()}/cmdline").read_text().split("\0"),
            "pid": os.getpid(),
        }
        leave_trace(self.folder, "about", json.dumps(about))

    def process(self, task: DocumentBatch) -> DocumentBatch:
        return task


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_workers_of_a_ray_that_we_start_are_forked_and_draw_numbers_of_their_own(tmp_path: Path) -> None:
    from curator_backends import RayDataExecutor

    Pipeline([Describe(str(tmp_path)).with_(num_workers=2)]).run(RayDataExecutor(), initial_tasks=batches(8))
    found = [json.loads(text) for text in traces(tmp_path, "about")]
    assert all("curator_backends.worker_template" in about["command"] for about in found)
    assert len({about["random"] for about in found}) == len(found) == 2
