"""Workflows that find repeated spans and lines in a corpus and keep one of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from curator_core import storage
from curator_core.across.documents import DocumentParameters
from curator_core.across.shuffle import Partitions
from curator_core.errors import UsageError, check_whole
from curator_core.pipeline import Pipeline
from curator_core.workflow import Step, Workflow
from curator_core.workflows.ends import Ends
from curator_core.workflows.pairs import reader_text
from curator_core.workflows.pieces import pieces_of
from curator_text.repeats.stages import (
    ANCHORS,
    ApplyRepeats,
    FilterRepeated,
    FindRepeatedAnchors,
    FindRepeats,
    RepeatParameters,
    WriteAnchors,
    WriteLines,
    WriteUnitHashes,
    WriteWindows,
)
from curator_text.repeats.units import UNITS, Unit

_SPANS = "spans"
_WORDS = 50


@dataclass(kw_only=True)
class _Repeats(RepeatParameters, DocumentParameters, Ends):
    """Base of workflows that cut repeats."""

    sure_paths: ClassVar[tuple[str, ...]] = ("spans",)

    spans: str | None = None
    partitions: int | None = None

    def __post_init__(self) -> None:
        self.check_ends()
        self.check_repeats()
        self.check_documents()
        owner = type(self).__name__
        check_whole(f"{owner}.partitions", self.partitions, optional=True)
        if self.path is None and self.writer is None:
            raise UsageError(f"{owner} writes the documents that stay, so give a path or a writer")

    def _documents(self) -> dict[str, Any]:
        names = ("column", "id_column", "keep", "collection_column", "scope", "normalize")
        return {**{name: getattr(self, name) for name in names}, "bases": list(self.bases or self._input_folders())}

    def _apply(self, work_dir: str, keys: str, repeats: str, **units: Any) -> Step:
        names = ("mode", "max_share", "replacement", "share_column", "spans_column", "column", "id_column")
        spans = self.spans or storage.join(storage.parent(work_dir), _SPANS)
        how = {name: getattr(self, name) for name in names}
        apply = ApplyRepeats(**how, **units, path=repeats, keys=keys, spans=spans, reader=reader_text(self._reader()))
        writer = self._writer()
        assert writer is not None  # checked at the beginning
        return Step(Pipeline([self._reader(), apply, writer], name="apply"), frees=[work_dir], counts=True)


@dataclass(kw_only=True)
class SubstringDedup(_Repeats):
    """Finds all runs of at least ``words`` words (50), or of at least ``characters`` characters, that occur more than
    once in the corpus, and keeps one of each.

    Case and punctuation are ignored when words are compared. Among equal runs, the first one in the preferred document
    (by ``keep``) stays; ``mode`` decides whether the others are cut out or marked, or whether their documents are
    dropped. Overlapping runs are cut as one, and no word is ever split. A run that stays may overlap with one that is
    cut; their common part then remains in a third document.

    The table of spans, ``spans/`` in the run directory or the folder ``spans``, has the place of each span in
    characters, and the document in which its beginning stays.
    """

    # Disk space: an anchor of twenty bytes for about every thirteen words.
    disk_of_input = 0.25

    words: int | None = None
    characters: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("words", "characters"):
            check_whole(f"SubstringDedup.{name}", getattr(self, name), optional=True)
        if self.words is not None and self.characters is not None:
            raise UsageError(
                f"SubstringDedup measures runs in words ({self.words!r}) or in characters ({self.characters!r}): give one of the two"
            )
        if self.normalize:
            raise UsageError("SubstringDedup.normalize is not needed: words are compared without case and punctuation")
        if self.scope != "global":
            raise UsageError("SubstringDedup compares all documents: scope must be 'global'")

    def steps(self, work_dir: str) -> Iterator[Pipeline | Workflow | Step]:
        keys, repeated, windows, repeats = (
            storage.join(work_dir, name) for name in ("keys", "repeated", "windows", "repeats")
        )
        documents, count = self._documents(), self.partitions or pieces_of(self._input_bytes())
        pieces: dict[str, Any] = {"keys": keys, "keep": self.keep, "parts": count}
        length = self.words or self.characters or _WORDS
        runs_of: dict[str, Any] = {"length": length, "characters": self.characters is not None}
        write = WriteAnchors(**documents, **runs_of, path=keys, partitions=count)
        yield from self._whole(Pipeline([self._reader(), write], name="anchors"), work_dir)
        anchors = storage.join(keys, ANCHORS)
        find = FindRepeatedAnchors(**pieces, path=repeated)
        yield Step(Pipeline([Partitions(path=anchors), find], name="repeated-anchors"), frees=[anchors])
        runs = WriteWindows(**documents, **runs_of, path=windows, keys=keys, repeated=repeated, partitions=count)
        yield from self._whole(Step(Pipeline([self._reader(), runs], name="runs"), frees=[repeated]), work_dir)
        decide = FindRepeats(**pieces, path=repeats)
        yield Step(Pipeline([Partitions(path=windows), decide], name="repeats"), frees=[windows])
        step = self._apply(work_dir, keys, repeats)
        yield step


@dataclass(kw_only=True)
class LineDedup(_Repeats):
    """Finds lines, paragraphs or spans of three sentences that occur more than once in the corpus, and keeps one of
    each.

    ``unit`` is ``line``, ``paragraph`` (between blank lines, as in CCNet) or ``three_sentences`` (as in C4). Units of
    fewer than ``least`` characters are ignored. With ``normalize``, case, white space and punctuation do not count.
    Among equal units, the first one in the preferred document (by ``keep``) stays; ``mode`` decides about the others.
    The table of spans has the same form as that of `SubstringDedup`.

    With ``false_rate``, such as 0.01, a Bloom filter of repeated units is made first, and only units that it may
    contain are written and compared. This reads the input once more, and saves most of the disk space if most units
    occur once; ``false_rate`` is the share of these units that are compared needlessly. The result is the same, because
    the filter itself removes nothing.
    """

    # Disk space: a hash, a place and the order of preference for each line.
    disk_of_input = 0.5

    unit: Unit = "line"
    least: int = 20
    false_rate: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit not in UNITS:
            raise UsageError(f"LineDedup.unit must be one of {', '.join(UNITS)}, not {self.unit!r}")
        check_whole("LineDedup.least", self.least)
        rate = self.false_rate
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1):
            raise UsageError(f"LineDedup.false_rate must be a number between 0 and 1, not {rate!r}")
        if self.scope != "global":
            raise UsageError("LineDedup compares all documents: scope must be 'global'")

    def steps(self, work_dir: str) -> Iterator[Pipeline | Workflow | Step]:
        keys, repeats, hashes, filters = (
            storage.join(work_dir, name) for name in ("keys", "repeats", "hashes", "filters")
        )
        documents, count = self._documents(), self.partitions or pieces_of(self._input_bytes())
        units: dict[str, Any] = {"unit": self.unit, "least": self.least}
        write = WriteLines(**documents, **units, path=keys, partitions=count)
        if self.false_rate is None:
            yield from self._whole(Pipeline([self._reader(), write], name="units"), work_dir)
        else:
            hashed = WriteUnitHashes(**documents, **units, path=hashes, partitions=count)
            yield from self._whole(Pipeline([self._reader(), hashed], name="hashes"), work_dir)
            places = storage.join(hashes, ANCHORS)
            make = FilterRepeated(
                keys=hashes, keep=self.keep, parts=count, path=filters, false_rate=float(self.false_rate)
            )
            yield Step(Pipeline([Partitions(path=places), make], name="filter"), frees=[places])
            write = replace(write, filters=filters, hashes=hashes)
            yield from self._whole(Step(Pipeline([self._reader(), write], name="units"), frees=[filters]), work_dir)
        lines = storage.join(keys, ANCHORS)
        decide = FindRepeats(keys=keys, keep=self.keep, parts=count, path=repeats)
        yield Step(Pipeline([Partitions(path=lines), decide], name="repeats"), frees=[lines])
        step = self._apply(work_dir, keys, repeats, **units)
        yield step
