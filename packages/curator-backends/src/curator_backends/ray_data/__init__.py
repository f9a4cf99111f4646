"""Ray Data: `RayDataExecutor` runs a pipeline's groups as the operators of one streaming dataset."""

from __future__ import annotations

from curator_backends.ray_data.adapter import RayDataStageAdapter, create_actor_from_stage, create_task_from_stage
from curator_backends.ray_data.executor import RayDataExecutor, RayDataOptions

__all__ = [
    "RayDataExecutor",
    "RayDataOptions",
    "RayDataStageAdapter",
    "create_actor_from_stage",
    "create_task_from_stage",
]
