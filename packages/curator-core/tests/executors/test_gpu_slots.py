"""Workers on the cards of one machine, which may differ."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_core import DocumentBatch, Machine, PlanError, Resources
from curator_core.executors.gpu_slots import gpu_slots
from curator_core.model import machine
from curator_core.planning.make import make_plan
from curator_core.testing.stages import Same


def test_each_card_gets_as_many_workers_as_fit_on_it() -> None:
    assert gpu_slots(["0", "1"], [80.0, 24.0], memory_gb=20, gpus=0) == ["0", "1", "0", "0", "0"]
    assert gpu_slots(["0", "1"], [80.0, 16.0], memory_gb=20, gpus=0) == ["0"] * 4


def test_gpus_of_unknown_memory_get_one_worker_each() -> None:
    assert gpu_slots(["0", "1"], [], memory_gb=20, gpus=0) == ["0", "1"]


def test_workers_can_use_parts_of_a_card_or_whole_cards() -> None:
    assert gpu_slots(["0", "1"], [80.0, 24.0], memory_gb=0, gpus=0.5) == ["0", "1", "0", "1"]
    assert gpu_slots(["0", "1", "2"], [], memory_gb=0, gpus=2) == ["0,1"]


def test_a_need_that_fits_on_no_card_is_refused_with_the_card_in_question() -> None:
    with pytest.raises(
        PlanError, match="ask for 30 GB of one GPU together, but the largest GPU of this machine has 24 GB"
    ):
        gpu_slots(["0", "1"], [24.0, 16.0], memory_gb=30, gpus=0)


@given(memories=st.lists(st.floats(1, 200), min_size=1, max_size=8), need=st.floats(0.5, 100))
def test_no_card_gets_more_than_it_has(memories: list[float], need: float) -> None:
    names = [str(number) for number in range(len(memories))]
    if max(memories) < need:
        return
    slots = gpu_slots(names, memories, memory_gb=need, gpus=0)
    used = Counter(slots)
    assert all(used[name] * need <= memory for name, memory in zip(names, memories, strict=True))
    assert all((used[name] + 1) * need > memory for name, memory in zip(names, memories, strict=True))
    fitting = [name for name, memory in zip(names, memories, strict=True) if memory >= need]
    assert slots[: len(fitting)] == fitting, "every card gets a worker before any gets a second"


def test_numbers_of_cards_have_the_same_meaning_as_in_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert machine._as_cuda_counts(["0", "1"], [16.0, 80.0]) == (16.0, 16.0), "which is which is not known"
    assert machine.device_order() == {}, "what the user has named stays what it is"
    assert machine._as_cuda_counts(["GPU-a", "GPU-b"], [16.0, 80.0]) == (16.0, 80.0)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert machine._as_cuda_counts(["0", "1"], [16.0, 80.0]) == (16.0, 80.0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert machine._as_cuda_counts(["0", "1"], [16.0, 80.0]) == (16.0, 80.0)
    assert machine.device_order() == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@pytest.mark.parametrize(
    ("memory", "memories", "card"),
    [
        (80.0, (80.0, 24.0), "the largest GPU of the box has 80 GB"),
        (24.0, (80.0, 24.0), "the smallest GPU of the box has 24 GB"),
        (80.0, (80.0, 80.0), "a GPU of the box has 80 GB"),
        (80.0, (), "a GPU of the box has 80 GB"),
    ],
)
def test_the_plan_names_the_card_that_it_is_made_for(memory: float, memories: tuple[float, ...], card: str) -> None:
    box = Machine(cpus=4, gpus=2, gpu_memory_gb=memory, name="the box", gpu_memories=memories)
    with pytest.raises(PlanError, match=f"stage 'Same': a worker asks for 90 GB of one GPU, but {card}"):
        make_plan([Same().with_(resources=Resources(gpu_memory_gb=90))], box, first_task=DocumentBatch)
