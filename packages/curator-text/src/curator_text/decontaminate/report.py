"""The report by test set: the parts from batches, the whole report, and its table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from curator_core import storage
from curator_core.errors import UsageError
from curator_core.model.task import FileRecord
from curator_text.decontaminate.index import TestIndex
from curator_text.decontaminate.overlaps import Overlap, Rule

REPORT = "decontamination.json"
_EXAMPLES = 10
_EXCERPT = 300


def part_of(overlaps: Sequence[Overlap], index: TestIndex, places: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The overlaps of one batch with test sets; ``places`` names the document of each overlap."""
    documents = dict.fromkeys(index.test_sets, 0)
    items: dict[int, int] = {}
    examples: dict[str, list[dict[str, Any]]] = {name: [] for name in index.test_sets}
    for overlap, place in zip(overlaps, places, strict=True):
        best: dict[str, dict[str, Any]] = {}
        for found in overlap.found:
            items[found.item] = items.get(found.item, 0) + 1
            name = index.test_sets[index.set_of[found.item]]
            if name not in best:  # items are sorted by share, largest first
                best[name] = {
                    "item": index.items[found.item],
                    "share": round(found.share, 4),
                    **place,
                    "offsets": [list(span) for span in found.spans],
                    "text": _excerpt(overlap.hits.text, *found.spans[0]),
                }
        for name, example in best.items():
            documents[name] += 1
            examples[name].append(example)
    shown = {name: _strongest(found) for name, found in examples.items() if found}
    return {
        "of": index.fingerprint,
        "documents": {name: count for name, count in documents.items() if count},
        "items": [[item, count] for item, count in sorted(items.items())],
        "examples": shown,
    }


def write_json(path: str, value: dict[str, Any]) -> FileRecord:
    """Write a part, or the report, to a file."""
    with storage.write_atomic(path) as out:
        out.write(json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "replace"))
    return out.record(rows=0)  # these are not rows of the data


def make_report(parts: Iterable[str], index: TestIndex, rule: Rule, about: dict[str, Any]) -> dict[str, Any]:
    """The report: the sum of the parts in files, in the order of the input."""
    documents = dict.fromkeys(index.test_sets, 0)
    items = np.zeros(len(index.items), np.int64)
    examples: dict[str, list[dict[str, Any]]] = {name: [] for name in index.test_sets}
    for path in parts:
        part = json.loads(storage.read_bytes(path))
        if part["of"] != index.fingerprint:
            raise UsageError(
                f"{path!r} belongs to other versions of the test sets: their files have changed since. Run "
                "everything again with fresh=True (--fresh)"
            )
        for name, count in part["documents"].items():
            documents[name] += count
        for item, count in part["items"]:
            items[item] += count
        for name, found in part["examples"].items():
            examples[name] = _strongest([*examples[name], *found])
    return {
        **about,
        "test_sets": [
            _about(index, number, items, rule) | {"documents": documents[name], "examples": examples[name]}
            for number, name in enumerate(index.test_sets)
        ],
    }


def _about(index: TestIndex, test_set: int, documents: np.ndarray[Any, Any], rule: Rule) -> dict[str, Any]:
    mine = index.set_of == test_set
    grams = index.ngrams_of(test_set)
    return {
        "name": index.test_sets[test_set],
        "items": int(mine.sum()),
        "too_short": int((mine & (index.item_words == 0)).sum()),
        "found": int((mine & (documents > 0)).sum()),
        "ngrams": len(grams),
        "frequent_ngrams": 0 if rule.frequent is None else int(rule.frequent[grams].sum()),
    }


def report_table(report: dict[str, Any]) -> str:
    """The report as a table in plain text."""
    headings = ("test set", "items", "too short", "found", "documents", "n-grams", "too frequent")
    keys = ("name", "items", "too_short", "found", "documents", "ngrams", "frequent_ngrams")
    rows = [headings, *(tuple(_shown(entry[key]) for key in keys) for entry in report["test_sets"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(headings))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:,}"


def _strongest(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(examples, key=lambda example: -example["share"])[:_EXAMPLES]


def _excerpt(text: str, start: int, end: int) -> str:
    return text[start:end] if end - start <= _EXCERPT else f"{text[start : start + _EXCERPT]}…"
