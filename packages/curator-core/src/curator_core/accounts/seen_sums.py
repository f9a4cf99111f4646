"""How do counts by task become counts by source? Rows of one source and kind are added up to one row.

A source may have many thousands of tasks, and each has a row for every kind of count. A sum stands for the whole
source: if the source is complete, the sum counts, and the rows of its tasks of that kind do not.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curator_core.accounts.seen_rows import SEEN_SCHEMA
from curator_core.arrow.arrays import array, distinct, grouped, to_numpy

# The path of a sum; no task has this path.
WHOLE = "*"
# Fewer rows than this are read faster than they are added up.
WORTH_SUMMING = 1_000
_OF = ("run_source", "generation", "attempt", "stage", "kind", "name", "scale")
_LISTS = ("rows", "kept", "free")


def summed(table: pa.Table) -> pa.Table:
    """One row for each source, generation, attempt and kind of count, with the path `WHOLE`."""
    if not len(table):
        return table
    table = table.unify_dictionaries().combine_chunks()
    group, first = _groups(table)
    scores = np.array([kind == "score" for kind in _dictionary(table["kind"])], bool)[_codes(table["kind"])]
    names = table["names"].combine_chunks().flatten().dictionary_encode()
    order = to_numpy(pc.sort_indices(names.dictionary)).astype(np.int64)
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    ordered = names.dictionary.take(array(order))  # so that equal lists are equal texts
    bins = to_numpy(table["keys"].combine_chunks().flatten()).astype(np.int64)
    parts = []
    for mine, values, words in (
        (scores, bins, None),
        (~scores, places[to_numpy(names.indices)], ordered),
    ):
        rows = np.flatnonzero(mine)
        if len(rows):
            parts.append(_added(table.take(array(rows)), group[rows], values, words))
    made = pa.concat_tables(parts)
    # Groups keep the order in which they first appear, so that the table is always the same.
    numbers = np.concatenate([distinct(group[mine]) for mine in (scores, ~scores) if mine.any()])
    return made.take(array(np.argsort(first[numbers], kind="stable"))).unify_dictionaries()


def sources_in(table: pa.Table) -> set[tuple[str, str]]:
    """The sources of these counts, each with its generation."""
    columns = [table[name].cast(pa.string()).to_pylist() for name in ("run_source", "generation")]
    return set(zip(*columns, strict=True))


def sums_of(table: pa.Table, wanted: Set[tuple[str, str]]) -> pa.Table:
    """The same counts, with one row per kind for each of the ``wanted`` sources (name and generation). Sources that
    have only one row of each kind stay as they are, and so does a small table.
    """
    if not wanted or len(table) < WORTH_SUMMING:
        return table
    table = table.unify_dictionaries().combine_chunks()
    sources, generations = _dictionary(table["run_source"]), _dictionary(table["generation"])
    codes = _codes(table["run_source"]) * len(generations) + _codes(table["generation"])
    named, _, at = grouped(codes)
    pairs = [(sources[code // len(generations)], generations[code % len(generations)]) for code in named.tolist()]
    group, _ = _groups(table)
    several = np.zeros(len(named), bool)
    several[at[np.bincount(group)[group] > 1]] = True
    whole = (np.array([pair in wanted for pair in pairs], bool) & several)[at]
    if not whole.any():
        return table
    rest = table.filter(array(~whole))
    return pa.concat_tables([rest, summed(table.filter(array(whole)))]).unify_dictionaries()


def _groups(table: pa.Table) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """For each row the number of its group, and for each group its first row."""
    codes = np.zeros(len(table), np.int64)
    for name in _OF:
        column = to_numpy(table[name]) if name == "attempt" else _codes(table[name])
        # Groups are renumbered after each column, since the product of all codes would overflow.
        _, _, codes = grouped(codes * (int(column.max(initial=0)) + 1) + column)
    _, first, _ = grouped(codes)
    return codes, first


def _added(
    table: pa.Table, group: np.ndarray[Any, Any], values: np.ndarray[Any, Any], words: pa.Array | None
) -> pa.Table:
    """One row for each group of ``table``, with the numbers of each value (a bin, or a word) added up."""
    numbers, first, group = grouped(group)
    lists = {name: table[name].combine_chunks() for name in (*_LISTS, "keys" if words is None else "names")}
    lengths = np.diff(to_numpy(lists["keys" if words is None else "names"].offsets))
    width = int(values.max(initial=0)) + 1
    cells = np.repeat(group, lengths) * width + values
    found, _, place = grouped(cells)
    offsets = np.searchsorted(found, np.arange(len(numbers) + 1) * width).astype(np.int32)
    columns: dict[str, Any] = {name: table[name].combine_chunks().take(array(first)) for name in SEEN_SCHEMA.names}
    columns["path"] = array([WHOLE] * len(numbers), SEEN_SCHEMA.field("path").type)
    keys = found % width
    if words is None:
        columns["keys"] = pa.ListArray.from_arrays(array(offsets), array(keys.astype(np.int32)))
        # Only scores have a smallest and a largest value.
        for name, of in (("low", np.minimum), ("high", np.maximum)):
            ends = np.full(len(numbers), np.inf if name == "low" else -np.inf)
            of.at(ends, group, to_numpy(table[name]))
            columns[name] = array(ends)
    else:
        columns["names"] = pa.ListArray.from_arrays(array(offsets), words.take(array(keys)).cast(pa.string()))
    for name in _LISTS:
        given = np.diff(to_numpy(lists[name].offsets))
        there = given == lengths  # tokens and bytes are null if they were not counted
        numbers_of = np.zeros(int(lengths.sum()), np.int64)
        numbers_of[np.repeat(there, lengths)] = to_numpy(lists[name].filter(array(there)).flatten())
        sums = np.bincount(place, weights=numbers_of, minlength=len(found)).astype(np.int64)
        has = np.zeros(len(numbers), bool)
        has[group[there & (lengths > 0)]] = True
        kept = np.repeat(has, np.diff(offsets))
        sizes = np.where(has, np.diff(offsets), 0)
        ends = np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)
        columns[name] = pa.ListArray.from_arrays(array(ends), array(sums[kept]))
    return pa.table([columns[name] for name in SEEN_SCHEMA.names], schema=SEEN_SCHEMA)


def _codes(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    return to_numpy(_one(column).indices).astype(np.int64)


def _dictionary(column: pa.ChunkedArray) -> list[str]:
    found: list[str] = _one(column).dictionary.to_pylist()
    return found


def _one(column: pa.ChunkedArray) -> pa.DictionaryArray:
    plain = column.combine_chunks()
    if isinstance(plain, pa.ChunkedArray):
        plain = plain.chunk(0) if plain.num_chunks else pa.array([], column.type)
    return plain
