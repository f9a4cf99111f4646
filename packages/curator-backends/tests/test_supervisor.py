"""A run that makes no progress: stalled, or queued behind other jobs."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from curator_backends import supervisor as module
from curator_backends.coordinator import Status
from curator_backends.links import DriverLink
from curator_backends.options import RayOptions
from curator_backends.supervisor import RATED_AFTER, Need, Standstill, Supervisor
from curator_backends.worker import Facts

NEEDS = [Need("Read", 1.0, 0.0), Need("Embed", 1.0, 0.5)]


@pytest.mark.parametrize(
    ("cpus", "gpus", "others_cpus", "others_gpus", "queued"),
    [
        (0.0, 1.0, 2.0, 0.0, True),  # no CPU is free, and other jobs hold some
        (0.0, 1.0, 0.0, 0.0, False),  # no CPU is free, and no other job holds any
        (4.0, 1.0, 2.0, 1.0, False),  # there is enough for every worker
        (4.0, 0.0, 0.0, 1.0, True),  # no GPU is free, and another job holds one
        (4.0, 0.0, 3.0, 0.0, False),  # other jobs hold CPUs, but CPUs are not missing
    ],
)
def test_a_run_is_queued_if_other_jobs_hold_the_resources_that_a_worker_needs(
    cpus: float, gpus: float, others_cpus: float, others_gpus: float, queued: bool
) -> None:
    assert Standstill(NEEDS, "the cluster", cpus, gpus, others_cpus, others_gpus).queued is queued


def test_the_message_names_needed_free_and_held_resources() -> None:
    text = str(Standstill(NEEDS, "the cluster", 0.0, 0.25, 3.0, 0.0))
    assert text == (
        "a worker needs: Read 1 CPU, Embed 1 CPU 0.5 GPU; the cluster has 0 CPUs and 0.25 GPUs free. Other jobs hold 3 CPUs"
    )
    assert str(Standstill(NEEDS, "the cluster", 0.0, 0.0, 0.0, 0.0)).endswith("A node may be gone")


def test_a_group_is_done_when_its_workers_have_torn_down() -> None:
    nothing: Any = None
    supervisor = Supervisor(nothing, nothing, nothing, RayOptions(), "run")
    seen = []
    for pools in ({}, {0: 1}, {0: 1, 1: 2}, {1: 2}, {}):
        supervisor._take(Status(pools=pools))
        seen.append(supervisor.emptied)
    assert seen == [0, 0, 0, 1, 2]


def test_groups_are_rated_when_all_have_done_enough_work_and_again_later() -> None:
    nothing: Any = None
    run: Any = SimpleNamespace(groups=["read", "embed"])
    supervisor = Supervisor(nothing, nothing, run, RayOptions(), "run")
    first, second = RATED_AFTER
    seen = []
    for group, pieces in [(0, second), (1, first - 1), (1, 1), (1, second - first)]:
        facts = [Facts(0, [], [], group)] * pieces
        supervisor._take(Status(first=supervisor._received, facts=facts))
        seen.append(supervisor.rated)
    assert seen == [0, 0, 1, 2]


def test_a_worker_that_does_not_report_its_teardown_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TEARDOWN_SECONDS", 0.05)
    monkeypatch.setattr(Supervisor, "_clean_nodes", lambda _: None)  # it asks Ray
    run: Any = SimpleNamespace(
        groups=[SimpleNamespace(name="Read"), SimpleNamespace(name="Embed")], staffed=lambda _: None
    )
    ray: Any = SimpleNamespace(exceptions=SimpleNamespace(RayError=RuntimeError))
    link = DriverLink(tmp_path / "run")
    try:
        for worker in ("0:one", "1:two", "1:three"):
            link.call("up", worker, True)
        supervisor = Supervisor(ray, link, run, RayOptions(), "run")
        with caplog.at_level(logging.WARNING):
            supervisor.conclude(False, lambda: link.call("down", "1:two"))
        (message,) = caplog.messages
        assert "Read (worker one), Embed (worker three)" in message
        link.call("down", "0:one")
        supervisor.conclude(False, lambda: link.call("down", "1:three"))
        assert caplog.messages == [message]
    finally:
        link.close()
