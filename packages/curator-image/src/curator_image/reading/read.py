"""Reads the files of a task as batches of images. Headers are checked, but images are not decoded; bad input is set
aside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from curator_core import storage
from curator_core.model.places import Places, place_rows
from curator_core.model.stage import ANY_COLUMNS, FanOut
from curator_core.model.task import FileGroupTask
from curator_image.batch import CAPTION, KEY, ODD, ImageBatch
from curator_image.decode.probe import UNSUPPORTED, BadImage, Header, probe, sniff
from curator_image.reading.options import ReadOptions, named_fields
from curator_image.reading.parquet import parquet_tables
from curator_image.reading.rows import FIXED, Odd, Rows
from curator_image.reading.samples import (
    NO_IMAGE,
    Bad,
    Limits,
    Sample,
    extension_of,
    group_members,
    names_picture,
    split_last,
    split_name,
)
from curator_image.reading.sources import PARQUETS, TARS
from curator_image.tar.read import ARCHIVES, BLOCK, MEMBER_TOO_LARGE, looks_like_tar, read_tar

# How many bytes are kept of each reject, and of all rejects of a source together.
_RAW_BYTES = 64 << 10
_RAW_TOTAL = 16 << 20
# Each extension of a sidecar is a column, so a batch is closed early if its samples have too many different extensions.
_MOST_COLUMNS = 256


@dataclass(kw_only=True)
class ImageRead(ReadOptions, FanOut[FileGroupTask, ImageBatch]):
    """Reads the files of a task: batches of images with checked headers, not decoded; see `ImageReader`.

    ``roots`` are the folders to which the keys of image files are relative.
    """

    roots: Sequence[str] = ()

    def __post_init__(self) -> None:
        self._check_read_options()
        self._fields = named_fields(self.json_fields)

    def outputs(self) -> list[str]:
        return [*FIXED, ODD, CAPTION, "json", *self._fields, ANY_COLUMNS]

    def may_be_empty(self) -> list[str]:
        return [ODD, CAPTION, "json"]

    def process(self, task: FileGroupTask) -> Iterator[ImageBatch]:
        self._raw_left = _RAW_TOTAL
        self._places: list[tuple[str, str]] = []
        rows = Rows(self._fields, reject_odd=self.reject_odd)
        for path in task.data:
            kind = _kind(path)
            if kind == "parquet":
                yield from self._flush(rows, task)
                for made in parquet_tables(path, self):
                    self.record_read(made.rows if isinstance(made, Bad) else made.num_rows)
                    if isinstance(made, Bad):
                        self._reject(made, path)
                    else:
                        batch = ImageBatch(data=made, dataset_name=task.dataset_name)
                        yield place_rows(batch, Places(path, "", made.column(KEY).to_pylist()))
                continue
            for item in self._tar(path) if kind == "tar" else self._file(path):
                if isinstance(item, Bad):
                    self.record_read(item.rows)
                    self._reject(item, path)
                    continue
                self.record_read(1)
                if self._add(rows, item, path if kind == "tar" else storage.parent(path), path):
                    self._places.append((path, item.key if kind == "tar" else ""))
                if (
                    len(rows) >= self.images_per_batch
                    or rows.bytes >= self.bytes_per_batch
                    or rows.columns > _MOST_COLUMNS
                ):
                    yield from self._flush(rows, task)
        yield from self._flush(rows, task)

    def row_of_key(self, path: str, key: str) -> tuple[int, ImageBatch] | None:
        """The image with this key in a tar, and the number of samples and problems before it; None if there is none.

        The bytes of other samples are not read, so this takes a small part of the time of reading the tar.
        """
        if _kind(path) != "tar":
            return None
        stem = split_name(f"{key}.")[0]
        for number, item in enumerate(self._tar(path, lambda name: split_name(name)[0] == stem)):
            if isinstance(item, Bad) or item.key != key:
                continue
            ext, rows = item.image(), Rows(self._fields)
            if ext is None:
                return None
            try:
                rows.add(key, path, ext, self._probe(item.members[ext]), item.members)
            except BadImage:
                return None
            return number, place_rows(ImageBatch(data=rows.table()), Places([path], "", [key]))
        return None

    def _flush(self, rows: Rows, task: FileGroupTask) -> Iterator[ImageBatch]:
        if len(rows):
            table = rows.table()
            rows.clear()
            (sources, keys), self._places = zip(*self._places, strict=True), []
            yield place_rows(ImageBatch(data=table, dataset_name=task.dataset_name), Places(sources, "", keys))

    def _add(self, rows: Rows, sample: Sample, shard: str, source: str) -> bool:
        """Add a sample to the rows or to the rejects; returns whether it became a row."""
        ext = sample.image()
        if ext is None:
            text = f"the sample has only {', '.join(sample.members)}"
            self._reject(Bad(NO_IMAGE, sample.key, text, next(iter(sample.members.values()))), source)
            return False
        data = sample.members[ext]
        try:
            rows.add(sample.key, shard, ext, self._probe(data), sample.members)
        except (BadImage, Odd) as error:
            self._reject(Bad(error.reason, sample.key, error.message, data), source)
            return False
        return True

    def _probe(self, data: bytes) -> Header:
        return probe(data, max_pixels=self.max_pixels, max_side=self.max_side)

    def _reject(self, bad: Bad, source: str) -> None:
        kept: bytes | None = bad.raw[:_RAW_BYTES]
        if kept is None or len(kept) > self._raw_left:
            kept = None
        else:
            self._raw_left -= len(kept)
        self.record_rejected(
            bad.reason, source=source, position=bad.position, message=bad.message, raw=kept, rows=bad.rows
        )

    # Kinds of files ---------------------------------------------------------------------------------------------

    def _tar(self, path: str, wanted: Callable[[str], bool] | None = None) -> Iterator[Sample | Bad]:
        limits = Limits(self.max_members, self.max_sample_bytes)
        with storage.open_input(path) as stream:
            members = read_tar(stream, max_member_bytes=self.max_member_bytes, wanted=wanted)
            yield from group_members(members, grouping=self.grouping, limits=limits)

    def _file(self, path: str) -> Iterator[Sample | Bad]:
        """An image file, and the files next to it with the same name."""
        key, ext = split_last(self._relative(path))
        if not names_picture(ext):
            kind = sniff(_head(path))
            if kind is None:
                yield _no_picture(path, storage.file_name(path), ext, self.sidecars)
                return
            ext = ext or extension_of(kind)
        size = storage.info(path).size
        if size > self.max_member_bytes:
            yield Bad(MEMBER_TOO_LARGE, key, f"{size:,} bytes, more than {self.max_member_bytes:,}")
            return
        sample = Sample(key, {ext: storage.read_bytes(path)})
        stem = split_last(path)[0]
        for other in self.sidecars:
            # Cameras and Windows write extensions in upper case.
            beside = next((name for e in (other, other.upper()) if storage.exists(name := f"{stem}.{e}")), None)
            if beside is None or beside == path:
                continue
            size = storage.info(beside).size
            if size > self.max_member_bytes or sample.size() + size > self.max_sample_bytes:
                yield Bad(MEMBER_TOO_LARGE, beside, f"{size:,} bytes; the picture is read without this member", rows=0)
                continue
            sample.members[other] = storage.read_bytes(beside)
        yield sample

    def _relative(self, path: str) -> str:
        full = storage.absolute(path)
        inside = [root for root in map(storage.absolute, self.roots) if full.startswith(root.rstrip("/") + "/")]
        name: str = storage.relative(full, max(inside, key=len)) if inside else storage.file_name(path)
        return name


def _kind(path: str) -> str:
    """``tar``, ``parquet`` or ``file``, by the extension, or by the first bytes if the extension is not conclusive."""
    lowered = path.lower()
    if lowered.endswith(TARS):
        return "tar"
    if lowered.endswith(PARQUETS):
        return "parquet"
    if names_picture(split_last(path)[1]):
        return "file"
    head = _head(path)
    if head.startswith(b"PAR1"):
        return "parquet"
    return "tar" if looks_like_tar(head) else "file"


def _head(path: str) -> bytes:
    with storage.open_input(path) as stream:
        head: bytes = stream.read(BLOCK)
    return head


def _no_picture(path: str, position: str, ext: str, sidecars: Sequence[str]) -> Bad:
    """The reject for a file that is not a picture and does not belong to one.

    A caption without its picture, or an archive that cannot be opened, counts as one rejected row. Other files (a
    README, a list of labels) are recorded, but do not count as rows.
    """
    if path.lower().endswith(ARCHIVES):
        return Bad(UNSUPPORTED, position, "archives of this kind are not opened")
    if ext.lower() in map(str.lower, sidecars):
        return Bad(NO_IMAGE, position, "there is no picture with this name next to it")
    return Bad(NO_IMAGE, position, "it is not a picture by its name or its first bytes", rows=0)
