"""What happened to rows that are missing in the output of a run? The answer comes from the dropped rows that it wrote,
or else from its samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from curator_core import storage
from curator_core.accounts.seen import Seen
from curator_core.arrow.arrays import array, distinct
from curator_core.data.rows import open_rows
from curator_core.data.sides import Numbers, key_numbers
from curator_core.errors import CuratorError

# The columns that files of dropped rows have in addition to those of the rows.
_STAGE, _REASON = "dropped_by", "dropped_for"


@dataclass
class Fates:
    """What a run did with some rows: ``counts`` by stage and reason, ``of`` by the number of a row (see `key_numbers`).

    ``written`` says whether the run has written the rows that it dropped, so that all of them are known.
    """

    rows: int = 0
    written: bool = False
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    of: dict[int, tuple[str, str]] = field(default_factory=dict)

    @property
    def known(self) -> int:
        return sum(self.counts.values())

    def add(self, key: int, stage: str, reason: str) -> None:
        self.counts[stage, reason] = self.counts.get((stage, reason), 0) + 1
        self.of[key] = (stage, reason)

    def as_dict(self) -> dict[str, Any]:
        listed = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return {
            "rows": self.rows,
            "known": self.known,
            "written": self.written,
            "dropped": [{"stage": stage, "reason": reason, "rows": rows} for (stage, reason), rows in listed],
        }


def fates_of(keys: Numbers, by: str, named: bool, dropped: Mapping[str, str], seen: Seen) -> Fates:
    """What a run did with the rows that have these numbers and are missing in its output.

    ``by`` is the column that rows are compared by; ``named`` says whether it holds ids. ``dropped`` are the folders of
    dropped rows that the run has written.
    """
    found = Fates(rows=len(keys), written=bool(dropped))
    wanted = distinct(keys)
    for folder in dropped.values():
        for table in dropped_tables(folder):
            if by not in table.column_names:
                found.written = False  # a later stage makes or changes the column that rows are compared by
                continue
            numbers = key_numbers(table, by)
            for row in np.flatnonzero(np.isin(numbers, wanted)).tolist():
                found.add(int(numbers[row]), table[_STAGE][row].as_py(), table[_REASON][row].as_py())
    if not found.written:
        asked = set(wanted.tolist())
        for number, stage, reason in _sampled(seen, by, named):
            if number in asked and number not in found.of:
                found.add(number, stage, reason)
    return found


def dropped_tables(folder: str) -> Iterator[pa.Table]:
    """The rows in a folder of dropped rows, in either format; none if the folder is gone."""
    for reader, pattern in (("ParquetReader", "*.parquet"), ("JsonlReader", "*.jsonl*")):
        try:
            rows = open_rows(storage.join(folder, pattern), reader=reader)
            for source in rows.sources():
                for batch in rows.batches(source):
                    if batch.num_rows:
                        yield batch.to_pyarrow()
        except CuratorError:  # the folder is gone, or there are no such files
            continue


def _sampled(seen: Seen, by: str, named: bool) -> Iterator[tuple[int, str, str]]:
    for stage in seen.stages.values():
        for sample in stage.samples:
            if sample.side != "dropped":
                continue
            if not named:
                whole = sample.text is not None and sample.cut == 0 and sample.length == len(sample.text)
                values = [sample.text] if whole else []
            else:
                values = [sample.id] if by in ("id", "key") else [sample.columns.get(by)]
            for value in values:
                if value is None:
                    continue
                # Samples store an id that is a number as text.
                kinds = [value, int(value)] if isinstance(value, str) and value.isdigit() else [value]
                for each in kinds:
                    yield int(key_numbers(pa.table({by: array([each])}), by)[0]), stage.name, sample.reason
