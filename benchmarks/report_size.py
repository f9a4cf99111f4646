"""Measures the size of the report page of a large run, and the cost of making it.

    python benchmarks/report_size.py [--tasks 1000000] [--tasks-per-source 100]

Writes the run directory of a run whose sources fork into tasks with scores, samples and sizes, like workers do, and
makes its report. Prints ``BENCH {json}``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from ledger_size import peak_gb, write_ledger

from curator_core.accounts.ledger import open_accounts
from curator_core.accounts.seen import sum_counts
from curator_core.accounts.seen_rows import SeenRows, TaskKey
from curator_core.accounts.table_files import write_parquet
from curator_core.model.scores import Limit, Score, whole_numbers
from curator_core.planning.plan import fingerprint
from curator_core.running.directory import RunDirectory
from curator_core.running.report import write_report

ROWS = 1000
TASKS_A_FILE = 20_000


def write_seen(run_dir: str, sources: list[str], per_source: int, score: Score) -> None:
    """Record scores of ten rows of each task, its sizes, and some samples, with the code of a worker."""
    random = np.random.default_rng(3)
    edges = np.array(score.edges)
    waiting, number, tasks = SeenRows(), 0, 0

    def put() -> None:
        nonlocal waiting, number
        for folder, table in (("seen", waiting.counts()), ("samples", waiting.samples())):
            if table is not None:
                write_parquet(f"{run_dir}/{folder}/0001-bench-{number:06d}.parquet", table)
        waiting, number = SeenRows(), number + 1

    for place, source in enumerate(sources):
        file = f"/data/collection-{place % 500:03d}/{source}.jsonl"
        for part in range(per_source):
            key = TaskKey(source, "g", 1, f".{part:05d}")
            values = random.gamma(4.0, 60.0, 10).round()
            kept = values >= 50
            waiting.score(key, "Score", score.name, score.scale, edges, values, None, kept, np.ones(10, bool))
            waiting.count(key, "Read", "in", file, [""], [ROWS], [ROWS * 2000])
            if part == 0:
                value = float(values[0])
                side = "kept" if kept[0] else "dropped"
                waiting.sample(
                    key,
                    (
                        "Score",
                        side,
                        score.name,
                        f"{score.name}\x00min_words",
                        abs(value - 50),
                        place,
                        0,
                        value,
                        json.dumps({score.name: value}),
                        f"id-{place}",
                        file,
                        "line 1",
                        "a text " * 200,
                        0,
                        1400,
                        [],
                        "{}",
                        None,
                        None,
                    ),
                )
            tasks += 1
            if tasks % TASKS_A_FILE == 0:
                put()
    put()


def megabytes(run_dir: str, name: str) -> float:
    """The size of a folder of the run directory."""
    return sum(path.stat().st_size for path in Path(run_dir, name).iterdir()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--tasks-per-source", type=int, default=100)
    options = parser.parse_args()
    score = Score("word_count", whole_numbers(), integers=True).with_limits([Limit("min_words", 50.0, "at least")])
    with tempfile.TemporaryDirectory() as folder:
        sources = write_ledger(folder, options.tasks, options.tasks_per_source)
        write_seen(folder, sources, options.tasks_per_source, score)
        declared = {
            "name": "Score",
            "describe": "keeps documents of at least 50 words",
            "settings": {"min_words": 50},
            "column": "text",
            "scores": [
                {
                    "name": score.name,
                    "scale": score.scale,
                    "integers": True,
                    "edges": list(score.edges),
                    "limits": [limit.as_dict() for limit in score.limits],
                }
            ],
        }
        stages = [{"name": name, "describe": "", "settings": {}} for name in ("Split", "Read")]
        content = {
            "attempt": 1,
            "options": {"samples": 20, "by": [], "tokens": "bytes", "text": "text", "overlap": False, "seed": 0},
            "stages": [*stages, declared, {"name": "Write", "describe": "", "settings": {}}],
        }
        Path(folder, "declared").mkdir()
        Path(folder, "declared", "0001.json").write_text(json.dumps(content))
        directory = RunDirectory(folder)
        steps = [
            {"name": entry["name"], "class": f"bench.{entry['name']}", "version": "1", "params": {}}
            for entry in content["stages"]
        ]  # type: ignore[attr-defined]
        plan = {"name": "large", "fingerprint": fingerprint(steps), "since": 0, "steps": steps, "text": ""}
        directory.write_json("plan.json", plan)
        directory.write_json("run.json", {"state": "running", "attempt": 1, "started": "2026-01-31T12:00:00.000Z"})
        before = peak_gb()
        started, cpu = time.perf_counter(), time.process_time()
        path = Path(write_report(folder))
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        numbers = json.loads((path.parent / "report.json").read_text())
        peak, kept_mb = peak_gb(), megabytes(folder, "seen")
        started = time.perf_counter()
        sum_counts(folder, open_accounts(folder), 1)
        sum_seconds = time.perf_counter() - started
        page = path.read_bytes()
        write_report(folder)
        assert path.read_bytes() == page, "the page that is made from sums differs"
        found = {
            "tasks": len(sources) * options.tasks_per_source,
            "sources": numbers["sources"]["complete"],
            "scored": next(s for s in numbers["stages"] if s["name"] == "Score")["scores"][0]["rows"],
            "bytes_in": numbers["bytes"]["in"],
            "seconds": round(seconds, 2),
            "cpu_seconds": round(cpu_seconds, 2),
            "peak_gb": round(peak, 2),
            "peak_before_gb": round(before, 2),
            "page_mb": round(path.stat().st_size / 1e6, 2),
            "json_mb": round((path.parent / "report.json").stat().st_size / 1e6, 2),
            "counts_mb": round(kept_mb, 2),
            "sums_mb": round(megabytes(folder, "seen"), 2),
            "sum_seconds": round(sum_seconds, 2),
            "sum_peak_gb": round(peak_gb(), 2),
        }
    print("BENCH " + json.dumps(found))


if __name__ == "__main__":
    main()
