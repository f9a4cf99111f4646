"""Which vectors are alike, and which of them are removed? Keys, clusters, pairs within clusters, and decisions about
groups of pairs.

A vector has a *home*, the cluster of the nearest centre, and *visits* the clusters of the next nearest centres. Two
vectors are compared in a cluster that is the home of one and the home or a visited cluster of the other. The cosine of
a pair whose product may reach the limit is computed again in float64 in a fixed order, so every decision is the same on
every machine. Among equal vectors only the preferred one takes part; the others are copies of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.centres import VECTOR, nearest, read_centres
from curator_core.across.copies import (
    EXACT,
    Copies,
    DocumentStage,
    PartitionStage,
    finish_keys,
    partition_table,
    write_keys,
)
from curator_core.across.decided import decided_rows
from curator_core.across.digests import hashes_of
from curator_core.across.documents import collection_salts
from curator_core.across.groups import groups_of
from curator_core.across.heads import CHECK, head_size, heads
from curator_core.across.inputs import noted
from curator_core.across.lacking import Lacking, row_namer
from curator_core.across.products import MultipliesVectors, NumpyProducts, Pairs, Products, products_for
from curator_core.across.roll import batches_of, rows_of
from curator_core.across.shuffle import (
    Partitions,
    finish_partitioned,
    partition_pieces,
    read_manifest,
    rows_in_files,
    write_partitioned,
)
from curator_core.across.stored_vectors import StoredVectors
from curator_core.across.vectors import (
    Memory,
    Vectors,
    Whole,
    cosines,
    least_product,
    packed,
    unpacked,
    unpacked_pieces,
    vectors_of,
)
from curator_core.arrow.arrays import array, distinct, ranges_within, to_numpy
from curator_core.arrow.row_hash import column_of
from curator_core.model.task import DocumentBatch, EmptyTask, FileGroupTask, FileRecord

COPIES, EDGES, PAIRS, HOMES = "copies", "edges", "pairs", "homes"
Order = Literal["keep", "hard", "easy", "random"]
ORDERS = ("keep", "hard", "easy", "random")
RULE = "similar"
# The file and the row in which `VectorKeys` wrote the vector of a row.
_FILE, _ROW_THERE = "vector_file", "vector_row"
# The column for the order by distance from the centre, or for a random order. It takes precedence over `keep`.
ORDER_COLUMN = "prefer_order"
# Vectors of up to this size in all stay in their first files on a local disk and are looked up there: once read, they
# fit in the memory of any machine. Larger ones are written again by cluster, so that nothing is read out of order.
_STAY_BYTES = 1 << 31
_FILE_BATCH_BYTES = 1 << 26
# Rows and columns of a block of products.
_ROWS, _COLUMNS = 512, 1024
# The vectors of some clusters are looked up together, about this many bytes of them: each piece of a file is accessed
# once for all, and the vectors stay in the cache.
_TOGETHER_BYTES = 1 << 25
# In a cluster a vector is tied to at most this many preferred vectors at home, and a vector at home to at most this
# many visitors. It is removed if any of these stays.
MOST_TIES = 32
TIES = pa.schema(
    [
        ("number", pa.uint64()),
        ("witness", pa.uint64()),
        ("similarity", pa.float64()),
        ("witness_hash", pa.uint64()),
        ("is_copy", pa.bool_()),
        ("id", pa.string()),
        ("witness_id", pa.string()),
        ("collection", pa.dictionary(pa.int32(), pa.string())),
        ("witness_collection", pa.dictionary(pa.int32(), pa.string())),
    ]
)


# Keys ----------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class VectorKeys(DocumentStage):
    """Writes the vector of each row, scaled to length one and sorted by its hash, and at the end the roll of all
    batches.

    Rows without a vector, or with a vector of zeros, take no part; the summary counts them.
    """

    def process(self, task: DocumentBatch) -> FileGroupTask:
        table = task.to_pyarrow()
        values, ids = column_of(table, self.column), self.ids(table)
        row_name = row_namer(task, ids)
        vectors, rows = vectors_of(values, f"the column {self.column!r}", row_name)
        lacking = Lacking.of(values, vectors, rows, row_name)
        if lacking.rows:
            self.record_metric("without_vector", lacking.rows)
        high, low = _hashes(vectors)
        collections = self.collections(task)
        if self.scope == "per_collection":
            salts = collection_salts(collections)[rows]
            high, low = high ^ salts[:, 0], low ^ salts[:, 1]
        lengths = np.full(task.num_rows, vectors.shape[1], np.uint64)
        columns: dict[str, Any] = {
            "hash_low": array(low),
            "length": array(lengths[rows]),
            "row": array(rows.astype(np.uint32)),
        }
        for name, values in self.check_documents().encode(table, lengths, collections).items():
            columns[name] = array(values[rows])
        chosen = array(rows)
        columns["id"] = ids.take(chosen)
        columns["collection"] = collections.take(chosen)
        columns[VECTOR] = packed(vectors)
        made = noted(pa.table(columns), task, collections, vectors=lacking.note())
        # A mapped file needs no small record batches. Vectors are looked up in each batch separately.
        batch_bytes = _FILE_BATCH_BYTES if storage.is_local(self.path) else None
        record = write_keys(self, self.path, task, EXACT, made, high, batch_bytes=batch_bytes)
        return FileGroupTask(data=[record.path], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        notes = finish_keys(self.path, outputs, [EXACT], None, type(self).__name__)
        self._lacking = Lacking.added((note["vectors"] for note in notes), f"the column {self.column!r}")

    def conclusion(self) -> str:
        return self._lacking.text(self.column, "takes no part", "take no part")


def _hashes(vectors: Vectors) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Both halves of a hash of the bytes of each vector."""
    size = vectors.shape[1] * vectors.itemsize
    view = memoryview(np.ascontiguousarray(vectors, "<f4")).cast("B") if vectors.size else memoryview(b"")
    return hashes_of(view[start : start + size] for start in range(0, len(vectors) * size, size or 1))


