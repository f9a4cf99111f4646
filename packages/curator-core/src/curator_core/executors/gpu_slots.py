"""Which worker gets which GPUs on one machine? Each card gets as many workers as it has room for."""

from __future__ import annotations

import math
from collections.abc import Sequence

from curator_core.errors import PlanError


def gpu_slots(names: Sequence[str], memories: Sequence[float], *, memory_gb: float, gpus: float) -> list[str]:
    """The GPUs of each worker, as a value for CUDA_VISIBLE_DEVICES.

    A worker needs ``gpus`` cards (a part of one, one, or several), or ``memory_gb`` of one. ``memories`` are those of
    the cards, in the order of ``names``. If they are unknown, it is empty and each card is given to one worker. Every
    card gets a worker before any gets a second one.
    """
    if gpus >= 1:
        each = math.ceil(gpus)
        return [",".join(names[start : start + each]) for start in range(0, len(names) - each + 1, each)]
    if gpus:
        room = [int(1 / gpus)] * len(names)
    elif len(memories) == len(names):
        room = [int(memory // memory_gb) for memory in memories]
    else:
        room = [1] * len(names)
    if names and not any(room):
        raise PlanError(
            f"the stages of one worker ask for {memory_gb:g} GB of one GPU together, but the largest GPU of this machine has "
            f"{max(memories):g} GB: lower their gpu_memory_gb, or run them in separate pipelines"
        )
    return [name for turn in range(max(room, default=0)) for name, most in zip(names, room, strict=True) if turn < most]
