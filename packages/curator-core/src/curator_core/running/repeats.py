"""Which parts of documents has a run found to be repeated? The answer is in its table of spans."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curator_core import storage
from curator_core.arrow.arrays import array, to_numpy

# The file beside the parts of the table that says how the documents were read.
SETTINGS = "_spans.json"
_FOLDER = "spans"
_SHOWN = 10
# Beyond this many different parts, the rarer half is discarded, so that memory does not grow with the table.
_MOST_PARTS = 100_000
_COLUMNS = ["id", "source", "row", "start", "end", "witness_id", "witness_source", "witness_row", "text"]


def repeats_of(run_dir: str) -> dict[str, Any]:
    """The numbers of spans and documents, the longest spans, and the most frequent texts; empty if there is no table of
    spans.
    """
    spans = documents = characters = 0
    longest: list[dict[str, Any]] = []
    texts: Counter[str] = Counter()
    tables = iter(_tables(run_dir))
    first_table = next(tables, None)
    if first_table is None:
        return {}
    for table in itertools.chain([first_table], tables):
        sizes = to_numpy(table["end"]) - to_numpy(table["start"])
        spans += table.num_rows
        characters += int(sizes.sum())
        documents += table.select(["source", "row"]).group_by(["source", "row"]).aggregate([]).num_rows
        texts.update(table["text"].to_pylist())
        if len(texts) > _MOST_PARTS:
            texts = Counter(dict(texts.most_common(_MOST_PARTS // 2)))
        first = np.argsort(-sizes, kind="stable")[:_SHOWN]
        longest = sorted([*longest, *_rows(table, first)], key=_length)[:_SHOWN]
    return {
        "spans": spans,
        "documents": documents,
        "characters": characters,
        "most": [{"text": text, "times": times} for text, times in texts.most_common(_SHOWN)],
        "longest": longest,
    }


def repeats_in(run_dir: str, name: str) -> list[dict[str, Any]] | None:
    """The spans of one document, named by its id or as SOURCE:ROW; None if the run has no table of spans."""
    found: list[dict[str, Any]] = []
    source, _, row = name.rpartition(":")
    there = False
    for table in _tables(run_dir):
        there = True
        wanted = pc.equal(table["id"], name)
        if source and row.isdecimal():
            by_place = pc.and_(pc.equal(table["source"], source), pc.equal(table["row"], int(row)))
            wanted = pc.or_kleene(wanted, pc.and_(pc.is_null(table["id"]), by_place))
        found += table.select(_COLUMNS).filter(wanted).to_pylist()
    return found if there else None


def write_settings(folder: str, settings: Mapping[str, Any]) -> None:
    """Record beside the table of spans how its documents were read."""
    storage.write_bytes_atomic(storage.join(folder, SETTINGS), json.dumps(settings, indent=1, sort_keys=True).encode())


def settings_of(run_dir: str) -> dict[str, Any]:
    """How the documents of the table of spans of a run were read; empty if that is not recorded."""
    place = storage.join(run_dir, _FOLDER, SETTINGS)
    return dict(json.loads(storage.read_bytes(place))) if storage.exists(place) else {}


def _tables(run_dir: str) -> Iterator[pa.Table]:
    """The parts of the table of spans, if there is one."""
    folder = storage.join(run_dir, _FOLDER)
    files = (
        sorted(path for path in storage.list_files(folder) if path.endswith(".parquet"))
        if storage.is_folder(folder)
        else []
    )
    if not files:
        return
    import pyarrow.parquet as pq  # deferred: the import takes 30 ms, and most runs have no such table

    for path in files:
        with storage.open_arrow(path) as file:
            table = pq.ParquetFile(file).read()
        if not set(_COLUMNS) <= set(table.column_names):
            return  # a folder with this name that Curator did not write
        yield table


def _rows(table: pa.Table, places: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table.select(_COLUMNS).take(array(places)).to_pylist()
    return found


def _length(entry: dict[str, Any]) -> tuple[Any, ...]:
    return entry["start"] - entry["end"], entry["source"] or "", entry["row"] or 0, entry["start"]
