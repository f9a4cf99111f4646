"""A process that extracts pages under a limit of time and memory, and that may be lost: the pages are not trusted.

Run as ``python -m curator_text.extract._guard ENGINE MAIN_CONTENT WANTED MEMORY_BYTES``. It answers each frame on its
input with one on its output. `GuardedProcess` is the other end.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import selectors
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from curator_text.extract._engines import NotHtml, make_engine

_HEAD = struct.Struct("<II")
# The lengths of the four texts of an `Answer`, or -1 for none, and the ratio, or NaN for none.
_ANSWER = struct.Struct("<iiiid")
# Pages that may be on their way: the process has its next one when it is done, and little is sent twice after a loss.
_AHEAD = 8
_AHEAD_BYTES = 1 << 19
_START_S = 120.0
_PIPE_BYTES = 1 << 20
_CHUNK = 1 << 16


class Answer(NamedTuple):
    """What was made of a page, its texts in UTF-8; or the ``reason`` why nothing was, with the message in ``text``."""

    reason: bytes | None
    text: bytes | None = None
    title: bytes | None = None
    language: bytes | None = None
    link_ratio: float | None = None


class GuardedProcess:
    """Sends pages to a guarded process and gives an answer for each: what was extracted, or why nothing was."""

    def __init__(self, arguments: Sequence[str], timeout_s: float) -> None:
        self._arguments = list(arguments)
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._received = bytearray()
        self._space = memoryview(bytearray(_CHUNK))

    def answers(self, pages: Sequence[tuple[bytes, str | None]]) -> Iterator[Answer]:
        """One answer for each page, in order."""
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

    def _attempt(self, pages: Sequence[tuple[bytes, str | None]], first: int) -> Iterator[Answer]:
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
                if to_send is None and sent < len(pages) and sent - answered <= _AHEAD // 2:
                    frames, sent = _frames(pages, sent, answered + _AHEAD)
                    to_send = memoryview(frames)
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
                            if not (count := os.readv(process.stdout.fileno(), [self._space])):
                                raise BrokenPipeError
                            self._received += self._space[:count]
                except BlockingIOError:
                    pass
                except BrokenPipeError:
                    self.close()
                    yield Answer(b"extraction crashed", b"the process died: out of memory, or a crash")
                    return
                while answered < sent and (answer := self._next()) is not None:
                    deadline = time.monotonic() + self._timeout_s
                    answered += 1
                    yield answer
                    deadline = max(deadline, time.monotonic() + self._timeout_s)
                if answered < len(pages) and time.monotonic() >= deadline:
                    self.close()
                    yield Answer(b"extraction timed out", b"more than timeout_s=%g" % self._timeout_s)
                    return

    def _next(self) -> Answer | None:
        if len(self._received) < _ANSWER.size:
            return None
        *sizes, ratio = _ANSWER.unpack_from(self._received)
        end = _ANSWER.size + sum(size for size in sizes if size > 0)
        if len(self._received) < end:
            return None
        texts: list[bytes | None] = []
        at = _ANSWER.size
        for size in sizes:
            texts.append(None if size < 0 else bytes(self._received[at : at + size]))
            at += max(size, 0)
        del self._received[:end]
        reason, text, title, language = texts
        return Answer(reason, text, title, language, None if math.isnan(ratio) else ratio)

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
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # a user has only so much room for pipes; smaller ones work too
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(_START_S) or os.read(process.stdout.fileno(), 1) != b"R":
                self.close()
                raise RuntimeError(f"the guarded process for {self._arguments[0]!r} did not start")
        return process


def _frames(pages: Sequence[tuple[bytes, str | None]], first: int, limit: int) -> tuple[bytes, int]:
    """Pages from the first one on, as they are sent; and how far they go: to ``limit``, or to enough for the pipe."""
    pieces: list[bytes] = []
    size = 0
    while first < min(limit, len(pages)) and size < _AHEAD_BYTES:
        content, charset = pages[first]
        name = (charset or "").encode()
        pieces += [_HEAD.pack(len(content), len(name)), content, name]
        size += len(content)
        first += 1
    return b"".join(pieces), first


def _packed(answer: Answer) -> bytes:
    *texts, ratio = answer
    sizes = [-1 if text is None else len(text) for text in texts]
    return b"".join([_ANSWER.pack(*sizes, math.nan if ratio is None else ratio), *filter(None, texts)])


def _read(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        raise SystemExit(0)
    return data


def main(arguments: Sequence[str]) -> None:
    """Answer pages until the input ends."""
    import resource

    engine_name, main_content, wanted, memory_bytes = arguments
    engine = make_engine(engine_name, main_content == "1", frozenset(wanted.split(",")))
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
            text, title, language, ratio = engine(content, charset)
            answer = Answer(None, _utf8(text), _utf8(title), _utf8(language), ratio)
        except NotHtml as error:
            answer = Answer(b"not HTML", _utf8(str(error)))
        except MemoryError:
            answer = Answer(b"extraction out of memory", _utf8(f"more than {memory_bytes} bytes"))
        except Exception as error:  # an engine may raise anything on a page; the page is told with it
            answer = Answer(b"extraction failed", _utf8(f"{type(error).__name__}: {error}"[:500]))
        sink.write(_packed(answer))
        sink.flush()


def _utf8(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "replace")


if __name__ == "__main__":
    main(sys.argv[1:])
