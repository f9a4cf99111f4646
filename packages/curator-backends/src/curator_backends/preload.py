"""Imports the modules that a worker of a local Ray needs for its first task, while the driver plans.

Ray starts workers when the driver connects. Without this module, they would import only when work arrives. An
environment variable, set when Ray starts, names the modules of the engine and of the stages.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterable, Mapping, Sequence

from curator_core.model.codec import can_import
from curator_core.upkeep import without_collection

NAME = "CURATOR_PRELOAD"
# Every worker encodes tasks and writes its part of the ledger.
WORKER_MODULES = ("pyarrow.parquet", "curator_backends.worker", "curator_backends.transport")


def environment_for(modules: Sequence[str]) -> Mapping[str, str]:
    """The environment variables that make the workers of a starting Ray import ``modules``."""
    return {"RAY_preload_python_modules": __name__, NAME: ",".join(dict.fromkeys((*WORKER_MODULES, *modules)))}


def importable(modules: Iterable[str]) -> list[str]:
    """The modules that a worker can import; the code of others, such as a script, is sent to the worker."""
    return [module for module in dict.fromkeys(modules) if can_import(module)]


def load() -> None:
    """Import the modules that the environment names; a failed import is reported when the module is needed."""
    with without_collection():
        for module in os.environ.get(NAME, "").split(","):
            if module:
                with contextlib.suppress(Exception):
                    importlib.import_module(module)


load()
