"""Deduplicates the labelled corpus with Data-Juicer, from JSON lines to JSON lines.

    sh benchmarks/peers/datajuicer.sh
    benchmarks/peers/envs/datajuicer/bin/python benchmarks/peers/datajuicer_dedup.py exact|fuzzy FOLDER SCRATCH

It runs Data-Juicer's program `dj-process` with two processes and without its cache, which a second run would use. The
settings are the operators' defaults: words separated by white space, 5-grams, 256 permutations, a Jaccard similarity of
0.7.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from dedup_truth import report_kept

OPERATORS = {
    "exact": "document_deduplicator: {lowercase: false, ignore_non_character: false}",
    "fuzzy": "document_minhash_deduplicator: "
    "{tokenization: space, window_size: 5, lowercase: true, num_permutations: 256, jaccard_threshold: 0.7}",
}
RECIPE = """\
project_name: dedup
dataset_path: {source}
export_path: {target}/out.jsonl
np: 2
use_cache: false
process:
  - {operator}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["exact", "fuzzy"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("scratch", type=Path)
    options = parser.parse_args()
    scratch = (options.scratch / "datajuicer").resolve()
    shutil.rmtree(scratch, ignore_errors=True)
    # Data-Juicer does not read subfolders.
    source, target = scratch / "in", scratch / "out"
    source.mkdir(parents=True)
    target.mkdir()
    for path in sorted((options.folder.resolve() / "jsonl").rglob("*.jsonl")):
        (source / f"{path.parent.name}-{path.name}").symlink_to(path)
    recipe = scratch / "recipe.yaml"
    recipe.write_text(RECIPE.format(source=source, target=target, operator=OPERATORS[options.kind]))
    home = str(scratch / "home")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": home, "HF_DATASETS_CACHE": home}
    program = Path(sys.executable).with_name("dj-process")
    started = time.perf_counter()
    done = subprocess.run([program, "--config", recipe], env=environment, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - started
    if done.returncode:
        sys.exit(
            f"error: dj-process ended with exit code {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
    metrics = report_kept(options.folder, target)
    print("BENCH", json.dumps({"pipeline_s": round(wall, 2), "rows_in": metrics.pop("documents"), **metrics}))


if __name__ == "__main__":
    main()
