"""The first document beyond a weight: found digit by digit, the same as by sorting."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from more_examples import with_more_examples

from curator_core import DocumentBatch, UsageError, WorkerMetadata
from curator_core.across import selection
from curator_core.across.documents import collection_of
from curator_core.across.grouping import groups_of
from curator_core.across.scores import MISSING, numbers_of, score_keys, weights_of
from curator_core.across.selection import MeasureScores, Requests, Totals
from curator_core.arrow.json_column import JSON
from curator_core.model.task import EmptyTask
from curator_core.workflows.fractions import _answered

# Keys of scores ------------------------------------------------------------------------------------------------------

NUMBERS = st.none() | st.floats(width=32) | st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324])


def worse(value: float | None, highest: bool) -> tuple[bool, float]:
    missing = value is None or math.isnan(value)
    return missing, 0.0 if missing else -value if highest else value


@given(values=st.lists(NUMBERS, max_size=30), highest=st.booleans())
def test_keys_are_in_the_order_of_the_scores_with_missing_ones_last(values, highest):
    made = score_keys(pa.chunked_array([pa.array(values, pa.float64())]), "x", highest=highest)
    numbers = [math.nan if value is None else value for value in values]
    assert np.array_equal(numbers_of(made, highest=highest), np.array(numbers, float), equal_nan=True)
    keys = made.tolist()
    ranks = [worse(value, highest) for value in values]
    for one, key in zip(ranks, keys, strict=True):
        assert one[0] == (key == MISSING)
        for other, second in zip(ranks, keys, strict=True):
            assert (one < other) == (key < second)


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint16(), pa.float16(), pa.float32(), pa.float64()])
def test_a_number_has_the_same_key_whatever_the_type_of_its_column(kind):
    values = np.array([3, 1, 2], np.float16) if kind == pa.float16() else [3, 1, 2]
    found = score_keys(pa.chunked_array([pa.array(values, kind)]), "x")
    assert found.tolist() == score_keys(pa.chunked_array([[3.0, 1.0, 2.0]]), "x").tolist()
    flags = score_keys(pa.chunked_array([[True, False]]), "x")
    assert flags.tolist() == score_keys(pa.chunked_array([[1, 0]]), "x").tolist()
    assert score_keys(pa.chunked_array([pa.nulls(2)]), "x").tolist() == [MISSING, MISSING]


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=30))
def test_whole_numbers_are_compared_as_the_floats_that_they_would_be_in_another_file(values):
    found = score_keys(pa.chunked_array([pa.array(values, pa.int64())]), "x")
    floats = [None if value is None else float(value) for value in values]
    assert found.tolist() == score_keys(pa.chunked_array([pa.array(floats, pa.float64())]), "x").tolist()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array(["a"]), "the score 'q' must hold numbers, not string"),
        (pa.array(["1"], pa.string()).cast(JSON), "several kinds, so put Cast before"),
    ],
)
def test_values_without_an_order_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        score_keys(pa.chunked_array([values]), "the score 'q'")


def test_weights_are_whole_numbers_of_zero_or_more():
    table = pa.table(
        {"n": [1, None, 3], "f": [1.0, 2.0, None], "bad": [0.5, 1, 2], "less": [1, -2, 3], "t": ["1", "x", ""]}
    )
    assert weights_of(table, "rows", "w") is None
    assert weights_of(table, "n", "w").tolist() == [1, 0, 3]
    assert weights_of(table, "f", "w").tolist() == [1, 2, 0]
    for name, message in [
        ("bad", "whole numbers"),
        ("less", "not -2"),
        ("t", "whole numbers"),
        ("no", "no column 'no'"),
    ]:
        with pytest.raises(UsageError, match=message):
            weights_of(table, name, "w")


def group_names(task: DocumentBatch, by: str, bases: tuple[str, ...] = ()) -> list[str | None]:
    groups = groups_of(task, by, bases, "by")
    return [groups.dictionary[code].as_py() for code in groups.indices.to_pylist()]


def test_groups_are_values_as_text_whatever_their_type():
    table = pa.table(
        {"l": ["a", None, "b"], "n": [1, 2, None], "f": [1.0, 2.0, None], "h": [0.5, 1, None], "x": [[1], [], None]}
    )
    task = DocumentBatch(data=table)
    assert group_names(task, "l") == ["a", None, "b"]
    assert group_names(task, "n") == group_names(task, "f") == ["1", "2", None]
    assert group_names(task, "h") == ["0.5", "1", None]
    assert group_names(DocumentBatch(data=pa.table({"l": table["l"].dictionary_encode()})), "l") == ["a", None, "b"]
    assert groups_of(task, None, (), "by") is None
    with pytest.raises(UsageError, match="must hold text or other plain values"):
        groups_of(task, "x", (), "by")


def test_a_collection_is_the_first_folder_below_the_input_or_a_column_of_that_name():
    task = DocumentBatch(data=pa.table({"n": [1, 2]}), _metadata={"source_files": [("in/web/a/x.jsonl", 9)]})
    assert group_names(task, "collection", ("in",)) == ["web", "web"]
    assert group_names(task, "collection", ("in", "in/web")) == ["a", "a"]
    named = DocumentBatch(data=pa.table({"collection": ["c", "d"]}), _metadata=task._metadata)
    assert group_names(named, "collection", ("in",)) == ["c", "d"]
    several = DocumentBatch(data=task.data, _metadata={"source_files": [("in/a/x", 1), ("in/b/x", 1)]})
    with pytest.raises(UsageError, match=r"files of several \(a, b\).*files_per_partition: 1"):
        group_names(several, "collection", ("in",))
    assert collection_of("in/x.jsonl", ["in"]) == collection_of("elsewhere/x/y", ["in"]) == ""


# Requests ------------------------------------------------------------------------------------------------------------


def answered(folder: Path, batches: list[dict[str, Any]], asked: list[tuple[int, str, int]], **how: Any) -> Requests:
    """Measures batches and runs the selecting steps in this process; ``asked`` names groups."""
    columns = [name for name in batches[0] if name.startswith("s")]
    weight = "w" if "w" in batches[0] else "rows"
    measure = MeasureScores(path=str(folder / "scores"), columns=columns, weight=weight, by="g")
    tasks = [DocumentBatch(data=pa.table(batch), task_id=f"a-1.{n:05}") for n, batch in enumerate(batches)]
    measure.finish([record for task in tasks for record in measure.process(task).records])
    totals = Totals.read(str(folder / "scores"))
    requests = Requests.of([(c, totals.names.index(g), bound) for c, g, bound in asked], totals)
    steps = _answered(str(folder), str(folder / "scores"), requests, **how)
    names = []
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            assert len(set(names)) == len(names)
            return end.value
        names.append(step.name)
        files, look = step.stages
        look.setup(WorkerMetadata())
        made = [record for task in files.process(EmptyTask()) for one in look.process(task) for record in one.records]
        look.finish(made)


def by_sorting(batches: list[dict[str, Any]], column: int, group: str, bound: int) -> tuple[int, int] | None:
    rows = []
    for number, batch in enumerate(batches):
        keys = score_keys(pa.chunked_array([pa.array(batch[f"s{column}"], pa.float64())]), "x").tolist()
        weights = batch.get("w", [1] * len(keys))
        rows += [
            (key, number << 32 | row, weight)
            for row, (key, weight, g) in enumerate(zip(keys, weights, batch["g"], strict=True))
            if g == group
        ]
    total = 0
    for key, number, weight in sorted(rows):
        total += weight
        if total > bound:
            return key, number
    return None


SEARCHES = {
    "data": st.data(),
    "few": st.sampled_from([0, 3, 10**6]),
    "bins": st.sampled_from([1 << 10, 1 << 22]),
    "weighted": st.booleans(),
    "keys_alone": st.booleans(),
}


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(**SEARCHES)
def test_the_search_finds_the_same_as_sorting_in_every_group(tmp_path_factory, data, few, bins, weighted, keys_alone):
    scores = st.none() | st.sampled_from([0.5, 0.25, -1.0, 1e300]) | st.floats(0, 1, width=16)
    batches = []
    for _ in range(data.draw(st.integers(1, 4))):
        rows = data.draw(st.integers(1, 8))
        some = lambda values, rows=rows: data.draw(st.lists(values, min_size=rows, max_size=rows))  # noqa: E731
        batch = {"s0": some(scores), "s1": some(scores), "g": some(st.sampled_from("ab"))}
        batches.append({**batch, "w": some(st.integers(0, 5))} if weighted else batch)
    batches = [{**b, "s0": pa.array(b["s0"], pa.float64()), "s1": pa.array(b["s1"], pa.float64())} for b in batches]
    groups = sorted({g for batch in batches for g in batch["g"]})
    asked = data.draw(
        st.lists(st.tuples(st.integers(0, 1), st.sampled_from(groups), st.integers(0, 40)), min_size=1, max_size=8)
    )
    before = selection.MOST_CANDIDATES, selection.MOST_BINS
    selection.MOST_CANDIDATES, selection.MOST_BINS = few, bins
    try:
        found = answered(tmp_path_factory.mktemp("selection"), batches, asked, keys_alone=keys_alone)
    finally:
        selection.MOST_CANDIDATES, selection.MOST_BINS = before
    plain = [{**b, "s0": b["s0"].to_pylist(), "s1": b["s1"].to_pylist()} for b in batches]
    for number, request in enumerate(asked):
        expected = by_sorting(plain, *request)
        assert found.endless[number] == (expected is None)
        if expected is not None:
            assert found.high[number] == expected[0]
            if not keys_alone:
                assert found.low[number] == expected[1]


test_the_search_finds_the_same_in_more_examples = with_more_examples(
    test_the_search_finds_the_same_as_sorting_in_every_group, settings(max_examples=100, deadline=None), **SEARCHES
)


@pytest.mark.slow
def test_a_million_equal_scores_are_ordered_by_number_without_gathering_them(tmp_path, monkeypatch):
    monkeypatch.setattr(selection, "MOST_CANDIDATES", 1000)
    rows = 250_000
    batches = [{"s0": np.zeros(rows), "g": np.repeat("a", rows)} for _ in range(4)]
    collected = []
    process = selection.CollectScores.process
    monkeypatch.setattr(
        selection.CollectScores,
        "process",
        lambda self, task: [(collected.append(one.records[0].rows), one)[1] for one in process(self, task)],
    )
    found = answered(tmp_path, batches, [(0, "a", 777_777)], keys_alone=False)
    assert found.low[0] == 3 << 32 | 27_777
    assert sum(collected) <= 1000


def test_more_groups_than_fit_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(selection, "MOST_GROUPS", 2)
    with pytest.raises(UsageError, match=r"MeasureScores\.by 'g' has more than 2 values"):
        answered(tmp_path, [{"s0": [1.0] * 3, "g": ["a", "b", "c"]}], [], keys_alone=False)
