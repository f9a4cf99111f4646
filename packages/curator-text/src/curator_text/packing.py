"""Packing: the small files of all tasks become files of one size, when the run is complete.

A packing writer lets each task write under ``_parts/``, named by its lineage. `pack` lays these files end to end in
lineage order, so what comes out does not depend on who wrote first; it writes ``_packed.json`` when everything stands,
and only then the parts go. So a repetition finds either all parts, or the note of what they became.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curator_core import storage
from curator_core.errors import CuratorError
from curator_core.task import FileRecord

PARTS = "_parts"
PACKED = "_packed.json"

_COPY_BYTES = 1 << 20
# Each packs a file of its own; what one holds in memory is a row group.
_THREADS = 4


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A file to be made: its path, and the paths of the parts that go into it, in order."""

    path: str
    parts: list[str]
    rows: int


def parts_folder(path: str) -> str:
    """Where the files of single tasks wait; a folder of its own, so that nobody takes them for the result."""
    return storage.join(path, PARTS)


def pack(
    path: str,
    outputs: Sequence[FileRecord],
    *,
    limit: int,
    suffix: str,
    settings: Mapping[str, Any],
    write: Callable[[Sequence[str], storage.AtomicFile], None],
    prepare: Callable[[Sequence[str]], None] | None = None,
) -> list[FileRecord]:
    """Make files of at most ``limit`` bytes of ``outputs``, folder by folder; returns what stands then.

    ``prepare`` is given all parts before ``write`` makes a file of some; ``settings`` are what else decides how the
    files come out. A part is never divided: one that is larger than the limit is a file by itself. Parts that came after
    a pass, from new sources, go into files behind those that stand.
    """
    settings = {"target_size": limit, "suffix": suffix, **settings}
    note = _note(path)
    before = {entry["part"]: entry["sha256"] for entry in note["parts"]}
    mine = {_name(path, record): record.sha256 for record in outputs}
    if note["files"] and (
        note.get("settings") != settings or any(mine.get(name) != digest for name, digest in before.items())
    ):
        # What stands was made of other parts, or in another way.
        note, before = {"parts": [], "files": [], "stale": note["files"]}, {}
    records = [FileRecord(storage.join(path, f["path"]), f["rows"], f["bytes"], f["sha256"]) for f in note["files"]]
    fresh = [record for record in outputs if _name(path, record) not in before]
    if fresh:
        missing = [record.path for record in fresh if not storage.exists(record.path)]
        if missing:
            raise CuratorError(
                f"{len(missing)} of {len(fresh)} files to be packed are gone, the first is {missing[0]!r}: start the run "
                "over with fresh=True (--fresh)"
            )
        if prepare is not None:
            prepare([record.path for record in fresh])
        files = list(_files(path, fresh, limit, suffix, [storage.relative(r.path, path) for r in records]))
        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
            records += threads.map(lambda file: _write(file, write), files)
        told = [
            {"path": storage.relative(r.path, path), "rows": r.rows, "bytes": r.bytes, "sha256": r.sha256}
            for r in records
        ]
        packed = [{"part": _name(path, record), "sha256": record.sha256} for record in outputs]
        text = json.dumps({"settings": settings, "parts": packed, "files": told}, indent=1)
        storage.write_bytes_atomic(storage.join(path, PACKED), text.encode())
        standing = {entry["path"] for entry in told}
        for entry in note.get("stale", []):
            if entry["path"] not in standing:
                storage.remove(storage.join(path, entry["path"]))
    if storage.exists(parts_folder(path)):
        storage.remove(parts_folder(path))
    return records


def together(schemas: Sequence[pa.Schema], paths: Sequence[str]) -> pa.Schema:
    """One schema for all: what some have is null in the others, and a column of nulls takes the type of the others."""
    merged = schemas[0]
    for schema, path in zip(schemas[1:], paths[1:], strict=True):
        if schema.equals(merged):
            continue
        try:
            merged = pa.unify_schemas([merged, schema], promote_options="permissive")
        except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
            raise CuratorError(
                f"the files cannot be packed, because the types of {storage.file_name(path)!r} do not go together with "
                f"those before it ({error}): declare a schema where the data is read"
            ) from error
    return merged


def fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the columns and types of a schema that it went into."""
    if table.schema.equals(schema):
        return table
    return pa.concat_tables([schema.empty_table(), table], promote_options="permissive").select(schema.names)


def copy_bytes(parts: Sequence[str], out: storage.AtomicFile) -> None:
    """The parts end to end, byte by byte."""
    for part in parts:
        with storage.open_input(part) as stream:
            while data := stream.read(_COPY_BYTES):
                out.write(data)


def repack_zstd(parts: Sequence[str], out: storage.AtomicFile) -> None:
    """One zstd frame of several: common readers stop, without a word, where the first frame of a file ends."""
    with pa.CompressedOutputStream(pa.PythonFile(out, mode="w"), "zstd") as target:
        for part in parts:
            with storage.open_input(part) as file, pa.CompressedInputStream(pa.PythonFile(file), "zstd") as stream:
                while data := stream.read(_COPY_BYTES):
                    target.write(data)


def _files(
    path: str, records: Sequence[FileRecord], limit: int, suffix: str, standing: Sequence[str]
) -> Iterator[PackedFile]:
    folders: dict[str, list[FileRecord]] = {}
    for record in records:
        folders.setdefault(_folder(_name(path, record)), []).append(record)
    if any(record.rows for record in records) or standing:
        folders = {folder: [r for r in members if r.rows] for folder, members in folders.items()}
    taken: dict[str, int] = {}
    for name in standing:
        taken[_folder(name)] = taken.get(_folder(name), 0) + 1
    for folder, members in folders.items():
        for number, group in enumerate(_groups(members, limit), taken.get(folder, 0)):
            target = storage.join(path, *([folder] if folder else []), f"{number:05d}{suffix}")
            yield PackedFile(target, [record.path for record in group], sum(record.rows for record in group))


def _groups(records: Sequence[FileRecord], limit: int) -> Iterator[list[FileRecord]]:
    group: list[FileRecord] = []
    size = 0
    for record in records:
        if group and size + record.bytes > limit:
            yield group
            group, size = [], 0
        group.append(record)
        size += record.bytes
    if group:
        yield group


def _write(file: PackedFile, write: Callable[[Sequence[str], storage.AtomicFile], None]) -> FileRecord:
    with storage.write_atomic(file.path) as out:
        write(file.parts, out)
    return out.record(rows=file.rows)


def _name(path: str, record: FileRecord) -> str:
    return storage.relative(record.path, parts_folder(path))


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _note(path: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"parts": [], "files": []}
    place = storage.join(path, PACKED)
    if not storage.exists(place):
        return empty
    note = json.loads(storage.read_bytes(place))
    if any(not storage.exists(storage.join(path, entry["path"])) for entry in note["files"]):
        return empty
    found: dict[str, Any] = note
    return found
