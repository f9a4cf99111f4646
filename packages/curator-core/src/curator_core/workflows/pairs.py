"""Which document stays for a removed one? Both are found in the table by id, and read again from the sources."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
import yaml

from curator_core.across.decisions import REMOVED, Decisions
from curator_core.across.index import INDEX
from curator_core.across.inputs import Inputs
from curator_core.arrow.arrays import scalar
from curator_core.arrow.json_column import values_of
from curator_core.config.build import build_stage
from curator_core.config.dump import dump_pipeline
from curator_core.errors import CuratorError, UsageError
from curator_core.model.places import places_of
from curator_core.model.stage import CompositeStage, ProcessingStage
from curator_core.model.task import DocumentBatch, EmptyTask, FileGroupTask
from curator_core.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a document, for people who look for it."""

    id: str | None
    files: list[str]
    source: str
    row: int

    def __str__(self) -> str:
        if self.source.startswith(INDEX):
            name = repr(self.id) if self.id is not None else f"document {self.row + 1:,}"
            return f"{name} of the index, from {self.source.removeprefix(INDEX)}"
        name = f"{self.id!r} in " if self.id is not None else ""
        return f"{name}{', '.join(self.files) or self.source}, row {self.row + 1:,}"


@dataclass(frozen=True, slots=True)
class RemovedPair:
    """The decision about a removed document, and both documents with their places. A witness in an index is None, since
    an index holds no texts. ``thumbnails`` are small JPEGs of documents that are pictures.
    """

    decision: dict[str, Any]
    document: dict[str, Any]
    place: Place
    witness: dict[str, Any] | None
    witness_place: Place
    thumbnails: tuple[bytes | None, bytes | None] = (None, None)


def reader_text(reader: ProcessingStage[Any, Any]) -> str | None:
    """A reader as stored in the table's settings; None for a reader that exists only in its own process."""
    with contextlib.suppress(CuratorError):
        return dump_pipeline(Pipeline([reader]))
    return None


def removed_pair(folder: str, wanted: str) -> RemovedPair:
    """The removed document with the id ``wanted``, or at ``SOURCE:ROW``, and its witness.

    ``folder`` contains the table of decisions. The input is read again from its original place.
    """
    decisions = Decisions.open(folder)
    return Pairs(folder, decisions.settings).pair(_decision(decisions, wanted))


@dataclass(frozen=True, slots=True)
class RepeatedParts:
    """A document with repeated parts: its text, the parts in order, and the texts of the documents that they repeat, by
    place.
    """

    place: Place
    text: str
    parts: list[dict[str, Any]]
    witnesses: dict[tuple[str, int], tuple[Place, str]]


def repeated_parts(parts: list[dict[str, Any]], settings: Mapping[str, Any]) -> RepeatedParts:
    """The document of some rows of the table of spans, and those that it repeats, read again from the input."""
    documents, column = _Documents(_reader(settings)), settings["column"]
    ordered = sorted(parts, key=lambda part: (part["start"], part["end"]))
    first = ordered[0]

    def read(id_: str | None, source: str, row: int) -> tuple[Place, str]:
        place = Place(id_, documents.files_of(source), source, row)
        document, _ = documents.read(place)
        return place, text_of(document, column)

    place, text = read(first["id"], first["source"], first["row"])
    witnesses = {
        (part["witness_source"], part["witness_row"]): read(
            part["witness_id"], part["witness_source"], part["witness_row"]
        )
        for part in ordered
    }
    return RepeatedParts(place, text, ordered, witnesses)


class Pairs:
    """Removed documents and their witnesses, read again from the input of a table of decisions."""

    def __init__(self, folder: str, settings: Mapping[str, Any]) -> None:
        self._folder = folder
        self._settings = settings

    def pair(self, row: Mapping[str, Any]) -> RemovedPair:
        """The documents that a row of the table is about."""
        reader, files = self._reader, self._files
        places = {
            end: Place(row[f"{end}id"], files.get(row[f"{end}source"], []), row[f"{end}source"], row[f"{end}row"])
            for end in ("", "witness_")
        }
        of_witness = places["witness_"]
        witness, seen = (None, None) if of_witness.source.startswith(INDEX) else reader.read(of_witness)
        document, picture = reader.read(places[""])
        assert document is not None
        return RemovedPair(dict(row), document, places[""], witness, of_witness, (picture, seen))

    @functools.cached_property
    def _files(self) -> dict[str, list[str]]:
        inputs = Inputs.read(self._folder)
        return {name: list(paths) for name, (paths, _) in (inputs.sources if inputs else {}).items()}

    @functools.cached_property
    def _reader(self) -> _Documents:
        return _Documents(_reader(self._settings))


def _decision(decisions: Decisions, wanted: str) -> dict[str, Any]:
    source, _, row = wanted.rpartition(":")
    kept = False
    for table in decisions.tables():
        chosen = pc.equal(table["id"], scalar(wanted))
        if source and row.isdigit():
            stands = pc.and_(pc.equal(table["source"], scalar(source)), pc.equal(table["row"], scalar(int(row))))
            chosen = pc.or_(pc.fill_null(chosen, scalar(False)), stands)
        for found in table.filter(chosen).to_pylist():
            if found["decision"] == REMOVED and found["witness_source"] is not None:
                return dict(found)
            kept = True
    if kept:
        raise UsageError(f"{wanted!r} was not removed: it stays, and others were removed for it")
    raise UsageError(
        f"{decisions.folder!r} does not mention {wanted!r}: it stays and is not a witness, or there is no document "
        "with this id. A document without an id is named SOURCE:ROW, as in the table"
    )


