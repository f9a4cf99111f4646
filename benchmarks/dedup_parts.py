"""Measures the search for repeated parts of a corpus: runs of words, runs of characters, or lines.

    python benchmarks/dedup_parts.py substring|characters|lines|filtered FOLDER SCRATCH [--workers 2]

FOLDER contains the output of make_dedup.py. The whole run is timed, with its workers: wall time, and processor time for
each MB of the files. `filtered` is `lines` with a Bloom filter. ``between_mb`` is the total size of the files between
the steps.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

from processor_time import processor_seconds

from curator_core import LocalExecutor
from curator_text import LineDedup, SubstringDedup

WORKS: dict[str, tuple[type[SubstringDedup] | type[LineDedup], dict[str, Any]]] = {
    "substring": (SubstringDedup, {}),
    "characters": (SubstringDedup, {"characters": 250}),
    "lines": (LineDedup, {}),
    "filtered": (LineDedup, {"false_rate": 0.01}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=WORKS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    files = sorted(options.folder.glob("jsonl/**/*.jsonl"))
    size = sum(path.stat().st_size for path in files) / 1e6
    place = options.scratch / "parts"
    shutil.rmtree(place, ignore_errors=True)
    kind, parameters = WORKS[options.what]
    work = kind(paths=[str(path) for path in files], path=str(place / "out"), **parameters)
    start = time.monotonic()
    before = processor_seconds()
    summary = work.run(LocalExecutor(workers=options.workers), run_dir=str(place / "run")).summary
    spent = processor_seconds() - before
    records = [json.loads(path.read_text()) for path in (place / "run/steps").glob("*/run.json")]
    written = {record["summary"]["name"]: record["summary"]["bytes"] for record in records}
    metrics = {
        "mb": round(size),
        "rows_in": summary.rows_in,
        "rows_dropped": summary.rows_dropped,
        "wall_s": round(time.monotonic() - start, 1),
        "cpu_s": round(spent, 1),
        "cpu_s_per_mb": round(spent / size, 3),
        "between_mb": round(sum(size for name, size in written.items() if name != "apply") / 1e6),
    }
    print("BENCH", json.dumps(metrics))
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
