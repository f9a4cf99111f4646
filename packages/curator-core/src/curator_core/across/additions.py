"""How are the documents that stay added to an index? As a new run, in the last step of a deduplication."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow.compute as pc

from curator_core import storage
from curator_core.across.copies import EXACT, exact_keys, write_keys
from curator_core.across.decisions import REMOVED, Decisions
from curator_core.across.documents import DocumentParameters
from curator_core.across.index import (
    IndexRun,
    IndexUse,
    Pinned,
    add_run,
    made_by,
    remove_unnamed,
    roll_in,
    run_folder,
    write_files,
)
from curator_core.across.inputs import Inputs
from curator_core.across.preference import Preference
from curator_core.across.roll import Roll, rows_of
from curator_core.across.shuffle import finish_partitioned
from curator_core.arrow.arrays import array, scalar, to_numpy
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch, FileGroupTask, FileRecord


@dataclass(kw_only=True)
class AddToIndex(DocumentParameters, ProcessingStage[DocumentBatch, FileGroupTask]):
    """Writes the hash, the id and the collection of each document that stays according to ``decisions`` to a run of the
    index.

    It reads the documents again. ``keys`` is the folder in which the run has recorded its name in the index.
    """

    keys: str
    decisions: str
    index: Mapping[str, Any] = field(default_factory=dict)
    partitions: int = 32

    # The kinds of files whose rows are sorted by place, and the other kinds.
    placed: ClassVar[tuple[str, ...]] = (EXACT,)
    others: ClassVar[tuple[str, ...]] = ()
    tried_by_plan = False

    def __post_init__(self) -> None:
        self.check_documents()

    def inputs(self) -> list[str]:
        return self.columns_read()

    def describe(self) -> str:
        return f"adds the documents that stay to the index {self.index['path']!r}"

    def setup(self, worker: Any) -> None:
        self._decisions = Decisions.open(self.decisions)
        self._inputs = Inputs.read(self.decisions)
        self._folder = self._run_folder()

    def process(self, task: DocumentBatch) -> FileGroupTask:
        if self._inputs is not None:
            self._inputs.require_same(task)
        batch = self._decisions.roll.number_of(task.task_id, task.num_rows)
        about = self._decisions.of_batch(batch, ["decision"])
        stays = np.ones(task.num_rows, np.bool_)
        gone = about.filter(pc.equal(about["decision"], scalar(REMOVED)))
        stays[rows_of(to_numpy(gone["number"]))] = False
        records = self.write(self._folder, task.with_data(task.to_pyarrow().filter(array(stays))))
        for record in records:
            self.record_output(record)
        return FileGroupTask(data=[record.path for record in records], dataset_name=task.dataset_name)

    def write(self, folder: str, documents: DocumentBatch) -> list[FileRecord]:
        """Write what the index stores about the documents to the files of the run, one of each kind."""
        table, places = exact_keys(self, documents, with_names=True)
        table = table.drop_columns(Preference.of(self.keep, type(self).__name__).names)
        return [write_keys(self, folder, documents, EXACT, table, places, durable=True)]

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        pinned = Pinned.read(self.keys)
        assert pinned is not None  # the step that writes the keys leaves this column out
        folder = self._run_folder()
        size = 0
        for kind in (*self.placed, *self.others):
            place = storage.join(folder, kind)
            records = [record for record in outputs if storage.parent(record.path) == place]
            size += sum(record.bytes for record in records)
            if kind in self.placed:
                finish_partitioned(place, records, partitions=self.partitions)
            else:
                names = [storage.file_name(record.path) for record in records]
                write_files(place, [(name, number, 1) for number, name in enumerate(names)])
            if kind == EXACT:
                roll = Roll.of(records)
                roll.write(roll_in(folder, pinned.name))
        use = IndexUse(**self.index)
        run = IndexRun(pinned.name, roll.documents, len(roll), size, made_by(use.settings))
        if not add_run(use, pinned, run, type(self).__name__):
            remove_unnamed(use.path, pinned.name)

    def _run_folder(self) -> str:
        pinned = Pinned.read(self.keys)
        assert pinned is not None
        return run_folder(self.index["path"], pinned.name)