def _reader(settings: Mapping[str, Any]) -> ProcessingStage[Any, Any]:
    text = settings.get("reader")
    if not text:
        raise UsageError("the table does not say how its documents were read, so you must compare them by hand")
    (entry,) = yaml.safe_load(text)["stages"]
    name, params = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
    return build_stage(name, params)


class _Documents:
    """Reads documents, one by one, with the reader of the deduplication."""

    def __init__(self, reader: ProcessingStage[Any, Any]) -> None:
        parts = reader.decompose() if isinstance(reader, CompositeStage) else [reader]
        if len(parts) < 2:
            raise UsageError(f"{type(reader).__name__} is not a reader of files whose sources can be read one by one")
        self._naming, self._reading, *more = parts
        # These stages work as in the run, where no later stage needed their columns; a stage that drops rows also drops
        # them here.
        self._more = [stage.needed_by(frozenset()) for stage in more]

    def read(self, place: Place) -> tuple[dict[str, Any], bytes | None]:
        """A document, and a small picture if it is an image."""
        task = self._sources.get(place.source)
        if task is None:
            raise UsageError(
                f"the source {place.source!r} does not exist: run this in the folder where the deduplication ran, "
                "since its paths may be relative"
            )
        found = self._by_line(task, place) or self._by_key(task, place)
        if found is not None:
            return found
        first = 0
        for batch in self._batches(task):
            if first <= place.row < first + batch.num_rows:
                return _document(batch, place.row - first)
            first += batch.num_rows
        raise UsageError(f"there is no longer a row {place.row + 1:,} in {', '.join(place.files) or place.source}")

    @functools.cached_property
    def _sources(self) -> dict[str, FileGroupTask]:
        return {task.task_id: task for task in self._naming.process(EmptyTask(task_id="sources")) or ()}

    def files_of(self, source: str) -> list[str]:
        """The files of a source."""
        task = self._sources.get(source)
        return [] if task is None else list(task.data)

    def _by_line(self, task: FileGroupTask, place: Place) -> tuple[dict[str, Any], bytes | None] | None:
        """The document, if it is on the line of its row number and has the id; None if the whole source must be read."""
        range_of = getattr(self._reading, "range_of", None)
        if place.id is None or range_of is None or len(task.parts) != 1 or task.parts[0][1] is not None:
            return None
        path = task.parts[0][0]
        span = range_of(path, "line", place.row + 1)
        if span is None:
            return None
        # One line, or all rows of a part of a file, such as a row group of Parquet.
        part = FileGroupTask(data=[path], ranges=[span], task_id=task.task_id)
        for batch in self._batches(part):
            row = _row_of(batch, place.row + 1)
            if row is not None:
                document, picture = _document(batch, row)
                # Blank and rejected lines are not rows, so the rows after them are on later lines.
                named = any(str(value) == place.id for value in document.values() if isinstance(value, (str, int)))
                return (document, picture) if named else None
        return None

    def _by_key(self, task: FileGroupTask, place: Place) -> tuple[dict[str, Any], bytes | None] | None:
        """The document, if the reader can find the id of the document as a key of its file."""
        row_of_key = getattr(self._reading, "row_of_key", None)
        if place.id is None or row_of_key is None or len(task.data) != 1:
            return None
        found = row_of_key(task.data[0], place.id)
        # Not every entry of a file is a row, so a row is never after the entry with its number.
        if found is None or found[0] < place.row:
            return None
        batch = self._finished(found[1])
        return _document(batch, 0) if batch.num_rows == 1 else None

    def _batches(self, task: FileGroupTask) -> Iterator[DocumentBatch]:
        for made in self._reading.process(task) or ():
            yield self._finished(made)

    def _finished(self, made: Any) -> DocumentBatch:
        """A batch of the reader after the stages that follow it."""
        batch = functools.reduce(lambda so_far, stage: stage.process(so_far), self._more, made)
        assert isinstance(batch, DocumentBatch)
        return batch


def _row_of(batch: DocumentBatch, number: int) -> int | None:
    """The row of a batch, read from a part of a file, that has this number in the file, from 1."""
    places = places_of(batch)
    if places is not None and places.unit == "row" and not places.masks:
        found = np.flatnonzero(np.asarray(places.found) == number)
        return int(found[0]) if len(found) else None
    return 0 if batch.num_rows == 1 else None


def _document(batch: DocumentBatch, row: int) -> tuple[dict[str, Any], bytes | None]:
    table = batch.to_pyarrow().slice(row, 1)
    document = {name: values_of(table[name])[0] for name in table.column_names}
    drawn = document.get(batch.picture_column) if batch.picture_column else None
    return document, batch.thumbnail(drawn) if isinstance(drawn, bytes) else None


def text_of(document: Mapping[str, Any], column: str) -> str:
    """The compared value of a document as text."""
    value = document.get(column)
    return "" if value is None else value if isinstance(value, str) else str(value)
