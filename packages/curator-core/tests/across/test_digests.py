import json
import re
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_core.across.digests import _MAY_CHANGE, composed, digests
from curator_core.arrow.json_column import JSON


def pairs(values, **options):
    found = digests(pa.chunked_array([values]), **options)
    return list(
        zip(found.high.tolist(), found.low.tolist(), found.lengths.tolist(), strict=True)
    ), found.present.tolist()


def test_an_accent_written_in_two_ways_gives_the_same_text():
    found, present = pairs(pa.array(["caf\u00e9", "cafe\u0301", "cafe"]))
    assert found[0] == found[1] != found[2]
    assert [length for *_, length in found] == [4, 4, 4]
    assert present == [True, True, True]


def test_nothing_is_a_copy_of_null_or_of_the_empty_text():
    assert pairs(pa.array([None, "", "x"]))[1] == [False, False, True]
    assert pairs(pa.array([" \n", "--", "x"]), normalize=True)[1] == [False, False, True]
    assert pairs(pa.array([None, 3]))[1] == [False, True]


def test_normalized_texts_do_not_differ_by_case_or_by_what_is_between_words():
    found, _ = pairs(pa.array(["Hello,  World!", "hello world", "helloworld", "ΑΒΓ", "αβγ"]), normalize=True)
    assert found[0] == found[1] != found[2]
    assert found[3] == found[4]


def test_the_hash_is_fixed():
    """The next version must still recognise the content of an index."""
    assert pairs(pa.array(["hello"]))[0] == [(0x2285F2D40874FB46, 0x1B8525EA16F54A8F, 5)]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_the_arrow_type_of_a_text_makes_no_difference(kind):
    values = ["a", None, "bb", "a"]
    assert pairs(pa.array(values, kind)) == pairs(pa.array(values, pa.string()))


def test_a_value_in_a_mixed_column_equals_the_same_value_in_a_column_of_its_type():
    values = ["a", 5, None, 2.5, [1, "b"]]
    mixed, present = pairs(pa.ExtensionArray.from_storage(JSON, pa.array([v and json.dumps(v) for v in values])))
    assert present == [True, True, False, True, True]
    for place, values in ((0, ["a"]), (1, pa.array([5], pa.int8())), (3, [2.5])):
        assert pairs(pa.array(values))[0] == [mixed[place]]
    assert len(set(mixed)) == 5


@given(st.lists(st.one_of(st.none(), st.binary(max_size=5)), max_size=20), st.integers(0, 3))
def test_equal_bytes_and_only_those_have_equal_hashes_also_in_slices(values, start):
    whole = pa.array(values, pa.binary())
    found, present = pairs(whole.slice(start))
    cut = values[start:]
    assert present == [bool(value) for value in cut]
    for one, a in zip(cut, found, strict=True):
        for other, b in zip(cut, found, strict=True):
            assert (a == b) == ((one or b"") == (other or b""))


def test_texts_that_are_only_checked_are_already_composed():
    kept = re.compile(
        re.sub(r"\\x\{(\w+)\}", lambda found: f"\\U{int(found[1], 16):08x}", _MAY_CHANGE).replace("[^", "[", 1)
    )
    points = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    simple = {point for point in points if kept.match(point)}
    assert len(simple) > 20_000
    assert all(unicodedata.normalize("NFC", point) == point and not unicodedata.combining(point) for point in simple)
    # No pair of them is one character in NFC.
    pairs = (unicodedata.decomposition(point).split() for point in points)
    assert not [
        pair
        for pair in pairs
        if len(pair) == 2 and all(part.isalnum() for part in pair) and chr(int(pair[1], 16)) in simple
    ]


@given(st.lists(st.none() | st.text("ae\u0301\u2019\u2126\u1161\u1100한가語"), max_size=6))
def test_texts_are_composed_and_null_stays(values):
    texts = pa.chunked_array([pa.array(values[:2], pa.large_string()), pa.array(values[2:], pa.large_string())])
    wanted = [None if value is None else unicodedata.normalize("NFC", value) for value in values]
    assert composed(texts).to_pylist() == wanted
