"""How are the small files of all tasks packed into full files when a run is complete?

In a packing writer, each task writes a part under ``_parts/``, named by its lineage. `pack` makes full files from these
in lineage order, so the result does not depend on the order of writing. It writes ``.packed.json`` when all files are
written, and only then removes the parts. So if it is repeated, it finds either all parts or the record of the files
that they became.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from curator_core import storage
from curator_core.errors import CuratorError
from curator_core.formatting import count
from curator_core.model.task import FileRecord

PARTS = "_parts"
PACKED = ".packed.json"


def parts_folder(path: str) -> str:
    """The folder in which the files of single tasks wait, separate so that nobody mistakes them for the result."""
    return storage.join(path, PARTS)


def part_name(path: str, record: FileRecord) -> str:
    """The name of a part in the folder of parts."""
    return storage.relative(record.path, parts_folder(path))


def pack(
    path: str,
    parts: Sequence[FileRecord],
    make: Callable[[Sequence[FileRecord], Sequence[FileRecord]], Sequence[FileRecord]],
    settings: Mapping[str, Any] | None = None,
) -> list[FileRecord]:
    """Let ``make`` pack ``parts`` into full files, and remove the parts; return the remaining files, in order.

    ``make`` gets the parts that are not yet packed, and the existing files, after which they go. It returns the records
    of the files that it has written, which may include existing ones. It is called again for all parts if a packed part
    has changed or is gone, or if ``settings`` differ.
    """
    settings = dict(settings or {})
    note = _note(path)
    before = {entry["part"]: entry["sha256"] for entry in note["parts"]}
    mine = {part_name(path, part): part.sha256 for part in parts}
    stale: list[dict[str, Any]] = []
    if note.get("settings", {}) != settings or any(mine.get(name) != digest for name, digest in before.items()):
        note, before, stale = _nothing(), {}, note["files"]
    records = [FileRecord(storage.join(path, f["path"]), f["rows"], f["bytes"], f["sha256"]) for f in note["files"]]
    fresh = [part for part in parts if part_name(path, part) not in before]
    if fresh:
        missing = [part.path for part in fresh if not storage.exists(part.path)]
        if missing:
            gone = count(len(fresh), "file")
            are = "is" if len(missing) == 1 else "are"
            raise CuratorError(
                f"{len(missing):,} of {gone} to be packed {are} gone, first of all {missing[0]!r}: start the run over "
                "with fresh=True (--fresh)"
            )
        made = {record.path: record for record in make(fresh, records)}
        records = [made.pop(record.path, record) for record in records] + list(made.values())
        files = [
            {"path": storage.relative(r.path, path), "rows": r.rows, "bytes": r.bytes, "sha256": r.sha256}
            for r in records
        ]
        packed = [{"part": name, "sha256": digest} for name, digest in mine.items()]
        text = json.dumps({"settings": settings, "parts": packed, "files": files}, indent=1)
        storage.write_bytes_atomic(storage.join(path, PACKED), text.encode())
        standing = {entry["path"] for entry in files}
        for entry in stale:
            if entry["path"] not in standing:
                storage.remove(storage.join(path, entry["path"]))
    if storage.exists(parts_folder(path)):
        storage.remove(parts_folder(path))
    return records


def _nothing() -> dict[str, Any]:
    return {"parts": [], "files": []}


def _note(path: str) -> dict[str, Any]:
    place = storage.join(path, PACKED)
    if not storage.exists(place):
        return _nothing()
    note: dict[str, Any] = json.loads(storage.read_bytes(place))
    gone = any(not storage.exists(storage.join(path, entry["path"])) for entry in note["files"])
    return _nothing() if gone else note
