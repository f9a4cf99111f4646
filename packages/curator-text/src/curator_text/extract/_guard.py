"""Extracts untrusted pages in a separate process, which has limits of time and memory and is replaced if it dies.

Run as ``python -m curator_text.extract._guard ENGINE MAIN_CONTENT WANTED MEMORY_BYTES FILE FILE``. Pages are sent in
shares. A share is written to one of two files in memory, and an order on the input names the file. The answers are
written after its pages, and a byte on the output says that they are complete. `GuardedProcess` is the other end; it
fills one file while the process works on the other.
"""

from __future__ import annotations

import math
import os
import selectors
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from curator_text.extract._engines import NotHtml, make_engine

# An order: the file of a share, and its number of pages.
_ORDER = struct.Struct("<II")
# A file begins with the number of answers, their end, and the time of the last one. Then follow the sizes of the pages
# and of their charsets' names, the pages, and the answers. Old content of a file is not cleared, because clearing would
# take longer than everything else.
_STATE = struct.Struct("<QQd")
_HEAD = struct.Struct("<QI")
# The lengths of the four texts of an `Answer` (-1 for None), and the ratio (NaN for None).
_ANSWER = struct.Struct("<qqqqd")
# The size of a share: large enough that the exchange costs little compared with the work, and small enough to repeat
# after a crash.
_SHARE_PAGES = 64
_SHARE_BYTES = 1 << 19
_FILES = 2
_KEPT_BYTES = 4 << 20
# Otherwise malloc would return the memory of each tree to the system and request it again, which takes a quarter of the
# time.
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(16 << 20), "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
_START_S = 120.0


class Answer(NamedTuple):
    """The result for a page, with texts in UTF-8, or the ``reason`` why there is none, with a message in ``text``."""

    reason: bytes | None
    text: bytes | None = None
    title: bytes | None = None
    language: bytes | None = None
    link_ratio: float | None = None


class _Share(NamedTuple):
    """The pages that were sent: their file, their number, and their end in the file."""

    file: int
    pages: int
    size: int


