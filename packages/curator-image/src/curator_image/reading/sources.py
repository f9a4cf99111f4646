"""Finds the sources of images: in a folder, all files except those that belong to another file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from curator_core import storage
from curator_core.stages.files import FilePartitioning
from curator_image.decode.probe import PICTURE_EXTENSIONS
from curator_image.reading.samples import split_last

TARS = (".tar", ".tar.gz", ".tgz")
PARQUETS = (".parquet", ".pq")
PICTURES = tuple(f".{ext}" for ext in sorted(PICTURE_EXTENSIONS))

_GROUP_BYTES = 64 << 20


@dataclass(kw_only=True)
class ImageSources(FilePartitioning):
    """The sources of images: tars and Parquet files one by one, other files in groups.

    In a folder, files next to a picture with its name (``a.jpg``, ``a.txt``, ``a.seg.npy``) are its sidecars. Files
    named after a tar (``00000.parquet``, ``00000_stats.json``), which writers and downloaders make, describe the tar.
    Neither are sources. All other files are sources, so that files that are not pictures appear in the accounts.
    """

    files_per_group: int = 256
    sidecars: Sequence[str] = ("txt", "json")

    def _matches(self, entry: str) -> tuple[str, list[storage.FileInfo]]:
        base, found = super()._matches(entry)
        if len(found) == 1 and found[0].path == entry:
            return base, found  # the file is named explicitly
        tars = {stem for stem in (_stem(file.path, TARS) for file in found) if stem is not None}
        stems = {split_last(file.path)[0] for file in found if _names_picture(file.path)}
        beside: dict[str, list[storage.FileInfo]] = {}
        sources = []
        for file in found:
            if _names_picture(file.path) or file.path.lower().endswith(TARS):
                sources.append(file)
                continue
            if _is_about_one(file.path, tars):
                continue
            stem = None if file.path.lower().endswith(PARQUETS) else _sample_of(file.path, stems)
            if stem is None:
                sources.append(file)
            else:
                beside.setdefault(stem, []).append(file)
        return base, [self._with_sidecars(file, beside) for file in sources]

    def _with_sidecars(self, file: storage.FileInfo, beside: dict[str, list[storage.FileInfo]]) -> storage.FileInfo:
        """The file, with a fingerprint that also covers its sidecars: if a sidecar changes, a resumed run reads the
        file again.
        """
        others = beside.get(split_last(file.path)[0]) if _names_picture(file.path) else None
        prints = sorted(
            other.fingerprint
            for other in others or ()
            if split_last(other.path)[1].lower() in map(str.lower, self.sidecars)
        )
        if not prints:
            return file
        joined = "\0".join([file.fingerprint, *prints])
        return replace(file, fingerprint=hashlib.sha256(joined.encode()).hexdigest()[:16])

    def _groups(self, parts: Iterable[Any]) -> Iterator[list[Any]]:
        if self.files_per_partition != 1 or self.bytes_per_partition is not None:
            yield from super()._groups(parts)
            return
        group: list[Any] = []
        held = 0
        for part in parts:
            if part.info.path.lower().endswith((*TARS, *PARQUETS)):
                yield [part]
                continue
            if group and (len(group) == self.files_per_group or held + part.size > _GROUP_BYTES):
                yield group
                group, held = [], 0
            group.append(part)
            held += part.size
        if group:
            yield group


def _names_picture(path: str) -> bool:
    return path.lower().endswith(PICTURES)


def _stem(path: str, endings: tuple[str, ...]) -> str | None:
    lowered = path.lower()
    return next((path[: -len(ending)] for ending in endings if lowered.endswith(ending)), None)


def _is_about_one(path: str, tars: set[str]) -> bool:
    """Whether a file is named after a tar next to it: its name is that of the tar, followed by a dot or an underscore."""
    folder, slash, name = path.rpartition("/")
    ends = (at for at, character in enumerate(name) if character in "._")
    return any(f"{folder}{slash}{name[:end]}" in tars for end in ends)


def _sample_of(path: str, stems: set[str]) -> str | None:
    """The longest stem of a picture with which a file's name begins, followed by a dot."""
    folder, slash, name = path.rpartition("/")
    ends = [at for at, character in enumerate(name) if character == "."]
    return next((stem for end in reversed(ends) if (stem := f"{folder}{slash}{name[:end]}") in stems), None)
