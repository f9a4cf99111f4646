"""Fetching one image: redirects, limits, retries, and one word for how it ended.

A `Fetcher` runs an event loop in a thread of its own and keeps connections, names and the pauses that hosts ask for
from one list to the next.
"""

from __future__ import annotations

import asyncio
import email.utils
import hashlib
import itertools
import threading
import time
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from curator_core.errors import MissingDependency
from curator_image.decode.probe import sniff
from curator_image.download.rules import OPT_OUT, FetchRules, Refused, allowed, check_url

# How a download ended. The words stand in status rows and reports, so they are part of the interface.
OK = "ok"
TIMEOUT = "timeout"
DNS = "dns"
CONNECTION = "connection"
CUT_OFF = "cut off"
TOO_LARGE = "too large"
WRONG_TYPE = "wrong type"
NOT_AN_IMAGE = "not an image"
EMPTY = "empty"
OPTED_OUT = "opted out"
REDIRECTS = "too many redirects"
# These may end otherwise next time; all other failures are final.
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
TRANSIENT = frozenset({TIMEOUT, DNS, CONNECTION, CUT_OFF, *(f"http {code}" for code in _TRANSIENT_STATUS)})

_REDIRECT_STATUS = frozenset({301, 302, 303, 307, 308})
_TYPES = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/x-download", "unknown/unknown"})
_CHUNK = 64 << 10
_SNIFF = 32


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one address."""

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
        return self.reason == OK

    @property
    def sha256(self) -> str:
        """Of what was received, as hex."""
        return hashlib.sha256(self.data).hexdigest() if self.data else ""


class _Failed(Exception):
    """One attempt failed; ``retry_after`` is what the server asked for."""

    def __init__(self, reason: str, message: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message
        self.status = status
        self.retry_after = retry_after


class MemoryGate:
    """Holds back new downloads while results that wait for their turn take more than ``limit`` bytes.

    Results are taken in order. The one whose turn it is always gets through, and one that has begun is never stopped
    while it holds a place at its host: so nothing can wait for ever, and what is held stays below ``limit`` and one
    image for every place.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.turn = 0
        self._changed = asyncio.Event()

    async def admit(self, number: int) -> None:
        """Wait until result ``number`` may begin."""
        while self.held >= self.limit and number != self.turn:
            self._changed.clear()
            await self._changed.wait()

    def grow(self, size: int) -> None:
        """Bytes that are held now."""
        self.held += size

    def shrink(self, size: int) -> None:
        """Bytes that are held no longer."""
        self.held -= size
        self._changed.set()

    def advance(self, number: int) -> None:
        """It is the turn of result ``number``."""
        self.turn = number
        self._changed.set()


