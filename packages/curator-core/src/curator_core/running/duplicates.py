"""Which duplicates has a run removed, and for what? Read from the table of decisions that a deduplication leaves."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curator_core import storage
from curator_core.accounts.seen import data_uri
from curator_core.errors import CuratorError
from curator_core.registry import WORKFLOWS, load

_MANIFEST = "_decisions.json"
_SHOWN = 10
# The number of pairs of the largest clusters, and of the least similar, that are shown with both texts: each requires
# reading their files again.
_PAIRS = 3
_CHARACTERS = 2_000
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
    "cluster",
    "cluster_size",
]


def duplicates_of(run_dir: str) -> dict[str, Any]:
    """The sizes of clusters, the largest ones, and the removals that are least similar; nothing where there is no such
    table.
    """
    folder = storage.join(run_dir, "decisions")
    if not storage.exists(storage.join(folder, _MANIFEST)):
        return {}
    import pyarrow.parquet as pq  # deferred: it costs 30 ms, and most runs have no such table

    sizes: Counter[int] = Counter()
    rules: Counter[str] = Counter()
    largest: list[dict[str, Any]] = []
    least: list[dict[str, Any]] = []
    for path in sorted(storage.list_files(folder)):
        if not path.endswith(".parquet"):
            continue
        with storage.open_arrow(path) as file:
            for batch in pq.ParquetFile(file).iter_batches(columns=_COLUMNS):
                table = pa.Table.from_batches([batch])
                removed = table.filter(pc.equal(table["decision"], "removed"))
                kept = table.filter(pc.equal(table["decision"], "kept"))
                sizes.update(size for size in kept["cluster_size"].to_pylist() if size is not None)
                rules.update(rule or "" for rule in removed["rule"].to_pylist())
                largest = sorted([*largest, *_top(kept, "cluster_size", "descending")], key=_size)[:_SHOWN]
                alike = pc.coalesce(removed["similarity"], removed["containment"], removed["jaccard"])
                removed = removed.append_column("alike", alike).filter(pc.is_valid(alike))
                least = sorted([*least, *_top(removed, "alike", "ascending")], key=_alike)[:_SHOWN]
    settings = json.loads(storage.read_bytes(storage.join(folder, _MANIFEST))).get("settings") or {}
    members = _members(folder, [entry["cluster"] for entry in largest])
    for entry in largest:
        entry["removed"] = members.get(entry["cluster"], [])
    shown = [entry["removed"][0] for entry in largest if entry["removed"]][:_PAIRS] + least[:_PAIRS]
    for entry in shown:
        entry.update(_texts(folder, entry, settings))
    return {
        "removed": sum(rules.values()),
        "stay": sum(sizes.values()),
        "rules": dict(sorted(rules.items())),
        "sizes": {str(size): rows for size, rows in sorted(sizes.items())},
        "largest": largest,
        "least_alike": least,
    }


def _texts(folder: str, entry: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Both texts or pictures of a removal, where the workflow that made it can read them again; nothing where they are gone."""
    name = entry["id"] if entry["id"] is not None else f"{entry['source']}:{entry['row'] + 1}"
    try:
        found = load(WORKFLOWS, settings["workflow"]).shown_pair(folder, name, settings)
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


def _members(folder: str, clusters: list[int]) -> dict[int, list[dict[str, Any]]]:
    """Some of the documents that were removed for each of these witnesses."""
    import pyarrow.parquet as pq  # see above

    found: dict[int, list[dict[str, Any]]] = {}
    for path in sorted(storage.list_files(folder)):
        if not path.endswith(".parquet"):
            continue
        with storage.open_arrow(path) as file:
            for batch in pq.ParquetFile(file).iter_batches(columns=_COLUMNS):
                table = pa.Table.from_batches([batch])
                mine = pc.and_(
                    pc.equal(table["decision"], "removed"), pc.is_in(table["cluster"], pa.array(clusters, pa.uint64()))
                )
                for row in table.filter(mine).to_pylist():
                    members = found.setdefault(row["cluster"], [])
                    if len(members) < 3:
                        members.append(row)
    return found
