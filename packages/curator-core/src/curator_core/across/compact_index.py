"""How are the many folders of an index merged into a few?

Each run that is added has its own folder with a few files for each batch, and every later run opens all of them.
`compact_index` merges neighbouring folders into one folder with large files. The runs stay in the manifest, in their
order and with their batches, so documents keep their numbers, and the decisions of later runs are the same, byte for
byte, as without compaction.

1. The files of the new folder are written, each whole or not at all. Its name is a hash of the folders that it
   replaces; files that an interrupted attempt has left are written again.
2. The manifest names the new folder in place of the old ones, in one step, and lists the old ones as replaced.
3. The replaced folders and their entries in the manifest are removed. If this is interrupted, the next call completes
   it.

If a run is being compared with the index meanwhile and its folders are gone, it reads the manifest again and continues
with the new folder.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import pyarrow as pa

from curator_core import storage
from curator_core.across.index import (
    BEGINS,
    MANIFEST,
    ROLLS,
    Index,
    IndexFolder,
    locked,
    read_files,
    roll_in,
    run_folder,
    write_files,
)
from curator_core.across.shuffle import MANIFEST as SHUFFLE
from curator_core.across.shuffle import Joined, ShuffleFile, read_manifest
from curator_core.errors import check_whole

LOT_BYTES = 128 << 20
_MERGED = "merged-"


@dataclass(frozen=True, slots=True)
class Compacted:
    """What `compact_index` has done: the number of folders, files and bytes before and after."""

    folders: tuple[int, int]
    files: tuple[int, int]
    bytes: tuple[int, int]


def compact_index(path: str, *, folders: int = 1, lot_bytes: int = LOT_BYTES) -> Compacted:
    """Merge the runs of the index in ``path`` into at most ``folders`` folders, with files of about ``lot_bytes``.

    The smallest neighbouring folders are merged. It takes about three times ``lot_bytes`` of memory, and until the end
    the disk holds both old and new files. Meanwhile runs can be added and compared.
    """
    check_whole("folders", folders)
    check_whole("lot_bytes", lot_bytes)
    Index.read(path)  # raises if there is no index, before anything is written there
    doing = f"another process is compacting the index {path!r}"
    with locked(storage.join(path, ".compact"), doing, "Wait until it has ended."):
        _forget_replaced(path)
        index = Index.read(path)
        before = _held(index)
        for group in _groups(index, folders):
            merged = _written_together(index, group, lot_bytes)
            _replace(path, group, merged)
            _forget_replaced(path)
        after = _held(Index.read(path))
    return Compacted(*zip(before, after, strict=True))


def _held(index: Index) -> tuple[int, int, int]:
    files = sum(1 for folder in index.folders for _ in storage.scan(run_folder(index.path, folder.name)))
    return len(index.folders), files, index.size


def _groups(index: Index, most: int) -> list[list[IndexFolder]]:
    """Choose the neighbouring folders to merge, so that at most ``most`` remain."""
    groups = [[folder] for folder in index.folders]
    sizes = [folder.bytes for folder in index.folders]
    while len(groups) > most:
        at = min(range(len(groups) - 1), key=lambda number: sizes[number] + sizes[number + 1])
        groups[at : at + 2] = [groups[at] + groups[at + 1]]
        sizes[at : at + 2] = [sizes[at] + sizes[at + 1]]
    return [group for group in groups if len(group) > 1]


# Writing -------------------------------------------------------------------------------------------------------------


def _written_together(index: Index, group: Sequence[IndexFolder], lot_bytes: int) -> IndexFolder:
    """Write a new folder that holds the runs of some neighbouring ones."""
    digest = hashlib.sha256(json.dumps([folder.name for folder in group]).encode()).hexdigest()
    name = f"{_MERGED}{digest[:16]}"
    into = run_folder(index.path, name)
    storage.remove(into)  # an interrupted attempt may have used another size of lots
    before = [run_folder(index.path, folder.name) for folder in group]
    runs = dict(zip([folder.name for folder in index.folders], index.runs_of(), strict=True))
    for folder, place in zip(group, before, strict=True):
        for run in runs[folder.name]:
            content = storage.read_bytes(roll_in(place, run.name))
            storage.write_bytes_atomic(roll_in(into, run.name), content)
    size = 0
    for kind in sorted({storage.relative(file.path, before[0]).partition("/")[0] for file in storage.scan(before[0])}):
        if kind == ROLLS:
            continue
        places = [storage.join(place, kind) for place in before]
        if storage.exists(storage.join(places[0], SHUFFLE)):
            size += _join_placed(places, storage.join(into, kind), lot_bytes)
        else:
            size += _join_others(places, storage.join(into, kind), lot_bytes)
    return IndexFolder(name, sum(folder.runs for folder in group), size)


def _join_placed(places: Sequence[str], into: str, lot_bytes: int) -> int:
    """Write the shuffles in ``places`` as one; return its size in bytes."""
    joined = Joined([read_manifest(place) for place in places])
    records = [
        joined.write(storage.join(into, f"lot-{number:05d}.arrow"), lot)
        for number, lot in enumerate(_lots(joined.files, lambda file: file.bytes, lot_bytes))
    ]
    joined.finish(into, records)
    return sum(record.bytes for record in records)


@dataclass(frozen=True, slots=True)
class _Part:
    """A file whose rows are not sorted by place: its batches, and the properties that must match for it to be merged
    with another.
    """

    path: str
    count: int
    size: int
    schema: bytes


def _join_others(places: Sequence[str], into: str, lot_bytes: int) -> int:
    """Join files of batches into a few larger ones; return their size in bytes."""
    parts = []
    for place in places:
        for name, _, count in read_files(place):
            path = storage.join(place, name)
            with storage.open_arrow(path) as source, pa.ipc.open_file(source) as file:
                schema = file.schema.remove_metadata().serialize().to_pybytes()
                parts.append(_Part(path, count, source.size(), schema))
    size, first = 0, 0
    files: list[tuple[str, int, int]] = []
    for _, same in itertools.groupby(parts, key=lambda part: part.schema):
        for lot in _lots(list(same), lambda part: part.size, lot_bytes):
            name = f"lot-{len(files):05d}.arrow"
            size += _join_lot(lot, storage.join(into, name))
            files.append((name, first, sum(part.count for part in lot)))
            first += files[-1][2]
    write_files(into, files)
    return size


def _join_lot(lot: Sequence[_Part], path: str) -> int:
    begins: list[int] = []
    behind = 0
    for part in lot:
        with storage.open_arrow(part.path) as source, pa.ipc.open_file(source) as file:
            begins += [behind + at for at in json.loads((file.schema.metadata or {}).get(BEGINS, b"[0]"))]
            behind += file.num_record_batches
    schema = pa.ipc.read_schema(pa.py_buffer(lot[0].schema)).with_metadata({BEGINS: json.dumps(begins).encode()})
    with storage.write_atomic(path) as out, pa.ipc.new_file(out, schema) as writer:
        for part in lot:
            with storage.open_arrow(part.path) as source, pa.ipc.open_file(source) as file:
                for at in range(file.num_record_batches):
                    writer.write_batch(file.get_batch(at).replace_schema_metadata(schema.metadata))
    return out.record().bytes


def _lots[T: (ShuffleFile, _Part)](files: Sequence[T], size_of: Callable[[T], int], most: int) -> list[list[T]]:
    """Consecutive files of at most ``most`` bytes in all, or one file that is larger."""
    lots: list[list[T]] = []
    room = 0
    for file in files:
        if not lots or size_of(file) > room:
            lots.append([])
            room = most
        lots[-1].append(file)
        room -= size_of(file)
    return lots


# The manifest --------------------------------------------------------------------------------------------------------


def _manifest_alone(path: str) -> AbstractContextManager[None]:
    doing = f"a run is being added to the index {path!r}"
    return locked(path, doing, "Run the command again: it continues.")


def _replace(path: str, group: Sequence[IndexFolder], merged: IndexFolder) -> None:
    """Replace folders by another in the manifest."""
    with _manifest_alone(path):
        index = Index.read(path)
        # Other runs may have been added meanwhile, after all existing ones.
        at = index.folders.index(group[0])
        folders = [*index.folders[:at], merged, *index.folders[at + len(group) :]]
        replaced = [*index.replaced, *(folder.name for folder in group)]
        changed = replace(index, folders=folders, replaced=replaced)
        storage.write_bytes_atomic(storage.join(path, MANIFEST), changed.content())


def _forget_replaced(path: str) -> None:
    """Remove folders that others have replaced."""
    for name in Index.read(path).replaced:
        storage.remove(run_folder(path, name))
    with _manifest_alone(path):
        index = Index.read(path)
        if index.replaced:
            storage.write_bytes_atomic(storage.join(path, MANIFEST), replace(index, replaced=[]).content())
