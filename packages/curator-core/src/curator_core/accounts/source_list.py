"""Which sources has a run listed, and which generation of each counts?"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa

from curator_core import storage
from curator_core.accounts.table_files import read_folder, write_parquet
from curator_core.arrow.arrays import array

# A later row of a source replaces an earlier one.
SOURCE_SCHEMA = pa.schema([("source", pa.string()), ("generation", pa.string()), ("group", pa.string())])

GONE = "-"  # the generation of a source that is no longer listed


class Listed(NamedTuple):
    """A source of the run, and the generation of those of its events that count.

    ``members``: the files and ranges of a source that has several, as JSON; the column in the table is called
    ``group``.
    """

    # A tuple, because one is made for each source, and a frozen dataclass takes three times as long.

    source: str
    generation: str = GONE
    members: str = ""


class SourceList:
    """All sources that a run has ever listed, including those that are gone; only the driver writes this list."""

    def __init__(self, run_dir: str) -> None:
        self._folder = storage.join(run_dir, "sources")
        self._number = 0
        self.rows: dict[str, Listed] = {}
        for path, table in read_folder(run_dir, "sources", SOURCE_SCHEMA):
            self._number = int(storage.file_name(path).partition(".")[0]) + 1
            for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
                self.rows[row[0]] = Listed(*row)

    def note(self, rows: Iterable[Listed]) -> None:
        """Write rows; they are durable when this returns."""
        new = list(rows)
        if not new:
            return
        columns = [[r.source for r in new], [r.generation for r in new], [r.members for r in new]]
        table = pa.table([array(c, pa.string()) for c in columns], schema=SOURCE_SCHEMA)
        write_parquet(storage.join(self._folder, f"{self._number:08d}.parquet"), table)
        self._number += 1
        self.rows.update((row.source, row) for row in new)

    def forget(self, sources: Iterable[str]) -> None:
        """Record that sources are no longer listed. Their earlier rows stay."""
        self.note([Listed(source) for source in sources])

    def members(self) -> dict[str, Any]:
        """The files of each source that has several and is still listed."""
        return {
            row.source: json.loads(row.members) for row in self.rows.values() if row.members and row.generation != GONE
        }
