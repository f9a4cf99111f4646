"""How do tasks wait for a merge, and what is the input of the merge?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curator_core import storage
from curator_core.model.codec import decode_task, encode_task
from curator_core.model.task import Task
from curator_core.worker.balance import Amount


@dataclass(kw_only=True)
class MergeTask(Task[list[str]]):
    """The members of one merge, in lineage order: ids of stored tasks, or the tasks themselves."""

    data: list[str]
    folder: str = ""
    tasks: list[Task[Any]] | None = None

    @property
    def num_items(self) -> int:
        return len(self.data)

    def validate(self) -> bool:
        return True


class MergeMembers(Sequence[Task[Any]]):
    """The tasks of a merge, loaded one at a time."""

    def __init__(self, merge: MergeTask) -> None:
        self._merge = merge

    def __len__(self) -> int:
        return len(self._merge.data)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if self._merge.tasks is not None:
            return self._merge.tasks[index]
        return load_task(self._merge.folder, self._merge.data[index])


def task_path(folder: str, task_id: str) -> str:
    """The path of a stored task."""
    return storage.join(folder, f"{task_id}.task")


def store_task(folder: str, task: Task[Any]) -> None:
    with storage.write_atomic(task_path(folder, task.task_id)) as out:
        out.write(memoryview(encode_task(task, pickled=False)))


def load_task(folder: str, task_id: str) -> Task[Any]:
    return decode_task(storage.read_bytes(task_path(folder, task_id)), pickled=False)


class CountingMembers(Sequence[Task[Any]]):
    """Counts the rows of all members of a merge, whether or not it reads them."""

    def __init__(self, members: MergeMembers) -> None:
        self._members = members
        self._rows: dict[int, tuple[int, str]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        task = self._members[index]
        self._rows[index] = (task.num_items, task.unit)
        return task

    def total(self) -> Amount:
        """The amount in all members; without a unit if their units differ."""
        for index in range(len(self)):
            if index not in self._rows:
                self[index]
        units = {unit for _, unit in self._rows.values()}
        return Amount(sum(rows for rows, _ in self._rows.values()), units.pop() if len(units) == 1 else "")
