"""Finds images that may show the same picture by their hashes, and compares the small pictures themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.alike import (
    COPIES,
    EDGES,
    PAIRS,
    TIES,
    decided_by_ties,
    groups_of_numbers,
    mixed,
    ties_of,
)
from curator_core.across.copies import PartitionStage
from curator_core.across.groups import groups_of
from curator_core.across.roll import batches_of, rows_of
from curator_core.across.shuffle import (
    MANIFEST,
    finish_partitioned,
    partition_pieces,
    partition_tables,
    read_manifest,
    require_complete,
    write_partitioned,
)
from curator_core.arrow.arrays import array, to_numpy
from curator_core.model.lineage import source_id
from curator_core.model.stage import SourceStage
from curator_core.model.task import EmptyTask, FileGroupTask, FileRecord
from curator_image.dedup.compare import Box, likeness
from curator_image.dedup.hashes import MIRRORED, SIDE, WINDOWS
from curator_image.dedup.keys import BOX, GREY, HASHES, PICTURES, SEEN
from curator_image.dedup.search import TABLES, near_pairs

RULE = "perceptual"
# How many preferred images one search may pair an image with, so that masses of similar images cost only linear time.
_MOST_TIES = 64
# This many of the images with the same hash represent all of them in comparisons with others.
_STAND_FOR_ALL = 2
_HASHES = 2 + len(WINDOWS)
# Above this, a better fit changes no decision.
_ENOUGH = 0.98
_PAIR = pa.schema([("number", pa.uint64()), ("other", pa.uint64()), ("window", pa.uint8())])


@dataclass(kw_only=True)
class Searches(SourceStage[FileGroupTask]):
    """Names the searches among all images in a folder; each is a source: one of the words of a hash, among wholes or windows."""

    path: str
    crops: bool = True
    mirror: bool = False

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        place = require_complete(self.path)
        kinds = [0, *(range(1, 1 + len(WINDOWS)) if self.crops else ()), *([1 + MIRRORED] if self.mirror else ())]
        for window in kinds:
            for table in range(TABLES):
                yield FileGroupTask(
                    data=[place],
                    task_id=source_id(f"search-{window}-{table}", []),
                    dataset_name=task.dataset_name,
                    _generation=storage.fingerprint(place),
                    _metadata={"window": window, "table": table},
                )


@dataclass(kw_only=True)
class SearchPictures(PartitionStage):
    """Finds the images whose hashes differ in at most ``radius`` bits, of the wholes of both or of a whole and a window."""

    radius: int
    scope: str = "global"

    def process(self, task: FileGroupTask) -> FileGroupTask:
        window, word = task._metadata["window"], task._metadata["table"]
        numbers, hashes = self._images(task.data[0])
        found = [np.zeros((0, 2), np.int64)]
        wholes = Values.of(hashes[:, 0])
        tables = range(word, word + 1)
        if window == 0:
            if word == 0:  # equal hashes differ in no word: the first table finds them
                found.append(wholes.among_equals())
            pairs = near_pairs(wholes.hashes, None, self.radius, tables)
            found += [wholes.across(i, wholes, j) for i, j in pairs]
        else:
            theirs = Values.of(hashes[:, window])
            pairs = near_pairs(wholes.hashes, theirs.hashes, self.radius, tables)
            # The window's image first.
            found += [wholes.across(i, theirs, j)[:, ::-1] for i, j in pairs]
        both = np.unique(np.concatenate(found), axis=0)
        both = _fewest(both[both[:, 0] != both[:, 1]])
        made = pa.table(
            [
                array(numbers[both[:, 0]]),
                array(numbers[both[:, 1]]),
                array(np.full(len(both), window, np.uint8)),
            ],
            schema=_PAIR,
        )
        path = storage.join(self.path, EDGES, f"{task.task_id}.arrow")
        with storage.write_atomic(path, durable=False) as out:
            edges = pa.table({"a": made["number"], "b": made["other"]})
            with pa.ipc.new_file(out, edges.schema) as writer:
                writer.write_table(edges)
        self.record_output(out.record(rows=edges.num_rows))
        record = self.write_by_batch(storage.join(self.path, PAIRS, f"{task.task_id}.arrow"), made)
        self.record_output(record)
        return FileGroupTask(data=[record.path], dataset_name=task.dataset_name)

    def _images(self, place: str) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Numbers and hashes of all images that have a picture, in order of preference."""
        preference = self.preference()
        names = ["number", "hash_high", "hash_low", *preference.names]
        manifest = read_manifest(place)
        pieces: list[pa.Table] = []
        for partition in np.flatnonzero(manifest.rows).tolist():
            part = FileGroupTask(data=[place], _metadata={"partition": partition})
            for _, table in partition_tables(part):
                pieces.append(table.filter(table[SEEN]).select([*names, HASHES]).combine_chunks())
        if not pieces:
            return np.zeros(0, np.uint64), np.zeros((0, _HASHES), np.uint64)
        table = pa.concat_tables(pieces).combine_chunks()
        order = preference.sort({name: to_numpy(table[name]) for name in names})
        hashes = to_numpy(table[HASHES].combine_chunks().flatten()).reshape(table.num_rows, _HASHES)
        return to_numpy(table["number"])[order], hashes[order]

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        folder = storage.join(self.path, PAIRS)
        finish_partitioned(folder, [record for record in outputs if storage.parent(record.path) == folder])


