"""Resources that a stage's own parameters decide, so that a pipeline file can ask for a GPU."""

from __future__ import annotations

from typing import Any

from curator_core.model.resources import Resources


class ParameterResources:
    """``resources`` of a stage from its ``cpus`` and ``gpu_memory_gb``; `with_(resources=…)` still wins.

    A descriptor without ``__set__``, so that the override that `with_` puts into the instance is found first.
    """

    def __get__(self, stage: Any, owner: type | None = None) -> Resources:
        if stage is None:
            return Resources()
        return Resources(cpus=stage.cpus, gpu_memory_gb=stage.gpu_memory_gb)


# A GPU is handed several tasks a call, so that it has the next while one is computed.
TASKS_A_CALL = 4


class SeveralOnGpu:
    """``batch_size`` of a stage: several tasks where it uses a GPU; what `with_` says wins."""

    def __get__(self, stage: Any, owner: type | None = None) -> int:
        return TASKS_A_CALL if stage is not None and stage.resources.requires_gpu else 1
