"""What ``run.json`` says of a run: how it was started, with what, on which machine."""

from __future__ import annotations

import functools
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from curator_core.model.machine import Machine, system_name
from curator_core.running.options import RunOptions


def run_record(
    state: str, attempt: int, success_files: Mapping[str, str], executor: str, options: RunOptions, machine: Machine
) -> dict[str, Any]:
    """The part of the record that is there from the start."""
    return {
        "state": state,
        "attempt": attempt,
        "marks": dict(success_files),
        "executor": executor,
        "options": {
            "on_error": options.on_error,
            "retries": options.retries,
            "max_error_fraction": options.max_error_fraction,
            "max_reject_fraction": options.max_reject_fraction,
            "limit": options.limit,
        },
        "command": sys.argv[:1],
        "versions": _versions(),
        "python": platform.python_version(),
        "machine": {"system": system_name(), "cpus": machine.cpus, "gpus": machine.gpus},
    }


@functools.cache
def _versions() -> dict[str, str]:
    wanted = ("curator-core", "curator-text", "curator-image", "curator-backends", "pyarrow", "ray", "cosmos-xenna")
    found = {}
    for name in wanted:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
