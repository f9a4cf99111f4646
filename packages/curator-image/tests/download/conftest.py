"""A web server on this machine that misbehaves in every way that real servers do."""

from __future__ import annotations

import asyncio
import gzip
import io
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PIL import Image


def picture(kind: str = "JPEG", size: tuple[int, int] = (40, 30), color: tuple[int, int, int] = (200, 30, 90)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, kind)
    return out.getvalue()


class BadServer:
    """Responds according to the path of the address. ``seen`` counts requests; ``most`` is the largest number open at
    once."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.open = self.most = 0
        self.agents: set[str] = set()
        self.flaky_left = 2
        self.three = asyncio.Barrier(3)  # responses wait here until three requests are open at once
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._start("127.0.0.1"), self._loop).result()
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._second = asyncio.run_coroutine_threadsafe(self._start("127.0.0.2", self.port), self._loop).result()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/{path.lstrip('/')}"

    def close(self) -> None:
        async def stop() -> None:
            self._server.close()
            self._second.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self, host: str, port: int = 0) -> asyncio.Server:
        return await asyncio.start_server(self._serve, host, port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = request.split(" ")[1]
            host = writer.get_extra_info("sockname")[0]
            self.seen[path if host == "127.0.0.1" else f"{host}{path}"] += 1
            for line in request.split("\r\n"):
                if line.lower().startswith("user-agent:"):
                    self.agents.add(line.partition(":")[2].strip())
            await self._answer(path, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        name, _, query = path.lstrip("/").partition("?")
        body = picture()
        if name.startswith(("ok", "café", "caf%C3%A9")):
            number = sum(path.encode())
            self._send(writer, 200, picture(color=(number % 256, 30, 90)))
        elif name.startswith("together"):
            await self.three.wait()
            self._send(writer, 200, body)
        elif name == "png":
            self._send(writer, 200, picture("PNG"), {"Content-Type": "application/octet-stream"})
        elif name == "avif":
            self._send(writer, 200, picture("AVIF"), {"Content-Type": "image/avif"})
        elif name.startswith("svg"):
            comment = b"<!-- made by hand -->" * (100 if "comment" in name else 0)
            drawing = b'<?xml version="1.0"?>' + comment + b'<svg xmlns="http://www.w3.org/2000/svg"/>'
            self._send(writer, 200, drawing, {"Content-Type": "image/svg+xml"})
        elif name == "big-picture":
            self._send(writer, 200, picture(size=(800, 400)))
        elif name == "html":
            self._send(writer, 200, b"<html>404 but with a smile</html>", {"Content-Type": "text/html; charset=utf-8"})
        elif name == "disguised":
            self._send(writer, 200, b"<html>not an image at all, whatever the header says</html>")
        elif name == "torn":
            self._send(writer, 200, body[: len(body) // 2])
        elif name == "bomb":
            self._send(writer, 200, _png_header(60_000, 60_000), {"Content-Type": "image/png"})
        elif name == "cut-off":
            self._send(writer, 200, body[:100], {"Content-Length": str(len(body))})
        elif name == "huge":
            self._send(writer, 200, body + bytes(3_000_000), {})
        elif name == "endless":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n")
            first = body
            while True:
                chunk = first or bytes(65536)
                first = b""
                writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                await writer.drain()
        elif name == "gzip":
            self._send(writer, 200, gzip.compress(body), {"Content-Encoding": "gzip"})
        elif name == "gzip-bomb":
            self._send(writer, 200, gzip.compress(body + bytes(20_000_000), 1), {"Content-Encoding": "gzip"})
        elif name == "empty":
            self._send(writer, 200, b"")
        elif name == "hang":
            await asyncio.Event().wait()  # until the server is closed
        elif name == "drip":
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            for byte in body:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)
        elif name == "reset":
            writer.transport.abort()
        elif name == "garbage":
            writer.write(b"\x00\xff this is not http\r\n\r\n")
        elif name in ("flaky-503", "flaky-reset", "flaky-429"):
            self.flaky_left -= 1
            if self.flaky_left < 0:
                self._send(writer, 200, body)
            elif name == "flaky-reset":
                writer.transport.abort()
            else:
                self._send(writer, int(name[-3:]), b"later", {"Retry-After": "0"})
        elif name == "busy":
            self._send(writer, 429, b"later", {"Retry-After": "7200"})
        elif name == "down":
            self._send(writer, 503, b"")
        elif name == "robots":
            self._send(writer, 200, body, {"X-Robots-Tag": "otherbot: nofollow, noimageai"})
        elif name == "redirect":
            self._send(writer, 302, b"", {"Location": query})
        elif name == "loop":
            self._send(writer, 301, b"", {"Location": "/loop"})
        elif name == "nowhere":
            self._send(writer, 302, b"", {})
        else:
            self._send(writer, 404, b"nothing here")

    def _send(
        self, writer: asyncio.StreamWriter, status: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        fields = {"Content-Type": "image/jpeg", "Content-Length": str(len(body)), "Connection": "close"}
        fields |= headers or {}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body)


def _png_header(width: int, height: int) -> bytes:
    import struct
    import zlib

    start = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + start + struct.pack(">I", zlib.crc32(start))
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + chunk + end


@pytest.fixture
def server() -> Iterator[BadServer]:
    running = BadServer()
    yield running
    running.close()


@pytest.fixture
def jpeg() -> Callable[..., bytes]:
    return picture


@pytest.fixture
def quick() -> dict[str, Any]:
    """Parameters of a download from this machine with short pauses between attempts."""
    return {"allow_private": True, "timeout_s": 20.0, "connect_timeout_s": 10.0, "retries": 1, "backoff_s": 0.001}
