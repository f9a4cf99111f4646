"""Imported by each worker of a local Ray of ours before its first task, while the driver plans: what every worker needs.

Ray starts workers when the driver connects. Without this they would wait, and import when work is there. The
environment in which Ray was started says for which engine and which stages it is.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterable, Mapping, Sequence

from curator_core.lazy import without_collection
from curator_core.model.codec import can_import

NAME = "CURATOR_PRELOAD"
# Every worker encodes tasks and writes its part of the ledger.
WORKER_MODULES = ("pyarrow.parquet", "curator_backends.worker", "curator_backends.transport")


def environment_for(modules: Sequence[str]) -> Mapping[str, str]:
    """What must be in the environment of a Ray that starts, so that its workers import ``modules``."""
    return {"RAY_preload_python_modules": __name__, NAME: ",".join(dict.fromkeys((*WORKER_MODULES, *modules)))}


def importable(modules: Iterable[str]) -> list[str]:
    """Those of the modules that a worker can import; the others, such as a script's, travel with their code."""
    return [module for module in dict.fromkeys(modules) if can_import(module)]


def load() -> None:
    """Import what the environment names; what cannot be imported is reported where it is needed."""
    with without_collection():
        for module in os.environ.get(NAME, "").split(","):
            if module:
                with contextlib.suppress(Exception):
                    importlib.import_module(module)


load()