class Fetcher:
    """Fetches addresses, many at a time; open it in `setup`, `close` it in `teardown`."""

    def __init__(self, rules: FetchRules, *, memory_bytes: int = 512 << 20) -> None:
        self.rules = rules
        self._networks = rules.private_networks()
        self.memory_bytes = memory_bytes
        self._loop = asyncio.new_event_loop()
        # Names are resolved in threads, and a name server that hangs holds one for long.
        self._loop.set_default_executor(ThreadPoolExecutor(max(8, min(64, rules.concurrency)), "resolve"))
        self._pauses: dict[str, float] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, name="image-download", daemon=True)
        self._thread.start()
        self._call(self._open())

    def fetch_all(self, urls: Sequence[str]) -> FetchedInOrder:
        """Outcomes in the order of ``urls``, a bounded number of them ahead."""
        return FetchedInOrder(self, urls)

    def close(self) -> None:
        """Close all connections and end the thread."""
        if self._loop.is_closed():
            return
        self._call(self._session.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def submit(self, work: Coroutine[Any, Any, Outcome]) -> Future[Outcome]:
        """Start work in the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def soon(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function in the loop."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def forget_hosts(self) -> None:
        """Drop what is known of hosts that nobody waits for; a long list visits more of them than memory should hold."""
        now = time.monotonic()
        self._pauses = {host: until for host, until in self._pauses.items() if until > now}
        self._hosts.clear()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self) -> None:
        aiohttp = import_aiohttp()
        networks = self._networks

        class PublicResolver(aiohttp.ThreadedResolver):  # type: ignore[name-defined]
            """Answers with allowed addresses alone. The connection is made to these very addresses, so that a name
            that is resolved anew to another address a moment later gains nothing.
            """

            async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[Any]:
                found = await super().resolve(host, port, family)
                public = [entry for entry in found if allowed(entry["host"], networks)]
                if found and not public:
                    raise Refused("private address", f"{host} is {found[0]['host']}, which is not a public address")
                return public

        self._aiohttp = aiohttp
        self._slots = asyncio.Semaphore(self.rules.concurrency)
        self._hosts: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(self.rules.per_host))
        # Proxies of the environment are not used: behind one, nobody could tell where a name leads.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=PublicResolver(), limit=0, ttl_dns_cache=300),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=self.rules.connect_timeout_s),
            headers={"User-Agent": self.rules.user_agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
        )

    # One address --------------------------------------------------------------------------------------------------

    async def fetch(self, url: str, number: int, gate: MemoryGate) -> Outcome:
        """The outcome of one address, after as many attempts as the rules allow. It never raises for the address."""
        attempt = 0
        while True:
            attempt += 1
            await gate.admit(number)
            try:
                return replace(await self._follow(url, gate), attempts=attempt)
            except Refused as error:
                return Outcome(url, error.reason, error.message, attempts=attempt)
            except _Failed as error:
                last = Outcome(url, error.reason, error.message, http_status=error.status, attempts=attempt)
                wait = self._wait(url, attempt, error.retry_after)
            if last.reason not in TRANSIENT or attempt > self.rules.retries or wait is None:
                return last
            await asyncio.sleep(wait)

    def _wait(self, url: str, attempt: int, asked: float | None) -> float | None:
        """Seconds until the next attempt; None where the server asks for more patience than there is."""
        if asked is not None:
            return asked if asked <= self.rules.max_retry_after_s else None
        # Spread by the address, so that all that failed together do not come back together.
        spread = int.from_bytes(hashlib.sha256(f"{url}\0{attempt}".encode("utf-8", "replace")).digest()[:4], "big")
        return float(self.rules.backoff_s * 2.0 ** (attempt - 1) * (0.5 + spread / 2**32))

    async def _follow(self, url: str, gate: MemoryGate) -> Outcome:
        here = _parsed(url)
        for _ in range(self.rules.max_redirects + 1):
            host = check_url(here, self._networks)
            # The place at the host first: who waits for a slow host takes no place from the others.
            async with self._hosts[host]:
                while (pause := self._pauses.get(host, 0.0) - time.monotonic()) > 0:
                    await asyncio.sleep(pause)
                async with self._slots:
                    answer = await self._ask(here, host, gate)
            if isinstance(answer, Outcome):
                return replace(answer, url=url)
            here = _parsed(answer, here)
        raise Refused(REDIRECTS, f"more than {self.rules.max_redirects} redirects, the last to {here}")

    async def _ask(self, url: Any, host: str, gate: MemoryGate) -> Outcome | str:
        """One request: the outcome, or the address that it redirects to."""
        library = self._aiohttp
        received = bytearray()
        whole = False
        try:
            async with (
                asyncio.timeout(self.rules.timeout_s),
                self._session.get(url, allow_redirects=False) as response,
            ):
                status = response.status
                if status in _REDIRECT_STATUS and (target := response.headers.get("Location")):
                    return str(target)
                if status != 200:
                    asked = self._retry_after(response.headers, host)
                    raise _Failed(f"http {status}", response.reason or "", status, asked)
                kind = self._check_headers(response)
                await self._receive(response, received, gate)
                whole = True
        except TimeoutError as error:
            raise _Failed(TIMEOUT, f"not complete after {self.rules.timeout_s:g} s") from error
        except library.ClientConnectorDNSError as error:
            raise _Failed(DNS, str(error)) from error
        except (library.InvalidURL, library.NonHttpUrlClientError, UnicodeError) as error:
            raise Refused("bad url", str(error)) from error
        except library.ClientPayloadError as error:
            raise _Failed(CUT_OFF, f"the body ended after {len(received):,} bytes: {error}") from error
        except (library.ClientError, OSError, zlib.error) as error:
            raise _Failed(CONNECTION, f"{type(error).__name__}: {error}") from error
        finally:
            if not whole:
                gate.shrink(len(received))
        return Outcome("", OK, data=bytes(received), final_url=str(url), http_status=status, content_type=kind)

    def _check_headers(self, response: Any) -> str:
        kind = str(response.headers.get("Content-Type", "")).partition(";")[0].strip().lower()
        if not kind.startswith("image/") and kind not in _TYPES:
            raise Refused(WRONG_TYPE, f"the server calls it {kind!r}")
        if self.rules.respect_opt_out:
            tags = ",".join(response.headers.getall("X-Robots-Tag", [])).lower()
            words = {word.rpartition(":")[2].strip() for word in tags.split(",")}
            if words & OPT_OUT:
                raise Refused(OPTED_OUT, f"X-Robots-Tag: {', '.join(sorted(words & OPT_OUT))}")
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and int(length) > self.rules.max_bytes:
            raise Refused(TOO_LARGE, f"{int(length):,} bytes, and {self.rules.max_bytes:,} are allowed")
        return kind

    async def _receive(self, response: Any, received: bytearray, gate: MemoryGate) -> None:
        unpack = _Unpacker(response.headers.get("Content-Encoding", ""), self.rules.max_bytes)
        async for packed in response.content.iter_chunked(_CHUNK):
            chunk = unpack(packed)
            if len(received) + len(chunk) > self.rules.max_bytes:
                raise Refused(TOO_LARGE, f"more than {self.rules.max_bytes:,} bytes")
            early = len(received) < _SNIFF
            gate.grow(len(chunk))
            received += chunk
            if early and len(received) >= _SNIFF and sniff(bytes(received[:_SNIFF])) is None:
                raise Refused(NOT_AN_IMAGE, f"it starts with {bytes(received[:16])!r}")
        if not received:
            raise Refused(EMPTY, "the server sent no bytes")
        if sniff(bytes(received[:_SNIFF])) is None:
            raise Refused(NOT_AN_IMAGE, f"it starts with {bytes(received[:16])!r}")

    def _retry_after(self, headers: Any, host: str) -> float | None:
        """Seconds that a server asks for, which then hold for all addresses of its host."""
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


class FetchedInOrder:
    """The outcomes of a list, one after the other; iterating it drives the downloads."""

    def __init__(self, fetcher: Fetcher, urls: Sequence[str]) -> None:
        self._fetcher = fetcher
        self._urls = urls

    def __iter__(self) -> Iterator[Outcome]:
        fetcher = self._fetcher
        gate = MemoryGate(fetcher.memory_bytes)
        ahead = fetcher.rules.concurrency * 4
        waiting = enumerate(self._urls)
        started: deque[Future[Outcome]] = deque()
        try:
            for number in range(len(self._urls)):
                for index, url in itertools.islice(waiting, ahead - len(started)):
                    started.append(fetcher.submit(fetcher.fetch(url, index, gate)))
                fetcher.soon(gate.advance, number)
                outcome = started.popleft().result()
                yield outcome
                fetcher.soon(gate.shrink, len(outcome.data))
        finally:
            for future in started:
                future.cancel()
            fetcher.soon(fetcher.forget_hosts)


class _Unpacker:
    """Undoes a Content-Encoding, never making more than one byte above the limit at a time."""

    def __init__(self, encoding: str, limit: int) -> None:
        name = encoding.strip().lower()
        if name not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise Refused(WRONG_TYPE, f"the server sends it packed as {encoding!r}")
        self._inflate = None if name in ("", "identity") else zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._limit = limit

    def __call__(self, data: bytes) -> bytes:
        return data if self._inflate is None else self._inflate.decompress(data, self._limit + 1)


def _parsed(url: str, base: Any = None) -> Any:
    import yarl

    try:
        parsed = yarl.URL(url.strip())
        return parsed if base is None else base.join(parsed)
    except (TypeError, ValueError) as error:
        raise Refused("bad url", str(error)) from error


def import_aiohttp() -> Any:
    """Aiohttp, or the command that installs it."""
    try:
        import aiohttp
    except ImportError as error:
        raise MissingDependency('downloading needs aiohttp: pip install "curator-image[download]"') from error
    return aiohttp
