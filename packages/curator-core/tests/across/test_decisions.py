"""The table of decisions: written by ranges of batches, read by batch, made stricter, listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from more_examples import with_more_examples

from curator_core import FileRecord, RunRefused, UsageError
from curator_core.across import decisions as module
from curator_core.across.decisions import (
    KEPT,
    REMOVED,
    SCHEMA,
    Decisions,
    decisions_of,
    decisions_table,
    finish_decisions,
    write_decisions,
    write_removed,
)
from curator_core.across.rethreshold import rethreshold
from curator_core.across.roll import Roll


def roll_of(batches: int, rows: int = 10) -> Roll:
    return Roll.of([FileRecord(f"s{n // 4}-ab.{n % 4:05}.arrow", rows) for n in range(batches)])


def written(folder: Path, rows: list[dict[str, Any]], roll: Roll, parts: int = 1, **how: Any) -> Decisions:
    records = []
    for number, (first, stop) in enumerate(roll.ranges(parts)):
        mine = [row for row in rows if first <= row["number"] >> 32 < stop]
        columns = {
            name: [row.get(name) for row in mine]
            for name in SCHEMA.names
            if any(name in row for row in [kept(0, 1), *rows])
        }
        table = decisions_table(columns, roll)
        records.append(write_decisions(str(folder), f"part-{number:05}-ab", table))
    finish_decisions(str(folder), records, roll, how)
    return Decisions.open(str(folder))


def removed(number: int, witness: int, **more: Any) -> dict[str, Any]:
    return {
        **{"number": number, "decision": REMOVED, "witness_number": witness, "cluster": witness, "rule": "nothing_new"},
        **{"id": f"d{number}", "witness_id": f"d{witness}", "containment": 0.9, "jaccard": 0.8, "new_words": 3},
        **more,
    }


def kept(number: int, size: int) -> dict[str, Any]:
    return {"number": number, "decision": KEPT, "cluster": number, "cluster_size": size, "id": f"d{number}"}


def at(batch: int, row: int) -> int:
    return batch << 32 | row


DIVIDED = {
    "chosen": st.sets(st.tuples(st.integers(0, 11), st.integers(0, 9)), max_size=60),
    "parts": st.integers(1, 14),
    "group": st.sampled_from([1, 3, 1000]),
}


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(**DIVIDED)
def test_the_part_of_a_batch_has_its_decisions_however_the_table_is_divided(tmp_path_factory, chosen, parts, group):
    rows = [removed(at(*place), 0, cluster_size=2) for place in sorted(chosen, key=lambda place: (-place[1], place[0]))]
    before, module._GROUP_ROWS = module._GROUP_ROWS, group
    try:
        table = written(tmp_path_factory.mktemp("decisions"), rows, roll_of(12), parts)
    finally:
        module._GROUP_ROWS = before
    for batch in [*range(12), 3]:
        expected = [at(batch, row) for row in range(10) if (batch, row) in chosen]
        assert table.of_batch(batch)["number"].to_pylist() == expected
        some = table.of_batch(batch, ["rule"])
        assert some.column_names == ["number", "rule"]
        assert some["number"].to_pylist() == expected
        assert decisions_of(table.folder, batch, ["row"])["number"].to_pylist() == expected
    whole = [number for piece in table.tables(["number"]) for number in piece["number"].to_pylist()]
    assert whole == sorted(at(*place) for place in chosen)
    assert (table.removed, table.kept) == (len(chosen), 0)


test_the_part_of_a_batch_has_its_decisions_in_more_examples = with_more_examples(
    test_the_part_of_a_batch_has_its_decisions_however_the_table_is_divided,
    settings(max_examples=60, deadline=None),
    **DIVIDED,
)


def test_numbers_and_groups_beyond_the_range_of_signed_integers_are_found(tmp_path: Path):
    numbers = [5, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
    record = write_decisions(str(tmp_path), "p", decisions_table({"number": numbers, "decision": [REMOVED] * 4}))
    with pq.ParquetFile(record.path) as file:
        assert module._bounds(file.metadata).tolist() == [[5, (1 << 64) - 1]]


def test_the_places_of_document_and_witness_come_from_the_roll(tmp_path: Path):
    rows = [removed(at(1, 2), at(6, 3)), kept(at(6, 3), 2)]
    (table,) = written(tmp_path, rows, roll_of(8)).tables()
    assert table.schema.equals(SCHEMA)
    first, second = table.select(["source", "row", "witness_source", "witness_row"]).to_pylist()
    assert first == {"source": "s0-ab", "row": 12, "witness_source": "s1-ab", "witness_row": 23}
    assert second == {"source": "s1-ab", "row": 23, "witness_source": None, "witness_row": None}


def test_a_witness_of_another_input_needs_no_number():
    table = decisions_table({"number": [3, 1], "decision": [REMOVED] * 2, "witness_id": ["old", None]}, roll_of(1))
    assert table["number"].to_pylist() == [1, 3]
    assert table["witness_id"].to_pylist() == [None, "old"]
    assert table["row"].to_pylist() == [1, 3]


def test_a_document_with_two_decisions_is_an_error(tmp_path: Path):
    table = decisions_table({"number": [3, 1, 3], "decision": [REMOVED] * 3})
    with pytest.raises(ValueError, match=r"two decisions.*number 3"):
        write_decisions(str(tmp_path), "p", table)
    one = write_decisions(str(tmp_path), "p", decisions_table({"number": [1, 5], "decision": [REMOVED] * 2}))
    other = write_decisions(str(tmp_path), "q", decisions_table({"number": [3], "decision": [REMOVED]}))
    with pytest.raises(ValueError, match="same range"):
        finish_decisions(str(tmp_path), [one, other], roll_of(1))


def test_an_unfinished_folder_and_a_damaged_part_are_named(tmp_path: Path):
    with pytest.raises(UsageError, match="no complete table of decisions"):
        Decisions.open(str(tmp_path))
    table = written(tmp_path, [removed(n, 0) for n in range(1, 9)], roll_of(1))
    (path,) = tmp_path.glob("*.parquet")
    content = bytearray(path.read_bytes())
    content[20] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(RunRefused, match=r"part-00000-ab\.parquet' is damaged"):
        table.of_batch(0)
    path.write_bytes(b"no parquet")
    with pytest.raises(RunRefused, match="is damaged"):
        list(table.tables())


def test_an_empty_table_is_a_valid_table(tmp_path: Path):
    table = written(tmp_path, [], roll_of(3))
    assert table.of_batch(2).schema.equals(SCHEMA)
    assert list(table.tables()) == []
    (tmp_path / "without").mkdir()
    finish_decisions(str(tmp_path / "without"), [], roll_of(0))
    assert Decisions.open(str(tmp_path / "without")).removed == 0


# Lists of ids


def test_removed_documents_are_listed_for_other_tools(tmp_path: Path):
    rows = [removed(1, 0), kept(0, 3), removed(2, 0, id="Zürich \u2028 2")]
    written(tmp_path / "table", rows, roll_of(1))
    for ending in ("txt", "jsonl", "parquet"):
        record = write_removed(str(tmp_path / "table"), str(tmp_path / f"out.{ending}"))
        assert record.rows == 2
    assert (tmp_path / "out.txt").read_bytes().decode().split("\n") == ["d1", "Zürich \u2028 2", ""]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert lines == pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert lines[0] == {
        **{"id": "d1", "source": "s0-ab", "row": 1, "rule": "nothing_new"},
        **{"witness_id": "d0", "witness_source": "s0-ab", "witness_row": 0},
    }


def test_a_list_that_could_not_hold_the_ids_is_refused(tmp_path: Path):
    written(tmp_path / "a", [removed(1, 0, id="two\nlines")], roll_of(1))
    with pytest.raises(UsageError, match=r"'two\\nlines' has a line break.*\.jsonl"):
        write_removed(str(tmp_path / "a"), str(tmp_path / "out.txt"))
    written(tmp_path / "b", [removed(1, 0, id=None)], roll_of(1))
    with pytest.raises(UsageError, match=r"no ids.*\.jsonl"):
        write_removed(str(tmp_path / "b"), str(tmp_path / "out.txt"))
    with pytest.raises(UsageError, match=r"ends in \.txt, \.jsonl or \.parquet"):
        write_removed(str(tmp_path / "b"), str(tmp_path / "out.csv"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


# Another threshold

LIMITS = {"rule": "nothing_new", "threshold": 0.8, "max_new_words": 12}


def sizes_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the size of each cluster, by plain Python."""
    size: dict[int, int] = {}
    for row in rows:
        size[row["cluster"]] = size.get(row["cluster"], 0) + 1
    return [{**row, "cluster_size": size[row["cluster"]]} for row in rows]


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(data=st.data(), parts=st.integers(1, 6))
def test_stricter_limits_undo_only_removals_that_do_not_meet_them(tmp_path_factory, data, parts):
    numbers = [at(batch, row) for batch in range(6) for row in range(5)]
    witnesses = data.draw(st.sets(st.sampled_from(numbers), min_size=1, max_size=4))
    rows: dict[int, dict[str, Any]] = {}
    for number in numbers:
        if number not in witnesses and data.draw(st.booleans()):
            figures = data.draw(st.sampled_from([0.8, 0.85, 0.9, 1.0])), data.draw(st.integers(0, 12))
            rule = data.draw(st.sampled_from(["nothing_new", "nothing_new", "exact"]))
            witness = data.draw(st.sampled_from(sorted(witnesses)))
            rows[number] = removed(number, witness, containment=figures[0], new_words=figures[1], rule=rule)
    originals = [number for number, row in rows.items() if row["rule"] == "nothing_new"]
    for number in numbers:  # exact copies of a removed document share its figures and its witness
        if number not in rows and number not in witnesses and originals and data.draw(st.booleans()):
            original = data.draw(st.sampled_from(originals))
            rows[number] = {
                **rows[original],
                **{"number": number, "id": f"d{number}", "copy_of": original, "copy_of_id": f"d{original}"},
            }
    used = {row["cluster"] for row in rows.values()}
    table = sizes_of([*rows.values(), *(kept(number, 0) for number in used)])
    threshold = data.draw(st.sampled_from([None, 0.8, 0.9, 0.95]))
    most = data.draw(st.sampled_from([None, 12, 5] if threshold else [12, 5]))

    expected = []
    for row in rows.values():
        near = row["rule"] == "nothing_new"
        fails = near and (row["containment"] < (threshold or 0) or row["new_words"] > (12 if most is None else most))
        if not fails:
            expected.append(row)
        elif "copy_of" in row:
            first = row["copy_of"]
            expected.append(removed(row["number"], first, rule="exact", jaccard=1.0, containment=1.0, new_words=0))
    expected += [kept(number, 0) for number in {row["cluster"] for row in expected}]
    expected = sorted(sizes_of(expected), key=lambda row: row["number"])

    folder = tmp_path_factory.mktemp("rethreshold")
    roll = roll_of(6)
    written(folder / "run", table, roll, parts, **LIMITS)
    made = rethreshold(str(folder / "run"), str(folder / "new"), threshold=threshold, max_new_words=most)
    columns = {name: [row.get(name) for row in expected] for name in SCHEMA.names if any(name in r for r in expected)}
    whole = pa.concat_tables([SCHEMA.empty_table(), *made.tables()])
    assert whole.to_pylist() == (decisions_table(columns, roll).to_pylist() if expected else [])
    assert made.removed == sum(row["decision"] == REMOVED for row in expected)
    assert made.settings == {**LIMITS, "threshold": threshold or 0.8, "max_new_words": 12 if most is None else most}


