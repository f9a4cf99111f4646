"""What does a side table say about each row, found by a key?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curator_core.across.side_table import KeyIndex, are_lines, keys_as_text, read_side_table
from curator_core.arrow.arrays import array, null
from curator_core.errors import UsageError, check_free
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.stage import ANY_COLUMNS, ProcessingStage
from curator_core.model.task import DocumentBatch
from curator_core.stages.files import checked_paths, parse_bytes

HOW = ("left", "inner", "anti")


@dataclass(kw_only=True)
class Lookup(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Joins the rows with a side table by a key: ``Lookup(table="scores.parquet", on="url", columns=["score"])``.

    ``table`` is Parquet, JSON lines, or a text file with one key per line: a file, a folder, a pattern, or a list of
    these. Each worker holds it in memory, up to ``memory`` bytes. ``on`` is the key: a column, or several, of the data
    and of the table; ``table_on`` gives their names in the table if they differ. ``how``:

    - ``left`` keeps all rows; if the table has no row with the key, the new columns are null;
    - ``inner`` keeps the rows whose key is in the table, and drops the others as ``no match``;
    - ``anti`` keeps the rows whose key is not in the table, and drops the others as ``listed``; it adds nothing.

    ``columns`` are the columns of the table to add, with ``prefix`` before their names; the default is all columns but
    the key, and ``[]`` adds none. Rows stay in order. A key may occur in only one row of the table, unless no columns
    are added. A null is not a key and matches nothing. A number equals the same number of another type; it equals its
    text only if the table is a text file.
    """

    table: str | Sequence[str]
    on: str | Sequence[str]
    columns: Sequence[str] | None = None
    how: Literal["left", "inner", "anti"] = "left"
    table_on: str | Sequence[str] | None = None
    prefix: str = ""
    memory: int | str = "1GiB"

    tried_by_plan = False  # setup loads the whole table
    maybe_paths = ("table",)

    def __post_init__(self) -> None:
        checked_paths("Lookup.table", self.table)
        self._on = _names("Lookup.on", self.on)
        self._keys = self._on if self.table_on is None else _names("Lookup.table_on", self.table_on)
        if len(self._keys) != len(self._on):
            raise UsageError(f"Lookup.table_on must name as many columns as on: {self._on!r} and {self._keys!r}")
        if self.how not in HOW:
            raise UsageError(f"Lookup.how must be one of {', '.join(HOW)}, not {self.how!r}")
        if self.columns is not None and (isinstance(self.columns, str) or not isinstance(self.columns, Sequence)):
            raise UsageError(f"Lookup.columns must be a list such as [{self.columns!r}]")
        if self.how == "anti" and self.columns:
            raise UsageError(f"Lookup: how='anti' adds no columns, so leave out columns={self.columns!r}")
        self._columns = [] if self.how == "anti" else None if self.columns is None else list(self.columns)
        self._memory = parse_bytes(self.memory, "Lookup.memory")
        self.shows_kept = self.how != "left"

    def inputs(self) -> list[str]:
        return list(self._on)

    def outputs(self) -> list[str]:
        return [ANY_COLUMNS] if self._columns is None else [f"{self.prefix}{name}" for name in self._columns]

    def describe(self) -> str:
        key = ", ".join(self._on)
        if self.how == "anti":
            return f"drops rows whose {key} is in {self.table!r}"
        rest = ", and drops rows without one" if self.how == "inner" else ""
        return f"looks rows up in {self.table!r} by {key}{rest}"

    def setup(self, worker: WorkerMetadata) -> None:
        way_out = (
            "join by a shuffle, which holds one partition at a time: read the data and the table in one pipeline that ends in "
            "ShuffleWriter, and bring the rows of a key together in the next with GroupByKey"
        )
        side = read_side_table("Lookup", self.table, self._keys, self._columns, self._memory, way_out)
        index = KeyIndex.of(side, self._keys)
        added = (
            [name for name in side.column_names if name not in self._keys] if self._columns is None else self._columns
        )
        twice = index.twice() if added else None
        if twice is not None:
            values = ", ".join(f"{name}={side[name][twice[0]].as_py()!r}" for name in self._keys)
            raise UsageError(
                f"Lookup: rows {twice[0] + 1} and {twice[1] + 1} of {self.table!r} have the same key, {values}, so "
                "it is not clear which one to use. Keep one row of each key in the table, or add no columns "
                "(columns=[])"
            )
        self._index, self._lines = index, are_lines(self.table)
        self._side = side.select(added).rename_columns([f"{self.prefix}{name}" for name in added])

    def process(self, task: DocumentBatch) -> DocumentBatch:
        check_free("Lookup", task.column_names, self._side.column_names)
        table = task.to_pyarrow()
        rows = self._index.find(keys_as_text(table, self._on) if self._lines else table, self._on)
        found = rows >= 0
        missing = int(len(found) - found.sum())
        if self.how == "anti":
            self.record_dropped("listed", len(found) - missing, which=np.flatnonzero(found))
            return task.filter(array(~found))
        if self.how == "inner":
            self.record_dropped("no match", missing, which=np.flatnonzero(~found))
            if missing:
                task, rows, found = task.filter(array(found)), rows[found], found[found]
        elif missing:
            self.record_metric("no match", missing)
        at = array(rows) if found.all() else pc.if_else(array(found), array(rows), null(pa.int64()))
        for name, column in zip(self._side.column_names, self._side.columns, strict=True):
            task = task.append_column(name, column.take(at))
        return task


def _names(what: str, given: object) -> list[str]:
    names: list[object] = [given] if isinstance(given, str) else list(given) if isinstance(given, list | tuple) else []
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        raise UsageError(f"{what} must be the name of a column, or a list of different ones, not {given!r}")
    return [str(name) for name in names]
