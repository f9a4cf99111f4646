"""A process that extracts pages under a limit of time and memory, and that may be lost: the pages are not trusted.

Run as ``python -m curator_text.extract._guard ENGINE MAIN_CONTENT MEMORY_BYTES``. It answers each frame on its input
with one on its output: a length, and JSON. `GuardedProcess` is the other end.
"""

from __future__ import annotations

import json
import os
import selectors
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from curator_text.extract._engines import NotHtml, make_engine

_HEAD = struct.Struct("<II")
_ANSWER = struct.Struct("<I")
# Pages that may be on their way: the process has its next one when it is done, and little is sent twice after a loss.
_AHEAD = 4
_START_S = 120.0
_CHUNK = 1 << 16


class GuardedProcess:
    """Sends pages to a guarded process and gives an answer for each: what was extracted, or why nothing was."""

    def __init__(self, arguments: Sequence[str], timeout_s: float) -> None:
        self._arguments = list(arguments)
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._received = bytearray()

    def answers(self, pages: Sequence[tuple[bytes, str | None]]) -> Iterator[dict[str, Any]]:
        """One answer for each page, in order: ``{"ok": […]}`` or ``{"error": reason, "message": …}``."""
        done = 0
        while done < len(pages):
            for answer in self._attempt(pages, done):
                done += 1
                yield answer

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        self._received.clear()
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _attempt(self, pages: Sequence[tuple[bytes, str | None]], first: int) -> Iterator[dict[str, Any]]:
        """Answers until the pages are done, or until one has cost the process: that one's answer says so."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        to_send: memoryview | None = None
        sent = answered = first
        deadline = time.monotonic() + self._timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            writing = False
            while answered < len(pages):
                if to_send is None and sent < len(pages) and sent - answered < _AHEAD:
                    to_send, sent = memoryview(_frame(*pages[sent])), sent + 1
                if (to_send is not None) != writing:
                    writing = to_send is not None
                    if writing:
                        selector.register(process.stdin, selectors.EVENT_WRITE)
                    else:
                        selector.unregister(process.stdin)
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                try:
                    for key, _ in ready:
                        if key.fileobj is process.stdin and to_send is not None:
                            to_send = to_send[os.write(process.stdin.fileno(), to_send) :] or None
                        elif key.fileobj is process.stdout:
                            if not (data := os.read(process.stdout.fileno(), _CHUNK)):
                                raise BrokenPipeError
                            self._received += data
                except BlockingIOError:
                    pass
                except BrokenPipeError:
                    self.close()
                    yield {"error": "extraction crashed", "message": "the process died: out of memory, or a crash"}
                    return
                while answered < sent and (answer := self._next()) is not None:
                    deadline = time.monotonic() + self._timeout_s
                    answered += 1
                    yield answer
                    deadline = max(deadline, time.monotonic() + self._timeout_s)
                if answered < len(pages) and time.monotonic() >= deadline:
                    self.close()
                    yield {"error": "extraction timed out", "message": f"more than timeout_s={self._timeout_s:g}"}
                    return

    def _next(self) -> dict[str, Any] | None:
        if len(self._received) < _ANSWER.size:
            return None
        (size,) = _ANSWER.unpack_from(self._received)
        if len(self._received) < _ANSWER.size + size:
            return None
        answer = json.loads(self._received[_ANSWER.size : _ANSWER.size + size])
        del self._received[: _ANSWER.size + size]
        return cast(dict[str, Any], answer)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        # The same modules as here, also where somebody has extended sys.path.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        process = subprocess.Popen(
            [sys.executable, "-m", "curator_text.extract._guard", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        os.set_blocking(process.stdin.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(_START_S) or os.read(process.stdout.fileno(), 1) != b"R":
                self.close()
                raise RuntimeError(f"the guarded process for {self._arguments[0]!r} did not start")
        return process


def _frame(content: bytes, charset: str | None) -> bytes:
    name = (charset or "").encode()
    return _HEAD.pack(len(content), len(name)) + content + name


def _read(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        raise SystemExit(0)
    return data


def main(arguments: Sequence[str]) -> None:
    """Answer pages until the input ends."""
    import resource

    engine_name, main_content, memory_bytes = arguments
    engine = make_engine(engine_name, main_content == "1")
    # What the interpreter and the engine take already is not counted against the pages.
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(memory_bytes), resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sink.write(b"R")
    sink.flush()
    while True:
        content_size, name_size = _HEAD.unpack(_read(source, _HEAD.size))
        content, charset = _read(source, content_size), _read(source, name_size).decode() or None
        try:
            answer: dict[str, Any] = {"ok": engine(content, charset)}
        except NotHtml as error:
            answer = {"error": "not HTML", "message": str(error)}
        except MemoryError:
            answer = {"error": "extraction out of memory", "message": f"more than {memory_bytes} bytes"}
        except Exception as error:  # an engine may raise anything on a page; the page is told with it
            answer = {"error": "extraction failed", "message": f"{type(error).__name__}: {error}"[:500]}
        text = json.dumps(answer, ensure_ascii=True).encode()
        sink.write(_ANSWER.pack(len(text)) + text)
        sink.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
