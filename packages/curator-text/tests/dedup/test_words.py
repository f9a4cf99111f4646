"""The words and shingles of blocks of texts equal those of the definition."""

from __future__ import annotations

import hashlib

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings

from curator_text.dedup import characters
from curator_text.dedup.words import blocks_of, shingles_of, spans_of, words_of

from . import naive

ALPHABETS = (
    "abcXYZ09 .,\n",
    "aé\u0301\u0323êẾß ſﬁ™½²İı·",
    "我们的数据 \uff0c\u3002iPhone手机カタカナひらがなｶﾞ\u3099",
    "ที่ราบสูงกำ ลาວ ខ្មែរ မြန်မာ བོད་ཡིག",
    "العربية\u0651\u064e हिन्दी\u093c क़ 한국어 \u1100\u1161\u11a8",
    "Ελλάς Россия Ёё \uff21\uff42\uff11 \u00ad\u200b\u200d\ufe0f😀é…“”",
    "\u0378\ua7cb\U0001ccd6\u0897\U00031350\U000323b0",
)
TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(ALPHABETS).flatmap(lambda letters: st.text(letters, max_size=60)),
    st.text("".join(ALPHABETS), max_size=60),
)


def spelt(texts: list[str | None], kind: str = "words") -> list[list[tuple[str, bool]]]:
    found: list[list[tuple[str, bool]]] = []
    for documents in blocks_of(pa.array(texts, pa.string()), 64):
        spans = spans_of(documents, kind=kind)
        raw = bytes(spans.data)
        bounds = zip(spans.starts.tolist(), spans.ends.tolist(), strict=True)
        flags = np.zeros(len(spans.starts), bool) if spans.marks is None else spans.marks
        words = list(zip([raw[a:b].decode() for a, b in bounds], flags.tolist(), strict=True))
        found += [words[a:b] for a, b in zip(spans.first.tolist(), spans.last.tolist(), strict=True)]
    return found


@pytest.mark.slow
@settings(max_examples=400)
@given(texts=st.lists(TEXTS, max_size=6), kind=st.sampled_from(["words", "characters"]))
@example(texts=["e\u0302\u0323 e\u0323\u0302", "ệ"], kind="words")
@example(texts=["\u0301a", ".\u0301\u0302", "a\u0301", "😀\ufe0f\u20e3"], kind="words")
def test_words_equal_those_of_the_definition(texts: list[str], kind: str) -> None:
    assert spelt(texts, kind) == [naive.words(text, kind) for text in texts]


@settings(max_examples=200)
@given(text=TEXTS)
def test_folding_again_changes_nothing(text: str) -> None:
    folded = characters.fold(text)
    assert folded.split() == naive.folded(text).split()
    assert characters.fold(folded) == folded


@pytest.mark.slow
def test_every_character_alone_and_between_letters_follows_the_definition() -> None:
    points = (
        [p for p in range(0x3400) if not 0xD800 <= p < 0xE000]
        + list(range(0xA000, 0xAC10))
        + list(range(0xF900, 0x11000))
    )
    texts = [f"x{chr(point)}y {chr(point)}" for point in points]
    for text, words in zip(texts, spelt(texts), strict=True):
        assert words == naive.words(text), text


def test_tables_are_the_same_on_every_version_of_python() -> None:
    tables = characters.kinds(), characters.rewrites(), characters.classes()
    assert (
        hashlib.sha256(b"".join(table.tobytes() for table in tables)).hexdigest()
        == "be05b44cb31058fe119617bda89c5d7908017ee545c2adc595b31147c59c5b8f"
    )


def test_numbers_of_words_and_shingles_never_change() -> None:
    words = words_of(pa.array(["The quick brown Fox", "internationalization " * 2, "x" * 50, "数据", None, ""]))
    assert words.offsets.tolist() == [0, 4, 6, 7, 9, 9, 9]
    assert [hex(n) for n in words.hashes.tolist()] == [
        "0x28bd703505a24e33",
        "0xa01c810b0afcb38a",
        "0x6fbec65a0334913b",
        "0x5eba2cac06465702",
        "0x4c2c62ed73af8e16",
        "0x4c2c62ed73af8e16",
        "0x8b44109c1def7e61",
        "0x2692d2258d684b3b",
        "0xa170a87622dbe9b8",
    ]
    assert [hex(n) for n in shingles_of(words).hashes.tolist()] == [
        "0xb3be961f9b7bd054",
        "0x4142a577cf38869e",
        "0x3c542cf84a87ae43",
        "0x15f7d5f1d5459312",
        "0xc79a9070e427f16a",
    ]


@pytest.mark.slow
@settings(max_examples=300)
@given(texts=st.lists(TEXTS, max_size=6), size=st.integers(1, 4), characters=st.integers(1, 6))
def test_shingles_equal_those_of_the_definition(texts: list[str], size: int, characters: int) -> None:
    words = words_of(pa.array(texts, pa.string()))
    made = shingles_of(words, size=size, characters=characters)
    numbers = words.hashes.tolist()
    for row, text in enumerate(texts):
        a, b = made.offsets[row : row + 2].tolist()
        base = int(words.offsets[row])
        expected = naive.shingles(naive.words(text), size, characters)
        assert list(zip(made.first[a:b] - base, made.last[a:b] - base, strict=True)) == expected
        for number, (first, last) in zip(made.hashes[a:b].tolist(), expected, strict=True):
            rolled = 0
            for word in numbers[base + first : base + last]:
                rolled = (rolled * 0x8CB92BA72F3D8DD7 + word) % 2**64
            rolled = (rolled ^ rolled >> 32) * 0xFF51AFD7ED558CCD % 2**64
            assert number == rolled ^ rolled >> 29


@pytest.mark.slow
@settings(max_examples=100)
@given(texts=st.lists(st.one_of(st.none(), TEXTS), max_size=8), cut=st.integers(0, 8))
def test_chunks_slices_and_types_of_the_array_change_nothing(texts: list[str | None], cut: int) -> None:
    whole = words_of(pa.array(texts, pa.string()))
    parts = pa.chunked_array([pa.array([*texts[:cut], "cut"])[:-1], pa.array(["x", *texts[cut:]], pa.string())[1:]])
    for other in (parts, pa.array(texts, pa.large_string()), pa.array(texts, pa.string()).cast(pa.string_view())):
        same = words_of(other)
        assert np.array_equal(same.hashes, whole.hashes)
        assert np.array_equal(same.offsets, whole.offsets)


def test_only_equal_words_have_equal_numbers() -> None:
    spellings = [f"{'a' * length}{end}" for length in range(80) for end in ("", "b", "c")]
    numbers = words_of(pa.array(spellings)).hashes
    assert len(set(numbers.tolist())) == len({s for s in spellings if s})
    again = words_of(pa.array([" ".join(spellings)]))
    assert np.array_equal(again.hashes, numbers)


def test_a_column_of_numbers_is_refused() -> None:
    with pytest.raises(Exception, match="not int64: cast it first"):
        words_of(pa.array([1]))
