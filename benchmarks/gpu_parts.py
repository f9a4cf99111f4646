"""Runs the parts of a GPU benchmark, each in its own process with a time limit, and prints each result when it is done.

So ten minutes on a GPU give complete results for some parts, and a part that hangs does not affect the others.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def add_options(parser: argparse.ArgumentParser, parts: Sequence[str], part_seconds: float) -> None:
    """The options that select parts and limit their time."""
    parser.add_argument("--parts", default=",".join(parts))
    parser.add_argument("--part-seconds", type=float, default=part_seconds, help="the time limit of a part")
    parser.add_argument("--one", choices=parts, help=argparse.SUPPRESS)


def chosen(parser: argparse.ArgumentParser, options: argparse.Namespace, parts: Sequence[str]) -> list[str]:
    """The parts to run; an unknown part is an error of the parser."""
    found: list[str] = options.parts.split(",")
    if unknown := set(found) - set(parts):
        parser.error(f"--parts: there is no {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    return found


def possible(parts: Sequence[str], needs: Mapping[str, str]) -> list[str]:
    """The parts whose modules are installed; ``needs`` names the module of a part. Parts that are left out are
    reported.
    """
    left = list(parts)
    for part, module in needs.items():
        if part in left and not _there(module):
            print(f"{part} is left out: there is no {module} here")
            left.remove(part)
    return left


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def run_parts(
    script: str, parts: Sequence[str], options: argparse.Namespace, ratios: Mapping[str, tuple[str, str]]
) -> int:
    """Run each part of a script with ``--one``; ``ratios`` name a numerator and a denominator. Returns 1 if a part had
    no result.
    """
    metrics: dict[str, Any] = {"gpu": 0 if options.cpu else 1}
    failed = 0
    for part in parts:
        code, lines = _output([sys.executable, script, *sys.argv[1:], "--one", part], options.part_seconds)
        found = [line for line in lines if line.startswith("PART ")]
        result = json.loads(found[-1].removeprefix("PART ")) if found else {}
        if code is None:
            result[f"{part}_stopped_after_s"] = options.part_seconds
        elif not found:
            result[f"{part}_failed"] = code
        failed += not any(not key.startswith(f"{part}_failed") and "_stopped_" not in key for key in result)
        metrics |= result
        print("PART", json.dumps({"part": part, **result}), flush=True)
    for name, (above, below) in ratios.items():
        if metrics.get(above) and metrics.get(below):
            metrics[name] = round(metrics[above] / metrics[below], 3)
    print("BENCH", json.dumps(metrics))
    return 1 if failed else 0


def _output(command: Sequence[str], seconds: float) -> tuple[int | None, list[str]]:
    """The exit code of a command (None if it was stopped) and its output."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        printed, _ = process.communicate(timeout=seconds)
        return process.returncode, printed.splitlines()
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)  # this also ends the processes of an engine
        try:
            printed, _ = process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            printed, _ = process.communicate()
        return None, printed.splitlines()


def run_one(measure: Callable[[], dict[str, Any]]) -> int:
    """Run one part in this process."""
    print("PART", json.dumps(measure()), flush=True)
    return 0
