"""Which rows are in only one of two data sets, and which are in both but differ?

Rows are matched by an id if there is one, and by their text otherwise. Each row takes two numbers of 64 bits in memory,
and only a part of the rows is held at a time, so that memory is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curator_core.arrow.row_hash import row_digests
from curator_core.data.find import ID_COLUMNS
from curator_core.data.rows import Rows, open_rows, place_text
from curator_core.data.values import rows_of
from curator_core.errors import UsageError, nearest
from curator_core.running.preview import likely_text

# The number of rows that are compared at once.
PART_ROWS = 10_000_000

Numbers = npt.NDArray[np.uint64]


@dataclass
class Sides:
    """The differences between two data sets.

    ``by`` is the column that rows were matched by. ``only_a``, ``only_b`` and ``changed`` are numbers of rows.
    ``examples`` are rows of ``a``, of ``b`` and of both, each with its ``side`` (``a``, ``b``, or ``before`` and
    ``after``).
    """

    by: str
    named: bool  # whether that column holds ids
    rows_a: int = 0
    rows_b: int = 0
    only_a: int = 0
    only_b: int = 0
    changed: int = 0
    same: int = 0
    columns_a: list[str] = field(default_factory=list)  # columns that only one side has
    columns_b: list[str] = field(default_factory=list)
    twice: int = 0  # rows whose id another row of the same side has
    examples: list[dict[str, Any]] = field(default_factory=list)
    # The numbers of the rows that are on one side only or differ, to look up what happened to them.
    keys: dict[str, Numbers] = field(default_factory=dict)

    @property
    def differs(self) -> bool:
        return bool(self.only_a or self.only_b or self.changed or self.columns_a or self.columns_b)

    def as_dict(self) -> dict[str, Any]:
        names = ("rows_a", "rows_b", "only_a", "only_b", "changed", "same", "columns_a", "columns_b")
        return {"by": self.by, "ids": self.named, **{name: getattr(self, name) for name in names}}


def compare_rows(
    a: str, b: str, *, rows: int = 0, id_column: str | None = None, examples: int = 3, part_rows: int = PART_ROWS
) -> Sides:
    """Compare the rows of two data sets; ``rows`` is about the number of rows in each, and ``examples`` the number of
    rows of each kind to show.
    """
    columns = [_columns(data) for data in (a, b)]
    # The columns of data without rows are unknown.
    shared = [name for name in columns[0] or columns[1] if name in (columns[1] or columns[0])]
    found = _by(shared, columns, id_column, a, b)
    found.columns_a = [name for name in columns[0] if columns[1] and name not in shared]
    found.columns_b = [name for name in columns[1] if columns[0] and name not in shared]
    others = sorted(name for name in shared if name != found.by)
    parts = max(1, -(-rows // part_rows))
    wanted: dict[str, list[Numbers]] = {"a": [], "b": [], "both": []}
    for part in range(parts):
        ours, theirs = (_numbers(data, found.by, others, part, parts) for data in (a, b))
        _compare(found, ours, theirs, wanted)
    chosen = {kind: np.sort(np.concatenate(keys))[:examples] for kind, keys in wanted.items() if keys}
    found.keys = {kind: np.concatenate(keys) for kind, keys in wanted.items() if keys}
    ours_wanted = {"a": chosen.get("a"), "both": chosen.get("both")}
    found.examples = list(_rows_with(a, found.by, ours_wanted)) + list(
        _rows_with(b, found.by, {"b": chosen.get("b"), "both": chosen.get("both")}, after=True)
    )
    return found


def key_numbers(table: pa.Table, column: str) -> Numbers:
    """A 64-bit hash of a column's value in each row."""
    return np.frombuffer(b"".join(row_digests(table, [column], size=8)), np.uint64)


def _columns(data: str) -> dict[str, list[pa.Table]]:
    """The columns of data, each with the first rows."""
    tables: list[pa.Table] = []
    for batch in _batches(open_rows(data, few=True)):
        if batch.num_rows:
            tables = [batch.to_pyarrow()]
            break
    return {name: tables for table in tables for name in table.column_names}


def _by(shared: Sequence[str], columns: Sequence[Mapping[str, Any]], id_column: str | None, a: str, b: str) -> Sides:
    if id_column is not None:
        if id_column not in shared:
            raise UsageError(
                f"the column {id_column!r} is not in both {a!r} and {b!r}{nearest(id_column, shared) or ':'} they share "
                f"{', '.join(shared) or 'no column'}"
            )
        return Sides(id_column, True)
    name = next((name for name in ID_COLUMNS if name in shared), None)
    if name is not None:
        return Sides(name, True)
    tables: list[pa.Table] = next(iter({**columns[1], **columns[0]}.values()), [])
    text = likely_text([table.select(shared) for table in tables])
    if text is None and (columns[0] or columns[1]):
        raise UsageError(
            f"{a!r} and {b!r} share no column with ids or text: name one with --id-column. They share "
            f"{', '.join(shared) or 'no column'}"
        )
    return Sides(text or "", False)


