"""How fast are vectors deduplicated, beside what BLAS takes for the same products?

    python benchmarks/semantic.py SCRATCH [--vectors 100000] [--size 384]

Random vectors around as many centres as the square root of their number, a fifth of them near copies of others. One process,
processor time. `compare_to_blas`: the products of all pairs that are compared, by BLAS in square blocks, beside the stage that
compares them with all that it does besides; `run_to_blas`: those and the products with centres, beside the whole run.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curator_core import LocalExecutor
from curator_core.workflows.semantic import SemanticDedup

FILES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=384)
    options = parser.parse_args()
    folder = options.scratch / "semantic"
    shutil.rmtree(folder, ignore_errors=True)
    write_vectors(folder / "in", options.vectors, options.size)
    work = SemanticDedup(paths=str(folder / "in"), path=str(folder / "out"))
    each = blas(options.size)
    before = time.process_time()
    summary = work.run(LocalExecutor(workers=0), run_dir=str(folder / "run")).summary
    spent = time.process_time() - before
    steps = {path.parent.name[3:]: json.loads(path.read_text()) for path in (folder / "run/steps").glob("*/run.json")}
    compare = next(s for s in steps["compare"]["summary"]["stages"] if s["name"] == "FindPairs")
    pairs = compare["metrics"]["pairs"]
    each = (each + blas(options.size)) / 2  # the clock of a busy machine is not the same from minute to minute
    clusters = round(options.vectors**0.5)
    shutil.rmtree(folder)
    metrics = {
        "vectors": options.vectors,
        "removed": summary.rows_dropped,
        "pairs": int(pairs),
        "compare_s": round(compare["seconds"], 2),
        "run_s": round(spent, 2),
        "gflop_per_s_of_blas": round(2 * options.size / each / 1e9, 1),
        "compare_to_blas": round(pairs * each / compare["seconds"], 3),
        "run_to_blas": round((pairs + options.vectors * clusters) * each / spent, 3),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print("BENCH", json.dumps(metrics))


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


def blas(size: int) -> float:
    """The processor seconds that a product of two vectors takes in square blocks."""
    block = np.random.default_rng(0).standard_normal((1024, size), np.float32)
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        for _ in range(10):
            block @ block.T
        best = min(best, (time.process_time() - start) / 10)
    return best / 1024**2


if __name__ == "__main__":
    main()
