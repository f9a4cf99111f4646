"""Times a whole command that runs eight filters over JSON lines.

    python benchmarks/text_curation.py FOLDER SCRATCH [--executor local|ray_data|xenna]

FOLDER contains the 50,000 documents of make_text.py. The pipeline has the same filters, thresholds and files with which
the peers were timed. ``first_work_s`` is the time until the first file was written, and ``first_work_to_import``
divides it by the time to import Ray Data in the same run; ``wall_s`` includes the start of Python, of the engine and of
its workers, and their end. ``dropped`` is the number of documents that each filter dropped, which must be the same on
every executor.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from yardstick import import_seconds

PIPELINE = """\
name: text-curation
stages:
  - JsonlReader: {{paths: {source}}}
  - WordCountFilter: {{min_words: 50, max_words: 100000}}
  - NonAlphaNumericFilter: {{max_non_alpha_numeric_to_text_ratio: 0.25}}
  - SymbolsToWordsFilter: {{max_symbol_to_word_ratio: 0.1}}
  - BulletsFilter: {{max_bullet_lines_ratio: 0.9}}
  - EllipsisFilter: {{max_num_lines_ending_with_ellipsis_ratio: 0.3}}
  - MeanWordLengthFilter: {{min_mean_word_length: 3, max_mean_word_length: 10}}
  - RepeatedLinesFilter: {{max_repeated_line_fraction: 0.7}}
  - RepeatingTopNGramsFilter: {{n: 2, max_repeating_ngram_ratio: 0.2}}
  - JsonlWriter: {{path: {target}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--executor", choices=["local", "ray_data", "xenna"], default="local")
    options = parser.parse_args()
    scratch = options.scratch.resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    file, target = scratch / "pipeline.yaml", scratch / "out"
    source = json.dumps(str(options.folder.resolve() / "jsonl" / "*.jsonl"))
    file.write_text(PIPELINE.format(source=source, target=json.dumps(str(target))))
    curate = Path(sys.executable).with_name("curate")
    command = [curate, "run", file, "--executor", options.executor, "--run-dir", scratch / "run", "--quiet", "--json"]
    import_s = import_seconds() if options.executor != "local" else None
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        first = None
        while first is None and process.poll() is None:
            if any(target.glob("*.jsonl")):
                first = time.perf_counter() - started
            time.sleep(0.02)
        output, _ = process.communicate()
    wall = time.perf_counter() - started
    if process.returncode or first is None:
        raise SystemExit(f"the run failed with exit code {process.returncode}")
    stages = json.loads(output)["stages"]
    metrics = {
        "first_work_s": round(first, 2),
        "wall_s": round(wall, 2),
        "rows_in": stages[0]["rows_in"],
        "rows_out": sum(path.read_bytes().count(b"\n") for path in target.glob("*.jsonl")),
        "dropped": " ".join(str(sum(stage["dropped"].values())) for stage in stages if "Filter" in stage["name"]),
    }
    if import_s:
        metrics |= {"import_s": round(import_s, 2), "first_work_to_import": round(first / import_s, 2)}
    print("BENCH", json.dumps(metrics))


if __name__ == "__main__":
    main()
