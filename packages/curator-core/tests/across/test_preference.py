import numpy as np
import pyarrow as pa
import pytest

from curator_core.across.preference import Preference
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


def test_the_first_rule_decides_and_the_next_breaks_ties():
    table = pa.table({"score": [0.5, 0.5, 0.9, 0.1]})
    assert encoded([{"highest": "score"}, "longest", "first"], table) == [2, 1, 0, 3]
    assert encoded([{"lowest": "score"}, "shortest"], table) == [3, 0, 1, 2]


def test_unranked_collections_come_after_ranked_ones():
    table = pa.table({"score": [1, 2, 3, 4]})
    assert encoded([{"rank": ["wiki", "web"]}, "first"], table) == [1, 3, 0, 2]


def test_without_first_the_hash_of_the_text_decides_before_the_place():
    table = pa.table({"score": [1, 1, 1, 1]})
    assert encoded([{"highest": "score"}], table) == [3, 2, 1, 0]
    assert encoded([{"highest": "score"}, "first"], table) == [0, 1, 2, 3]


def test_whole_and_fractional_scores_of_different_files_are_compared():
    whole, parts = (
        Preference.of([{"highest": "score"}], "Test").encode(
            pa.table({"score": values}), np.zeros(2, np.uint64), COLLECTIONS
        )
        for values in ([1, 3], [0.5, 2.5])
    )
    keys = [*whole["prefer0"].tolist(), *parts["prefer0"].tolist()]
    assert [keys.index(key) for key in sorted(keys)] == [1, 3, 0, 2]


@pytest.mark.parametrize(
    ("keep", "says"),
    [
        ("longest", "must be a list"),
        ([], "must be a list"),
        (["longes"], "did you mean 'longest'"),
        (["highest"], "with a value"),
        ([{"highest": 3}], "not {'highest': 3}"),
        ([{"rank": "wiki"}], "not {'rank': 'wiki'}"),
        (["first", "longest"], "'longest' would never be used"),
    ],
)
def test_a_meaningless_order_is_refused(keep, says):
    with pytest.raises(UsageError, match=r"ExactDedup\.keep") as caught:
        Preference.of(keep, "ExactDedup")
    assert says in str(caught.value)


def test_a_score_that_is_text_is_refused_by_name():
    with pytest.raises(UsageError, match="the score 'score' of keep must hold numbers, not string"):
        encoded([{"highest": "score"}], pa.table({"score": ["a", "b", "c", "d"]}))