# Clusters ------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class VisitClusters(MultipliesVectors, PartitionStage):
    """Writes the vectors of a partition by cluster: each in its home, and as a visitor in the ``visits`` next nearest
    clusters.

    Among equal vectors only the preferred one goes to clusters; the others are written by the batch of that one.
    ``order`` takes precedence over ``keep``: ``hard`` prefers the vector that is farther from the centre of its home,
    ``easy`` the nearer one, and ``random`` one of the two, by ``seed``. Without ``with_vectors`` the rows come without
    their vectors. If the vectors are small in all, each row has the place of its vector instead.
    """

    centres: str
    visits: int = 0
    order: Order = "keep"
    seed: int = 0
    collapse: bool = True
    with_vectors: bool = True

    def setup(self, worker: Any) -> None:
        super().setup(worker)
        self._centres = read_centres(self.centres)
        self._whole = Whole.of(self._centres)
        self._products = products_for(self.resources, self.name)

    def process(self, task: FileGroupTask) -> FileGroupTask:
        preference = self.preference()
        table = partition_table(task)
        assert table is not None  # only partitions with rows are tasks
        found, _ = nearest(unpacked_pieces(table[VECTOR]), self._whole, self.visits + 1, self._products)
        self.record_metric("products", float(table.num_rows * len(self._centres)))
        # These are not needed if chance or `keep` decides.
        towards = (
            cosines(unpacked(table[VECTOR]), self._centres, other_rows=found[:, 0])
            if self.order in ("hard", "easy") or not self.with_vectors
            else None
        )
        if self.collapse:
            copies = Copies(table, preference)
            stay = np.sort(copies.order[~copies.removed])
            self._write_copies(task, table, copies)
        else:
            stay = np.arange(table.num_rows)
        places = cluster_places(found[stay], len(self._centres))
        visits = places.shape[1]
        # The rows are taken in the order of their places: sorting them later would copy all vectors once more.
        by_place = np.argsort(places.ravel(), kind="stable")
        rows = np.repeat(stay, visits)[by_place]
        stay_behind = not self.with_vectors or _may_stay(task.data[0])
        kept = table.drop_columns([VECTOR]) if stay_behind else table
        if self.with_vectors and stay_behind:
            for name, values in zip((_FILE, _ROW_THERE), rows_in_files(task), strict=True):
                kept = kept.append_column(name, array(values))
        made = kept.rename_columns(["hash_high" if name == "place" else name for name in kept.column_names])
        made = made.append_column(ORDER_COLUMN, array(self._order(table, towards)))
        if towards is not None:
            made = made.append_column("towards", array(towards))
        made = made.take(array(rows))
        made = made.append_column("home", array(np.tile(np.arange(visits) == 0, len(stay))[by_place]))
        made = made.append_column("cluster", array(found[stay].ravel()[by_place]))
        path = storage.join(self.path, HOMES, f"{task.task_id}.arrow")
        record = write_partitioned(path, made, places.ravel()[by_place], self.parts)
        self.record_output(record)
        return FileGroupTask(data=[record.path], dataset_name=task.dataset_name)

    def _order(self, table: pa.Table, towards: NDArray[np.float64] | None) -> NDArray[np.uint64]:
        if self.order == "keep":
            return np.zeros(table.num_rows, np.uint64)
        if self.order == "random":
            return mixed(to_numpy(table["place"]) ^ np.uint64(mixed(np.array([self.seed], np.uint64))[0]))
        assert towards is not None  # computed for these orders
        whole = np.rint((towards + 2) * 2.0**48).astype(np.uint64)
        return whole if self.order == "hard" else np.uint64(1 << 50) - whole

    def _write_copies(self, task: FileGroupTask, table: pa.Table, copies: Copies) -> None:
        lost = copies.order[copies.removed]
        best = copies.order[copies.best[copies.removed]]
        made = ties_of(table, lost, table, best, np.ones(len(lost)), copy=True)
        self.record_output(write_by_witness(self, storage.join(self.path, COPIES, f"{task.task_id}.arrow"), made))

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        for kind in (COPIES, HOMES):
            folder = storage.join(self.path, kind)
            finish_partitioned(folder, [record for record in outputs if storage.parent(record.path) == folder])


