"""Writes images: WebDataset tars with the original bytes and all sidecars, and a Parquet index next to each tar."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Literal, get_args

import pyarrow as pa

from curator_core import storage
from curator_core.arrow.arrays import array
from curator_core.errors import CuratorError, UsageError, check_whole
from curator_core.model.parameters import paths_as_text
from curator_core.model.stage import ProcessingStage
from curator_core.model.task import FileGroupTask, FileRecord
from curator_core.stages.files import parse_bytes
from curator_core.storage.packing import pack, parts_folder
from curator_image.batch import BYTES, CAPTION, EXT, FORMAT, HEIGHT, KEY, MEMBERS, PICTURES, SHARD, WIDTH, ImageBatch
from curator_image.decode.pictures import pillow_pixels
from curator_image.decode.probe import BadImage, Header, probe
from curator_image.reading.rows import column_of
from curator_image.reading.samples import split_name
from curator_image.tar.names import unsafe_name
from curator_image.tar.read import Member, read_tar
from curator_image.tar.write import END, padding, tar_header

SOURCE_SHARD = "source_shard"
_PLACES = (SHARD, "member", "offset", "length")
_START, _END = "_sample_start", "_sample_end"
_COPY_BYTES = 1 << 20

Reencode = Literal["jpeg", "png", "webp"]


@dataclass(kw_only=True)
class ImageWriter(ProcessingStage[ImageBatch, FileGroupTask]):
    """Writes WebDataset tars of ``images_per_tar`` images or ``bytes_per_tar`` bytes, whichever is reached first.

    A sample keeps its original bytes and all its members in order; members listed in ``sidecars`` (extension to column)
    are added or replaced. Next to ``00000.tar``, it writes ``00000.parquet`` with a row for each sample: every column
    except bytes, pixels and binary members, and the location of the image (``shard``, ``member``, ``offset``,
    ``length``); ``source_shard`` is the tar from which it was read. ``reencode`` encodes images again, with ``quality``
    and sides of at most ``max_side`` pixels; the index then has the new format and size.

    Each task writes a small tar that is named after its lineage. When all sources are complete, the small tars are
    packed into full ones in lineage order and then removed. So the result does not depend on the order in which tasks
    write, and every step can be repeated. If a tar already contains a key, the second sample with that key gets the
    name of its source shard as a folder; the index keeps the original key.
    """

    path: str
    images_per_tar: int = 10_000
    bytes_per_tar: int | str = "1GB"
    sidecars: Mapping[str, str] = field(default_factory=dict)
    reencode: Reencode | None = None
    quality: int = 90
    max_side: int | None = None
    compression: str = "zstd"

    def __post_init__(self) -> None:
        paths_as_text(self, "path")
        if not isinstance(self.path, str) or not self.path:
            raise UsageError(f"ImageWriter.path must be a folder or a URL, not {self.path!r}")
        check_whole("ImageWriter.images_per_tar", self.images_per_tar)
        check_whole("ImageWriter.max_side", self.max_side, optional=True)
        self._bytes_per_tar = parse_bytes(self.bytes_per_tar, "ImageWriter.bytes_per_tar")
        if self.reencode is not None and self.reencode not in get_args(Reencode):
            raise UsageError(
                f"ImageWriter.reencode must be one of {', '.join(get_args(Reencode))}, not {self.reencode!r}"
            )
        if self.max_side is not None and self.reencode is None:
            raise UsageError("ImageWriter.max_side changes images, so it needs reencode='jpeg' (or png, webp)")
        if isinstance(self.quality, bool) or not isinstance(self.quality, int) or not 1 <= self.quality <= 100:
            raise UsageError(f"ImageWriter.quality must be 1 to 100, not {self.quality!r}")
        for ext in self.sidecars:
            if not isinstance(ext, str) or unsafe_name(f"x.{ext}") or "/" in ext:
                raise UsageError(f"ImageWriter.sidecars: {ext!r} is not an extension for a member")

    def inputs(self) -> list[str]:
        return [KEY, BYTES, *self.sidecars.values()]

    def output_folder(self) -> str:
        return self.path

    def process(self, task: ImageBatch) -> FileGroupTask | None:
        table = task.to_pyarrow()
        _check_names(table)
        name = task.task_id or "part"
        tar_path = storage.join(parts_folder(self.path), f"{name}.tar")
        kept: list[int] = []
        places: dict[str, list[Any]] = {what: [] for what in (*_PLACES, _START, _END)}
        written: list[_Sample] = []
        with storage.write_atomic(tar_path) as out:
            at = 0
            names = _Names()
            for row, original in enumerate(_samples(table, self.sidecars)):
                reason, sample = _unfit(original), original
                if reason is None and self.reencode is not None:
                    reason, sample = self._anew(original)
                if reason is not None:
                    self.record_rejected("cannot be written", source=sample.shard, position=sample.key, message=reason)
                    continue
                key = names.claim(sample.key, sample.shard)
                start = at
                for ext, body in sample.members:
                    header = tar_header(f"{key}.{ext}", len(body))
                    if ext == sample.ext:
                        values = (f"{name}.tar", f"{key}.{ext}", at + len(header), len(body))
                        for what, value in zip(_PLACES, values, strict=True):
                            places[what].append(value)
                    fill = padding(len(body))
                    out.write(header)
                    out.write(body)
                    out.write(fill)
                    at += len(header) + len(body) + len(fill)
                places[_START].append(start)
                places[_END].append(at)
                written.append(replace(sample, data=b"", members=[(ext, b"") for ext, _ in sample.members]))
                kept.append(row)
            out.write(END)
        index = _index(table, kept, written, places, self.sidecars)
        index_path = storage.join(parts_folder(self.path), f"{name}.parquet")
        index_record = _write_index(index_path, [index], index.schema, self.compression)
        records = [out.record(rows=len(kept)), index_record]
        for record in records:
            self.record_output(record)
        return FileGroupTask(data=[record.path for record in records], records=records, dataset_name=task.dataset_name)

    def _anew(self, sample: _Sample) -> tuple[str | None, _Sample]:
        """The sample with its image encoded as requested, or the reason why that failed; its other members stay."""
        assert self.reencode is not None
        try:
            body = reencoded(sample.data, self.reencode, self.quality, self.max_side)
        except BadImage as error:
            return str(error), sample
        new = "jpg" if self.reencode == "jpeg" else self.reencode
        members = [(new, body) if ext == sample.ext else (ext, data) for ext, data in sample.members]
        if sum(ext == new for ext, _ in members) > 1:
            return f"it has a member .{new} besides its image", sample
        header = probe(body)
        return None, _Sample(sample.key, sample.shard, new, body, members, header)

    # The finishing pass -----------------------------------------------------------------------------------------

    def finish(self, outputs: Sequence[FileRecord]) -> list[FileRecord]:
        """Pack the small tars of all tasks into full ones, in the order of ``outputs``; returns the files that remain."""

        def make(fresh: Sequence[FileRecord], standing: Sequence[FileRecord]) -> list[FileRecord]:
            return self._pack([tar.path for tar in fresh], first=sum(r.path.endswith(".tar") for r in standing))

        return pack(self.path, [record for record in outputs if record.path.endswith(".tar")], make)

    def _pack(self, parts: Sequence[str], first: int) -> list[FileRecord]:
        import pyarrow.parquet as pq

        def index_of(part: str) -> str:
            return part.removesuffix(".tar") + ".parquet"

        schemas = []
        for part in parts:
            with storage.open_input(index_of(part)) as stream:
                schemas.append(pq.ParquetFile(stream).schema_arrow)
        schema = _together(schemas)
        shard = _Shard(self, first, schema)
        records: list[FileRecord] = []
        try:
            for part in parts:
                with storage.open_input(index_of(part)) as stream:
                    index = pq.ParquetFile(stream).read()
                with storage.open_input(part) as tar:
                    for row, packed in enumerate(_packed_samples(index)):
                        if shard.full(packed.end - packed.start):
                            shard.flush(index)
                            records += shard.close()
                            shard = _Shard(self, shard.number + 1, schema)
                        shard.add(row, packed, tar)
                shard.flush(index)
            records += shard.close()
        except BaseException:
            shard.discard()
            raise
        return records


class _Shard:
    """A full tar and its index, while they are written."""

    def __init__(self, writer: ImageWriter, number: int, schema: pa.Schema) -> None:
        self.number = number
        self._writer = writer
        self._schema = schema
        self.name = f"{number:05d}.tar"
        self._out: storage.AtomicFile | None = None
        self._names = _Names()
        self._at = 0
        self._rows = 0
        self._taken: list[int] = []
        self._places: dict[str, list[Any]] = {what: [] for what in _PLACES}
        self._tables: list[pa.Table] = []

    def full(self, more: int) -> bool:
        limit = self._writer._bytes_per_tar
        return self._rows > 0 and (self._rows >= self._writer.images_per_tar or self._at + more + len(END) > limit)

    def add(self, row: int, sample: _Packed, tar: BinaryIO) -> None:
        """Copy a sample; ``tar`` is positioned at its beginning."""
        if self._out is None:
            self._out = storage.write_atomic(storage.join(self._writer.path, self.name))
        used = sample.member[: -len(sample.ext) - 1]
        name = self._names.claim(sample.key, sample.source, prefer=used)
        size = sample.end - sample.start
        if name == used:
            places = (self.name, sample.member, self._at + sample.offset - sample.start, sample.length)
            _copy(tar, self._out, size)
            self._at += size
        else:
            places = self._renamed(_Window(tar, size), name, sample.ext)
        for what, value in zip(_PLACES, places, strict=True):
            self._places[what].append(value)
        self._taken.append(row)
        self._rows += 1

    def _renamed(self, sample: Any, name: str, image: str) -> tuple[str, str, int, int]:
        """Copy a sample with another name; returns the position of its image."""
        assert self._out is not None
        places: tuple[str, str, int, int] | None = None
        for item in read_tar(sample, max_member_bytes=1 << 62):
            assert isinstance(item, Member)  # we wrote this tar
            _, ext = split_name(item.name)
            header, fill = tar_header(f"{name}.{ext}", len(item.data)), padding(len(item.data))
            if ext == image:
                places = (self.name, f"{name}.{ext}", self._at + len(header), len(item.data))
            for piece in (header, item.data, fill):
                self._out.write(piece)
                self._at += len(piece)
        assert places is not None
        return places

    def flush(self, index: pa.Table) -> None:
        """The rows that were copied from ``index``, as they are written to the index of this tar."""
        if not self._taken:
            return
        rows = index.take(array(self._taken, pa.int64())).drop_columns([*_PLACES, _START, _END])
        for what in _PLACES:
            rows = rows.append_column(what, array(self._places[what], self._schema.field(what).type))
        for name in self._schema.names:
            if name not in rows.column_names:
                rows = rows.append_column(name, pa.nulls(rows.num_rows, self._schema.field(name).type))
        self._tables.append(rows.select(self._schema.names).cast(self._schema))
        self._taken = []
        self._places = {what: [] for what in _PLACES}

    def close(self) -> list[FileRecord]:
        if self._out is None:
            return []
        self._out.write(END)
        self._out.commit()
        path = storage.join(self._writer.path, self.name.removesuffix(".tar") + ".parquet")
        index = _write_index(path, self._tables, self._schema, self._writer.compression)
        return [self._out.record(rows=self._rows), index]

    def discard(self) -> None:
        if self._out is not None:
            self._out.discard()


# Samples -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sample:
    """A row in the form of a sample; ``ext`` is the member that is the image; ``header`` is set if the image was
    encoded again.
    """

    key: str
    shard: str
    ext: str
    data: bytes
    members: list[tuple[str, bytes]]
    header: Header | None = None


@dataclass(frozen=True, slots=True)
class _Packed:
    """A sample in a small tar, from ``start`` to ``end``; the bytes of its image begin at ``offset``."""

    key: str
    source: str
    ext: str
    member: str
    offset: int
    length: int
    start: int
    end: int


def _packed_samples(index: pa.Table) -> Iterator[_Packed]:
    rows = index.num_rows
    names = (KEY, SOURCE_SHARD, EXT, "member", "offset", "length", _START, _END)
    columns = [index.column(name).to_pylist() if name in index.column_names else [""] * rows for name in names]
    for values in zip(*columns, strict=True):
        key, source, *rest = values
        yield _Packed(key, source or "", *rest)


def _samples(table: pa.Table, sidecars: Mapping[str, str]) -> Iterator[_Sample]:
    names = set(table.column_names)

    def values(name: str) -> list[Any]:
        return table.column(name).to_pylist() if name in names else [None] * table.num_rows

    columns: dict[str, list[Any]] = {}
    given = (values(name) for name in (KEY, SHARD, EXT, BYTES, MEMBERS))
    for row, (key, shard, ext, data, listed) in enumerate(zip(*given, strict=True)):
        image = ext or _extension(data or b"")
        order = listed or [image, *(other for other, name in (("txt", CAPTION), ("json", "json")) if name in names)]
        if image not in order:
            order = [image, *order]
        source = {other: _member_column(other, names) for other in order if other != image} | dict(sidecars)
        members: list[tuple[str, bytes]] = []
        for other in [*order, *(name for name in sidecars if name not in order)]:
            if other == image:
                members.append((image, data or b""))
                continue
            name = source[other]
            if name not in columns:
                columns[name] = values(name)
            value = columns[name][row]
            if value is not None:
                members.append((other, _member_bytes(value)))
        yield _Sample(key or "", shard or "", image, data or b"", members)


def _member_column(ext: str, names: Container[str]) -> str:
    """The column of a sidecar in a table; it gets another name if a JSON field has its usual name."""
    apart = f"member_{ext.lower()}"
    return apart if apart in names else column_of(ext)


def _unfit(sample: _Sample) -> str | None:
    """The reason why a row cannot become a sample, or None."""
    if not sample.data:
        return "the row has no bytes"
    if not sample.key.rpartition("/")[2]:
        return "the row has no key"
    return unsafe_name(f"{sample.key}.{sample.ext}")


def _member_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode("utf-8")


def _extension(data: bytes) -> str:
    try:
        kind = probe(data, check_end=False).format
    except BadImage:
        return "bin"
    return "jpg" if kind == "jpeg" else kind


def reencoded(data: bytes, kind: Reencode, quality: int, max_side: int | None) -> bytes:
    """The image, upright, encoded again, and shrunk if a side is longer than ``max_side``."""
    import io

    from PIL import Image

    pixels = pillow_pixels(data, probe(data), 1)
    image = Image.fromarray(pixels)
    if max_side is not None and max(image.size) > max_side:
        image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, kind.upper(), quality=quality)
    return out.getvalue()


class _Names:
    """The names of the samples of one tar, each unique."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def claim(self, key: str, source: str, prefer: str | None = None) -> str:
        """The name for a key: the key itself, the key in a folder named after its shard, or the key with a number."""
        folder, slash, base = key.rpartition("/")
        # A reader ends the key at the first dot, so a key cannot contain one.
        plain = f"{folder}{slash}{base.replace('.', '_')}"
        shard = storage.file_name(source).partition(".")[0] if source else ""
        beside = f"{shard}/{plain}" if shard and not unsafe_name(f"{shard}/x") else plain
        name, number = prefer if prefer is not None else plain, 0
        if name in self._taken:
            name = beside
        while name in self._taken:
            number += 1
            name = f"{beside}-{number}"
        self._taken.add(name)
        return name


