"""Which document, in the order of a score, is the first to exceed a total weight, found without sorting the data?

`MeasureScores` writes the key of each score, the weight and the group of each row. A request is for one group and one
score. It asks for the first document, in the order of (key, number), at which the total weight up to and including it
exceeds a bound. It is answered digit by digit, as in a radix sort: each pass (`CountScores`) adds up weights by the
next digits of the documents that can still be the answer, until so few are left that each can be examined
(`CollectScores`). All results are exact, and neither a task nor the driver holds more than ``MOST_CANDIDATES``
documents or ``MOST_BINS`` counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.grouping import groups_of
from curator_core.across.roll import Roll, first_number
from curator_core.across.scores import score_keys, weights_of
from curator_core.arrow.arrays import array, to_numpy
from curator_core.arrow.row_hash import column_of
from curator_core.errors import CuratorError, UsageError
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.stage import FanOut, ProcessingStage
from curator_core.model.task import DocumentBatch, FileGroupTask, FileRecord

ROLL = "_roll.arrow"
TOTALS = "_totals.arrow"
FOUND = "_found.arrow"
BATCHES = "batches"
MOST_CANDIDATES = 1 << 21
MOST_BINS = 1 << 22
MOST_GROUPS = 100_000
_COUNTS_AT_ONCE = 1 << 20
KEY_BITS = 64
ALL_BITS = 128
_TOTALS = b"curator.totals"
_GROUP = pa.dictionary(pa.int32(), pa.string())


# Measuring -----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class MeasureScores(ProcessingStage[DocumentBatch, FileGroupTask]):
    """Writes the key of each score, the weight and the group of each row to a file for the batch, below ``path``.

    ``columns`` are scores. The highest value is best, or the lowest for those in ``lowest``.
    """

    path: str
    columns: Sequence[str]
    lowest: Sequence[str] = ()
    weight: str = "rows"
    by: str | None = None
    bases: Sequence[str] = ()
    owner: str = "MeasureScores"

    def output_folder(self) -> str:
        # The keys have a folder of their own, which is removed when the limits are found; the small files beside it
        # stay.
        return storage.join(self.path, BATCHES)

    def repacks(self) -> bool:
        return False

    def inputs(self) -> list[str]:
        return list(dict.fromkeys([*self.columns, *([self.weight] if self.weight != "rows" else [])]))

    def process(self, task: DocumentBatch) -> FileGroupTask:
        table = task.to_pyarrow()
        columns: dict[str, Any] = {
            f"key{number}": array(keys_of(table, name, self.lowest, self.owner))
            for number, name in enumerate(self.columns)
        }
        weights = weights_of(table, self.weight, f"{self.owner}.weight")
        if weights is not None:
            columns["weight"] = array(weights)
        groups = groups_of(task, self.by, self.bases, f"{self.owner}.by")
        if groups is not None:
            columns["group"] = groups.cast(_GROUP)
        made = pa.table(columns)
        totals = json.dumps(_totals(groups, weights, table.num_rows))
        path = storage.join(self.path, BATCHES, f"{task.task_id or 'batch'}.arrow")
        record = write_table(path, made.combine_chunks().replace_schema_metadata({_TOTALS: totals}))
        self.record_output(record)
        return FileGroupTask(data=[path], records=[record], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        """Write the roll of the batches, and the total of each group."""
        rows: dict[str | None, int] = {}
        weights: dict[str | None, int] = {}
        for record in outputs:
            with storage.open_input(record.path) as stream, pa.ipc.open_file(stream) as file:
                totals = json.loads(file.schema.metadata[_TOTALS])
            for name, count, weight in totals:
                rows[name] = rows.get(name, 0) + count
                weights[name] = weights.get(name, 0) + weight
            if len(rows) > MOST_GROUPS:
                raise UsageError(
                    f"{self.owner}.by {self.by!r} has more than {MOST_GROUPS:,} values: give a column with fewer, "
                    "such as the "
                    "language or the collection"
                )
        names = sorted(rows, key=lambda name: (name is None, name or ""))
        table = pa.table(
            {
                "group": array(names, pa.string()),
                "rows": array([rows[name] for name in names], pa.int64()),
                "weight": array([weights[name] for name in names], pa.int64()),
            }
        )
        write_table(storage.join(self.path, TOTALS), table)
        Roll.of(outputs).write(storage.join(self.path, ROLL))


def keys_of(table: pa.Table, name: str, lowest: Sequence[str], owner: str) -> NDArray[np.uint64]:
    """The keys of a score, best first."""
    return score_keys(column_of(table, name), f"{owner}: the score {name!r}", highest=name not in lowest)


def _totals(
    groups: pa.DictionaryArray | None, weights: NDArray[np.int64] | None, rows: int
) -> list[tuple[str | None, int, int]]:
    """The name, rows and weight of each group of a batch; the sums are exact however large they are."""
    if groups is None:
        return [(None, rows, rows if weights is None else sum(weights.tolist()))] if rows else []
    codes, size = to_numpy(groups.indices), len(groups.dictionary)
    counts = np.bincount(codes, minlength=size)
    sums = counts
    if weights is not None:
        sums = np.zeros(size, np.int64)
        np.add.at(sums, codes, weights)
    named = zip(groups.dictionary.to_pylist(), counts.tolist(), sums.tolist(), strict=True)
    return [entry for entry in named if entry[1]]


# Asking --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Totals:
    """The groups of the data by name (null for rows without one), with their rows and weights."""

    names: list[str | None]
    rows: NDArray[np.int64]
    weight: NDArray[np.int64]

    @classmethod
    def read(cls, path: str) -> Totals:
        """The files that `MeasureScores` wrote to the folder ``path``."""
        table = read_table(storage.join(path, TOTALS))
        return cls(table["group"].to_pylist(), to_numpy(table["rows"]), to_numpy(table["weight"]))


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """Requests and the progress of each. Each attribute holds one value per request.

    ``high`` and ``low`` are the first ``bits`` bits of the key and of the number of the requested document, and
    ``bound`` is the weight that is left for documents that share these bits; their number is ``rows``. A request whose
    bound is never exceeded has no answer: it is ``endless``. When ``bits`` is 128, all requests are answered.
    """

    column: NDArray[np.int64]
    group: NDArray[np.int64]
    bound: NDArray[np.int64]
    high: NDArray[np.uint64]
    low: NDArray[np.uint64]
    rows: NDArray[np.int64]
    endless: NDArray[np.bool_]
    bits: int = 0

    @classmethod
    def of(cls, asked: Iterable[tuple[int, int, int]], totals: Totals) -> Requests:
        """Make requests from (number of the column, number of the group, bound)."""
        column, group, bound = np.array(list(asked), np.int64).reshape(-1, 3).T
        zeros = np.zeros(len(group), np.uint64)
        return cls(column, group, bound, zeros, zeros, totals.rows[group], totals.weight[group] <= bound)

    @property
    def answered(self) -> bool:
        return bool(self.endless.all()) or self.bits == ALL_BITS

    def candidates(self) -> int:
        """The number of documents that can still be an answer."""
        targets = self.targets()
        rows = np.zeros(len(targets.group), np.int64)
        rows[targets.places(self)[~self.endless]] = self.rows[~self.endless]
        return int(rows.sum())

    def digit_bits(self) -> int:
        """The number of bits that the next pass can examine so that its counts fit in memory."""
        targets = len(self.targets().group)
        return next((bits for bits in (16, 8, 4) if targets << bits <= MOST_BINS), 2)

    def targets(self) -> Targets:
        """The targets of the open requests, without repeats."""
        asked = np.stack([self.column.astype(np.uint64), self.group.astype(np.uint64), self.high, self.low])
        found = np.unique(asked[:, ~self.endless], axis=1)
        return Targets(found[0].astype(np.int64), found[1].astype(np.int64), found[2], found[3], self.bits)

    def advanced(self, counts: Counts, digit_bits: int) -> Requests:
        """The requests after a pass over the next ``digit_bits`` bits."""
        bound, rows = self.bound.copy(), self.rows.copy()
        high, low = self.high.copy(), self.low.copy()
        digits = high if self.bits < KEY_BITS else low
        for request, first, before in self._in_order(counts.target, counts.weight):
            at = first + int(np.searchsorted(before, bound[request], side="right"))
            digits[request] = (int(digits[request]) << digit_bits) | int(counts.digit[at])
            bound[request] -= before[at - first] - counts.weight[at]
            rows[request] = counts.rows[at]
        return replace(self, bound=bound, rows=rows, high=high, low=low, bits=self.bits + digit_bits)

    def settled(self, found: Candidates) -> Requests:
        """The answered requests, given all documents that can be an answer."""
        high, low = self.high.copy(), self.low.copy()
        for request, first, before in self._in_order(found.target, found.weight):
            at = first + int(np.searchsorted(before, self.bound[request], side="right"))
            high[request], low[request] = found.key[at], found.number[at]
        return replace(self, high=high, low=low, bits=ALL_BITS)

    def whole_keys(self) -> Requests:
        """Requests that need only a key, not a document, as answered once all bits of the key are found."""
        return replace(self, bits=ALL_BITS) if self.bits == KEY_BITS else self

    def _in_order(
        self, target: NDArray[np.int64], weight: NDArray[np.int64]
    ) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
        """For each open request, the place at which its target begins, and the total weight up to each entry of the
        target.
        """
        places = self.targets().places(self)
        starts = np.searchsorted(target, np.arange(places.max(initial=-1) + 2))
        sums = np.cumsum(weight)
        for request in np.flatnonzero(~self.endless).tolist():
            first, stop = starts[places[request]], starts[places[request] + 1]
            before = sums[first:stop] - (sums[first - 1] if first else 0)
            if not len(before) or before[-1] <= self.bound[request]:
                raise CuratorError(
                    "documents that were counted before are gone: something has changed the work of this run"
                )
            yield request, int(first), before


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """The documents that requests examine: those of a score and a group that share the first ``bits`` bits of (key,
    number). Sorted, without repeats.
    """

    column: NDArray[np.int64]
    group: NDArray[np.int64]
    high: NDArray[np.uint64]
    low: NDArray[np.uint64]
    bits: int

    def write(self, path: str) -> None:
        columns = {name: array(getattr(self, name)) for name in ("column", "group", "high", "low")}
        write_table(path, pa.table(columns).replace_schema_metadata({"bits": str(self.bits)}))

    @classmethod
    def read(cls, path: str) -> Targets:
        table = read_table(path)
        column, group, high, low = map(to_numpy, table.columns)
        return cls(column, group, high, low, int(table.schema.metadata[b"bits"]))

    def places(self, requests: Requests) -> NDArray[np.int64]:
        """The target of each request; -1 if it has none."""
        found = np.full(len(requests.group), -1, np.int64)
        for column in np.unique(self.column).tolist():
            mine = np.flatnonzero((requests.column == column) & ~requests.endless)
            found[mine] = self._find(column, requests.group[mine], requests.high[mine], requests.low[mine])
        return found

    def of_rows(
        self, column: int, group: NDArray[np.int64], key: NDArray[np.uint64], number: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        """The target of each document; -1 if it has none."""
        return self._find(column, group, _first_bits(key, self.bits), _first_bits(number, self.bits - KEY_BITS))

    def _find(
        self, column: int, group: NDArray[np.int64], high: NDArray[np.uint64], low: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        first, stop = np.searchsorted(self.column, [column, column + 1])
        own_high, high_code = np.unique(self.high[first:stop], return_inverse=True)
        own_low, low_code = np.unique(self.low[first:stop], return_inverse=True)
        own = (self.group[first:stop] * len(own_high) + high_code) * len(own_low) + low_code
        high_at, is_high = _search(own_high, high)
        low_at, is_low = _search(own_low, low)
        at, is_own = _search(own, (group * len(own_high) + high_at) * len(own_low) + low_at)
        return np.where(is_high & is_low & is_own, first + at, -1)

    def digits(self, key: NDArray[np.uint64], number: NDArray[np.uint64], digit_bits: int) -> NDArray[np.int64]:
        """The ``digit_bits`` bits after the first ``bits``."""
        values, done = (key, self.bits) if self.bits < KEY_BITS else (number, self.bits - KEY_BITS)
        shifted = values >> np.uint64(KEY_BITS - done - digit_bits)
        return (shifted & np.uint64((1 << digit_bits) - 1)).astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """The number and the total weight of the documents by target and digit, sorted by both."""

    target: NDArray[np.int64]
    digit: NDArray[np.int64]
    rows: NDArray[np.int64]
    weight: NDArray[np.int64]

    @classmethod
    def of(cls, counted: Iterable[Counts]) -> Counts:
        """Add up counts that arrive in any order and may contain a digit several times."""
        held = [cls(*(np.zeros(0, np.int64) for _ in range(4)))]
        rows = 0
        for counts in counted:
            held.append(counts)
            rows += len(counts.target)
            # Counts are added up only now and then, since each time all of them are processed.
            if rows > max(_COUNTS_AT_ONCE, 2 * len(held[0].target)):
                held, rows = [cls._sum(held)], 0
        return cls._sum(held)

    @classmethod
    def _sum(cls, held: Sequence[Counts]) -> Counts:
        target, digit, rows, weight = (np.concatenate(part) for part in zip(*(c.columns() for c in held), strict=True))
        order = np.lexsort((digit, target))
        target, digit, rows, weight = target[order], digit[order], rows[order], weight[order]
        if not len(target):
            return held[0]
        starts = np.flatnonzero(np.r_[True, (target[1:] != target[:-1]) | (digit[1:] != digit[:-1])])
        return cls(target[starts], digit[starts], np.add.reduceat(rows, starts), np.add.reduceat(weight, starts))

    def columns(self) -> tuple[NDArray[np.int64], ...]:
        return self.target, self.digit, self.rows, self.weight

    @classmethod
    def read(cls, path: str) -> Counts:
        return cls(*(to_numpy(column) for column in read_table(path).columns))

    def write(self, path: str) -> FileRecord:
        names = ("target", "digit", "rows", "weight")
        return write_table(path, pa.table({n: array(v) for n, v in zip(names, self.columns(), strict=True)}))


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Documents that may be answers, sorted by target."""

    target: NDArray[np.int64]
    key: NDArray[np.uint64]
    number: NDArray[np.uint64]
    weight: NDArray[np.int64]

    @classmethod
    def read(cls, path: str) -> Candidates:
        return cls(*(to_numpy(column) for column in read_table(path).columns))


