"""The coordinator's records about workers, without a cluster: it is a plain object until Ray makes it an actor."""

from __future__ import annotations

from curator_backends.coordinator import Begun, Coordinator, Suspect
from curator_backends.worker import judge
from curator_core.errors import TaskTimeout, WorkerDied
from curator_core.worker.sending import packed_error


def test_a_run_does_not_wait_for_a_worker_that_died_at_work() -> None:
    coordinator = Coordinator()
    for worker in ("0:first", "0:second"):
        coordinator.starting(worker, "node")
        coordinator.up(worker, True)
    assert coordinator.begin("0:first", "0:task:1") == Begun(again=False, died=False)
    assert coordinator.begin("0:second", "0:task:1") == Begun(again=True, died=True), "the first has died of it"
    status = coordinator.status(0)
    assert (status.up, status.busy) == (1, 1)
    coordinator.finish("0:second", "0:task:1")
    coordinator.down("0:second")
    assert coordinator.status(0).up == 0


def test_a_worker_that_begins_another_call_is_still_there() -> None:
    coordinator = Coordinator()
    coordinator.up("0:only", True)
    coordinator.begin("0:only", "0:task:1")
    assert coordinator.begin("0:only", "0:task:1") == Begun(again=True, died=True)
    assert coordinator.status(0).up == 1


def suspected(coordinator: Coordinator, *calls: tuple[str, list[str]] | None) -> Suspect:
    """The deaths attributed to task ``a`` of group 0 after a worker has died in each of these calls; None means outside
    any call."""
    for call in calls:
        coordinator.begin_suspect("0:a")
        if call is not None:
            coordinator.calling("0:a", *call)
    return coordinator.begin_suspect("0:a")


def test_the_call_that_kills_its_workers_is_set_aside_and_not_the_calls_before_it() -> None:
    suspect = suspected(Coordinator(), ("Map", ["a.00001"]), ("Map", ["a.00001"]))
    care, guilty = judge(suspect, died=True, alone=True, most=3)
    assert guilty == 0
    assert {call: str(error) for call, error in care.aside.items()} == {
        ("Map", "a.00001"): str(WorkerDied.of_task("a.00001", 3, "Map"))
    }
    assert not judge(suspect, died=True, alone=True, most=4)[0].aside


def test_a_call_with_several_tasks_is_divided_before_any_task_is_blamed() -> None:
    coordinator = Coordinator()
    suspect = suspected(coordinator, ("Map", ["a.00000", "a.00001"]))
    care, guilty = judge(suspect, died=True, alone=True, most=3)
    assert (care.alone, dict(care.aside), guilty) == ({"Map"}, {}, 0)


def test_a_death_outside_any_call_is_attributed_to_the_task() -> None:
    assert judge(suspected(Coordinator(), None, None), died=True, alone=True, most=3)[1] == 3
    assert judge(suspected(Coordinator(), None), died=True, alone=False, most=3)[1] == 0


def test_a_late_task_is_set_aside_at_once_and_does_not_count_as_a_death() -> None:
    coordinator = Coordinator()
    coordinator.begin("0:first", "0:a:1")
    coordinator.late("0:first", "Slow", ["a"], packed_error(TaskTimeout("Slow", "a", 1.5)))
    begun = coordinator.begin("0:second", "0:a:1")
    assert begun == Begun(again=True, died=False)
    care, guilty = judge(coordinator.begin_suspect("0:a"), begun.died, alone=True, most=1)
    assert guilty == 0
    assert str(care.aside["Slow", "a"]) == str(TaskTimeout("Slow", "a", 1.5))


def test_tasks_that_were_late_together_get_a_call_each() -> None:
    coordinator = Coordinator()
    coordinator.begin("0:first", "0:a:2")
    coordinator.late("0:first", "Slow", ["a", "b"], packed_error(TaskTimeout("Slow", "a and 1 more", 1.5)))
    begun = coordinator.begin("0:second", "0:a:2")
    care, _ = judge(coordinator.begin_suspect("0:a"), begun.died, alone=False, most=3)
    assert (care.alone, dict(care.aside)) == ({"Slow"}, {})
