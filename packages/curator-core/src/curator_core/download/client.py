"""How is an address fetched? Redirects, limits, retries, pauses that hosts ask for, and one word for the outcome.

A `Client` runs an event loop in its own thread and keeps connections, resolved names and pauses from one list to the
next. A `Sink` receives the answer and keeps it in memory or writes it to a file.
"""

from __future__ import annotations

import asyncio
import email.utils
import hashlib
import socket
import threading
import time
import zlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from curator_core.download.networks import allowed
from curator_core.download.rules import (
    OPT_OUT,
    PASSING,
    Failed,
    FetchRules,
    NotFetched,
    Reason,
    Refused,
    check_address,
    check_url,
    opt_out,
)
from curator_core.errors import MissingDependency

_REDIRECT_STATUS = frozenset({301, 302, 303, 307, 308})
_CHUNK = 256 << 10


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an answer. ``length`` is the number of bytes that follow, None if the server does not say."""

    url: str
    status: int
    headers: Mapping[str, str]
    length: int | None

    @property
    def content_type(self) -> str:
        """The type, such as ``image/png``, without parameters; empty if the server does not say."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one address. ``http_status`` is the status of the last answer, None if no server answered."""

    url: str
    reason: str
    message: str = ""
    data: bytes = b""
    final_url: str = ""
    http_status: int | None = None
    content_type: str = ""
    attempts: int = 1

    @property
    def ok(self) -> bool:
        return self.reason == Reason.OK

    @property
    def sha256(self) -> str:
        """The hash of the data received, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest() if self.data else ""


class Sink(ABC):
    """Receives the answer for one address. The client calls the methods in its own thread, again for each attempt.

    Each method may raise `Refused` (the address is not fetched) or `Failed` (this attempt has failed).
    """

    # The statuses that count as an answer; any other is a failure.
    statuses: frozenset[int] = frozenset({200})
    # The words of `X-Robots-Tag` that are respected if the rules say so.
    opt_out: frozenset[str] = OPT_OUT

    async def ready(self) -> None:  # noqa: B027 - optional, and does nothing by default
        """Wait until an attempt may begin."""

    def request_headers(self) -> dict[str, str]:
        """Headers to send with the request."""
        return {}

    @abstractmethod
    def begin(self, head: Head) -> None:
        """Called when an answer begins."""

    @abstractmethod
    def write(self, chunk: bytes) -> None:
        """Called with each piece of the answer."""

    @abstractmethod
    def end(self) -> bytes:
        """Called when the answer is complete. The result becomes the outcome's ``data``."""

    def undo(self) -> None:  # noqa: B027 - optional, and does nothing by default
        """Called when an attempt fails after `begin`."""


