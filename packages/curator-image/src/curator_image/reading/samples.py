"""Groups the members of a tar into samples: members that share a key, one of which is the picture.

WebDataset ends a key at the first dot of a name. By that rule, ``IMG.2024.0000.jpg`` to ``IMG.2024.9999.jpg`` are one
sample of ten thousand pictures, and 9,999 of them are ignored. So by default, every picture is a separate sample
(`Grouping` ``picture``), and the rule of WebDataset applies only if it makes no difference or is requested.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal

from curator_image.decode.probe import PICTURE_EXTENSIONS, sniff
from curator_image.tar.read import Member, Problem

# The reasons in rejects.
NO_KEY = "missing key"
NO_IMAGE = "no image"
DUPLICATE_KEY = "duplicate key"
DUPLICATE_MEMBER = "duplicate member"
SAMPLE_TOO_LARGE = "sample too large"

Grouping = Literal["picture", "first_dot"]

# How many pictures of one key are held for sidecars that follow later.
_MOST_OPEN = 8


@dataclass(slots=True)
class Sample:
    """The members that share a key, in order: extension and bytes."""

    key: str
    members: dict[str, bytes] = field(default_factory=dict)
    at: int = 0

    def image(self) -> str | None:
        """The extension of the member that is the image: the first member with a plain picture extension, or else the
        first picture.
        """
        for ext in self.members:
            if ext.lower() in PICTURE_EXTENSIONS:
                return ext
        for ext in self.members:
            if names_picture(ext):
                return ext
        for ext, data in self.members.items():
            if sniff(data) is not None:
                return ext
        return None

    def size(self) -> int:
        return sum(map(len, self.members.values()))


@dataclass(frozen=True, slots=True)
class Bad:
    """A member or a sample that is set aside; ``rows`` is 0 if it does not count as a row."""

    reason: str
    position: str
    message: str
    raw: bytes = b""
    rows: int = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one sample."""

    members: int = 64
    bytes: int = 512 << 20

    def broken(self, members: int, size: int) -> str | None:
        """The limit that a sample of this size exceeds, or None."""
        if members > self.members:
            return f"more than {self.members:,} members"
        return f"more than {self.bytes:,} bytes" if size > self.bytes else None


@functools.lru_cache(maxsize=4096)
def names_picture(ext: str) -> bool:
    """Whether the last part of an extension is that of a picture, in a supported format or not."""
    return ext.lower().rpartition(".")[2] in PICTURE_EXTENSIONS


def split_name(name: str) -> tuple[str, str]:
    """Key and extension by the rule of WebDataset: a key is the path up to the first dot of its last part."""
    folder, slash, base = name.rpartition("/")
    stem, _, ext = base.partition(".")
    return (f"{folder}{slash}{stem}" if stem else ""), ext


def split_last(name: str) -> tuple[str, str]:
    """Key and extension of a file: a key is the path up to the last dot of its last part."""
    folder, slash, base = name.rpartition("/")
    stem, _, ext = base.rpartition(".")
    return (f"{folder}{slash}{stem}", ext) if stem and ext else (name.rstrip("."), "")


def group_members(
    found: Iterable[Member | Problem], *, grouping: Grouping = "picture", limits: Limits = Limits()
) -> Iterator[Sample | Bad]:
    """Yield samples, each made from adjacent members, and problems as they are found."""
    once = _Once()
    group: _Group | None = None
    for item in found:
        if isinstance(item, Problem):
            yield Bad(item.reason, item.name or f"byte {item.offset}", f"at byte {item.offset}: {item.message}")
            continue
        stem, ext = split_name(item.name)
        if not stem or not ext:
            yield from _unnamed(item, once)
            continue
        if group is None or group.stem != stem:
            if group is not None:
                yield from map(once, group.rest())
            group = _Group(stem, item.header_at, limits, tell_apart=grouping == "picture")
        yield from map(once, group.add(item))
    if group is not None:
        yield from map(once, group.rest())


def _unnamed(item: Member, once: _Once) -> Iterator[Sample | Bad]:
    """A member without key or extension: it is a sample if its bytes are a picture, and otherwise a problem."""
    kind = sniff(item.data)
    if kind is not None and split_name(item.name)[0]:
        yield once(Sample(item.name, {extension_of(kind): item.data}, item.header_at))
        return
    missing = "extension" if split_name(item.name)[0] else "key"
    message = f"at byte {item.header_at}: the name has no {missing}"
    yield Bad(NO_KEY, item.name, message, item.data, rows=1 if kind is not None or names_picture(item.name) else 0)


def extension_of(kind: str) -> str:
    """The usual extension of a format."""
    return "jpg" if kind == "jpeg" else kind


