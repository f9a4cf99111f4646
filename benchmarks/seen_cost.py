"""Measures the cost of samples, histograms and counts: processor time with the default settings and with all of them
off, alternately.

    python benchmarks/seen_cost.py FOLDER SCRATCH [--rounds 5] [--workers N]

FOLDER contains the 50,000 documents of make_text.py; the pipeline is that of text_curation.py. The processor time is
that of the command and all of its workers, from their start to their end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from text_curation import PIPELINE

VARIANTS = {"off": "seen: false\n", "without_samples": "seen: {samples: 0}\n", "default": ""}


def processor_seconds(command: list[str]) -> float:
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", default=None)
    options = parser.parse_args()
    scratch = options.scratch.resolve()
    source = json.dumps(str(options.folder.resolve() / "jsonl" / "*.jsonl"))
    curate = str(Path(sys.executable).with_name("curate"))
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    kept = 0
    for turn in range(options.rounds + 1):
        # Every second turn is the other way round: within a turn the machine may become slower.
        for name, line in list(VARIANTS.items())[:: -1 if turn % 2 else 1]:
            place = scratch / name
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            text = PIPELINE.format(source=source, target=json.dumps(str(place / "out"))) + line
            if options.workers is not None:
                text += f"executor: {{local: {{workers: {options.workers}}}}}\n"
            (place / "pipeline.yaml").write_text(text)
            took = processor_seconds(
                [curate, "run", str(place / "pipeline.yaml"), "--run-dir", str(place / "run"), "--quiet"]
            )
            if turn:  # the first round only warms the caches
                seconds[name].append(took)
        folders = [scratch / "default" / "run" / name for name in ("seen", "samples", "declared")]
        kept = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
    found = {f"{name}_cpu_s": round(statistics.median(values), 3) for name, values in seconds.items()}
    pairs = [default / off for default, off in zip(seconds["default"], seconds["off"], strict=True)]
    found |= {
        "default_to_off": round(found["default_cpu_s"] / found["off_cpu_s"], 4),
        "pairs_median": round(statistics.median(pairs), 4),
        "kept_mb": round(kept / 1e6, 3),
    }
    print("BENCH", json.dumps(found))


if __name__ == "__main__":
    main()
