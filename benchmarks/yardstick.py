"""Measures how long this machine takes at the moment to import Ray Data, as every process of an engine does first.

The start time of an engine is divided by this time, so that gates also hold on a slower or busier machine.
"""

from __future__ import annotations

import subprocess
import sys
import time


def import_seconds(times: int = 3) -> float:
    """The seconds to import Ray Data in a new process: the least of several, since the first import finds no files in
    the cache.
    """
    found = []
    for _ in range(times):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import ray.data"], check=True)
        found.append(time.perf_counter() - started)
    return min(found)
