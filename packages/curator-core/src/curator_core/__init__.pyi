# Made from _HOME in __init__.py; not for editing: `make generate` renews it.

from curator_core.accounts import Accounts as Accounts
from curator_core.adapter import BaseStageAdapter as BaseStageAdapter
from curator_core.adapter import GroupRunner as GroupRunner
from curator_core.adapter import RunContext as RunContext
from curator_core.column_filter import ColumnFilter as ColumnFilter
from curator_core.columns import DropColumns as DropColumns
from curator_core.columns import RenameColumns as RenameColumns
from curator_core.columns import SelectColumns as SelectColumns
from curator_core.columns import Where as Where
from curator_core.errors import AccountingError as AccountingError
from curator_core.errors import CuratorError as CuratorError
from curator_core.errors import MissingDependency as MissingDependency
from curator_core.errors import OutputError as OutputError
from curator_core.errors import PlanError as PlanError
from curator_core.errors import RunRefused as RunRefused
from curator_core.errors import StageError as StageError
from curator_core.errors import TooManyErrors as TooManyErrors
from curator_core.errors import UsageError as UsageError
from curator_core.errors import WorkerDied as WorkerDied
from curator_core.executor import BaseExecutor as BaseExecutor
from curator_core.files import FilePartitioning as FilePartitioning
from curator_core.ids import AddId as AddId
from curator_core.local import LocalExecutor as LocalExecutor
from curator_core.machine import Machine as Machine
from curator_core.pipeline import Pipeline as Pipeline
from curator_core.plan import Plan as Plan
from curator_core.registry import build_stage as build_stage
from curator_core.resources import Resources as Resources
from curator_core.run import RunResult as RunResult
from curator_core.run import RunSummary as RunSummary
from curator_core.sampling import Limit as Limit
from curator_core.sampling import Sample as Sample
from curator_core.stages import ANY_COLUMNS as ANY_COLUMNS
from curator_core.stages import CompositeStage as CompositeStage
from curator_core.stages import FanOut as FanOut
from curator_core.stages import Merge as Merge
from curator_core.stages import NodeInfo as NodeInfo
from curator_core.stages import ProcessingStage as ProcessingStage
from curator_core.stages import RayStageSpecKeys as RayStageSpecKeys
from curator_core.stages import SourceStage as SourceStage
from curator_core.stages import WorkerMetadata as WorkerMetadata
from curator_core.stages import XennaStageSpecKeys as XennaStageSpecKeys
from curator_core.stages import stage as stage
from curator_core.task import DocumentBatch as DocumentBatch
from curator_core.task import EmptyTask as EmptyTask
from curator_core.task import FileGroupTask as FileGroupTask
from curator_core.task import FileRecord as FileRecord
from curator_core.task import StagePerfStats as StagePerfStats
from curator_core.task import Task as Task
from curator_core.workflow import Workflow as Workflow

__all__ = [
    "ANY_COLUMNS",
    "AccountingError",
    "Accounts",
    "AddId",
    "BaseExecutor",
    "BaseStageAdapter",
    "ColumnFilter",
    "CompositeStage",
    "CuratorError",
    "DocumentBatch",
    "DropColumns",
    "EmptyTask",
    "FanOut",
    "FileGroupTask",
    "FilePartitioning",
    "FileRecord",
    "GroupRunner",
    "Limit",
    "LocalExecutor",
    "Machine",
    "Merge",
    "MissingDependency",
    "NodeInfo",
    "OutputError",
    "Pipeline",
    "Plan",
    "PlanError",
    "ProcessingStage",
    "RayStageSpecKeys",
    "RenameColumns",
    "Resources",
    "RunContext",
    "RunRefused",
    "RunResult",
    "RunSummary",
    "Sample",
    "SelectColumns",
    "SourceStage",
    "StageError",
    "StagePerfStats",
    "Task",
    "TooManyErrors",
    "UsageError",
    "Where",
    "WorkerDied",
    "WorkerMetadata",
    "Workflow",
    "XennaStageSpecKeys",
    "build_stage",
    "stage",
]

__version__: str
