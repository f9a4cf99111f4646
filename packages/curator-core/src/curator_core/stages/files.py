"""Which sources does a run have? Its files, grouped and cut into byte ranges, with their ids."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from curator_core import storage
from curator_core.errors import UsageError, check_whole, nearest
from curator_core.model.lineage import source_id
from curator_core.model.stage import SourceStage
from curator_core.model.task import EmptyTask, FileGroupTask
from curator_core.storage import FileInfo
from curator_core.storage.packing import PACKED, PARTS

type ByteRange = tuple[int, int] | None

# Success files, notes and other files that writers put beside the data.
NOT_DATA = frozenset({"_SUCCESS", "_metadata", "_common_metadata", PACKED})
_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgtp", start=1):
    _UNITS |= {_letter: 1024**_power, f"{_letter}ib": 1024**_power, f"{_letter}b": 1000**_power}
# Formats that cannot be read from the middle, recognised by name and, since names may be wrong, by their first bytes.
_WHOLE_ONLY: tuple[str, ...] = (
    *(".gz", ".bgz", ".bz2", ".xz", ".zst", ".zstd", ".lz4", ".br", ".sz", ".zip", ".tar", ".tgz", ".7z"),
    *(".parquet", ".arrow", ".feather", ".orc", ".avro"),
)
_WHOLE_ONLY_MAGIC: tuple[bytes, ...] = (
    *(b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\x00", b"\x04\x22\x4d\x18", b"PK\x03\x04"),
    *(b"PAR1", b"ARROW1", b"ORC", b"Obj\x01"),
)


@dataclass(kw_only=True)
class FilePartitioning(SourceStage[FileGroupTask]):
    """Lists the files that a run reads and groups them into tasks, without opening the files.

    ``paths`` is a file, a folder, a pattern (``in/**/*.jsonl``), or a list of these; local, or any fsspec URL. In
    folders and patterns, hidden and unfinished files, ``_SUCCESS`` files and the additional files of packing writers
    are skipped. A file that is named twice is read once. Files are in natural order (``part-2`` before ``part-10``).

    Each file is a task, unless ``files_per_partition`` or ``bytes_per_partition`` (a number or ``"256MB"``) puts
    several together; with both, a group closes at whichever limit comes first. ``split_bytes`` cuts larger files into
    ranges of that size, each a task; files that are compressed or cannot be read from the middle stay whole.
    ``extensions`` restricts which files in folders are read. ``limit`` takes only the first N files.
    """

    paths: str | Sequence[str]
    files_per_partition: int = 1
    bytes_per_partition: int | str | None = None
    split_bytes: int | str | None = None
    extensions: Sequence[str] | None = None
    recursive: bool = True
    limit: int | None = None
    dataset_name: str = ""

    def __post_init__(self) -> None:
        checked_paths("FilePartitioning.paths", self.paths)
        check_whole("FilePartitioning.files_per_partition", self.files_per_partition)
        check_whole("FilePartitioning.limit", self.limit, optional=True)
        for name in ("bytes_per_partition", "split_bytes"):
            if getattr(self, name) is not None:
                parse_bytes(getattr(self, name), f"FilePartitioning.{name}")
        if isinstance(self.extensions, str):
            raise UsageError(f"FilePartitioning.extensions must be a list such as [{self.extensions!r}]")

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        """Return the sources. In a resumed run, ``task._metadata["earlier_members"]`` contains the files of the earlier
        sources, by task id: sources whose files all exist stay as they were, so that new files only make new sources.
        """
        parts = list(self._parts(self._files()))
        groups = _earlier(task._metadata.get("earlier_members", {}), parts)
        taken = {part.key for _, group in groups for part in group}
        for group in self._groups(part for part in parts if part.key not in taken):
            names = [text for part in group for text in (part.name, _range_text(part.range))]
            groups.append((source_id(_label(group[0].info.path), names), group))
        groups.sort(key=lambda item: item[1][0].position)
        return _Sources((self._task(task, task_id, group) for task_id, group in groups), len(groups))

    def reads_from(self, folder: str) -> str | None:
        there = storage.resolved(folder)
        for entry in checked_paths("FilePartitioning.paths", self.paths):
            if is_pattern(entry):
                base = storage.fixed_base(entry)
                below = storage.relative(entry, base).split("/")[:-1]
            elif storage.is_folder(entry):
                base, below = entry, ["**"] if self.recursive else []
            else:
                continue
            root = storage.resolved(base)
            if f"{there}/".startswith(f"{root.rstrip('/')}/"):
                inner = [part for part in there[len(root) :].split("/") if part]
                if _leads_to(below, inner):
                    return entry
        return None

    def _task(self, empty: EmptyTask, task_id: str, group: list[_Part]) -> FileGroupTask:
        prints = "\0".join(part.info.fingerprint for part in group)
        whole = all(part.range is None for part in group)
        return FileGroupTask(
            data=[part.info.path for part in group],
            ranges=None if whole else [part.range for part in group],
            task_id=task_id,
            dataset_name=self.dataset_name or empty.dataset_name,
            _generation=hashlib.sha256(prints.encode()).hexdigest()[:16],
            _metadata={
                "source_files": [(part.info.path, part.size) for part in group],
                **({} if whole else {"source_ranges": [part.range for part in group]}),
            },
        )

    def _files(self) -> list[tuple[str, FileInfo]]:
        """Each file once, with the name that its id is made from, in natural order."""
        found: dict[str, tuple[str, str, FileInfo]] = {}
        for entry in [self.paths] if isinstance(self.paths, str | os.PathLike) else self.paths:
            base, files = self._matches(os.fspath(entry))
            # The path is split by hand, because `relative` and `absolute` take two seconds for 100,000 files.
            prefix, root = storage.join(base, ""), storage.absolute(base)
            for file in files:
                name = file.path.removeprefix(prefix) if base != "." else storage.relative(file.path, base)
                found.setdefault(storage.join(root, name), (name, base, file))
        # If two bases contain files with the same relative name, the base becomes part of the name.
        count: dict[str, int] = {}
        for name, _, _ in found.values():
            count[name] = count.get(name, 0) + 1
        named = [(name if count[name] == 1 else storage.join(base, name), file) for name, base, file in found.values()]
        named.sort(key=lambda item: storage.natural_key(item[1].path))
        return named[: self.limit]

    def _matches(self, entry: str) -> tuple[str, list[FileInfo]]:
        pattern = is_pattern(entry)
        if pattern:
            base = storage.fixed_base(entry)
            found = [file for file in storage.match_files(entry) if is_data(file.path, base)]
        elif storage.is_folder(entry):
            base = entry
            endings = tuple(f".{ending.lower().lstrip('.')}" for ending in self.extensions or ())
            found = [
                file
                for file in storage.scan(entry, recursive=self.recursive)
                if is_data(file.path, base) and (not endings or file.path.lower().endswith(endings))
            ]
        else:
            base = storage.parent(entry)
            found = [storage.info(entry)]
        if not found:
            raise UsageError(self._nothing(entry, base, pattern=pattern))
        return base, found

    def _nothing(self, entry: str, base: str, *, pattern: bool) -> str:
        wanted = f"no file matches {entry!r}" if pattern else f"the folder {entry!r} holds no file"
        if not pattern and self.extensions:
            wanted += f" that ends in {', '.join(self.extensions)}"
        if not storage.is_folder(base):
            return f"{wanted}: there is no folder {base!r}"
        there = [storage.relative(path, base) for path in storage.list_files(base)]
        if not there:
            return f"{wanted}: {base!r} is empty"
        shown = ", ".join(there[:3]) + (f" and {len(there) - 3} more" if len(there) > 3 else "")
        hint = _other_ending(entry, base, there[:1000]) if pattern else ""
        if not hint and pattern and base != ".":
            hint = nearest(storage.relative(entry, base), there[:1000])
        return f"{wanted}: {base!r} holds {shown}{hint}"

    def _parts(self, files: Iterable[tuple[str, FileInfo]]) -> Iterator[_Part]:
        size = None if self.split_bytes is None else parse_bytes(self.split_bytes)
        position = 0
        for name, file in files:
            if size is None or file.size <= size or not _can_split(file.path):
                yield _Part(name, file, None, position)
                position += 1
                continue
            for start in range(0, file.size, size):
                yield _Part(name, file, (start, min(start + size, file.size)), position)
                position += 1

    def _groups(self, parts: Iterable[_Part]) -> Iterator[list[_Part]]:
        room = None if self.bytes_per_partition is None else parse_bytes(self.bytes_per_partition)
        # By size alone, unless a count is given as well.
        most = None if room is not None and self.files_per_partition == 1 else self.files_per_partition
        group: list[_Part] = []
        held = 0
        for part in parts:
            if group and (len(group) == most or (room is not None and held + part.size > room)):
                yield group
                group, held = [], 0
            group.append(part)
            held += part.size
        if group:
            yield group


class _Sources(Iterator[FileGroupTask]):
    """Tasks that are made on demand; their number is known."""

    def __init__(self, tasks: Iterator[FileGroupTask], count: int) -> None:
        self._tasks = tasks
        self._left = count

    def __next__(self) -> FileGroupTask:
        task = next(self._tasks)
        self._left -= 1
        return task

    def __length_hint__(self) -> int:
        return self._left


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    info: FileInfo
    range: ByteRange
    position: int
    key: tuple[str, ByteRange] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", (self.info.path, self.range))

    @property
    def size(self) -> int:
        return self.info.size if self.range is None else self.range[1] - self.range[0]


def parse_bytes(value: int | str, what: str = "a size") -> int:
    """A number of bytes from ``256``, ``"256MB"`` or ``"1.5 GiB"``; 1 or more."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
        factor = _UNITS.get(match[2].lower()) if match else None
        if match and factor:
            value = int(float(match[1]) * factor)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{what} must be a number of bytes, 1 or more, such as 64000000 or '64MB', not {value!r}")
    return value


