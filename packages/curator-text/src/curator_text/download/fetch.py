"""Fetch files by URL: what is there already is not fetched again, what broke off goes on where it was, and what cannot
be had is told.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import hashlib
import http.client
import json
import math
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from curator_core.errors import UsageError
from curator_core.model.lineage import source_id
from curator_core.model.stage import CompositeStage, ProcessingStage, SourceStage
from curator_core.model.task import EmptyTask, FileGroupTask, FileRecord
from curator_core.stages.files import parse_bytes
from curator_core.storage import is_local, local_path, read_bytes

COMMON_CRAWL = "https://data.commoncrawl.org/"
_CHUNK = 1 << 20
_SAFE = re.compile(r"[^A-Za-z0-9._-]+")
# What is worth asking for again: the server is busy, or something on the way is.
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_SNAPSHOT = re.compile(r"CC-MAIN-\d{4}-\d{2}")


class NotFetched(Exception):
    """A file that could not be had, and why."""

    def __init__(self, reason: str, message: str, again: bool = False, wait_s: float = 0.0) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message
        self.again = again
        self.wait_s = wait_s


@dataclass(kw_only=True)
class UrlSource(SourceStage[FileGroupTask]):
    """Names the URLs to fetch, each a source; none is asked for yet."""

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
        _check_limit(self.limit)

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

    urls: Sequence[str] | str = ()
    snapshot: str
    kind: str = "warc"
    base_url: str = COMMON_CRAWL

    def __post_init__(self) -> None:
        if not isinstance(self.snapshot, str) or not _SNAPSHOT.fullmatch(self.snapshot):
            raise UsageError(f"CommonCrawlDownload.snapshot is named like 'CC-MAIN-2024-10', not {self.snapshot!r}")
        if self.kind not in ("warc", "wet", "wat"):
            raise UsageError(f"CommonCrawlDownload.kind must be warc, wet or wat, not {self.kind!r}")
        _check_urls([self.base_url])
        _check_limit(self.limit)

    def _all(self) -> list[str]:
        base = self.base_url.rstrip("/") + "/"
        listing = f"{base}crawl-data/{self.snapshot}/{self.kind}.paths.gz"
        try:
            with urllib.request.urlopen(_request(listing), timeout=60) as answer:  # noqa: S310 - http(s) by base_url
                names = gzip.decompress(answer.read()).decode("utf-8").split()
        except (OSError, EOFError) as error:
            raise UsageError(f"the list of files {listing!r} could not be read: {error}") from error
        return [base + name for name in names]


@dataclass(kw_only=True)
class Fetch(ProcessingStage[FileGroupTask, FileGroupTask]):
    """Fetches the URLs of a task into a folder; see `UrlDownload`."""

    path: str
    tries: int = 5
    timeout_s: float = 60.0
    wait_s: float = 1.0
    max_bytes: int | str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path or not is_local(self.path):
            raise UsageError(
                f"a download's path must be a local folder, not {self.path!r}: half a file must be able to stay"
            )
        numbers = (self.tries, self.timeout_s, self.wait_s)
        if not all(isinstance(n, int | float) for n in numbers) or not (
            self.tries >= 1 and 0 < self.timeout_s < math.inf and 0 <= self.wait_s < math.inf
        ):
            raise UsageError(
                "a download needs tries of 1 or more, a timeout_s above 0 and a wait_s of 0 or more, not "
                f"tries={self.tries!r}, timeout_s={self.timeout_s!r}, wait_s={self.wait_s!r}"
            )
        self._max_bytes = None if self.max_bytes is None else parse_bytes(self.max_bytes, "a download's max_bytes")

    def output_folder(self) -> str:
        return self.path

    def process(self, task: FileGroupTask) -> FileGroupTask | None:
        records: list[FileRecord] = []
        for url in task.data:
            target = Path(local_path(self.path)) / f"{task.task_id or source_id('url', [url])}.{_file_name(url)}"
            try:
                record = self._fetched(url, target)
            except NotFetched as why:
                self.record_rejected(why.reason, source=url, message=why.message)
                continue
            self.record_output(record)
            records.append(record)
        if not records:
            return None
        return FileGroupTask(data=[record.path for record in records], records=records, dataset_name=task.dataset_name)

    def _fetched(self, url: str, target: Path) -> FileRecord:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            self.record_metric("already_there", 1)
            return _record(target)
        part = target.with_name(f".{target.name}.part")
        with _alone_with(part):
            if target.exists():  # another run has fetched it while this one waited
                self.record_metric("already_there", 1)
                return _record(target)
            for attempt in range(1, self.tries + 1):
                try:
                    self._attempt(url, part)
                    break
                except NotFetched as why:
                    if not why.again or attempt == self.tries:
                        raise
                    self.record_metric("tried_again", 1)
                    time.sleep(why.wait_s or self.wait_s * 2 ** (attempt - 1))
            _tag_file(part).unlink(missing_ok=True)
            part.replace(target)
        record = _record(target)
        self.record_metric("bytes", record.bytes)
        return record

    def _attempt(self, url: str, part: Path) -> None:
        """Fetch what is missing of a file, behind what is there; raises `NotFetched`."""
        if not _is_web(url):  # urllib would open a file of this machine as well
            raise NotFetched("wrong URL", "it is no http or https URL")
        have = part.stat().st_size
        tag = _read_tag(part)
        headers = {}
        if have and tag:
            # The tag makes sure that it is still the same file; a server that has another one sends all of it.
            headers = {"Range": f"bytes={have}-", "If-Range": tag}
        try:
            with urllib.request.urlopen(_request(url, headers), timeout=self.timeout_s) as answer:  # noqa: S310 - checked
                resumed = answer.status == 206 and _begins_at(answer.headers.get("Content-Range"), have)
                if answer.status == 206 and not resumed:
                    os.truncate(part, 0)
                    raise NotFetched(
                        "wrong range", f"asked from byte {have}: {answer.headers.get('Content-Range')}", True
                    )
                announced = answer.length  # None where the server does not say, or says nonsense
                total = (have if resumed else 0) + announced if announced is not None else None
                self._check_size(total)
                if not resumed:
                    have = 0
                    _write_tag(part, answer.headers.get("ETag") or answer.headers.get("Last-Modified"))
                with part.open("ab" if resumed else "wb") as out:
                    while chunk := answer.read(_CHUNK):
                        out.write(chunk)
                        have += len(chunk)
                        self._check_size(have)
                if total is not None and have != total:
                    raise NotFetched("broken off", f"{have} of {total} bytes came", True)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # what is there is not the beginning of what they have
                os.truncate(part, 0)
                raise NotFetched("wrong range", str(error), True) from error
            raise NotFetched(
                f"HTTP {error.code}", str(error), error.code in _AGAIN, _seconds(error.headers.get("Retry-After"))
            ) from error
        except (http.client.InvalidURL, UnicodeError) as error:
            raise NotFetched("wrong URL", str(error)) from error
        except http.client.IncompleteRead as error:
            raise NotFetched("broken off", str(error), True) from error
        except (
            urllib.error.URLError,
            TimeoutError,
            ConnectionError,
            ssl.SSLError,
            http.client.HTTPException,
        ) as error:
            raise NotFetched("no connection", str(error), True) from error

    def _check_size(self, size: int | None) -> None:
        if self._max_bytes is not None and size is not None and size > self._max_bytes:
            raise NotFetched("file too large", f"{size} bytes, and max_bytes is {self.max_bytes}")


@dataclass(kw_only=True)
class UrlDownload(CompositeStage[EmptyTask, FileGroupTask]):
    """Fetches files into the local folder ``path``, for a reader's stage behind it (``WarcRead``, ``JsonlRead``).

    ``urls`` is a list, or the path of a file with one in each line, from where you are. A file that is there is not fetched again; one that
    broke off goes on where it was, if the server can and still has the same file. A busy server is asked up to ``tries``
    times, after ``wait_s`` and then twice as long each time, or when it says. What could not be had is set aside with
    its URL and the reason.
    """

    maybe_paths = ("urls",)

    urls: Sequence[str] | str
    path: str
    limit: int | None = None
    tries: int = 5
    timeout_s: float = 60.0
    wait_s: float = 1.0
    max_bytes: int | str | None = None

    def __post_init__(self) -> None:
        self.decompose()

    def decompose(self) -> list[ProcessingStage[Any, Any]]:
        return [UrlSource(urls=self.urls, limit=self.limit), _fetch(self)]


@dataclass(kw_only=True)
class CommonCrawlDownload(CompositeStage[EmptyTask, FileGroupTask]):
    """Fetches the files of a Common Crawl ``snapshot`` (``CC-MAIN-2024-10``) into a folder, as `UrlDownload` does.

    ``kind`` is ``warc``, ``wet`` or ``wat``; ``limit`` takes the first so many files.
    """

    snapshot: str
    path: str
    kind: str = "warc"
    limit: int | None = None
    base_url: str = COMMON_CRAWL
    tries: int = 5
    timeout_s: float = 60.0
    wait_s: float = 1.0
    max_bytes: int | str | None = None

    def __post_init__(self) -> None:
        self.decompose()

    def decompose(self) -> list[ProcessingStage[Any, Any]]:
        source = CommonCrawlSource(snapshot=self.snapshot, kind=self.kind, limit=self.limit, base_url=self.base_url)
        return [source, _fetch(self)]


def _fetch(stage: Any) -> Fetch:
    return Fetch(
        path=stage.path,
        tries=stage.tries,
        timeout_s=stage.timeout_s,
        wait_s=stage.wait_s,
        max_bytes=stage.max_bytes,
    )


def _check_urls(urls: Sequence[Any]) -> None:
    for url in urls:
        if not _is_web(url):
            raise UsageError(f"{url!r} is no http or https URL")


def _is_web(url: Any) -> bool:
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        return parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:  # an address in brackets that is none
        return False


def _check_limit(limit: Any) -> None:
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise UsageError(f"a download's limit must be a whole number of 1 or more, not {limit!r}")


def _request(url: str, headers: dict[str, str] | None = None) -> urllib.request.Request:
    # What is beyond ASCII, and blanks, as browsers send them.
    url = quote(url, safe="%/:=&?~#+!$,;'@()*[]|")
    return urllib.request.Request(url, headers={"User-Agent": "curator-text", **(headers or {})})  # noqa: S310 - checked


def _file_name(url: str) -> str:
    path = urlsplit(url).path if _is_web(url) else url
    name = _SAFE.sub("_", path.rstrip("/").rpartition("/")[2]).lstrip(".")
    return name[-100:] or "file"


def _begins_at(content_range: str | None, position: int) -> bool:
    return bool(content_range and content_range.startswith(f"bytes {position}-"))


def _seconds(text: str | None) -> float:
    return min(float(text), 300.0) if text and text.isdigit() else 0.0


@contextlib.contextmanager
def _alone_with(part: Path) -> Iterator[None]:
    """Half a file, made if it is not there, that no other run or worker writes at the same time; an empty one goes."""
    while True:
        held = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(held, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                    raise  # some network file systems have no locks: there one run at a time is the user's care
            if _is_called(held, part):  # not what the one before us has put under its final name
                break
        except BaseException:
            os.close(held)
            raise
        os.close(held)
    try:
        yield
    finally:
        if _is_called(held, part) and not os.fstat(held).st_size:
            part.unlink()
            _tag_file(part).unlink(missing_ok=True)
        os.close(held)


def _is_called(held: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(held), path.stat())
    except FileNotFoundError:
        return False


def _tag_file(part: Path) -> Path:
    return part.with_suffix(".tag")


def _write_tag(part: Path, tag: str | None) -> None:
    # A weak tag does not promise the same bytes.
    if tag and not tag.startswith("W/"):
        _tag_file(part).write_text(json.dumps(tag), "utf-8")
    else:
        _tag_file(part).unlink(missing_ok=True)


def _read_tag(part: Path) -> str | None:
    try:
        tag = json.loads(_tag_file(part).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return tag if isinstance(tag, str) else None


def _record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(str(path), 0, path.stat().st_size, digest)
