"""How does the log of a run become one text? It contains what stages printed and logged on all workers, in order of
time.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any

from curator_core import storage
from curator_core.formatting import count, plain
from curator_core.worker.stage_log import FOLDER

MOST_LINES = 200_000
_LINE: dict[str, Any] = {"time": 0.0, "worker": "", "stage": "", "level": "", "text": ""}


def write_log(run_dir: str, steps: Mapping[str, str] | None = None) -> None:
    """Write ``log.txt`` from the lines that the workers have published so far; do nothing if there are none.

    For a workflow, the lines come from the workers of its steps; ``steps`` are their run directories by name.
    """
    lines: list[dict[str, Any]] = []
    more = damaged = 0
    for step, place in (steps or {"": run_dir}).items():
        folder = storage.join(place, FOLDER)
        for path in sorted(storage.list_files(folder)) if storage.exists(folder) else ():
            for text in storage.read_bytes(path).splitlines():
                if len(lines) >= MOST_LINES:
                    more += 1
                    continue
                try:
                    lines.append(_LINE | json.loads(text) | {"step": step})
                except (ValueError, TypeError):  # a damaged log is no reason to fail
                    damaged += 1
    lines.sort(key=lambda line: (line["time"], line["worker"]))
    shown = [_shown(line) for line in lines]
    if more:
        shown.append(f"{count(more, 'more line')} {'is' if more == 1 else 'are'} in {FOLDER}/")
    if damaged:
        shown.append(f"{count(damaged, 'damaged line')} in {FOLDER}/ {'is' if damaged == 1 else 'are'} left out")
    if shown:
        storage.write_bytes_atomic(storage.join(run_dir, "log.txt"), ("\n".join(shown) + "\n").encode(), durable=False)


def _shown(line: dict[str, Any]) -> str:
    when = datetime.datetime.fromtimestamp(line["time"], datetime.UTC).isoformat(timespec="milliseconds")
    stage = "/".join(filter(None, (line["step"], line["stage"]))) or "-"
    return f"{when.replace('+00:00', 'Z')} {line['worker']} {stage} {line['level']} {plain(line['text'])}"