class GuardedProcess:
    """Sends pages to a guarded process and returns an answer for each page: the extracted text, or the reason why there
    is none.
    """

    def __init__(self, arguments: Sequence[str], timeout_s: float) -> None:
        self._arguments = list(arguments)
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._files: list[BinaryIO] = []

    def answers(self, pages: Sequence[tuple[bytes, str | None]]) -> Iterator[Answer]:
        """Yield one answer for each page, in order."""
        done = 0
        while done < len(pages):
            for answer in self._attempt(pages, done):
                done += 1
                yield answer

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        while self._files:
            self._files.pop().close()

    def _attempt(self, pages: Sequence[tuple[bytes, str | None]], first: int) -> Iterator[Answer]:
        """Yield answers until all pages are done, or until a page has killed the process; the answer for that page says
        so.
        """
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        orders, news = process.stdin.fileno(), process.stdout.fileno()
        waiting: deque[_Share] = deque()
        free = list(range(_FILES))
        sent = answered = first
        begun = 0.0  # the latest possible start of the current page
        loss: Answer | None = None
        stood: int | None = None  # the answers for pages before the one that took too long
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(news, selectors.EVENT_READ)
                while answered < len(pages):
                    try:
                        while free and sent < len(pages):
                            if not waiting:
                                begun = time.monotonic()
                            waiting.append(share := self._filled(free.pop(), pages, sent))
                            sent += share.pages
                            os.write(orders, _ORDER.pack(share.file, share.pages))
                        left = begun + self._timeout_s - time.monotonic()
                        signal = os.read(news, 1) if selector.select(max(0.0, left)) else None
                        if signal == b"":
                            raise BrokenPipeError
                    except BrokenPipeError:
                        loss = Answer(b"extraction crashed", b"the process died: out of memory, or a crash")
                        break
                    count, _, found_at = _STATE.unpack(_read(self._files[waiting[0].file].fileno(), _STATE.size, 0))
                    begun = max(begun, found_at)
                    if signal is not None:
                        found = self._found(waiting[0])
                        if len(found) < waiting[0].pages:
                            loss = Answer(b"extraction crashed", b"the process reported that it was done, but was not")
                            break
                        free.append(waiting.popleft().file)
                        answered += len(found)
                        yield from found
                    elif time.monotonic() >= begun + self._timeout_s:
                        loss = Answer(b"extraction timed out", b"more than timeout_s=%g" % self._timeout_s)
                        stood = count
                        break
            if loss is not None:
                process.kill()
                process.wait()
                found = [answer for share in waiting for answer in self._found(share)]
                waiting.clear()
                self.close()
                yield from found
                # A page that was finished just before the process ended keeps its answer, and the page after it is not
                # blamed.
                if answered + len(found) < len(pages) and stood in (None, len(found)):
                    yield loss
        finally:
            if waiting:  # the remaining answers are not needed
                self.close()

    def _filled(self, file: int, pages: Sequence[tuple[bytes, str | None]], first: int) -> _Share:
        """Write pages from ``first`` on to a file, up to a maximum number and size."""
        heads: list[bytes] = []
        pieces: list[bytes] = []
        size = 0
        while first < len(pages) and len(heads) < _SHARE_PAGES and size < _SHARE_BYTES:
            content, charset = pages[first]
            name = (charset or "").encode()
            heads.append(_HEAD.pack(len(content), len(name)))
            pieces += [content, name]
            size += len(content)
            first += 1
        at = _STATE.size + _HEAD.size * len(heads) + sum(map(len, pieces))
        _written(self._files[file].fileno(), [_STATE.pack(0, at, 0.0), *heads, *pieces], 0)
        return _Share(file, len(heads), at)

    def _found(self, share: _Share) -> list[Answer]:
        """Read the answers for a share; its file is free afterwards."""
        file = self._files[share.file].fileno()
        count, end, _ = _STATE.unpack(_read(file, _STATE.size, 0))
        data = _read(file, end - share.size, share.size)
        answers: list[Answer] = []
        at = 0
        for _ in range(min(count, share.pages)):
            *sizes, ratio = _ANSWER.unpack_from(data, at)
            at += _ANSWER.size
            texts: list[bytes | None] = []
            for size in sizes:
                texts.append(None if size < 0 else data[at : at + size])
                at += max(size, 0)
            reason, text, title, language = texts
            answers.append(Answer(reason, text, title, language, None if math.isnan(ratio) else ratio))
        if end > _KEPT_BYTES:
            os.ftruncate(file, 0)
        return answers

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        self._files = [os.fdopen(os.memfd_create("pages"), "r+b", buffering=0) for _ in range(_FILES)]
        numbers = [file.fileno() for file in self._files]
        # The process must import the same modules as this one, even if sys.path was extended.
        environment = {**_MALLOC, **os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        process = subprocess.Popen(
            [sys.executable, "-m", "curator_text.extract._guard", *self._arguments, *map(str, numbers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            pass_fds=numbers,
        )
        assert process.stdout is not None
        self._process = process
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(_START_S) or os.read(process.stdout.fileno(), 1) != b"R":
                self.close()
                raise RuntimeError(f"the guarded process for {self._arguments[0]!r} did not start")
        return process


def _written(file: int, pieces: Sequence[bytes], at: int) -> int:
    """Write all of the pieces, since one call may write only a part; returns their length."""
    size = sum(map(len, pieces))
    done = os.pwritev(file, pieces, at)
    while done < size:
        done += os.pwrite(file, memoryview(b"".join(pieces))[done:], at + done)
    return size


def _read(file: int, size: int, at: int) -> bytes:
    """Read this many bytes, since one call may return fewer."""
    data = os.pread(file, size, at)
    while len(data) < size and (more := os.pread(file, size - len(data), at + len(data))):
        data += more
    return data


def main(arguments: Sequence[str]) -> None:
    """The process: answer pages until the input ends."""
    import resource

    engine_name, main_content, wanted, memory_bytes, *files = arguments
    engine = make_engine(engine_name, main_content == "1", frozenset(wanted.split(",")))
    # The limit does not include memory that the interpreter and the engine already use.
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    # A limit that was already set stays, because only root may raise it.
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = used + int(memory_bytes)
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    orders, news = sys.stdin.fileno(), os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # output that an engine prints must not be read as an answer
    os.write(news, b"R")
    while len(order := os.read(orders, _ORDER.size)) == _ORDER.size:
        number, count = _ORDER.unpack(order)
        file = int(files[number])
        heads = list(_HEAD.iter_unpack(_read(file, _HEAD.size * count, _STATE.size)))
        at = _STATE.size + _HEAD.size * count
        end = at + sum(map(sum, heads))
        for done, (content_size, name_size) in enumerate(heads, start=1):
            try:
                content = _read(file, content_size, at)
                charset = _read(file, name_size, at + content_size).decode() or None
                text, title, language, ratio = engine(content, charset)
                answer = Answer(None, _utf8(text), _utf8(title), _utf8(language), ratio)
            except NotHtml as error:
                answer = Answer(b"not HTML", _utf8(str(error)))
            except MemoryError:
                answer = Answer(b"extraction out of memory", _utf8(f"more than {memory_bytes} bytes"))
            except Exception as error:  # an engine may raise any error for a page; the page is rejected with that error
                answer = Answer(b"extraction failed", _utf8(f"{type(error).__name__}: {error}"[:500]))
            at += content_size + name_size
            end += _written(file, _packed(answer), end)
            _written(file, [_STATE.pack(done, end, time.monotonic())], 0)
        os.write(news, b".")


def _packed(answer: Answer) -> list[bytes]:
    *texts, ratio = answer
    sizes = [-1 if text is None else len(text) for text in texts]
    return [_ANSWER.pack(*sizes, math.nan if ratio is None else ratio), *filter(None, texts)]


def _utf8(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "replace")


if __name__ == "__main__":
    main(sys.argv[1:])
