"""Which tasks does a merge make from everything before it, in lineage order?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from curator_core.accounts.accounts import Accounts
from curator_core.accounts.events import MERGE, MERGED, Event, events_table
from curator_core.accounts.table_files import write_parquet
from curator_core.model.lineage import source_id
from curator_core.model.task import Task
from curator_core.planning.plan import PlannedStage
from curator_core.running.directory import RunDirectory
from curator_core.worker.merge import MergeTask


def merge_tasks(
    merge: PlannedStage,
    segment: int,
    accounts: Accounts,
    before: Sequence[str],
    waiting: Sequence[Task[Any]],
    attempt: int,
    directory: RunDirectory | None,
) -> Iterator[MergeTask]:
    """The merge tasks of ``segment``, which are its sources; the stage's batch size is the number of members of each.

    ``before`` are the sources whose tasks wait for the merge; without a run directory the tasks themselves are in
    ``waiting``. The members of all merges are recorded before the first task is handed out.
    """
    members = accounts.tasks(accounts.event_numbers(before, MERGED))
    in_memory = {task.task_id: task for task in waiting}
    size = max(1, merge.stage.batch_size or len(members))
    folder = directory.path("spill", str(segment - 1)) if directory is not None else ""
    events: list[Event] = []
    tasks: list[MergeTask] = []
    for start in range(0, len(members), size):
        part = members[start : start + size]
        ids = [task for task, _ in part]
        name = source_id(merge.name, ids)
        # The generations are not part of the name: names must not depend on when a file was modified.
        stamp = source_id("", [generation for _, generation in part]).rpartition("-")[2]
        task = MergeTask(
            data=ids, folder=folder, tasks=None if folder else [in_memory[task_id] for task_id in ids], task_id=name
        )
        task._source, task._generation = name, stamp
        tasks.append(task)
        events.append(Event.of(task, MERGE, attempt=attempt, stage=merge.name, members=ids))
    for event in events:
        accounts.add(event)
    if directory is not None and events:
        path = directory.path("ledger", f"{attempt:04d}-driver-merges-{segment}.parquet")
        write_parquet(path, events_table(events))
    return iter(tasks)
