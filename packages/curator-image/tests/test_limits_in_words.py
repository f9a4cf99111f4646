"""A plan describes in words which images the filters keep."""

from __future__ import annotations

import pytest

from curator_core import ColumnFilter
from curator_core.config.build import load_stage
from curator_core.registry import STAGES, entries
from curator_image import ResolutionFilter

FILTERS = [
    name
    for name, owners in entries(STAGES).items()
    if owners[0].target.startswith("curator_image") and issubclass(load_stage(name), ColumnFilter)
]


@pytest.mark.parametrize("name", FILTERS)
def test_each_filter_says_what_it_keeps_without_the_names_of_parameters(name: str) -> None:
    said = load_stage(name)().describe()
    assert said.startswith(("keeps images", "keeps pictures")), said
    assert "=" not in said


def test_the_numbers_are_those_of_the_parameters() -> None:
    said = ResolutionFilter(min_width=256, min_height=128, max_height=4000).describe()
    assert said == "keeps images with a width of 256 pixels or more and a height of 128 to 4,000 pixels"
