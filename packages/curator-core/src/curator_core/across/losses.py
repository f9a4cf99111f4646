"""How many documents does each collection lose by a table of decisions?"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow.compute as pc

from curator_core.across.decisions import REMOVED, Decisions
from curator_core.across.inputs import Inputs
from curator_core.arrow.arrays import scalar


@dataclass(frozen=True, slots=True)
class Loss:
    """A collection, the number of its documents, and how many of them are removed."""

    collection: str
    documents: int
    removed: int


def losses(folder: str) -> list[Loss]:
    """The losses according to the table in ``folder``, the largest first; empty if the table does not record the number
    of documents.
    """
    inputs = Inputs.read(folder)
    if inputs is None:
        return []
    documents = inputs.collections
    removed = dict.fromkeys(documents, 0)
    for table in Decisions.open(folder).tables(["collection", "decision"]):
        gone = table.filter(pc.equal(table["decision"], scalar(REMOVED)))
        for entry in gone["collection"].value_counts():
            name = entry["values"].as_py() or ""
            removed[name] = removed.get(name, 0) + entry["counts"].as_py()
    found = [Loss(name, documents.get(name, 0), count) for name, count in removed.items()]
    return sorted(found, key=lambda loss: (-loss.removed / max(1, loss.documents), loss.collection))
