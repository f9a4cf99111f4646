"""What the coordinator knows of workers, without a cluster: it is a plain object until Ray makes an actor of it."""

from __future__ import annotations

from curator_backends.coordinator import Coordinator


def test_a_worker_that_died_at_its_work_is_not_waited_for() -> None:
    coordinator = Coordinator()
    for worker in ("first", "second"):
        coordinator.starting(worker, "node")
        coordinator.up(worker, True)
    assert coordinator.begin("first", "0:task:1") == 0
    assert coordinator.begin("second", "0:task:1") == 1, "the first has died of it"
    status = coordinator.status(0)
    assert (status.up, status.busy) == (1, 1)
    coordinator.finish("second", "0:task:1")
    coordinator.down("second")
    assert coordinator.status(0).up == 0


def test_a_worker_that_begins_again_is_still_there() -> None:
    coordinator = Coordinator()
    coordinator.up("only", True)
    coordinator.begin("only", "0:task:1")
    assert coordinator.begin("only", "0:task:1") == 1
    assert coordinator.status(0).up == 1
