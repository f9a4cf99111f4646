"""Decides about the documents of each group by comparing them in order of preference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.copies import PartitionStage
from curator_core.across.decided import decided_rows
from curator_core.across.shuffle import MANIFEST, partition_pieces
from curator_core.arrow.arrays import array, to_numpy
from curator_core.model.task import FileGroupTask
from curator_text.dedup.blocks import decide_in_blocks, taken
from curator_text.dedup.compare import Rule, RuleKind
from curator_text.dedup.keys import SketchParameters
from curator_text.dedup.sketch import band_keys
from curator_text.dedup.words import Words, shingles_of


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

    ``old_texts`` are the texts of an index. They come first and stay.
    """

    old_texts: str | None = None

    def process(self, task: FileGroupTask) -> FileGroupTask:
        pieces = [piece for _, piece in partition_pieces(task)]
        if self.old_texts is not None:
            # Both folders have the same number of partitions, and each group contains new documents.
            theirs = replace(task, data=[storage.join(self.old_texts, MANIFEST)])
            pieces += [piece for _, piece in partition_pieces(theirs)]
        table = pa.concat_tables(pieces, promote_options="default").unify_dictionaries()
        return self.write_decided(task, self._decided(table))

    def _decided(self, table: pa.Table) -> pa.Table:
        preference = self.preference()
        names = ("number", "group", "copy_of", "hash_high", "hash_low", *preference.names)
        columns = {name: to_numpy(table[name]) for name in names}
        old = self._old.are_old(columns["number"])
        order = preference.sort(columns, within=[columns["group"], (~old).astype(np.uint64)])
        lists, table = (
            table.select(["words", "spaceless"]),
            table.drop_columns(["words", "spaceless"]).take(array(order)),
        )
        numbers, groups, copy_of = (columns[name][order] for name in ("number", "group", "copy_of"))
        # Only documents that are not exact copies are compared; copies get the decision of their original.
        whole = np.flatnonzero(numbers == copy_of)
        words = taken(_words(lists), order[whole])
        found = decide_in_blocks(
            words,
            groups[whole],
            self.the_rule(),
            size=self.ngram,
            old=old[order][whole],
            among_new=self.against != "index",
        )
        gone = found.witness >= 0
        witness_of = np.where(
            gone, found.witness, np.arange(len(whole))
        )  # the witness of each document, or the document itself if it stays
        # The place of the original of each row; its own place if it is not a copy.
        by_number = np.argsort(numbers[whole])
        itself = by_number[np.searchsorted(numbers[whole][by_number], copy_of)]
        removed = np.flatnonzero((numbers != copy_of) | gone[itself])
        near = gone[itself[removed]]
        witness_at = whole[witness_of[itself[removed]]]
        shared = self._shared(words, np.flatnonzero(gone), found.witness[gone])
        shared_of = np.zeros(len(whole), np.int64)
        shared_of[gone] = shared
        figures = {
            "jaccard": np.where(near, found.jaccard[itself[removed]], 1.0),
            "containment": np.where(near, found.containment[itself[removed]], 1.0),
            "new_words": np.where(near, found.new_words[itself[removed]], 0),
            "shared_bands": np.where(near, shared_of[itself[removed]], self.bands),
        }
        rules = pa.DictionaryArray.from_arrays(array(near.astype(np.int32)), array(["exact", self.rule], pa.string()))
        return decided_rows(
            numbers[removed],
            numbers[witness_at],
            names=table,
            at=removed,
            witness_at=witness_at,
            figures=figures,
            rules=rules.dictionary_decode(),
            copy_at=np.where(near, whole[itself[removed]], removed),
            component_sizes=_sizes(groups),
        )

    def _shared(self, words: Words, documents: NDArray[np.int64], witnesses: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of keys that each removed document shares with its witness."""
        if not len(documents):
            return np.zeros(0, np.int64)
        asked, place = np.unique(np.concatenate([documents, witnesses]), return_inverse=True)
        shingles = shingles_of(taken(words, asked), size=self.ngram)
        keys = band_keys(shingles, bands=self.bands, rows=self.rows, seed=self.seed)
        ours, theirs = place[: len(documents)], place[len(documents) :]
        shared: NDArray[np.int64] = np.count_nonzero(keys[ours] == keys[theirs], axis=1)
        return shared


def _words(lists: pa.Table) -> Words:
    """The words of all rows; the column for scripts without spaces is null for rows that have no such words."""
    hashes, offsets = _flat(lists["words"])
    marks = lists["spaceless"]
    if marks.null_count == len(marks):
        return Words(hashes, offsets, None)
    spaceless = np.zeros(len(hashes), np.bool_)
    counts = np.diff(offsets)
    marked = np.repeat(to_numpy(marks.is_valid()), counts)
    spaceless[marked] = _flat(marks.filter(marks.is_valid()))[0]
    return Words(hashes, offsets, spaceless)


def _flat(lists: pa.ChunkedArray) -> tuple[NDArray[Any], NDArray[np.int64]]:
    whole = lists.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0) if whole.num_chunks else array([], lists.type)
    offsets = to_numpy(whole.offsets).astype(np.int64)
    return to_numpy(whole.values)[offsets[0] : offsets[-1]], offsets - offsets[0]


def _sizes(groups: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The number of rows in the group of each row; the rows of a group are adjacent."""
    heads = np.flatnonzero(np.append(True, groups[1:] != groups[:-1])) if len(groups) else np.zeros(0, np.int64)
    counts = np.diff(np.append(heads, len(groups)))
    return np.repeat(counts, counts)
