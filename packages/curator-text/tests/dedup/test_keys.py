"""Documents that share a key are tied to one of them, each pair once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_core.across.index import OldDocuments
from curator_text.dedup.keys import FindCandidates, _stars


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 5)), max_size=30))
def test_each_document_is_tied_to_the_first_that_has_one_of_its_keys(entries: list[tuple[int, int]]) -> None:
    documents: dict[int, set[int]] = {}
    for key, number in entries:
        documents.setdefault(key, set()).add(number)
    wanted = sorted({(min(those), other) for those in documents.values() for other in those if other != min(those)})
    keys, numbers = (np.array([entry[place] for entry in entries], np.uint64) for place in (0, 1))
    first, other = _stars(keys << np.uint64(60), numbers << np.uint64(32))
    assert first.dtype == other.dtype == np.uint64
    assert list(zip((first >> np.uint64(32)).tolist(), (other >> np.uint64(32)).tolist(), strict=True)) == wanted


@pytest.mark.parametrize(("against", "pairs"), [("self", 1), ("both", 1), ("index", 0)])
def test_without_old_documents_nothing_is_tied_against_the_index(against: str, pairs: int) -> None:
    stage = FindCandidates(path="pairs", keys="keys", against=against)  # type: ignore[arg-type]
    stage._old = OldDocuments("keys", 1, compare=False)
    first, _ = stage._near(np.array([5, 5, 6], np.uint64), np.array([1, 2, 3], np.uint64))
    assert len(first) == pairs
