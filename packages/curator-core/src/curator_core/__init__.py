"""Curator's core: tasks, stages, pipelines and the local executor, with no engine and no modality.

Names load on first use, so that `import curator_core` and the command line stay quick.
"""

from __future__ import annotations

from curator_core.lazy import lazy_names

_HOME = {
    "ANY_COLUMNS": "model.stage",
    "AccountingError": "errors",
    "Accounts": "accounts.accounts",
    "AddId": "stages.ids",
    "ApplyDecisions": "across.apply",
    "BaseExecutor": "executors.base",
    "BaseStageAdapter": "worker.adapter",
    "Cast": "stages.cast",
    "Clusters": "workflows.clusters",
    "ColumnFilter": "stages.column_filter",
    "ColumnNeed": "model.stage",
    "CompositeStage": "model.stage",
    "CuratorError": "errors",
    "D4": "workflows.semantic",
    "DecisionsFromList": "across.listed",
    "DocumentBatch": "model.task",
    "DropColumns": "stages.columns",
    "EmptyTask": "model.task",
    "ExactDedup": "workflows.exact",
    "FanOut": "model.stage",
    "FileGroupTask": "model.task",
    "FilePartitioning": "stages.files",
    "FileRecord": "model.task",
    "GroupRunner": "worker.group",
    "HardNegatives": "workflows.negatives",
    "Limit": "stages.sampling",
    "LocalExecutor": "executors.local",
    "Lookup": "across.lookup",
    "Machine": "model.machine",
    "MadeFor": "model.stage",
    "Merge": "model.stage",
    "MissingDependency": "errors",
    "NodeInfo": "model.engine_facts",
    "OutputError": "errors",
    "PartitionedReader": "stages.partitioned_reader",
    "Pipeline": "pipeline",
    "Plan": "planning.plan",
    "PlanError": "errors",
    "Preview": "running.preview",
    "ProcessingStage": "model.stage",
    "QuantileBuckets": "workflows.fractions",
    "RayStageSpecKeys": "model.engine_facts",
    "RenameColumns": "stages.columns",
    "Resources": "model.resources",
    "RunContext": "worker.context",
    "RunRefused": "errors",
    "RunResult": "running.result",
    "RunSummary": "running.result",
    "Sample": "stages.sampling",
    "SelectColumns": "stages.columns",
    "SemDeDup": "workflows.semantic",
    "SemanticDedup": "workflows.semantic",
    "SourceStage": "model.stage",
    "StageError": "errors",
    "StagePerfStats": "model.task",
    "Step": "workflow",
    "Steps": "workflow",
    "Task": "model.task",
    "TaskTimeout": "errors",
    "TooManyErrors": "errors",
    "TopFraction": "workflows.fractions",
    "UsageError": "errors",
    "Where": "stages.columns",
    "WorkerDied": "errors",
    "WorkerMetadata": "model.engine_facts",
    "Workflow": "workflow",
    "XennaStageSpecKeys": "model.engine_facts",
    "build_stage": "config.build",
    "dump_pipeline": "config.dump",
    "load_pipeline": "config.pipeline_file",
    "stage": "model.function_stage",
}

__all__ = sorted(_HOME)  # noqa: PLE0605 - the table above is the one place that lists names

__version__ = "0.1.0"

__getattr__, __dir__ = lazy_names(__name__, _HOME)
