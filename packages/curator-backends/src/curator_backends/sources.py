"""Lists sources in the driver as workers need them, with several sources in a block if there are many.

An engine polls its running tasks a few dozen times a second, and hands out a few blocks each time, however small. So
sources travel together if there are many, and alone if there are few, so that every worker has something to do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from curator_backends.coordinator import Standing
from curator_backends.transport import pack
from curator_core.model.codec import encode_task
from curator_core.model.task import Task

# The driver lists sources up to these limits before it decides how many travel together: a number of sources, bytes,
# seconds.
SURVEY_SOURCES = 2_000
SURVEY_BYTES = 256 << 20
SURVEY_SECONDS = 1.0
# The limits of a block, whatever the number of sources.
MOST_IN_BLOCK = 64
BLOCK_BYTES = 16 << 20
# How many tables of sources are listed ahead of requests.
TABLES_AHEAD = 8
# The least number of sources that are listed and have not left the first group. It is more than a reader holds back
# before it has gathered a block.
SOURCES_AHEAD = 8_192
# The least number of blocks of sources for each worker, if this amounts to more sources.
BLOCKS_AHEAD = 16
# After this long without progress, list a little more anyway.
HELD_SECONDS = 5.0


class SourceBlocks:
    """Makes tables of encoded sources on request from an iterator of tasks."""

    def __init__(self, tasks: Iterator[Task[Any]], workers: int, per_block: int | None = None) -> None:
        self._tasks = tasks
        self._workers = max(1, workers)
        self._ahead: list[pa.Buffer] = []
        self.complete = self._survey()
        self.seen = seen = len(self._ahead)  # the number of sources, if the listing is complete
        # Make enough blocks that each worker gets about eight, with smaller ones at the end, so that no slow block
        # delays the end of the run.
        self.per_block = per_block or max(1, min(MOST_IN_BLOCK, seen // (8 * self._workers)))
        self._fixed = per_block is not None

    def _survey(self) -> bool:
        """Whether the driver listed all sources before it started."""
        size = 0
        deadline = time.monotonic() + SURVEY_SECONDS
        for task in self._tasks:
            buffer = encode_task(task)
            self._ahead.append(buffer)
            size += len(buffer)
            if len(self._ahead) >= SURVEY_SOURCES or size >= SURVEY_BYTES or time.monotonic() > deadline:
                return False
        return True

    @property
    def most_ahead(self) -> int:
        """How many sources may be listed that have not left the first group."""
        return max(SOURCES_AHEAD, BLOCKS_AHEAD * self._workers * self.per_block)

    @property
    def empty(self) -> bool:
        return self.complete and not self._ahead

    def all_tables(self) -> list[pa.Table]:
        """The tables of a complete listing. Large tables come first and small ones last, so that all workers end at
        about the same time.
        """
        assert self.complete
        tables = []
        start = 0
        least = max(1, self.per_block // 4)
        while start < len(self._ahead):
            left = len(self._ahead) - start
            size = self.per_block if self._fixed else min(self.per_block, max(least, left // (4 * self._workers)))
            group = self._within_bytes(self._ahead[start : start + size])
            tables.append(pack(group))
            start += len(group)
        return tables

    def tables(self) -> Iterator[pa.Table]:
        """The tables of a listing that is not complete yet."""
        waiting: list[pa.Buffer] = []
        size = 0
        for buffer in self._buffers():
            if waiting and size + len(buffer) > BLOCK_BYTES:
                yield pack(waiting)
                waiting, size = [], 0
            waiting.append(buffer)
            size += len(buffer)
            if len(waiting) >= self.per_block:
                yield pack(waiting)
                waiting, size = [], 0
        if waiting:
            yield pack(waiting)

    def _buffers(self) -> Iterator[pa.Buffer]:
        yield from self._ahead
        self._ahead = []
        for task in self._tasks:
            yield encode_task(task)

    @staticmethod
    def _within_bytes(buffers: Sequence[pa.Buffer]) -> list[pa.Buffer]:
        taken: list[pa.Buffer] = []
        size = 0
        for buffer in buffers:
            if taken and size + len(buffer) > BLOCK_BYTES:
                break
            taken.append(buffer)
            size += len(buffer)
        return taken


class Feeder(threading.Thread):
    """Lists sources in the driver while the run proceeds, a little ahead of the requests and of the work.

    An engine's reader requests sources before earlier ones are processed, so requests alone would list everything. But
    the reader also holds sources back until they fill a block, so processing and listing could wait for each other. So
    if the workers finish no source for a while, a little more is listed anyway.
    """

    def __init__(
        self, blocks: SourceBlocks, offer: Callable[[list[Any], bool], Standing], standing: Callable[[], Standing]
    ) -> None:
        super().__init__(name="curator-sources", daemon=True)
        self._blocks = blocks
        self._offer = offer
        self._standing = standing
        self._listed = 0
        self._stop_requested = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            standing = Standing()
            for offered, table in enumerate(self._blocks.tables()):
                standing = self._hold_back(offered, standing)
                if self._stop_requested.is_set():
                    return
                standing = self._offer([table], False)
                self._listed += table.num_rows
            self._offer([], True)
        except BaseException as error:  # the driver polls `failure` and raises it
            self.failure = error

    def _hold_back(self, offered: int, standing: Standing) -> Standing:
        """Wait until another table may be listed."""
        deadline = time.monotonic() + HELD_SECONDS
        through = standing.through
        while offered >= standing.asked + TABLES_AHEAD or (
            self._listed - standing.through >= self._blocks.most_ahead and time.monotonic() < deadline
        ):
            if self._stop_requested.wait(0.05):
                break
            standing = self._standing()
            if standing.through != through:
                through, deadline = standing.through, time.monotonic() + HELD_SECONDS
        return standing

    def stop(self) -> None:
        """Stop listing: no more sources are needed."""
        self._stop_requested.set()
        self.join(timeout=10.0)
