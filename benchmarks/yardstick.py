"""How long does this machine take, just now, for what every process of an engine does first: to import Ray Data?

The start of an engine is divided by it, so that a gate holds on a slower machine and in a slower hour.
"""

from __future__ import annotations

import subprocess
import sys
import time


def import_seconds(times: int = 3) -> float:
    """Seconds to import Ray Data in a new process: the least of some, the first of which finds cold files."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import ray.data"], check=True)
        found.append(time.perf_counter() - started)
    return min(found)
