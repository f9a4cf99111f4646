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
from curator_core.across.vectors import Vectors, Whole, as_lists, packed, unpacked, vectors_of, whole_blocks
from curator_core.arrow.arrays import array, to_numpy
from curator_core.errors import check_whole
from curator_core.model.lineage import source_id
from curator_core.model.stage import SourceStage
from curator_core.model.task import EmptyTask, FileGroupTask, FileRecord

CENTRES = "centres.arrow"
VECTOR = "vector"
_END = 1 << 64
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
    vectors: Whole | Sequence[Vectors], centres: Whole, count: int = 1, products: Products | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ``count`` centres nearest to each vector, the nearest first, and the product of whole numbers with each of
    them.

    Equally near centres keep their order. Vectors that are used only once should be passed as floats, in their original
    pieces: each block is converted to whole numbers in memory that stays in the cache.
    """
    products = products or NumpyProducts()
    count = min(count, len(centres.numbers))
    rows = max(1, products.block // max(1, len(centres.numbers)))
    there = len(vectors.numbers) if isinstance(vectors, Whole) else sum(map(len, vectors))
    found = np.empty((there, count), np.int64)
    best = np.empty((there, count), np.float32)
    across = products.put(np.ascontiguousarray(centres.numbers.T))
    blocks = _blocks(vectors.numbers, rows) if isinstance(vectors, Whole) else whole_blocks(vectors, rows)
    start = 0
    for numbers in blocks:
        part = slice(start, start + len(numbers))
        found[part], best[part] = products.nearest(numbers, across, count)
        start += len(numbers)
    return found, best


def _blocks(numbers: Vectors, rows: int) -> Iterator[Vectors]:
    return (numbers[start : start + rows] for start in range(0, len(numbers), rows))


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
    turns = 0
    for _ in range(iterations):
        turns += 1
        found, best = nearest(whole, Whole.of(centres), products=products)
        moved = np.flatnonzero(found[:, 0] != labels)
        if not len(moved):
            break
        # After the first turns few vectors move. The sums are whole numbers, so they do not depend on the turns.
        _add(sums, whole, moved, found[moved, 0])
        if turns > 1:
            _add(sums, whole, moved, labels[moved], -1)
        labels = found[:, 0]
        centres = _directions(sums, whole, labels, best[:, 0], centres)
    return centres, np.bincount(labels, minlength=len(centres)), turns


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
    products: NDArray[np.float32],
    before: Vectors,
) -> Vectors:
    """The direction of the sum of each cluster; an empty cluster starts again at a vector that is far from its centre."""
    sums = totals.copy()
    empty = np.setdiff1d(np.arange(len(before)), labels)
    if len(empty):
        far = np.lexsort((np.arange(len(products)), products))[: len(empty)]
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
