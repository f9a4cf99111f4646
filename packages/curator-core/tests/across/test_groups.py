"""Groups of documents: what edges connect, in one task and in rounds."""

from __future__ import annotations

import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_core.across import groups
from curator_core.across.groups import components, groups_of, stars
from curator_core.errors import CuratorError, UsageError
from curator_core.executors.local import LocalExecutor
from curator_core.stages.files import parse_bytes
from curator_core.testing.faults import ChaoticExecutor
from curator_core.workflows import groups as groups_workflow
from curator_core.workflows.groups import Groups

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


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(EDGES)
def test_components_equal_those_of_a_naive_union_find(edges):
    members, smallest = components(*arrays(edges))
    assert dict(zip(members.tolist(), smallest.tolist(), strict=True)) == naive(edges)
    assert members.tolist() == sorted(naive(edges))
    assert naive(list(zip(*map(np.ndarray.tolist, stars(*arrays(edges))), strict=True))) == {
        node: group for node, group in naive(edges).items() if list(naive(edges).values()).count(group) > 1
    }


def test_solving_takes_ten_times_the_bytes_of_the_edges_and_by_default_less_than_a_gibibyte():
    a, b = np.random.default_rng(1).integers(0, 200_000, (2, 200_000)).astype(np.uint64)
    tracemalloc.start()
    stars(a, b)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10 * 16 * len(a)
    assert 10 * parse_bytes(Groups(edges="a", path="b").memory, "memory") < 1 << 30


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
        rows, smallest = groups_of(str(out), batch)
        assert rows.tolist() == sorted(rows.tolist())
        members |= zip((rows + (batch << 32)).tolist(), smallest.tolist(), strict=True)
    return members


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("_SUCCESS")}


def some_edges(seed: int, rows: int, nodes: int, batches: int = 10) -> tuple[Any, Any]:
    ends = numbers(np.random.default_rng(seed).integers(0, nodes, (2, rows)), batches)
    return ends[0], ends[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("memory", "rows", "nodes", "rounds", "ends"),
    [
        ("512MiB", 600, 900, False, "one task"),
        (7_500, 600, 900, True, "members"),  # what is left of the edges never fits
        (5_000, 500, 250, True, "one task"),
        pytest.param(10_000, 2000, 3000, True, "members", marks=pytest.mark.thorough),
    ],
)
def test_in_one_task_and_in_rounds_the_groups_are_the_same(tmp_path, memory, rows, nodes, rounds, ends):
    a, b = some_edges(3, rows, nodes)
    write_edges(tmp_path / "edges", a, b, files=3)
    expected = naive([(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True) if x != y])
    assert solved(tmp_path, memory) == expected
    steps = {path.name.partition("-")[2] for path in (tmp_path / "a" / "run" / "steps").iterdir()}
    assert ("small-01" in steps) == rounds
    assert ("members" in steps) == (ends == "members")


def numbers(ids: Any, batches: int = 10) -> Any:
    """Ids as numbers of documents in ``batches`` batches."""
    ids = ids.astype(np.uint64)
    return (ids % np.uint64(batches) << np.uint64(32)) + ids // np.uint64(batches)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("shape", "nodes", "memory"),
    [
        ("chain", 500, 6_000),
        # So little memory takes many small files.
        pytest.param("chain", 500, 1_500, marks=pytest.mark.thorough),
        pytest.param("star", 20_000, 30_000, marks=pytest.mark.thorough),
        # A chain (above) whose numbers are in order.
        pytest.param("line", 1_000, 10_000, marks=pytest.mark.thorough),
    ],
)
def test_a_long_chain_and_a_large_star_become_one_group_in_rounds(tmp_path, shape, nodes, memory):
    rng = np.random.default_rng(0)
    ids = numbers(np.arange(nodes) if shape == "line" else rng.permutation(nodes))
    a, b = (np.full(nodes - 1, ids[-1]), ids[:-1]) if shape == "star" else (ids[:-1], ids[1:])
    mixed = rng.permutation(nodes - 1)
    write_edges(tmp_path / "edges", a[mixed], b[mixed], files=4)
    members = solved(tmp_path, memory)
    assert len(members) == nodes
    assert set(members.values()) == {0}
    steps = [path.name for path in (tmp_path / "a" / "run" / "steps").iterdir()]
    assert any("small-02" in name for name in steps), "it must take rounds"


