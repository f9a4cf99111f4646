"""A worker records everything about a task before it passes the result on. No cluster is needed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curator_backends.coordinator import Coordinator
from curator_backends.links import Link
from curator_backends.worker import GroupWorker, Job
from curator_core import DocumentBatch, ProcessingStage, Resources
from curator_core.accounts.ledger import read_rejects
from curator_core.model.engine_facts import NodeInfo, WorkerMetadata
from curator_core.model.seen_options import SeenOptions
from curator_core.planning.plan import Group, PlannedStage
from curator_core.worker.context import RunContext


class Beside(Link):
    """A coordinator in the same process."""

    def __init__(self) -> None:
        self.coordinator = Coordinator()

    def call(self, method: str, *arguments: Any, timeout: float | None = None) -> Any:
        return getattr(self.coordinator, method)(*arguments)

    def tell(self, method: str, *arguments: Any) -> None:
        self.call(method, *arguments)


@dataclass
class RejectFirst(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Rejects the first row of each task and drops the second."""

    def process(self, task: DocumentBatch) -> DocumentBatch:
        self.record_rejected("broken", source="a.jsonl", position="line 1", raw=b"{")
        self.record_dropped("second", 1, which=[1])
        return task.filter(pa.array([False, False, True]))


@pytest.mark.slow
def test_a_driver_killed_with_a_result_loses_no_reject_and_no_sample_of_its_task(tmp_path: Path) -> None:
    stage = RejectFirst()
    group = Group((PlannedStage(stage, "RejectFirst"),), Resources())
    context = RunContext(run_dir=str(tmp_path / "run"), seen=SeenOptions())
    worker = GroupWorker(Job("token", 0, group, context), Beside(), NodeInfo("node"), WorkerMetadata())
    given = [
        DocumentBatch(data=pa.table({"text": ["a", "b", "c"]}), task_id=f"t-{n}", _source=f"t-{n}") for n in range(3)
    ]
    results = worker.run(given)
    first = next(results)
    # The next group may now record the end of this task. After a kill of the driver and all workers, only the files on
    # disk are left.
    rejected = [source for _, table in read_rejects(context.run_dir or "") for source in table["task"].to_pylist()]
    assert first.task_id in rejected
    for folder in ("seen", "samples"):
        assert list((tmp_path / "run" / folder).glob("*.arrow")), folder
    assert [task.task_id for task in results] == ["t-1", "t-2"]
    worker.close()


LEAVING = """
import atexit, gc, sys
def searched():
    return len(gc.get_objects()) > 1000  # objects that the collector would visit
# Handlers run in reverse order, so this one runs after that of the worker.
atexit.register(lambda: print(searched()))
sys.path.insert(0, sys.argv[1])
from test_worker import a_worker
a_worker().close()
print(searched())
"""


def a_worker() -> GroupWorker:
    group = Group((PlannedStage(RejectFirst(), "RejectFirst"),), Resources())
    return GroupWorker(Job("token", 0, group, RunContext()), Beside(), NodeInfo("node"), WorkerMetadata())


@pytest.mark.slow
def test_a_process_that_was_a_worker_ends_without_a_search_for_garbage() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LEAVING, str(Path(__file__).parent)], capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == ["True", "False"]
