"""How are answers received in memory in the order of a list, and never too many at a time?"""

from __future__ import annotations

import asyncio
import itertools
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from curator_core.download.client import Client, Head, Outcome, Sink
from curator_core.download.rules import Reason, Refused


class MemorySink(Sink):
    """Keeps an answer of at most ``limit`` bytes. Subclasses can refuse answers."""

    # `check_start` is called when this many bytes have been received, or all of them.
    start = 32

    def __init__(self, limit: int | None = None, gate: MemoryGate | None = None, number: int = 0) -> None:
        self.limit = limit
        self.received = bytearray()
        self._gate = gate
        self._number = number
        self._started = False

    def check_head(self, head: Head) -> None:
        """Raise `Refused` to reject an answer by its head."""

    def check_start(self, data: bytes) -> None:
        """Raise `Refused` to reject an answer by its first bytes."""

    async def ready(self) -> None:
        if self._gate is not None:
            await self._gate.admit(self._number)

    def begin(self, head: Head) -> None:
        self._started = False
        self.check_head(head)
        if self.limit is not None and head.length is not None and head.length > self.limit:
            raise Refused(Reason.TOO_LARGE, f"{head.length:,} bytes, and {self.limit:,} are allowed")
        self._unpack = _unpacker(head.headers.get("Content-Encoding", ""), self.limit)

    def write(self, chunk: bytes) -> None:
        unpacked = self._unpack(chunk)
        if self.limit is not None and len(self.received) + len(unpacked) > self.limit:
            raise Refused(Reason.TOO_LARGE, f"more than {self.limit:,} bytes")
        self.received += unpacked
        if self._gate is not None:
            self._gate.grow(len(unpacked))
        if not self._started and len(self.received) >= self.start:
            self._started = True
            self.check_start(bytes(self.received[: self.start]))

    def end(self) -> bytes:
        if not self.received:
            raise Refused(Reason.EMPTY, "the server sent no bytes")
        if not self._started:
            self.check_start(bytes(self.received))
        return bytes(self.received)

    def undo(self) -> None:
        if self._gate is not None:
            self._gate.shrink(len(self.received))
        self.received.clear()


class MemoryGate:
    """Holds back new downloads while results that wait for their turn take more than ``limit`` bytes.

    Results are taken in order. The download whose turn it is always proceeds, and a download that has begun is never
    paused, since it occupies a slot of its host. So no download waits forever, and the memory stays below ``limit``
    plus one answer per slot.
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
        """Add bytes to those that are held."""
        self.held += size

    def shrink(self, size: int) -> None:
        """Subtract bytes that are no longer held."""
        self.held -= size
        self._changed.set()

    def advance(self, number: int) -> None:
        """Give the turn to result ``number``."""
        self.turn = number
        self._changed.set()


class InOrder:
    """The outcomes of a list of addresses, one after the other; iterating it drives the downloads.

    ``sink`` makes the sink of an address from the limit, the gate and its number in the list. Leaving the iteration
    cancels the downloads that have begun.
    """

    def __init__(
        self,
        client: Client,
        urls: Sequence[str],
        *,
        memory_bytes: int,
        sink: Callable[[int | None, MemoryGate, int], Sink] = MemorySink,
    ) -> None:
        self._client = client
        self._urls = urls
        self._memory_bytes = memory_bytes
        self._sink = sink

    def __iter__(self) -> Iterator[Outcome]:
        client = self._client
        limit = client.rules.max_bytes
        gate = MemoryGate(self._memory_bytes)
        ahead = client.rules.concurrency * 4
        waiting = enumerate(self._urls)
        started: deque[Future[Outcome]] = deque()
        try:
            for number in range(len(self._urls)):
                for index, url in itertools.islice(waiting, ahead - len(started)):
                    started.append(client.submit(client.fetch(url, self._sink(limit, gate, index))))
                client.soon(gate.advance, number)
                outcome = started.popleft().result()
                yield outcome
                client.soon(gate.shrink, len(outcome.data))
        finally:
            for future in started:
                future.cancel()
            client.soon(client.forget_hosts)


def _unpacker(encoding: str, limit: int | None) -> Callable[[bytes], bytes]:
    """A function that decodes a Content-Encoding, and returns at most one byte more than the limit at a time."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return bytes
    if name not in ("gzip", "x-gzip", "deflate"):
        raise Refused(Reason.WRONG_TYPE, f"the server sends it encoded as {encoding!r}")
    inflate: Any = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def unpack(data: bytes) -> bytes:
        return bytes(inflate.decompress(data, 0 if limit is None else limit + 1))

    return unpack
