"""Compares the search for hard negatives with brute force: its speed and its results.

    python benchmarks/hard_negatives.py SCRATCH [--pairs 20000] [--size 384]

The data are random passages around centres, and a query near each passage. It measures processor time in one process.
Brute force multiplies float32 vectors in memory, 512 queries at a time, chooses the nearest passages by `argpartition`,
and orders these by float64 cosines; it reads and writes nothing. ``different`` counts the pairs whose negatives differ
from those of brute force.
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

from curator_core import HardNegatives, LocalExecutor

NEGATIVES, LAST_RANK, EPS = 5, 100, 0.05
QUERIES = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=384)
    options = parser.parse_args()
    folder = options.scratch / "negatives"
    shutil.rmtree(folder, ignore_errors=True)
    queries, passages = made(options.pairs, options.size)
    write(folder / "in", queries, passages)
    start = time.process_time()
    expected = by_brute_force(queries, passages)
    brute = time.process_time() - start
    work = HardNegatives(
        paths=str(folder / "in"), path=str(folder / "out"), negatives=NEGATIVES, last_rank=LAST_RANK, eps=EPS
    )
    start = time.process_time()
    work.run(LocalExecutor(workers=0), run_dir=str(folder / "run"))
    spent = time.process_time() - start
    found = {
        row["anchor"]: [row[f"negative_{rank + 1}"] for rank in range(NEGATIVES)]
        for path in sorted((folder / "out").glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    }
    shutil.rmtree(folder)
    metrics = {
        "pairs": options.pairs,
        "mined": len(found),
        "different": different(queries, passages, found, expected),
        "run_s": round(spent, 2),
        "brute_force_s": round(brute, 2),
        "brute_force_to_run": round(brute / spent, 3),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print("BENCH", json.dumps(metrics))


def different(
    queries: np.ndarray, passages: np.ndarray, found: dict[str, list[str]], expected: dict[int, list[str]]
) -> int:
    """How many queries have different negatives than by brute force, ignoring cosines that differ by less than the
    rounding of float32.
    """
    asked, given = unit(queries), unit(passages)
    wrong = len(found.keys() - {f"q{row}" for row in expected})
    for row, names in expected.items():
        there = found.get(f"q{row}")
        if there is None:
            wrong += 1
        elif there != names:
            both = [given[[int(name[1:]) for name in some]] @ asked[row] for some in (there, names)]
            wrong += bool(np.abs(both[0] - both[1]).max() > 1e-6)
    return wrong


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows.astype(np.float64), axis=1)[:, None]


def made(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A query for each passage."""
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(round(count**0.5), size)).astype(np.float32)
    passages = centres[rng.integers(0, len(centres), count)] + 0.8 * rng.standard_normal((count, size), np.float32)
    return passages + 0.5 * rng.standard_normal((count, size), np.float32), passages


def write(folder: Path, queries: np.ndarray, passages: np.ndarray) -> None:
    folder.mkdir(parents=True)
    table = pa.table(
        {
            "query": [f"q{row}" for row in range(len(queries))],
            "passage": [f"p{row}" for row in range(len(passages))],
            "query_embedding": pa.FixedSizeListArray.from_arrays(pa.array(queries.ravel()), queries.shape[1]),
            "passage_embedding": pa.FixedSizeListArray.from_arrays(pa.array(passages.ravel()), passages.shape[1]),
        }
    )
    pq.write_table(table, folder / "0.parquet", row_group_size=5000)


def by_brute_force(queries: np.ndarray, passages: np.ndarray) -> dict[int, list[str]]:
    """The negatives of each query that has enough of them, by its row number."""
    asked, given = unit(queries), unit(passages)
    narrow = given.astype(np.float32)
    found: dict[int, list[str]] = {}
    for first in range(0, len(asked), QUERIES):
        block = asked[first : first + QUERIES]
        products = block.astype(np.float32) @ narrow.T
        # Take a few more than are ranked, since float32 may order nearly equal values differently.
        near = np.argpartition(-products, LAST_RANK + 20, axis=1)[:, : LAST_RANK + 20]
        for row, names in enumerate(near):
            own = first + row
            others = names[names != own]
            cosines = given[others] @ block[row]
            ranked = others[np.argsort(-cosines)][:LAST_RANK]
            hard = given[ranked] @ block[row] <= given[own] @ block[row]
            hard &= given[ranked] @ given[own] < 1 - EPS
            chosen = ranked[hard][:NEGATIVES]
            if len(chosen) == NEGATIVES:
                found[own] = [f"p{name}" for name in chosen]
    return found


if __name__ == "__main__":
    main()
