"""Finds images whose hashes suggest the same picture, and compares their small pictures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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
    PLACE,
    finish_partitioned,
    partition_pieces,
    range_tables,
    read_manifest,
    require_complete,
    write_partitioned,
)
from curator_core.arrow.arrays import array, distinct, to_numpy
from curator_core.model.lineage import source_id
from curator_core.model.stage import SourceStage
from curator_core.model.task import EmptyTask, FileGroupTask, FileRecord
from curator_image.dedup.compare import Box, likeness
from curator_image.dedup.hashes import MIRRORED, SIDE, WINDOWS
from curator_image.dedup.keys import BOX, GREY, HASH, PARTS_OF_KIND, PICTURES
from curator_image.dedup.search import TABLES, Wanted, near_pairs

RULE = "perceptual"
# The largest number of preferred images with which one search pairs an image, so that many similar images cost only
# linear time.
_MOST_TIES = 64
# If more images than this, divided by the number of ties, have the same hash, each image gets fewer ties.
_MOST_TIES_OF_EQUALS = 100_000
_LEAST_TIES = 4
# This many of the images with the same hash represent all of them in comparisons with others.
_STAND_FOR_ALL = 2
# How many hashes a task searches at once, and below how many one task looks up all words.
_MOST_AT_ONCE = 1 << 20
_FEW = 100_000
_MOST_HELD = 1 << 21
# Above this, a better fit changes no decision.
_ENOUGH = 0.98
_PAIR = pa.schema([("number", pa.uint64()), ("other", pa.uint64()), ("window", pa.uint8())])


@dataclass(kw_only=True)
class Searches(SourceStage[FileGroupTask]):
    """Names the searches among all hashes in a folder; each is a source. A search compares a block of the hashes of
    whole pictures with another such block, or with a block of the hashes of a window, by one word or by all words.

    Blocks depend only on the hashes, so the result does not depend on files, partitions or workers.
    """

    path: str
    crops: bool = True
    mirror: bool = False

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        place = require_complete(self.path)
        rows = read_manifest(place).rows
        kinds = [0, *(range(1, 1 + len(WINDOWS)) if self.crops else ()), *([1 + MIRRORED] if self.mirror else ())]
        blocks = {kind: _blocks(rows[kind * PARTS_OF_KIND : (kind + 1) * PARTS_OF_KIND]) for kind in kinds}
        for window in kinds:
            for left, right in itertools.product(range(len(blocks[0])), range(len(blocks[window]))):
                if window == 0 and right < left:
                    continue
                (start, stop, size), (begin, end, more) = blocks[0][left], blocks[window][right]
                tables = [(0, TABLES)] if size + more < _FEW else [(table, table + 1) for table in range(TABLES)]
                for first, last in tables:
                    yield FileGroupTask(
                        data=[place],
                        task_id=source_id(f"search-{window}-{left}-{right}-{first}", []),
                        dataset_name=task.dataset_name,
                        _generation=storage.fingerprint(place),
                        _metadata={
                            "window": window,
                            "left": [start, stop],
                            "right": [window * PARTS_OF_KIND + begin, window * PARTS_OF_KIND + end],
                            "tables": [first, last],
                        },
                    )


def _blocks(rows: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Ranges of partitions, with the number of hashes in each: as many as a task searches at once, or one partition."""
    blocks: list[tuple[int, int, int]] = []
    start = size = 0
    for number, more in enumerate(rows.tolist()):
        if size and size + more > _MOST_AT_ONCE:
            blocks.append((start, number, size))
            start, size = number, 0
        size += more
    return [*blocks, (start, len(rows), size)]


