import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator_core.across.preference import Preference, ordered
from curator_core.errors import UsageError

COLLECTIONS = pa.array(["web", "wiki", "other", "wiki"]).dictionary_encode()


def encoded(keep, table, lengths=(1, 2, 3, 4)):
    preference = Preference.of(keep, "Test")
    columns = preference.encode(table, np.array(lengths, np.uint64), COLLECTIONS)
    count = table.num_rows
    columns |= {
        "number": np.arange(count, dtype=np.uint64),
        "hash_high": np.arange(count, 0, -1).astype(np.uint64),
        "hash_low": np.zeros(count, np.uint64),
    }
    return preference.sort(columns).tolist()


def test_the_first_rule_decides_and_the_next_where_it_ties():
    table = pa.table({"score": [0.5, 0.5, 0.9, 0.1]})
    assert encoded([{"highest": "score"}, "longest", "first"], table) == [2, 1, 0, 3]
    assert encoded([{"lowest": "score"}, "shortest"], table) == [3, 0, 1, 2]


def test_collections_that_are_not_ranked_come_after_those_that_are():
    table = pa.table({"score": [1, 2, 3, 4]})
    assert encoded([{"rank": ["wiki", "web"]}, "first"], table) == [1, 3, 0, 2]


def test_without_first_the_hash_of_the_text_decides_before_the_place():
    table = pa.table({"score": [1, 1, 1, 1]})
    assert encoded([{"highest": "score"}], table) == [3, 2, 1, 0]
    assert encoded([{"highest": "score"}, "first"], table) == [0, 1, 2, 3]


@pytest.mark.parametrize("descending", [False, True])
@given(values=st.lists(st.one_of(st.none(), st.floats(allow_nan=True)), max_size=30))
def test_numbers_keep_their_order_and_what_is_missing_comes_last(descending, values):
    found = ordered(pa.chunked_array([pa.array(values, pa.float64())]), descending=descending, what="it")

    def key(value):
        if value is None or math.isnan(value):
            return (1, 0.0)
        return (0, -value if descending else value)

    for one, a in zip(values, found.tolist(), strict=True):
        for other, b in zip(values, found.tolist(), strict=True):
            assert (a < b) == (key(one) < key(other))


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), max_size=30))
def test_large_whole_numbers_are_not_rounded(values):
    found = ordered(pa.chunked_array([pa.array(values, pa.int64())]), descending=False, what="it").tolist()
    there = sorted(value for value in values if value is not None)
    ranks = sorted(a for a, value in zip(found, values, strict=True) if value is not None)
    by_rank = dict(zip(there, ranks, strict=True))
    for a, value in zip(found, values, strict=True):
        if value is not None and value < 2**63 - 2:
            assert by_rank[value] == a


@pytest.mark.parametrize(
    ("keep", "says"),
    [
        ("longest", "must be a list"),
        ([], "must be a list"),
        (["longes"], "did you mean 'longest'"),
        (["highest"], "with a value"),
        ([{"highest": 3}], "not {'highest': 3}"),
        ([{"rank": "wiki"}], "not {'rank': 'wiki'}"),
        (["first", "longest"], "'longest' would never be asked"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(keep, says):
    with pytest.raises(UsageError, match=r"ExactDedup\.keep") as caught:
        Preference.of(keep, "ExactDedup")
    assert says in str(caught.value)


def test_a_score_that_is_text_is_refused_by_name():
    with pytest.raises(UsageError, match="column 'score' orders documents and must hold numbers, not string"):
        encoded([{"highest": "score"}], pa.table({"score": ["a", "b", "c", "d"]}))
