"""The stage that removes overlaps with test sets from documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from curator_core import storage
from curator_core.arrow.arrays import array
from curator_core.arrow.json_column import as_text
from curator_core.arrow.row_hash import column_of
from curator_core.errors import UsageError, check_free, check_whole
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import DocumentBatch, FileRecord
from curator_text._columns import texts_put_back
from curator_text.decontaminate.counts import frequent_ngrams
from curator_text.decontaminate.overlaps import Overlap, Rule, overlap_of, without
from curator_text.decontaminate.parameters import TestSetParameters
from curator_text.decontaminate.report import REPORT, make_report, part_of, report_table, write_json

MODES = ("drop", "cut", "annotate")
OVERLAPS = pa.list_(
    pa.struct(
        [
            ("test_set", pa.string()),
            ("item", pa.string()),
            ("share", pa.float64()),
            ("offsets", pa.list_(pa.list_(pa.int64()))),
        ]
    )
)


@dataclass(kw_only=True, eq=False, repr=False)
class OverlapParameters(TestSetParameters):
    """The parameters that decide which overlaps count, and what happens to a document with overlaps."""

    mode: Literal["drop", "cut", "annotate"] = "drop"
    min_share: float = 0.0
    certain_share: float | None = 0.8
    max_documents: int = 10
    margin: int = 200
    replacement: str = "\n\n"
    max_cuts: int | None = 10
    score_column: str = "overlap_share"
    output_column: str = "overlaps"
    id_column: str = "id"
    report_path: str | None = None

    def check_overlaps(self) -> None:
        self.check_test_sets()
        owner = type(self).__name__
        if self.mode not in MODES:
            raise UsageError(f"{owner}.mode must be one of {', '.join(MODES)}, not {self.mode!r}")
        _check_share(f"{owner}.min_share", self.min_share)
        if self.certain_share is not None:
            _check_share(f"{owner}.certain_share", self.certain_share)
        check_whole(f"{owner}.max_documents", self.max_documents)
        check_whole(f"{owner}.margin", self.margin, least=0)
        check_whole(f"{owner}.max_cuts", self.max_cuts, optional=True)
        if not isinstance(self.replacement, str):
            raise UsageError(f"{owner}.replacement must be text, not {self.replacement!r}")
        for name in ("score_column", "output_column", "id_column"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise UsageError(f"{owner}.{name} must be the name of a column, not {getattr(self, name)!r}")
        if self.score_column == self.output_column:
            raise UsageError(
                f"{owner}.score_column and output_column are both {self.score_column!r}: give them different names"
            )
        if self.report_path is not None and (not isinstance(self.report_path, str) or not self.report_path):
            raise UsageError(f"{owner}.report_path must be a folder or URL to write to, not {self.report_path!r}")


@dataclass(kw_only=True)
class Decontaminate(OverlapParameters, ProcessingStage[DocumentBatch, DocumentBatch]):
    """Drops documents that contain part of an item of a test set, or cuts the part out, or marks it.

    ``test_sets`` maps the name of each test set to its files: JSON lines, Parquet, or text with an item in each line. A
    value is a path, a pattern, a list of these, or ``{paths: …, fields: [question, choices], id: question_id}``
    (documents are searched for the texts in ``fields``, by default ``text``). Words are compared without case and
    punctuation. A document overlaps with an item if it shares a run of ``words`` words with one of its texts; a shorter
    text must occur whole, and a text of fewer than ``min_words`` words is ignored. ``min_share`` is the share of the
    item's words that must occur.

    ``mode``: ``drop`` drops the document, with the test set in the reason; ``cut`` removes the overlaps with ``margin``
    characters on both sides, in whole words, and puts ``replacement`` in their place; it drops a document that would
    need more than ``max_cuts`` cuts or would be empty; ``annotate`` adds the largest share of an item in
    ``score_column``, and in ``output_column`` the test set, id, share and places of each item (``offsets``: pairs of
    the first character and the character after the last).

    ``counts_path`` is the folder of `CountTestNgrams`. With it, n-grams that occur in more than ``max_documents``
    documents do not count, unless a document contains ``certain_share`` of a longer item. ``report_path`` is a folder
    for a report by test set, which names documents by ``id_column`` if that is given. The index of the test sets must
    fit into ``memory``.
    """

    counts_path: str | None = None

    _report: dict[str, Any] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.check_overlaps()
        self.shows_kept = self.mode == "drop"
        if self.counts_path is not None and (not isinstance(self.counts_path, str) or not self.counts_path):
            raise UsageError(
                f"Decontaminate.counts_path must be the folder of CountTestNgrams, not {self.counts_path!r}"
            )

    def inputs(self) -> list[str]:
        return [self.column]

    def outputs(self) -> list[str]:
        if self.mode == "annotate":
            return [self.score_column, self.output_column]
        return [self.column] if self.mode == "cut" else []

    def describe(self) -> str:
        what = {
            "drop": "drops documents that contain part of",
            "cut": "cuts parts out of documents that overlap with",
            "annotate": "drops nothing; marks documents that overlap with",
        }
        return f"{what[self.mode]} {', '.join(self.test_sets)}"

    def output_folder(self) -> str | None:
        return self.report_path

    def repacks(self) -> bool:
        return False

    def setup(self, worker: WorkerMetadata) -> None:
        self.rule()

    def rule(self) -> Rule:
        """The rule for overlaps, including the set of frequent n-grams."""
        if "_rule" not in self.__dict__:
            frequent = None
            if self.counts_path is not None:
                frequent = frequent_ngrams(self.counts_path, self.index(), self.max_documents)
            object.__setattr__(self, "_rule", Rule(self.min_share, self.certain_share, frequent))
        self.index()
        made: Rule = self.__dict__["_rule"]
        return made

    def overlaps(self, texts: pa.Array | pa.ChunkedArray) -> list[Overlap]:
        """The overlaps between the texts of an Arrow array and the test sets, by row."""
        rule, index = self.rule(), self.index()
        found = (overlap_of(hits, index, rule) for hits in index.find(texts))
        return [overlap for overlap in found if overlap is not None]

    def process(self, task: DocumentBatch) -> DocumentBatch:
        if self.mode == "annotate":
            check_free(type(self).__name__, task.column_names, self.outputs())
        overlaps = self.overlaps(self.texts_in(task))
        if overlaps:
            self.record_metric("overlapping", len(overlaps))
            if self.report_path is not None:
                self._write_part(self.report_path, task, overlaps)
        if self.mode == "annotate":
            return self._annotated(task, overlaps)
        if not overlaps:
            return task
        return self._cut(task, overlaps) if self.mode == "cut" else self._dropped(task, overlaps)

    def _dropped(self, task: DocumentBatch, overlaps: Sequence[Overlap]) -> DocumentBatch:
        index = self.index()
        shares = np.full(task.num_rows, np.nan)
        for overlap in overlaps:
            test_set = index.test_sets[index.set_of[overlap.found[0].item]]
            self.record_dropped(f"test set {test_set}", which=overlap.row, of=task)
            shares[overlap.row] = overlap.found[0].share
        self.record_scored("overlap_share", "min_share", shares, shares - self.min_share)
        return task.filter(_all_but(task, [overlap.row for overlap in overlaps]))

    def _cut(self, task: DocumentBatch, overlaps: Sequence[Overlap]) -> DocumentBatch:
        cut: dict[int, str | None] = {}
        gone: list[int] = []
        for overlap in overlaps:
            left, cuts = without(overlap.hits.text, overlap, self.margin, self.replacement)
            if left is None or (self.max_cuts is not None and cuts > self.max_cuts):
                self.record_dropped(
                    "nothing left of it" if left is None else "too many cuts", which=overlap.row, of=task
                )
                gone.append(overlap.row)
            else:
                cut[overlap.row] = left
        task = task.append_column(self.column, texts_put_back(column_of(task.to_pyarrow(), self.column), cut))
        return task.filter(_all_but(task, gone)) if gone else task

    def _annotated(self, task: DocumentBatch, overlaps: Sequence[Overlap]) -> DocumentBatch:
        index = self.index()
        shares = np.zeros(task.num_rows, np.float64)
        notes: list[list[dict[str, Any]]] = [[] for _ in range(task.num_rows)]
        for overlap in overlaps:
            shares[overlap.row] = overlap.found[0].share
            notes[overlap.row] = [
                {
                    "test_set": index.test_sets[index.set_of[found.item]],
                    "item": index.items[found.item],
                    "share": found.share,
                    "offsets": [list(span) for span in found.spans],
                }
                for found in overlap.found
            ]
        task = task.append_column(self.score_column, array(shares))
        return task.append_column(self.output_column, pa.array(notes, OVERLAPS))

    # The report ---------------------------------------------------------------------------------------------------

    def _write_part(self, folder: str, task: DocumentBatch, overlaps: Sequence[Overlap]) -> None:
        table = task.to_pyarrow()
        places = []
        for overlap in overlaps:
            place: dict[str, Any] = {"batch": task.task_id, "row": overlap.row}
            if self.id_column in table.column_names:
                place["id"] = as_text(table[self.id_column].slice(overlap.row, 1).combine_chunks())[0].as_py()
            places.append(place)
        path = storage.join(folder, f"{task.task_id or 'batch'}.json")
        self.record_output(write_json(path, part_of(overlaps, self.index(), places)))

    def finish(self, outputs: Sequence[FileRecord]) -> list[FileRecord] | None:
        if self.report_path is None:
            return None
        about = {
            "words": self.words,
            "min_words": self.min_words,
            "max_documents": self.max_documents if self.counts_path is not None else None,
            "mode": self.mode,
            "finds": _finds(self.words, self.min_words),
        }
        self._report = make_report([record.path for record in outputs], self.index(), self.rule(), about)
        return [*outputs, write_json(storage.join(self.report_path, REPORT), self._report)]

    def conclusion(self) -> str:
        """The report as a table, after `finish` has made it."""
        if self.report_path is None or self._report is None:
            return ""
        return f"{report_table(self._report)}\nexamples with their places: {storage.join(self.report_path, REPORT)}"


def _finds(words: int, min_words: int) -> str:
    """A note for readers of the report on what these n-grams can find, and what they cannot."""
    return (
        f"Found are runs of {words} words that a document and a text of an item share, regardless of case and "
        f"punctuation, and texts of {min_words} to {words - 1} words as a whole. Not found are texts of fewer than "
        f"{min_words} words (items without a longer text are counted as too short), paraphrases, translations, and "
        f"copies in which one word in every {words} is changed. Common phrases and quotations are also found: see "
        "the shares and examples."
    )


def _all_but(task: DocumentBatch, rows: Sequence[int]) -> pa.Array:
    keep = np.ones(task.num_rows, np.bool_)
    keep[list(rows)] = False
    return array(keep)


def _check_share(what: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UsageError(f"{what} must be a number from 0 to 1, not {value!r}")
