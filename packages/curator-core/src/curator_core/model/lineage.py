"""Task ids: readable, deterministic, unique strings that say where a task comes from.

A source has its own id, derived from its path and range. The children of a task are numbered, so
``page-3f2a9c10.00002.00000`` is the first child of the third child of the source ``page-3f2a9c10``. A stage that
returns one task for each task keeps the id, which stays unique among the tasks at any one point of a pipeline.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

CHILD_DIGITS = 5
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


def child_id(parent: str, index: int) -> str:
    """The id of child ``index``; padded, so that ids sort in lineage order as text for up to 100,000 children."""
    return f"{parent}.{index:0{CHILD_DIGITS}d}"


def source_of(task_id: str) -> str:
    """The id of the source that a task descends from."""
    return task_id.partition(".")[0]


def lineage_key(task_id: str) -> tuple[str, tuple[int, ...]]:
    """A sort key that puts tasks of one source in the order in which a run in one process would handle them."""
    source, *path = task_id.split(".")
    return source, tuple(int(part) for part in path)


def source_id(label: str, parts: Iterable[str]) -> str:
    """A readable unique id: a cleaned ``label`` and a hash of everything that identifies the source."""
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:12]
    clean = _UNSAFE.sub("_", label).strip("_")[:60]
    return f"{clean or 'source'}-{digest}"
