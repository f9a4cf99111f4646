"""Exact copies: which documents have the same value, and which of them is kept?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.decided import ROLL, decided_rows
from curator_core.across.digests import digests
from curator_core.across.documents import DocumentParameters
from curator_core.across.gather import batch_places
from curator_core.across.index import Against, IndexUse, OldDocuments, described, pin
from curator_core.across.inputs import noted, write_inputs
from curator_core.across.preference import Preference
from curator_core.across.roll import Roll, first_number
from curator_core.across.shuffle import finish_partitioned, partition_pieces, write_partitioned
from curator_core.arrow.arrays import array, distinct, to_numpy
from curator_core.arrow.json_column import holds_texts
from curator_core.arrow.row_hash import column_of
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch, FileGroupTask, FileRecord

EXACT = "exact"


@dataclass(kw_only=True)
class DocumentStage(DocumentParameters, ProcessingStage[DocumentBatch, FileGroupTask]):
    """Base of stages that write a file about the documents of each batch in ``path``, sorted by partition."""

    path: str
    partitions: int = 32

    def __post_init__(self) -> None:
        self.check_documents()

    def inputs(self) -> list[str]:
        return self.columns_read()

    def output_folder(self) -> str:
        return self.path

    def repacks(self) -> bool:
        return False


@dataclass(kw_only=True)
class ExactKeys(DocumentStage):
    """Writes the hash of each document, sorted by partition, and finally the roll of all batches."""

    index: Mapping[str, Any] | None = None

    def process(self, task: DocumentBatch) -> FileGroupTask:
        table, places = exact_keys(self, task, with_names=True)
        record = write_keys(self, self.path, task, EXACT, table, places)
        return FileGroupTask(data=[record.path], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        finish_keys(self.path, outputs, [EXACT], self.index, type(self).__name__)


def exact_keys(
    stage: DocumentParameters, task: DocumentBatch, *, with_names: bool
) -> tuple[pa.Table, NDArray[np.uint64]]:
    """A row for each document with a value (its hash, its row in the batch and its order of preference), and the place
    of each.
    """
    table = task.to_pyarrow()
    found = digests(column_of(table, stage.column), normalize=stage.normalize)
    collections = stage.collections(task)
    scoped = stage.scoped(found, collections)
    preference = Preference.of(stage.keep, type(stage).__name__)
    rows = np.flatnonzero(found.present)
    columns: dict[str, Any] = {
        "hash_low": array(scoped.low[rows]),
        "length": array(found.lengths[rows]),
        "row": array(rows.astype(np.uint32)),
    }
    for name, values in preference.encode(table, found.lengths, collections).items():
        columns[name] = array(values[rows])
    if with_names:
        chosen = array(rows.astype(np.int64))
        columns["id"] = stage.ids(table).take(chosen)
        columns["collection"] = collections.take(chosen)
    made = noted(pa.table(columns), task, collections, texts=holds_texts(column_of(table, stage.column).type))
    hashes = (rows, scoped.high[rows], scoped.low[rows], found.lengths[rows])
    return described(made, column_of(table, stage.column).type, hashes), scoped.high[rows]


def write_keys(
    stage: Any,
    folder: str,
    task: DocumentBatch,
    kind: str,
    table: pa.Table,
    places: NDArray[np.uint64],
    *,
    durable: bool = False,
    batch_bytes: int | None = None,
) -> FileRecord:
    """Write the keys of a batch to its file of this ``kind``. The record counts the rows of the batch, because the roll
    needs them.
    """
    path = storage.join(folder, kind, f"{task.task_id or 'batch'}.arrow")
    written = write_partitioned(path, table, places, stage.partitions, durable=durable, batch_bytes=batch_bytes)
    record = FileRecord(written.path, task.num_rows, written.bytes, written.sha256)
    stage.record_output(record)
    return record


def finish_keys(
    path: str, outputs: Sequence[FileRecord], kinds: Sequence[str], index: Mapping[str, Any] | None, owner: str
) -> list[dict[str, Any]]:
    """Write the manifests of the shuffles of each kind, the roll, the list of files read, and the runs of the ``index``
    to compare with. Return the notes of each batch.
    """
    notes: list[dict[str, Any]] = []
    for kind in kinds:
        folder = storage.join(path, kind)
        records = [record for record in outputs if storage.parent(record.path) == folder]
        finish_partitioned(folder, records)
        if kind == EXACT:
            roll = Roll.of(records)
            roll.write(storage.join(path, ROLL))
            files = [record.path for record in records]
            notes = write_inputs(files, path)
            if index is not None:
                pin(IndexUse(**index), path, roll, files, owner)
    return notes


def partition_table(task: FileGroupTask) -> pa.Table | None:
    """All rows of a partition of keys, with document numbers instead of row numbers."""
    pieces = []
    for file, piece in partition_pieces(task):
        numbers = first_number(file) + to_numpy(piece["row"])
        pieces.append(piece.drop_columns(["row"]).append_column("number", array(numbers)))
    return pa.concat_tables(pieces, promote_options="default").unify_dictionaries() if pieces else None


class Copies:
    """Find the exact copies among documents.

    ``order`` sorts the rows by hash and then by preference. In that order ``best`` gives for each row the place of the
    preferred row with the same hash and length, and ``removed`` marks all rows but the preferred ones. Documents of an
    index, ``old``, come first and are never removed. With ``among_new=False`` no document is removed as a copy of a new
    one.
    """

    def __init__(
        self, table: pa.Table, preference: Preference, old: NDArray[np.bool_] | None = None, among_new: bool = True
    ) -> None:
        if old is None:
            old = np.zeros(table.num_rows, np.bool_)
        columns = {name: to_numpy(table[name]) for name in ("place", "hash_low", "length", "number", *preference.names)}
        columns["hash_high"] = columns["place"]
        same = [columns["place"], columns["hash_low"], columns["length"]]
        self.order = preference.sort(columns, within=[*same, (~old).astype(np.uint64)])
        new = np.ones(len(self.order), np.bool_)
        if len(new):
            changes = [values[self.order][1:] != values[self.order][:-1] for values in same]
            new[1:] = np.logical_or.reduce(changes)
        starts = np.flatnonzero(new)
        self.best = np.repeat(starts, np.diff(np.append(starts, len(new))))
        self.removed = ~new & ~old[self.order]
        if not among_new:
            self.removed &= old[self.order][self.best]


def with_old_copies(table: pa.Table, old: OldDocuments, preference: Preference) -> pa.Table:
    """A partition of exact keys, with the keys of old documents that share a hash with one of them."""
    theirs = old.matching(EXACT, distinct(to_numpy(table["place"])))
    if theirs is None:
        return table
    for name in preference.names:  # old documents come first whatever the order of preference
        theirs = theirs.append_column(name, array(np.zeros(theirs.num_rows, np.uint64)))
    return pa.concat_tables([table, theirs.select(table.column_names)]).unify_dictionaries()


@dataclass(kw_only=True)
class PartitionStage(ProcessingStage[FileGroupTask, FileGroupTask]):
    """Base of stages that examine one partition of all documents and write their findings by batch.

    ``keys`` is the folder of the step that numbered the documents, and ``parts`` the number of parts to write.
    """

    path: str
    keys: str
    keep: Sequence[Any] = ("longest", "first")
    parts: int = 32
    against: Against = "self"

    def output_folder(self) -> str:
        return self.path

    def repacks(self) -> bool:
        return False

    def setup(self, worker: Any) -> None:
        self._batches = len(Roll.read(storage.join(self.keys, ROLL)))
        self._old = OldDocuments(self.keys, self._batches, compare=self.against != "self")

    def preference(self) -> Preference:
        """The order of preference."""
        return Preference.of(self.keep, type(self).__name__)

    def write_by_batch(self, path: str, table: pa.Table) -> FileRecord:
        """Write rows about documents to a file, by the batches of the documents; the caller records the file."""
        return write_partitioned(path, table, batch_places(to_numpy(table["number"]), self._batches), self.parts)

    def write_decided(self, task: FileGroupTask, decided: Iterable[pa.Table]) -> FileGroupTask:
        """Write the decisions about a partition, each table to its own file."""
        path = ""
        for number, table in enumerate(decided):
            name = f"{task.task_id}.arrow" if not number else f"{task.task_id}-{number:05d}.arrow"
            record = self.write_by_batch(storage.join(self.path, name), self._old.without_old(table))
            self.record_output(record)
            path = record.path
        return FileGroupTask(data=[path], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        finish_partitioned(self.path, outputs)


@dataclass(kw_only=True)
class DecideCopies(PartitionStage):
    """Decides about the exact copies in one partition of hashes, and writes the decisions by batch."""

    rule: str = "exact"

    def process(self, task: FileGroupTask) -> FileGroupTask:
        preference = self.preference()
        table = partition_table(task)
        assert table is not None  # only partitions with rows are tasks
        table = with_old_copies(table, self._old, preference)
        old = self._old.are_old(to_numpy(table["number"]))
        copies = Copies(table, preference, old, among_new=self.against != "index")
        lost = copies.order[copies.removed]
        best = copies.order[copies.best[copies.removed]]
        numbers = to_numpy(table["number"])
        decided = decided_rows(
            numbers[lost],
            numbers[best],
            names=table,
            at=lost,
            witness_at=best,
            figures={"jaccard": 1.0, "containment": 1.0, "new_words": 0},
            rules=array([self.rule] * len(lost), pa.string()),
        )
        return self.write_decided(task, decided)
