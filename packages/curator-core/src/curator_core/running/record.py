"""What does ``run.json`` record about a run? How it was started, with which versions and options, and on which machine."""

from __future__ import annotations

import datetime
import functools
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from curator_core.model.machine import Machine, system_name
from curator_core.running.options import RunOptions


def now() -> str:
    """The present time in UTC in the format of ``run.json``: ``2026-01-31T12:00:00.000Z``."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def run_record(
    state: str,
    attempt: int,
    success_files: Mapping[str, str],
    executor: str,
    options: RunOptions,
    machine: Machine,
    started: str,
) -> dict[str, Any]:
    """The part of the record that exists from the start. It describes this attempt; no output depends on it."""
    return {
        "state": state,
        "attempt": attempt,
        "started": started,
        "ended": None if state == "running" else now(),
        "host": platform.node(),
        "marks": dict(success_files),
        "executor": executor,
        "options": {
            "on_error": options.on_error,
            "retries": options.retries,
            "max_error_fraction": options.max_error_fraction,
            "max_reject_fraction": options.max_reject_fraction,
            "limit": options.limit,
        },
        "command": shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]) if sys.argv else "",  # noqa: PTH119
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
