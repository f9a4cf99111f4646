"""Which files were read when the documents were numbered, in what state, and how many documents does each collection
have?
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curator_core import storage
from curator_core.errors import RunRefused
from curator_core.model.lineage import source_of
from curator_core.model.task import Task

INPUTS = "_inputs.json"
# The metadata key under which a batch's file of keys records its source files and collections.
_NOTE = b"curator.inputs"


@dataclass(frozen=True, slots=True)
class Inputs:
    """``collections`` gives the number of documents of each collection; ``sources`` gives the files of each source, by
    its id, and their state.
    """

    collections: Mapping[str, int]
    sources: Mapping[str, tuple[list[str], str]]

    @classmethod
    def read(cls, folder: str) -> Inputs | None:
        """Read what `write_inputs` wrote to a folder; None if it wrote nothing."""
        place = storage.join(folder, INPUTS)
        if not storage.exists(place):
            return None
        content = json.loads(storage.read_bytes(place))
        return cls(
            content["collections"], {name: (files, state) for name, (files, state) in content["sources"].items()}
        )

    def require_same(self, task: Task[Any]) -> None:
        """Raise if the source files of a batch have changed; this is checked if both states are known."""
        files, state = self.sources.get(source_of(task.task_id), ([], ""))
        # After "+" comes the number of the attempt that read the source again, which says nothing about its content.
        if state and task._generation and task._generation.partition("+")[0] != state.partition("+")[0]:
            raise RunRefused(
                f"{', '.join(files)} has changed since its documents were compared: the decisions about them may no "
                "longer be valid. Begin the work across rows again (fresh=True, --fresh)"
            )

    def require_there(self) -> None:
        """Raise if a file with compared documents is missing: other documents may have been removed as copies of one of
        them.
        """
        gone = [path for files, _ in self.sources.values() for path in files if not storage.exists(path)]
        if gone:
            more = f" and {len(gone) - 1:,} more" if len(gone) > 1 else ""
            raise RunRefused(
                f"{gone[0]!r}{more} no longer exists, and its documents were compared: others may be removed as "
                "copies of one of them. Put it "
                "back and resume, or begin again without it (fresh=True, --fresh)"
            )


def noted(table: pa.Table, task: Task[Any], collections: pa.Array, **more: Any) -> pa.Table:
    """The table of keys with its source files, its collections and ``more`` in its metadata, which `write_inputs`
    returns.
    """
    counts = collections.dictionary_decode().value_counts()
    note = {
        "collections": {entry["values"].as_py(): entry["counts"].as_py() for entry in counts},
        "files": [path for path, _ in task._metadata.get("source_files", ())],
        "state": task._generation,
        **more,
    }
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _NOTE: json.dumps(note).encode()})


def write_inputs(paths: Iterable[str], folder: str) -> list[dict[str, Any]]:
    """Add up the metadata of the files of keys and return it; each file is named after the task whose documents it
    describes.
    """
    notes = []
    collections: dict[str, int] = {}
    sources: dict[str, tuple[list[str], str]] = {}
    for path in paths:
        with storage.open_input(path) as stream, pa.ipc.open_file(stream) as file:
            note = json.loads((file.schema.metadata or {})[_NOTE])
        notes.append(note)
        for name, number in note["collections"].items():
            collections[name] = collections.get(name, 0) + number
        sources[source_of(storage.file_name(path))] = (note["files"], note["state"])
    content = {"collections": dict(sorted(collections.items())), "sources": sources}
    storage.write_bytes_atomic(storage.join(folder, INPUTS), json.dumps(content, indent=1).encode())
    return notes