# Files ---------------------------------------------------------------------------------------------------------------


class _Window:
    """The next ``size`` bytes of a stream, as a stream."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._left = size

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    while size:
        data = source.read(min(size, _COPY_BYTES))
        if not data:
            raise CuratorError("a small tar is shorter than its index says")
        target.write(data)
        size -= len(data)


def _check_names(table: pa.Table) -> None:
    """Raise if a column has a name that the index needs, since its values would be lost silently."""
    taken = [name for name in (*_PLACES, SOURCE_SHARD, _START, _END) if name in table.column_names and name != SHARD]
    if taken:
        raise UsageError(
            f"ImageWriter: the index needs {', '.join(map(repr, taken))} for the location of images, but the batch "
            "already has a column of that name: put RenameColumns or DropColumns before"
        )


def _index(
    table: pa.Table,
    kept: list[int],
    written: Sequence[_Sample],
    places: Mapping[str, list[Any]],
    sidecars: Mapping[str, str],
) -> pa.Table:
    rows = table if len(kept) == table.num_rows else table.take(array(kept, pa.int64()))
    drop = {BYTES, *PICTURES, EXT, *_binary_members(rows, written, sidecars)}
    columns: dict[str, Any] = {KEY: rows.column(KEY)}
    kinds = (pa.string(), pa.string(), pa.int64(), pa.int64())
    for what, kind in zip(_PLACES, kinds, strict=True):
        columns[what] = array(places[what], kind)
    if SHARD in rows.column_names:
        columns[SOURCE_SHARD] = rows.column(SHARD)
    columns[EXT] = array([sample.ext for sample in written], pa.string())
    made_anew = _facts(written)
    for name in rows.column_names:
        if name not in drop and name not in columns:
            columns[name] = made_anew.get(name, rows.column(name))
    for what in (_START, _END):
        columns[what] = array(places[what], pa.int64())
    return pa.table(columns)


def _facts(written: Sequence[_Sample]) -> dict[str, pa.Array]:
    """The columns that describe the tar's content: the members, and the format and size of images that were encoded
    again.
    """
    members = array([[ext for ext, _ in sample.members] for sample in written], pa.list_(pa.string()))
    headers = [sample.header for sample in written if sample.header is not None]
    if len(headers) < len(written):
        return {MEMBERS: members}
    return {
        MEMBERS: members,
        FORMAT: array([header.format for header in headers], pa.string()),
        WIDTH: array([header.width for header in headers], pa.int32()),
        HEIGHT: array([header.height for header in headers], pa.int32()),
    }


def _binary_members(rows: pa.Table, written: Sequence[_Sample], sidecars: Mapping[str, str]) -> set[str]:
    """The columns of bytes that the tar already contains."""
    names = set(rows.column_names)
    members = {sidecars.get(ext) or _member_column(ext, names) for sample in written for ext, _ in sample.members}
    kinds = {name: rows.schema.field(name).type for name in members & names}
    return {name for name, kind in kinds.items() if pa.types.is_binary(kind) or pa.types.is_large_binary(kind)}


def _together(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """One schema for all parts: a column that some of them lack is null there."""
    merged = pa.unify_schemas([schema.remove_metadata() for schema in schemas], promote_options="permissive")
    return pa.schema([f for f in merged if f.name not in (_START, _END)])


def _write_index(path: str, tables: Sequence[pa.Table], schema: pa.Schema, compression: str) -> FileRecord:
    import pyarrow.parquet as pq

    with storage.write_atomic(path) as out:
        pq.write_table(pa.concat_tables(tables) if tables else schema.empty_table(), out, compression=compression)
    return out.record()
