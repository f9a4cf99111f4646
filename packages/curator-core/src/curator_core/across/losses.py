"""How much does each collection lose by a table of decisions?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from curator_core import storage
from curator_core.across.decisions import REMOVED, Decisions
from curator_core.arrow.arrays import scalar

COLLECTIONS = "_collections.json"
# Where a batch's file of keys says how many documents of which collection there are.
NOTE = b"curator.collections"


@dataclass(frozen=True, slots=True)
class Loss:
    """A collection, how many documents it has, and how many of them go."""

    collection: str
    documents: int
    removed: int


def noted(table: pa.Table, collections: pa.Array) -> pa.Table:
    """A table of keys with a note of how many documents of which collection the batch has."""
    counts = {
        entry["values"].as_py(): entry["counts"].as_py() for entry in collections.dictionary_decode().value_counts()
    }
    return table.replace_schema_metadata({**(table.schema.metadata or {}), NOTE: json.dumps(counts).encode()})


def write_collections(paths: Iterable[str], target: str) -> None:
    """Sum what the files of keys say."""
    total: dict[str, int] = {}
    for path in paths:
        with storage.open_input(path) as stream, pa.ipc.open_file(stream) as file:
            counts: Mapping[str, int] = json.loads((file.schema.metadata or {}).get(NOTE, b"{}"))
        for name, number in counts.items():
            total[name] = total.get(name, 0) + number
    storage.write_bytes_atomic(target, json.dumps(dict(sorted(total.items())), indent=1).encode())


def losses(folder: str) -> list[Loss]:
    """The losses by the table in ``folder``, of the collection that loses most first; nothing where it does not say how many
    documents there are.
    """
    place = storage.join(folder, COLLECTIONS)
    if not storage.exists(place):
        return []
    documents: dict[str, int] = json.loads(storage.read_bytes(place))
    removed = dict.fromkeys(documents, 0)
    for table in Decisions.open(folder).tables(["collection", "decision"]):
        gone = table.filter(pc.equal(table["decision"], scalar(REMOVED)))
        for entry in gone["collection"].value_counts():
            name = entry["values"].as_py() or ""
            removed[name] = removed.get(name, 0) + entry["counts"].as_py()
    found = [Loss(name, documents.get(name, 0), count) for name, count in removed.items()]
    return sorted(found, key=lambda loss: (-loss.removed / max(1, loss.documents), loss.collection))
