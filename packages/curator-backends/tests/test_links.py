"""The coordinator in the driver, which workers of a local Ray ask through a socket."""

from __future__ import annotations

import os
import pickle
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from curator_backends import coordinator
from curator_backends.coordinator import Begun, Suspect
from curator_backends.links import ActorLink, DriverLink, WorkerLink
from curator_core.errors import CuratorError
from curator_core.testing.waiting import wait_for


def test_a_worker_reaches_the_coordinator_in_the_driver(tmp_path: Path) -> None:
    link = DriverLink(tmp_path / "run")
    try:
        worker = pickle.loads(pickle.dumps(link))
        assert isinstance(worker, WorkerLink)
        worker.call("up", "0:one", True)
        assert worker.call("begin", "0:one", "0:a:1") == Begun(again=False, died=False)
        worker.tell("beat", "0:one")
        assert isinstance(worker.call("begin_suspect", "0:a"), Suspect)
        status = link.status_now(0)
        assert status is not None
        assert (status.up, status.busy) == (1, 1)
        assert pickle.loads(pickle.dumps(worker)).call("begin", "0:two", "0:a:1") == Begun(again=True, died=True)
    finally:
        link.close()


def test_only_this_user_reaches_the_coordinator(tmp_path: Path) -> None:
    link = DriverLink(tmp_path / "run")
    link.close()
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
    with pytest.raises(FileExistsError):  # a folder that another user created is not used
        DriverLink(tmp_path / "run")


ASKING_WORKER = """
import pickle, sys
link = pickle.loads(bytes.fromhex(sys.argv[1]))
link.call("up", "0:one", True)
while True:
    link.call("begin", "0:one", "0:a:1")
"""


def test_the_coordinator_still_serves_others_after_a_worker_was_killed_during_a_call(
    tmp_path: Path,
) -> None:
    link = DriverLink(tmp_path / "run")
    try:
        worker = subprocess.Popen([sys.executable, "-c", ASKING_WORKER, pickle.dumps(link).hex()])
        wait_for(lambda: link.call("status", 0).progress > 50, "the worker to ask")
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        assert pickle.loads(pickle.dumps(link)).call("begin", "0:two", "0:a:1").died
    finally:
        link.close()


def test_a_worker_does_not_wait_for_a_driver_that_is_gone(tmp_path: Path) -> None:
    link = DriverLink(tmp_path / "run")
    worker = WorkerLink(str(tmp_path / "run" / "coordinator"))
    worker.call("up", "0:one", True)
    link.close()
    with pytest.raises((EOFError, OSError)):
        worker.call("begin", "0:one", "0:a:1")


def test_a_folder_whose_name_is_too_long_for_a_socket_is_detected_in_advance(tmp_path: Path) -> None:
    assert DriverLink.fits(tmp_path / "run") is (len(os.fsencode(tmp_path)) + len("/run/coordinator") <= 107)
    assert not DriverLink.fits(Path("/" + "x" * 100))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_the_coordinators_of_a_driver_share_a_process_and_nothing_else() -> None:
    ray = pytest.importorskip("ray")
    first, second = ActorLink.start(ray, "first"), ActorLink.start(ray, "second")
    assert first._actor is second._actor
    assert first.call("begin", "0:one", "0:a:1") == Begun(again=False, died=False)
    assert second.call("begin", "0:two", "0:a:1") == Begun(again=False, died=False)
    first.close()
    with pytest.raises(CuratorError, match="has outlived its run"):
        first.call("begin", "0:one", "0:b:1")
    assert second.call("status", 0).busy == 1
    # Something ends the process between two runs, such as Ray when memory runs out.
    ray.kill(second._actor)
    with pytest.raises(ray.exceptions.RayError):  # the process does not end at once
        wait_for(lambda: ray.get(second._actor.end.remote("another"), timeout=60) is not None, "the end of the actor")
    third = ActorLink.start(ray, "third")
    assert third._actor is not second._actor
    assert third.call("status", 0).busy == 0
    third.close()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_worker_may_ask_a_new_coordinator_before_any_call_of_the_driver_arrives() -> None:
    ray = pytest.importorskip("ray")
    asks = ray.remote(lambda link: link.call("workers_up"))
    link = ActorLink.start(ray, "first")
    assert ray.get(asks.remote(link)) == []  # a process for the worker is running from here on
    for number in range(3):
        coordinator._actor_of.clear()  # as in a new driver
        link = ActorLink.start(ray, f"new-{number}")
        assert ray.get(asks.remote(link)) == []
    link.close()