def checked_paths(what: str, paths: Any) -> list[str]:
    """Return ``paths`` as a list of text, or raise an error that says what they must be; for every stage that takes
    ``paths``.
    """
    entries = [paths] if isinstance(paths, str | os.PathLike) else paths
    if not isinstance(entries, list | tuple) or not entries:
        raise UsageError(f"{what} must be a path, a pattern, a folder, or a list of these, not {paths!r}")
    for entry in entries:
        if not isinstance(entry, str | os.PathLike) or not os.fspath(entry):
            raise UsageError(f"{what} must hold paths, not {entry!r}")
    return [os.fspath(entry) for entry in entries]


def is_pattern(entry: str) -> bool:
    """Whether an entry of ``paths`` is a pattern and not the name of an existing file with a star in it."""
    return storage.has_magic(entry) and not (storage.is_local(entry) and storage.exists(entry))


def _leads_to(pattern: Sequence[str], folder: Sequence[str]) -> bool:
    """Whether the folders of a pattern, component by component, match ``folder``; ``**`` stands for any number of
    folders that are not hidden.
    """
    if not pattern:
        return not folder
    if pattern[0] == "**":
        return _leads_to(pattern[1:], folder) or (
            bool(folder) and not folder[0].startswith(".") and _leads_to(pattern, folder[1:])
        )
    if not folder or (folder[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatch.fnmatchcase(folder[0], pattern[0]) and _leads_to(pattern[1:], folder[1:])


def _earlier(earlier: Any, parts: list[_Part]) -> list[tuple[str, list[_Part]]]:
    present = {part.key: part for part in parts}
    groups = []
    for task_id, members in earlier.items():
        keys = [(path, None if span is None else (int(span[0]), int(span[1]))) for path, span in members]
        if keys and all(key in present for key in keys):
            groups.append((task_id, [present.pop(key) for key in keys]))
    return groups


def _other_ending(entry: str, base: str, there: Sequence[str]) -> str:
    """A hint such as ``; did you mean '*.jsonl'?``, if files match a pattern except for their ending."""
    wanted = entry if base == "." else storage.relative(entry, base)
    stem, dot, ending = wanted.rpartition(".")
    if not dot or storage.has_magic(ending) or not storage.has_magic(stem):
        return ""
    endings = dict.fromkeys(storage.file_name(name).partition(".")[2] for name in there)
    matches = get_close_matches(ending, [other for other in endings if other], n=1, cutoff=0.5)
    return f"; did you mean {f'{stem}.{matches[0]}'!r}?" if matches else ""


def is_data(path: str, base: str) -> bool:
    """Whether a file below ``base`` contains data, and is not a success file, note or part that a writer keeps beside
    its files.
    """
    if storage.file_name(path) in NOT_DATA:
        return False
    # The files of single tasks are packed into others; reading both would give each row twice.
    return f"/{PARTS}/" not in path or f"/{PARTS}/" not in f"/{storage.relative(path, base)}"


def _can_split(path: str) -> bool:
    if path.lower().endswith(_WHOLE_ONLY):
        return False
    with storage.open_input(path) as file:
        return not file.read(8).startswith(_WHOLE_ONLY_MAGIC)


def _label(path: str) -> str:
    return storage.file_name(path).partition(".")[0]


def _range_text(span: ByteRange) -> str:
    return "" if span is None else f"{span[0]}-{span[1]}"
