"""A LocalExecutor that works as with a GPU on a machine without one: the owner of the GPU runs its stages on the CPU."""

from __future__ import annotations

from dataclasses import replace

from curator_core.executors.base import SegmentRun
from curator_core.executors.local import LocalExecutor
from curator_core.model.machine import Machine


class OneCardExecutor(LocalExecutor):
    """The machine seems to have one GPU, but stages that require it find none and compute on the CPU."""

    def machine(self) -> Machine:
        return replace(super().machine(), gpus=1.0, gpu_memory_gb=80.0, gpu_memories=(80.0,))


class AllOnTheCardExecutor(OneCardExecutor):
    """Every stage except a merge runs in the process that owns the GPU, whatever the stage requires."""

    def _owned_groups(self, run: SegmentRun) -> list[int]:
        first = 1 if run.segment.merge is not None else 0
        return list(range(first, len(run.groups)))

    def _gpu_slots(self, run: SegmentRun) -> list[str] | None:
        return ["0"] if self._owned_groups(run) else None