# Looking -------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Pass(FanOut[FileGroupTask, FileGroupTask]):
    """Base of passes over the files of `MeasureScores` in ``scores``, for the ``targets`` in a file."""

    path: str
    scores: str
    targets: str

    def output_folder(self) -> str:
        return self.path

    def repacks(self) -> bool:
        return False

    def setup(self, worker: WorkerMetadata) -> None:
        self._targets = Targets.read(self.targets)
        self._roll = Roll.read(storage.join(self.scores, ROLL))
        names = Totals.read(self.scores).names
        self._groups = {name: number for number, name in enumerate(names)}

    def _hits(self, path: str) -> Iterator[tuple[NDArray[np.int64], NDArray[Any], NDArray[Any], NDArray[np.int64]]]:
        """For each score, the target, key, number and weight of those documents of a batch that have a target."""
        table = read_table(path)
        batch = self._roll.number_of(storage.file_name(path).removesuffix(".arrow"), table.num_rows)
        numbers = first_number(batch) + np.arange(table.num_rows, dtype=np.uint64)
        groups = np.zeros(table.num_rows, np.int64)
        if "group" in table.column_names:
            values = table["group"].combine_chunks()
            own = np.array([self._groups[name] for name in values.dictionary.to_pylist()], np.int64)
            groups = own[to_numpy(values.indices)] if len(own) else groups
        weights = to_numpy(table["weight"]) if "weight" in table.column_names else np.ones(table.num_rows, np.int64)
        for column in np.unique(self._targets.column).tolist():
            keys = to_numpy(table[f"key{column}"])
            target = self._targets.of_rows(column, groups, keys, numbers)
            hit = target >= 0
            yield target[hit], keys[hit], numbers[hit], weights[hit]

    def _done(self, task: FileGroupTask, record: FileRecord) -> FileGroupTask:
        self.record_output(record)
        return FileGroupTask(data=[record.path], records=[record], dataset_name=task.dataset_name)


