"""Finds units (runs of words, lines) that occur more than once, and decides which of them to cut out of documents.

A *unit* of a document has a 128-bit hash and a place in the document. Among equal units, the first one in the preferred
document stays; all others are repeats of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.copies import DocumentStage, PartitionStage, finish_keys, write_keys
from curator_core.across.decided import ROLL
from curator_core.across.digests import digests
from curator_core.across.documents import ids_of
from curator_core.across.gather import BatchRows
from curator_core.across.inputs import Inputs, noted
from curator_core.across.roll import Roll, batches_of, first_number, rows_of
from curator_core.across.shuffle import finish_partitioned, partition_pieces, write_partitioned
from curator_core.arrow.arrays import array, to_numpy
from curator_core.arrow.json_column import holds_texts, only_texts
from curator_core.arrow.row_hash import column_of
from curator_core.errors import UsageError, check_free
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch, FileGroupTask, FileRecord
from curator_core.running.repeats import write_settings
from curator_text._columns import require_texts, texts_put_back
from curator_text.repeats.bloom import BloomFilter, Filters, finish_filters
from curator_text.repeats.units import Unit, line_units, spans_of_lines, spans_of_runs
from curator_text.repeats.windows import Measured, anchors, runs_around

ANCHORS = "exact"  # the roll is made from these files
Mode = Literal["cut", "annotate", "drop"]
MODES = ("cut", "annotate", "drop")
SPANS = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("row", pa.int64()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("witness_id", pa.string()),
        ("witness_source", pa.string()),
        ("witness_row", pa.int64()),
        ("text", pa.string()),
    ]
)
_NOTE = pa.list_(pa.list_(pa.int64(), 2))
_SHOWN = 200


@dataclass(kw_only=True)
class WriteHashes(DocumentStage):
    """Base of stages that write rows about the documents of a batch, partitioned by a hash, and at the end the roll of
    all batches.
    """

    def write(self, task: DocumentBatch, rows: pa.Table, hashes: NDArray[np.uint64]) -> FileGroupTask:
        """Write ``rows``, each with its hash."""
        record = write_keys(self, self.path, task, ANCHORS, rows, hashes)
        return FileGroupTask(data=[record.path], dataset_name=task.dataset_name)

    def noted(self, rows: pa.Table, task: DocumentBatch) -> pa.Table:
        """Rows with the notes of their batch."""
        texts = holds_texts(column_of(task.to_pyarrow(), self.column).type)
        return noted(rows, task, self.collections(task), texts=texts)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        require_texts(finish_keys(self.path, outputs, [ANCHORS], None, type(self).__name__), self.column)


@dataclass(kw_only=True)
class WriteAnchors(WriteHashes):
    """Writes the anchors of each document's runs of ``length`` words or characters, partitioned by hash, and at the end
    the roll of all batches.
    """

    length: int
    characters: bool = False

    def process(self, task: DocumentBatch) -> FileGroupTask:
        texts = self.texts(task.to_pyarrow())
        measured = Measured.of(texts, characters=self.characters)
        words = measured.words
        hashes, at = anchors(measured, self.length)
        row = np.searchsorted(words.offsets, at, "right") - 1
        made = pa.table({"row": array(row.astype(np.uint32)), "at": array((at - words.offsets[row]).astype(np.uint32))})
        return self.write(task, self.noted(made, task), hashes)


@dataclass(kw_only=True)
class FindRepeatedAnchors(PartitionStage):
    """Writes the anchors of a partition that occur more than once, by batch."""

    def process(self, task: FileGroupTask) -> FileGroupTask:
        numbers, places, at = [], [], []
        for file, piece in partition_pieces(task):
            numbers.append(first_number(file) + to_numpy(piece["row"]))
            places.append(to_numpy(piece["place"]))
            at.append(to_numpy(piece["at"]))
        number, place, where = (np.concatenate(parts) for parts in (numbers, places, at))
        order = np.argsort(place, kind="stable")
        same = place[order][1:] == place[order][:-1]
        often = np.zeros(len(order), np.bool_)
        often[1:] |= same
        often[:-1] |= same
        chosen = order[often]
        made = pa.table({"number": array(number[chosen]), "at": array(where[chosen])})
        record = self.write_by_batch(storage.join(self.path, f"{task.task_id}.arrow"), made)
        self.record_output(record)
        return FileGroupTask(data=[record.path], dataset_name=task.dataset_name)


@dataclass(kw_only=True)
class _Units(DocumentStage):
    """Base of stages that write units of documents, partitioned by hash, with their order of preference."""

    def units_table(
        self, task: DocumentBatch, row: NDArray[np.int64], at: NDArray[np.int64], low: NDArray[np.uint64]
    ) -> pa.Table:
        """A row for each unit, with the order of preference and the names of its document."""
        table = task.to_pyarrow()
        rows, inverse = np.unique(row, return_inverse=True)
        some = table.take(array(rows))
        found = digests(column_of(some, self.column))
        collections = self.collections(task)
        mine = collections.take(array(rows))
        columns: dict[str, Any] = {
            "row": array(row.astype(np.uint32)),
            "at": array(at.astype(np.uint32)),
            "low": array(low),
        }
        for name, values in self.check_documents().encode(some, found.lengths, mine).items():
            columns[name] = array(values[inverse])
        columns["hash_high"], columns["hash_low"] = array(found.high[inverse]), array(found.low[inverse])
        columns["id"] = self.ids(some).take(array(inverse))
        return noted(pa.table(columns), task, collections, texts=holds_texts(column_of(table, self.column).type))


@dataclass(kw_only=True)
class WriteWindows(_Units):
    """Writes each run of ``length`` words or characters that contains a repeated anchor."""

    keys: str
    repeated: str
    length: int
    characters: bool = False

    def setup(self, worker: Any) -> None:
        self._roll = Roll.read(storage.join(self.keys, ROLL))
        self._inputs = Inputs.read(self.keys)
        self._repeated = BatchRows(self.repeated, len(self._roll))

    def process(self, task: DocumentBatch) -> FileGroupTask:
        if self._inputs is not None:  # anchors are places in texts
            self._inputs.require_same(task)
        numbers = self._roll.numbers_of(task)
        none = np.zeros(0, np.int64)
        row, at, count, high, low = none, none, none, np.zeros(0, np.uint64), np.zeros(0, np.uint64)
        about = self._repeated.of(int(batches_of(numbers[:1])[0])) if len(numbers) else None
        if about is not None and about.num_rows:  # a shuffle of no rows has no columns
            rows, inverse = np.unique(rows_of(to_numpy(about["number"])), return_inverse=True)
            some = self.texts(task.to_pyarrow().take(array(rows)))
            measured = Measured.of(some, characters=self.characters)
            words = measured.words
            repeated = words.offsets[:-1][inverse] + to_numpy(about["at"]).astype(np.int64)
            runs = runs_around(measured, self.length, repeated)
            high, low = runs.hashes(words), runs.hashes(words, 1)
            which = np.searchsorted(words.offsets, runs.first, "right") - 1
            row, at, count = rows[which], runs.first - words.offsets[which], runs.last - runs.first
        made = self.units_table(task, row, at, low).append_column("count", array(count.astype(np.uint32)))
        record = write_partitioned(storage.join(self.path, f"{task.task_id}.arrow"), made, high, self.partitions)
        self.record_output(record)
        return FileGroupTask(data=[record.path], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        finish_partitioned(self.path, outputs)


@dataclass(kw_only=True)
class WriteUnitHashes(WriteHashes):
    """Writes the hash of each ``unit`` with at least ``least`` characters, and whether it occurs once or more often in
    its batch; at the end, it writes the roll of all batches.
    """

    unit: Unit = "line"
    least: int = 1

    def process(self, task: DocumentBatch) -> FileGroupTask:
        texts = self.texts(task.to_pyarrow())
        *_, high, _ = line_units(texts, self.unit, self.least, normalize=self.normalize)
        places, counts = np.unique(high, return_counts=True)
        made = pa.table({"times": array(np.minimum(counts, 2).astype(np.uint8))})
        return self.write(task, self.noted(made, task), places)


@dataclass(kw_only=True)
class FilterRepeated(PartitionStage):
    """Makes a Bloom filter, with ``false_rate``, of those hashes of a partition that occur more than once.

    The metric ``once`` counts the hashes that occur once.
    """

    false_rate: float

    def process(self, task: FileGroupTask) -> FileGroupTask:
        pieces = [piece for _, piece in partition_pieces(task)]
        places, times = (np.concatenate([to_numpy(piece[name]) for piece in pieces]) for name in ("place", "times"))
        order = np.argsort(places, kind="stable")
        places, times = places[order], times[order]
        begins = np.flatnonzero(np.append(True, places[1:] != places[:-1]))
        counts = np.add.reduceat(times.astype(np.int64), begins)
        self.record_metric("once", float((counts == 1).sum()))
        made = BloomFilter.of(places[begins[counts > 1]], self.false_rate)
        record = made.write(storage.join(self.path, f"{task.task_id}.arrow"), int(task._metadata["partition"]))
        self.record_output(record)
        return FileGroupTask(data=[record.path], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        finish_filters(self.path, outputs, self.parts)


@dataclass(kw_only=True)
class WriteLines(WriteHashes, _Units):
    """Writes each ``unit`` with at least ``least`` characters, and at the end the roll of all batches.

    With ``filters``, the folder of `FilterRepeated`, it writes only units that may occur more than once; ``hashes`` is
    the folder of `WriteUnitHashes`.
    """

    unit: Unit = "line"
    least: int = 1
    filters: str | None = None
    hashes: str | None = None

    def setup(self, worker: Any) -> None:
        self._filters = None if self.filters is None else Filters(self.filters)
        self._inputs = None if self.hashes is None else Inputs.read(self.hashes)

    def process(self, task: DocumentBatch) -> FileGroupTask:
        if self._inputs is not None:
            self._inputs.require_same(task)
        texts = self.texts(task.to_pyarrow())
        row, at, high, low = line_units(texts, self.unit, self.least, normalize=self.normalize)
        if self._filters is not None:
            some = np.flatnonzero(self._filters.may_hold(high))
            row, at, high, low = row[some], at[some], high[some], low[some]
        return self.write(task, self.units_table(task, row, at, low), high)


@dataclass(kw_only=True)
class FindRepeats(PartitionStage):
    """Writes the units of a partition that are repeats, with the unit that each repeats, by batch.

    The metric ``once`` counts the units that were written although they occur once.
    """

    def process(self, task: FileGroupTask) -> FileGroupTask:
        pieces = []
        for file, piece in partition_pieces(task):
            numbers = first_number(file) + to_numpy(piece["row"])
            pieces.append(piece.drop_columns(["row"]).append_column("number", array(numbers)))
        table = pa.concat_tables(pieces, promote_options="default").combine_chunks()
        preference = self.preference()
        names = ("place", "low", "number", "hash_high", "hash_low", *preference.names)
        columns = {name: to_numpy(table[name]) for name in names}
        at = to_numpy(table["at"])
        order = np.argsort(at, kind="stable")
        chosen = {name: values[order] for name, values in columns.items()}
        order = order[preference.sort(chosen, within=[chosen["place"], chosen["low"]])]
        new = np.ones(len(order), np.bool_)
        for name in ("place", "low"):
            values = columns[name][order]
            if len(order):
                changed = values[1:] != values[:-1]
                new[1:] = changed if name == "place" else new[1:] | changed
        heads = np.flatnonzero(new)
        self.record_metric("once", float((np.diff(np.append(heads, len(order))) == 1).sum()))
        best = order[np.repeat(heads, np.diff(np.append(heads, len(order))))][~new]
        lost = order[~new]
        made = pa.table(
            {
                "number": array(columns["number"][lost]),
                "at": array(at[lost]),
                **({"count": table["count"].take(array(lost))} if "count" in table.column_names else {}),
                "witness": array(columns["number"][best]),
                "witness_id": table["id"].take(array(best)),
            }
        )
        record = self.write_by_batch(storage.join(self.path, f"{task.task_id}.arrow"), made)
        self.record_output(record)
        return FileGroupTask(data=[record.path], dataset_name=task.dataset_name)


@dataclass(kw_only=True, eq=False, repr=False)
class RepeatParameters:
    """The treatment of documents that repeat parts of others.

    ``mode``: ``cut`` removes the repeats; ``annotate`` adds the share of characters in ``share_column`` and the places
    in ``spans_column``; ``drop`` drops the document if the share is above ``max_share``. If ``max_share`` is given,
    ``cut`` also drops such documents.
    """

    mode: Mode = "cut"
    max_share: float | None = None
    replacement: str = ""
    share_column: str = "repeated_share"
    spans_column: str = "repeated_spans"

    def check_repeats(self) -> None:
        """Raise `UsageError` if a value makes no sense."""
        owner = type(self).__name__
        if self.mode not in MODES:
            raise UsageError(f"{owner}.mode must be one of {', '.join(MODES)}, not {self.mode!r}")
        share = self.max_share
        if share is not None and (isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1):
            raise UsageError(f"{owner}.max_share must be a number from 0 to 1, not {share!r}")
        if self.mode == "drop" and share is None:
            raise UsageError(f"{owner}.mode 'drop' needs max_share: the share of a document above which it is dropped")
        if not isinstance(self.replacement, str):
            raise UsageError(f"{owner}.replacement must be text, not {self.replacement!r}")
        for name in ("share_column", "spans_column"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise UsageError(f"{owner}.{name} must be the name of a column, not {getattr(self, name)!r}")


@dataclass(kw_only=True)
class ApplyRepeats(RepeatParameters, ProcessingStage[DocumentBatch, DocumentBatch]):
    """Applies `RepeatParameters` to the repeats of each document; it must directly follow the reader.

    ``spans`` is a folder for a table of the repeats.
    """

    path: str
    keys: str
    spans: str
    column: str = "text"
    unit: Unit | None = None  # length of the repeats; for runs of words, their table has the number of words
    least: int = 1
    id_column: str | None = "id"
    reader: str | None = None  # recorded in the table of spans, so that the documents can be read again

    tried_by_plan = False  # a preview of the data has different batches than a run

    def __post_init__(self) -> None:
        self.check_repeats()
        self.shows_kept = self.mode != "annotate"

    def inputs(self) -> list[str]:
        return [self.column]

    def outputs(self) -> list[str]:
        return {"annotate": [self.share_column, self.spans_column], "cut": [self.column]}.get(self.mode, [])

    def output_folder(self) -> str:
        return self.spans

    def repacks(self) -> bool:
        return False

    def setup(self, worker: Any) -> None:
        self._roll = Roll.read(storage.join(self.keys, ROLL))
        self._inputs = Inputs.read(self.keys)
        self._repeats = BatchRows(self.path, len(self._roll))

    def process(self, task: DocumentBatch) -> DocumentBatch:
        if self.mode == "annotate":
            check_free(type(self).__name__, task.column_names, self.outputs())
        if self._inputs is not None:
            self._inputs.require_same(task)
        numbers = self._roll.numbers_of(task)
        about = self._repeats.of(int(batches_of(numbers[:1])[0])) if task.num_rows else None
        column = column_of(task.to_pyarrow(), self.column)
        texts: list[str | None] = only_texts(column).to_pylist()
        shares = np.zeros(task.num_rows)
        found: dict[int, list[tuple[int, int]]] = {}
        if about is not None and about.num_rows:
            found = self._spans_of(texts, about)
            self._write(task, numbers, texts, found, about)
        for row, spans in found.items():
            shares[row] = sum(end - start for start, end in spans) / max(1, len(texts[row] or ""))
        if self.mode == "annotate":
            places = array([[list(span) for span in found.get(row, [])] for row in range(task.num_rows)], _NOTE)
            return task.append_column(self.share_column, array(shares)).append_column(self.spans_column, places)
        keep = np.ones(task.num_rows, np.bool_)
        if self.max_share is not None:
            beyond = shares > self.max_share
            self.record_scored("repeated_share", "max_share", shares, np.abs(shares - self.max_share))
            self.record_dropped("repeats too much", int(beyond.sum()), which=np.flatnonzero(beyond))
            keep &= ~beyond
        if self.mode == "cut" and found:
            cut = {row: without(texts[row] or "", spans, self.replacement) for row, spans in found.items()}
            empty = np.array([row for row, left in sorted(cut.items()) if keep[row] and not left.strip()], np.int64)
            keep[empty] = False
            self.record_dropped("nothing new in it", len(empty), which=empty)
            task = task.append_column(self.column, texts_put_back(column, cut))
        return task if keep.all() else task.filter(array(keep))

    def _spans_of(self, texts: Sequence[str | None], about: pa.Table) -> dict[int, list[tuple[int, int]]]:
        rows = rows_of(to_numpy(about["number"]))
        at = to_numpy(about["at"]).astype(np.int64)
        order = np.lexsort((at, rows))
        rows, at = rows[order], at[order]
        last = at + to_numpy(about["count"])[order] if self.unit is None else at
        begins = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
        found = {}
        ends = np.append(begins[1:], len(rows))
        for row, begin, end in zip(rows[begins].tolist(), begins.tolist(), ends.tolist(), strict=True):
            text = texts[row] or ""
            if self.unit is None:
                found[row] = spans_of_runs(text, at[begin:end], last[begin:end])
            else:
                found[row] = spans_of_lines(text, at[begin:end], self.unit, self.least)
        return found

    def _write(
        self,
        task: DocumentBatch,
        numbers: NDArray[np.uint64],
        texts: Sequence[str | None],
        found: Mapping[int, Sequence[tuple[int, int]]],
        about: pa.Table,
    ) -> None:
        """Write the spans of a batch to its part of the table, each with the document that contains its first unit."""
        rows, places = [], []
        rows_about = rows_of(to_numpy(about["number"]))
        first = np.lexsort((to_numpy(about["at"]), rows_about))
        _, head = np.unique(rows_about[first], return_index=True)
        witness = dict(zip(rows_about[first][head].tolist(), first[head].tolist(), strict=True))
        for row, spans in found.items():
            for start, end in spans:
                rows.append(row)
                places.append((start, end, (texts[row] or "")[start:end][:_SHOWN], witness[row]))
        ids = ids_of(self, task.to_pyarrow(), self.id_column)
        at = array(np.array(rows, np.int64))
        sources, source_rows = self._roll.places(numbers[rows])
        which = np.array([place[3] for place in places], np.int64)
        witness_sources, witness_rows = self._roll.places(to_numpy(about["witness"])[which])
        made = pa.table(
            [
                ids.take(at),
                sources,
                array(source_rows),
                array([place[0] for place in places], pa.int64()),
                array([place[1] for place in places], pa.int64()),
                about["witness_id"].take(array(which)),
                witness_sources,
                array(witness_rows),
                array([place[2] for place in places], pa.string()),
            ],
            schema=SPANS,
        )
        with storage.write_atomic(storage.join(self.spans, f"{task.task_id or 'batch'}.parquet")) as out:
            pq.write_table(made, out)
        self.record_output(out.record(rows=0))  # its rows are no documents

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        write_settings(self.spans, {"column": self.column, "reader": self.reader})


def without(text: str, spans: Sequence[tuple[int, int]], replacement: str) -> str:
    """A text without some of its parts."""
    pieces, done = [], 0
    for start, end in spans:
        pieces.append(text[done:start])
        done = end
    pieces.append(text[done:])
    return replacement.join(pieces)