@dataclass(kw_only=True)
class SearchPictures(PartitionStage):
    """Finds pairs of images whose hashes differ in at most ``radius`` bits. Both hashes are those of whole pictures, or
    one is that of a window.
    """

    radius: int

    def process(self, task: FileGroupTask) -> FileGroupTask:
        window, place = task._metadata["window"], task.data[0]
        tables = range(*task._metadata["tables"])
        wholes, theirs = task._metadata["left"], task._metadata["right"]
        within = wholes == theirs
        tables_read = [self._read(place, *wholes), *([] if within else [self._read(place, *theirs)])]
        numbers, ranks = self._ranked(tables_read)
        sides = [Values.of(to_numpy(read[HASH]), rank) for read, rank in zip(tables_read, ranks, strict=True)]
        del tables_read
        one, other = sides[0], sides[-1]
        wanted = Wanted(one.first, None if within else other.first, most=_MOST_TIES)
        found = near_pairs(one.hashes, None if within else other.hashes, self.radius, tables, wanted)
        pairs = _Pairs(by_rank=window == 0)
        if (
            within and tables.start == 0
        ):  # equal hashes would be found by the first word of each search, so only that search adds them
            pairs.add(*one.among_equals())
        by_one, by_other = _Nearest(one, other, wanted, 0), _Nearest(other, one, wanted, 1)
        for i, j in found:
            by_one.add(i, j)
            by_other.add(j, i)
        for whole, others in by_one.images():
            pairs.add(others, whole)
        for others, whole in by_other.images():
            pairs.add(others, whole)
        first, second = pairs.found()
        made = pa.table(
            [array(numbers[first]), array(numbers[second]), array(np.full(len(first), window, np.uint8))],
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

    def _read(self, place: str, first: int, stop: int) -> pa.Table:
        """The hashes in a range of partitions."""
        manifest = read_manifest(place)
        pieces = [pa.Table.from_batches([], manifest.schema)]
        pieces += [table.drop_columns([PLACE]) for _, table in range_tables(manifest, first, stop)]
        return pa.concat_tables(pieces, promote_options="default")

    def _ranked(self, tables: list[pa.Table]) -> tuple[NDArray[np.uint64], list[NDArray[np.int64]]]:
        """The numbers of all images in some tables, in order of preference, and for each row the place of its image in
        this order.
        """
        preference = self.preference()
        names = ["number", "hash_high", "hash_low", *preference.names]
        if not sum(table.num_rows for table in tables):
            return np.zeros(0, np.uint64), [np.zeros(0, np.int64) for _ in tables]
        columns = {name: np.concatenate([to_numpy(table[name]) for table in tables]) for name in names}
        _, first, which = np.unique(columns["number"], return_index=True, return_inverse=True)
        columns = {name: values[first] for name, values in columns.items()}
        order = preference.sort(columns)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        ends = np.cumsum([table.num_rows for table in tables])[:-1]
        return columns["number"][order], np.split(rank[which], ends)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        folder = storage.join(self.path, PAIRS)
        finish_partitioned(folder, [record for record in outputs if storage.parent(record.path) == folder])


@dataclass(frozen=True, slots=True)
class Values:
    """The distinct hashes among images, and the images that have each of them, given by their places in the order of
    preference.
    """

    hashes: NDArray[np.uint64]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    members: NDArray[np.int64]

    @classmethod
    def of(cls, hashes: NDArray[np.uint64], ranks: NDArray[np.int64]) -> Values:
        """The distinct hashes of a column."""
        order = np.lexsort((ranks, hashes))
        found, starts, counts = np.unique(hashes[order], return_index=True, return_counts=True)
        return cls(found, starts.astype(np.int64), counts.astype(np.int64), ranks[order])

    @property
    def first(self) -> NDArray[np.int64]:
        """The preferred image of each hash."""
        return self.members[self.starts]

    def among_equals(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of each image with the first few images of the same hash; the more images have the hash, the fewer are
        paired.
        """
        many = np.flatnonzero(self.counts > 1)
        counts = self.counts[many]
        few = np.minimum(counts, np.clip(_MOST_TIES_OF_EQUALS // counts, _LEAST_TIES, _MOST_TIES))
        return self.cross(many, counts, self, many, few)

    def cross(
        self,
        mine: NDArray[np.int64],
        many: NDArray[np.int64],
        other: Values,
        theirs: NDArray[np.int64],
        their_many: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of the first ``many`` images of each hash in ``mine`` with the first ``their_many`` images of its
        partner in ``theirs``.
        """
        each = many * their_many
        which = np.repeat(np.arange(len(each)), each)
        at = np.arange(len(which)) - np.repeat(np.cumsum(each) - each, each)
        one = self.members[self.starts[mine][which] + at // their_many[which]]
        two = other.members[other.starts[theirs][which] + at % their_many[which]]
        return one, two


class _Nearest:
    """The other hashes near each hash; only those with the most preferred images are kept, and fewer of them if there
    are too many in all.
    """

    def __init__(self, values: Values, others: Values, wanted: Wanted, side: int) -> None:
        self._values, self._others = values, others
        self._wanted, self._side = wanted, side
        self._first = others.first
        # A hash and the rank of the first image of the other hash, in one number, because sorting these takes the least
        # memory.
        self._held: list[NDArray[np.uint64]] = []
        self._size, self._most, self._ties = 0, _MOST_HELD, _MOST_TIES

    def add(self, values: NDArray[np.int64], others: NDArray[np.int64]) -> None:
        self._held.append(values.astype(np.uint64) << _HALF | self._first[others].astype(np.uint64))
        self._size += len(values)
        if self._size > self._most:
            self._most = _MOST_HELD + len(self._prune())

    def _prune(self) -> NDArray[np.uint64]:
        packed = _sorted_once(self._held)
        place = _rank_in_group(packed >> _HALF)
        while self._ties > _LEAST_TIES and np.count_nonzero(place < self._ties) > 2 * _MOST_HELD:
            self._ties //= 2
        values, ranks = _unpacked(packed[place == self._ties - 1])
        self._wanted.cut_off(self._side, values, ranks)
        packed = packed[place < self._ties]
        self._held, self._size = [packed], len(packed)
        return packed

    def images(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Pairs of each image of a hash with the first images of the other hashes near it, some at a time."""
        packed = self._prune()
        self._held = []
        of_rank = np.zeros(int(self._first.max(initial=0)) + 1, np.int64)
        of_rank[self._first] = np.arange(len(self._first))
        for start in range(0, len(packed), _MOST_HELD):
            values, ranks = _unpacked(packed[start : start + _MOST_HELD])
            others = of_rank[ranks]
            few = np.minimum(self._others.counts[others], _STAND_FOR_ALL)
            many = self._values.counts[values]
            ends = np.cumsum(many * few)
            lots = np.arange(_MOST_HELD, ends[-1], _MOST_HELD)
            cuts = np.unique([0, *np.searchsorted(ends, lots).tolist(), len(values)])
            for begin, stop in itertools.pairwise(cuts.tolist()):
                some = slice(begin, stop)
                yield self._values.cross(values[some], many[some], self._others, others[some], few[some])


class _Pairs:
    """Pairs of images. If there are very many, each image keeps only its pairs with the most preferred images.

    With ``by_rank``, the preferred image comes first in each pair, whatever the order in which it was given.
    """

    def __init__(self, *, by_rank: bool) -> None:
        self._by_rank = by_rank
        # The later image, the earlier image, and whether they were given in that order, in one number.
        self._held: list[NDArray[np.uint64]] = []
        self._size, self._most = 0, _MOST_HELD

    def add(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
        apart = first != second
        first, second = first[apart], second[apart]
        packed = np.maximum(first, second).astype(np.uint64) << _LATER
        packed |= np.minimum(first, second).astype(np.uint64) << np.uint64(1)
        if not self._by_rank:
            packed |= (first > second).astype(np.uint64)
        self._held.append(packed)
        self._size += len(first)
        if self._size > self._most:
            self._most = _MOST_HELD + len(self._prune())

    def _prune(self) -> NDArray[np.uint64]:
        packed = _sorted_once(self._held)
        packed = packed[_rank_in_group(packed >> _LATER) < _MOST_TIES]
        self._held, self._size = [packed], len(packed)
        return packed

    def found(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The pairs so far."""
        packed = self._prune()
        turned = (packed & np.uint64(1)).astype(np.bool_)
        later = (packed >> _LATER).astype(np.int64)
        before = (packed & np.uint64((1 << int(_LATER)) - 1)).astype(np.int64) >> 1
        return np.where(turned, later, before), np.where(turned, before, later)


_HALF, _LATER = np.uint64(32), np.uint64(33)


def _sorted_once(held: list[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """The distinct numbers in order, sorted in place; ``held`` is emptied."""
    packed = np.concatenate([np.zeros(0, np.uint64), *held])
    held.clear()
    packed.sort()
    once: NDArray[np.uint64] = packed[np.append(True, packed[1:] != packed[:-1])[: len(packed)]]
    return once


def _unpacked(packed: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The two halves of each number."""
    return (packed >> _HALF).astype(np.int64), (packed & np.uint64(0xFFFF_FFFF)).astype(np.int64)


def _rank_in_group(groups: NDArray[Any]) -> NDArray[np.int64]:
    """The position of each element in its run of equal numbers."""
    begins = np.flatnonzero(np.append(True, groups[1:] != groups[:-1])) if len(groups) else np.zeros(0, np.int64)
    return np.arange(len(groups)) - np.repeat(begins, np.diff(np.append(begins, len(groups))))


@dataclass(kw_only=True)
class PictureParts(SourceStage[FileGroupTask]):
    """Names the partitions of pairs, copies and pictures; each is a source."""

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
    """Partitions pairs, copies and pictures by the group to which they belong."""

    groups: str

    def process(self, task: FileGroupTask) -> FileGroupTask:
        kind = task._metadata["kind"]
        table = pa.concat_tables([piece for _, piece in partition_pieces(task)]).unify_dictionaries()
        numbers = to_numpy(table["number"])
        group = groups_of_numbers(self.groups, numbers)
        if kind == COPIES:
            table = table.rename_columns({"number": "witness", "member": "number"}).select(TIES.names)
        if kind == PICTURES:  # an image without a pair needs no comparison
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
        for batch in distinct(batches):
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
    """Compares the pictures of each pair in a partition, and decides about all images in the partition."""

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
        enough, compared, done = max(_ENOUGH, self.least), 0, (-1, -1)
        # All windows of a pair are adjacent: after one that is similar enough, the others change no decision.
        for at in np.lexsort((window, np.maximum(one, other), np.minimum(one, other))).tolist():
            i, j = int(one[at]), int(other[at])
            if {i, j} == {*done} or (apart and collections[i].as_py() != collections[j].as_py()):
                continue
            found[at] = likeness(greys[i], boxes[i], int(window[at]), greys[j], boxes[j], enough)
            compared += 1
            if found[at] >= enough:
                done = (i, j)
        alike = found >= self.least
        self.record_metric("compared", compared)
        loser, winner = np.maximum(one, other)[alike], np.minimum(one, other)[alike]
        made = ties_of(pictures, loser, pictures, winner, found[alike], copy=False)
        return made.append_column("group", pictures["group"].take(array(loser)))


def _rows(place: str, partition: int) -> pa.Table | None:
    task = FileGroupTask(data=[place], _metadata={"partition": partition})
    if not read_manifest(place).rows[partition]:
        return None
    return pa.concat_tables([piece for _, piece in partition_pieces(task)]).unify_dictionaries().combine_chunks()