@dataclass(kw_only=True)
class CountScores(_Pass):
    """Counts, among the documents that can still be an answer, documents and weight by the next ``digit_bits`` bits."""

    digit_bits: int = 16

    def process(self, task: FileGroupTask) -> Iterator[FileGroupTask]:
        counts = Counts.of(self._counted(task))
        yield self._done(task, counts.write(storage.join(self.path, f"{task.task_id or 'task'}.arrow")))

    def _counted(self, task: FileGroupTask) -> Iterator[Counts]:
        for path in task.data:
            for target, key, number, weight in self._hits(path):
                digits = self._targets.digits(key, number, self.digit_bits)
                yield Counts(target, digits, np.ones(len(target), np.int64), weight)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        Counts.of(Counts.read(record.path) for record in outputs).write(storage.join(self.path, FOUND))


@dataclass(kw_only=True)
class CollectScores(_Pass):
    """Collects the documents that can still be an answer."""

    def process(self, task: FileGroupTask) -> Iterator[FileGroupTask]:
        found = [_candidates(*hit) for path in task.data for hit in self._hits(path)]
        table = pa.concat_tables(found) if found else _candidates(*_NO_HIT)
        yield self._done(task, write_table(storage.join(self.path, f"{task.task_id or 'task'}.arrow"), table))

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        table = pa.concat_tables([read_table(record.path) for record in outputs] or [_candidates(*_NO_HIT)])
        order = np.lexsort([to_numpy(table[name]) for name in ("number", "key", "target")])
        write_table(storage.join(self.path, FOUND), table.take(array(order)))


def _candidates(target: NDArray[Any], key: NDArray[Any], number: NDArray[Any], weight: NDArray[Any]) -> pa.Table:
    return pa.table({"target": array(target), "key": array(key), "number": array(number), "weight": array(weight)})


_NO_HIT = tuple(np.zeros(0, kind) for kind in (np.int64, np.uint64, np.uint64, np.int64))


def _first_bits(values: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    """The first ``bits`` bits; zero for 0 or fewer bits, since numpy cannot shift an integer by 64."""
    return np.zeros_like(values) if bits <= 0 else values >> np.uint64(max(0, KEY_BITS - bits))


def _search(known: NDArray[Any], asked: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The place of each value among sorted ones, and whether it is among them."""
    if not len(known):
        return np.zeros(len(asked), np.int64), np.zeros(len(asked), np.bool_)
    at = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return at, known[at] == asked


def write_table(path: str, table: pa.Table) -> FileRecord:
    with storage.write_atomic(path) as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    return out.record(rows=table.num_rows)


def read_table(path: str) -> pa.Table:
    with storage.open_input(path) as stream, pa.ipc.open_file(stream) as file:
        return file.read_all()
