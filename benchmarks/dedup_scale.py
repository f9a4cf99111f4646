"""Estimates the time of fuzzy deduplication for corpora and clusters that are too large to test.

    python benchmarks/dedup_scale.py measure FOLDER SCRATCH    the constants, from a run over the output of
    make_dedup.py
    python benchmarks/dedup_scale.py [--constants FILE]        the table of docs/dedup-at-scale.md, by simulation

`measure` runs `curate dedup fuzzy` in one process and reads its processor time when each step begins, so the constants
are for one core and do not depend on other load. It also records the peak sizes of the files between the steps.

In the simulation, each step has a list of tasks: one for each piece of 128 MB of the input, or one for each partition
of a shuffle. The duration of a task is computed from the constants and its share of the documents, multiplied by a
random factor (log-normal, 20 %; one task in two hundred takes five times as long), and is at least the engine's cost of
a task. Free workers take the next task from the list, and a step begins when the previous one is complete. Storage also
limits reading and writing: it has a fixed rate for every sixteen cores. All random numbers follow from the seed.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Measured by `measure` over the 50,000 documents of make_dedup.py; seconds of one core.
CONSTANTS: dict[str, Any] = {
    "documents": 50000,
    "bytes": 152692392,
    "cpu_s": {
        "start": 1.45,
        "keys": 3.35,
        "candidates": 0.26,
        "groups": 0.07,
        "texts": 1.62,
        "compare": 3.06,
        "table": 0.12,
        "apply": 1.46,
    },
    "between_bytes": {"decided": 2423522, "groups": 479583, "keys": 17553226, "pairs": 2340664, "texts": 74617683},
    "between_files": {"decided": 10, "groups": 3, "keys": 63, "pairs": 26, "texts": 31},
    "peak_bytes": 298086400,
}
PIECE_BYTES = 128e6
# The largest cost of a task on LocalExecutor, Ray Data and Xenna (benchmarks/nightly.yaml, engines).
TASK_S = 0.015
STORAGE_PER_16_CORES = 1e9
DOCUMENT_BYTES = 3050  # the values of the measured corpus
# Steps whose tasks are pieces of the input; the tasks of other steps are partitions.
OF_INPUT = ("keys", "texts", "apply")
# A worker needs about nine bytes of memory for each byte of words in a partition (885 MB at the peak for a partition of
# 75 MB).
PARTITION_BYTES = 64e6
# If there are more edges than this, they are reduced in rounds, and each round reads and writes them twice. Five rounds
# are assumed; the actual number depends on the groups.
IN_MEMORY_BYTES = 96 * 2**20
ROUNDS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["measure", "table"], default="table")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("scratch", nargs="?", type=Path)
    parser.add_argument(
        "--constants", type=Path, help="a file with the output of `measure`, to use instead of the built-in constants"
    )
    options = parser.parse_args()
    if options.what == "measure":
        if options.scratch is None:
            parser.error("measure needs FOLDER and SCRATCH")
        print(json.dumps(measure(options.folder, options.scratch), indent=4))
        return
    constants = json.loads(options.constants.read_text()) if options.constants else CONSTANTS
    print(table(constants))


def measure(folder: Path, scratch: Path) -> dict[str, Any]:
    """The processor seconds and bytes of each step, per document and per byte of the input."""
    facts = json.loads((folder / "corpus.json").read_text())
    run = scratch.resolve() / "run"
    curate = Path(sys.executable).with_name("curate")
    command = [curate, "dedup", "fuzzy", folder.resolve() / "jsonl", scratch.resolve() / "out", "--run-dir", run]
    command += ["--workers", "0", "--quiet", "--json"]
    ticks: list[tuple[str, float]] = []
    largest: dict[str, list[int]] = {}
    peak = 0
    with subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            steps = sorted(path.name for path in run.glob("steps/*"))
            try:
                used, memory = usage(process.pid)
            except (FileNotFoundError, ProcessLookupError, KeyError):
                break
            peak = max(peak, memory)
            name = steps[-1].partition("-")[2].lower() if steps else "start"
            if not ticks or ticks[-1][0] != name:
                ticks.append((name, used))
                for part in run.glob("work/*"):
                    sizes = [path.stat().st_size for path in part.rglob("*") if path.is_file()]
                    if sum(sizes) >= largest.get(part.name, [0])[0]:
                        largest[part.name] = [sum(sizes), len(sizes)]
            end = used
            time.sleep(0.01)
    if process.returncode:
        sys.exit(f"error: deduplication ended with exit code {process.returncode}")
    ends = [used for _, used in ticks[1:]] + [end]
    return {
        "documents": facts["documents"],
        "bytes": facts["bytes"],
        "cpu_s": {name: round(after - before, 2) for (name, before), after in zip(ticks, ends, strict=True)},
        "between_bytes": {name: size for name, (size, _) in sorted(largest.items())},
        "between_files": {name: count for name, (_, count) in sorted(largest.items())},
        "peak_bytes": peak,
    }


def usage(pid: int) -> tuple[float, int]:
    """The processor seconds and resident bytes of a process (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return (int(fields[11]) + int(fields[12])) / 100, int(status["VmHWM"].split()[0]) * 1024


def simulate(constants: dict[str, Any], documents: float, cores: int, seed: int = 1) -> dict[str, float]:
    """The seconds of each step, the bytes and files between the steps, and the largest memory of a task."""
    rng = random.Random(seed)
    size = documents * DOCUMENT_BYTES
    scale_documents, scale_bytes = documents / constants["documents"], size / constants["bytes"]
    between = {name: value * scale_documents for name, value in constants["between_bytes"].items()}
    pieces = max(1, math.ceil(size / PIECE_BYTES))
    partitions = max(1, math.ceil(max(between.values()) / PARTITION_BYTES))
    found: dict[str, float] = {}
    for name, seconds in constants["cpu_s"].items():
        if name == "start":
            continue
        work = seconds * (scale_bytes if name in OF_INPUT else scale_documents)
        count = pieces if name in OF_INPUT else partitions
        if name == "groups" and between["pairs"] > IN_MEMORY_BYTES:
            work *= ROUNDS
        moved = size * 2 if name == "apply" else size if name in OF_INPUT else between.get(SHUFFLE_OF.get(name, ""), 0)
        found[name] = max(schedule(work, count, cores, rng), moved / (STORAGE_PER_16_CORES * max(1, cores / 16)))
    found["total"] = sum(found.values())
    found["shuffle_bytes"] = sum(between.values())
    found["files"] = 4 * pieces + 4 * partitions
    return found


SHUFFLE_OF = {"candidates": "keys", "groups": "pairs", "compare": "texts", "table": "decided"}


def schedule(work: float, count: int, cores: int, rng: random.Random) -> float:
    """The end of the last task if each free worker takes the next task."""
    mean = work / count
    if count > 50 * cores and count > 200_000:  # with so many tasks, all workers end at about the same time
        return (work * 1.04 + count * TASK_S) / cores + 5 * mean
    free = [0.0] * min(cores, count)
    for _ in range(count):
        spread = math.exp(rng.gauss(-0.02, 0.2)) * (5 if rng.random() < 0.005 else 1)
        heapq.heappush(free, heapq.heappop(free) + mean * spread + TASK_S)
    return max(free)


def table(constants: dict[str, Any]) -> str:
    lines = [
        "| documents | text | cores | keys | candidates | groups | texts | compare | table | apply | total | between | files |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for documents in (1e6, 1e8, 1e9):
        for cores in (1, 64, 1000):
            found = simulate(constants, documents, cores)
            steps = ("keys", "candidates", "groups", "texts", "compare", "table", "apply", "total")
            cells = [duration(found.get(step, 0.0)) for step in steps]
            lines.append(
                f"| 10^{round(math.log10(documents))} | {amount(documents * DOCUMENT_BYTES)} | {cores:,} | "
                + " | ".join(cells)
                + f" | {amount(found['shuffle_bytes'])} | {round(found['files']):,} |"
            )
    return "\n".join(lines)


def duration(seconds: float) -> str:
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (172_800, 3600, "h"), (math.inf, 86_400, "d")):
        if seconds < limit:
            return f"{seconds / unit:.2g} {name}" if seconds / unit < 10 else f"{seconds / unit:.0f} {name}"
    raise AssertionError


def amount(size: float) -> str:
    for unit, name in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB")):
        if size >= unit:
            return f"{size / unit:.2g} {name}" if size / unit < 10 else f"{size / unit:.0f} {name}"
    return f"{size / 1e6:.0f} MB"


if __name__ == "__main__":
    main()
