"""A web server on this machine, with no way to any other machine."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from curator_core.testing.loopback import loopback_only

BODY = bytes(range(256)) * 40


class Server(ThreadingHTTPServer):
    """Answers with a function of the path, and keeps the requests."""

    daemon_threads = True

    def __init__(self, answer: Callable[[Any], None], host: str = "127.0.0.1", port: int = 0) -> None:
        self.answer = answer
        self.asked: list[str] = []
        super().__init__((host, port), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}/{path}"

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.answer(self)

    def send(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the client has closed the connection
            self.wfile.write(body)


@pytest.fixture(autouse=True)
def _loopback() -> Iterator[None]:
    with loopback_only():
        yield


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    running: list[Server] = []

    def start(answer: Callable[[Any], None], host: str = "127.0.0.1", port: int = 0) -> Server:
        running.append(Server(answer, host, port))
        return running[-1]

    yield start
    for server in running:
        server.stop()
