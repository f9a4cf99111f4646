"""Which duplicates has a run removed, and for which documents? The answer is in the table of decisions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curator_core import storage
from curator_core.accounts.seen import data_uri
from curator_core.arrow.arrays import array, scalar
from curator_core.errors import CuratorError
from curator_core.registry import WORKFLOWS, load

_MANIFEST = "_decisions.json"
_SHOWN = 10
# The number of pairs from the largest clusters, and of least similar pairs, that are shown with both texts; each
# requires reading files again.
_PAIRS = 3
_CHARACTERS = 2_000
_ROWS_AT_ONCE = 100_000
_COLUMNS = [
    "id",
    "source",
    "row",
    "collection",
    "decision",
    "witness_id",
    "witness_source",
    "witness_row",
    "jaccard",
    "containment",
    "new_words",
    "similarity",
    "rule",
    "copy_of",
    "cluster",
    "cluster_size",
]


def duplicates_of(run_dir: str) -> dict[str, Any]:
    """The sizes of clusters, the largest clusters, and the least similar removals; empty if there is no table of
    decisions, or if no document stays for any of its removals, as in a fraction of the rows.
    """
    folder = storage.join(run_dir, "decisions")
    if not storage.exists(storage.join(folder, _MANIFEST)):
        return {}
    sizes: Counter[int] = Counter()
    rules: Counter[str] = Counter()
    largest: list[dict[str, Any]] = []
    least: list[dict[str, Any]] = []
    held: list[pa.Table] = []  # the table itself, if it is small
    alone = 0
    for number, table in enumerate(_tables(folder)):
        gone = pc.equal(table["decision"], scalar("removed"))
        removed = table.filter(pc.and_(gone, pc.is_valid(table["witness_row"])))
        alone += table.filter(gone).num_rows - removed.num_rows
        kept = table.filter(pc.equal(table["decision"], scalar("kept")))
        sizes.update(size for size in kept["cluster_size"].to_pylist() if size is not None)
        # As in the accounts, an exact copy of a document that was itself removed counts as a copy.
        by = pc.if_else(pc.is_valid(removed["copy_of"]), scalar("exact"), removed["rule"])
        rules.update(rule or "" for rule in by.to_pylist())
        largest = sorted([*largest, *_top(kept, "cluster_size", "descending")], key=_size)[:_SHOWN]
        alike = pc.coalesce(removed["similarity"], removed["containment"], removed["jaccard"])
        removed = removed.append_column("alike", alike).filter(pc.is_valid(alike))
        least = sorted([*least, *_top(removed, "alike", "ascending")], key=_alike)[:_SHOWN]
        held = [] if number else [table]
    if alone and not rules:
        return {}
    settings = json.loads(storage.read_bytes(storage.join(folder, _MANIFEST))).get("settings") or {}
    members = _members(held or _tables(folder), [entry["cluster"] for entry in largest])
    for entry in largest:
        entry["removed"] = members.get(entry["cluster"], [])
    shown = [entry["removed"][0] for entry in largest if entry["removed"]][:_PAIRS] + least[:_PAIRS]
    pairs: list[Any] = []  # made for the first removal that is shown, and used again
    for entry in shown:
        entry.update(_texts(folder, entry, settings, pairs))
    return {
        "run_dir": run_dir,
        "removed": sum(rules.values()),
        "stay": sum(sizes.values()),
        "rules": dict(sorted(rules.items())),
        "sizes": {str(size): rows for size, rows in sorted(sizes.items())},
        "largest": largest,
        "least_alike": least,
    }


def _texts(folder: str, entry: dict[str, Any], settings: dict[str, Any], pairs: list[Any]) -> dict[str, Any]:
    """Both texts or pictures of a removal, if its workflow can read them again; empty if they are gone."""
    try:
        workflow = load(WORKFLOWS, settings["workflow"])
        if not pairs:
            pairs.append(workflow.pairs(folder, settings))
        found = workflow.shown_pair(pairs[0].pair(entry), settings)
    except (CuratorError, OSError, KeyError, AttributeError, pa.ArrowException):
        return {}
    for end in ("", "witness_"):
        if f"{end}text" in found:
            found[f"{end}text"] = found[f"{end}text"][:_CHARACTERS]
        if f"{end}picture" in found:
            found[f"{end}picture"] = data_uri(found[f"{end}picture"])
    return dict(found)


def _top(table: pa.Table, column: str, order: str) -> list[dict[str, Any]]:
    places = pc.sort_indices(table, sort_keys=[(column, order), ("source", "ascending"), ("row", "ascending")])
    found: list[dict[str, Any]] = table.take(places[:_SHOWN]).to_pylist()
    return found


def _size(entry: dict[str, Any]) -> tuple[Any, ...]:
    return -(entry["cluster_size"] or 0), entry["source"] or "", entry["row"] or 0


def _alike(entry: dict[str, Any]) -> tuple[Any, ...]:
    return entry["alike"], entry["source"] or "", entry["row"] or 0


def _members(tables: Iterable[pa.Table], clusters: list[int]) -> dict[int, list[dict[str, Any]]]:
    """Some documents that were removed for each of these witnesses."""
    found: dict[int, list[dict[str, Any]]] = {}
    wanted = array(clusters, pa.uint64())
    for table in tables:
        mine = pc.and_(pc.equal(table["decision"], scalar("removed")), pc.is_in(table["cluster"], wanted))
        for row in table.filter(mine).to_pylist():
            members = found.setdefault(row["cluster"], [])
            if len(members) < 3:
                members.append(row)
    return found


def _tables(folder: str) -> Iterator[pa.Table]:
    """The table of decisions, many rows at a time, since a call takes as long for the few rows of one file."""
    import pyarrow.parquet as pq  # deferred: the import takes 30 ms, and most runs have no such table

    waiting: list[pa.RecordBatch] = []
    for path in sorted(storage.list_files(folder)):
        if not path.endswith(".parquet"):
            continue
        with storage.open_arrow(path) as file:
            for batch in pq.ParquetFile(file).iter_batches(columns=_COLUMNS, use_threads=False):
                waiting.append(batch)
                if sum(map(len, waiting)) >= _ROWS_AT_ONCE:
                    yield pa.Table.from_batches(waiting)
                    waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting)