class Client:
    """Fetches addresses, many at a time. Open it in ``setup`` of a stage and `close` it in ``teardown``."""

    def __init__(self, rules: FetchRules, *, accept: str = "*/*") -> None:
        self.rules = rules
        self._private = rules.private_networks()
        self._loop = asyncio.new_event_loop()
        # Names are resolved in threads, and a name server that hangs occupies a thread for a long time.
        self._loop.set_default_executor(ThreadPoolExecutor(max(8, min(64, rules.concurrency)), "resolve"))
        self._pauses: dict[str, float] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, name="download", daemon=True)
        self._thread.start()
        try:
            self.wait(self._open(accept))
        except BaseException:
            self._stop()
            raise

    def close(self) -> None:
        """Close all connections and end the thread."""
        if not self._loop.is_closed():
            self.wait(self._session.close())
            self._stop()

    def wait[T](self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` in the client's thread and wait for it. Ctrl-C or any other exception while waiting cancels it."""
        future = self.submit(work)
        try:
            return future.result()
        finally:
            future.cancel()

    def submit[T](self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start ``work`` in the client's thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def soon(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function in the client's thread."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def forget_hosts(self) -> None:
        """Forget expired pauses and the limits of hosts: a long list visits more hosts than fit in memory."""
        now = time.monotonic()
        self._pauses = {host: until for host, until in self._pauses.items() if until > now}
        self._hosts.clear()

    async def fetch(self, url: str, sink: Sink) -> Outcome:
        """Fetch one address, in as many attempts as the rules allow. Failures of the address are outcomes and never
        raise.
        """
        attempt = 0
        while True:
            attempt += 1
            await sink.ready()
            try:
                return replace(await self._follow(url, sink), attempts=attempt)
            except NotFetched as error:
                last = Outcome(url, error.reason, error.message, http_status=error.status, attempts=attempt)
                asked = error.retry_after if isinstance(error, Failed) else None
            wait = self._seconds_to_wait(url, attempt, asked)
            if last.reason not in PASSING or attempt > self.rules.retries or wait is None:
                return last
            await asyncio.sleep(wait)

    # Inside ----------------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self, accept: str) -> None:
        aiohttp = import_aiohttp()
        private = self._private

        class CheckedResolver(aiohttp.ThreadedResolver):  # type: ignore[name-defined]
            """Returns only allowed addresses. The connection is made to exactly these, so a name that resolves to
            another address a moment later does not get around the check.
            """

            async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[Any]:
                found = await super().resolve(host, port, family)
                public = [entry for entry in found if allowed(entry["host"], private)]
                if found and not public:
                    check_address(host, found[0]["host"], private)
                return public

        def checked_socket(info: Any) -> socket.socket:
            """The last check: no socket is ever opened to an address that is not allowed."""
            family, kind, protocol, _, address = info
            check_address(address[0], address[0], private)
            return socket.socket(family=family, type=kind, proto=protocol)

        self._aiohttp = aiohttp
        self._slots = asyncio.Semaphore(self.rules.concurrency)
        self._hosts: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(self.rules.per_host))
        # Proxies of the environment are not used: with one, these checks could not see which address a name resolves
        # to.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=CheckedResolver(), socket_factory=checked_socket, limit=0, ttl_dns_cache=300
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(
                total=None, connect=self.rules.connect_timeout_s, sock_read=self.rules.idle_timeout_s
            ),
            headers={"User-Agent": self.rules.user_agent, "Accept": accept, "Accept-Encoding": "identity"},
        )

    def _seconds_to_wait(self, url: str, attempt: int, asked: float | None) -> float | None:
        """Seconds until the next attempt; None if the server asks for a longer wait than the rules allow."""
        if asked is not None:
            return asked if asked <= self.rules.max_retry_after_s else None
        # The wait depends on the address, so that requests that failed together are not repeated together.
        spread = int.from_bytes(hashlib.sha256(f"{url}\0{attempt}".encode("utf-8", "replace")).digest()[:4], "big")
        return float(self.rules.backoff_s * 2.0 ** (attempt - 1) * (0.5 + spread / 2**32))

    async def _follow(self, url: str, sink: Sink) -> Outcome:
        here = _parsed(url)
        status: int | None = None
        for _ in range(self.rules.max_redirects + 1):
            try:
                host = check_url(here, self._private, https_only=self.rules.https_only)
                # The host's slot comes first, so that a request that waits for a slow host takes no slot from the
                # others.
                async with self._hosts[host]:
                    while (pause := self._pauses.get(host, 0.0) - time.monotonic()) > 0:
                        await asyncio.sleep(pause)
                    async with self._slots:
                        answer = await self._ask(here, host, sink)
            except NotFetched as error:
                error.status = error.status or status
                raise
            if isinstance(answer, Outcome):
                return replace(answer, url=url)
            status, target = answer
            here = _parsed(target, here, status)
        raise Refused(Reason.REDIRECTS, f"more than {self.rules.max_redirects} redirects, the last to {here}", status)

    async def _ask(self, url: Any, host: str, sink: Sink) -> Outcome | tuple[int, str]:
        """Send one request; return the outcome, or the status and the address of a redirect."""
        library = self._aiohttp
        begun = whole = False
        status: int | None = None
        try:
            async with (
                asyncio.timeout(self.rules.timeout_s),
                self._session.get(url, allow_redirects=False, headers=sink.request_headers()) as response,
            ):
                status = response.status
                if status in _REDIRECT_STATUS and (target := response.headers.get("Location")):
                    return status, str(target)
                if status not in sink.statuses:
                    raise Failed(
                        f"http {status}", response.reason or "", status, self._retry_after(response.headers, host)
                    )
                head = Head(str(url), status, response.headers, _length(response.headers))
                self._check_opt_out(response.headers, sink)
                begun = True
                sink.begin(head)
                async for chunk in response.content.iter_chunked(_CHUNK):
                    sink.write(chunk)
                data = sink.end()
                whole = True
        except NotFetched as error:
            error.status = status
            raise
        except TimeoutError as error:
            raise Failed(
                Reason.TIMEOUT, str(error) or f"not complete after {self.rules.timeout_s} s", status
            ) from error
        except library.ClientConnectorDNSError as error:
            raise Failed(Reason.DNS, str(error)) from error
        except (library.InvalidURL, library.NonHttpUrlClientError, UnicodeError) as error:
            raise Refused(Reason.BAD_URL, str(error)) from error
        except library.ClientPayloadError as error:
            raise Failed(Reason.CUT_OFF, f"the answer ended too soon: {error}", status) from error
        except (library.ClientError, ConnectionError, zlib.error) as error:
            raise Failed(Reason.CONNECTION, f"{type(error).__name__}: {error}", status) from error
        finally:
            if begun and not whole:
                sink.undo()
        return Outcome("", Reason.OK, data=data, final_url=str(url), http_status=status, content_type=head.content_type)

    def _check_opt_out(self, headers: Any, sink: Sink) -> None:
        if self.rules.respect_opt_out:
            words = opt_out(headers.getall("X-Robots-Tag", []), sink.opt_out)
            if words:
                raise Refused(Reason.OPTED_OUT, f"X-Robots-Tag: {', '.join(words)}")

    def _retry_after(self, headers: Any, host: str) -> float | None:
        """The seconds to wait that a server asks for; they apply to all addresses of its host."""
        text = str(headers.get("Retry-After", "")).strip()
        if not text:
            return None
        if text.isdigit():
            seconds = float(text)
        else:
            try:
                seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
            except (TypeError, ValueError):
                return None
        seconds = max(0.0, seconds)
        if seconds <= self.rules.max_retry_after_s:
            self._pauses[host] = max(self._pauses.get(host, 0.0), time.monotonic() + seconds)
        return seconds


def _length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _parsed(url: str, base: Any = None, status: int | None = None) -> Any:
    import yarl

    try:
        parsed = yarl.URL(url.strip())
        return parsed if base is None else base.join(parsed)
    except (TypeError, ValueError) as error:
        raise Refused(Reason.BAD_URL, str(error), status) from error


def import_aiohttp() -> Any:
    """Import aiohttp, or raise an error with the command that installs it."""
    try:
        import aiohttp
    except ImportError as error:
        raise MissingDependency('downloading needs aiohttp: pip install "curator-core[download]"') from error
    return aiohttp
