"""What did the workers of a run do, and when? Their times on one axis, and for each stage the time waited, the data
read and the memory held.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

# At most this many workers are shown, those that worked longest; the others are only counted.
MOST_WORKERS = 12
SLOTS = 100


def work_of(found: Iterable[Mapping[str, Any]], stages: Sequence[str], started: str | None) -> dict[str, Any]:
    """The timeline, and for each stage the workers' measurements; empty if no worker has recorded any."""
    workers = [entry for entry in found if _is_whole(entry)]
    if not workers:
        return {"workers": [], "of": 0, "begins": 0.0, "ends": 0.0, "by_stage": {}}
    zero = _seconds(started)
    first = min(entry["begun"] for entry in workers)
    # By the clock of another machine, a worker may have begun before its run.
    zero = first if zero is None or zero > first else zero
    end = max(entry["begun"] - zero + entry["seconds"] for entry in workers)
    by_stage: dict[str, dict[str, Any]] = {}
    lines = []
    for entry in workers:
        busy = {name: sum(parts) for name, parts in entry["busy"].items()}
        mine = [name for name in stages if name in busy]
        waited = max(0.0, entry["seconds"] - sum(busy.values()))
        for place, name in enumerate(mine):
            stage = by_stage.setdefault(
                name, {"rows": 0, "bytes": 0, "busy": 0.0, "waited": 0.0, "memory": None, "gpus": []}
            )
            rows, size = entry["measured"].get(name, (0, 0))
            stage["rows"] += rows
            stage["bytes"] += size
            stage["busy"] += busy[name]
            # A worker's waiting time counts for its first stage, whose input it waits for.
            stage["waited"] += 0.0 if place else waited
            if entry["memory"] is not None:
                stage["memory"] = max(stage["memory"] or 0, int(entry["memory"]))
            stage["gpus"] += entry["gpus"]
        lines.append(
            {
                "id": str(entry["worker"]),
                "begun": round(entry["begun"] - zero, 3),
                "seconds": round(entry["seconds"], 3),
                "busy": {name: round(busy[name], 3) for name in mine},
                "waited": round(waited, 3),
                "memory": entry["memory"],
                "gpus": [round(part, 3) for part in entry["gpus"]],
                "slots": {name: _slots(entry, name, entry["begun"] - first, zero + end - first) for name in mine},
            }
        )
    lines.sort(key=lambda line: (-sum(line["busy"].values()), line["id"]))
    shown = sorted(lines[:MOST_WORKERS], key=lambda line: (line["begun"], line["id"]))
    return {
        "workers": shown,
        "of": len(lines),
        "begins": round(first - zero, 3),
        "ends": round(end, 3),
        "by_stage": by_stage,
    }


def _is_whole(entry: Mapping[str, Any]) -> bool:
    numbers = (entry.get("begun"), entry.get("seconds"), entry.get("width"))
    return all(isinstance(number, int | float) and number >= 0 for number in numbers) and all(
        name in entry for name in ("worker", "measured", "memory", "gpus")
    )


def _seconds(started: str | None) -> float | None:
    try:
        return datetime.fromisoformat(str(started)).timestamp()
    except ValueError:
        return None


def _slots(entry: Mapping[str, Any], stage: str, begun: float, end: float) -> list[float]:
    """The part of each slot of the axis during which the stage worked."""
    found = [0.0] * SLOTS
    width, own = end / SLOTS, entry["width"]
    for place, seconds in enumerate(entry["busy"][stage]):
        low = begun + place * own
        high = min(low + own, begun + entry["seconds"])
        if not seconds or high <= low or width <= 0:
            continue
        first, last = min(int(low / width), SLOTS - 1), min(int(high / width), SLOTS - 1)
        for slot in range(first, last + 1):
            part = min(high, (slot + 1) * width) - max(low, slot * width)
            found[slot] += seconds * max(0.0, part) / (high - low)
    return [round(min(1.0, part / width), 3) for part in found]
