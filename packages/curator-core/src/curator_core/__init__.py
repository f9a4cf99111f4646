"""Curator's core: tasks, stages, pipelines and the local executor, with no engine and no modality.

Names load on first use, so that `import curator_core` and the command line stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "ANY_COLUMNS": "stages",
    "AccountingError": "errors",
    "Accounts": "accounts",
    "BaseExecutor": "executor",
    "BaseStageAdapter": "adapter",
    "ColumnFilter": "column_filter",
    "CompositeStage": "stages",
    "CuratorError": "errors",
    "DocumentBatch": "task",
    "EmptyTask": "task",
    "FanOut": "stages",
    "FileGroupTask": "task",
    "FileRecord": "task",
    "GroupRunner": "adapter",
    "LocalExecutor": "local",
    "Machine": "machine",
    "Merge": "stages",
    "MissingDependency": "errors",
    "NodeInfo": "stages",
    "OutputError": "errors",
    "Pipeline": "pipeline",
    "Plan": "plan",
    "PlanError": "errors",
    "ProcessingStage": "stages",
    "RayStageSpecKeys": "stages",
    "Resources": "resources",
    "RunContext": "adapter",
    "RunRefused": "errors",
    "RunResult": "run",
    "RunSummary": "run",
    "SourceStage": "stages",
    "StageError": "errors",
    "StagePerfStats": "task",
    "Task": "task",
    "TooManyErrors": "errors",
    "UsageError": "errors",
    "WorkerDied": "errors",
    "WorkerMetadata": "stages",
    "Workflow": "workflow",
    "XennaStageSpecKeys": "stages",
    "stage": "stages",
}

__all__ = sorted(_HOME)

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
