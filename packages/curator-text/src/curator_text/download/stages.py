"""The stages that download files by URL: one names the URLs, and one downloads their files to a folder."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from curator_core.download import Client, FetchRules, MemorySink, fetch_file
from curator_core.errors import UsageError, check_whole
from curator_core.model.engine_facts import WorkerMetadata
from curator_core.model.lineage import source_id
from curator_core.model.stage import CompositeStage, ProcessingStage, SourceStage
from curator_core.model.task import EmptyTask, FileGroupTask, FileRecord
from curator_core.stages.files import parse_bytes
from curator_core.stages.partitioned_reader import made_from
from curator_core.storage import is_local, local_path, read_bytes

COMMON_CRAWL = "https://data.commoncrawl.org/"
USER_AGENT = "curator-text/0.1"
# The limit for the list of a snapshot's files; current lists have a few megabytes, compressed.
_MAX_LISTING = 256 << 20
_SAFE = re.compile(r"[^A-Za-z0-9._-]+")
_SNAPSHOT = re.compile(r"CC-MAIN-\d{4}-\d{2}")


@dataclass(kw_only=True)
class UrlSource(SourceStage[FileGroupTask]):
    """Names the URLs to download; each is a source. It requests nothing itself."""

    urls: Sequence[str] | str
    limit: int | None = None

    def __post_init__(self) -> None:
        urls = self.urls
        if not isinstance(urls, str | list | tuple) or not urls:
            raise UsageError(f"urls must be a list of URLs, or the path of a file with one in each line, not {urls!r}")
        if isinstance(urls, str):
            if _is_web(urls):
                raise UsageError(
                    f"urls must be a list, such as [{urls!r}], or the path of a file with one in each line"
                )
        else:
            _check_urls(urls)
        check_whole("a download's limit", self.limit, optional=True)

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        for url in list(dict.fromkeys(self._all()))[: self.limit]:
            yield FileGroupTask(
                data=[url],
                task_id=source_id(_file_name(url).partition(".")[0], [url]),
                dataset_name=task.dataset_name,
                _generation="",
            )

    def _all(self) -> list[str]:
        urls = self.urls
        if isinstance(urls, str):
            lines = read_bytes(urls).decode("utf-8-sig", "replace").splitlines()
            urls = [line.strip() for line in lines if line.strip()]
        return list(urls)


@dataclass(kw_only=True)
class CommonCrawlSource(UrlSource):
    """Names the files of a Common Crawl snapshot, from its list of paths."""

    tried_by_plan = False

    urls: Sequence[str] | str = ()
    snapshot: str
    kind: str = "warc"
    base_url: str = COMMON_CRAWL
    allow_private: bool | Sequence[str] = False

    def __post_init__(self) -> None:
        if not isinstance(self.snapshot, str) or not _SNAPSHOT.fullmatch(self.snapshot):
            raise UsageError(
                f"CommonCrawlDownload.snapshot must be a name like 'CC-MAIN-2024-10', not {self.snapshot!r}"
            )
        if self.kind not in ("warc", "wet", "wat"):
            raise UsageError(f"CommonCrawlDownload.kind must be warc, wet or wat, not {self.kind!r}")
        _check_urls([self.base_url])
        check_whole("a download's limit", self.limit, optional=True)

    def _all(self) -> list[str]:
        base = self.base_url.rstrip("/") + "/"
        listing = f"{base}crawl-data/{self.snapshot}/{self.kind}.paths.gz"
        client = Client(FetchRules(timeout_s=60.0, allow_private=self.allow_private, user_agent=USER_AGENT))
        try:
            outcome = client.wait(client.fetch(listing, MemorySink(_MAX_LISTING)))
        finally:
            client.close()
        try:
            if outcome.ok:
                return [base + name for name in gzip.decompress(outcome.data).decode("utf-8").split()]
            why = f"{outcome.reason}: {outcome.message}"
        except (OSError, EOFError, UnicodeDecodeError) as error:
            why = str(error)
        raise UsageError(f"the list of files {listing!r} could not be read: {why}")


@dataclass(kw_only=True)
class Fetch(ProcessingStage[FileGroupTask, FileGroupTask]):
    """Downloads the URLs of a task to a folder; see `UrlDownload`."""

    tried_by_plan = False

    path: str
    retries: int = 4
    timeout_s: float = 60.0
    backoff_s: float = 1.0
    max_bytes: int | str | None = None
    allow_private: bool | Sequence[str] = False
    respect_opt_out: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path or not is_local(self.path):
            raise UsageError(
                f"a download's path must be a local folder, not {self.path!r}: partial files must be kept there"
            )
        self.rules()
        self._client: Client | None = None

    def rules(self) -> FetchRules:
        """The limits of the downloads: a file may take any amount of time as long as data keeps arriving."""
        return FetchRules(
            timeout_s=None,
            idle_timeout_s=self.timeout_s,
            connect_timeout_s=self.timeout_s,
            retries=self.retries,
            backoff_s=self.backoff_s,
            max_retry_after_s=300.0,
            max_bytes=None if self.max_bytes is None else parse_bytes(self.max_bytes, "a download's max_bytes"),
            allow_private=self.allow_private,
            respect_opt_out=self.respect_opt_out,
            user_agent=USER_AGENT,
        )

    def output_folder(self) -> str:
        return self.path

    def setup(self, worker: WorkerMetadata) -> None:
        """Open the connections."""
        self._client = Client(self.rules())

    def teardown(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def process(self, task: FileGroupTask) -> FileGroupTask | None:
        assert self._client is not None, "setup() comes before process()"
        records: list[FileRecord] = []
        for url in task.data:
            target = Path(local_path(self.path)) / f"{task.task_id or source_id('url', [url])}.{_file_name(url)}"
            outcome = fetch_file(self._client, url, target)
            if outcome is not None and outcome.attempts > 1:
                self.record_metric("tried_again", outcome.attempts - 1)
            if outcome is not None and not outcome.ok:
                self.record_rejected(outcome.reason, source=url, message=outcome.message)
                continue
            record = _record(target)
            self.record_metric(*(("already_there", 1) if outcome is None else ("bytes", record.bytes)))
            self.record_output(record)
            records.append(record)
        if not records:
            return None
        return FileGroupTask(data=[record.path for record in records], records=records, dataset_name=task.dataset_name)


@dataclass(kw_only=True)
class UrlDownload(CompositeStage[EmptyTask, FileGroupTask]):
    """Downloads files to the local folder ``path``, for a stage that reads them (``WarcRead``, ``JsonlRead``).

    ``urls`` is a list, or the path of a file with one in each line, relative to the current folder. An existing file is
    not downloaded again; a partial file is continued if the server supports that and still has the same file. If a
    server is busy, or silent for ``timeout_s``, the request is repeated up to ``retries`` times, after about
    ``backoff_s``, which doubles each time, or after the pause that the server requests. Private addresses are refused
    after name resolution, also in redirects; ``allow_private`` allows all of them, or the networks that it lists.
    ``X-Robots-Tag: noai`` and similar headers are respected unless ``respect_opt_out`` is off. A file that could not be
    downloaded is a reject with its URL and the reason.
    """

    maybe_paths = ("urls",)

    urls: Sequence[str] | str
    path: str
    limit: int | None = None
    retries: int = 4
    timeout_s: float = 60.0
    backoff_s: float = 1.0
    max_bytes: int | str | None = None
    allow_private: bool | Sequence[str] = False
    respect_opt_out: bool = True

    def __post_init__(self) -> None:
        self.decompose()

    def decompose(self) -> list[ProcessingStage[Any, Any]]:
        return [made_from(self.params(), UrlSource), made_from(self.params(), Fetch)]


@dataclass(kw_only=True)
class CommonCrawlDownload(CompositeStage[EmptyTask, FileGroupTask]):
    """Downloads the files of a Common Crawl ``snapshot`` (``CC-MAIN-2024-10``) to a folder, as `UrlDownload` does.

    ``kind`` is ``warc``, ``wet`` or ``wat``; ``limit`` is the number of files to take.
    """

    snapshot: str
    path: str
    kind: str = "warc"
    limit: int | None = None
    base_url: str = COMMON_CRAWL
    retries: int = 4
    timeout_s: float = 60.0
    backoff_s: float = 1.0
    max_bytes: int | str | None = None
    allow_private: bool | Sequence[str] = False
    respect_opt_out: bool = True

    def __post_init__(self) -> None:
        self.decompose()

    def decompose(self) -> list[ProcessingStage[Any, Any]]:
        return [made_from(self.params(), CommonCrawlSource), made_from(self.params(), Fetch)]


def _check_urls(urls: Sequence[Any]) -> None:
    for url in urls:
        if not _is_web(url):
            raise UsageError(f"{url!r} is not an http or https URL")


def _is_web(url: Any) -> bool:
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        return parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:  # the brackets contain no valid address
        return False


def _file_name(url: str) -> str:
    path = urlsplit(url).path if _is_web(url) else url
    name = _SAFE.sub("_", path.rstrip("/").rpartition("/")[2]).lstrip(".")
    return name[-100:] or "file"


def _record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(str(path), 0, path.stat().st_size, digest)
