"""Groups of documents: what edges connect, in one task and in rounds."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_core.across.groups import Groups, components, groups_of, stars
from curator_core.errors import CuratorError, UsageError
from curator_core.executors.local import LocalExecutor

HERE = LocalExecutor(workers=0)


def naive(edges: list[tuple[int, int]]) -> dict[int, int]:
    """The smallest number connected with each, by plain Python."""
    root: dict[int, int] = {}

    def find(node: int) -> int:
        while root.setdefault(node, node) != node:
            node = root[node]
        return node

    for one, other in edges:
        low, high = sorted((find(one), find(other)))
        root[high] = low
    return {node: find(node) for node in root}


NODES = st.sampled_from(
    [0, 1, 2, 3, 4, 5, 1 << 32, (1 << 32) + 1, 7 << 32, (7 << 32) + 5, (1 << 64) - 1]
) | st.integers(0, 40)
EDGES = st.lists(st.tuples(NODES, NODES), max_size=60)


def arrays(edges: list[tuple[int, int]]) -> tuple[Any, Any]:
    return np.array([a for a, _ in edges], np.uint64), np.array([b for _, b in edges], np.uint64)


@settings(max_examples=300, deadline=None)
@given(EDGES)
def test_components_are_those_of_a_naive_union_find(edges):
    members, groups = components(*arrays(edges))
    assert dict(zip(members.tolist(), groups.tolist(), strict=True)) == naive(edges)
    assert members.tolist() == sorted(naive(edges))
    assert naive(list(zip(*map(np.ndarray.tolist, stars(*arrays(edges))), strict=True))) == {
        node: group for node, group in naive(edges).items() if list(naive(edges).values()).count(group) > 1
    }


def write_edges(folder: Path, a: Any, b: Any, files: int = 1) -> None:
    folder.mkdir(parents=True)
    for number, (one, other) in enumerate(zip(np.array_split(a, files), np.array_split(b, files), strict=True)):
        table = pa.table({"a": pa.array(one, pa.uint64()), "b": pa.array(other, pa.uint64())})
        with (
            pa.OSFile(str(folder / f"s-1.{number:05}.arrow"), "wb") as out,
            pa.ipc.new_file(out, table.schema) as writer,
        ):
            writer.write_table(table)


def solved(
    tmp_path: Path, memory: int | str, executor: LocalExecutor = HERE, name: str = "a", **options: Any
) -> dict[int, int]:
    work = Groups(edges=str(tmp_path / "edges"), path=str(tmp_path / name / "out"), memory=memory)
    work.run(executor, run_dir=str(tmp_path / name / "run"), **options)
    return found(tmp_path / name / "out", [*range(10)])


def found(out: Path, batches: list[int]) -> dict[int, int]:
    members: dict[int, int] = {}
    for batch in batches:
        rows, groups = groups_of(str(out), batch)
        assert rows.tolist() == sorted(rows.tolist())
        members |= zip((rows + (batch << 32)).tolist(), groups.tolist(), strict=True)
    return members


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("_SUCCESS")}


def some_edges(seed: int, rows: int, nodes: int, batches: int = 10) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    ends = rng.integers(0, nodes, (2, rows), dtype=np.uint64)
    numbers = (ends % np.uint64(batches) << np.uint64(32)) + ends // np.uint64(batches)
    return numbers[0], numbers[1]


@pytest.mark.parametrize("memory", ["512MiB", 10_000, 20_000])
def test_in_one_task_and_in_rounds_the_groups_are_the_same(tmp_path, memory):
    a, b = some_edges(3, 2000, 3000)
    write_edges(tmp_path / "edges", a, b, files=3)
    expected = naive([(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True) if x != y])
    assert solved(tmp_path, memory) == expected