test_stricter_limits_undo_only_such_removals_in_more_examples = with_more_examples(
    test_stricter_limits_undo_only_removals_that_do_not_meet_them,
    settings(max_examples=100, deadline=None),
    data=st.data(),
    parts=st.integers(1, 6),
)


def test_looser_limits_and_rules_without_limits_are_refused(tmp_path: Path):
    run = str(tmp_path / "run")
    written(tmp_path / "run", [removed(1, 0), kept(0, 2)], roll_of(1), **LIMITS)
    for wrong, message in [
        ({}, "needs a threshold"),
        ({"threshold": 0.7}, r"threshold=0\.7 is looser than the 0\.8"),
        ({"max_new_words": 13}, "max_new_words=13 is looser than the 12"),
        ({"threshold": 90}, "above 0 and at most 1, not 90"),
        ({"max_new_words": -1}, "whole number of 0 or more"),
    ]:
        with pytest.raises(UsageError, match=message):
            rethreshold(run, str(tmp_path / "out"), **wrong)
    with pytest.raises(RunRefused, match="holds a table of decisions already"):
        rethreshold(run, f"{run}/", threshold=0.9)
    written(tmp_path / "exact", [removed(1, 0, rule="exact"), kept(0, 2)], roll_of(1), rule="exact")
    with pytest.raises(UsageError, match="by the rule 'exact', which has no limits"):
        rethreshold(str(tmp_path / "exact"), str(tmp_path / "out"), threshold=0.9)
    assert not (tmp_path / "out").exists()


def test_a_threshold_is_compared_with_the_figure_of_the_rule(tmp_path: Path):
    rows = [removed(1, 0, rule="jaccard"), removed(2, 0, rule="jaccard", jaccard=0.95, containment=0.1), kept(0, 3)]
    written(tmp_path / "run", sizes_of(rows), roll_of(1), rule="jaccard", threshold=0.7)
    with pytest.raises(UsageError, match="limit of the rule 'nothing_new'"):
        rethreshold(str(tmp_path / "run"), str(tmp_path / "out"), max_new_words=3)
    made = rethreshold(str(tmp_path / "run"), str(tmp_path / "out"), threshold=0.95)
    assert made.of_batch(0)["number"].to_pylist() == [0, 2]
    assert made.of_batch(0)["cluster_size"].to_pylist() == [2, 2]
    assert np.array_equal(made.roll.rows, [10])
