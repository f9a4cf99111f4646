"""Times a whole command that runs a pipeline of JSON lines, including the engine's start and stop.

    python benchmarks/from_nothing.py examples/text/pipeline.yaml DATA SCRATCH --executor ray_data

DATA is a folder of JSON lines. Prints ``BENCH {json}``: seconds until the executor was ready, until the first task was
done, and in total; rows read and written. ``first_work_to_import`` is the time of the first task divided by the time to
import Ray Data in the same run (`yardstick`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from yardstick import import_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline")
    parser.add_argument("data", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--executor", default="ray_data")
    options = parser.parse_args()
    curate = Path(sys.executable).with_name("curate")
    command = [
        *(str(curate), "run", options.pipeline, "--executor", options.executor, "--json", "--quiet"),
        *("--set", f"JsonlReader.paths={options.data.resolve()}/*.jsonl"),
        *("--set", f"JsonlWriter.path={(options.scratch / 'out').resolve()}"),
        *("--run-dir", str(options.scratch / "run")),
    ]
    import_s = import_seconds()
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    wall = time.perf_counter() - started
    summary = json.loads(done.stdout)
    report = {
        "executor": options.executor,
        "ready_s": round(summary["opened_after"], 2),
        "first_work_s": round(summary["worked_after"], 2),
        "wall_s": round(wall, 2),
        "import_s": round(import_s, 2),
        "first_work_to_import": round(summary["worked_after"] / import_s, 2),
        "rows_in": summary["stages"][0]["rows_in"],
        "rows_out": summary["rows_written"],
    }
    print("BENCH " + json.dumps(report))


if __name__ == "__main__":
    main()
