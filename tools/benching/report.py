"""Writes the results of a run of benchmarks: JSON for comparison with other runs, and a table for people."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime
from importlib.metadata import distributions
from pathlib import Path

from benching.gates import Gate, Measured, show
from benching.runner import ROOT, cpus, memory_gb


def as_record(results: list[Measured], gates: list[Gate], started: datetime) -> dict[str, object]:
    """All data that is needed to compare this run with another one."""
    commit, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    return {
        "started": started.isoformat(timespec="seconds"),
        "commit": commit or None,
        "changed_files": len(changed.splitlines()),
        "machine": {
            "system": platform.platform(),
            "cpus": len(cpus()),
            "cpu": _cpu_model(),
            "memory_gb": round(memory_gb(), 1),
            "load_before": _load_before,
        },
        "python": platform.python_version(),
        "versions": dict(sorted((facts["Name"], facts["Version"]) for facts in (d.metadata for d in distributions()))),
        "entries": [
            {
                "name": one.entry.name,
                "command": one.entry.command,
                "data": one.entry.data and one.entry.data.make,
                "skipped": one.skipped or None,
                "failed": one.failed or None,
                "metrics": {
                    metric: {"median": one.median(metric), "spread": one.spread(metric), "values": values}
                    for metric, values in one.values.items()
                },
                "gates": [
                    {"metric": g.metric, "rule": g.rule, "found": g.found, "held": g.held}
                    for g in gates
                    if g.entry == one.entry.name
                ],
            }
            for one in results
        ],
    }


_load_before = [round(load, 2) for load in os.getloadavg()]


def as_table(results: list[Measured], gates: list[Gate]) -> str:
    """One line for each metric, with its gate if it has one."""
    rows = [("entry", "metric", "median", "spread", "gate", "")]
    for one in results:
        name = one.entry.name
        if one.skipped:
            rows.append((name, "skipped", one.skipped, "", "", ""))
            continue
        own = [gate for gate in gates if gate.entry == name]
        plain = sorted(one.values.keys() - {gate.metric for gate in own})
        for metric in plain:
            rows.append((name, metric, _middle(one, metric), _percent(one.spread(metric)), "", ""))
        for gate in own:
            verdict = {True: "ok", False: "MISSED", None: "not judged"}[gate.held]
            rows.append((name, gate.metric, gate.found, _percent(one.spread(gate.metric)), gate.rule, verdict))
    # A long reason must not widen every row.
    widths = [min(60, max(len(row[i]) for row in rows)) for i in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * min(120, sum(widths) + 10), *lines[1:]])


def _middle(one: Measured, metric: str) -> str:
    median = one.median(metric)
    return show(median) if median is not None else ", ".join(sorted({show(v) for v in one.values[metric]}))


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()
