"""Ids of tasks encode their origin: they are deterministic, unique, readable, fit for file names, and in order."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from curator_core.model.lineage import child_id, lineage_key, source_id, source_of

paths = st.lists(st.integers(0, 250_000), max_size=5)


def descend(path: list[int]) -> str:
    task = "source-0"
    for index in path:
        task = child_id(task, index)
    return task


@given(paths, paths)
def test_ids_are_unique_and_sort_in_the_order_of_one_process(one: list[int], other: list[int]) -> None:
    assert (descend(one) == descend(other)) == (one == other)
    assert (lineage_key(descend(one)) < lineage_key(descend(other))) == (one < other)


@given(paths)
def test_an_id_leads_back_to_its_source(path: list[int]) -> None:
    assert source_of(descend(path)) == "source-0"


def test_ids_sort_as_text_up_to_a_hundred_thousand_children() -> None:
    ids = [child_id("s", index) for index in (0, 9, 10, 99_999)]
    assert ids == sorted(ids)


@given(st.text(max_size=100), st.lists(st.text(max_size=20), max_size=4))
def test_the_id_of_a_source_is_a_valid_file_name_and_always_the_same(label: str, parts: list[str]) -> None:
    made = source_id(label, parts)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,80}", made)
    assert made == source_id(label, iter(parts))


@given(st.lists(st.text(max_size=5), min_size=1, max_size=4), st.lists(st.text(max_size=5), min_size=1, max_size=4))
def test_other_parts_give_another_source(one: list[str], other: list[str]) -> None:
    if "\0" not in "".join(one + other):
        assert (source_id("x", one) == source_id("x", other)) == (one == other)


def test_ids_do_not_change_between_releases_because_files_are_named_after_them() -> None:
    assert source_id("page 1", ["in/page 1.jsonl", "0-100"]) == "page_1-927283c08f10"
    assert child_id("page", 2) == "page.00002"
