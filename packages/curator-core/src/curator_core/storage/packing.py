"""Packing: when the run is complete, the small files of all tasks become full ones.

A packing writer lets each task write under ``_parts/``, named by its lineage. `pack` has full files made from these in
lineage order, so what comes out does not depend on who wrote first; it writes ``.packed.json`` when everything is
written, and only then removes the parts. So a repetition finds either all parts, or the note of what they became.
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
    """Where the files of single tasks wait; a separate folder, so that nobody takes them for the result."""
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
    """Have ``make`` put ``parts`` into full files, and remove the parts; returns the files that remain, in order.

    ``make`` is given the parts that no file holds yet, and the existing files: new sources come after those. It returns
    the records of the files that it has written, which may include some that existed before. It is called again for all
    parts where something that was packed has changed or is gone, or with other ``settings``.
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
            raise CuratorError(
                f"{len(missing):,} of {count(len(fresh), 'file')} to be packed {'is' if len(missing) == 1 else 'are'} gone, the first is {missing[0]!r}: start the run "
                "over with fresh=True (--fresh)"
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