@dataclass(frozen=True, slots=True)
class Values:
    """The different hashes among images in order of preference, and which images have each."""

    hashes: NDArray[np.uint64]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    members: NDArray[np.int64]

    @classmethod
    def of(cls, hashes: NDArray[np.uint64]) -> Values:
        """The values of a column; 0 is none."""
        order = np.argsort(hashes, kind="stable")
        order = order[hashes[order] != 0]
        found, starts, counts = np.unique(hashes[order], return_index=True, return_counts=True)
        return cls(found, starts.astype(np.int64), counts.astype(np.int64), order)

    def among_equals(self) -> NDArray[np.int64]:
        """Each image with the first few of the same hash."""
        many = np.flatnonzero(self.counts > 1)
        return self._cross(many, self.counts[many], self, many, np.minimum(self.counts[many], _MOST_TIES))

    def across(self, mine: NDArray[np.int64], other: Values, theirs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Pair each image of one value with the first images of the other, and the other way round."""
        few, their_few = (
            np.minimum(values.counts[at], _STAND_FOR_ALL) for values, at in ((self, mine), (other, theirs))
        )
        return np.concatenate(
            [
                self._cross(mine, self.counts[mine], other, theirs, their_few),
                self._cross(mine, few, other, theirs, other.counts[theirs]),
            ]
        )

    def _cross(
        self,
        mine: NDArray[np.int64],
        many: NDArray[np.int64],
        other: Values,
        theirs: NDArray[np.int64],
        their_many: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        each = many * their_many
        which = np.repeat(np.arange(len(each)), each)
        at = np.arange(len(which)) - np.repeat(np.cumsum(each) - each, each)
        one = self.members[self.starts[mine][which] + at // their_many[which]]
        two = other.members[other.starts[theirs][which] + at % their_many[which]]
        return np.stack([one, two], axis=1)


def _fewest(both: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where an image has very many pairs, keep only those with the most preferred images."""
    loser, winner = both.max(axis=1), both.min(axis=1)
    order = np.lexsort((winner, loser))
    loser = loser[order]
    begins = np.flatnonzero(np.append(True, loser[1:] != loser[:-1])) if len(loser) else np.zeros(0, np.int64)
    rank = np.arange(len(loser)) - np.repeat(begins, np.diff(np.append(begins, len(loser))))
    return both[np.sort(order[rank < _MOST_TIES])]


@dataclass(kw_only=True)
class PictureParts(SourceStage[FileGroupTask]):
    """Names the partitions of pairs, of copies and of pictures; each is a source."""

    pairs: str
    aside: str

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        for kind, folder in (
            (PAIRS, storage.join(self.pairs, PAIRS)),
            (COPIES, storage.join(self.aside, COPIES)),
            (PICTURES, storage.join(self.aside, PICTURES)),
        ):
            place = require_complete(folder)
            for number in np.flatnonzero(read_manifest(place).rows).tolist():
                yield FileGroupTask(
                    data=[place],
                    task_id=source_id(f"{kind}-{number:05d}", []),
                    dataset_name=task.dataset_name,
                    _generation=storage.fingerprint(place),
                    _metadata={"partition": number, "kind": kind},
                )


@dataclass(kw_only=True)
class RoutePictures(PartitionStage):
    """Lays out pairs, copies and pictures by the group that they belong to."""

    groups: str

    def process(self, task: FileGroupTask) -> FileGroupTask:
        kind = task._metadata["kind"]
        table = pa.concat_tables([piece for _, piece in partition_pieces(task)]).unify_dictionaries()
        numbers = to_numpy(table["number"])
        group = groups_of_numbers(self.groups, numbers)
        if kind == COPIES:
            table = table.rename_columns({"number": "witness", "member": "number"}).select(TIES.names)
        if kind == PICTURES:  # images without a pair are compared with nothing
            tied = self._tied(numbers)
            table, group = table.filter(array(tied)), group[tied]
        if "place" in table.column_names:
            table = table.drop_columns(["place"])
        made = table.append_column("group", array(group))
        path = storage.join(self.path, kind, f"{task.task_id}.arrow")
        record = write_partitioned(path, made, mixed(group), self.parts)
        self.record_output(record)
        return FileGroupTask(data=[record.path], dataset_name=task.dataset_name)

    def _tied(self, numbers: NDArray[np.uint64]) -> NDArray[np.bool_]:
        tied = np.zeros(len(numbers), np.bool_)
        batches = batches_of(numbers)
        for batch in np.unique(batches):
            rows, _ = groups_of(self.groups, int(batch))
            here = np.flatnonzero(batches == batch)
            tied[here] = np.isin(rows_of(numbers[here]), rows)
        return tied

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        for kind in (PAIRS, COPIES, PICTURES):
            folder = storage.join(self.path, kind)
            mine = [record for record in outputs if storage.parent(record.path) == folder]
            finish_partitioned(folder, mine, partitions=self.parts)


@dataclass(kw_only=True)
class GroupParts(SourceStage[FileGroupTask]):
    """Names the partitions that hold pairs or copies; each is a source."""

    path: str

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        manifests = {kind: read_manifest(storage.join(self.path, kind)) for kind in (PAIRS, COPIES)}
        rows = sum(manifest.rows for manifest in manifests.values())
        for number in np.flatnonzero(rows).tolist():
            yield FileGroupTask(
                data=[self.path],
                task_id=source_id(f"part-{number:05d}", []),
                dataset_name=task.dataset_name,
                _generation="".join(
                    storage.fingerprint(storage.join(manifest.folder, MANIFEST)) for manifest in manifests.values()
                ),
                _metadata={"partition": number},
            )


@dataclass(kw_only=True)
class ComparePictures(PartitionStage):
    """Compares the pictures of each pair of a partition, and decides about all images in it."""

    least: float
    scope: str = "global"

    def process(self, task: FileGroupTask) -> FileGroupTask:
        places = (storage.join(task.data[0], kind, MANIFEST) for kind in (PAIRS, COPIES, PICTURES))
        pairs, copies, pictures = (_rows(place, task._metadata["partition"]) for place in places)
        ties = [copies] if copies is not None else []
        if pairs is not None and pictures is not None:
            ties.append(self._ties(pairs, pictures))
        table = pa.concat_tables([part.select([*TIES.names, "group"]) for part in ties]).unify_dictionaries()
        return self.write_decided(task, decided_by_ties(table.combine_chunks(), RULE))

    def _ties(self, pairs: pa.Table, pictures: pa.Table) -> pa.Table:
        preference = self.preference()
        names = ("number", "hash_high", "hash_low", *preference.names)
        order = preference.sort({name: to_numpy(pictures[name]) for name in names})
        pictures = pictures.take(array(order)).unify_dictionaries().combine_chunks()
        numbers = to_numpy(pictures["number"])
        by_number = np.argsort(numbers)
        one, other = (
            by_number[np.searchsorted(numbers[by_number], to_numpy(pairs[name]))] for name in ("number", "other")
        )
        window = to_numpy(pairs["window"])
        greys = to_numpy(pictures[GREY].combine_chunks().flatten()).reshape(-1, SIDE, SIDE)
        boxes: list[Box] = [
            tuple(box) for box in to_numpy(pictures[BOX].combine_chunks().flatten()).reshape(-1, 4).tolist()
        ]
        collections = pictures["collection"].combine_chunks().indices
        apart = self.scope == "per_collection"
        found = np.zeros(len(one))
        for at, (i, j, number) in enumerate(zip(one.tolist(), other.tolist(), window.tolist(), strict=True)):
            if not (apart and collections[i].as_py() != collections[j].as_py()):
                found[at] = likeness(greys[i], boxes[i], number, greys[j], boxes[j], _ENOUGH)
        alike = found >= self.least
        self.record_metric("compared", len(found))
        loser, winner = np.maximum(one, other)[alike], np.minimum(one, other)[alike]
        made = ties_of(pictures, loser, pictures, winner, found[alike], copy=False)
        return made.append_column("group", pictures["group"].take(array(loser)))


def _rows(place: str, partition: int) -> pa.Table | None:
    task = FileGroupTask(data=[place], _metadata={"partition": partition})
    if not read_manifest(place).rows[partition]:
        return None
    return pa.concat_tables([piece for _, piece in partition_pieces(task)]).unify_dictionaries().combine_chunks()
