"""Compares the time to deduplicate vectors with the time that BLAS takes for the same products.

    python benchmarks/semantic.py SCRATCH [--vectors 100000] [--size 384]

The vectors are random, around as many centres as the square root of their number; a fifth are near copies of others. It
measures processor time in one process. For each stage that multiplies, the time that BLAS takes for its products in
square blocks is divided by the stage's whole time. `compare_to_blas`: all pairs that are compared; `assign_to_blas`:
each vector with each centre; `train_to_blas`: the sample with the centres, in each turn. `products_to_blas`: all three
together; `run_to_blas`: all three beside the whole run, which also reads, hashes, lays out and writes the vectors. These
are the products that a search without bounds computes; `multiplied` is the share of their multiplications that was
needed. Numpy has one thread, since threads that wait take processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curator_core import LocalExecutor
from curator_core.across.alike import FindPairs, VisitClusters
from curator_core.across.centres import TrainCentres
from curator_core.across.products import NumpyProducts
from curator_core.executors.blas_threads import limit_blas_threads
from curator_core.workflows.semantic import SemanticDedup

FILES = 8
# The side of a square block in vectors, and the number of such blocks that BLAS multiplies between two calls.
SIDE, PROBES = 1024, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=384)
    options = parser.parse_args()
    limit_blas_threads(1)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the executor leaves it so
    folder = options.scratch / "semantic"
    shutil.rmtree(folder, ignore_errors=True)
    write_vectors(folder / "in", options.vectors, options.size)
    measured = Measured(options.size, FindPairs, VisitClusters, TrainCentres)
    work = SemanticDedup(paths=str(folder / "in"), path=str(folder / "out"))
    before = time.process_time()
    summary = work.run(LocalExecutor(workers=0), run_dir=str(folder / "run")).summary
    spent = time.process_time() - before
    steps = {path.parent.name[3:]: json.loads(path.read_text()) for path in (folder / "run/steps").glob("*/run.json")}
    products = [
        counted(steps, "compare", "pairs"),
        counted(steps, "clusters", "products"),
        counted(steps, "centres", "products"),
    ]
    each, spent_in = measured.each, measured.spent
    spent -= measured.in_blas
    shutil.rmtree(folder)
    metrics = {
        "vectors": options.vectors,
        "removed": summary.rows_dropped,
        "pairs": int(products[0]),
        "compare_s": round(spent_in[0], 2),
        "run_s": round(spent, 2),
        "gflop_per_s_of_blas": round(2 * options.size / each / 1e9, 1),
        **{
            f"{name}_to_blas": round(count * each / seconds, 3)
            for name, count, seconds in zip(("compare", "assign", "train"), products, spent_in, strict=True)
        },
        "products_to_blas": round(sum(products) * each / sum(spent_in), 3),
        "run_to_blas": round(sum(products) * each / spent, 3),
        "multiplied": round(measured.multiplied / sum(products) / options.size, 3),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print("BENCH", json.dumps(metrics))


class Measured:
    """Measure the processor seconds of these stages in this process. Between their calls, under the same load, measure
    those of a BLAS product of two vectors of ``size`` numbers.
    """

    def __init__(self, size: int, *stages: type[Any]) -> None:
        self.spent = [0.0] * len(stages)
        self.in_blas = 0.0
        # Two different blocks: of a block with itself, BLAS computes one half only. The memory of the result is used
        # again, since clearing new memory takes a third of the time of a product.
        self._one, self._other = np.random.default_rng(0).standard_normal((2, SIDE, size), np.float32)
        self._result = np.empty((SIDE, SIDE), np.float32)
        self._probes = 0
        self.multiplied = 0
        for number, stage in enumerate(stages):
            stage.process = self._timed(number, stage.process)
        NumpyProducts.nearest = self._counted(NumpyProducts.nearest, 1)  # type: ignore[method-assign]
        NumpyProducts.at_least = self._counted(NumpyProducts.at_least, 0)  # type: ignore[method-assign]

    def _counted(self, multiply: Callable[..., Any], columns: int) -> Callable[..., Any]:
        """Count the multiplications; this is the axis of the second matrix that has a column of the product."""

        def call(products: Any, mine: Any, theirs: Any, *given: Any) -> Any:
            self.multiplied += mine.size * theirs.shape[columns]
            return multiply(products, mine, theirs, *given)

        return call

    @property
    def each(self) -> float:
        return self.in_blas / self._probes / SIDE**2

    def _timed(self, number: int, process: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            start = time.process_time()
            result = process(*given)
            stop = time.process_time()
            self.spent[number] += stop - start
            for _ in range(PROBES):
                np.matmul(self._one, self._other.T, out=self._result)
            self._probes += PROBES
            self.in_blas += time.process_time() - stop
            return result

        return call


def counted(steps: Mapping[str, Any], step: str, metric: str) -> float:
    """The sum of a metric over the stages of a step."""
    return sum(stage["metrics"].get(metric, 0.0) for stage in steps[step]["summary"]["stages"])


def write_vectors(folder: Path, count: int, size: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(round(count**0.5), size)).astype(np.float32)
    made = np.empty((0, size), np.float32)
    for number in range(FILES):
        rows = (number + 1) * count // FILES - number * count // FILES
        new = centres[rng.integers(0, len(centres), rows)] + 0.8 * rng.standard_normal((rows, size), np.float32)
        made = new if number == 0 else made
        copies, of = rng.choice(rows, rows // 5, replace=False), rng.integers(0, len(made), rows // 5)
        noise = rng.choice(np.array([0, 0.05, 0.2, 0.4], np.float32), rows // 5)
        new[copies] = made[of] + noise[:, None] * rng.standard_normal((rows // 5, size), np.float32)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(new.ravel()), size)
        ids = [f"{number}-{row}" for row in range(rows)]
        table = pa.table({"id": ids, "embedding": vectors})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=10_000)


if __name__ == "__main__":
    main()
