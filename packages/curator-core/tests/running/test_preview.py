"""A preview counts all sources and keeps three."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from curator_core import EmptyTask, FileGroupTask, Pipeline
from curator_core.model.stage import SourceStage

HELD: list[int] = []


@dataclass
class Endless(SourceStage[FileGroupTask]):
    """Lists sources one at a time, and records how many earlier ones are still held."""

    sources: int = 1000

    def process(self, task: EmptyTask) -> Iterator[FileGroupTask]:
        made: list[weakref.ref[Any]] = []
        for number in range(self.sources):
            source = FileGroupTask(data=[f"{number}.txt"], _metadata={"source_files": [(f"{number}.txt", 2)]})
            made.append(weakref.ref(source))
            yield source
            del source
            HELD.append(sum(ref() is not None for ref in made))


@pytest.mark.parametrize("sources", [1, 2, 3, 1000])
def test_a_preview_does_not_hold_the_sources_that_it_counts(sources: int) -> None:
    HELD.clear()
    preview = Pipeline([Endless(sources=sources)]).preview()
    assert (preview.sources, preview.files, preview.bytes) == (sources, sources, 2 * sources)
    assert max(HELD) <= 4
