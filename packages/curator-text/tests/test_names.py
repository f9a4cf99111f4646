"""Names in pipeline files are the names that Python imports."""

from __future__ import annotations

from importlib.metadata import entry_points

import curator_text


def test_every_registered_stage_is_a_public_name_of_the_package() -> None:
    found = [entry for entry in entry_points(group="curator.stages") if entry.value.startswith("curator_text")]
    assert len(found) > 80
    for entry in found:
        assert entry.load() is getattr(curator_text, entry.name)
        assert entry.name in curator_text.__all__


def test_the_part_of_each_reader_that_reads_files_is_also_registered() -> None:
    names = {entry.name for entry in entry_points(group="curator.stages")}
    readers = {name for name in names & set(curator_text.__all__) if name.endswith("Reader")} - {"ShuffleReader"}
    assert len(readers) == 6
    assert {name.removesuffix("er") for name in readers} <= names
