"""How does a list of ids become a table of decisions? The rows with these ids are removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curator_core.across.batch_decisions import finish_batch_decisions, write_batch_decisions
from curator_core.across.decisions import REMOVED
from curator_core.across.side_table import KeyIndex, keys_as_text, read_side_table
from curator_core.arrow.arrays import array
from curator_core.arrow.json_column import as_text
from curator_core.errors import UsageError
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch, FileGroupTask, FileRecord
from curator_core.stages.files import checked_paths, parse_bytes

RULE = "list"


@dataclass(kw_only=True)
class DecisionsFromList(ProcessingStage[DocumentBatch, FileGroupTask]):
    """Writes a table of decisions to the folder ``path``: the rows whose ``id_column`` is in a list are removed.

    Ids are compared as text, so 7 is the same id as "7". ``ids`` is a text file with one id per line, or JSON lines or Parquet with a column "
        "``list_column`` (by default name"    Ids are compared as text, so 7 is the same id as "7". ``ids`` is a text file with one id per line, or JSON lines or Parquet with a column ``list_column`` (by default named
    like ``id_column``), from other tools: a file, a folder, a pattern, or a list of these. Each worker holds
    the list in memory, up to ``memory`` bytes. `ApplyDecisions` applies the table; to drop the rows at once, use
    `Lookup` with
    ``how="anti"``.
    """

    ids: str | Sequence[str]
    path: str
    id_column: str = "id"
    list_column: str | None = None
    memory: int | str = "1GiB"

    tried_by_plan = False  # setup loads the whole list
    maybe_paths = ("ids",)

    def __post_init__(self) -> None:
        checked_paths("DecisionsFromList.ids", self.ids)
        if not isinstance(self.path, str) or not self.path:
            raise UsageError(f"DecisionsFromList.path must be a folder to write to, not {self.path!r}")
        for name in ("id_column", "list_column"):
            value = getattr(self, name)
            if not (isinstance(value, str) and value) and not (value is None and name == "list_column"):
                raise UsageError(f"DecisionsFromList.{name} must be the name of a column, not {value!r}")
        self._key = [self.list_column or self.id_column]
        self._memory = parse_bytes(self.memory, "DecisionsFromList.memory")

    def inputs(self) -> list[str]:
        return [self.id_column]

    def describe(self) -> str:
        return f"decides that rows whose {self.id_column} is in {self.ids!r} are removed"

    def output_folder(self) -> str:
        return self.path

    def repacks(self) -> bool:
        return False

    def setup(self, worker: WorkerMetadata) -> None:
        way_out = "join the rows and the list by a shuffle (ShuffleWriter and GroupByKey)"
        listed = read_side_table("DecisionsFromList", self.ids, self._key, [], self._memory, way_out)
        self._index = KeyIndex.of(keys_as_text(listed, self._key), self._key)

    def process(self, task: DocumentBatch) -> FileGroupTask:
        table = task.to_pyarrow()
        keys = [self.id_column]
        rows = np.flatnonzero(self._index.find(keys_as_text(table, keys), keys) >= 0)
        ids = as_text(table[self.id_column].take(array(rows)).combine_chunks())
        columns = {
            "id": ids,
            "decision": array([REMOVED] * len(rows), pa.string()),
            "rule": array([RULE] * len(rows), pa.string()),
        }
        record = write_batch_decisions(self.path, task, rows, columns)
        self.record_output(record)
        return FileGroupTask(data=[record.path], records=[record], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> list[FileRecord]:
        return finish_batch_decisions(self.path, outputs, {"rule": RULE})
