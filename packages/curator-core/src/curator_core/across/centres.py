"""Where are the centres of the clusters of many vectors? k-means by cosine, with the same centres on every machine.

The sample of vectors is chosen by their hashes, so it does not depend on the files that hold them. All products use
whole numbers (see `curator_core.across.vectors`), and so do the sums that give new centres: the nearest centre does not
depend on threads or blocks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curator_core import storage
from curator_core.across.products import MultipliesVectors, NumpyProducts, Products, products_for
from curator_core.across.shuffle import Manifest, read_manifest, require_complete, rows_between
from curator_core.across.vectors import EXACT, Vectors, Whole, as_lists, packed, unpacked, vectors_of, whole_blocks
from curator_core.arrow.arrays import array, to_numpy
from curator_core.errors import check_whole
from curator_core.model.lineage import source_id
from curator_core.model.stage import SourceStage
from curator_core.model.task import EmptyTask, FileGroupTask, FileRecord

CENTRES = "centres.arrow"
VECTOR = "vector"
_END = 1 << 64
# Vectors are chosen one by one if this saves a quarter of the products.
_WORTH = 0.75
# No whole number is above 4,096, so sums of this many are exact in float32.
_SUMMED = 1 << 12
# The cost is lowest if a cluster has about as many vectors as there are clusters; more clusters than this have not been
# found to help.
_MOST_CLUSTERS = 50_000
_SAMPLE_EACH = 128
# The sample is in memory, as floats and once more as whole numbers: at most this many numbers, 512 MiB.
_MOST_NUMBERS = 1 << 27


def default_clusters(vectors: int) -> int:
    """The default number of clusters: the square root of the number of vectors."""
    return max(1, min(_MOST_CLUSTERS, round(float(np.sqrt(vectors)))))


def nearest(
    vectors: Whole | Sequence[Vectors],
    centres: Whole,
    count: int = 1,
    products: Products | None = None,
    some: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ``count`` centres nearest to each vector, the nearest first, and the product of whole numbers with each of
    them.

    Equally near centres keep their order. Vectors that are used only once should be passed as floats, in their original
    pieces: each block is converted to whole numbers in memory that stays in the cache.
    """
    products = products or NumpyProducts()
    count = min(count, len(centres.numbers))
    rows = max(1, products.block // max(1, len(centres.numbers)))
    if isinstance(vectors, Whole):
        there = len(vectors.numbers) if some is None else len(some)
        blocks = _blocks(vectors.numbers, rows, some)
    else:
        there, blocks = sum(map(len, vectors)), whole_blocks(vectors, rows)
    found = np.empty((there, count), np.int64)
    best = np.empty((there, count), np.float32)
    across = products.put(np.ascontiguousarray(centres.numbers.T))
    start = 0
    for numbers in blocks:
        part = slice(start, start + len(numbers))
        found[part], best[part] = products.nearest(numbers, across, count)
        start += len(numbers)
    return found, best


def _blocks(numbers: Vectors, rows: int, some: NDArray[np.int64] | None) -> Iterator[Vectors]:
    if some is None:
        return (numbers[start : start + rows] for start in range(0, len(numbers), rows))
    return (numbers[some[start : start + rows]] for start in range(0, len(some), rows))


def train(
    sample: Vectors, clusters: int, iterations: int, products: Products | None = None
) -> tuple[Vectors, NDArray[np.int64], int]:
    """Centres of length one for a sample, the number of vectors nearest to each, and the number of iterations. The
    sample begins with the first centres, so it must be in random order.
    """
    whole = Whole.of(sample)
    centres = sample[: min(clusters, len(sample))].copy()
    labels = np.full(len(sample), -1, np.int64)
    sums = np.zeros(centres.shape, np.float64)
    following = Following(whole, products or NumpyProducts())
    turns = 0
    for _ in range(iterations):
        turns += 1
        found = following.nearest(Whole.of(centres))
        moved = np.flatnonzero(found != labels)
        if not len(moved):
            break
        # After the first turns few vectors move. The sums are whole numbers, so they do not depend on the turns.
        _add(sums, whole, moved, found[moved])
        if turns > 1:
            _add(sums, whole, moved, labels[moved], -1)
        labels = found
        centres = _directions(sums, whole, labels, following, centres)
    return centres, np.bincount(labels, minlength=len(centres)), turns


class Following:
    """The nearest centre of each of many vectors, while the centres move.

    A product changes by at most the length of the vector times the distance that the centre has moved. So for each
    vector two bounds are kept: the product with its nearest centre is at least the one, and the product with any other
    centre at most the other. While the one is greater, the nearest centre is the same (Hamerly, 2010). All are whole
    numbers that float64 holds, so the result is the same as of all products.
    """

    # The centres that have moved farthest, up to one of these shares of all, are multiplied with every vector: then a
    # bound is needed for the others only.
    _shares = (0, 1 / 32, 1 / 16, 1 / 8, 1 / 4)

    def __init__(self, whole: Whole, products: Products) -> None:
        self._whole, self._products = whole, products
        self._centres: Whole | None = None
        self._labels = np.zeros(len(whole.numbers), np.int64)
        self._own, self._other = np.zeros((2, len(whole.numbers)))

    def nearest(self, centres: Whole) -> NDArray[np.int64]:
        """The nearest centre of each vector; of equally near ones the first."""
        doubtful = np.arange(len(self._labels)) if self._centres is None else self._move(self._centres, centres)
        self._centres = centres
        some = doubtful if len(doubtful) < len(self._labels) else None
        found, best = nearest(self._whole, centres, 2, self._products, some)
        self._labels[doubtful] = found[:, 0]
        self._own[doubtful] = best[:, 0]
        self._other[doubtful] = best[:, 1] if best.shape[1] > 1 else -np.inf
        return self._labels.copy()

    def own(self) -> NDArray[np.float32]:
        """The product of each vector with its nearest centre."""
        assert self._centres is not None  # it was looked for before
        made = np.empty(len(self._labels), np.float32)
        for start in range(0, len(made), _SUMMED):
            part = slice(start, start + _SUMMED)
            np.einsum("ij,ij->i", self._whole.numbers[part], self._centres.numbers[self._labels[part]], out=made[part])
        return made

    def _move(self, before: Whole, after: Whole) -> NDArray[np.int64]:
        """Change the bounds for these centres; return the vectors whose nearest centre may be another one."""
        changes = after.numbers.astype(np.float64) - before.numbers
        # No vector of whole numbers is longer than `EXACT`. The number added is for the rounding of these bounds.
        moved = EXACT * np.sqrt(np.einsum("ij,ij->i", changes, changes)) + 1
        farthest = np.argsort(-moved, kind="stable")
        self._own -= moved[self._labels]
        counts = [int(share * len(moved)) for share in self._shares]
        rests = [float(moved[farthest[count]]) for count in counts]
        doubts = [np.count_nonzero(self._own <= self._other + rest) / len(self._own) for rest in rests]
        best = int(np.argmin([share + doubt for share, doubt in zip(self._shares, doubts, strict=True)]))
        if self._shares[best] + doubts[best] > _WORTH:
            return np.arange(len(self._labels))
        self._other += rests[best]
        if counts[best]:
            far = np.sort(farthest[: counts[best]])
            found, products = nearest(
                self._whole, Whole(after.numbers[far], after.scale, after.error), 2, self._products
            )
            # The nearest of these, or the second if the nearest is the vector's own.
            products[far[found] == self._labels[:, None]] = -np.inf
            np.maximum(self._other, products.max(axis=1), out=self._other)
        return np.flatnonzero(self._own <= self._other)


def _add(
    sums: NDArray[np.float64], whole: Whole, rows: NDArray[np.int64], labels: NDArray[np.int64], sign: int = 1
) -> None:
    """Add these rows to the sums of their clusters, or subtract them."""
    order = np.argsort(labels, kind="stable")
    edges = np.searchsorted(labels[order], np.arange(len(sums) + 1)).tolist()
    for cluster, (first, stop) in enumerate(itertools.pairwise(edges)):
        for start in range(first, stop, _SUMMED):
            # Sums of whole numbers below 2²⁴ are exact in any order.
            sums[cluster] += sign * whole.numbers[rows[order[start : min(start + _SUMMED, stop)]]].sum(axis=0)


def _directions(
    totals: NDArray[np.float64],
    whole: Whole,
    labels: NDArray[np.int64],
    following: Following,
    before: Vectors,
) -> Vectors:
    """The direction of the sum of each cluster; an empty cluster starts again at a vector that is far from its centre."""
    sums = totals.copy()
    empty = np.setdiff1d(np.arange(len(before)), labels)
    if len(empty):
        far = np.argsort(following.own(), kind="stable")[: len(empty)]
        sums[empty[: len(far)]] = whole.numbers[far]
    unit, there = vectors_of(pa.chunked_array([as_lists(sums.astype(np.float32))]), "centres")
    centres = before.copy()
    centres[there] = unit
    return centres


@dataclass(kw_only=True)
class AllVectors(SourceStage[FileGroupTask]):
    """Lists a complete shuffle of vectors as one source."""

    path: str

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        place = require_complete(self.path)
        yield FileGroupTask(
            data=[place],
            task_id=source_id("vectors", []),
            dataset_name=task.dataset_name,
            _generation=storage.fingerprint(place),
        )


@dataclass(kw_only=True)
class TrainCentres(MultipliesVectors):
    """Finds the centres of ``clusters`` clusters from a sample of the vectors of a shuffle, and writes them into ``path``.

    The sample consists of the vectors with the smallest hashes: 128 for each cluster, or ``sample`` in all.
    """

    path: str
    clusters: int | None = None
    sample: int | None = None
    iterations: int = 20

    def __post_init__(self) -> None:
        for name in ("clusters", "sample"):
            check_whole(f"TrainCentres.{name}", getattr(self, name), optional=True)
        check_whole("TrainCentres.iterations", self.iterations)

    def output_folder(self) -> str:
        return self.path

    def repacks(self) -> bool:
        return False

    def process(self, task: FileGroupTask) -> FileGroupTask:
        manifest = read_manifest(task.data[0])
        count = int(manifest.rows.sum())
        clusters = min(self.clusters or default_clusters(count), max(1, count))
        size = first_vectors(manifest, 1).shape[1]
        wanted = self.sample or min(clusters * _SAMPLE_EACH, max(clusters, _MOST_NUMBERS // size))
        sample = first_vectors(manifest, wanted)
        centres, sizes, turns = (
            train(sample, clusters, self.iterations, products_for(self.resources, self.name))
            if count
            else (sample, np.zeros(0, np.int64), 0)
        )
        self.record_metric("products", float(turns * len(sample) * len(centres)))
        table = pa.table({VECTOR: packed(centres), "in_sample": array(sizes)})
        with (
            storage.write_atomic(storage.join(self.path, CENTRES)) as out,
            pa.ipc.new_file(out, table.schema) as writer,
        ):
            writer.write_table(table)
        record = out.record(rows=len(centres))
        self.record_output(record)
        return FileGroupTask(data=[record.path], dataset_name=task.dataset_name)

    def finish(self, outputs: Sequence[FileRecord]) -> None:
        """Return nothing more: the file is complete."""


def first_vectors(manifest: Manifest, count: int) -> Vectors:
    """The ``count`` vectors of a shuffle with the smallest places, in the order of their places."""
    rows = int(manifest.rows.sum())
    # Places are hashes, evenly spread: a range is chosen that should hold enough vectors; if it holds too few, a wider
    # one is read.
    share = min(1.0, 1.1 * count / max(1, rows) + 1e-6)
    while True:
        high = min(_END, int(_END * share) + 1)
        pieces = [table for _, table in rows_between(manifest, 0, high)] if rows else []
        places = np.concatenate([to_numpy(piece[manifest.column]) for piece in pieces] or [np.zeros(0, np.uint64)])
        if len(places) >= min(count, rows) or high == _END:
            break
        share *= 2
    if not len(places):
        return np.zeros((0, 1), np.float32)
    vectors = unpacked(pa.chunked_array([chunk for piece in pieces for chunk in piece[VECTOR].chunks]))
    return vectors[np.argsort(places, kind="stable")[:count]]


def read_centres(folder: str) -> Vectors:
    """The centres that `TrainCentres` has written."""
    with storage.open_input(storage.join(folder, CENTRES)) as stream, pa.ipc.open_file(stream) as file:
        return unpacked(file.read_all()[VECTOR])
