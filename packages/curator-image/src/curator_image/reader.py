"""Reading images: WebDataset tars, folders of image files, Parquet with a column of bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curator_core import storage
from curator_core.errors import UsageError
from curator_core.model.engine_facts import RayStageSpecKeys
from curator_core.model.resources import Resources
from curator_core.model.stage import ANY_COLUMNS, CompositeStage, FanOut, ProcessingStage
from curator_core.model.task import EmptyTask, FileGroupTask
from curator_core.stages.files import FilePartitioning, checked_paths
from curator_image.batch import (
    BYTES,
    CAPTION,
    KEY,
    PICTURES,
    ImageBatch,
)
from curator_image.decode.picture import Mode, Resample
from curator_image.decode.pictures import DecoderName
from curator_image.decode.probe import EXTENSIONS, MAX_PIXELS, MAX_SIDE, BadImage, Header, probe
from curator_image.decode.stage import ImageDecode
from curator_image.samples import (
    FIXED,
    JSON_TYPES,
    NO_IMAGE,
    Bad,
    BadSidecar,
    Rows,
    Sample,
    group_members,
    split_name,
)
from curator_image.tar import read_tar

TARS = (".tar", ".tar.gz", ".tgz")
PARQUETS = (".parquet", ".pq")
IMAGES = tuple(f".{ext}" for ext in EXTENSIONS)
# How much of each reject is kept, and of all rejects of one source together: rejects wait in memory until it is read.
_RAW_BYTES = 64 << 10
_RAW_TOTAL = 16 << 20
_BATCH_BYTES = 2**31 - 1
_IMAGE_COLUMNS = (BYTES, "image", "img", "jpg", "image_bytes", "content")


@dataclass(kw_only=True)
class ImageRead(FanOut[FileGroupTask, ImageBatch]):
    """Reads the files of a task: batches of images with their headers checked, nothing decoded; see `ImageReader`."""

    images_per_batch: int = 128
    bytes_per_batch: int = 64 << 20
    json_fields: Mapping[str, str] | Sequence[str] = ()
    sidecars: Sequence[str] = ("txt", "json")
    bytes_column: str | None = None
    key_column: str | None = None
    roots: Sequence[str] = ()
    check_extension: bool = True
    max_member_bytes: int = 256 << 20
    max_pixels: int = MAX_PIXELS
    max_side: int = MAX_SIDE

    def __post_init__(self) -> None:
        for name in ("images_per_batch", "bytes_per_batch", "max_member_bytes", "max_pixels", "max_side"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{type(self).__name__}.{name} must be a whole number of 1 or more, not {value!r}")
        if self.bytes_per_batch + self.max_member_bytes > _BATCH_BYTES:
            raise UsageError(
                f"{type(self).__name__}: bytes_per_batch={self.bytes_per_batch:,} and max_member_bytes="
                f"{self.max_member_bytes:,} together may be {_BATCH_BYTES:,}, which is what a batch can hold"
            )
        self._fields = _json_fields(self.json_fields, type(self).__name__)
        if isinstance(self.sidecars, str):
            raise UsageError(f"{type(self).__name__}.sidecars must be a list such as [{self.sidecars!r}]")

    def outputs(self) -> list[str]:
        return [*FIXED, CAPTION, "json", *self._fields, ANY_COLUMNS]

    def process(self, task: FileGroupTask) -> Iterator[ImageBatch]:
        self._raw_left = _RAW_TOTAL
        rows = Rows(self._fields)
        for path in task.data:
            lowered = path.lower()
            if lowered.endswith(PARQUETS):
                yield from self._flush(rows, task)
                for table in self._parquet(path):
                    yield ImageBatch(data=table, dataset_name=task.dataset_name)
                continue
            single = lowered.endswith(IMAGES)
            for item in self._file(path) if single else self._tar(path):
                if isinstance(item, Bad):
                    self.record_read(1)
                    self._reject(item.reason, path, item.position, item.message, item.raw)
                    continue
                self.record_read(1)
                self._add(rows, item, storage.parent(path) if single else path, path)
                if len(rows) >= self.images_per_batch or rows.bytes >= self.bytes_per_batch:
                    yield from self._flush(rows, task)
        yield from self._flush(rows, task)

    def _flush(self, rows: Rows, task: FileGroupTask) -> Iterator[ImageBatch]:
        if len(rows):
            table = rows.table()
            rows.clear()
            yield ImageBatch(data=table, dataset_name=task.dataset_name)

    def _add(self, rows: Rows, sample: Sample, shard: str, source: str) -> None:
        ext = sample.image()
        if ext is None:
            text = f"the sample has only {', '.join(sample.members)}"
            self._reject(NO_IMAGE, source, sample.key, text, next(iter(sample.members.values())))
            return
        data = sample.members[ext]
        try:
            rows.add(sample.key, shard, ext, self._probe(data, ext), sample.members)
        except (BadImage, BadSidecar) as error:
            self._reject(error.reason, source, sample.key, error.message, data)

    def _probe(self, data: bytes, ext: str) -> Header:
        return probe(data, ext=ext if self.check_extension else "", max_pixels=self.max_pixels, max_side=self.max_side)

    def _reject(self, reason: str, source: str, position: str, message: str, raw: bytes, rows: int = 1) -> None:
        kept: bytes | None = raw[:_RAW_BYTES]
        if kept is None or len(kept) > self._raw_left:
            kept = None
        else:
            self._raw_left -= len(kept)
        self.record_rejected(reason, source=source, position=position, message=message, raw=kept, rows=rows)

    # Kinds of files ---------------------------------------------------------------------------------------------

    def _tar(self, path: str) -> Iterator[Sample | Bad]:
        with storage.open_input(path) as stream:
            yield from group_members(read_tar(stream, max_member_bytes=self.max_member_bytes))

    def _file(self, path: str) -> Iterator[Sample | Bad]:
        """An image file, and the files that stand beside it under the same name."""
        size = storage.info(path).size
        if size > self.max_member_bytes:
            yield Bad("member too large", path, f"{size:,} bytes, more than {self.max_member_bytes:,}")
            return
        key, ext = split_name(self._relative(path))
        sample = Sample(key or storage.file_name(path), {ext: storage.read_bytes(path)})
        stem = path[: -len(ext) - 1]
        for other in self.sidecars:
            beside = f"{stem}.{other}"
            if storage.exists(beside) and storage.info(beside).size <= self.max_member_bytes:
                sample.members[other] = storage.read_bytes(beside)
        yield sample

    def _relative(self, path: str) -> str:
        full = storage.absolute(path)
        inside = [root for root in map(storage.absolute, self.roots) if full.startswith(root.rstrip("/") + "/")]
        name: str = storage.relative(full, max(inside, key=len)) if inside else storage.file_name(path)
        return name

    def _parquet(self, path: str) -> Iterator[pa.Table]:
        import pyarrow.parquet as pq

        with storage.open_input(path) as stream:
            try:
                file = pq.ParquetFile(stream)
            except pa.ArrowInvalid as error:
                self.record_read(1)
                self._reject("broken parquet", path, "footer", str(error), b"")
                return
            column = self._bytes_column(path, file.schema_arrow)
            first = 0
            for group in range(file.num_row_groups):
                # Row groups one by one: an image column may be large, and a broken one must not hide the others.
                row = first
                first += file.metadata.row_group(group).num_rows
                try:
                    for batch in file.iter_batches(self.images_per_batch, row_groups=[group]):
                        table = self._parquet_table(path, pa.Table.from_batches([batch]), column, row)
                        row += batch.num_rows
                        if table.num_rows:
                            yield table
                except (pa.ArrowInvalid, OSError) as error:
                    self.record_read(first - row)
                    self._reject("broken parquet", path, f"rows {row} to {first - 1}", str(error), b"", first - row)

    def _bytes_column(self, path: str, schema: pa.Schema) -> str:
        if self.bytes_column is not None:
            if self.bytes_column not in schema.names:
                raise UsageError(f"{path!r} has no column {self.bytes_column!r}; it has {', '.join(schema.names)}")
            return self.bytes_column
        for name in _IMAGE_COLUMNS:
            if name in schema.names:
                return name
        raise UsageError(
            f"{path!r} has no column {' or '.join(map(repr, _IMAGE_COLUMNS))}: name the one that holds the encoded "
            f"images with bytes_column. It has {', '.join(schema.names)}"
        )

    def _parquet_table(self, path: str, table: pa.Table, column: str, first: int) -> pa.Table:
        self.record_read(table.num_rows)
        images = table.column(column)
        if pa.types.is_struct(images.type):  # as Hugging Face datasets store images
            images = pa.chunked_array(
                [chunk.field("bytes") for chunk in images.chunks], images.type.field("bytes").type
            )
        key_column = self.key_column or (KEY if KEY in table.column_names else None)
        keys = table.column(key_column).cast(pa.string()).to_pylist() if key_column else None
        captions = table.column(CAPTION).to_pylist() if CAPTION in table.column_names else [None] * table.num_rows
        rows, good = Rows({}, ()), []
        for row, data in enumerate(images.to_pylist()):
            key = (keys[row] if keys else None) or f"{first + row:09d}"
            try:
                header = self._probe(data or b"", "")
            except BadImage as error:
                self._reject(error.reason, path, key, error.message, data or b"")
                continue
            ext = "jpg" if header.format == "jpeg" else header.format
            rows.add(key, path, ext, header, {ext: data} if captions[row] is None else {ext: data, "txt": b""})
            good.append(row)
        made = rows.table()
        if CAPTION in made.column_names:  # it was there for `members` alone
            made = made.drop_columns([CAPTION])
        rest = table.take(pa.array(good, pa.int64())) if len(good) < table.num_rows else table
        for name in rest.column_names:
            if name not in (column, key_column, *FIXED, *PICTURES):
                made = made.append_column(rest.schema.field(name), rest.column(name))
        if CAPTION not in made.column_names:
            made = made.append_column(CAPTION, pa.nulls(made.num_rows, pa.string()))
        if "json" not in made.column_names:
            made = made.append_column("json", pa.nulls(made.num_rows, pa.string()))
        return made


@dataclass(kw_only=True)
class ImageSources(FilePartitioning):
    """The sources of images: tars and Parquet files one by one, image files many together.

    A Parquet file beside a tar of its name (``00000.parquet``, ``00000.status.parquet``) is about the tar, as writers and
    downloaders leave it there, and is not a source.
    """

    files_per_group: int = 256

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        if self.files_per_partition == 1 and self.bytes_per_partition is None and self._holds_images():
            many = ImageSources(
                paths=self.paths,
                files_per_partition=self.files_per_group,
                bytes_per_partition="64MiB",
                extensions=self.extensions,
                recursive=self.recursive,
                limit=self.limit,
                dataset_name=self.dataset_name,
            )
            return many.process(task)
        return super().process(task)

    def _matches(self, entry: str) -> tuple[str, list[storage.FileInfo]]:
        base, found = super()._matches(entry)
        stems = (_stem(file.path, TARS) for file in found)
        tars = {stem for stem in stems if stem is not None}
        return base, [file for file in found if not _is_about_one(file.path, tars)]

    def _holds_images(self) -> bool:
        """Whether the first file is an image."""
        for _, file in self._files():
            return str(file.path).lower().endswith(IMAGES)
        return False


@dataclass
class ImageReader(CompositeStage[EmptyTask, ImageBatch]):
    """Reads images and everything that belongs to them, one row each.

    ``paths``: WebDataset tars (plain or gzipped), image files and folders of them, Parquet with a column of encoded
    images; a path, a folder, a pattern, or a list; local or any fsspec URL. Tars are streamed.

    Columns: ``key``, ``shard``, ``ext``, ``format``, ``width``, ``height`` (upright), ``members`` (the extensions of
    the sample), ``bytes`` (the original ones), ``caption`` (the ``txt`` member), ``json``, one for every other member,
    and one for each of ``json_fields``: names for text columns, or a mapping of names to ``string``, ``int``,
    ``float`` or ``bool``. Beside image files, those named alike with an extension of ``sidecars`` are read.

    ``pixels`` and ``thumb`` are added, by `ImageDecode`, if a later stage reads them. Images are decoded and resized
    in one go: see there for ``size``, ``mode``, ``resample``, ``thumb_size`` and ``decoder``. With ``decode=False``
    put an `ImageDecode` where you like, for example behind filters that need only the header.

    What is corrupt, cut short, empty, misnamed, too large or hostile goes to the rejects with its key and a reason.
    """

    paths: str | Sequence[str]
    size: int = 224
    mode: Mode = "crop"
    resample: Resample = "bicubic"
    thumb_size: int = 128
    decoder: DecoderName = "auto"
    decode: bool = True
    images_per_batch: int = 128
    bytes_per_batch: int = 64 << 20
    json_fields: Mapping[str, str] | Sequence[str] = ()
    sidecars: Sequence[str] = ("txt", "json")
    bytes_column: str | None = None
    key_column: str | None = None
    check_extension: bool = True
    max_member_bytes: int = 256 << 20
    max_pixels: int = MAX_PIXELS
    max_side: int = MAX_SIDE
    files_per_partition: int = 1
    bytes_per_partition: int | str | None = None
    recursive: bool = True
    limit: int | None = None
    dataset_name: str = ""

    def __post_init__(self) -> None:
        checked_paths("ImageReader.paths", self.paths)
        if not isinstance(self.decode, bool):
            raise UsageError(f"ImageReader.decode must be true or false, not {self.decode!r}")
        self.decompose()

    def ray_stage_spec(self) -> dict[str, Any]:
        return {RayStageSpecKeys.IS_FANOUT_STAGE: True, **super().ray_stage_spec()}

    def outputs(self) -> list[str]:
        return [name for stage in self.decompose()[1:] for name in stage.outputs()]

    def decompose(self) -> list[ProcessingStage[Any, Any]]:
        entries = [self.paths] if isinstance(self.paths, str) else list(self.paths)
        stages: list[ProcessingStage[Any, Any]] = [
            ImageSources(
                paths=self.paths,
                files_per_partition=self.files_per_partition,
                bytes_per_partition=self.bytes_per_partition,
                extensions=[*TARS, *PARQUETS, *IMAGES],
                recursive=self.recursive,
                limit=self.limit,
                dataset_name=self.dataset_name,
            ),
            ImageRead(
                images_per_batch=self.images_per_batch,
                bytes_per_batch=self.bytes_per_batch,
                json_fields=self.json_fields,
                sidecars=self.sidecars,
                bytes_column=self.bytes_column,
                key_column=self.key_column,
                roots=[_root(entry) for entry in entries],
                check_extension=self.check_extension,
                max_member_bytes=self.max_member_bytes,
                max_pixels=self.max_pixels,
                max_side=self.max_side,
            ),
        ]
        if self.decode:
            decode = ImageDecode(
                size=self.size,
                mode=self.mode,
                resample=self.resample,
                thumb_size=self.thumb_size,
                decoder=self.decoder,
                max_pixels=self.max_pixels,
                max_side=self.max_side,
            )
            stages.append(decode)
            if self.resources.requires_gpu:  # it is for decoding: who reads the tar needs none
                stages[1:] = [stages[1].with_(resources=Resources()), decode.with_(resources=self.resources)]
        return stages


def _stem(path: str, endings: tuple[str, ...]) -> str | None:
    lowered = path.lower()
    return next((path[: -len(ending)] for ending in endings if lowered.endswith(ending)), None)


def _is_about_one(path: str, tars: set[str]) -> bool:
    stem = _stem(path, PARQUETS)
    return stem is not None and (stem in tars or stem.rpartition(".")[0] in tars)


def _root(entry: str) -> str:
    """The folder that the keys of image files are relative to."""
    if storage.has_magic(entry):
        return str(storage.fixed_base(entry))
    return str(storage.parent(entry)) if entry.lower().endswith(IMAGES) else entry


def _json_fields(fields: Mapping[str, str] | Sequence[str], stage: str) -> dict[str, str]:
    if isinstance(fields, str):
        raise UsageError(f"{stage}.json_fields must be a list such as [{fields!r}], or a mapping of names to types")
    named = dict(fields) if isinstance(fields, Mapping) else dict.fromkeys(fields, "string")
    for name, kind in named.items():
        if kind not in JSON_TYPES:
            raise UsageError(f"{stage}.json_fields[{name!r}] must be one of {', '.join(JSON_TYPES)}, not {kind!r}")
        if name in (*FIXED, *PICTURES, CAPTION, "json"):
            raise UsageError(
                f"{stage}.json_fields: {name!r} is a column of its own; the field stays in the json column"
            )
    return named
