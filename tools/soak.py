"""Kills workers and drivers for any length of time, and checks that the output equals that of an undisturbed run.

    python tools/soak.py [--executor local] [--config '{"workers": 2}'] [--minutes 30] [--seed 1]

Every round has its own seed, which is printed before it starts, and a pipeline of random size, with or without a merge,
and with one or several files per source. If a round fails, its folder is kept and named.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from curator_core.testing.faults import Trial


def play(folder: Path, seed: int, executor: str, config: dict[str, object]) -> str:
    """Run one round; returns a summary. Raises `AssertionError` if anything is lost, duplicated or left over."""
    rng = random.Random(seed)
    kills = rng.randint(5, 30)
    trial = Trial(
        folder,
        executor,
        config,
        files=rng.randint(2 * kills, 4 * kills),
        rows=rng.choice((1, 6, 50)),
        seconds=rng.choice((0.002, 0.01, 0.05)),
        merge=rng.random() < 0.5,
        files_per_partition=rng.choice((1, 1, 2, 3)),
    )
    what = f"{trial.files} files, {trial.files_per_partition} a source, merge={trial.merge}, {trial.seconds} s a task"
    sources = trial.files // trial.files_per_partition
    if rng.random() < 0.5 and config.get("workers") != 0:
        killed = trial.kill_workers(seed, min(kills, sources // 2))
        return f"{what}: {killed} workers killed"
    report = trial.kill_driver(seed, kills, timeout_s=1800)
    return f"{what}: {report.kills} drivers killed, {report.repeated} tasks repeated, in flight {report.in_flight}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executor", default="local", help="a registered name or a dotted path, module:Class")
    parser.add_argument("--config", type=json.loads, default={"workers": 2}, help="the executor's options as JSON")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    until = time.monotonic() + options.minutes * 60
    seed = options.seed
    rounds = 0
    while time.monotonic() < until or not rounds:
        folder = Path(tempfile.mkdtemp(prefix=f"soak-{seed}-"))
        print(f"seed {seed} ...", end=" ", flush=True)
        try:
            print(play(folder, seed, options.executor, options.config), flush=True)
        except BaseException:
            print(f"failed; see {folder}", flush=True)
            raise
        shutil.rmtree(folder)
        seed += 1
        rounds += 1
    print(f"{rounds} rounds, nothing lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
