"""Sources on their way into a run: the first made at once, many noted together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from curator_core.model.task import Task

# Sources are noted in the run directory before they are handed out: as many at once as come in this time.
NOTE_SECONDS = 0.05
NOTE_SOURCES = 10_000


def _started(tasks: Iterator[Task[Any]]) -> Iterator[Task[Any]]:
    """The same tasks, the first of which is made now."""
    return chain(list(islice(tasks, 1)), tasks)


def _batches(tasks: Iterator[Task[Any]]) -> Iterator[list[Task[Any]]]:
    """Tasks as they come, many at once where they come quickly."""
    while True:
        batch: list[Task[Any]] = []
        started = time.monotonic()
        for task in tasks:
            batch.append(task)
            if len(batch) >= NOTE_SOURCES or time.monotonic() - started >= NOTE_SECONDS:
                break
        if not batch:
            return
        yield batch


def _generation(base: str, attempt: int) -> str:
    return f"{base.partition('+')[0]}+{attempt}" if attempt else base
