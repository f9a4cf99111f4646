"""Equal texts have equal hashes, and others do not."""

from __future__ import annotations

import hashlib
import unicodedata

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given

from curator_text.dedup import characters
from curator_text.dedup.exact import exact_hash

from . import naive

TEXTS = st.one_of(
    st.none(),
    st.text(max_size=20),
    st.text("ae\u0301\u0323éệ\u0302 \uff0c,.A가\u1100\u1161\u0897\u0344…Å", max_size=20),
)


def digest(text: str) -> list[int]:
    return np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), np.uint64).tolist()


@given(texts=st.lists(TEXTS, max_size=6))
@example(texts=["e\u0301", "é"])
def test_a_hash_is_that_of_the_text_in_nfc(texts: list[str | None]) -> None:
    hashes, lengths = exact_hash(pa.array(texts, pa.string()))
    composed = [characters.nfc(text or "") for text in texts]
    assert hashes.tolist() == [digest(text) for text in composed]
    assert lengths.tolist() == [len(text.encode()) for text in composed]


@given(text=st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs", "Cn"])))
def test_nfc_is_that_of_unicode(text: str) -> None:
    if not any(ord(c) in naive.LATER for c in text):
        assert characters.nfc(text) == unicodedata.normalize("NFC", text)


def test_characters_that_came_later_are_left_as_they_are() -> None:
    # U+0897 is a mark since Unicode 16, and would be put behind U+0323.
    assert characters.nfc("a\u0897\u0323e\u0301") == "a\u0897\u0323é"


@given(texts=st.lists(TEXTS, max_size=6))
def test_normalized_texts_are_their_words(texts: list[str | None]) -> None:
    hashes, lengths = exact_hash(pa.array(texts, pa.string()), normalize=True)
    for text, numbers, length in zip(texts, hashes.tolist(), lengths.tolist(), strict=True):
        expected = naive.spaced(text or "") or characters.nfc(text or "")
        assert (numbers, length) == (digest(expected), len(expected.encode()))


def test_what_normalizing_makes_equal() -> None:
    hashes, lengths = exact_hash(
        pa.array(["Hello,  World!", "hello world", "hell oworld", "…", "...", "", None]), normalize=True
    )
    assert hashes[0].tolist() == hashes[1].tolist() != hashes[2].tolist()
    assert hashes[3].tolist() != hashes[4].tolist()
    assert lengths[3] > 0
    assert lengths[5:].tolist() == [0, 0]


@pytest.mark.parametrize("normalize", [False, True])
def test_no_texts_have_no_hashes(normalize: bool) -> None:
    hashes, lengths = exact_hash(pa.array([], pa.string()), normalize=normalize)
    assert (hashes.shape, lengths.shape) == ((0, 2), (0,))
