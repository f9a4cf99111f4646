"""Deduplicates the labelled corpus with datasketch, as its documentation shows, from JSON lines to JSON lines.

    sh benchmarks/peers/datasketch.sh
    benchmarks/peers/envs/datasketch/bin/python benchmarks/peers/datasketch_dedup.py fuzzy FOLDER SCRATCH

datasketch is a library, not a pipeline. The script uses one process, word 5-grams, 128 permutations and its LSH for a
Jaccard similarity of 0.7. Of all documents that are connected by a chain of matches, the first one stays.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import orjson
from datasketch import MinHash, MinHashLSH

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from dedup_truth import report_kept

PERMUTATIONS, WORDS = 128, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["fuzzy"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("scratch", type=Path)
    options = parser.parse_args()
    target = options.scratch / "datasketch"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    started = time.perf_counter()
    files = sorted((options.folder / "jsonl").rglob("*.jsonl"))
    lines = [line for path in files for line in path.read_bytes().splitlines()]
    index = MinHashLSH(threshold=0.7, num_perm=PERMUTATIONS)
    parents: list[int] = []

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    for number, line in enumerate(lines):
        words = orjson.loads(line)["text"].lower().split()
        parts = {" ".join(words[at : at + WORDS]) for at in range(max(1, len(words) - WORDS + 1))}
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch([part.encode() for part in parts])
        parents.append(number)
        for other in index.query(sketch):
            one, two = sorted((root(number), root(other)))
            parents[two] = one
        index.insert(number, sketch)
    with (target / "out.jsonl").open("wb") as out:
        out.writelines(line + b"\n" for number, line in enumerate(lines) if root(number) == number)
    wall = time.perf_counter() - started
    metrics = report_kept(options.folder, target)
    print("BENCH", json.dumps({"pipeline_s": round(wall, 2), "rows_in": metrics.pop("documents"), **metrics}))


if __name__ == "__main__":
    main()
