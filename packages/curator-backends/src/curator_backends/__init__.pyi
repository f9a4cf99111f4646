# Made from _HOME in __init__.py; not for editing: `make generate` renews it.

from curator_backends.ray_data.adapter import RayDataStageAdapter as RayDataStageAdapter
from curator_backends.ray_data.adapter import create_actor_from_stage as create_actor_from_stage
from curator_backends.ray_data.adapter import create_task_from_stage as create_task_from_stage
from curator_backends.ray_data.executor import RayDataExecutor as RayDataExecutor
from curator_backends.ray_data.executor import RayDataOptions as RayDataOptions
from curator_backends.xenna.executor import XennaExecutor as XennaExecutor
from curator_backends.xenna.executor import XennaOptions as XennaOptions

__all__ = [
    "RayDataExecutor",
    "RayDataOptions",
    "RayDataStageAdapter",
    "XennaExecutor",
    "XennaOptions",
    "create_actor_from_stage",
    "create_task_from_stage",
]

__version__: str
