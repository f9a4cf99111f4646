# Made from _HOME in __init__.py; not for editing: `make generate` renews it.

from curator_core.accounts.accounts import Accounts as Accounts
from curator_core.across.apply import ApplyDecisions as ApplyDecisions
from curator_core.across.by_key import GroupByKey as GroupByKey
from curator_core.across.by_key import ShuffleReader as ShuffleReader
from curator_core.across.by_key import ShuffleWriter as ShuffleWriter
from curator_core.across.listed import DecisionsFromList as DecisionsFromList
from curator_core.across.lookup import Lookup as Lookup
from curator_core.across.shuffle import Partitions as Partitions
from curator_core.config.build import build_stage as build_stage
from curator_core.config.dump import dump_pipeline as dump_pipeline
from curator_core.config.pipeline_file import load_pipeline as load_pipeline
from curator_core.errors import AccountingError as AccountingError
from curator_core.errors import CuratorError as CuratorError
from curator_core.errors import MissingDependency as MissingDependency
from curator_core.errors import OutputError as OutputError
from curator_core.errors import PlanError as PlanError
from curator_core.errors import RunRefused as RunRefused
from curator_core.errors import StageError as StageError
from curator_core.errors import TaskTimeout as TaskTimeout
from curator_core.errors import TooManyErrors as TooManyErrors
from curator_core.errors import UsageError as UsageError
from curator_core.errors import WorkerDied as WorkerDied
from curator_core.executors.base import BaseExecutor as BaseExecutor
from curator_core.executors.local import LocalExecutor as LocalExecutor
from curator_core.model.engine_facts import NodeInfo as NodeInfo
from curator_core.model.engine_facts import RayStageSpecKeys as RayStageSpecKeys
from curator_core.model.engine_facts import WorkerMetadata as WorkerMetadata
from curator_core.model.engine_facts import XennaStageSpecKeys as XennaStageSpecKeys
from curator_core.model.function_stage import stage as stage
from curator_core.model.machine import Machine as Machine
from curator_core.model.resources import Resources as Resources
from curator_core.model.stage import ANY_COLUMNS as ANY_COLUMNS
from curator_core.model.stage import ColumnNeed as ColumnNeed
from curator_core.model.stage import CompositeStage as CompositeStage
from curator_core.model.stage import FanOut as FanOut
from curator_core.model.stage import MadeFor as MadeFor
from curator_core.model.stage import Merge as Merge
from curator_core.model.stage import ProcessingStage as ProcessingStage
from curator_core.model.stage import SourceStage as SourceStage
from curator_core.model.task import DocumentBatch as DocumentBatch
from curator_core.model.task import EmptyTask as EmptyTask
from curator_core.model.task import FileGroupTask as FileGroupTask
from curator_core.model.task import FileRecord as FileRecord
from curator_core.model.task import StagePerfStats as StagePerfStats
from curator_core.model.task import Task as Task
from curator_core.pipeline import Pipeline as Pipeline
from curator_core.planning.plan import Plan as Plan
from curator_core.running.preview import Preview as Preview
from curator_core.running.result import RunResult as RunResult
from curator_core.running.result import RunSummary as RunSummary
from curator_core.stages.cast import Cast as Cast
from curator_core.stages.column_filter import ColumnFilter as ColumnFilter
from curator_core.stages.columns import DropColumns as DropColumns
from curator_core.stages.columns import RenameColumns as RenameColumns
from curator_core.stages.columns import SelectColumns as SelectColumns
from curator_core.stages.columns import Where as Where
from curator_core.stages.files import FilePartitioning as FilePartitioning
from curator_core.stages.ids import AddId as AddId
from curator_core.stages.partitioned_reader import PartitionedReader as PartitionedReader
from curator_core.stages.sampling import Limit as Limit
from curator_core.stages.sampling import Sample as Sample
from curator_core.worker.adapter import BaseStageAdapter as BaseStageAdapter
from curator_core.worker.context import RunContext as RunContext
from curator_core.worker.group import GroupRunner as GroupRunner
from curator_core.workflow import Step as Step
from curator_core.workflow import Steps as Steps
from curator_core.workflow import Workflow as Workflow
from curator_core.workflows.clusters import Clusters as Clusters
from curator_core.workflows.exact import ExactDedup as ExactDedup
from curator_core.workflows.fractions import QuantileBuckets as QuantileBuckets
from curator_core.workflows.fractions import TopFraction as TopFraction
from curator_core.workflows.groups import Groups as Groups
from curator_core.workflows.negatives import HardNegatives as HardNegatives
from curator_core.workflows.semantic import D4 as D4
from curator_core.workflows.semantic import SemanticDedup as SemanticDedup
from curator_core.workflows.semantic import SemDeDup as SemDeDup
from curator_core.workflows.sort import Sort as Sort

__all__ = [
    "ANY_COLUMNS",
    "D4",
    "AccountingError",
    "Accounts",
    "AddId",
    "ApplyDecisions",
    "BaseExecutor",
    "BaseStageAdapter",
    "Cast",
    "Clusters",
    "ColumnFilter",
    "ColumnNeed",
    "CompositeStage",
    "CuratorError",
    "DecisionsFromList",
    "DocumentBatch",
    "DropColumns",
    "EmptyTask",
    "ExactDedup",
    "FanOut",
    "FileGroupTask",
    "FilePartitioning",
    "FileRecord",
    "GroupByKey",
    "GroupRunner",
    "Groups",
    "HardNegatives",
    "Limit",
    "LocalExecutor",
    "Lookup",
    "Machine",
    "MadeFor",
    "Merge",
    "MissingDependency",
    "NodeInfo",
    "OutputError",
    "PartitionedReader",
    "Partitions",
    "Pipeline",
    "Plan",
    "PlanError",
    "Preview",
    "ProcessingStage",
    "QuantileBuckets",
    "RayStageSpecKeys",
    "RenameColumns",
    "Resources",
    "RunContext",
    "RunRefused",
    "RunResult",
    "RunSummary",
    "Sample",
    "SelectColumns",
    "SemDeDup",
    "SemanticDedup",
    "ShuffleReader",
    "ShuffleWriter",
    "Sort",
    "SourceStage",
    "StageError",
    "StagePerfStats",
    "Step",
    "Steps",
    "Task",
    "TaskTimeout",
    "TooManyErrors",
    "TopFraction",
    "UsageError",
    "Where",
    "WorkerDied",
    "WorkerMetadata",
    "Workflow",
    "XennaStageSpecKeys",
    "build_stage",
    "dump_pipeline",
    "load_pipeline",
    "stage",
]

__version__: str
