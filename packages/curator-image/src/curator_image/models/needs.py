"""Derives a stage's resources from its own parameters, so that a pipeline file can request a GPU."""

from __future__ import annotations

from typing import Any

from curator_core.model.resources import Resources


class ParameterResources:
    """``resources`` of a stage from its ``cpus`` and ``gpu_memory_gb``; `with_(resources=…)` takes precedence.

    This descriptor has no ``__set__``, so Python first finds the override that `with_` puts into the instance.
    """

    def __get__(self, stage: Any, owner: type | None = None) -> Resources:
        if stage is None:
            return Resources()
        return Resources(cpus=stage.cpus, gpu_memory_gb=stage.gpu_memory_gb)


# A call on a GPU gets several tasks, so that the next one is ready while one is computed.
TASKS_A_CALL = 4


class SeveralOnGpu:
    """``batch_size`` of a stage: several tasks if it uses a GPU, otherwise one; `with_` overrides it."""

    def __get__(self, stage: Any, owner: type | None = None) -> int:
        return TASKS_A_CALL if stage is not None and stage.resources.requires_gpu else 1