def _batches(rows: Rows) -> Iterator[Any]:
    for source in rows.sources():
        yield from rows.batches(source)


def _numbers(data: str, by: str, others: Sequence[str], part: int, parts: int) -> tuple[Numbers, Numbers]:
    """For each row of a part, a number for its id or text, and one for the rest of the row."""
    keys: list[Numbers] = [np.zeros(0, np.uint64)]
    rests: list[Numbers] = [np.zeros(0, np.uint64)]
    for batch in _batches(open_rows(data)):
        table = batch.to_pyarrow()
        if not table.num_rows or by not in table.column_names:
            continue
        key = key_numbers(table, by)
        mine = np.ones(len(key), bool) if parts == 1 else key % np.uint64(parts) == part
        if not mine.any():
            continue
        table = table if mine.all() else table.filter(pa.array(mine))
        there = [name for name in others if name in table.column_names]
        keys.append(key[mine])
        rests.append(np.frombuffer(b"".join(row_digests(table, there, size=8)), np.uint64))
    return np.concatenate(keys), np.concatenate(rests)


def _compare(
    found: Sides, ours: tuple[Numbers, Numbers], theirs: tuple[Numbers, Numbers], wanted: dict[str, list[Numbers]]
) -> None:
    (key_a, count_a, rest_a), (key_b, count_b, rest_b) = _grouped(*ours), _grouped(*theirs)
    found.rows_a += len(ours[0])
    found.rows_b += len(theirs[0])
    found.twice += len(ours[0]) - len(key_a) + len(theirs[0]) - len(key_b)
    in_b, in_a = np.isin(key_a, key_b, assume_unique=True), np.isin(key_b, key_a, assume_unique=True)
    # If a key occurs several times, the surplus of one side counts as being only on that side.
    more = np.zeros(len(key_a), np.int64)
    more[in_b] = count_a[in_b] - count_b[in_a]
    differ = np.zeros(len(key_a), bool)
    differ[in_b] = (rest_a[in_b] != rest_b[in_a]) & (more[in_b] == 0)
    found.only_a += int(count_a[~in_b].sum() + more[more > 0].sum())
    found.only_b += int(count_b[~in_a].sum() - more[more < 0].sum())
    found.changed += int(count_a[differ].sum())
    found.same += int(np.minimum(count_a[in_b], count_b[in_a]).sum() - count_a[differ].sum())
    wanted["a"].append(key_a[~in_b | (more > 0)])
    wanted["b"].append(np.concatenate([key_b[~in_a], key_a[more < 0]]))
    wanted["both"].append(key_a[differ])


def _grouped(keys: Numbers, rests: Numbers) -> tuple[Numbers, npt.NDArray[np.int64], Numbers]:
    """Each key once, in order, with the number of its rows and the sum of the numbers for the rest of these rows."""
    order = np.argsort(keys, kind="stable")
    keys, rests = keys[order], rests[order]
    unique, starts, counts = np.unique(keys, return_index=True, return_counts=True)
    sums = np.add.reduceat(rests, starts) if len(starts) else np.zeros(0, np.uint64)
    return unique, counts.astype(np.int64), sums


def _rows_with(
    data: str, by: str, wanted: Mapping[str, Numbers | None], *, after: bool = False
) -> Iterator[dict[str, Any]]:
    """The first row with each of the wanted numbers. With ``after``, the rows are those of the second data set."""
    left = {kind: set(keys.tolist()) for kind, keys in wanted.items() if keys is not None and len(keys)}
    if not any(left.values()):
        return
    for batch in _batches(open_rows(data)):
        table = batch.to_pyarrow()
        if not table.num_rows or by not in table.column_names:
            continue
        keys = key_numbers(table, by)
        for kind, numbers in left.items():
            for row in np.flatnonzero(np.isin(keys, np.array(sorted(numbers), np.uint64))).tolist():
                if int(keys[row]) not in numbers:
                    continue
                numbers.discard(int(keys[row]))
                source, position = place_text(batch, row)
                columns = rows_of(table.slice(row, 1))[0]
                side = ("after" if after else "before") if kind == "both" else kind
                yield {"side": side, "key": int(keys[row]), "source": source, "position": position, "columns": columns}
        if not any(left.values()):
            return
