"""`ImageDownload` turns lists of addresses into WebDataset tars, with one status row for every address."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet

from curator_core import storage
from curator_core.arrow.arrays import array
from curator_core.download import PASSING, Client, FetchRules, InOrder, Outcome, Reason
from curator_core.errors import UsageError, check_whole
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.stage import ANY_COLUMNS, CompositeStage, ProcessingStage
from curator_core.model.task import DocumentBatch, EmptyTask, FileRecord
from curator_core.stages.files import FilePartitioning, checked_paths
from curator_image.batch import BYTES, CAPTION, EXT, FORMAT, HEIGHT, KEY, MEMBERS, SHARD, WIDTH, ImageBatch
from curator_image.decode.probe import MAX_PIXELS, BadImage, probe
from curator_image.download.picture import PictureSink
from curator_image.download.urls import EXTENSIONS, UrlListRead
from curator_image.tar.read import Member, read_tar
from curator_image.tar.write import END, padding, tar_header
from curator_image.writer import reencoded

OK = Reason.OK
CHECKSUM = "checksum differs"
NO_URL = "no url"
USER_AGENT = "curator-image/0.1 (image download)"
STATUS_SUFFIX = ".status.parquet"

# The schema of status rows, which document a download. They do not depend on when a shard is downloaded.
STATUS = pa.schema(
    [
        pa.field(KEY, pa.string()),
        pa.field("url", pa.string()),
        pa.field("status", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("message", pa.string()),
        pa.field("http_status", pa.int16()),
        pa.field("attempts", pa.int16()),
        pa.field("final_url", pa.string()),
        pa.field("content_type", pa.string()),
        pa.field("received_bytes", pa.int64()),
        pa.field("sha256", pa.string()),
        pa.field(FORMAT, pa.string()),
        pa.field(EXT, pa.string()),
        pa.field(WIDTH, pa.int32()),
        pa.field(HEIGHT, pa.int32()),
    ]
)
# Columns of images and fields of the json member that a download adds; columns of the list with these names are
# renamed.
_ADDED = (KEY, "url", SHARD, EXT, FORMAT, WIDTH, HEIGHT, MEMBERS, BYTES, "sha256")
_REQUEST, _TAR = b"curator.download.request", b"curator.download.tar"
_EXT = {"jpeg": "jpg", "tiff": "tif"}


@dataclass(kw_only=True)
class ImageFetch(ProcessingStage[DocumentBatch, ImageBatch]):
    """Downloads the addresses of a batch into one tar; see `ImageDownload`."""

    tried_by_plan = False

    path: str
    url_column: str = "url"
    caption_column: str | None = None
    checksum_column: str | None = None
    max_side: int | None = None
    reencode: Literal["jpeg", "png", "webp"] | None = None
    quality: int = 90
    max_pixels: int = MAX_PIXELS
    retry_failed: bool = False
    keep_bytes: bool | None = None
    memory_bytes: int = 512 << 20
    concurrency: int = 64
    per_host: int = 4
    timeout_s: float = 20.0
    connect_timeout_s: float = 10.0
    retries: int = 2
    backoff_s: float = 1.0
    max_retry_after_s: float = 60.0
    max_bytes: int = 32 << 20
    max_redirects: int = 5
    allow_private: bool | Sequence[str] = False
    respect_opt_out: bool = True
    user_agent: str = USER_AGENT

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path:
            raise UsageError(f"{type(self).__name__}.path must be a folder or a URL, not {self.path!r}")
        if self.max_side is not None and self.reencode is None:
            raise UsageError(
                f"{type(self).__name__}.max_side changes images, so it needs reencode='jpeg' (or png, webp)"
            )
        if self.reencode not in (None, "jpeg", "png", "webp"):
            raise UsageError(f"{type(self).__name__}.reencode must be jpeg, png or webp, not {self.reencode!r}")
        check_whole(f"{type(self).__name__}.max_side", self.max_side, optional=True)
        for name in ("quality", "max_pixels", "memory_bytes", "max_bytes"):
            check_whole(f"{type(self).__name__}.{name}", getattr(self, name))
        self.rules()
        self._gives_bytes = self.keep_bytes is not False
        self._client: Client | None = None

    def rules(self) -> FetchRules:
        """The limits of requests, in the form that the client expects."""
        names = [field.name for field in fields(FetchRules)]
        return FetchRules(**{name: getattr(self, name) for name in names if hasattr(self, name)})

    def output_folder(self) -> str:
        return self.path

    def inputs(self) -> list[str]:
        return [name for name in (self.url_column, self.caption_column, self.checksum_column) if name]

    def outputs(self) -> list[str]:
        made = [KEY, SHARD, EXT, FORMAT, WIDTH, HEIGHT, MEMBERS, "sha256"]
        return [*made, *([BYTES] if self._gives_bytes else []), *([CAPTION] if self.caption_column else [])]

    def needed_by(self, columns: frozenset[str]) -> ImageFetch:
        """Pass images on only if a later stage reads them; the tars contain them in any case."""
        twin = self.with_()
        if self.keep_bytes is None:
            twin._gives_bytes = BYTES in columns
        return twin

    def setup(self, worker: WorkerMetadata) -> None:
        """Open the connections."""
        self._client = Client(self.rules(), accept="image/*,*/*;q=0.5")

    def teardown(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def process(self, task: DocumentBatch) -> ImageBatch | None:
        """The downloaded images as a batch; the tar and its status rows are written when this returns."""
        table = self._renamed(task.to_pyarrow())
        name = task.task_id or "part"
        asked = self._asked(table, name)
        request = self._request(asked)
        tar, status = storage.join(self.path, f"{name}.tar"), storage.join(self.path, f"{name}{STATUS_SUFFIX}")
        before = _Earlier.load(tar, status, request)
        again = before is not None and self.retry_failed and before.may_work_now()
        if before is None or again:
            rows, images = self._download(asked, before, tar, status, request)
        else:
            rows = before.rows
            images = list(before.images(self._gives_bytes)) if before.count else []
            self.record_metric("shards_found_done", 1)
            self.record_output(before.tar)
            self.record_output(before.status)
        for row in rows:
            if row["status"] != OK:
                self.record_dropped(row["reason"])
        return self._batch(task, table, rows, images)

    def _renamed(self, table: pa.Table) -> pa.Table:
        """The list, with the prefix ``list_`` for columns that have the name of a column of the download."""
        own = {self.url_column, self.caption_column, self.checksum_column}
        added = {*_ADDED, CAPTION} if self.caption_column else set(_ADDED)
        names = [f"list_{name}" if name in added - own else name for name in table.column_names]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError(
                f"the list has two columns that would be called {twice!r}: the download adds "
                f"{twice.removeprefix('list_')!r}, so the column of the list is renamed. Rename one of the two, or "
                "name the columns to keep in `columns`"
            )
        return table.rename_columns(names)

    # One shard ----------------------------------------------------------------------------------------------------

    def _asked(self, table: pa.Table, name: str) -> list[_Asked]:
        urls = table.column(self.url_column).to_pylist()
        captions = table.column(self.caption_column).to_pylist() if self.caption_column else [None] * len(urls)
        sums = table.column(self.checksum_column).to_pylist() if self.checksum_column else [None] * len(urls)
        named = {self.url_column, self.caption_column, self.checksum_column}
        others = table.select([column for column in table.column_names if column not in named]).to_pylist()
        base = name.replace(".", "_")
        return [
            _Asked(f"{base}_{row:05d}", url, caption, checksum, other)
            for row, (url, caption, checksum, other) in enumerate(
                zip(urls, captions, sums, others or [{}] * len(urls), strict=True)
            )
        ]

    def _request(self, asked: Sequence[_Asked]) -> str:
        """A hash of the list and of the options that determine the stored bytes; only a shard with the same hash is
        reused.
        """
        settings = [self.max_side, self.reencode, self.quality, self.max_pixels, self.max_bytes, self.respect_opt_out]
        digest = hashlib.sha256(json.dumps(settings).encode())
        for item in asked:
            digest.update(
                json.dumps([item.key, item.url, item.caption, item.checksum, item.other], default=str).encode()
            )
        return digest.hexdigest()

    def _download(
        self, asked: Sequence[_Asked], before: _Earlier | None, tar: str, status: str, request: str
    ) -> tuple[list[dict[str, Any]], list[bytes]]:
        assert self._client is not None, "setup() comes before process()"
        done = before.keep(asked) if before else {}
        wanted = [item for item in asked if item.key not in done and item.url]
        urls = [str(item.url) for item in wanted]
        outcomes = iter(InOrder(self._client, urls, memory_bytes=self.memory_bytes, sink=PictureSink))
        earlier = before.samples() if before else iter(())
        rows: list[dict[str, Any]] = []
        images: list[bytes] = []
        with storage.write_atomic(tar) as out:
            for item in asked:
                if item.key in done:
                    row = done[item.key]
                    data = next(earlier)[1] if row["status"] == OK else b""
                elif not item.url:
                    row, data = _row(item, Outcome("", NO_URL, "the address is missing", attempts=0)), b""
                else:
                    row, data = self._judged(item, next(outcomes))
                rows.append(row)
                if row["status"] == OK:
                    for member, body in _members(item, row, data):
                        out.write(tar_header(member, len(body)))
                        out.write(body)
                        out.write(padding(len(body)))
                    if self._gives_bytes:
                        images.append(data)
            out.write(END)
        record = out.record(rows=sum(row["status"] == OK for row in rows))
        meta = {_REQUEST: request.encode(), _TAR: json.dumps([record.rows, record.bytes, record.sha256]).encode()}
        with storage.write_atomic(status) as file:
            pyarrow.parquet.write_table(
                pa.Table.from_pylist(rows, schema=STATUS.with_metadata(meta)), file, compression="zstd"
            )
        self.record_output(record)
        self.record_output(file.record())
        self.record_metric("received_bytes", sum(row["received_bytes"] for row in rows))
        return rows, images

    def _judged(self, item: _Asked, outcome: Outcome) -> tuple[dict[str, Any], bytes]:
        """The status row of an outcome, and the image bytes to store."""
        row = _row(item, outcome)
        if not outcome.ok:
            return row, b""
        data = outcome.data
        if item.checksum and not _same_checksum(str(item.checksum), data):
            return {**row, "status": "failed", "reason": CHECKSUM, "message": f"the list says {item.checksum}"}, b""
        try:
            header = probe(data, max_pixels=self.max_pixels)
            if self.reencode is not None:  # done here, because the downloading thread must not wait
                data = reencoded(data, self.reencode, self.quality, self.max_side)
                header = probe(data, max_pixels=self.max_pixels)
        except BadImage as error:
            return {**row, "status": "failed", "reason": error.reason, "message": error.message}, b""
        ext = _EXT.get(header.format, header.format)
        return {**row, FORMAT: header.format, EXT: ext, WIDTH: header.width, HEIGHT: header.height}, data

    def _batch(
        self, task: DocumentBatch, table: pa.Table, rows: list[dict[str, Any]], images: list[bytes]
    ) -> ImageBatch | None:
        kept = array([row["status"] == OK for row in rows], pa.bool_())
        good = [row for row in rows if row["status"] == OK]
        if not good:
            return None
        given = table.filter(kept)
        texts = given.column(self.caption_column).to_pylist() if self.caption_column else [None] * len(good)
        columns: dict[str, pa.Array | pa.ChunkedArray] = {
            KEY: array([row[KEY] for row in good], pa.string()),
            SHARD: array([f"{task.task_id or 'part'}.tar"] * len(good), pa.string()),
            EXT: array([row[EXT] for row in good], pa.string()),
            FORMAT: array([row[FORMAT] for row in good], pa.string()),
            WIDTH: array([row[WIDTH] for row in good], pa.int32()),
            HEIGHT: array([row[HEIGHT] for row in good], pa.int32()),
            MEMBERS: array(
                [
                    [row[EXT], *(["txt"] if text is not None else []), "json"]
                    for row, text in zip(good, texts, strict=True)
                ],
                pa.list_(pa.string()),
            ),
        }
        if self._gives_bytes:
            columns[BYTES] = array(images, pa.binary())
        columns["sha256"] = array([row["sha256"] for row in good], pa.string())
        if self.caption_column:
            columns[CAPTION] = given.column(self.caption_column)
        for name in given.column_names:
            columns.setdefault(name, given.column(name))
        twin = ImageBatch(data=pa.table(columns), task_id=task.task_id, dataset_name=task.dataset_name)
        for field in fields(DocumentBatch):  # the run's own fields
            if field.name.startswith("_") and field.name != "_derived":
                setattr(twin, field.name, getattr(task, field.name))
        return twin

    # All shards ---------------------------------------------------------------------------------------------------

    def finish(self, outputs: Sequence[FileRecord]) -> list[FileRecord]:
        """Write ``summary.json`` with the number of addresses by outcome."""
        counts: dict[str, int] = {}
        for record in outputs:
            if record.path.endswith(STATUS_SUFFIX):
                with storage.open_input(record.path) as file:
                    for reason in pyarrow.parquet.read_table(file, columns=["reason"])["reason"].value_counts():
                        counts[reason["values"].as_py()] = (
                            counts.get(reason["values"].as_py(), 0) + reason["counts"].as_py()
                        )
        summary = {
            "urls": sum(counts.values()),
            "downloaded": counts.get(OK, 0),
            "by_reason": dict(sorted(counts.items())),
        }
        written = storage.write_bytes_atomic(
            storage.join(self.path, "summary.json"), json.dumps(summary, indent=2).encode() + b"\n"
        )
        return [*outputs, written]


@dataclass(kw_only=True)
class ImageDownload(CompositeStage[EmptyTask, ImageBatch]):
    """Downloads the images in lists of addresses into WebDataset tars under ``path``.

    ``paths``: Parquet, CSV, TSV or JSONL files (plain or gzipped) with a column of addresses, or text files with one
    address a line. Every ``urls_per_shard`` rows become one tar, ``<shard>.tar``, with the image, its caption (``txt``)
    and all other columns (``json``), and ``<shard>.status.parquet`` with one row per address: outcome and reason, HTTP
    status, attempts, redirects, size, SHA-256, format, width and height. Failures are counted by reason.

    A finished shard is not downloaded again when a run is resumed or repeated. With ``retry_failed``, only its
    addresses that failed for a temporary reason (timeout, DNS, connection, 429, 5xx) are tried again.

    One worker runs at most ``concurrency`` requests at a time, ``per_host`` of them to one host. Attempts that fail for
    a temporary reason are repeated up to ``retries`` times, after growing pauses, or after the pause in the server's
    ``Retry-After``. A response must be an image by its content type and its first bytes, with at most ``max_bytes`` and
    ``max_pixels``. Private addresses are refused after name resolution, also in redirects; ``allow_private`` allows all
    of them, or the networks that it lists. ``X-Robots-Tag: noai`` and similar headers are respected unless
    ``respect_opt_out`` is off. Images are stored as received; ``reencode`` and ``max_side`` convert and shrink them.
    """

    paths: str | Sequence[str]
    path: str
    url_column: str = "url"
    caption_column: str | None = None
    checksum_column: str | None = None
    columns: Sequence[str] | None = None
    urls_per_shard: int = 1000
    max_side: int | None = None
    reencode: Literal["jpeg", "png", "webp"] | None = None
    quality: int = 90
    max_pixels: int = MAX_PIXELS
    retry_failed: bool = False
    memory_bytes: int = 512 << 20
    concurrency: int = 64
    per_host: int = 4
    timeout_s: float = 20.0
    connect_timeout_s: float = 10.0
    retries: int = 2
    backoff_s: float = 1.0
    max_retry_after_s: float = 60.0
    max_bytes: int = 32 << 20
    max_redirects: int = 5
    allow_private: bool | Sequence[str] = False
    respect_opt_out: bool = True
    user_agent: str = USER_AGENT

    def __post_init__(self) -> None:
        checked_paths("ImageDownload.paths", self.paths)
        self.decompose()

    def decompose(self) -> list[ProcessingStage[Any, Any]]:
        listed = {"paths", "columns", "urls_per_shard"}
        shared = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in listed}
        columns = None
        if self.columns is not None:
            columns = [*self.columns, *([self.checksum_column] if self.checksum_column else [])]
        return [
            FilePartitioning(paths=self.paths, extensions=list(EXTENSIONS)),
            UrlListRead(
                url_column=self.url_column,
                caption_column=self.caption_column,
                columns=columns,
                urls_per_shard=self.urls_per_shard,
            ),
            ImageFetch(**shared),
        ]

    def outputs(self) -> list[str]:
        return [KEY, SHARD, EXT, FORMAT, WIDTH, HEIGHT, MEMBERS, "sha256", ANY_COLUMNS]


@dataclass(frozen=True, slots=True)
class _Asked:
    """One row of a list."""

    key: str
    url: str | None
    caption: str | None
    checksum: str | None
    other: Mapping[str, Any]


@dataclass(frozen=True)
class _Earlier:
    """A finished shard of an earlier attempt at the same request."""

    rows: list[dict[str, Any]]
    tar: FileRecord
    status: FileRecord
    count: int

    @classmethod
    def load(cls, tar: str, status: str, request: str) -> _Earlier | None:
        """The shard, or None if it is missing, belongs to another request, or is not consistent."""
        if not (storage.exists(status) and storage.exists(tar)):
            return None
        with storage.open_input(status) as file:
            data = file.read()
        try:
            table = pyarrow.parquet.read_table(pa.BufferReader(data))
        except pa.ArrowInvalid:
            return None
        meta = table.schema.metadata or {}
        if meta.get(_REQUEST) != request.encode() or _TAR not in meta:
            return None
        count, size, digest = json.loads(meta[_TAR])
        if storage.info(tar).size != size:
            return None
        status_record = FileRecord(status, 0, len(data), hashlib.sha256(data).hexdigest())
        return cls(table.to_pylist(), FileRecord(tar, count, size, digest), status_record, count)

    def may_work_now(self) -> bool:
        """Whether an address in the shard failed for a temporary reason."""
        return any(row["reason"] in PASSING for row in self.rows)

    def keep(self, asked: Sequence[_Asked]) -> dict[str, dict[str, Any]]:
        """The rows that need no new attempt, by key."""
        assert len(asked) == len(self.rows)
        return {row[KEY]: row for row in self.rows if row["reason"] not in PASSING}

    def samples(self) -> Iterator[tuple[str, bytes]]:
        """Key and image of every sample of the tar, in order."""
        wanted = {f"{row[KEY]}.{row[EXT]}": row[KEY] for row in self.rows if row["status"] == OK}
        with storage.open_input(self.tar.path) as stream:
            for member in read_tar(stream):
                if isinstance(member, Member) and member.name in wanted:
                    yield wanted[member.name], member.data

    def images(self, wanted: bool) -> Iterator[bytes]:
        """The images in order, or none if they are not wanted."""
        if wanted:
            yield from (data for _, data in self.samples())


def _row(item: _Asked, outcome: Outcome) -> dict[str, Any]:
    return {
        KEY: item.key,
        "url": item.url,
        "status": OK if outcome.ok else "failed",
        "reason": outcome.reason,
        "message": outcome.message.encode("utf-8", "replace").decode()[:500],
        "http_status": outcome.http_status,
        "attempts": outcome.attempts,
        "final_url": outcome.final_url or None,
        "content_type": outcome.content_type or None,
        "received_bytes": len(outcome.data),
        "sha256": outcome.sha256 or None,
        FORMAT: None,
        EXT: None,
        WIDTH: None,
        HEIGHT: None,
    }


def _members(item: _Asked, row: Mapping[str, Any], data: bytes) -> Iterator[tuple[str, bytes]]:
    yield f"{item.key}.{row[EXT]}", data
    if item.caption is not None:
        yield f"{item.key}.txt", str(item.caption).encode("utf-8", "replace")
    about = {KEY: item.key, "url": item.url, WIDTH: row[WIDTH], HEIGHT: row[HEIGHT], "sha256": row["sha256"]}
    text = json.dumps({**item.other, **about}, ensure_ascii=False, sort_keys=True, default=str)
    yield f"{item.key}.json", text.encode("utf-8", "replace")


def _same_checksum(expected: str, data: bytes) -> bool:
    """Whether the data has this MD5, SHA-1 or SHA-256 (distinguished by length); this detects damage, not forgery."""
    kinds = {32: "md5", 40: "sha1", 64: "sha256"}
    kind = kinds.get(len(expected.strip()))
    if kind is None:
        raise UsageError(f"a checksum is 32 (MD5), 40 (SHA-1) or 64 (SHA-256) hex digits, not {expected!r}")
    return hashlib.new(kind, data, usedforsecurity=False).hexdigest() == expected.strip().lower()
