"""Does a record in a run directory contain what the code that reads it relies on?

A shape is a type or several, a list of one shape, ``{"key": shape}`` for a record (a key with a question mark may be
missing), or ``{...: shape}`` for a mapping from any text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Shape = Any

_NUMBER = (int, float)
_COUNTS = {...: _NUMBER}

_STAGE = {
    "name": str,
    "rows_in": int,
    "rows_out": int,
    "dropped": _COUNTS,
    "rejected": _COUNTS,
    "quarantined": int,
    "seconds": _NUMBER,
    "calls?": int,
}

# A workflow's record of a step, and the outcome of a step. Flags have the shape `object`, since a bool does not count
# as a number here.
_STEP = {"name": str, "folder": str, "state": str, "before": str, "left": str, "anew": object, "freed": [str]}
_STEP_SUMMARY: dict[str, Shape] = {
    "name": str,
    "state": str,
    "folder": str,
    "complete_before": object,
    "sources": int,
    "rows_in": int,
    "rows_out": int,
    "seconds": _NUMBER,
}
_STEP_SUMMARY["steps"] = [_STEP_SUMMARY]

RUN: Shape = {
    "state": str,
    "attempt?": int,
    **{f"{name}?": str for name in ("started", "host", "executor", "python")},
    "command?": (str, list),  # in records of earlier versions, this is a list
    "ended?": (str, type(None)),
    "marks?": {...: str},
    "outputs?": {...: {"folder": str, "files": int}},
    "machine?": {"cpus?": _NUMBER, "gpus?": _NUMBER, "system?": str},
    "options?": {"max_reject_fraction?": (int, float, type(None))},
    "versions?": {...: str},
    "kind?": str,
    "workflow?": str,
    "replaces?": object,
    "steps?": [_STEP],
    "counts?": (str, type(None)),
    "summary?": {
        "name": str,
        "state": str,
        "executor": str,
        "seconds": _NUMBER,
        "opened_after?": _NUMBER,
        "worked_after?": (int, float, type(None)),
        "sources": int,
        "sources_skipped": int,
        "sources_failed": int,
        "sources_rejecting?": int,
        "stages": [_STAGE],
        "files": int,
        "bytes": int,
        "rows_written": int,
        "results?": int,
        "shares?": {...: str},
        "inputs?": {...: int},
        "problems": [str],
        "warnings": [str],
        "notes?": [str],
        "decisions?": [str],
        "plans?": [{"since": int, "changes": [str], "sources": int, "rows_in": int, "rows_out": int}],
        "steps?": [_STEP_SUMMARY],
    },
}

PLAN: Shape = {
    "name?": str,
    "since?": int,
    "text?": str,
    "steps": [{"name": str, "class": str, "version": (str, int), "params": {...: object}}],
}

# The plan of a workflow: each step has the stages of its pipeline, or the steps of its workflow.
WORKFLOW_PLAN: Shape = {
    "name": str,
    "text?": str,
    "steps": [{"name": str, "takes": [[str]], "frees": [str], "counts": object, "steps": [{"name": str}]}],
}

COMMAND: Shape = {"file": str, "settings": [str], "folder": str, "flags": {...: object}}


def misfit(value: Any, shape: Shape, place: str = "") -> str | None:
    """The error for the first part of ``value`` that does not have this shape; None if all of it does."""
    if isinstance(shape, Mapping):
        return _misfit_of_mapping(value, shape, place)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return _wrong(place, "a list", value)
        found = (misfit(item, shape[0], f"{place}[{number}]") for number, item in enumerate(value))
        return next((text for text in found if text), None)
    kinds = shape if isinstance(shape, tuple) else (shape,)
    if isinstance(value, kinds) and (object in kinds or not isinstance(value, bool)):
        return None
    return _wrong(place, " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds), value)


def _misfit_of_mapping(value: Any, shape: Mapping[Any, Shape], place: str) -> str | None:
    if not isinstance(value, Mapping):
        return _wrong(place, "a mapping", value)
    if ... in shape:
        entries = [(key, shape[...]) for key in value]
    else:
        entries = [(key.removesuffix("?"), inner) for key, inner in shape.items()]
        lacking = next((key for key in shape if not key.endswith("?") and key not in value), None)
        if lacking is not None:
            return f"{place or 'it'} has no {lacking!r}"
    for key, inner in entries:
        if key in value and (text := misfit(value[key], inner, f"{place}.{key}" if place else key)):
            return text
    return None


def _wrong(place: str, wanted: str, value: Any) -> str:
    return f"{place or 'it'} is {type(value).__name__}, not {wanted}"