# Edges that take some rounds, and whose rest does not fit in the memory that is given.
ROWS, NODES, MEMORY = 600, 420, 6_000


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with edges, and with groups that were solved in rounds."""
    folder = tmp_path_factory.mktemp("rounds")
    write_edges(folder / "edges", *some_edges(5, ROWS, NODES), files=3)
    solved(folder, MEMORY)
    return folder


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (groups, groups_workflow):
        monkeypatch.setattr(module, "PART_ROWS", 90)


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
def test_the_groups_have_the_same_bytes_for_any_executor_and_order_of_arrival(tmp_path):
    write_edges(tmp_path / "edges", *some_edges(5, ROWS, NODES), files=3)
    solved(tmp_path, MEMORY)
    expected = files_of(tmp_path / "a" / "out")
    assert len(expected) > 2
    for name, executor in {
        "two": LocalExecutor(workers=2),
        "chaos": ChaoticExecutor({"seed": 1, "workers": 2, "repeat": (1, 1, 2)}),
    }.items():
        solved(tmp_path, MEMORY, executor, name)
        assert files_of(tmp_path / name / "out") == expected


KILLED = """
import os, signal, sys
from curator_core.across import groups
from curator_core.workflows.groups import Groups
from curator_core.executors.local import LocalExecutor
from curator_core.stages.files import parse_bytes
from curator_core.testing.faults import ChaoticExecutor

def progress(state):
    if (state.step, state.finished_sources) >= (int(sys.argv[2]), 3):
        os.kill(os.getpid(), signal.SIGKILL)

Groups(edges=sys.argv[1], path=os.path.abspath("b/out"), memory=int(sys.argv[3])).run(
    LocalExecutor(workers=0), run_dir=os.path.abspath("b/run"), resume=os.path.exists("b/run"), progress=progress
)
"""


@pytest.mark.slow
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_a_run_of_groups_that_is_killed_in_any_step_resumes_and_gives_the_same(tmp_path, rounds, every):
    steps = len(list((rounds / "a" / "run" / "steps").iterdir()))
    assert steps > 5
    killed_in = range(1, steps + 1) if every else (2, 3, steps)
    kills = 0
    for step in killed_in:
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, str(rounds / "edges"), str(step), str(MEMORY)],
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        assert ended.returncode in (0, -signal.SIGKILL), ended.stderr.decode()
        kills += ended.returncode != 0
    assert kills >= len(killed_in) - 1
    Groups(edges=str(rounds / "edges"), path=str(tmp_path / "b" / "out"), memory=MEMORY).run(
        HERE, run_dir=str(tmp_path / "b" / "run"), resume=True
    )
    assert files_of(tmp_path / "b" / "out") == files_of(rounds / "a" / "out")


@pytest.mark.slow
def test_folders_between_the_rounds_are_removed(rounds):
    assert [path.name for path in (rounds / "a" / "run" / "work").iterdir()] == ["notes"]


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("memory", ["1MiB", MEMORY])
def test_a_batch_is_in_only_one_of_several_files(tmp_path, memory):
    a, b = some_edges(5, ROWS, NODES)
    write_edges(tmp_path / "edges", a, b)
    expected = naive([(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True) if x != y])
    assert solved(tmp_path, memory) == expected
    parts = groups._parts(str(tmp_path / "a" / "out" / groups.MANIFEST), "")
    assert len(parts) > 2
    for batch in range(10):
        assert sum(first >> 32 <= batch <= last >> 32 for _, first, last in parts) == 1


def test_no_edges_give_no_groups(tmp_path):
    write_edges(tmp_path / "edges", *arrays([]))
    assert solved(tmp_path, "1MiB") == {}
    (tmp_path / "none").mkdir()
    Groups(edges=str(tmp_path / "none"), path=str(tmp_path / "out")).run(HERE, run_dir=str(tmp_path / "run"))
    assert found(tmp_path / "out", [0]) == {}


def test_an_edge_from_a_document_to_itself_makes_no_group(tmp_path):
    write_edges(tmp_path / "edges", *arrays([(1, 1), (2, 3), (5 << 32, 5 << 32)]))
    assert solved(tmp_path, "1MiB") == {2: 2, 3: 2}


def test_a_file_that_has_no_edges_is_named(tmp_path):
    (tmp_path / "edges").mkdir()
    (tmp_path / "edges" / "x.arrow").write_bytes(b"nothing of the kind")
    with pytest.raises(CuratorError, match=r"x\.arrow' is not a complete Arrow file of edges"):
        solved(tmp_path, "1MiB")
    table = pa.table({"a": [1], "c": [2]})
    with pa.OSFile(str(tmp_path / "edges" / "x.arrow"), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(CuratorError, match=r"needs columns 'a' and 'b' of uint64, and has \['a', 'c'\]"):
        solved(tmp_path, "1MiB", name="b")


@pytest.mark.parametrize("wrong", [{"edges": ""}, {"path": 3}, {"memory": "much"}])
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(UsageError, match=rf"Groups\.{next(iter(wrong))}"):
        Groups(**{"edges": "a", "path": "b", **wrong})
