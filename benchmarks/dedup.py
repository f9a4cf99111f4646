"""Measures the whole time of a `curate dedup` command, and checks its decisions.

    python benchmarks/dedup.py exact|fuzzy FOLDER SCRATCH [--workers 2] [--truth] [--no-copy]

FOLDER contains the output of make_dedup.py. ``wall_s`` is the time of the whole process, including the start of Python
and its workers, and writing the output. For comparison, the files are also copied in two ways: by a script with pyarrow
and orjson that parses every line and writes it again (in two processes, each with half of the files), and by `curate
run` with a reader and a writer. ``speed_of_script`` and ``speed_of_run`` are their times divided by ours: 1 would mean
that deduplication costs nothing.

With ``--truth``, dedup_truth.py checks every removal. ``shuffle_bytes`` and ``files`` are the peak size and number of
the files between the steps; they are sampled ten times a second in a separate run, which is not timed.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
COPY = """\
name: copy
stages:
  - JsonlReader: {{paths: {source}}}
  - JsonlWriter: {{path: {target}}}
"""
# A simple hand-written script, without checks, counts or resuming.
SCRIPT = """\
import multiprocessing, pathlib, sys
import orjson
import pyarrow.json as pj

def copy(names):
    source, target = names
    rows = pj.read_json(source).to_pylist()
    with open(target, "wb") as out:
        for row in rows:
            out.write(orjson.dumps(row) + b"\\n")

if __name__ == "__main__":
    root, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    files = sorted(root.rglob("*.jsonl"))
    for folder in {(out / file.relative_to(root)).parent for file in files}:
        folder.mkdir(parents=True, exist_ok=True)
    with multiprocessing.Pool(2) as pool:
        pool.map(copy, [(str(file), str(out / file.relative_to(root))) for file in files], 1)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["exact", "fuzzy"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--truth", action="store_true", help="check the decisions by brute force")
    parser.add_argument("--no-copy", action="store_true", help="time deduplication alone")
    parser.add_argument("--watch", action="store_true", help="run again and measure the files between the steps")
    options = parser.parse_args()
    source, scratch = options.folder.resolve() / "jsonl", options.scratch.resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    facts = json.loads((options.folder / "corpus.json").read_text())
    metrics: dict[str, Any] = {"rows_in": facts["documents"]}
    out, run = scratch / "out", scratch / "run"
    command = deduplicate(options.kind, source, out, run, options.workers)
    used = cpu_seconds()
    wall, summary = timed(command)
    metrics |= {
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu_seconds() - used, 2),
        "documents_s": round(facts["documents"] / wall),
        "mb_s": round(facts["bytes"] / 1e6 / wall, 1),
        "rows_out": rows_in(out),
        **dropped(summary),
    }
    if not options.no_copy:
        metrics |= copies(source, scratch, options.workers, wall)
    if options.truth:
        metrics |= truth(options.folder, run, out, options.kind)
    if options.watch:
        metrics |= watched(
            deduplicate(options.kind, source, scratch / "out2", scratch / "run2", options.workers), scratch / "run2"
        )
    print("BENCH", json.dumps(metrics))


def deduplicate(kind: str, source: Path, out: Path, run: Path, workers: int) -> list[str | Path]:
    curate = Path(sys.executable).with_name("curate")
    options = ["--workers", str(workers), "--quiet", "--json"]
    return [curate, "dedup", kind, source, out, "--run-dir", run, *options]


def timed(command: list[str | Path]) -> tuple[float, dict[str, Any]]:
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    wall = time.perf_counter() - started
    return wall, json.loads(done.stdout) if done.stdout.strip() else {}


def cpu_seconds() -> float:
    """The processor time of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rows_in(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.rglob("*.jsonl"))


def dropped(summary: dict[str, Any]) -> dict[str, int]:
    """The rows that the applying step dropped, by reason."""
    reasons: dict[str, int] = {}
    for stage in summary.get("stages", []):
        for reason, count in stage["dropped"].items():
            reasons[reason.replace(" ", "_")] = reasons.get(reason.replace(" ", "_"), 0) + count
    return reasons


def copies(source: Path, scratch: Path, workers: int, wall: float) -> dict[str, float]:
    """The times to copy the same files with a script, and with `curate run`."""
    script, file = scratch / "by_hand.py", scratch / "copy.yaml"
    script.write_text(SCRIPT)
    used = cpu_seconds()
    by_script, _ = timed([sys.executable, script, source, scratch / "by-script"])
    script_cpu = cpu_seconds() - used
    file.write_text(COPY.format(source=json.dumps(str(source)), target=json.dumps(str(scratch / "by-run"))))
    curate = Path(sys.executable).with_name("curate")
    command = [curate, "run", file, "--workers", str(workers), "--run-dir", scratch / "copy-run", "--quiet", "--json"]
    used = cpu_seconds()
    by_run, _ = timed(command)
    run_cpu = cpu_seconds() - used
    for name in ("by-script", "by-run"):
        shutil.rmtree(scratch / name)
    return {
        "script_s": round(by_script, 2),
        "run_s": round(by_run, 2),
        "script_cpu_s": round(script_cpu, 2),
        "run_cpu_s": round(run_cpu, 2),
        "speed_of_script": round(by_script / wall, 3),
        "speed_of_run": round(by_run / wall, 3),
    }


def truth(folder: Path, run: Path, out: Path, kind: str) -> dict[str, Any]:
    command = [sys.executable, HERE / "dedup_truth.py", folder, "--run", run, "--output", out]
    command += ["--rule", "exact"] if kind == "exact" else ["--recall"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout)
    lines = [line for line in done.stdout.splitlines() if line.startswith("BENCH ")]
    if not lines:
        sys.exit("error: the decisions could not be judged")
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("BENCH "))
    return found


def watched(command: list[str | Path], run: Path) -> dict[str, int]:
    """The peak size and number of the files between the steps."""
    size = count = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            sizes = []
            for path in run.glob("work/**/*"):
                try:
                    if path.is_file():
                        sizes.append(path.stat().st_size)
                except FileNotFoundError:  # deleted meanwhile
                    continue
            size, count = max(size, sum(sizes)), max(count, len(sizes))
            time.sleep(0.1)
    return {"shuffle_bytes": size, "shuffle_files": count}


if __name__ == "__main__":
    main()
