"""Packs files of text up to a size: assigns parts to files, and makes each file from its parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curator_core import storage
from curator_core.model.task import FileRecord
from curator_core.storage import packing

_COPY_BYTES = 1 << 20
# Each thread packs one file at a time and holds a row group in memory.
_THREADS = 4


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A file to be made: its path, and the paths of the parts that go into it, in order."""

    path: str
    parts: list[str]
    rows: int


def pack(
    path: str,
    outputs: Sequence[FileRecord],
    *,
    limit: int,
    suffix: str,
    settings: Mapping[str, Any],
    write: Callable[[Sequence[str], storage.AtomicFile], None],
    prepare: Callable[[Sequence[FileRecord], Sequence[FileRecord]], list[FileRecord]] | None = None,
) -> list[FileRecord]:
    """Make files of at most ``limit`` bytes from ``outputs``, folder by folder; returns the files that remain.

    ``prepare`` gets the parts and the existing files before ``write`` makes files from parts, and returns the records
    of files that remain; ``settings`` contains everything else that affects the files. A part is never divided: a part
    that is larger than the limit becomes a file by itself.
    """

    def make(fresh: Sequence[FileRecord], standing: Sequence[FileRecord]) -> list[FileRecord]:
        changed = prepare(fresh, standing) if prepare is not None else []
        files = list(_files(path, fresh, limit, suffix, [storage.relative(r.path, path) for r in standing]))
        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
            return [*changed, *threads.map(lambda file: _write(file, write), files)]

    return packing.pack(path, outputs, make, {"target_size": limit, "suffix": suffix, **settings})


def copy_bytes(parts: Sequence[str], out: storage.AtomicFile) -> None:
    """Concatenate the bytes of the parts."""
    for part in parts:
        with storage.open_input(part) as stream:
            while data := stream.read(_COPY_BYTES):
                out.write(data)


def repack_zstd(parts: Sequence[str], out: storage.AtomicFile) -> None:
    """Make one zstd frame from several, because common readers silently stop at the end of the first frame of a file."""
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
        folders.setdefault(_folder(packing.part_name(path, record)), []).append(record)
    if any(record.rows for record in records) or standing:
        folders = {folder: [r for r in members if r.rows] for folder, members in folders.items()}
    taken: dict[str, int] = {}
    for name in standing:
        taken[_folder(name)] = taken.get(_folder(name), 0) + 1
    for folder, members in folders.items():
        for number, group in enumerate(groups(members, limit), taken.get(folder, 0)):
            target = storage.join(path, *([folder] if folder else []), f"{number:05d}{suffix}")
            yield PackedFile(target, [record.path for record in group], sum(record.rows for record in group))


def groups(records: Sequence[FileRecord], limit: int) -> Iterator[list[FileRecord]]:
    """Groups of consecutive parts with at most ``limit`` bytes; a larger part is a group by itself."""
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


def _folder(name: str) -> str:
    return name.rpartition("/")[0]
