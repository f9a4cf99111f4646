"""Run Curator pipelines on Ray Data and Cosmos-Xenna. The engines are imported when a run starts, not when this package
is imported.
"""

from __future__ import annotations

from curator_core.lazy import lazy_names

_HOME = {
    "RayDataExecutor": "ray_data.executor",
    "RayDataOptions": "ray_data.executor",
    "RayDataStageAdapter": "ray_data.adapter",
    "XennaExecutor": "xenna.executor",
    "XennaOptions": "xenna.executor",
    "create_actor_from_stage": "ray_data.adapter",
    "create_task_from_stage": "ray_data.adapter",
}

__all__ = sorted(_HOME)  # noqa: PLE0605

__version__ = "0.1.0"

__getattr__, __dir__ = lazy_names(__name__, _HOME)
