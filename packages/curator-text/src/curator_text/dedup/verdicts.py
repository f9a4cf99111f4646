"""Decides about the documents of each group by comparing them in order of preference."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.copies import PartitionStage
from curator_core.across.decided import decided_rows
from curator_core.across.shuffle import MANIFEST, partition_tables
from curator_core.arrow.arrays import array, distinct, ranges_within, to_numpy
from curator_core.model.task import FileGroupTask
from curator_text.dedup.blocks import BLOCK_WORDS, decide_in_blocks
from curator_text.dedup.compare import Decisions, Rule, RuleKind
from curator_text.dedup.keys import SketchParameters
from curator_text.dedup.sketch import band_keys
from curator_text.dedup.texts_in_order import HeldTexts, StoredTexts, TextsInOrder
from curator_text.dedup.words import Bools, Ints, Kind, Words, joined, shingles_of, taken

_WORDS = ["words", "marks"]
# How many words and sketch numbers are in memory while shared keys are counted.
_SKETCHED = 1 << 20


@dataclass(kw_only=True, eq=False, repr=False)
class RuleParameters:
    """The rule by which a document is removed for a witness."""

    rule: RuleKind = "nothing_new"
    threshold: float | None = None
    max_new_words: int = 12

    def the_rule(self) -> Rule:
        """The checked rule. The default ``threshold`` is 0.8, but 0.98 for containment, which is its only condition."""
        usual = 0.98 if self.rule == "containment" else 0.8
        return Rule(self.rule, usual if self.threshold is None else self.threshold, self.max_new_words)


@dataclass(kw_only=True)
class DecideGroups(RuleParameters, SketchParameters, PartitionStage):
    """Decides about the groups in one partition of texts; the decisions are partitioned by batch.

    Keys and ids of all documents of the partition are in memory, and up to ``memory_words`` words. If there are more
    words, they are sorted into the order of preference in a temporary file and compared block by block. ``old_texts``
    are the texts of an index. They come first and stay.
    """

    memory_words: ClassVar[int] = BLOCK_WORDS

    old_texts: str | None = None

    def process(self, task: FileGroupTask) -> FileGroupTask:
        table, counts, words = self._read(task)
        names = ("number", "group", "copy_of", "hash_high", "hash_low", *self.preference().names)
        columns = {name: to_numpy(table[name]) for name in names}
        table = table.select(["number", "id", "collection"])
        old = self._old.are_old(columns["number"])
        order = self.preference().sort(columns, within=[columns["group"], (~old).astype(np.uint64)])
        # Only documents that are not exact copies are compared, in order of preference; exact copies have no words
        # here.
        whole = order[columns["number"][order] == columns["copy_of"][order]]
        with contextlib.ExitStack() as stack:
            texts: TextsInOrder
            if words is not None:
                texts = HeldTexts(taken(words, whole))
            else:
                texts = stack.enter_context(self._stored(task, whole, counts))
            found, shared = self._decided(texts, columns["group"][whole], old[whole])
            return self.write_decided(task, self._rows(table, columns, order, whole, found, shared))

    def _read(self, task: FileGroupTask) -> tuple[pa.Table, Ints, Words | None]:
        """The rows of a partition without their words, the number of words of each, and the words if they fit."""
        rows: list[pa.Table] = []
        counts = [np.zeros(0, np.int64)]
        held: list[Words] = []
        total = copied = 0
        for table in self._tables(task):
            words = _words(table, self.unit)
            counts.append(words.counts)
            total += len(words.hashes)
            held.append(words)
            rows.append(table.drop_columns(_WORDS))
            if total > self.memory_words:
                # Copy the rows, because a slice of a record batch keeps the whole batch in memory.
                rows[copied:] = map(_copied, rows[copied:])
                copied = len(rows)
                held.clear()
        return (
            pa.concat_tables(rows, promote_options="default").unify_dictionaries(),
            np.concatenate(counts),
            joined(held) if total <= self.memory_words else None,
        )

    def _tables(self, task: FileGroupTask) -> Iterator[pa.Table]:
        tasks = [task]
        if self.old_texts is not None:
            # Both folders have the same number of partitions, and each group contains new documents.
            tasks.append(replace(task, data=[storage.join(self.old_texts, MANIFEST)]))
        for one in tasks:
            for _, table in partition_tables(one):
                yield table

    def _stored(self, task: FileGroupTask, whole: Ints, counts: Ints) -> StoredTexts:
        """The words of these rows in a temporary file."""
        storage.make_folder(self.path)
        texts = StoredTexts(counts[whole], self._folder(), max(self.memory_words // 2, 1), kind=self.unit)
        places = np.full(len(counts), -1)
        places[whole] = np.arange(len(whole))
        first = 0
        for table in self._tables(task):
            there = places[first : first + table.num_rows]
            some = np.flatnonzero(there >= 0)
            texts.write(there[some], taken(_words(table, self.unit), some))
            first += table.num_rows
        texts.settle()
        return texts

    def _folder(self) -> str | None:
        """The folder for temporary files, or None for the default."""
        return storage.local_path(self.path) if storage.is_local(self.path) else None

    def _decided(self, texts: TextsInOrder, groups: NDArray[np.uint64], old: Bools) -> tuple[Decisions, Ints]:
        """The decisions about documents, and the number of keys that each removed document shares with its witness."""
        shared = np.zeros(len(groups), np.int64)

        def count(words: Words, documents: Ints, witnesses: Ints, rows: Ints) -> None:
            shared[rows] = self._shared(words, documents, witnesses)

        found = decide_in_blocks(
            texts,
            groups,
            self.the_rule(),
            size=self.shingle,
            old=old,
            among_new=self.against != "index",
            block_words=self.memory_words,
            report=count,
            folder=self._folder(),
        )
        return found, shared

    def _rows(
        self,
        table: pa.Table,
        columns: Mapping[str, NDArray[np.uint64]],
        order: Ints,
        whole: Ints,
        found: Decisions,
        shared: Ints,
    ) -> Iterator[pa.Table]:
        """The rows of the table of decisions, from decisions about the rows ``whole``."""
        numbers, copy_of = columns["number"], columns["copy_of"]
        gone = found.witness >= 0
        witness_of = np.where(gone, found.witness, np.arange(len(whole)))  # or itself if it stays
        # The place of the original of each row; its own place if it is not a copy.
        by_number = np.argsort(numbers[whole])
        itself = by_number[np.searchsorted(numbers[whole][by_number], copy_of[order])]
        lost = np.flatnonzero((numbers[order] != copy_of[order]) | gone[itself])
        removed, itself = order[lost], itself[lost]
        near = gone[itself]
        witnesses = whole[witness_of[itself]]
        figures = {
            "jaccard": np.where(near, found.jaccard[itself], 1.0),
            "containment": np.where(near, found.containment[itself], 1.0),
            "new_words": np.where(near, found.new_words[itself], 0),
            "shared_bands": np.where(near, shared[itself], self.bands),
        }
        rules = pa.DictionaryArray.from_arrays(array(near.astype(np.int32)), array(["exact", self.rule], pa.string()))
        return decided_rows(
            numbers[removed],
            numbers[witnesses],
            names=table,
            at=removed,
            witness_at=witnesses,
            figures=figures,
            rules=rules.dictionary_decode(),
            copy_at=np.where(near, whole[itself], removed),
            component_sizes=_sizes(columns["group"], order),
        )

    def _shared(self, words: Words, documents: Ints, witnesses: Ints) -> Ints:
        """The number of keys that each removed document shares with its witness."""
        shared = np.zeros(len(documents), np.int64)
        work = words.counts[documents] + words.counts[witnesses] + self.bands * self.rows
        for first, last in ranges_within(work, _SKETCHED):
            ours, theirs = documents[first:last], witnesses[first:last]
            asked = distinct(np.concatenate([ours, theirs]))
            shingles = shingles_of(taken(words, asked), size=self.shingle)
            keys = band_keys(shingles, bands=self.bands, rows=self.rows, seed=self.seed)
            same = keys[np.searchsorted(asked, ours)] == keys[np.searchsorted(asked, theirs)]
            shared[first:last] = np.count_nonzero(same, axis=1)
        return shared


def _words(lists: pa.Table, kind: Kind) -> Words:
    """The words or characters of all rows. The marks of a row are null if none of its words is marked."""
    hashes, offsets = _flat(lists["words"])
    marks = lists["marks"]
    if marks.null_count == len(marks):
        return Words(hashes, offsets, None, kind)
    there = np.zeros(len(hashes), np.bool_)
    counts = np.diff(offsets)
    marked = np.repeat(to_numpy(marks.is_valid()), counts)
    there[marked] = _flat(marks.filter(marks.is_valid()))[0]
    return Words(hashes, offsets, there, kind)


def _flat(lists: pa.ChunkedArray) -> tuple[NDArray[Any], NDArray[np.int64]]:
    whole = lists.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0) if whole.num_chunks else array([], lists.type)
    offsets = to_numpy(whole.offsets).astype(np.int64)
    return to_numpy(whole.values)[offsets[0] : offsets[-1]], offsets - offsets[0]


def _copied(table: pa.Table) -> pa.Table:
    """A copy of the rows."""
    return table.take(array(np.arange(table.num_rows)))


def _sizes(groups: NDArray[np.uint64], order: Ints) -> Ints:
    """The number of rows in the group of each row; ``order`` brings the rows of a group together."""
    ordered = groups[order]
    heads = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(groups) else np.zeros(0, np.int64)
    counts = np.diff(np.append(heads, len(groups)))
    sizes = np.empty(len(groups), np.int64)
    sizes[order] = np.repeat(counts, counts)
    return sizes
