"""How do rows get ids that are derived from their content?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curator_core.arrow.arrays import array
from curator_core.arrow.row_hash import row_digests
from curator_core.errors import UsageError
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch


@dataclass(kw_only=True)
class AddId(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Adds an id to each row: ``prefix`` and 32 hexadecimal digits of a hash over ``columns``.

    The same content has the same id on every machine, in every run and at every place, so exact duplicates share one.
    ``unique`` makes all ids of a run different by also hashing the place of the row (its task and its number there).
    These ids stay the same as long as the files and the stages before this one do not change.
    """

    columns: Sequence[str] = ("text",)
    id_column: str = "id"
    prefix: str = ""
    unique: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.columns, str) or not self.columns:
            raise UsageError(f"AddId.columns must be a list of column names, not {self.columns!r}")
        if not isinstance(self.id_column, str) or not self.id_column:
            raise UsageError(f"AddId.id_column must be the name of a column, not {self.id_column!r}")
        if not isinstance(self.prefix, str):
            raise UsageError(f"AddId.prefix must be a text, not {self.prefix!r}")

    def inputs(self) -> list[str]:
        return list(self.columns)

    def outputs(self) -> list[str]:
        return [self.id_column]

    def replaces(self) -> list[str]:
        return [self.id_column] if self.overwrite else []

    def process(self, task: DocumentBatch) -> DocumentBatch:
        table = task.to_pyarrow()
        if self.id_column in table.column_names and not self.overwrite:
            raise UsageError(
                f"AddId: there is a column {self.id_column!r} already: give another id_column, or overwrite=True"
            )
        columns = list(self.columns)
        if self.unique:
            # The row's number, under a name that no user's table has, makes equal rows differ.
            table = table.append_column("\0place", array(np.arange(table.num_rows)))
            columns.append("\0place")
        salt = task.task_id.encode() if self.unique else b""
        ids = [self.prefix + digest.hex() for digest in row_digests(table, columns, salt)]
        return task.append_column(self.id_column, array(ids, pa.string()))
