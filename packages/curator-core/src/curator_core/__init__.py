"""Curator's core: tasks, stages, pipelines and the local executor, with no engine and no modality.

Names load on first use, so that `import curator_core` and the command line stay quick.
"""

from __future__ import annotations

from curator_core.lazy import lazy_names

_HOME = {
    "ANY_COLUMNS": "stages",
    "AccountingError": "errors",
    "Accounts": "accounts",
    "AddId": "ids",
    "BaseExecutor": "executor",
    "BaseStageAdapter": "adapter",
    "ColumnFilter": "column_filter",
    "CompositeStage": "stages",
    "CuratorError": "errors",
    "DocumentBatch": "task",
    "DropColumns": "columns",
    "EmptyTask": "task",
    "FanOut": "stages",
    "FileGroupTask": "task",
    "FilePartitioning": "files",
    "FileRecord": "task",
    "GroupRunner": "adapter",
    "Limit": "sampling",
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
    "RenameColumns": "columns",
    "Resources": "resources",
    "RunContext": "adapter",
    "RunRefused": "errors",
    "RunResult": "run",
    "RunSummary": "run",
    "Sample": "sampling",
    "SelectColumns": "columns",
    "SourceStage": "stages",
    "StageError": "errors",
    "StagePerfStats": "task",
    "Task": "task",
    "TooManyErrors": "errors",
    "UsageError": "errors",
    "Where": "columns",
    "WorkerDied": "errors",
    "WorkerMetadata": "stages",
    "Workflow": "workflow",
    "XennaStageSpecKeys": "stages",
    "build_stage": "registry",
    "stage": "stages",
}

__all__ = sorted(_HOME)  # noqa: PLE0605 - the table above is the one place that lists names

__version__ = "0.1.0"

__getattr__, __dir__ = lazy_names(__name__, _HOME)
