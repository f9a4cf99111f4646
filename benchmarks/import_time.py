"""Measures how long importing a package takes, and whether it loads anything heavy."""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module

HEAVY = {"pandas", "ray", "torch", "transformers", "cosmos_xenna", "nvidia.dali"}

if __name__ == "__main__":
    started = time.perf_counter()
    import_module(sys.argv[1])
    import_s = time.perf_counter() - started
    print("BENCH", json.dumps({"import_s": import_s, "heavy_modules": len(HEAVY & sys.modules.keys())}))