class _Once:
    """Passes the first sample of each key, and rejects later ones."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def __call__(self, item: Sample | Bad) -> Sample | Bad:
        if isinstance(item, Bad):
            return item
        # Eight bytes for each key. `hash` differs between processes, and so would the keys that collide.
        digest = blake2b(item.key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        mark = int.from_bytes(digest, "big")
        if mark in self._seen:
            return Bad(
                DUPLICATE_KEY,
                item.key,
                f"at byte {item.at}: the key occurred before; its members here are {', '.join(item.members)}",
                next(iter(item.members.values())),
            )
        self._seen.add(mark)
        return item


class _Group:
    """The members with one stem by the rule of WebDataset: one sample, until a second picture shows that there are
    several.

    From then on, each picture is a sample, whose key ends at the last dot of its name. Every other member belongs to
    the picture whose key begins its name. Only a few samples are held, so any number of pictures may share a stem.
    """

    def __init__(self, stem: str, at: int, limits: Limits, *, tell_apart: bool) -> None:
        self.stem = stem
        self._at = at
        self._limits = limits
        self._tell_apart = tell_apart
        self._whole: dict[str, Member] | None = {}  # by the part of the name after the stem
        self._size = 0
        self._beyond: str | None = None
        self._left_out = 0
        self._open: dict[str, Sample] = {}

    def add(self, item: Member) -> Iterator[Sample | Bad]:
        """Add a member; yields the samples and problems that are now complete."""
        if self._whole is None:
            yield from self._add_apart(item)
            return
        ext = item.name[len(self.stem) + 1 :]
        if any(ext.lower() == other.lower() for other in self._whole):
            yield _duplicate(item, ext)
            return
        if self._tell_apart and names_picture(ext) and any(map(names_picture, self._whole)):
            held, self._whole = self._whole, None
            for member in (*held.values(), item):
                yield from self._add_apart(member)
            return
        self._size += len(item.data)
        self._beyond = self._beyond or self._limits.broken(len(self._whole) + 1, self._size)
        if (
            self._beyond is not None
        ):  # drop the content, so that it cannot fill the memory; the sample counts as one reject
            self._left_out += 1 + len(self._whole)
            self._whole.clear()
        else:
            self._whole[ext] = item

    def rest(self) -> Iterator[Sample | Bad]:
        """The samples from members that are still held; no more members of this stem follow."""
        if self._beyond is not None:
            message = f"at byte {self._at}: {self._left_out:,} members under one key, {self._beyond} (see max_members)"
            yield Bad(SAMPLE_TOO_LARGE, self.stem, message)
        elif self._whole is None:
            yield from self._open.values()
        elif self._whole:
            yield self._one(self._whole)

    def _one(self, members: dict[str, Member]) -> Sample:
        """One sample. Its key is the common part of its names, up to a dot: a single ``IMG.2024.0000.jpg`` gets the
        same key as it would among others.
        """
        if not any("." in ext for ext in members):  # nearly always
            return Sample(self.stem, {ext: item.data for ext, item in members.items()}, self._at)
        inner = 0
        if self._tell_apart:
            parts = [ext.split(".")[:-1] for ext in members]
            while all(len(own) > inner and own[inner] == parts[0][inner] for own in parts):
                inner += 1
        shared = next(iter(members)).split(".")[:inner]
        key = ".".join([self.stem, *shared])
        return Sample(key, {ext.split(".", inner)[-1]: item.data for ext, item in members.items()}, self._at)

    def _add_apart(self, item: Member) -> Iterator[Sample | Bad]:
        key, ext = split_last(item.name)
        picture = names_picture(ext)
        if not picture:
            key = self._continued(item.name) or key
            ext = item.name[len(key) + 1 :]
        sample = self._open.get(key)
        if sample is not None and picture and ext not in sample.members and any(map(names_picture, sample.members)):
            key = item.name  # a.jpg and a.png: the second gets its whole name as the key
            sample = self._open.get(key)
        if sample is not None and any(ext.lower() == other.lower() for other in sample.members):
            yield _duplicate(item, ext)
            return
        if sample is None:
            sample = self._open[key] = Sample(key, at=item.header_at)
        elif self._limits.broken(len(sample.members) + 1, sample.size() + len(item.data)):
            yield Bad(SAMPLE_TOO_LARGE, item.name, f"at byte {item.header_at}: its sample is full", item.data)
            return
        sample.members[ext] = item.data
        while len(self._open) > _MOST_OPEN or (len(self._open) > 1 and self._held() > self._limits.bytes):
            yield self._open.pop(next(iter(self._open)))

    def _continued(self, name: str) -> str | None:
        """The longest key of an open sample with which this name begins."""
        return max((key for key in self._open if name.startswith(f"{key}.")), key=len, default=None)

    def _held(self) -> int:
        return sum(sample.size() for sample in self._open.values())


def _duplicate(item: Member, ext: str) -> Bad:
    return Bad(DUPLICATE_MEMBER, item.name, f"at byte {item.header_at}: the sample already has a .{ext}", item.data)
