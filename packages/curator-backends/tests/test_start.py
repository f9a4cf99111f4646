"""A local Ray that does not start: the reason is reported soon, and nothing else is started or left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("ray")

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]

# Counts the calls of the function that starts Ray.
START = """
import json, sys, time
from pathlib import Path

import ray
from ray._private import node, services

from curator_backends import RayDataExecutor, processes
from curator_core.errors import CuratorError

started = []
original = node.Node.__init__

def counted(self, *args, **options):
    started.append(options.get("head"))
    original(self, *args, **options)

node.Node.__init__ = counted
{fault}
began = time.monotonic()
try:
    RayDataExecutor(**json.loads(sys.argv[1])).open()
except CuratorError as error:
    report = dict(kind=type(error).__name__, text=str(error))
else:
    report = dict(kind="none", text="")
report["seconds"] = time.monotonic() - began
report["started"] = len(started)
report["initialized"] = ray.is_initialized()
folder = str(Path(ray.__file__).parent)
report["left"] = len(processes.ray_processes(folder))
print(json.dumps(report))
"""


def attempt(fault: str = "", **options: Any) -> dict[str, Any]:
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", START.replace("{fault}", fault), json.dumps(options)],
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def test_an_option_that_ray_rejects_is_reported_with_its_reason_and_ray_is_not_started_again() -> None:
    report = attempt(num_cpus=1, object_store_memory_gb=0.001)
    assert report["kind"] == "UsageError"
    assert "a local Ray did not start: ValueError" in report["text"]
    assert "object store" in report["text"]
    assert (report["started"], report["initialized"], report["left"]) == (1, False, 0)
    assert "\x1b" not in report["text"]


def test_a_ray_that_takes_too_long_is_not_started_again_and_leaves_nothing_behind() -> None:
    # The node's process ends at once, as if a library were missing, so it never reports. Ray waits half a minute for
    # it, by a clock that runs ten times as fast here.
    fault = """
import types

def not_there(*_):
    raise RuntimeError("no such node")

services.RAYLET_EXECUTABLE = "/bin/false"
services.get_node = not_there
node.time = types.SimpleNamespace(**{**vars(time), "monotonic": lambda: 10 * time.monotonic()})
"""
    report = attempt(fault=fault, num_cpus=1, start_timeout_s=1.0)
    assert report["kind"] == "CuratorError"
    assert "a local Ray did not start: " in report["text"]
    assert "start_timeout_s" in report["text"] or "ended" in report["text"]
    assert (report["started"], report["initialized"], report["left"]) == (1, False, 0)
    assert report["seconds"] < 90