def _may_stay(place: str) -> bool:
    """Whether the vectors of a shuffle are small enough to be looked up in their first files."""
    return storage.is_local(place) and int(read_manifest(place).bytes.sum()) <= _STAY_BYTES


def cluster_places(clusters: NDArray[np.int64], count: int) -> NDArray[np.uint64]:
    """Places for clusters: in the order of their numbers, and spread over all partitions."""
    return clusters.astype(np.uint64) * np.uint64(((1 << 64) - 1) // max(1, count))


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the bits of each value by the bijection of SplitMix64."""
    with np.errstate(over="ignore"):
        mixed = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def write_by_witness(stage: PartitionStage, path: str, table: pa.Table) -> FileRecord:
    """Write ties to a file, by the batch of the witness."""
    renamed = table.rename_columns({"number": "member", "witness": "number"})
    return stage.write_by_batch(path, renamed)


def ties_of(
    table: pa.Table,
    lost: NDArray[np.int64],
    others: pa.Table,
    best: NDArray[np.int64],
    similarity: NDArray[np.float64],
    *,
    copy: bool,
) -> pa.Table:
    mine, theirs = array(lost), array(best)
    place = "place" if "hash_high" not in others.column_names else "hash_high"
    columns = [
        table["number"].take(mine),
        others["number"].take(theirs),
        array(similarity),
        others[place].take(theirs),
        array(np.full(len(lost), copy)),
        table["id"].take(mine),
        others["id"].take(theirs),
        table["collection"].take(mine),
        others["collection"].take(theirs),
    ]
    return pa.table(columns, names=TIES.names).cast(TIES)


# Pairs ---------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class FindPairs(MultipliesVectors, PartitionStage):
    """Compares the vectors of each cluster, and ties each to preferred ones that have a cosine of ``least`` or more
    with it.

    In a cluster a vector is tied to at most the ``MOST_TIES`` most preferred ones at home, and a vector at home to as
    many visitors, so the cost of many similar vectors grows only linearly. ``vectors`` is the folder of `VectorKeys`;
    the vectors are read from there unless `VisitClusters` wrote them again.
    """

    least: float
    scope: str = "global"
    vectors: str

    def setup(self, worker: Any) -> None:
        super().setup(worker)
        self._stored = StoredVectors(self.vectors, VECTOR)
        self._products = products_for(self.resources, self.name)
        self._memory = Memory()

    def teardown(self) -> None:
        self._stored.close()  # mapped files would occupy disk after they are removed

    def process(self, task: FileGroupTask) -> FileGroupTask:
        pieces = [piece for _, piece in partition_pieces(task)]
        with_vectors = VECTOR in pieces[0].column_names
        table = pa.concat_tables([piece.drop_columns([VECTOR]) for piece in pieces] if with_vectors else pieces)
        table = table.unify_dictionaries().combine_chunks()
        preference = self.preference()
        names = ("number", "hash_high", "hash_low", ORDER_COLUMN, *preference.names)
        order = sort_by_preference(preference, {name: to_numpy(table[name]) for name in names})
        places = to_numpy(table["place"])[order]
        by_cluster = np.argsort(places, kind="stable")
        order, places = order[by_cluster], places[by_cluster]
        home = to_numpy(table["home"])
        groups = to_numpy(table["collection"].combine_chunks().indices) if self.scope == "per_collection" else None
        begins = np.flatnonzero(np.append(True, places[1:] != places[:-1]))
        members = np.split(order, begins[1:])
        if with_vectors:
            vectors_of_clusters = _Spread(pieces, places[begins]).clusters(members)
        else:
            stored = (to_numpy(table[name]) for name in (_FILE, _ROW_THERE))
            vectors_of_clusters = self._looked_up(members, *stored)
        none = np.zeros(0, np.int64)
        found: list[_Ties] = [(none, none, np.zeros(0))]
        for rows, (vectors, at) in zip(members, vectors_of_clusters, strict=True):
            group = None if groups is None else groups[rows]
            cluster = Cluster(vectors, at, home[rows], group, self._products, self._memory)
            lost, best, similarity = cluster.preferred_neighbours(self.least)
            found.append((rows[lost], rows[best], similarity))
            self.record_metric("pairs", cluster.pairs)
        lost, best, similarity = (np.concatenate(parts) for parts in zip(*found, strict=True))
        made = ties_of(table, lost, table, best, similarity, copy=False).unify_dictionaries().combine_chunks()
        path = storage.join(self.path, EDGES, f"{task.task_id}.arrow")
        with storage.write_atomic(path, durable=False) as out:
            edges = pa.table({"a": made["number"], "b": made["witness"]})
            with pa.ipc.new_file(out, edges.schema) as writer:
                writer.write_table(edges)
        self.record_output(out.record(rows=edges.num_rows))
        record = self.write_by_batch(storage.join(self.path, PAIRS, f"{task.task_id}.arrow"), made)
        self.record_output(record)
        return FileGroupTask(data=[record.path], dataset_name=task.dataset_name)

    def _looked_up(
        self,
        members: Sequence[NDArray[np.int64]],
        files: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> Iterator[tuple[Vectors, NDArray[np.int64]]]:
        """The vectors of a cluster and the places of its members there, for one cluster after the other; ``files`` and
        ``rows`` say where each vector is stored.
        """
        sizes = np.array([len(some) for some in members])
        for first, stop in ranges_within(sizes, max(1, _TOGETHER_BYTES // self._stored.bytes_each)):
            together = np.concatenate(members[first:stop])
            vectors, places = self._stored.take(files[together], rows[together])
            for at in np.split(places, np.cumsum(sizes[first : stop - 1])):
                yield vectors, at

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        storage.make_folder(storage.join(self.path, EDGES))  # without any vectors the folder does not exist yet
        folder = storage.join(self.path, PAIRS)
        finish_partitioned(folder, [record for record in outputs if storage.parent(record.path) == folder])


def sort_by_preference(preference: Any, columns: dict[str, NDArray[np.uint64]]) -> NDArray[np.int64]:
    """The rows in order of preference: first by the order column, then by the rules of ``keep``."""
    order: NDArray[np.int64] = preference.sort(columns, within=[columns[ORDER_COLUMN]])
    return order


class _Spread:
    """The vectors of a partition, left in their pieces: each cluster takes a few vectors from each piece. Joining the
    pieces first would copy all vectors through memory.
    """

    def __init__(self, pieces: Sequence[pa.Table], places: NDArray[np.uint64]) -> None:
        self._parts = []
        for piece in pieces:
            for batch in piece.select(["place", VECTOR]).to_batches():
                edges = (np.searchsorted(to_numpy(batch["place"]), places, side) for side in ("left", "right"))
                first, stop = (found.tolist() for found in edges)
                self._parts.append((first, stop, unpacked(pa.chunked_array([batch[VECTOR]]))))

    def clusters(self, members: Sequence[NDArray[np.int64]]) -> Iterator[tuple[Vectors, NDArray[np.int64]]]:
        """The vectors of one cluster after the other, in the order of the pieces, and the places of its members there."""
        for number, rows in enumerate(members):
            found = [
                vectors[first[number] : stop[number]]
                for first, stop, vectors in self._parts
                if stop[number] > first[number]
            ]
            yield np.concatenate(found), np.searchsorted(np.sort(rows), rows)


type _Ties = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Cluster:
    """The vectors of one cluster: ``rows`` of ``vectors`` in order of preference, and which of them are at ``home``.
    With ``groups`` only vectors of the same group are compared.
    """

    vectors: Vectors
    rows: NDArray[np.int64]
    home: NDArray[np.bool_]
    groups: NDArray[Any] | None = None
    products: Products = field(default_factory=NumpyProducts)
    memory: Memory = field(default_factory=Memory)

    @property
    def pairs(self) -> float:
        """The number of pairs to compare: all but those of two visitors."""
        at_home = int(self.home.sum())
        return at_home * (at_home - 1) / 2 + at_home * (len(self.home) - at_home)

    def preferred_neighbours(self, least: float) -> _Ties:
        """Find the pairs with a cosine of at least ``least``: a vector, a preferred one, and their cosine. Each vector
        has up to ``MOST_TIES`` pairs with the most preferred vectors at home, and a vector at home has as many with
        visitors. A member is identified by its place in the order.
        """
        none = np.zeros(0, np.int64)
        made = [(none, none, np.zeros(0)), *self._found(least)]
        lost, best, similarity = (np.concatenate(parts) for parts in zip(*made, strict=True))
        return lost, best, similarity

    def _found(self, least: float) -> Iterator[_Ties]:
        """Pair the vectors at home with those at home that come after them, and with all visitors."""
        home = int(self.home.sum())
        if not home:
            return
        # The members at home come before the visitors, so each vector at home is multiplied with one range of vectors.
        members = np.argsort(~self.home, kind="stable")
        limit = least_product(least, self.vectors.shape[1])
        candidates = _Candidates.of(self, self.rows[members], home, limit)
        wanted, wanted_away = np.full(len(members), MOST_TIES), np.full(home, MOST_TIES)
        for start, stop in itertools.pairwise(_edges(0, home, _ROWS)):
            for first, last in itertools.pairwise([start, *_edges(stop, len(members), _COLUMNS)]):
                columns: slice | NDArray[np.int64] = slice(first, last)
                if not (wanted.all() and wanted_away.all()):
                    tied = self._may_be_tied(members, start, stop, first, last, wanted, wanted_away)
                    if not tied.any():
                        continue
                    if not tied.all():
                        columns = first + np.flatnonzero(tied)
                row, column = candidates.between(slice(start, stop), columns)
                row, column = start + row, first + column if isinstance(columns, slice) else columns[column]
                # The member in the column is removed for the one in the row, unless it is a preferred visitor.
                loses = members[column] > members[row]
                order = np.flatnonzero(loses)
                order = order[np.argsort(column[order], kind="stable")]
                yield from self._certain(members, column[order], row[order], wanted, least)
                wins = ~loses & (column >= home)
                yield from self._certain(members, row[wins], column[wins], wanted_away, least)

    def _may_be_tied(
        self,
        members: NDArray[np.int64],
        start: int,
        stop: int,
        first: int,
        last: int,
        wanted: NDArray[np.int64],
        wanted_away: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """Which of the columns from ``first`` to ``last`` may have a tie with a row from ``start`` to ``stop`` that is
        still wanted.
        """
        tied: NDArray[np.bool_] = (wanted[first:last] > 0) & (members[first:last] >= members[start])
        if last > len(wanted_away) and wanted_away[start:stop].any():
            tied |= members[first:last] < members[stop - 1]
        return tied

    def _certain(
        self,
        members: NDArray[np.int64],
        loser: NDArray[np.int64],
        winner: NDArray[np.int64],
        wanted: NDArray[np.int64],
        least: float,
    ) -> Iterator[_Ties]:
        """Check candidate pairs exactly; ``loser`` and ``winner`` are their places in ``members``, with the pairs of a
        loser together. Yields up to ``wanted`` pairs of each loser, the first ones.
        """
        if self.groups is not None:
            same = self.groups[members[loser]] == self.groups[members[winner]]
            loser, winner = loser[same], winner[same]
        while len(loser):
            begins = np.flatnonzero(np.append(True, loser[1:] != loser[:-1]))
            ranks = np.arange(len(loser)) - np.repeat(begins, np.diff(np.append(begins, len(loser))))
            turn = ranks < wanted[loser]
            if not turn.any():
                return
            one, other = members[loser[turn]], members[winner[turn]]
            cosine = cosines(self.vectors, self.vectors, self.rows[one], self.rows[other])
            sure = cosine >= least
            np.subtract.at(wanted, loser[turn][sure], 1)
            yield one[sure], other[sure], cosine[sure]
            loser, winner = loser[~turn], winner[~turn]


@dataclass(slots=True)
class _Candidates:
    """Pairs of the vectors in ``rows`` of a cluster that may have a product of ``limit`` or more: their heads have one.
    If too many pairs of a block do, the vectors themselves are multiplied.
    """

    cluster: Cluster
    rows: NDArray[np.int64]
    limit: float
    size: int
    _heads: Any = None
    _whole: Any = None

    @classmethod
    def of(cls, cluster: Cluster, rows: NDArray[np.int64], home: int, limit: float) -> _Candidates:
        """The candidates among ``rows``, of which the first ``home`` are compared with all."""
        made = cls(cluster, rows, limit, head_size(cluster.vectors, rows[:home], rows, limit))
        if made.size < cluster.vectors.shape[1]:
            made._heads = cluster.products.put(heads(cluster.vectors, rows, made.size))
        return made

    def between(self, rows: slice, columns: slice | NDArray[np.int64]) -> Pairs:
        """The candidates between these rows and columns, by their places there."""
        if self._heads is not None:
            mine, theirs = self._heads[rows], self._heads[columns]
            found = self.cluster.products.at_least(mine, theirs, self.limit)
            if len(found[0]) * CHECK <= len(mine) * len(theirs) * self.cluster.vectors.shape[1]:
                return found
        if self._whole is None:
            self._whole = self.cluster.products.put(self._copied())
        return self.cluster.products.at_least(self._whole[rows], self._whole[columns], self.limit)

    def _copied(self) -> Vectors:
        made = self.cluster.memory.matrix(len(self.rows), self.cluster.vectors.shape[1])
        # Other modes than "clip" write to a buffer first.
        return np.take(self.cluster.vectors, self.rows, axis=0, out=made, mode="clip")


def _edges(first: int, stop: int, most: int) -> list[int]:
    """The edges of ranges from ``first`` to ``stop`` that are about equally long, and not longer than ``most``."""
    ranges = -(-(stop - first) // most)
    return [first + number * (stop - first) // max(1, ranges) for number in range(ranges + 1)]


# Decisions -----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class TiePartitions(Partitions):
    """Lists the partitions of pairs in ``path`` and those of ``copies``; each is a source."""

    copies: str

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        for kind, folder in ((PAIRS, self.path), (COPIES, self.copies)):
            for found in Partitions(path=folder).process(task):
                found._metadata["kind"] = kind
                found.task_id = f"{kind}-{found.task_id}"
                yield found


@dataclass(kw_only=True)
class RouteTies(PartitionStage):
    """Writes ties by their group, so that one partition holds all ties of a group."""

    groups: str

    def process(self, task: FileGroupTask) -> FileGroupTask:
        table = pa.concat_tables([piece for _, piece in partition_pieces(task)]).unify_dictionaries()
        group = groups_of_numbers(self.groups, to_numpy(table["number"]))
        if task._metadata["kind"] == COPIES:
            table = table.rename_columns({"number": "witness", "member": "number"})
        made = table.select(TIES.names).append_column("group", array(group))
        record = write_partitioned(storage.join(self.path, f"{task.task_id}.arrow"), made, mixed(group), self.parts)
        self.record_output(record)
        return FileGroupTask(data=[record.path], dataset_name=task.dataset_name)


def groups_of_numbers(folder: str, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The group of each document; a document without ties is a group of its own."""
    group = numbers.copy()
    batches = batches_of(numbers)
    for batch in distinct(batches):
        rows, found = groups_of(folder, int(batch))
        if not len(rows):
            continue
        here = np.flatnonzero(batches == batch)
        mine = rows_of(numbers[here])
        at = np.minimum(np.searchsorted(rows, mine), len(rows) - 1)
        there = rows[at] == mine
        group[here[there]] = found[at[there]]
    return group


@dataclass(kw_only=True)
class DecideTies(PartitionStage):
    """Decides about all documents of the groups of a partition, and writes the decisions by batch.

    Documents are taken in order of preference. A document stays unless it is tied to one that stays; it is then removed
    for the most similar of these.
    """

    def process(self, task: FileGroupTask) -> FileGroupTask:
        table = pa.concat_tables([piece for _, piece in partition_pieces(task)]).unify_dictionaries().combine_chunks()
        return self.write_decided(task, decided_by_ties(table, RULE))


def decided_by_ties(table: pa.Table, rule: str) -> Iterator[pa.Table]:
    """The decisions about all documents of some groups. ``table`` holds the ties and copies among them, with the
    ``group`` of each.
    """
    names = _documents(table)
    numbers = to_numpy(names["number"])
    is_copy = to_numpy(table["is_copy"])
    loser = np.searchsorted(numbers, to_numpy(table["number"]))
    winner = np.searchsorted(numbers, to_numpy(table["witness"]))
    similarity, tie = to_numpy(table["similarity"]), to_numpy(table["witness_hash"])
    pairs = np.flatnonzero(~is_copy)
    stays = independent(len(numbers), loser[pairs], winner[pairs])
    witness = np.arange(len(numbers))
    figure = np.ones(len(numbers))
    valid = pairs[stays[winner[pairs]] & ~stays[loser[pairs]]]
    # The witness is the most similar document that stays. Among equally similar ones it is the one with the smallest
    # hash, whatever its number.
    valid = valid[np.lexsort((tie[valid], -similarity[valid], loser[valid]))]
    best = valid[np.flatnonzero(np.append(True, loser[valid][1:] != loser[valid][:-1]))] if len(valid) else valid
    witness[loser[best]], figure[loser[best]] = winner[best], similarity[best]
    copies = np.flatnonzero(is_copy)
    witness[loser[copies]], figure[loser[copies]] = witness[winner[copies]], figure[winner[copies]]
    stays[loser[copies]] = False
    lost = np.flatnonzero(~stays)
    group = np.zeros(len(numbers), np.uint64)
    for side in (loser, winner):
        group[side] = to_numpy(table["group"])
    _, inverse, sizes = np.unique(group, return_inverse=True, return_counts=True)
    return decided_rows(
        numbers[lost],
        numbers[witness[lost]],
        names=names,
        at=lost,
        witness_at=witness[lost],
        figures={"similarity": figure[lost]},
        rules=array([rule] * len(lost), pa.string()),
        component_sizes=sizes[inverse].astype(np.int64),
    )


def _documents(table: pa.Table) -> pa.Table:
    """The number, id and collection of each document in the ties, sorted by number."""
    sides = [
        table.select(["number", "id", "collection"]),
        table.select(["witness", "witness_id", "witness_collection"]).rename_columns(["number", "id", "collection"]),
    ]
    both = pa.concat_tables(sides).unify_dictionaries().combine_chunks()
    _, first = np.unique(to_numpy(both["number"]), return_index=True)
    return both.take(array(first)).combine_chunks()


def independent(count: int, loser: NDArray[np.int64], winner: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Decide which of ``count`` documents stay: a document is removed if it is tied to a preferred one that stays.

    ``winner[i]`` is preferred to ``loser[i]``. Each turn decides all rows whose preferred rows are decided.
    """
    unknown, stays, goes = 0, 1, 2
    state = np.zeros(count, np.int8)
    while True:
        waits = np.zeros(count, np.bool_)
        waits[loser] = True
        state[(state == unknown) & ~waits] = stays
        state[loser[state[winner] == stays]] = goes
        # A tie no longer matters once its loser or its winner is removed.
        rest = (state[loser] == unknown) & (state[winner] != goes)
        if not rest.any():
            state[state == unknown] = stays
            kept: NDArray[np.bool_] = state == stays
            return kept
        loser, winner = loser[rest], winner[rest]
