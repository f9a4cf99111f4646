"""Checks that a huge file of JSON lines streams through one worker with little memory.

    python benchmarks/large_file.py SCRATCH [--gb 20] [--memory-gb 1.5]

Makes the file in SCRATCH, and removes it at the end. The file is read as one source, not in ranges, so a single worker
reads all of it; a filter keeps one document in a hundred. No process of the run may use more than ``--memory-gb``
(RLIMIT_DATA, so a process that requests more fails). ``peak_rss_gb`` is the peak of the largest process; the time to
make the file is not in ``wall_s``.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

PIPELINE = """\
name: large-file
stages:
  - JsonlReader: {{paths: {source}, split_bytes: null}}
  - WordCountFilter: {{min_words: 3000}}
  - JsonlWriter: {{path: {target}}}
"""
BLOCK_DOCUMENTS = 20_000
LONG_EVERY = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--gb", type=float, default=20)
    parser.add_argument("--memory-gb", type=float, default=1.5)
    options = parser.parse_args()
    scratch = options.scratch.resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(scratch).free < options.gb * 1.2e9:
        raise SystemExit(f"{scratch} has no space for {options.gb} GB and the output: give a smaller --gb")
    source, target, file = scratch / "large.jsonl", scratch / "out", scratch / "pipeline.yaml"
    try:
        rows = make(source, int(options.gb * 1e9))
        size = source.stat().st_size
        file.write_text(PIPELINE.format(source=json.dumps(str(source)), target=json.dumps(str(target))))
        curate = Path(sys.executable).with_name("curate")
        command = [curate, "run", file, "--workers", "1", "--run-dir", scratch / "run", "--quiet", "--json"]
        limit = int(options.memory_gb * (1 << 30))
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))  # child processes inherit the limit
        started = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        wall = time.perf_counter() - started
    finally:
        source.unlink(missing_ok=True)
    stages = json.loads(done.stdout)["stages"]
    written = sum(path.read_bytes().count(b"\n") for path in target.glob("*.jsonl"))
    metrics = {
        "gb": round(size / 1e9, 2),
        "rows_lost": rows - stages[0]["rows_in"],
        "rows_wrong": rows // LONG_EVERY - written,
        "wall_s": round(wall, 1),
        "mb_s": round(size / 1e6 / wall, 1),
        "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1 << 20), 3),
    }
    print("BENCH", json.dumps(metrics))


def make(path: Path, size: int) -> int:
    """Write a file of about this many bytes by repeating one block of documents; returns the number of documents."""
    rng = random.Random(20)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyzäé", k=rng.randint(2, 11))) for _ in range(5000)]
    lines = []
    for number in range(BLOCK_DOCUMENTS):
        count = 3500 if number % LONG_EVERY == 0 else rng.randint(50, 900)
        row = {"id": f"document-{number}", "text": " ".join(rng.choices(words, k=count)), "score": rng.random()}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    block = "".join(lines).encode()
    blocks = max(1, round(size / len(block)))
    with path.open("wb") as out:
        for _ in range(blocks):
            out.write(block)
    return blocks * BLOCK_DOCUMENTS


if __name__ == "__main__":
    main()
