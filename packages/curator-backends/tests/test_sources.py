"""Sources in blocks: no source is lost or repeated, listing is lazy, and every worker has something to do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_backends.coordinator import Standing
from curator_backends.ray_data.executor import LISTED_BLOCK_BYTES
from curator_backends.sources import (
    BLOCK_BYTES,
    MOST_IN_BLOCK,
    SOURCES_AHEAD,
    SURVEY_SOURCES,
    TABLES_AHEAD,
    Feeder,
    SourceBlocks,
)
from curator_backends.transport import decode
from curator_core.model.codec import encode_task
from curator_core.model.task import FileGroupTask, Task


@pytest.fixture(autouse=True, scope="module")
def _any_machine() -> Iterator[None]:
    """A busy machine lists as many sources as a fast one before it decides."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curator_backends.sources.SURVEY_SECONDS", 600.0)
        yield


def sources(count: int, seen: list[int] | None = None, size: int = 1) -> Iterator[Task[Any]]:
    for number in range(count):
        if seen is not None:
            seen.append(number)
        yield FileGroupTask(data=[f"{number:07d}" * size], task_id=f"s-{number}")


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 3000), workers=st.integers(1, 64), per_block=st.none() | st.integers(1, 50))
def test_every_source_is_in_one_block_in_order(count: int, workers: int, per_block: int | None) -> None:
    blocks = SourceBlocks(sources(count), workers, per_block)
    tables = blocks.all_tables() if blocks.complete else list(blocks.tables())
    assert [task.task_id for table in tables for task in decode(table)] == [f"s-{n}" for n in range(count)]
    assert all(table.num_rows <= (per_block or MOST_IN_BLOCK) for table in tables)


def test_a_few_sources_are_sent_alone_so_that_every_worker_gets_some() -> None:
    tables = SourceBlocks(sources(20), workers=2).all_tables()
    assert [table.num_rows for table in tables] == [1] * 20


def test_many_sources_share_blocks_and_the_last_blocks_are_smaller() -> None:
    rows = [table.num_rows for table in SourceBlocks(sources(1000), workers=2).all_tables()]
    assert len(rows) < 40
    assert rows[0] == 62
    assert rows == sorted(rows, reverse=True)
    assert max(rows[-4:]) <= 15


def test_a_block_stays_small_in_bytes() -> None:
    large = BLOCK_BYTES // 7 // 2 + 1
    tables = SourceBlocks(sources(6, size=large), workers=1, per_block=6).all_tables()
    assert [table.num_rows for table in tables] == [1] * 6


def test_a_long_listing_is_read_only_as_far_as_the_survey() -> None:
    seen: list[int] = []
    blocks = SourceBlocks(sources(100_000, seen), workers=2)
    assert not blocks.complete
    assert len(seen) == SURVEY_SOURCES
    next(blocks.tables())
    assert len(seen) == SURVEY_SOURCES


class Reader:
    """Accepts everything that is offered; ``standing`` is its report about itself."""

    def __init__(self, standing: Standing, enough: int) -> None:
        self.standing = standing
        self.enough = enough  # sources
        self.full = threading.Event()
        self.tables: list[Any] = []

    @property
    def sources(self) -> int:
        return sum(table.num_rows for table in self.tables)

    def offer(self, tables: list[Any], last: bool) -> Standing:
        self.tables.extend(tables)
        if self.sources >= self.enough:
            self.full.set()
        return self.standing

    def feeder(self, blocks: SourceBlocks) -> Feeder:
        return Feeder(blocks, self.offer, lambda: self.standing)


def test_the_feeder_stays_a_little_ahead_of_the_requests() -> None:
    seen: list[int] = []
    blocks = SourceBlocks(sources(100_000, seen), workers=2, per_block=50)
    reader = Reader(Standing(asked=45), enough=(45 + TABLES_AHEAD) * 50)
    feeder = reader.feeder(blocks)
    feeder.start()
    assert reader.full.wait(30)
    feeder.stop()
    assert not feeder.is_alive()
    assert len(reader.tables) == 45 + TABLES_AHEAD
    assert len(seen) <= SURVEY_SOURCES + (len(reader.tables) + 1) * 50


def test_the_feeder_stays_a_little_ahead_of_finished_work_however_many_requests_there_are() -> None:
    blocks = SourceBlocks(sources(100_000), workers=2)
    reader = Reader(Standing(asked=10**6, through=640), enough=640 + SOURCES_AHEAD)
    feeder = reader.feeder(blocks)
    feeder.start()
    assert reader.full.wait(30)
    feeder.stop()
    assert reader.sources < 640 + SOURCES_AHEAD + 2 * blocks.per_block


def test_the_listing_continues_if_no_work_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished work may wait for sources that are not listed yet."""
    monkeypatch.setattr("curator_backends.sources.HELD_SECONDS", 0.01)
    reader = Reader(Standing(asked=10**6), enough=2 * SOURCES_AHEAD)
    blocks = SourceBlocks(sources(2 * SOURCES_AHEAD), workers=2, per_block=1_000)
    assert blocks.most_ahead > SOURCES_AHEAD
    feeder = reader.feeder(blocks)
    feeder.start()
    assert reader.full.wait(30)
    feeder.join(30)
    assert reader.sources == 2 * SOURCES_AHEAD


def test_sources_that_a_reader_keeps_back_cannot_use_up_the_listing_limit() -> None:
    smallest = len(encode_task(FileGroupTask(data=["a"], task_id="s")))
    assert SOURCES_AHEAD * smallest > 2 * LISTED_BLOCK_BYTES


def test_the_error_of_a_failed_listing_is_kept() -> None:
    def listing() -> Iterator[Task[Any]]:
        yield from sources(SURVEY_SOURCES)
        raise OSError("the bucket is gone")

    feeder = Reader(Standing(10**6, 10**6), enough=10**6).feeder(SourceBlocks(listing(), workers=2))
    feeder.start()
    feeder.join(30)
    assert isinstance(feeder.failure, OSError)
