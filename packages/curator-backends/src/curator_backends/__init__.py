"""Run Curator pipelines on Ray Data and Cosmos-Xenna. The engines load when a run starts, not with this package."""

from __future__ import annotations

import importlib
from typing import Any

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


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
