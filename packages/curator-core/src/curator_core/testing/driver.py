"""The driver of the resume check: runs a pipeline that kills this process halfway."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from curator_core.config.build import load_executor
from curator_core.pipeline import Pipeline
from curator_core.testing.conformance import resumed_stages


def main() -> None:
    """Run the pipeline that the file on the command line describes."""
    order = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(order["folder"])
    (folder / "driver.pid").write_text(str(os.getpid()))
    executor = load_executor(order["executor"])(config=order["config"])
    Pipeline(resumed_stages(order["paths"], folder)).run(executor, run_dir=str(folder / "run"))


if __name__ == "__main__":
    main()
